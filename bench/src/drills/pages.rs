//! A site in a drill: who publishes it, who reads its pages, and whether it was ever seen in halves.
//!
//! Each page tells its own key and the number of the publish that it is of. An edge that has shown one publish never shows an
//! older one (P6), and a publish that says that it is everywhere is.

use std::collections::BTreeSet;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use wire::Digest;

use super::record::Record;
use super::scene::Scene;
use crate::chance::Chance;
use crate::control::Control;
use crate::world::World;
use crate::world::tap::Tap;

/// The site in the file of each world that has a store.
const SITE: &str = "www";

/// Its pages, and the bytes of a file that nobody reads: it makes a publish last.
const PAGES: usize = 40;
const LARGE: usize = 6 << 20;

/// How long a publish waits until every edge has it, and after which time it hangs.
const TIMEOUT: &str = "10s";
const HANGS: Duration = Duration::from_secs(90);

/// The pause of a reader between two pages.
const PAUSE: Duration = Duration::from_millis(10);

/// How a publish ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Exit code 0.
    Everywhere,
    /// Exit code 3: accepted.
    NotEverywhere,
    /// It failed, and said why.
    Failed(String),
}

/// The site, as its publisher and its readers share it.
#[derive(Debug)]
pub(crate) struct Site {
    /// What was promised of its pages, and what was seen.
    pub(crate) pages: Record,
    latest: AtomicU64,
    edges: usize,
    program: PathBuf,
    file: PathBuf,
    folder: PathBuf,
}

impl Site {
    /// Prepares the site of a world; nothing is published yet.
    pub(crate) fn of(world: &World) -> Result<Arc<Self>> {
        let (program, file) = world.command_line();
        let folder = world.folder().join("site");
        std::fs::create_dir_all(folder.join("k"))?;
        let (pages, edges) = (Record::new(world.names(), PAGES), world.edges.len());
        Ok(Arc::new(Self { pages, latest: AtomicU64::new(0), edges, program, file, folder }))
    }

    /// Changes every file and publishes them all.
    pub(crate) async fn publish(&self) -> Result<Ended> {
        let number = self.latest.fetch_add(1, Ordering::SeqCst) + 1;
        for page in 0..PAGES {
            std::fs::write(self.folder.join(format!("k/{page}.txt")), format!("{page} {number}\n"))?;
        }
        let large: Vec<u8> = format!("large file of publish {number}\n").into_bytes().into_iter().cycle().take(LARGE).collect();
        std::fs::write(self.folder.join("large.bin"), large)?;
        let ended = self.run().await?;
        if ended == Ended::Everywhere {
            let promised = (0..self.edges).flat_map(|edge| (0..PAGES).map(move |page| (edge, page)));
            promised.for_each(|(edge, page)| self.pages.promise(edge, (page, number)));
        }
        Ok(ended)
    }

    async fn run(&self) -> Result<Ended> {
        let said = self.folder.with_extension("said.txt");
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATOLL_")) {
            command.env_remove(name);
        }
        command.arg("-c").arg(&self.file).args(["--log", "warn", "publish"]).arg(&self.folder);
        command.args(["--site", SITE, "--timeout", TIMEOUT, "--json"]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?).spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > HANGS {
                child.kill()?;
                child.wait()?;
                bail!("a publish hangs for {HANGS:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let said = std::fs::read_to_string(said)?;
        Ok(match status.code() {
            Some(0) => Ended::Everywhere,
            Some(3) => Ended::NotEverywhere,
            code => Ended::Failed(format!("exit code {code:?}: {}", said.trim())),
        })
    }
}

/// Reads pages at one edge until the scene is over.
pub(crate) async fn read_pages(site: Arc<Site>, scene: Arc<Scene>, edge: usize, seed: u64) {
    let Some(address) = scene.edges.get(edge) else { return };
    let (mut tap, mut chance) = (Tap::of_site(*address), Chance::new(seed));
    while !scene.is_over() {
        let page = chance.place(PAGES);
        let floor = site.pages.floor(edge, page);
        match tap.read(page).await {
            Ok(seen) => {
                site.pages.judge(edge, page, floor, &seen);
                (0..PAGES).for_each(|page| site.pages.promise(edge, (page, seen.version)));
            }
            Err(_) => site.pages.fail(edge),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Tells what is wrong with the site once all is well again: an edge that has pages of two publishes, edges that have not
/// the same, or a version that the origin lists and can't give out as a whole. Returns how many versions it looked at.
pub(crate) async fn look_at(site: &Site, scene: &Scene, control: &Control) -> Result<(usize, Vec<String>)> {
    let mut seen = Vec::new();
    for (edge, address) in scene.edges.iter().enumerate() {
        seen.push((edge, shown_at(*address).await.with_context(|| format!("edge {edge} does not show the site"))?));
    }
    let mut wrong = of_wholeness(&seen, site.latest.load(Ordering::SeqCst));
    let listed = control.versions(&SITE.parse()?).await?;
    for row in &listed.versions {
        if let Err(error) = give_out(control, row.version).await {
            wrong.push(format!("version {} is listed and not whole: {error:#}", row.version.short()));
        }
    }
    Ok((listed.versions.len(), wrong))
}

/// Returns the publishes that an edge shows pages of.
async fn shown_at(address: SocketAddr) -> Result<BTreeSet<u64>> {
    let mut tap = Tap::of_site(address);
    let mut shown = BTreeSet::new();
    for page in 0..PAGES {
        let seen = tap.read(page).await?;
        ensure!(seen.key == page, "page {page} has the text of page {}", seen.key);
        shown.insert(seen.version);
    }
    Ok(shown)
}

async fn give_out(control: &Control, version: Digest) -> Result<()> {
    for entry in control.manifest(version).await?.files {
        let bytes = control.blob(entry.digest).await.with_context(|| format!("`{}` can't be had", entry.path))?;
        ensure!(Digest::of(&bytes) == entry.digest, "`{}` has other bytes", entry.path);
    }
    Ok(())
}

/// Judges which publishes each edge shows, of which the latest has this number.
fn of_wholeness(seen: &[(usize, BTreeSet<u64>)], latest: u64) -> Vec<String> {
    let mut wrong = Vec::new();
    for (edge, shown) in seen {
        if shown.len() != 1 {
            wrong.push(format!("edge {edge} shows pages of the publishes {shown:?} at once"));
        }
    }
    let all: BTreeSet<u64> = seen.iter().flat_map(|(_, shown)| shown).copied().collect();
    if all.len() > 1 && wrong.is_empty() {
        wrong.push(format!("edges show different publishes: {all:?}"));
    }
    if all.iter().any(|number| *number > latest) {
        wrong.push(format!("of {latest} publishes {all:?} are shown"));
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_site_in_halves_and_edges_that_differ_are_named() {
        let shown = |numbers: &[&[u64]]| numbers.iter().map(|numbers| numbers.iter().copied().collect()).enumerate().collect::<Vec<_>>();
        assert!(of_wholeness(&shown(&[&[3], &[3], &[3]]), 4).is_empty());
        let cases: [&[&[u64]]; 3] = [&[&[3, 4], &[4], &[4]], &[&[3], &[4], &[4]], &[&[5], &[5], &[5]]];
        for wrong in cases {
            assert_eq!(of_wholeness(&shown(wrong), 4).len(), 1, "{wrong:?}");
        }
    }
}
