//! What an edge's process takes while it serves a working set ten times its `memory`, from an upstream
//! and from a site.

use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};

use crate::figures::say;
use crate::town::{Town, client};
use crate::upstream::Upstream;

const MEMORY: u64 = 32 << 20;
const OBJECT: usize = 16 << 10;
const SIDE_BY_SIDE: usize = 32;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let upstream = Upstream::start(OBJECT).await?;
    let routes = upstream.routes("*", "/api/*");
    let mut town = Town::new(binary, "32 MiB", &routes)?;
    let (edge, listen, _) = town.start_one_edge().await?;
    let client = client()?;
    let objects = usize::try_from(MEMORY * 10)? / OBJECT;
    for _ in 0..2 {
        let asked = stream::iter(0..objects).map(|n| client.get(format!("http://{listen}/api/{n}")).send());
        let mut answers = asked.buffer_unordered(SIDE_BY_SIDE);
        while let Some(answer) = answers.next().await {
            let bytes = answer?.error_for_status()?.bytes().await?;
            anyhow::ensure!(bytes.len() == OBJECT, "an object of {} bytes", bytes.len());
        }
    }
    let peak = peak_memory(edge)?;
    let most = MEMORY + (64 << 20);
    let measured = format!("peak {} MiB of {objects} objects", peak >> 20);
    say("memory: an edge with 32 MiB, working set 320 MiB", &measured, &format!("{} MiB", most >> 20), peak <= most);
    Ok(())
}

/// The most that a process ever had resident.
pub(crate) fn peak_memory(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
