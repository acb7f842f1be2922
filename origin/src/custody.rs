//! Whether what this origin acknowledges outlives the end of what it is kept in (P3): its own disk, or a Redis that is asked
//! about its settings now and then. What was found is told in every receipt, and by `atoll status`.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use engine::{Redis, Trouble};
use tokio_util::sync::CancellationToken;
use wire::EngineStatus;

/// How often a Redis is asked: its settings may be changed while it runs.
const EVERY: Duration = Duration::from_secs(5);

/// What keeps the journal, and what was found out about it last.
#[derive(Clone, Debug)]
pub(crate) struct Custody(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    replicas: u64,
    found: RwLock<Found>,
}

#[derive(Clone, Debug, Default)]
struct Found {
    is_well: bool,
    notes: Vec<String>,
    /// What may lose something; what was found last stays while it does not answer.
    losses: Vec<String>,
}

impl Custody {
    /// A file on this machine's disk, which is synced before anything is acknowledged.
    pub(crate) fn own() -> Self {
        Self(None)
    }

    /// A Redis, of whose replicas so many must have each event first.
    pub(crate) async fn of(redis: Redis, replicas: u64) -> Self {
        let losses = vec!["its settings are not known yet".to_owned()];
        let shared = Shared { redis, replicas, found: RwLock::new(Found { losses, ..Found::default() }) };
        shared.look().await;
        Self(Some(Arc::new(shared)))
    }

    /// Asks about the settings until the origin stops.
    pub(crate) async fn watch(self, stop: CancellationToken) {
        let Some(shared) = self.0 else { return };
        let mut ticks = tokio::time::interval(EVERY);
        loop {
            tokio::select! {
                _ = ticks.tick() => shared.look().await,
                () = stop.cancelled() => return,
            }
        }
    }

    /// Returns a sentence for each way in which what is acknowledged may be lost; none where P3 holds.
    pub(crate) fn losses(&self) -> Vec<String> {
        let Some(shared) = &self.0 else { return Vec::new() };
        let say = |loss: &String| format!("what was accepted may be lost with the journal's Redis: {loss}");
        shared.found().losses.iter().map(say).collect()
    }

    /// Tells how it is.
    pub(crate) fn status(&self) -> EngineStatus {
        let name = "journal".to_owned();
        let Some(shared) = &self.0 else { return EngineStatus { name, at: "embedded".to_owned(), well: true, notes: Vec::new() } };
        let Found { is_well, notes, losses } = shared.found();
        EngineStatus { name, at: shared.redis.to_string(), well: is_well && losses.is_empty(), notes: [notes, losses].concat() }
    }
}

impl Shared {
    fn found(&self) -> Found {
        self.found.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn look(&self) {
        let before = self.found();
        let found = match self.redis.inspect().await {
            Ok(said) => Found { is_well: true, notes: Vec::new(), losses: said.losses(self.replicas) },
            Err(trouble) => Found { is_well: false, notes: vec![unanswered(&trouble)], losses: before.losses.clone() },
        };
        if found.losses != before.losses {
            for loss in &found.losses {
                tracing::error!(redis = %self.redis, "what is accepted may be lost with the journal's Redis: {loss}");
            }
        }
        *self.found.write().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

fn unanswered(trouble: &Trouble) -> String {
    format!("it did not answer: {trouble}")
}
