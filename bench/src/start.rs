//! From the start of `atoll up` until all three edges are ready.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::figures::{Samples, ms, say};
use crate::town::Town;

const ROUNDS: usize = 7;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        let mut town = Town::new(binary, "64 MiB", "")?;
        let begun = Instant::now();
        town.spawn(&["up"])?;
        town.wait_for_edges().await?;
        samples.add(begun.elapsed());
    }
    let measured = format!("median {}, worst {}", ms(samples.median()), ms(samples.at(1000)));
    say("up: start to three ready edges, empty data", &measured, "1 s", samples.at(1000) <= Duration::from_secs(1));
    Ok(())
}
