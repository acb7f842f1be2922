//! Tells the journal what unsafe methods made invalid at this edge, so that it is invalid at all of them (P8).
//!
//! What is not yet sent is kept and coalesced. It is bounded: where the bound cuts, whole hosts are purged in
//! place of their URLs, and nothing is dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use follow::Origins;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{Host, Owner, PurgeRequest, Tag, Target, Wait};

/// URLs and tags that wait to be told.
const WAITING: usize = 4096;

/// Scopes of one purge: the journal takes no more.
const BATCH: usize = 1000;

/// How long an origin may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long to wait before an origin that could not be told is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// What is to be told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invalid {
    Url(Host, Target),
    Tag(Tag),
    /// All of a host, in place of more of its URLs than are remembered.
    Host(Host),
    /// All of the owner, in place of more hosts than are remembered.
    Everything,
}

/// What waits to be told.
#[derive(Debug, Default)]
struct Waiting(BTreeSet<(Owner, Invalid)>);

impl Waiting {
    /// Adds what became invalid.
    fn add(&mut self, owner: &Owner, invalid: Invalid) {
        let covered = matches!(&invalid, Invalid::Url(host, _) if self.0.contains(&(owner.clone(), Invalid::Host(host.clone()))));
        if covered {
            return;
        }
        self.0.insert((owner.clone(), invalid));
        let to_host = |invalid| if let Invalid::Url(host, _) = invalid { Invalid::Host(host) } else { invalid };
        let to_everything = |_| Invalid::Everything;
        for widen in [to_host as fn(Invalid) -> Invalid, to_everything] {
            if self.0.len() > WAITING {
                self.0 = std::mem::take(&mut self.0).into_iter().map(|(owner, invalid)| (owner, widen(invalid))).collect();
            }
        }
    }

    /// Returns the next purge to ask for, without forgetting it.
    fn next(&self) -> Option<(PurgeRequest, Vec<(Owner, Invalid)>)> {
        let (owner, _) = self.0.first()?;
        let batch: Vec<_> = self.0.iter().take_while(|(of, _)| of == owner).take(BATCH).cloned().collect();
        let mut purge = PurgeRequest { owner: owner.clone(), wait: Wait::None, ..PurgeRequest::default() };
        for (_, invalid) in &batch {
            match invalid {
                Invalid::Url(host, target) => purge.urls.push(format!("{host}{target}")),
                Invalid::Tag(tag) => purge.tags.push(tag.to_string()),
                Invalid::Host(host) => purge.prefixes.push(format!("{host}/")),
                Invalid::Everything => purge.all = true,
            }
        }
        Some((purge, batch))
    }

    fn told(&mut self, batch: &[(Owner, Invalid)]) {
        for told in batch {
            self.0.remove(told);
        }
    }
}

/// The one who tells.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    waiting: Mutex<Waiting>,
    more: Notify,
}

impl Announcer {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the journal of it as soon as may be.
    pub(crate) fn announce(&self, owner: &Owner, invalid: Invalid) {
        self.lock().add(owner, invalid);
        self.more.notify_one();
    }

    /// Tells until it is stopped. What came while it told is told after it, so that nothing is coalesced with
    /// what was appended before it.
    pub(crate) async fn run(&self, origins: Arc<Origins>, stop: CancellationToken) {
        loop {
            let next = self.lock().next();
            let Some((purge, batch)) = next else {
                tokio::select! {
                    () = self.more.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            // Forgotten before it is sent: what becomes invalid again meanwhile is to be told again.
            self.lock().told(&batch);
            let sent = origins.send(|client, url| client.post(format!("{url}/v1/purges")).timeout(PATIENCE).json(&purge)).await;
            let Err(error) = sent else { continue };
            tracing::warn!(%error, urls = purge.urls.len(), "failed to tell the journal what became invalid; trying again");
            for (owner, invalid) in batch {
                self.lock().add(&owner, invalid);
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p8_what_waits_is_told_once_and_in_batches_by_owner() {
        let mut waiting = Waiting::default();
        let url = |path: &str| Invalid::Url("h".parse().unwrap(), path.parse().unwrap());
        let owner = |name: &str| name.parse::<Owner>().unwrap();
        waiting.add(&owner("a"), url("/1"));
        waiting.add(&owner("a"), url("/1"));
        waiting.add(&owner("b"), Invalid::Tag("t".parse().unwrap()));
        let (purge, batch) = waiting.next().unwrap();
        assert_eq!((purge.owner.as_str(), purge.urls.as_slice(), purge.tags.len()), ("a", ["h/1".to_owned()].as_slice(), 0));
        waiting.told(&batch);
        let (purge, batch) = waiting.next().unwrap();
        assert_eq!((purge.owner.as_str(), purge.tags.as_slice()), ("b", ["t".to_owned()].as_slice()));
        waiting.told(&batch);
        assert!(waiting.next().is_none());
    }

    #[test]
    fn p8_where_the_bound_cuts_the_host_is_purged() {
        let mut waiting = Waiting::default();
        let owner = Owner::default();
        for n in 0..=WAITING {
            waiting.add(&owner, Invalid::Url("h".parse().unwrap(), format!("/{n}").parse().unwrap()));
        }
        waiting.add(&owner, Invalid::Url("h".parse().unwrap(), "/x".parse().unwrap()));
        let (purge, _) = waiting.next().unwrap();
        assert!(purge.urls.is_empty());
        assert_eq!(purge.prefixes, ["h/"]);
        for n in 0..=WAITING {
            waiting.add(&owner, Invalid::Url(format!("h{n}").parse().unwrap(), "/".parse().unwrap()));
        }
        let (purge, batch) = waiting.next().unwrap();
        assert!(purge.all && batch.len() < WAITING, "where there are too many hosts, everything is");
    }
}
