//! `atoll status`: nodes, leases, lag, hit ratio, versions.

use wire::{FollowerStatus, Status};

use crate::context::Context;
use crate::exit::{Done, Outcome};
use crate::say;

/// Runs `atoll status`.
pub(crate) async fn run(context: &Context, json: bool) -> Outcome {
    let status: Status = context.control()?.get("/v1/status").await?;
    if json {
        say::json(&status)?;
        return Ok(Done::Everywhere);
    }
    let config = status.config.map_or_else(|| "none".to_owned(), |number| number.to_string());
    say::line(format!(
        "network {}, journal at {}, complete up to {}, configuration {config}\n",
        status.network, status.position.seq, status.complete
    ))?;
    say::table(
        ["NODE", "ROLE", "REGION", "LEASE", "APPLIED", "LAG", "HITS", "L2"],
        status.followers.iter().map(|node| {
            let lease = match (node.live, node.draining) {
                (true, true) => "draining".to_owned(),
                (true, false) => format!("{} ms", node.lease_ms),
                (false, _) => "fenced".to_owned(),
            };
            [
                node.name.to_string(),
                node.role.to_string(),
                node.region.to_string(),
                lease,
                node.applied.to_string(),
                node.lag.to_string(),
                hits(node),
                second_tier(node).to_owned(),
            ]
        }),
    )?;
    say::line("")?;
    say::table(
        ["ENGINE", "AT", "STATE"],
        status.engines.iter().map(|engine| {
            let state = if engine.well { "well".to_owned() } else { engine.notes.join("; ") };
            [engine.name.clone(), engine.at.clone(), state]
        }),
    )?;
    say::line("")?;
    say::table(
        ["SITE", "ALIAS", "VERSION", "VERSIONS"],
        status.sites.iter().flat_map(|site| {
            let versions = site.versions.to_string();
            site.aliases.iter().map(move |(alias, version)| [site.site.to_string(), alias.to_string(), version.short(), versions.clone()])
        }),
    )?;
    Ok(Done::Everywhere)
}

/// Whether an edge's second tier answers; nothing for who has none.
fn second_tier(node: &FollowerStatus) -> &'static str {
    match node.counts.get("second_tier_up") {
        None => "",
        Some(0) => "down",
        Some(_) => "up",
    }
}

/// The hit ratio of an edge; nothing where it has not answered yet.
fn hits(node: &FollowerStatus) -> String {
    let count = |name: &str| node.counts.get(name).copied().unwrap_or(0);
    let (hits, misses) = (count("hits"), count("misses"));
    match hits + misses {
        0 => String::new(),
        all => format!("{} %", hits * 100 / all),
    }
}
