//! What the origin derives from the journal's fold: the network's configuration as it is meant.

use std::sync::Arc;

use config::Network;
use wire::ConfigVersion;

use crate::journal::Journal;

/// Reads the network out of a stored configuration. What stands in the journal was checked when it
/// was appended; a newer origin may have written what this one does not know.
pub(crate) fn network(version: &ConfigVersion) -> Option<Arc<Network>> {
    match Network::from_json(&version.network) {
        Ok(network) => Some(Arc::new(network)),
        Err(complaints) => {
            tracing::error!(number = version.number, %complaints, "the stored configuration is not understood");
            None
        }
    }
}

/// Returns the configurations that a follower standing at `applied` may go by: the one in force
/// there and all that came since.
pub(crate) fn configs_since(journal: &Journal, applied: u64) -> Vec<Arc<Network>> {
    // The journal's writer waits while its state is held, so they are read out first and parsed after.
    let configs = {
        let state = journal.state();
        let configs = state.control.as_ref().map_or(&[][..], |control| control.configs.as_slice());
        let first = configs.iter().rposition(|version| version.seq <= applied).unwrap_or(0);
        configs.get(first..).unwrap_or_default().to_vec()
    };
    configs.iter().filter_map(network).collect()
}
