//! What `atoll check` asks of the engines that a file names: whether they let us in, and whether they keep what they
//! must. One that can't be reached from here is no mistake in the file: it is named, and nothing is said about it.

use std::time::Duration;

use config::{BlobStore, JournalEngine, OriginNode, RedisAddress, Settings};
use engine::{Inspection, Redis, Trouble};
use futures_util::future::join_all;

use crate::exit::Failure;
use crate::say;

/// How long an engine may take to tell about itself.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was found out about an engine.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// It must be mended.
    Wrong(String),
    /// Somebody should know.
    Notable(String),
}

/// Asks every engine that the settings name, all at once, and says what was found.
///
/// # Errors
/// Where something must be mended.
pub(crate) async fn check(settings: &Settings) -> Result<(), Failure> {
    let journal = async {
        match &settings.origin.journal {
            JournalEngine::Embedded => Vec::new(),
            JournalEngine::Redis { address, replicas } => inspect(address, |said| of_journal(said, *replicas)).await,
        }
    };
    let regions = settings.network.regions.values().filter_map(|region| region.redis.as_ref());
    let asked = regions.map(|redis| async { inspect(&redis.address, of_second_tier).await });
    let mut wrong = Vec::new();
    let (of_journal, of_regions) = futures_util::future::join(journal, join_all(asked)).await;
    for finding in of_journal.into_iter().chain(of_regions.into_iter().flatten()).chain(of_blobs(&settings.origin)) {
        match finding {
            Finding::Wrong(said) => wrong.push(said),
            Finding::Notable(said) => say::warning(said),
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::typed(wrong.join("\n"))) }
}

async fn inspect(address: &RedisAddress, judge: impl Fn(&Inspection) -> Vec<Finding>) -> Vec<Finding> {
    let key = &address.key;
    let redis = match Redis::open(address, PATIENCE) {
        Ok(redis) => redis,
        // It names its key itself.
        Err(error) => return vec![Finding::Wrong(error.to_string())],
    };
    let prefixed = |finding| match finding {
        Finding::Wrong(said) => Finding::Wrong(format!("{key}: {redis}: {said}")),
        Finding::Notable(said) => Finding::Notable(format!("{key}: {redis}: {said}")),
    };
    let found = match redis.inspect().await {
        Ok(inspection) => judge(&inspection),
        Err(trouble) => vec![unasked(&trouble)],
    };
    found.into_iter().map(prefixed).collect()
}

fn unasked(trouble: &Trouble) -> Finding {
    if trouble.may_pass() {
        return Finding::Notable(format!("not checked: {trouble}"));
    }
    Finding::Wrong(format!("it lets nobody in like this: {trouble}"))
}

/// A journal must lose nothing that it acknowledged.
fn of_journal(said: &Inspection, replicas: u64) -> Vec<Finding> {
    let mut findings: Vec<_> = said.losses(replicas).into_iter().map(Finding::Wrong).collect();
    if !said.is_master {
        findings.push(Finding::Wrong("it is a replica and takes no writes: name its master".to_owned()));
    }
    findings
}

/// Blobs in a folder are those of one origin: another one that shares the journal has none of them.
fn of_blobs(origin: &OriginNode) -> Option<Finding> {
    let is_alone = origin.urls.len() < 2 || origin.journal == JournalEngine::Embedded;
    let said =
        "origin.blobs: several origins (origin.url) share a journal, and each has a folder of its own: name a bucket or a shared folder";
    (!is_alone && origin.blobs == BlobStore::Folder).then(|| Finding::Wrong(said.to_owned()))
}

/// A second tier may lose anything, but must not fill its machine, and must make room for what is new.
fn of_second_tier(said: &Inspection) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !said.is_master {
        findings.push(Finding::Notable("it is a replica and takes no writes: name its master".to_owned()));
    }
    if said.max_bytes == 0 {
        findings.push(Finding::Notable("its memory has no bound: set `maxmemory`, and `maxmemory-policy allkeys-lru`".to_owned()));
    } else if said.evicts.is_none() {
        findings
            .push(Finding::Notable("when it is full it takes nothing more (noeviction): set `maxmemory-policy allkeys-lru`".to_owned()));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_tier_needs_a_bound_and_makes_room() {
        let sound = Inspection { is_master: true, max_bytes: 1 << 30, evicts: Some("allkeys-lru".to_owned()), ..Inspection::default() };
        assert!(of_second_tier(&sound).is_empty());
        for (wrong, said) in [
            (Inspection { max_bytes: 0, ..sound.clone() }, "no bound"),
            (Inspection { evicts: None, ..sound.clone() }, "noeviction"),
            (Inspection { is_master: false, ..sound }, "replica"),
        ] {
            let found = of_second_tier(&wrong);
            assert!(matches!(found.as_slice(), [Finding::Notable(text)] if text.contains(said)), "{found:?}");
        }
    }
}
