//! A real S3-compatible store, moto, with one bucket, behind a relay that can let it fail. What it holds ends with it.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use super::python::python_with;
use super::relay::{Fault, Relay};
use crate::town::client;
use crate::world::node::Node;

/// The versions that it is made of: those that tests take.
const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/servers/requirements.txt");

const BUCKET: &str = "drill-blobs";

/// Any call must be signed; moto does not look by whom.
const SIGNED: &str = "AWS4-HMAC-SHA256 Credential=drill/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// How long it may take to answer: Python reads much of itself first.
const PATIENCE: Duration = Duration::from_secs(60);

/// A store, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Store {
    relay: Relay,
    folder: TempDir,
    _node: Node,
}

impl Store {
    /// Starts it, and makes its bucket.
    pub(crate) async fn start(address: SocketAddr) -> Result<Self> {
        let python = tokio::task::spawn_blocking(|| python_with(Path::new(REQUIREMENTS))).await??;
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("access.key"), "drill")?;
        std::fs::write(folder.path().join("secret.key"), "drill of a store")?;
        let (host, port) = (address.ip().to_string(), address.port().to_string());
        let mut call = vec![python.display().to_string()];
        call.extend(["-I", "-u", "-m", "moto.server", "-H", &host, "-p", &port].map(str::to_owned));
        let mut node = Node::new("moto", call, folder.path());
        node.start()?;
        make_bucket(address, &node).await?;
        let relay = Relay::before(address, address.ip()).await?;
        Ok(Self { relay, folder, _node: node })
    }

    /// Returns the line of an origin's section that stores blobs here.
    pub(crate) fn line(&self) -> String {
        let (keys, endpoint) = (self.folder.path().display(), self.relay.url());
        format!(
            "blobs = {{ url = \"s3://{BUCKET}/blobs\", endpoint = \"{endpoint}\", access_key = \"file:{keys}/access.key\", \
             secret_key = \"file:{keys}/secret.key\" }}\n"
        )
    }

    /// Decides what becomes of requests from now on.
    pub(crate) fn set(&self, fault: Fault) {
        self.relay.set(fault);
    }

    /// Returns how many requests were failed or delayed.
    pub(crate) fn harmed(&self) -> u64 {
        self.relay.harmed()
    }
}

async fn make_bucket(address: SocketAddr, node: &Node) -> Result<()> {
    let (client, begun) = (client()?, Instant::now());
    loop {
        let call = client.put(format!("http://{address}/{BUCKET}")).header("authorization", SIGNED).timeout(PATIENCE);
        let said = match call.send().await.context("moto does not answer") {
            Ok(answer) if answer.status().is_success() => return Ok(()),
            Ok(answer) => format!("it answered {}", answer.status()),
            Err(error) => format!("{error:#}"),
        };
        ensure!(begun.elapsed() < PATIENCE, "there is no bucket after {PATIENCE:?}: {said}; moto said:\n{}", node.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
