//! `atoll journal export` and `atoll journal import`: from one engine to another, while no origin runs on either.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, IsTerminal as _, Write as _};
use std::path::Path;

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};

use crate::args::JournalCommand;
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::nodes::make_folder;
use crate::say;

/// Runs `atoll journal`.
pub(crate) async fn run(context: &Context, command: JournalCommand) -> Outcome {
    match command {
        JournalCommand::Export { file, json } => export(context, &file, json).await,
        JournalCommand::Import { file, json } => import(context, &file, json).await,
    }
}

async fn export(context: &Context, file: &Path, json: bool) -> Outcome {
    let settings = context.settings()?;
    make_folder(&settings.data)?;
    let progress = progress("exporting");
    // It has its name when it is whole, and nothing that was there is lost before.
    let fresh = file.with_extension("new");
    let created = File::create(&fresh).with_context(|| format!("failed to create {}", fresh.display()))?;
    let mut out = BufWriter::new(created);
    let position = origin::export_journal(&settings, &mut out, |done, all| tell(&progress, done, all)).await.inspect_err(|_| {
        let _ = std::fs::remove_file(&fresh);
    })?;
    out.flush().and_then(|()| out.get_ref().sync_all()).with_context(|| format!("failed to write {}", fresh.display()))?;
    std::fs::rename(&fresh, file).with_context(|| format!("failed to write {}", file.display()))?;
    progress.finish_and_clear();
    if json {
        say::json(&serde_json::json!({ "file": file, "position": position }))?;
    } else {
        say::line(format!("exported the journal up to event {} into {}", position.seq, file.display()))?;
    }
    Ok(Done::Everywhere)
}

async fn import(context: &Context, file: &Path, json: bool) -> Outcome {
    let settings = context.settings()?;
    let opened = File::open(file).map_err(|error| Failure::typed(format!("failed to open {}: {error}", file.display())))?;
    make_folder(&settings.data)?;
    let progress = progress("importing");
    let moved = origin::import_journal(&settings, &mut BufReader::new(opened), |done, all| tell(&progress, done, all)).await;
    let moved = moved.with_context(|| format!("failed to import {}", file.display()))?;
    progress.finish_and_clear();
    if json {
        say::json(&serde_json::json!({ "from": moved.from, "position": moved.to, "events": moved.events }))?;
    } else {
        say::line(format!("imported the journal up to event {} as a new epoch: {}", moved.to.seq, moved.to))?;
        say::note("followers drop all that they hold and load its snapshot; nothing is complete until leases from before have ended");
    }
    Ok(Done::Everywhere)
}

fn progress(what: &'static str) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} events").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_prefix(what)
}

fn tell(progress: &ProgressBar, done: u64, all: u64) {
    progress.set_length(all);
    progress.set_position(done);
}
