//! Takes a network's journal from one engine to another while no origin runs on either: `atoll journal export` and
//! `import`. What it imports begins a new life, so that nobody relies on what was known of the old one.

use std::io::{BufRead, Write};

use anyhow::{Context as _, Result};
use config::{LONGEST_LEASE, Settings};
use tokio_util::sync::CancellationToken;
use wire::Position;

use crate::engines::Engines;
use crate::journal;

/// What an import came to.
#[derive(Clone, Copy, Debug)]
pub struct Moved {
    /// Where the journal stood that was exported.
    pub from: Position,
    /// Where the new one stands.
    pub to: Position,
    /// How many events came with its snapshot.
    pub events: u64,
}

/// Writes the journal that the settings name, as lines of JSON, and tells how far it is of how much.
///
/// # Errors
/// Where it can't be opened, or an origin runs on its file.
pub async fn export_journal(settings: &Settings, out: &mut impl Write, progress: impl FnMut(u64, u64)) -> Result<Position> {
    let (engines, stop) = open(settings).await?;
    let followers = engines.leases.remembered();
    let written = journal::export(&engines.journal, followers, out, progress).await;
    close(engines, &stop).await;
    Ok(written?)
}

/// Reads an export into the journal that the settings name, which must be empty.
///
/// # Errors
/// Where that is not, or the file is not whole: then nothing is changed.
pub async fn import_journal(settings: &Settings, file: &mut impl BufRead, progress: impl FnMut(u64, u64)) -> Result<Moved> {
    let (engines, stop) = open(settings).await?;
    let imported = journal::import(&engines.journal, file, progress).await;
    let moved = match imported {
        // By the engine before leases may run still.
        Ok(imported) => engines
            .leases
            .take_over(imported.followers, LONGEST_LEASE)
            .await
            .map_err(|fault| anyhow::anyhow!("{fault}"))
            .map(|()| Moved { from: imported.from, to: imported.to, events: imported.events }),
        Err(error) => Err(error.into()),
    };
    close(engines, &stop).await;
    moved
}

async fn open(settings: &Settings) -> Result<(Engines, CancellationToken)> {
    let (folder, stop) = (settings.data.join("origin"), CancellationToken::new());
    std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
    Ok((Engines::open(settings, &folder, false, &stop).await?, stop))
}

async fn close(engines: Engines, stop: &CancellationToken) {
    stop.cancel();
    for task in engines.tasks {
        let _ = task.await;
    }
    engines.journal.close().await;
}
