//! What strangers can make an edge hold: its memory under each attack, one after the other.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use futures_util::{StreamExt as _, stream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::figures::say;
use crate::memory::peak_memory;
use crate::town::Town;

const MEMORY: u64 = 32 << 20;

/// Connections of one attack.
const MANY: usize = 4_000;

/// Bytes of a small object.
const SMALL: usize = 100;

/// Bytes of a large object.
const LARGE: usize = 8 << 20;

pub(crate) async fn measure(binary: &Path) -> Result<()> {
    let upstream = upstream().await?;
    let routes = format!("[upstreams.u]\nservers = [\"http://{upstream}\"]\n[routes.u]\nhosts = [\"a.test\"]\nupstream = \"u\"\n");
    let mut town = Town::new(binary, "32 MiB", &routes)?;
    let (edge, listen, _) = town.start_one_edge().await?;
    let tell = |what: &str, goal: u64| -> Result<()> {
        let peak = peak_memory(edge)?;
        say(&format!("attack: {what}"), &format!("peak {} MiB", peak >> 20), &format!("{} MiB", goal >> 20), peak <= goal);
        Ok(())
    };
    // What a cache of 32 MiB may take, and what its connections may.
    let base = MEMORY + (64 << 20);
    let per_connection = |bytes: u64| base + MANY as u64 * bytes;

    many_urls(listen).await?;
    tell("200,000 URLs of 1 KiB that can't be stored", base)?;
    many_variants(listen).await?;
    tell("20,000 variants of one URL", base)?;
    let heads = open(listen, MANY, &[b"GET / HTTP/1.1\r\nHost: a.test\r\nX: ".as_slice(), &[b'x'; 8_000]].concat()).await?;
    tell(&format!("{MANY} heads of 8 KiB that do not end"), per_connection(24 << 10))?;
    drop(heads);
    let uploads = open(
        listen,
        MANY,
        &[b"POST /hold HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n".as_slice(), &b"1\r\nx\r\n".repeat(2_000)].concat(),
    )
    .await?;
    tell(&format!("{MANY} bodies in chunks of one byte"), per_connection(256 << 10))?;
    drop(uploads);
    let mut readers = Vec::new();
    for n in 0..200 {
        readers.extend(open(listen, 1, format!("GET /large/{n} HTTP/1.1\r\nHost: a.test\r\n\r\n").as_bytes()).await?);
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    tell("200 readers of 8 MiB each that do not read", per_connection(256 << 10) + 200 * (1 << 20))?;
    drop(readers);
    Ok(())
}

async fn open(edge: SocketAddr, count: usize, bytes: &[u8]) -> Result<Vec<TcpStream>> {
    let mut streams = Vec::with_capacity(count);
    for _ in 0..count {
        let mut stream = TcpStream::connect(edge).await?;
        stream.write_all(bytes).await?;
        streams.push(stream);
    }
    Ok(streams)
}

async fn many_urls(edge: SocketAddr) -> Result<()> {
    let pad = "p".repeat(1_000);
    side_by_side(edge, 200_000, |n| format!("GET /no-store/{n}/{pad} HTTP/1.1\r\nHost: a.test\r\n\r\n")).await
}

async fn many_variants(edge: SocketAddr) -> Result<()> {
    side_by_side(edge, 20_000, |n| format!("GET /vary HTTP/1.1\r\nHost: a.test\r\nX-Variant: {n}\r\n\r\n")).await
}

/// Asks over some connections, and reads each answer.
async fn side_by_side(edge: SocketAddr, count: usize, ask: impl Fn(usize) -> String + Copy) -> Result<()> {
    const LANES: usize = 16;
    let lanes = stream::iter(0..LANES).map(|lane| async move {
        let mut stream = TcpStream::connect(edge).await?;
        let mut buffer = vec![0; 4096];
        for n in (lane..count).step_by(LANES) {
            stream.write_all(ask(n).as_bytes()).await?;
            let mut heard = Vec::new();
            while !heard.ends_with(&[b'x'; SMALL]) {
                let read = stream.read(&mut buffer).await?;
                anyhow::ensure!(read > 0, "the edge closed after {}", String::from_utf8_lossy(&heard));
                heard.extend_from_slice(buffer.get(..read).unwrap_or_default());
            }
        }
        anyhow::Ok(())
    });
    lanes.buffer_unordered(LANES).collect::<Vec<_>>().await.into_iter().collect()
}

/// An upstream whose answers depend on the first segment of the path.
async fn upstream() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut buffer, mut head) = (vec![0; 16 << 10], Vec::new());
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    head.extend_from_slice(buffer.get(..count).unwrap_or_default());
                    if !head.ends_with(b"\r\n\r\n") {
                        continue;
                    }
                    let line = String::from_utf8_lossy(&head).into_owned();
                    head.clear();
                    if line.contains(" /hold") {
                        std::future::pending::<()>().await;
                    }
                    let (fields, length) = match () {
                        () if line.contains(" /large/") => ("Cache-Control: max-age=60", LARGE),
                        () if line.contains(" /vary") => ("Cache-Control: max-age=60\r\nVary: X-Variant", SMALL),
                        () => ("Cache-Control: no-store", SMALL),
                    };
                    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n\r\n").into_bytes();
                    answer.resize(answer.len() + length, b'x');
                    if stream.write_all(&answer).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    Ok(address)
}
