//! From a purge's request to the answer that says that the last of three edges has acknowledged it,
//! beside what the disk itself needs for a sync.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::disk::syncs;
use crate::figures::{Samples, ms, say};
use crate::town::{Town, client};

const PURGES: usize = 2000;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let mut town = Town::new(binary, "64 MiB", "")?;
    town.spawn(&["up"])?;
    town.wait_for_edges().await?;
    let disk = syncs(town.folder.path(), PURGES)?;
    let token = town.admin_token()?;
    let (client, url) = (client()?, format!("http://{}/v1/purges", town.origin));
    let mut samples = Samples::default();
    for n in 0..PURGES {
        let body = serde_json::json!({ "tags": [format!("tag-{n}")] });
        let begun = Instant::now();
        let answer = client.post(&url).bearer_auth(&token).json(&body).send().await?;
        let status = answer.status();
        let receipt: serde_json::Value = answer.json().await?;
        samples.add(begun.elapsed());
        let applied =
            receipt["followers"].as_array().is_some_and(|rows| rows.len() == 3 && rows.iter().all(|row| row["state"] == "applied"));
        anyhow::ensure!(status == 200 && applied, "purge {n} was not applied by three edges: {receipt}");
    }
    let measured = format!("p50 {}, p99 {}", ms(samples.median()), ms(samples.at(990)));
    let goal = format!("p99 {} (disk) + 5 ms", ms(disk.at(990)));
    say(
        "purge: request to the last of three acknowledgements",
        &measured,
        &goal,
        samples.at(990) <= disk.at(990) + Duration::from_millis(5),
    );
    Ok(())
}
