//! A site of 10,000 files of 10 KB: published cold, and again with one file changed.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::figures::{Samples, ms, say};
use crate::town::Town;

const FILES: usize = 10_000;
const ROUNDS: usize = 3;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let (mut cold, mut again) = (Samples::default(), Samples::default());
    for round in 0..ROUNDS {
        let mut town = Town::new(binary, "64 MiB", "")?;
        let site = town.folder.path().join("site");
        write_site(&site)?;
        town.spawn(&["up"])?;
        town.wait_for_edges().await?;
        let publish = ["publish", &site.display().to_string(), "--site", "www"].map(str::to_owned);
        let publish: Vec<&str> = publish.iter().map(String::as_str).collect();
        cold.add(town.run(&publish)?);
        std::fs::write(site.join("page-0.html"), format!("changed {round}"))?;
        again.add(town.run(&publish)?);
    }
    let measured = |samples: &Samples| format!("median {}, worst {}", ms(samples.median()), ms(samples.at(1000)));
    say("publish: 10,000 files of 10 KB, cold, live at three edges", &measured(&cold), "10 s", cold.at(1000) <= Duration::from_secs(10));
    say("publish: the same with one file changed", &measured(&again), "1 s", again.at(1000) < Duration::from_secs(1));
    Ok(())
}

/// Text that differs from file to file, 10 KB each.
fn write_site(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    for n in 0..FILES {
        let text: String = (0..).map(|line| format!("<p>file {n} line {line}: {}</p>\n", n * 7919 + line * 104_729)).take(270).collect();
        std::fs::write(folder.join(format!("page-{n}.html")), &text.as_bytes()[..10_000.min(text.len())])?;
    }
    Ok(())
}
