//! A Redis of a test's own: a process in a folder of its own, killed with the test.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use config::{RedisAddress, RedisUrl};
use engine::Redis;
use engine::redis::{self, FromRedisValue};

use crate::journal::Journal;

/// How long a Redis may take to start.
const PATIENCE: Duration = Duration::from_secs(10);

/// A Redis that syncs each write.
pub(super) struct Server {
    folder: tempfile::TempDir,
    port: u16,
    child: Child,
}

impl Server {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..10 {
            let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Somebody else may have taken the port meanwhile.
            if let Some(child) = spawn(folder.path(), port) {
                return Self { folder, port, child };
            }
        }
        panic!("redis-server did not start ten times");
    }

    fn redis(&self, patience: Duration) -> Redis {
        let url = RedisUrl { tls: false, host: "127.0.0.1".to_owned(), port: self.port, database: 0 };
        let key = "origin.journal".to_owned();
        let address = RedisAddress { key, urls: vec![url], cluster: false, user: None, password: None, ca: None };
        Redis::open(&address, patience).unwrap()
    }

    /// Opens the journal as one of any number of origins.
    pub(super) async fn origin(&self) -> Journal {
        Journal::open_shared(self.redis(Duration::from_secs(2)), "test", 0, false).await.unwrap()
    }

    /// The same, with as many replicas that must have each event.
    pub(super) async fn origin_with_replicas(&self, replicas: u64) -> Journal {
        Journal::open_shared(self.redis(Duration::from_secs(3)), "test", replicas, false).await.unwrap()
    }

    pub(super) fn journal_redis(&self) -> Redis {
        self.redis(Duration::from_secs(2))
    }

    pub(super) async fn call<T: FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(*word);
        }
        self.redis(Duration::from_secs(5)).call(&command).await.unwrap()
    }

    pub(super) async fn follow(&self, master: &Self) {
        let port = master.port.to_string();
        self.call::<()>(&["REPLICAOF", "127.0.0.1", &port]).await;
        let begun = Instant::now();
        while !self.call::<String>(&["INFO", "replication"]).await.contains("master_link_status:up") {
            assert!(begun.elapsed() < PATIENCE, "the replica did not get to its master");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it without a word.
    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again on the same files and the same port.
    pub(super) fn start_again(&mut self) {
        self.child = spawn(self.folder.path(), self.port).expect("redis-server starts again");
    }

    /// Copies its files as they are now. Its last write is synced.
    pub(super) fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(self.folder.path(), copy.path());
        copy
    }

    /// Puts older files in the place of its own, while it is dead.
    pub(super) fn put_back(&self, copy: &tempfile::TempDir) {
        std::fs::remove_dir_all(self.folder.path().join("appendonlydir")).unwrap();
        copy_folder(copy.path(), self.folder.path());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Starts it and waits until it listens; `None` where it ended before.
fn spawn(folder: &Path, port: u16) -> Option<Child> {
    let port_text = port.to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port_text, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes", "--appendfsync", "always"]);
    command.args(["--enable-debug-command", "yes", "--dir"]).arg(folder).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("redis-server is needed for this test: apt-get install redis-server");
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if child.try_wait().unwrap().is_some() {
            return None;
        }
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Some(child);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}
