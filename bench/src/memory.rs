//! What an edge's process takes while it serves a working set ten times its `memory`, from an upstream
//! and from a site.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::figures::say;
use crate::town::{Town, client};

const MEMORY: u64 = 32 << 20;
const OBJECT: usize = 16 << 10;
const SIDE_BY_SIDE: usize = 32;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let upstream = upstream().await?;
    let routes =
        format!("[upstreams.u]\nservers = [\"http://{upstream}\"]\n[routes.u]\nhosts = [\"*\"]\npath = \"/api/*\"\nupstream = \"u\"\n");
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

/// An upstream that answers everything with one cacheable object.
async fn upstream() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut answer =
        format!("HTTP/1.1 200 OK\r\nContent-Length: {OBJECT}\r\nCache-Control: max-age=3600\r\nSurrogate-Key: all\r\n\r\n").into_bytes();
    answer.resize(answer.len() + OBJECT, b'x');
    let answer: std::sync::Arc<[u8]> = answer.into();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = std::sync::Arc::clone(&answer);
            tokio::spawn(async move {
                let (mut buffer, mut head) = ([0; 4096], Vec::new());
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    head.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if head.ends_with(b"\r\n\r\n") {
                        head.clear();
                        if stream.write_all(&answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    Ok(address)
}
