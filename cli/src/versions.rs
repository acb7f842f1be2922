//! `atoll versions` and `atoll rollback`.

use serde::Serialize;
use wire::{AliasAnswer, AliasMove, Digest, VersionList};

use crate::args::{Rollback, Versions, is_meant};
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::publish::is_everywhere;
use crate::say;

/// Runs `atoll versions`.
pub(crate) async fn list(context: &Context, arguments: Versions) -> Outcome {
    let list: VersionList = context.control()?.get(&format!("/v1/sites/{}/versions", arguments.site)).await?;
    if arguments.json {
        say::json(&list)?;
        return Ok(Done::Everywhere);
    }
    say::table(
        ["VERSION", "PUBLISHED", "FILES", "SIZE", "ALIASES"],
        list.versions.iter().map(|row| {
            let aliases: Vec<_> = row.aliases.iter().map(ToString::to_string).collect();
            [row.version.short(), row.published_at.to_string(), row.files.to_string(), say::bytes(row.bytes), aliases.join(", ")]
        }),
    )?;
    Ok(Done::Everywhere)
}

/// What a rollback came to.
#[derive(Debug, Serialize)]
struct RolledBack {
    version: Digest,
    previous: Option<Digest>,
    everywhere: bool,
}

/// Runs `atoll rollback`.
pub(crate) async fn rollback(context: &Context, arguments: Rollback) -> Outcome {
    let control = context.control()?;
    let list: VersionList = control.get(&format!("/v1/sites/{}/versions", arguments.site)).await?;
    let alias = list
        .aliases
        .get(&arguments.alias)
        .ok_or_else(|| Failure::typed(format!("site `{}` has no alias `{}` yet", arguments.site, arguments.alias)))?;
    let version = match &arguments.to {
        None => *alias.before.last().ok_or_else(|| Failure::typed(format!("there is no version before {}", alias.version.short())))?,
        Some(typed) => meant(&list, typed)?,
    };
    let path = format!("/v1/sites/{}/aliases/{}", arguments.site, arguments.alias);
    // Nobody may have published meanwhile: going back from what is not there any more would undo their work.
    let moved: AliasAnswer = control.put(&path, &AliasMove { version, back: true }, Some(&alias.version.to_string())).await?;
    let everywhere = is_everywhere(&control, moved.position.seq, arguments.timeout).await?;
    if arguments.json {
        say::json(&RolledBack { version, previous: moved.previous, everywhere })?;
    } else {
        let from = moved.previous.map(|previous| format!(" from {}", previous.short())).unwrap_or_default();
        say::line(format!("{} of {} now points to {}{from}", arguments.alias, arguments.site, version.short()))?;
    }
    Ok(if everywhere { Done::Everywhere } else { Done::NotEverywhere })
}

fn meant(list: &VersionList, typed: &str) -> Result<Digest, Failure> {
    let mut found = list.versions.iter().map(|row| row.version).filter(|version| is_meant(version, typed));
    match (found.next(), found.next()) {
        (Some(version), None) => Ok(version),
        (Some(_), Some(_)) => {
            Err(Failure::typed(format!("`{typed}` is the beginning of several versions; see `atoll versions --site {}`", list.site)))
        }
        (None, _) => {
            Err(Failure::typed(format!("site `{}` has no version `{typed}`; see `atoll versions --site {}`", list.site, list.site)))
        }
    }
}
