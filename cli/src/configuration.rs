//! `atoll check`, `atoll apply` and `atoll config`.

use std::path::Path;

use serde::Deserialize;
use wire::{ApplyAnswer, ConfigVersion, Timestamp};

use crate::args::Apply;
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::say;

/// Runs `atoll check`.
pub(crate) fn check(file: &Path, context: &Context) -> Outcome {
    if let Some(other) = context.file().filter(|other| *other != file) {
        return Err(Failure::typed(format!("two files were named: {} and {}", file.display(), other.display())));
    }
    let settings = config::Settings::load(file, std::env::vars(), [])?;
    let network = &settings.network;
    say::line(format!(
        "{} is right: {} edges in {} regions, {} DNS nodes, {} sites, {} routes, {} zones",
        file.display(),
        settings.edges.len(),
        network.regions.len(),
        settings.dns.len(),
        network.sites.len(),
        network.routes.len(),
        network.zones.len()
    ));
    Ok(Done::Everywhere)
}

/// Runs `atoll apply`.
pub(crate) async fn apply(context: &Context, arguments: Apply) -> Outcome {
    let file = context.needed_file()?;
    context.settings()?;
    let text = std::fs::read_to_string(file).map_err(|error| Failure::typed(format!("failed to read {}: {error}", file.display())))?;
    let if_number = arguments.if_number.map(|number| number.to_string());
    let answer: ApplyAnswer = context.control()?.put_text("/v1/config", &text, if_number.as_deref()).await?;
    if arguments.json {
        say::json(&answer);
    } else {
        say_applied(&answer);
    }
    Ok(Done::Everywhere)
}

fn say_applied(answer: &ApplyAnswer) {
    let said = if answer.changed { "is in force" } else { "was in force already" };
    say::line(format!("configuration {} {said}", answer.number));
}

/// Runs `atoll config show`.
pub(crate) fn show(context: &Context, json: bool) -> Outcome {
    let settings = context.settings()?;
    if json {
        let rows =
            settings.shown.iter().map(|row| serde_json::json!({ "key": row.key, "value": row.value, "source": row.source.to_string() }));
        say::json(&rows.collect::<Vec<_>>());
    } else {
        say::table(["KEY", "VALUE", "FROM"], settings.shown.iter().map(|row| [row.key.clone(), row.value.clone(), row.source.to_string()]));
    }
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
        say::json(&rows);
    } else {
        say::table(["NUMBER", "AT", "BY"], rows.iter().rev().map(|row| [row.number.to_string(), row.at.to_string(), row.actor.clone()]));
    }
    Ok(Done::Everywhere)
}

/// Runs `atoll config restore`.
pub(crate) async fn restore(context: &Context, number: u64) -> Outcome {
    let control = context.control()?;
    let past: ConfigVersion = control.get(&format!("/v1/config/{number}")).await?;
    let answer: ApplyAnswer = control.put("/v1/config", &past.network, None).await?;
    say_applied(&answer);
    Ok(Done::Everywhere)
}
