//! A few words of Redis' protocol: enough to tell a server what a test needs, by nothing that is under test.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::PATIENCE;

/// How long a server gets to begin with a command whose reply nobody waits for.
const BEGIN: Duration = Duration::from_millis(20);

/// Has a command carried out and returns the reply, lists laid flat; nothing is empty.
pub(super) async fn speak<W: AsRef<[u8]>>(address: SocketAddr, password: Option<&str>, words: &[W]) -> Result<Vec<Vec<u8>>> {
    let spoken = async {
        let mut stream = connect(address, password).await?;
        send(&mut stream, words).await?;
        read(&mut stream).await
    };
    timeout(PATIENCE, spoken).await.context("the server does not answer")?
}

/// Sends a command that keeps the server busy, and waits for no reply.
pub(super) async fn tell<W: AsRef<[u8]>>(address: SocketAddr, password: Option<&str>, words: &[W]) -> Result<()> {
    let mut stream = timeout(PATIENCE, connect(address, password)).await.context("the server does not answer")??;
    send(&mut stream, words).await?;
    match timeout(BEGIN, read(&mut stream)).await {
        // A refusal comes at once.
        Ok(said) => said.map(|_| ()),
        Err(_) => Ok(()),
    }
}

async fn connect(address: SocketAddr, password: Option<&str>) -> Result<BufReader<TcpStream>> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    if let Some(password) = password {
        send(&mut stream, &["AUTH", password]).await?;
        read(&mut stream).await?;
    }
    Ok(stream)
}

async fn send<W: AsRef<[u8]>>(stream: &mut BufReader<TcpStream>, words: &[W]) -> Result<()> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        let word = word.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    Ok(stream.write_all(&bytes).await?)
}

async fn read(stream: &mut BufReader<TcpStream>) -> Result<Vec<Vec<u8>>> {
    let (mut replies, mut left) = (Vec::new(), 1_usize);
    while left > 0 {
        left -= 1;
        let mut line = String::new();
        let read = stream.read_line(&mut line).await?;
        ensure!(read > 0, "the server hung up");
        let line = line.trim_end();
        match (line.get(..1), line.get(1..).unwrap_or_default()) {
            (Some("+" | ":"), said) => replies.push(said.as_bytes().to_vec()),
            (Some("$" | "*"), "-1") => replies.push(Vec::new()),
            (Some("$"), length) => replies.push(read_bytes(stream, length.parse()?).await?),
            (Some("*"), count) => left += count.parse::<usize>()?,
            (Some("-"), refusal) => bail!("{refusal}"),
            _ => bail!("not a reply: {line}"),
        }
    }
    Ok(replies)
}

async fn read_bytes(stream: &mut BufReader<TcpStream>, length: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    let mut end = [0; 2];
    stream.read_exact(&mut end).await?;
    Ok(bytes)
}
