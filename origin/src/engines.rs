//! Opens what the origin keeps its journal and its lease book in: files of its own, or a Redis that origins share.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use config::{JournalEngine, RedisAddress, Settings};
use engine::Redis;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::custody::Custody;
use crate::journal::{Journal, LongestLease};
use crate::lease_book::{Leases, Replicas, Shared};
use crate::sole::Sole;

/// How long the journal's Redis may take for one call: more than its WAIT, and a snapshot of megabytes must get through.
const JOURNAL: Duration = Duration::from_secs(3);

/// The same for the lease book: longer than replicas may take for a grant, and shorter than a follower waits.
const BOOK: Duration = Duration::from_millis(1500);

/// How long replicas may take for a grant before its follower comes again.
const REPLICATED_WITHIN: Duration = Duration::from_millis(500);

/// What an origin keeps what it must not forget in.
pub(crate) struct Engines {
    pub(crate) journal: Journal,
    pub(crate) leases: Leases,
    /// Who does what only one origin at a time may.
    pub(crate) sole: Sole,
    /// Why what is acknowledged may be lost all the same (P3).
    pub(crate) custody: Custody,
    /// What runs for them until the origin stops.
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Engines {
    /// Opens the engines that the settings name; `folder` is for the origin's own files.
    pub(crate) async fn open(settings: &Settings, folder: &Path, new_epoch: bool, stop: &CancellationToken) -> Result<Self> {
        match &settings.origin.journal {
            JournalEngine::Embedded => {
                let journal = Journal::open(folder, new_epoch)?;
                let leases = Leases::embedded(journal.clone());
                Ok(Self { journal, leases, sole: Sole::alone(), custody: Custody::own(), tasks: Vec::new() })
            }
            JournalEngine::Redis { address, replicas } => {
                Self::open_shared(address, *replicas, settings, folder, new_epoch, stop).await.with_context(|| address.key.clone())
            }
        }
    }

    async fn open_shared(
        address: &RedisAddress,
        replicas: u64,
        settings: &Settings,
        folder: &Path,
        new_epoch: bool,
        stop: &CancellationToken,
    ) -> Result<Self> {
        let network = &settings.network.name;
        let custody = Custody::of(Redis::open(address, JOURNAL)?, replicas).await;
        let journal = Journal::open_shared(Redis::open(address, JOURNAL)?, network, replicas, new_epoch).await?;
        // Leases that a lost book granted are waited for by what this machine remembers of them.
        let longest = LongestLease::new(folder);
        let remembered = longest.read().with_context(|| format!("failed to read the longest lease in {}", folder.display()))?;
        let configured = if journal.head().seq > 0 { settings.network.lease } else { Duration::ZERO };
        let assumed = remembered.unwrap_or_default().max(configured);
        let replicated = (replicas > 0).then_some(Replicas { number: replicas, within: REPLICATED_WITHIN });
        let book = Redis::open(address, BOOK)?;
        let (shared, mut tasks) = Shared::open(book, network, journal.clone(), assumed, longest, replicated, stop.clone()).await?;
        tasks.push(tokio::spawn(custody.clone().watch(stop.clone())));
        let sole = Sole::shared(Redis::open(address, JOURNAL)?, network);
        Ok(Self { journal, leases: Leases::Shared(shared), sole, custody, tasks })
    }
}
