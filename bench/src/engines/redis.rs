//! A real Redis server: killed, held still, filled, emptied, and put back to what it once held.

use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::world::node::Node;

/// The program.
const PROGRAM: &str = "redis-server";

/// How long it may take to answer, and how long one question may take meanwhile: whoever else has its port may never answer.
const PATIENCE: Duration = Duration::from_secs(20);
const QUESTION: Duration = Duration::from_secs(2);

/// The largest reply that is read: what INFO says is a few kilobytes.
const REPLY_MOST: usize = 1 << 20;

/// What a server keeps when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keeps {
    /// Nothing, as a second tier.
    Nothing,
    /// All that it acknowledged, as a journal needs it.
    Everything,
}

/// What a server held at some time.
#[derive(Debug)]
pub(crate) struct OlderFiles(TempDir);

/// A server, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct RedisServer {
    address: SocketAddr,
    keeps: Keeps,
    node: Node,
    folder: TempDir,
}

impl RedisServer {
    /// Starts it, and waits until it answers.
    pub(crate) async fn start(address: SocketAddr, keeps: Keeps) -> Result<Self> {
        let folder = TempDir::new()?;
        let file = folder.path().join("redis.conf");
        fs::create_dir(data_in(&folder))?;
        fs::write(&file, settings(address, keeps, &data_in(&folder)))?;
        let node = Node::new(PROGRAM, vec![PROGRAM.to_owned(), file.display().to_string()], folder.path());
        let mut server = Self { address, keeps, node, folder };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts it again with what it kept, and waits until it answers.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        self.node.start().map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(cause) if cause.kind() == ErrorKind::NotFound => {
                error.context(format!("there is no {PROGRAM}: `apt-get install redis-server`"))
            }
            _ => error,
        })?;
        self.wait().await
    }

    /// Returns its URL.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Kills it: whoever comes is refused at once.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.node.kill()
    }

    /// Holds it still: connections stay, others are taken by the system, and nothing is answered.
    pub(crate) fn stop_clock(&self) -> Result<()> {
        self.node.pause()
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> Result<()> {
        self.node.resume()
    }

    /// Has a command carried out, its words apart by spaces, and returns the reply.
    pub(crate) async fn tell(&self, command: &str) -> Result<String> {
        let told = timeout(PATIENCE, ask(self.address, command)).await;
        told.with_context(|| format!("{PROGRAM} did not answer `{command}` within {PATIENCE:?}"))?
    }

    /// Copies what it holds now.
    pub(crate) async fn copy(&self) -> Result<OlderFiles> {
        if self.keeps == Keeps::Nothing {
            self.tell("SAVE").await?;
        }
        let copy = TempDir::new()?;
        copy_folder(&data_in(&self.folder), copy.path())?;
        Ok(OlderFiles(copy))
    }

    /// Kills it and starts it with what it held before, as if a backup had been put back.
    pub(crate) async fn put_back(&mut self, older: &OlderFiles) -> Result<()> {
        self.kill()?;
        fs::remove_dir_all(data_in(&self.folder))?;
        copy_folder(older.0.path(), &data_in(&self.folder))?;
        self.start_again().await
    }

    /// Waits until it is this process that answers.
    async fn wait(&self) -> Result<()> {
        let mine = format!("process_id:{}\r\n", self.node.id()?);
        let begun = Instant::now();
        loop {
            // While it reads what it kept it says that it is loading.
            if let Ok(Ok(said)) = timeout(QUESTION, ask(self.address, "INFO server")).await
                && said.contains(&mine)
                && self.tell("PING").await.is_ok()
            {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "{PROGRAM} did not answer within {PATIENCE:?}; it said:\n{}", self.node.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

fn data_in(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// Writes its file. What it keeps is never rewritten meanwhile: a copy of it is whole.
fn settings(address: SocketAddr, keeps: Keeps, data: &Path) -> String {
    let (host, port, data) = (address.ip(), address.port(), data.display());
    let keeping = match keeps {
        Keeps::Nothing => "appendonly no\n",
        Keeps::Everything => "appendonly yes\nappendfsync always\nauto-aof-rewrite-percentage 0\n",
    };
    // Where regions are namespaces, who asks comes from another address than this machine's own.
    format!("bind {host}\nport {port}\ndir {data}\nsave \"\"\nprotected-mode no\nenable-debug-command yes\n{keeping}")
}

/// Sends a line, as people would, and reads one reply.
async fn ask(address: SocketAddr, command: &str) -> Result<String> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    stream.write_all(format!("{command}\r\n").as_bytes()).await?;
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let line = line.trim_end();
    if let Some(length) = line.strip_prefix('$') {
        let length: usize = length.parse()?;
        ensure!(length <= REPLY_MOST, "a reply of {length} bytes");
        let mut reply = vec![0; length];
        stream.read_exact(&mut reply).await?;
        return Ok(String::from_utf8_lossy(&reply).into_owned());
    }
    match line.strip_prefix(['+', ':']) {
        Some(word) => Ok(word.to_owned()),
        None => bail!("it said `{line}` to `{command}`"),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_folder(&source, &target)?;
        } else {
            fs::copy(&source, &target).with_context(|| format!("failed to copy {}", source.display()))?;
        }
    }
    Ok(())
}
