//! A Python with what a file of requirements names: installed once, in the folder of what is built, where tests look for it too.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use wire::Digest;

const NEEDS: &str = "this needs `python3 -m venv` (Debian: apt-get install python3 python3-venv python3-pip) and PyPI";

/// Returns it; where it is not there yet it is installed, and meanwhile this blocks.
pub(crate) fn python_with(requirements: &Path) -> Result<PathBuf> {
    let version = run(Command::new("python3").args(["-c", "import sys; print(sys.version, sys.prefix)"])).context(NEEDS)?;
    let wanted = fs::read(requirements).with_context(|| format!("failed to read {}", requirements.display()))?;
    let folder = built()?.join(format!("python-{}", Digest::of(&[version, wanted].concat()).short()));
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

/// The folder for what is neither source nor built, beside the profiles of what cargo builds.
fn built() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let target = program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    let folder = target.with_context(|| format!("{} was not built by cargo", program.display()))?.join("tmp");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Runs a command that must succeed, and returns what it printed.
fn run(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("failed to start {command:?}"))?;
    let complained = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{complained}", output.status);
    Ok(output.stdout)
}
