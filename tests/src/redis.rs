//! Real Redis servers, each with a folder and ports of its own: to be killed, stopped, filled, and put back to what they once held.

mod speak;
mod options;
mod certificates;
mod cluster;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tempfile::TempDir;

use crate::{PATIENCE, Process, eventually};

pub use cluster::RedisCluster;
pub use options::RedisOptions;

use options::Ports;

/// How often other ports are tried where somebody was faster.
const ATTEMPTS: usize = 8;

/// The pause between two looks at a server that starts.
const PAUSE: Duration = Duration::from_millis(10);

/// What a server held at some time.
#[derive(Debug)]
pub struct OlderFiles(TempDir);

/// A server, killed when it is dropped.
#[derive(Debug)]
pub struct RedisServer {
    options: RedisOptions,
    folder: TempDir,
    ports: Ports,
    process: Option<Process>,
}

impl RedisServer {
    /// Starts a server and waits until it answers; a replica also until it has what its master has.
    ///
    /// # Errors
    /// Where there is no such program, or it does not come up; with what it said.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        fs::create_dir(folder.path().join(options::DATA))?;
        if options.has_tls() {
            certificates::write(folder.path())?;
        }
        let ports = options.free_ports()?;
        let mut server = Self { options, folder, ports, process: None };
        for _ in 1..ATTEMPTS {
            match server.run().await {
                Err(_) if server.lost_its_port() => server.ports = server.options.free_ports()?,
                done => return done.map(|()| server),
            }
        }
        server.run().await.map(|()| server)
    }

    /// Returns where it listens without TLS.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.ports.plain).into()
    }

    /// Returns its URL without TLS, and without credentials.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Returns its URL with TLS; the certificate is for `localhost` and 127.0.0.1.
    ///
    /// # Errors
    /// Where it was started without.
    pub fn tls_url(&self) -> Result<String> {
        let port = self.ports.tls.context("the server has no TLS")?;
        Ok(format!("rediss://localhost:{port}"))
    }

    /// Returns the file of the authority that signed its certificate.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join(certificates::AUTHORITY)
    }

    /// Returns all that it said since it was last started.
    #[must_use]
    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    /// Has a command carried out and returns the reply: nothing is empty, a list is its lines.
    ///
    /// # Errors
    /// Where the server refuses it, or does not answer.
    pub async fn command<W: AsRef<[u8]>>(&self, words: &[W]) -> Result<String> {
        let replies = speak::speak(self.address(), self.options.secret(), words).await?;
        let lines: Vec<_> = replies.iter().map(|reply| String::from_utf8_lossy(reply)).collect();
        Ok(lines.join("\n"))
    }

    /// Has a command carried out and returns the reply's bytes.
    ///
    /// # Errors
    /// Where the server refuses it, does not answer, or the reply is an empty list.
    pub async fn bytes<W: AsRef<[u8]>>(&self, words: &[W]) -> Result<Vec<u8>> {
        let replies = speak::speak(self.address(), self.options.secret(), words).await?;
        replies.into_iter().next().context("the reply is an empty list")
    }

    /// Returns a field of what `INFO` says, such as `run_id`.
    ///
    /// # Errors
    /// Where there is none.
    pub async fn info(&self, field: &str) -> Result<String> {
        let said = self.command(&["INFO", "everything"]).await?;
        let value = said.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(value.with_context(|| format!("INFO has no {field}"))?.trim().to_owned())
    }

    /// Takes away all that it holds.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn flush(&self) -> Result<()> {
        self.command(&["FLUSHALL"]).await.map(|_| ())
    }

    /// Lets it answer nobody for a while; it takes connections and commands.
    ///
    /// # Errors
    /// Where it does not answer.
    pub async fn client_pause(&self, pause: Duration) -> Result<()> {
        self.command(&["CLIENT", "PAUSE", &pause.as_millis().to_string(), "ALL"]).await.map(|_| ())
    }

    /// Makes it do nothing at all for a while.
    ///
    /// # Errors
    /// Where it can't be told.
    pub async fn debug_sleep(&self, sleep: Duration) -> Result<()> {
        let seconds = format!("{:.3}", sleep.as_secs_f64());
        speak::tell(self.address(), self.options.secret(), &["DEBUG", "SLEEP", &seconds]).await
    }

    /// Kills it as a power cut would.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.take().context("the server does not run")?.kill()
    }

    /// Stops it where it stands: connections stay, and nothing is answered.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn stop_clock(&self) -> Result<()> {
        self.running()?.signal("STOP")
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// Where it does not run.
    pub fn go_on(&self) -> Result<()> {
        self.running()?.signal("CONT")
    }

    /// Starts it again on the same ports with what is in its folder; where it runs it is killed first.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn restart(&mut self) -> Result<()> {
        self.process = None;
        let begun = Instant::now();
        loop {
            match self.run().await {
                // Whoever has the port may give it back; this server's clients know no other.
                Err(_) if self.lost_its_port() && begun.elapsed() < PATIENCE => tokio::time::sleep(PAUSE).await,
                done => return done,
            }
        }
    }

    /// Copies what it holds now.
    ///
    /// # Errors
    /// Where it does not answer, or a file can't be copied.
    pub async fn copy_files(&self) -> Result<OlderFiles> {
        if self.info("aof_enabled").await? == "0" {
            self.command(&["SAVE"]).await?;
        }
        let copy = tempfile::tempdir()?;
        copy_folder(&self.data(), copy.path())?;
        Ok(OlderFiles(copy))
    }

    /// Starts it again with what it held before, as if a backup had been put back; where it runs it is killed first.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn restart_with_older_files(&mut self, older: &OlderFiles) -> Result<()> {
        self.process = None;
        fs::remove_dir_all(self.data())?;
        copy_folder(older.0.path(), &self.data())?;
        self.restart().await
    }

    /// Starts it again with other options, on the same ports and with the same files.
    ///
    /// # Errors
    /// Where it does not come up, or the options need ports of which it has none.
    pub async fn restart_with(&mut self, options: RedisOptions) -> Result<()> {
        ensure!(options.fits(&self.ports), "these options need other ports");
        self.options = options;
        self.restart().await
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join(options::DATA)
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("the server does not run")
    }

    fn lost_its_port(&self) -> bool {
        self.said().contains("Address already in use")
    }

    async fn run(&mut self) -> Result<()> {
        let (folder, program) = (self.folder.path(), self.options.program_name());
        fs::write(folder.join("redis.conf"), self.options.text(&self.ports, folder))?;
        // What it said in a former life is no sign of this one.
        let _ = fs::remove_file(folder.join("said.txt"));
        let spawned = Process::spawn(program, &["redis.conf"], folder).map_err(|error| match error.downcast_ref::<std::io::Error>() {
            Some(cause) if cause.kind() == ErrorKind::NotFound => {
                error.context(format!("there is no {program}: `apt-get install redis-server`"))
            }
            _ => error,
        });
        self.process = Some(spawned?);
        self.came_up().await?;
        if self.options.is_replica() {
            eventually("the replica to have what its master has", || self.is_linked()).await?;
        }
        Ok(())
    }

    async fn came_up(&mut self) -> Result<()> {
        let begun = Instant::now();
        while let Err(error) = self.is_ready().await {
            let process = self.process.as_mut().context("the server does not run")?;
            if !process.is_running()? {
                bail!("the server ended; it said:\n{}", process.said());
            }
            ensure!(begun.elapsed() < PATIENCE, "the server does not answer: {error:#}; it said:\n{}", process.said());
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// Whoever else has this port may answer too; so it says its number.
    async fn is_ready(&self) -> Result<()> {
        ensure!(self.command(&["PING"]).await? == "PONG", "no PONG");
        let id = self.info("process_id").await?;
        ensure!(id == self.running()?.id().to_string(), "process {id} answers");
        Ok(())
    }

    async fn is_linked(&self) -> Result<()> {
        let status = self.info("master_link_status").await?;
        ensure!(status == "up", "the link to the master is {status}");
        Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_with_an_append_only_file_keeps_what_it_acknowledged_before_it_was_killed() -> Result<()> {
        let mut server = RedisServer::start(RedisOptions::default().append_only()).await?;
        server.command(&["SET", "a", "1"]).await?;
        let older = server.copy_files().await?;
        server.command(&["SET", "a", "2"]).await?;
        let run = server.info("run_id").await?;

        server.kill9()?;
        server.restart().await?;

        assert_eq!(server.command(&["GET", "a"]).await?, "2");
        assert_ne!(server.info("run_id").await?, run);
        server.restart_with_older_files(&older).await?;
        assert_eq!(server.command(&["GET", "a"]).await?, "1");
        Ok(())
    }

    #[tokio::test]
    async fn a_server_with_a_password_and_a_limit_refuses_what_is_too_much() -> Result<()> {
        let options = RedisOptions::default().password("secret").user("atoll", "other").with("maxmemory", "1mb");
        let server = RedisServer::start(options).await?;

        let value = vec![b'x'; 2 << 20];
        let refused = server.command(&[b"SET".as_slice(), b"a", &value]).await;

        assert!(refused.is_err_and(|error| error.to_string().contains("OOM")));
        assert!(server.command(&["ACL", "LIST"]).await?.contains("user atoll on"));
        Ok(())
    }

    #[tokio::test]
    async fn a_replica_has_what_its_master_has_and_tls_has_an_authority() -> Result<()> {
        let master = RedisServer::start(RedisOptions::default().password("secret").tls()).await?;
        master.command(&["SET", "a", "1"]).await?;

        let replica = RedisServer::start(RedisOptions::default().replica_of(&master)).await?;

        assert_eq!(replica.command(&["GET", "a"]).await?, "1");
        assert!(master.tls_url()?.starts_with("rediss://localhost:"));
        assert!(fs::read_to_string(master.authority())?.contains("CERTIFICATE"));
        Ok(())
    }

    #[tokio::test]
    async fn a_server_that_sleeps_or_is_stopped_answers_afterwards() -> Result<()> {
        let server = RedisServer::start(RedisOptions::default()).await?;

        let begun = Instant::now();
        server.debug_sleep(Duration::from_millis(300)).await?;
        server.command(&["PING"]).await?;
        assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

        server.stop_clock()?;
        let silent = tokio::time::timeout(Duration::from_millis(200), server.command(&["PING"])).await;
        assert!(silent.is_err());
        server.go_on()?;
        assert_eq!(server.command(&["PING"]).await?, "PONG");
        Ok(())
    }

    #[tokio::test]
    async fn a_missing_program_is_told_with_what_to_install() {
        let failed = RedisServer::start(RedisOptions::default().program("redis-server-that-is-not-there")).await;

        assert!(failed.is_err_and(|error| format!("{error:#}").contains("apt-get install")));
    }
}
