//! What the origin's configuration in force says, for remarks beside a result.

use config::Network;
use wire::{ConfigVersion, Owner};

use crate::control::Control;

/// Returns the configuration in force, where the token may read it and this program understands it: remarks are a
/// courtesy, and never a reason to fail.
pub(crate) async fn network(control: &Control) -> Option<Network> {
    let version: ConfigVersion = control.get("/v1/config").await.ok()?;
    Network::from_json(&version.network).ok()
}

/// Tells whether any site or route is the owner's.
pub(crate) fn has_owner(network: &Network, owner: &Owner) -> bool {
    let of_sites = network.sites.values().map(|site| &site.owner);
    let of_routes = network.routes.values().map(|route| &route.owner);
    of_sites.chain(of_routes).any(|known| known == owner)
}
