//! What the origin derives from the journal's fold: the network's configurations as they are meant.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::Network;
use wire::{Class, ConfigVersion, Epoch, Fact};

use crate::journal::Journal;

/// Configurations that are kept as they were read: as many as the journal keeps.
const KEPT: usize = 200;

/// The configurations that were read, by the event that brought them; `None` for one that is not understood. Another life
/// of the journal may have another one of the same number.
#[derive(Debug, Default)]
pub(crate) struct Networks {
    read: Mutex<(Option<Epoch>, BySeq)>,
}

type BySeq = BTreeMap<u64, Option<Arc<Network>>>;

/// A configuration that a fenced follower may go by.
pub(crate) struct GoneBy {
    pub(crate) number: u64,
    /// `None` where it is not understood.
    pub(crate) network: Option<Arc<Network>>,
    /// The shortest time for which a follower that may go by it is fenced.
    pub(crate) fenced_for: Duration,
}

impl Networks {
    /// Reads the network out of a stored configuration, once. What stands in the journal was checked when it
    /// was appended; a newer origin may have written what this one does not know.
    pub(crate) fn network(&self, epoch: Epoch, version: &ConfigVersion) -> Option<Arc<Network>> {
        if let Some(known) = self.of(epoch).1.get(&version.seq) {
            return known.clone();
        }
        let network = match Network::from_json(&version.network) {
            Ok(network) => Some(Arc::new(network)),
            Err(complaints) => {
                tracing::error!(number = version.number, %complaints, "the stored configuration is not understood");
                None
            }
        };
        let (_, read) = &mut *self.of(epoch);
        read.insert(version.seq, network.clone());
        if read.len() > KEPT {
            read.pop_first();
        }
        network
    }

    /// What was read of another life is forgotten.
    fn of(&self, epoch: Epoch) -> MutexGuard<'_, (Option<Epoch>, BySeq)> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.0 != Some(epoch) {
            *read = (Some(epoch), BySeq::new());
        }
        read
    }

    /// Returns the configurations that fenced followers may go by, given where each stands and for how long it has been
    /// fenced: the one in force there and all that came since.
    pub(crate) fn gone_by(&self, journal: &Journal, fenced: &[(u64, Duration)]) -> Vec<GoneBy> {
        if fenced.is_empty() {
            return Vec::new();
        }
        // The journal's writer waits while its state is held, so what has yet to be read is parsed after.
        let (epoch, configs): (_, Vec<_>) = {
            let state = journal.state();
            let epoch = state.position.epoch;
            let configs = state.control.as_ref().map_or(&[][..], |control| control.configs.as_slice());
            let seqs: Vec<_> = configs.iter().map(|version| version.seq).collect();
            let read = self.of(epoch);
            let may_be = configs.iter().zip(shortest(&seqs, fenced)).filter_map(|(version, fenced_for)| Some((version, fenced_for?)));
            let known = |(version, fenced_for): (&ConfigVersion, Duration)| {
                let known = read.1.get(&version.seq).cloned().ok_or_else(|| version.clone());
                (version.number, fenced_for, known)
            };
            (epoch, may_be.map(known).collect())
        };
        let read = |(number, fenced_for, known): (u64, Duration, Result<_, ConfigVersion>)| GoneBy {
            number,
            network: known.unwrap_or_else(|version| self.network(epoch, &version)),
            fenced_for,
        };
        configs.into_iter().map(read).collect()
    }
}

/// Returns for each configuration, given by their seqs, for how short a time somebody is fenced who may go by it.
fn shortest(seqs: &[u64], fenced: &[(u64, Duration)]) -> Vec<Option<Duration>> {
    let mut from = vec![None; seqs.len()];
    for (applied, fenced_for) in fenced {
        let first = seqs.partition_point(|seq| seq <= applied).saturating_sub(1);
        if let Some(from) = from.get_mut(first) {
            *from = least(*from, Some(*fenced_for));
        }
    }
    let mut before = None;
    from.iter_mut().for_each(|from| {
        before = least(before, *from);
        *from = before;
    });
    from
}

fn least(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}

/// Tells whether a route's `when_fenced` could go against this event: then who goes by a configuration that is not
/// understood may serve what it took away.
pub(crate) fn takes_away(fact: &Fact) -> bool {
    matches!(fact, Fact::Purged { .. } | Fact::ConfigChanged { .. } | Fact::Unknown { class: Class::Purge | Class::Config, .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Timestamp;

    #[test]
    fn each_configuration_counts_once_for_whoever_of_those_that_may_go_by_it_was_fenced_last() {
        let secs = |of: &[u64]| of.iter().map(|s| Some(Duration::from_secs(*s))).collect::<Vec<_>>();
        let fenced = |of: &[(u64, u64)]| of.iter().map(|(applied, s)| (*applied, Duration::from_secs(*s))).collect::<Vec<_>>();
        let seqs = [3, 10, 20];
        assert_eq!(shortest(&seqs, &fenced(&[(12, 7)])), [None, Some(Duration::from_secs(7)), Some(Duration::from_secs(7))]);
        assert_eq!(shortest(&seqs, &fenced(&[(0, 9), (10, 7), (11, 8), (25, 1)])), secs(&[9, 7, 1]));
        assert_eq!(shortest(&seqs, &fenced(&[(0, 2), (25, 5)])), secs(&[2, 2, 2]));
        assert_eq!(shortest(&[], &fenced(&[(0, 2)])), vec![]);
    }

    #[test]
    fn a_configuration_is_read_once_and_one_that_is_not_understood_is_no_empty_one() {
        let (networks, epoch) = (Networks::default(), Epoch::from_bytes([1; 8]));
        let version = |number, network| ConfigVersion { number, seq: number, at: Timestamp::from_millis(0), actor: String::new(), network };
        let good = version(1, serde_json::json!({ "sites": { "www": { "hosts": ["*"] } } }));
        let read = networks.network(epoch, &good).unwrap();
        assert!(Arc::ptr_eq(&read, &networks.network(epoch, &good).unwrap()));
        assert!(networks.network(epoch, &version(2, serde_json::json!({ "network": { "lease": "soon" } }))).is_none());
        for number in 3..=2 * KEPT as u64 {
            networks.network(epoch, &version(number, serde_json::json!({ "network": { "lease": "soon" } })));
        }
        assert_eq!(networks.read.lock().unwrap().1.len(), KEPT);
        let other = version(1, serde_json::json!({ "sites": { "other": { "hosts": ["*"] } } }));
        assert_eq!(networks.network(Epoch::from_bytes([2; 8]), &other).unwrap().sites.len(), 1, "of another life");
    }
}
