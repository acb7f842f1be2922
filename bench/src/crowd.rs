//! Many clients miss one object at once: one fetch, and nobody waits longer than the upstream takes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures_util::future::try_join_all;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::figures::{Samples, ms, say};
use crate::town::{Town, client};

const CROWD: usize = 10_000;
const ASK: &[u8] = b"GET /hot HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let (open, gate) = watch::channel(false);
    let fetches = Arc::new(AtomicUsize::new(0));
    let upstream = upstream(gate, Arc::clone(&fetches)).await?;
    // While thousands connect at once a short lease may end, and who comes without one shares no running fetch.
    let routes = format!(
        "[network]\nlease = \"30s\"\n[upstreams.u]\nservers = [\"http://{upstream}\"]\n[routes.u]\nhosts = [\"a.test\"]\nupstream = \"u\"\n"
    );
    let mut town = Town::new(binary, "64 MiB", &routes)?;
    let (_, listen, admin) = town.start_one_edge().await?;
    let mut crowd = Vec::new();
    for n in 0..CROWD {
        let mut stream = TcpStream::connect(listen).await.with_context(|| format!("the connection of client {n}"))?;
        stream.write_all(ASK).await?;
        crowd.push(stream);
    }
    let metrics = client()?;
    let waiting = format!("atoll_edge_collapsed_total {}", CROWD - 1);
    let begun = Instant::now();
    while !metrics.get(format!("http://{admin}/metrics")).send().await?.text().await?.contains(&waiting) {
        anyhow::ensure!(begun.elapsed() < Duration::from_secs(60), "not everybody came to wait: expected {waiting}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let opened = Instant::now();
    open.send_replace(true);
    let answers = crowd.into_iter().map(|mut stream| async move {
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await?;
        anyhow::ensure!(heard.ends_with(b"for all"), "{}", String::from_utf8_lossy(&heard));
        anyhow::Ok(opened.elapsed())
    });
    let mut samples = Samples::default();
    try_join_all(answers).await?.into_iter().for_each(|took| samples.add(took));
    let fetches = fetches.load(Ordering::Acquire);
    let measured = format!("{fetches} fetch, p50 {}, last {}", ms(samples.median()), ms(samples.at(1000)));
    say(&format!("crowd: {CROWD} clients miss one object at once"), &measured, "1 fetch", fetches == 1);
    Ok(())
}

/// An upstream that answers when the gate is opened.
async fn upstream(gate: watch::Receiver<bool>, fetches: Arc<AtomicUsize>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (mut gate, fetches) = (gate.clone(), Arc::clone(&fetches));
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(1..) = stream.read(&mut buffer).await {
                    fetches.fetch_add(1, Ordering::AcqRel);
                    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nCache-Control: max-age=60\r\n\r\nfor all";
                    if gate.wait_for(|open| *open).await.is_err() || stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
