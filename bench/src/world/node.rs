//! One process of a world: started, killed without a word, held still, and let go on.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when it is asked to.
const PATIENCE: Duration = Duration::from_secs(20);

/// A process, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Node {
    name: String,
    call: Vec<String>,
    said: PathBuf,
    child: Option<Child>,
}

impl Node {
    /// Prepares the process of a call; what it says goes to a file in `folder`.
    pub(crate) fn new(name: &str, call: Vec<String>, folder: &Path) -> Self {
        Self { name: name.to_owned(), call, said: folder.join(format!("{name}.txt")), child: None }
    }

    /// Returns its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Starts it, without anything of Atoll in its environment.
    pub(crate) fn start(&mut self) -> Result<()> {
        let (program, arguments) = self.call.split_first().context("a call without a program")?;
        let out = File::options().create(true).append(true).open(&self.said)?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATOLL_")) {
            command.env_remove(name);
        }
        command.args(arguments).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        self.child = Some(command.spawn().with_context(|| format!("failed to start {program}"))?);
        Ok(())
    }

    fn child(&self) -> Result<&Child> {
        self.child.as_ref().with_context(|| format!("{} was not started", self.name))
    }

    /// Returns its id.
    pub(crate) fn id(&self) -> Result<u32> {
        Ok(self.child()?.id())
    }

    /// Kills it as a power cut would: SIGKILL, and nothing more runs.
    pub(crate) fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Asks it to end, and waits until it has.
    pub(crate) async fn end(&mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
                break;
            }
            ensure!(begun.elapsed() < PATIENCE, "{} goes on; it said:\n{}", self.name, self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Holds it still: SIGSTOP.
    pub(crate) fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on: SIGCONT.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(self.child()?), signal)?)
    }

    /// Returns the end of what it said.
    pub(crate) fn said(&self) -> String {
        let said = std::fs::read_to_string(&self.said).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // One that has ended already can't be killed, and need not be.
        let _ = self.kill();
    }
}
