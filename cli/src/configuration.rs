//! `atoll check`, `atoll apply` and `atoll config`.

use std::path::Path;

use config::{Network, Shown, Source};
use serde::Deserialize;
use wire::{ApplyAnswer, ConfigVersion, Timestamp};

use crate::args::Apply;
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::{engines, risks, say};

/// Runs `atoll check`.
pub(crate) async fn check(file: &Path, offline: bool, context: &Context) -> Outcome {
    if let Some(other) = context.file().filter(|other| *other != file) {
        return Err(Failure::typed(format!("two files were named: {} and {}", file.display(), other.display())));
    }
    let settings = config::Settings::load(file, std::env::vars(), context.flags())?;
    if settings.shown.iter().all(|row| row.source == Source::Default) {
        say::warning(format!("{} describes nothing: every value is a default", file.display()));
    }
    for risk in risks::of(&settings) {
        say::warning(risk);
    }
    if !offline {
        engines::check(&settings).await?;
    }
    let network = &settings.network;
    say::line(format!(
        "{} is right: {} in {}, {}, {}, {}, {}",
        file.display(),
        say::count(settings.edges.len(), "edge"),
        say::count(network.regions.len(), "region"),
        say::count(settings.dns.len(), "DNS node"),
        say::count(network.sites.len(), "site"),
        say::count(network.routes.len(), "route"),
        say::count(network.zones.len(), "zone")
    ))?;
    Ok(Done::Everywhere)
}

/// Runs `atoll apply`: the network's part of the file, with the environment and the flags on top.
pub(crate) async fn apply(context: &Context, arguments: Apply) -> Outcome {
    context.needed_file()?;
    let network = context.settings()?.network_json;
    let if_number = arguments.if_number.map(|number| number.to_string());
    let answer: ApplyAnswer = context.control()?.put("/v1/config", &network, if_number.as_deref()).await?;
    if arguments.json {
        say::json(&answer)?;
    } else {
        say_applied(&answer)?;
    }
    Ok(Done::Everywhere)
}

fn say_applied(answer: &ApplyAnswer) -> Result<(), Failure> {
    let said = if answer.changed { "is in force" } else { "was in force already" };
    say::line(format!("configuration {} {said}", answer.number))
}

/// Runs `atoll config show`.
pub(crate) fn show(context: &Context, json: bool) -> Outcome {
    let shown = context.settings()?.shown;
    if json {
        let rows = shown.iter().map(|row| serde_json::json!({ "key": row.key, "value": row.json, "source": row.source.to_string() }));
        say::json(&rows.collect::<Vec<_>>())?;
    } else {
        say_values(&shown)?;
    }
    Ok(Done::Everywhere)
}

fn say_values(shown: &[Shown]) -> Result<(), Failure> {
    say::table(["KEY", "VALUE", "FROM"], shown.iter().map(|row| [row.key.clone(), row.value.clone(), row.source.to_string()]))
}

/// Runs `atoll config show --in-force`.
pub(crate) async fn show_in_force(context: &Context, json: bool) -> Outcome {
    let version: ConfigVersion = context.control()?.get("/v1/config").await?;
    if json {
        say::json(&version)?;
        return Ok(Done::Everywhere);
    }
    // What is in force was not typed here: where this program is older than the origin, it is nobody's mistake.
    let (_, shown) = Network::from_json_shown(&version.network).map_err(Failure::failed)?;
    say::note(format!("configuration {}, put in force by {} at {}", version.number, version.actor, version.at));
    say_values(&shown)?;
    Ok(Done::Everywhere)
}

/// One row of the history.
#[derive(Debug, Deserialize, serde::Serialize)]
struct Past {
    number: u64,
    at: Timestamp,
    actor: String,
}

/// Runs `atoll config history`.
pub(crate) async fn history(context: &Context, json: bool) -> Outcome {
    let rows: Vec<Past> = context.control()?.get("/v1/config/history").await?;
    if json {
        say::json(&rows)?;
    } else {
        say::table(["NUMBER", "AT", "BY"], rows.iter().rev().map(|row| [row.number.to_string(), row.at.to_string(), row.actor.clone()]))?;
    }
    Ok(Done::Everywhere)
}

/// Runs `atoll config restore`.
pub(crate) async fn restore(context: &Context, number: u64) -> Outcome {
    let control = context.control()?;
    let past: ConfigVersion = control.get(&format!("/v1/config/{number}")).await?;
    let answer: ApplyAnswer = control.put("/v1/config", &past.network, None).await?;
    say_applied(&answer)?;
    Ok(Done::Everywhere)
}
