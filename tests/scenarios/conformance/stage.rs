//! Tells the cases of a file in one town, and lists all that came out otherwise.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Result, bail, ensure};
use harness::{Reply, Seen, Town, Upstream, eventually, exchange};

use super::case::{Case, Step};
use super::scene::Scene;
use super::script::{Script, ok};

/// What a scene's upstream has ready, and what it was asked.
#[derive(Debug)]
struct Act {
    scene: Scene,
    ready: Option<Script>,
    step: usize,
    asked: Vec<Seen>,
}

/// All scenes by their path.
#[derive(Clone, Debug, Default)]
struct Stage(Arc<Mutex<BTreeMap<String, Act>>>);

impl Stage {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Act>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn upstream(&self) -> Result<Upstream> {
        let stage = self.clone();
        Ok(Upstream::start(move |seen| stage.play(seen)).await?)
    }

    fn play(&self, seen: &Seen) -> Reply {
        let mut acts = self.lock();
        let act = acts.iter_mut().find(|(base, _)| seen.target.contains(base.as_str()));
        let Some((_, act)) = act else { return Reply::plain(500, "there is no such case") };
        act.asked.push(seen.clone());
        let ready = act.ready.clone().unwrap_or_else(|| ok("Cache-Control: no-store"));
        ready.play(seen, &act.scene, act.step)
    }

    fn begin(&self, scene: &Scene) {
        let act = Act { scene: scene.clone(), ready: None, step: 0, asked: Vec::new() };
        self.lock().insert(scene.base.clone(), act);
    }

    fn prepare(&self, scene: &Scene, number: usize, step: &Step) {
        if let Some(act) = self.lock().get_mut(&scene.base) {
            act.ready.clone_from(&step.reply);
            act.step = number;
        }
    }

    fn asked(&self, scene: &Scene) -> Vec<Seen> {
        self.lock().get(&scene.base).map(|act| act.asked.clone()).unwrap_or_default()
    }

    /// Waits until the upstream was asked so often in a scene.
    async fn wait(&self, scene: &Scene, asked: usize) -> Result<()> {
        eventually(&format!("the upstream to be asked {asked} times"), || async {
            let count = self.asked(scene).len();
            ensure!(count >= asked, "it was asked {count} times");
            Ok(())
        })
        .await
    }

    /// Tells a case, and returns what came out otherwise.
    async fn tell(&self, case: &Case, scene: &Scene, edge: SocketAddr) -> Result<Vec<String>> {
        self.begin(scene);
        let mut otherwise = Vec::new();
        for (number, step) in (1..).zip(&case.steps) {
            if step.after > 0 && otherwise.is_empty() {
                self.wait(scene, step.after).await?;
                // A fetch in the background is stored some time behind its answer.
                let there = eventually("what was fetched behind", || async {
                    let wrong = self.take(scene, edge, number, step).await?;
                    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
                    Ok(())
                })
                .await;
                // Taken once more it might meet what this very step has made the edge fetch.
                if there.is_ok() {
                    continue;
                }
            }
            otherwise.extend(self.take(scene, edge, number, step).await?);
        }
        Ok(otherwise)
    }

    /// Takes one step, and returns what came out otherwise.
    async fn take(&self, scene: &Scene, edge: SocketAddr, number: usize, step: &Step) -> Result<Vec<String>> {
        self.prepare(scene, number, step);
        let before = self.asked(scene).len();
        let heard = exchange(edge, &step.request(scene)).await?;
        let asked: Vec<_> = self.asked(scene).into_iter().skip(before).collect();
        let missed = step.expected.iter().filter(|expected| !expected.is_met(&heard, &asked, scene));
        let requests: Vec<_> = asked.iter().map(|seen| format!("{} {} {:?}", seen.method, seen.target, seen.headers)).collect();
        let (answer, whole) = (&heard.answer, if heard.is_whole { "whole" } else { "broken" });
        let text: String = answer.text().chars().take(80).collect();
        let (status, headers) = (answer.status, &answer.headers);
        let tell = |expected| {
            format!(
                "step {number} ({}): expected {expected}\n    heard {status} {headers:?} {whole} `{text}`\n    upstream {requests:?}",
                step.target
            )
        };
        Ok(missed.map(tell).collect())
    }
}

/// Tells all cases of a file.
pub(super) async fn tell_all(cases: Vec<Case>) -> Result<()> {
    let stage = Stage::default();
    let mut names = BTreeSet::new();
    for case in &cases {
        ensure!(names.insert((case.rule, &case.name)), "there are two cases {} of rule {}", case.name, case.rule);
    }
    let shared = stage.upstream().await?;
    let mut plan = Town::plan().edges(&["fra-1"]).upstream(&shared);
    let routes: BTreeMap<_, _> = cases.iter().filter(|case| !case.alone).filter_map(|case| case.route).collect();
    for (name, lines) in routes {
        plan = plan.route(name, &format!("/{name}/*"), &shared, lines);
    }
    for (number, case) in cases.iter().enumerate().filter(|(_, case)| case.alone) {
        let name = format!("alone-{number}");
        plan = plan.route(&name, &format!("/{name}/*"), &stage.upstream().await?, case.route.map_or("", |(_, lines)| lines));
    }
    let town = plan.start().await?;
    let edge = town.visit("fra-1")?.address();
    let mut table = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let prefix = match case.route {
            _ if case.alone => format!("/alone-{number}"),
            Some((name, _)) => format!("/{name}"),
            None => String::new(),
        };
        // Scenes are told apart by how their path begins: no name goes on behind a dot.
        let id = format!("{}.", case.name);
        let scene = Scene::new(format!("{prefix}/rule-{:02}/{id}", case.rule), id);
        let otherwise = stage.tell(case, &scene, edge).await.unwrap_or_else(|error| vec![format!("{error:#}")]);
        if !otherwise.is_empty() {
            table.push(format!("rule {:02} {} [{}]\n  {}", case.rule, case.name, case.rfc, otherwise.join("\n  ")));
        }
    }
    town.stop().await;
    if !table.is_empty() {
        bail!("{} of {} cases came out otherwise:\n{}", table.len(), cases.len(), table.join("\n"));
    }
    Ok(())
}
