//! The WAN emulator `wan.py` as this program uses it: a network namespace per region, and packets between them that take
//! their time or get lost. It needs root, /dev/net/tun, `ip` and Python 3.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Map, Value, json};
use tokio::net::UnixDatagram;

use super::plan::{REGIONS, Region};

/// How long it may take to begin, to answer and to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The emulator while it runs. Dropping it takes its namespaces away.
#[derive(Debug)]
pub(crate) struct Wan {
    child: Child,
    prefix: String,
    network: u8,
    folder: PathBuf,
}

impl Wan {
    /// Starts the emulator, and waits until its namespaces are there.
    pub(crate) async fn start(script: &Path, folder: &Path) -> Result<Self> {
        ensure!(script.exists(), "there is no {}", script.display());
        // Two of them side by side must not meet: neither by name nor by address.
        let process = std::process::id();
        let (prefix, network) = (format!("w{process}"), u8::try_from(64 + process % 128)?);
        let file = folder.join("wan.json");
        std::fs::write(&file, topology(&prefix, network).to_string())?;
        let said = folder.join("wan.txt");
        let mut command = Command::new("python3");
        command.arg(script).arg("up").arg(&file).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(File::create(&said)?);
        let mut child = command.spawn().context("failed to start python3")?;
        let out = child.stdout.take().context("python3 has no stdout")?;
        let wan = Self { child, prefix, network, folder: folder.to_owned() };
        let first = tokio::time::timeout(PATIENCE, tokio::task::spawn_blocking(move || first_line(out))).await;
        let is_up = matches!(&first, Ok(Ok(Ok(line))) if line.trim() == "up");
        if !is_up {
            let said = std::fs::read_to_string(&said).unwrap_or_default();
            anyhow::bail!("{} did not come up: {}", script.display(), said.lines().last().unwrap_or("it said nothing"));
        }
        Ok(wan)
    }

    /// Returns the address of this program.
    pub(crate) fn host(&self) -> IpAddr {
        address(self.network, 0)
    }

    /// Returns the address of a region.
    pub(crate) fn address(&self, region: usize) -> IpAddr {
        address(self.network, region + 1)
    }

    /// Returns the words before a command that is run in a region.
    pub(crate) fn enter(&self, region: &Region) -> Vec<String> {
        ["ip", "netns", "exec", &format!("{}-{}", self.prefix, region.name)].map(str::to_owned).to_vec()
    }

    /// Cuts two regions from each other, or heals that.
    pub(crate) async fn set_cut(&self, one: &Region, other: &Region, cut: bool) -> Result<()> {
        let verb = if cut { "cut" } else { "heal" };
        let path = self.folder.join("wan-control.sock");
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        let socket = UnixDatagram::bind(&path)?;
        socket.send_to(format!("{verb} {} {}", one.name, other.name).as_bytes(), self.folder.join("wan.json.sock")).await?;
        let mut answer = vec![0; 1 << 10];
        let length = tokio::time::timeout(PATIENCE, socket.recv(&mut answer)).await.context("wan.py does not answer")??;
        let answer = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
        ensure!(answer == "ok", "wan.py said {answer} to `{verb}`");
        Ok(())
    }
}

fn first_line(out: ChildStdout) -> std::io::Result<String> {
    let mut line = String::new();
    BufReader::new(out).read_line(&mut line)?;
    Ok(line)
}

/// Network 0 is this program's, the others are the regions'.
fn address(network: u8, place: usize) -> IpAddr {
    Ipv4Addr::new(10, network, u8::try_from(place).unwrap_or(u8::MAX), 1).into()
}

/// Who is where, and how far from each other: this program is near to all of them.
fn topology(prefix: &str, network: u8) -> Value {
    let cidr = |place| Value::from(format!("{}/24", address(network, place)));
    let mut nodes = Map::from_iter([("host".to_owned(), cidr(0))]);
    nodes.extend(REGIONS.iter().enumerate().map(|(at, region)| (region.name.to_owned(), cidr(at + 1))));
    let pairs = REGIONS.iter().enumerate().flat_map(|(at, one)| REGIONS.iter().skip(at + 1).map(move |other| (one, other)));
    let links: Vec<Value> =
        pairs.map(|(one, other)| json!([one.name, other.name, { "delay": one.one_way_ms + other.one_way_ms }])).collect();
    json!({ "prefix": prefix, "mtu": 1400, "nodes": nodes, "links": links })
}

impl Drop for Wan {
    fn drop(&mut self) {
        // Asked to end, it takes the namespaces away; killed, it would leave them.
        let asked = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let begun = Instant::now();
        while asked.is_ok() && begun.elapsed() < PATIENCE {
            if let Ok(Some(_)) = self.child.try_wait() {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        for region in &REGIONS {
            // One that is gone already can't be deleted, and need not be.
            let _ = Command::new("ip").args(["netns", "del", &format!("{}-{}", self.prefix, region.name)]).stderr(Stdio::null()).status();
        }
    }
}
