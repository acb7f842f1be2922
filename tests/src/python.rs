//! Programs of Python, each set with its own pinned versions: installed once, in the folder of what is built.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use wire::Digest;

const NEEDS: &str = "this needs `python3 -m venv` (Debian: apt-get install python3 python3-venv python3-pip) and PyPI";

/// Returns a Python that has what a file of requirements names. It is installed once for each version of Python and of that
/// file; meanwhile this blocks.
///
/// # Errors
/// Where Python or PyPI can't be had.
pub fn python_with(requirements: &Path) -> Result<PathBuf> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _one_at_a_time = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let version = run(Command::new("python3").args(["-c", "import sys; print(sys.version, sys.prefix)"])).context(NEEDS)?;
    let digest = Digest::of(&[version, fs::read(requirements)?].concat()).short();
    let folder = built()?.join(format!("python-{digest}"));
    let python = folder.join("bin/python");
    if python.exists() {
        return Ok(python);
    }
    // What was interrupted never has the final name.
    let staged = folder.with_extension(std::process::id().to_string());
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&staged)).context(NEEDS)?;
    let pip = ["-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check", "--requirement"];
    run(Command::new(staged.join("bin/python")).args(pip).arg(requirements)).context(NEEDS)?;
    if let Err(error) = fs::rename(&staged, &folder) {
        // Another process was faster.
        fs::remove_dir_all(&staged)?;
        ensure!(python.exists(), "failed to move {} to {}: {error}", staged.display(), folder.display());
    }
    Ok(python)
}

/// The folder that cargo gives to tests, which lies beside the profiles of what it builds.
fn built() -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let target = test.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target.with_context(|| format!("{} was not built by cargo", test.display()))?.join("tmp");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs a command that must succeed, and returns what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {command:?}"))?;
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{said}{complained}", output.status);
    Ok(output.stdout)
}
