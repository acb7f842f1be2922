//! A network of real processes on ports of the system's choice.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

/// How long a process may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Processes that end with this value.
#[derive(Debug)]
pub(crate) struct Town {
    pub(crate) folder: TempDir,
    pub(crate) file: PathBuf,
    pub(crate) origin: SocketAddr,
    pub(crate) edges: Vec<(SocketAddr, SocketAddr)>,
    binary: PathBuf,
    children: Vec<Child>,
}

/// Returns an address that nobody listens on.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Town {
    /// Writes a file with three edges; nothing runs yet. `more` is added to it.
    pub(crate) fn new(binary: &Path, memory: &str, more: &str) -> Result<Self> {
        Self::in_region(binary, memory, "", more)
    }

    /// The same, with these lines in the table of the edges' region.
    pub(crate) fn in_region(binary: &Path, memory: &str, region: &str, more: &str) -> Result<Self> {
        let folder = TempDir::new()?;
        let origin = free_address()?;
        let mut text = format!(
            "data = \"data\"\n[origin]\nlisten = \"{origin}\"\nurl = \"http://{origin}\"\n[regions.here]\nlatitude = 0\nlongitude = 0\n{region}\n[sites.www]\nhosts = [\"*\"]\n{more}"
        );
        let mut edges = Vec::new();
        for n in 1..=3 {
            let (listen, admin) = (free_address()?, free_address()?);
            text += &format!("[edges.e{n}]\nregion = \"here\"\nlisten = \"{listen}\"\nadmin = \"{admin}\"\nmemory = \"{memory}\"\n");
            edges.push((listen, admin));
        }
        let file = folder.path().join("atoll.toml");
        std::fs::write(&file, text)?;
        Ok(Self { folder, file, origin, edges, binary: binary.to_owned(), children: Vec::new() })
    }

    /// Prepares a call of the binary.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("-c").arg(&self.file).args(["--log", "warn"]).args(arguments).stdin(Stdio::null()).stdout(Stdio::null());
        command
    }

    /// Starts a process that runs until the end, and returns its id.
    pub(crate) fn spawn(&mut self, arguments: &[&str]) -> Result<u32> {
        let child = self.command(arguments).spawn().with_context(|| format!("failed to start {}", self.binary.display()))?;
        let id = child.id();
        self.children.push(child);
        Ok(id)
    }

    /// Kills a process that was spawned: SIGKILL, and nothing more runs.
    pub(crate) fn kill(&mut self, id: u32) -> Result<()> {
        let at = self.children.iter().position(|child| child.id() == id).context("no such process was spawned")?;
        let mut child = self.children.swap_remove(at);
        let killed = child.kill();
        child.wait()?;
        Ok(killed?)
    }

    /// Reads the token that the origin wrote for its administrator.
    pub(crate) fn admin_token(&self) -> Result<String> {
        let token = std::fs::read_to_string(self.folder.path().join("data/admin.token"))?;
        Ok(token.trim().to_owned())
    }

    /// Runs a command to its end and returns how long it took.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<Duration> {
        let begun = Instant::now();
        let status = self.command(arguments).status()?;
        anyhow::ensure!(status.success(), "{arguments:?} ended with {status}");
        Ok(begun.elapsed())
    }

    /// Waits until a page answers 200.
    pub(crate) async fn wait_for(&self, url: &str) -> Result<()> {
        self.wait_to_read(url, "").await
    }

    /// Waits until a page answers 200, and with this in it.
    async fn wait_to_read(&self, url: &str, text: &str) -> Result<()> {
        let client = client()?;
        let begun = Instant::now();
        loop {
            if let Ok(response) = client.get(url).send().await
                && response.status().is_success()
                && response.text().await?.contains(text)
            {
                return Ok(());
            }
            anyhow::ensure!(begun.elapsed() < PATIENCE, "{url} did not answer with `{text}` within {PATIENCE:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Starts the origin and its first edge, as [`Self::start_edge`] does.
    pub(crate) async fn start_one_edge(&mut self) -> Result<(u32, SocketAddr, SocketAddr)> {
        self.spawn(&["origin"])?;
        self.wait_for(&format!("http://{}/readyz", self.origin)).await?;
        self.start_edge(1).await
    }

    /// Starts an edge by its number, and waits until it has heard of its lease: before, it shares no fetch.
    /// Returns its process, where it serves, and where it tells how it is.
    pub(crate) async fn start_edge(&mut self, number: usize) -> Result<(u32, SocketAddr, SocketAddr)> {
        let edge = self.spawn(&["edge", &format!("e{number}")])?;
        let (listen, admin) = *self.edges.get(number.saturating_sub(1)).context("no such edge")?;
        self.wait_to_read(&format!("http://{admin}/metrics"), "\natoll_edge_leased 1\n").await?;
        Ok((edge, listen, admin))
    }

    /// Waits until all edges are ready.
    pub(crate) async fn wait_for_edges(&self) -> Result<()> {
        for (_, admin) in &self.edges {
            self.wait_for(&format!("http://{admin}/readyz")).await?;
        }
        Ok(())
    }
}

impl Drop for Town {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A client that asks for exactly what it is told.
pub(crate) fn client() -> Result<reqwest::Client> {
    Ok(reqwest::Client::builder().no_proxy().tls_certs_only([]).http1_only().build()?)
}
