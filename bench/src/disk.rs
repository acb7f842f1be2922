//! What the disk itself needs for a sync: the measure beside which durable writes are seen.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;

use crate::figures::Samples;

/// Appends of 4 KiB in a folder, each synced.
pub(crate) fn syncs(folder: &Path, count: usize) -> Result<Samples> {
    let mut file = File::create(folder.join("sync"))?;
    let mut samples = Samples::default();
    for _ in 0..count {
        file.write_all(&[7; 4096])?;
        let begun = Instant::now();
        file.sync_all()?;
        samples.add(begun.elapsed());
    }
    Ok(samples)
}
