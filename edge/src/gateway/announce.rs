//! Tells the journal what unsafe methods made invalid at this edge, so that it is invalid at all of them (P8).
//!
//! What is not yet sent is kept and coalesced. It is bounded: where the bound cuts, whole hosts are purged in
//! place of their URLs, and nothing is dropped.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use follow::{Origins, OriginsError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use wire::{Host, Owner, PurgeRequest, Tag, Target, Wait};

/// URLs and tags that wait to be told.
const WAITING: usize = 4096;

/// Scopes of one purge: the journal takes no more.
const BATCH: usize = 1000;

/// Bytes of one purge: half of what the origin reads.
const BATCH_BYTES: usize = 512 << 10;

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

impl Invalid {
    /// Returns about how many bytes it takes to say.
    fn length(&self) -> usize {
        8 + match self {
            Self::Url(host, target) => host.as_str().len() + target.as_str().len(),
            Self::Tag(tag) => tag.as_str().len(),
            Self::Host(host) => host.as_str().len(),
            Self::Everything => 0,
        }
    }
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

    /// Returns the next purge to ask for, of `most` scopes, without forgetting it.
    fn next(&self, most: usize) -> Option<(PurgeRequest, Vec<(Owner, Invalid)>)> {
        let (owner, _) = self.0.first()?;
        let mut bytes = 0;
        let of_one = self.0.iter().take_while(|(of, invalid)| {
            bytes += invalid.length();
            of == owner && bytes <= BATCH_BYTES
        });
        let mut batch: Vec<_> = of_one.take(most).cloned().collect();
        if batch.is_empty() {
            batch.extend(self.0.first().cloned());
        }
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
        let mut most = BATCH;
        loop {
            let next = self.lock().next(most);
            let Some((purge, batch)) = next else {
                tokio::select! {
                    () = self.more.notified() => continue,
                    () = stop.cancelled() => return,
                }
            };
            // Forgotten before it is sent: what becomes invalid again meanwhile is to be told again.
            self.lock().told(&batch);
            let sent = origins.send(|client, url| client.post(format!("{url}/v1/purges")).timeout(PATIENCE).json(&purge)).await;
            let Err(error) = sent else {
                most = BATCH;
                continue;
            };
            if is_refused(&error) {
                most = (batch.len() / 2).max(1);
                self.after_refusal(batch, &error);
                continue;
            }
            tracing::warn!(%error, scopes = batch.len(), "failed to tell the journal what became invalid; trying again");
            for (owner, invalid) in batch {
                self.lock().add(&owner, invalid);
            }
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => {
                    tracing::error!("what became invalid here could not be told to any origin before the end");
                    return;
                }
            }
        }
    }

    /// The origin won't have it. Of several scopes the others may be fine; one alone is widened, so that nothing
    /// that it was about stays valid elsewhere.
    fn after_refusal(&self, batch: Vec<(Owner, Invalid)>, error: &OriginsError) {
        let is_single = batch.len() == 1;
        for (owner, invalid) in batch {
            match (is_single, &invalid) {
                (false, _) => self.lock().add(&owner, invalid),
                (true, Invalid::Everything) => tracing::error!(%error, %owner, "the origin refuses what became invalid here"),
                (true, _) => {
                    tracing::warn!(%error, %owner, "the origin refuses one invalidation; invalidating all of its owner");
                    self.lock().add(&owner, Invalid::Everything);
                }
            }
        }
    }
}

/// Tells whether the same will be refused again.
fn is_refused(error: &OriginsError) -> bool {
    matches!(error, OriginsError::Refused { status: 400 | 403 | 404 | 409 | 413 | 422, .. })
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
        let (purge, batch) = waiting.next(BATCH).unwrap();
        assert_eq!((purge.owner.as_str(), purge.urls.as_slice(), purge.tags.len()), ("a", ["h/1".to_owned()].as_slice(), 0));
        waiting.told(&batch);
        let (purge, batch) = waiting.next(BATCH).unwrap();
        assert_eq!((purge.owner.as_str(), purge.tags.as_slice()), ("b", ["t".to_owned()].as_slice()));
        waiting.told(&batch);
        assert!(waiting.next(BATCH).is_none());
    }

    #[test]
    fn p8_where_the_bound_cuts_the_host_is_purged() {
        let mut waiting = Waiting::default();
        let owner = Owner::default();
        for n in 0..=WAITING {
            waiting.add(&owner, Invalid::Url("h".parse().unwrap(), format!("/{n}").parse().unwrap()));
        }
        waiting.add(&owner, Invalid::Url("h".parse().unwrap(), "/x".parse().unwrap()));
        let (purge, _) = waiting.next(BATCH).unwrap();
        assert!(purge.urls.is_empty());
        assert_eq!(purge.prefixes, ["h/"]);
        for n in 0..=WAITING {
            waiting.add(&owner, Invalid::Url(format!("h{n}").parse().unwrap(), "/".parse().unwrap()));
        }
        let (purge, batch) = waiting.next(BATCH).unwrap();
        assert!(purge.all && batch.len() < WAITING, "where there are too many hosts, everything is");
    }
}
