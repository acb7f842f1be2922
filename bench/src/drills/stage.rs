//! A drill from its first process to its verdict: a world, those who read and purge in it, and the audit at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::JoinSet;

use super::outcome::Outcome;
use super::purges::purge;
use super::readers::{read, sweep};
use super::record::Call;
use super::scene::Scene;
use super::{Name, Settings, audit};
use crate::figures::Samples;
use crate::world::{Plan, World};

/// A drill that is under way.
#[derive(Debug)]
pub(crate) struct Stage {
    /// Its processes.
    pub(crate) world: World,
    /// What its readers and purgers share.
    pub(crate) scene: Arc<Scene>,
    /// What is wrong so far.
    pub(crate) complaints: Vec<String>,
    /// What is worth telling beside the verdict.
    pub(crate) notes: Vec<String>,
    drill: Name,
    begun: Instant,
    tasks: JoinSet<()>,
    seed: u64,
}

impl Stage {
    /// Starts the processes of a drill.
    pub(crate) async fn set(settings: &Settings, drill: Name) -> Result<Self> {
        let begun = Instant::now();
        let plan = Plan { lease: settings.lease(), keys: settings.keys(), shared: drill.shared() };
        let world = World::start(&settings.binary, settings.wan.as_deref(), plan).await?;
        let scene = Arc::new(Scene::of(&world));
        let notes = vec![world.ways()];
        Ok(Self { world, scene, complaints: Vec::new(), notes, drill, begun, tasks: JoinSet::new(), seed: 1 })
    }

    fn next_seed(&mut self) -> u64 {
        self.seed += 1;
        self.seed
    }

    /// Lets so many readers read at each edge.
    pub(crate) fn read(&mut self, per_edge: usize, pause: Duration) {
        for edge in 0..self.scene.edges.len() {
            for _ in 0..per_edge {
                let seed = self.next_seed();
                self.tasks.spawn(read(Arc::clone(&self.scene), edge, seed, pause));
            }
        }
    }

    /// Does something else until the scene is over.
    pub(crate) fn also(&mut self, doing: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(doing);
    }

    /// Purges at a steady rate.
    pub(crate) fn purge(&mut self, calls_per_second: u32) {
        let seed = self.next_seed();
        self.tasks.spawn(purge(Arc::clone(&self.scene), calls_per_second, seed));
    }

    /// Ends reading and purging, and returns what was accepted, once all of it was followed to its receipt.
    pub(crate) async fn end_load(&mut self) -> Result<Vec<Call>> {
        self.scene.end();
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a reader or purger failed")?;
        }
        Ok(self.scene.record.calls())
    }

    /// Judges all that was recorded, and ends the processes.
    pub(crate) async fn close(mut self) -> Result<Outcome> {
        let calls = self.end_load().await?;
        // Every edge follows, and answers for all that was purged.
        self.world.wait_until_all_follow().await?;
        self.scene.truth.slow_down(Duration::ZERO);
        let seed = self.next_seed();
        sweep(&self.scene, seed).await;
        let record = &self.scene.record;
        let (reads, restarts) = (record.reads(), record.restarts());
        self.complaints.extend(audit::of_reads(&reads));
        self.complaints.extend(audit::of_receipts(&calls, &restarts, self.scene.bound));
        self.complaints.extend(audit::of_journal(&calls, &self.world.control.journal().await?));
        let mut completed = Samples::default();
        calls.iter().filter_map(|call| call.took(&restarts)).for_each(|took| completed.add(took));
        if record.refusals() > 0 {
            self.notes.push(format!("{} calls without an answer, of which nothing was promised", record.refusals()));
        }
        Ok(Outcome {
            drill: self.drill,
            took: self.begun.elapsed(),
            reads,
            receipts: calls.iter().filter(|call| call.settled.is_some()).count(),
            purged: calls.iter().map(|call| call.demands.len()).sum(),
            completed,
            bound: self.scene.bound,
            fetches: self.scene.truth.asked(),
            complaints: self.complaints,
            notes: self.notes,
        })
    }
}
