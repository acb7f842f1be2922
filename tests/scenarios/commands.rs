//! The command line against a running origin: what is typed counts, and what is printed is true.

use std::fs;
use std::process::{Command, Output, Stdio};

use anyhow::{Result, ensure};
use harness::{Process, eventually, free_port};
use serde_json::Value;

const ATOLL: &str = env!("CARGO_BIN_EXE_atoll-node");

/// An origin of its own, and a folder to publish.
struct Desk {
    folder: tempfile::TempDir,
    origin: String,
    _process: Process,
}

impl Desk {
    async fn open() -> Result<Self> {
        let (folder, port) = (tempfile::tempdir()?, free_port()?);
        let text = format!(
            "data = \"data\"\n[network]\nname = \"desk\"\nlease = \"1s\"\nheartbeat = \"200ms\"\n\
             [origin]\nlisten = \"127.0.0.1:{port}\"\nurl = \"http://127.0.0.1:{port}\"\n\
             [sites.docs]\nhosts = [\"docs.example.test\"]\n"
        );
        fs::write(folder.path().join("atoll.toml"), text)?;
        fs::create_dir_all(folder.path().join("site"))?;
        fs::write(folder.path().join("site/index.html"), "home")?;
        let process = Process::spawn(ATOLL, &["origin", "-c", "atoll.toml"], folder.path())?;
        let desk = Self { folder, origin: format!("http://127.0.0.1:{port}"), _process: process };
        eventually("the origin to answer", || async {
            let status = desk.run(&["status", "-c", "atoll.toml"], &[])?;
            ensure!(status.status.success(), "{}", said(&status));
            Ok(())
        })
        .await?;
        Ok(desk)
    }

    fn run(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut command = command(arguments);
        Ok(command.current_dir(self.folder.path()).envs(environment.iter().copied()).output()?)
    }

    /// Runs a command that must end so, and returns its stdout.
    fn ends(&self, code: i32, arguments: &[&str], environment: &[(&str, &str)]) -> Result<String> {
        let output = self.run(arguments, environment)?;
        ensure!(output.status.code() == Some(code), "{arguments:?}: {:?}\n{}", output.status, said(&output));
        Ok(String::from_utf8(output.stdout)?)
    }

    fn in_force(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.ends(0, &["config", "show", "--in-force", "--json", "-c", "atoll.toml"], &[])?)?)
    }
}

/// A command without anything of Atoll in its environment.
fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(ATOLL);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATOLL_")) {
        command.env_remove(name);
    }
    command.args(arguments).stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_and_the_environment_count_when_a_file_is_checked_and_applied() -> Result<()> {
    let desk = Desk::open().await?;

    let wrong = desk.run(&["check", "atoll.toml", "--set", "network.lease=soon", "--set", "sites.docs.hosts=a:1"], &[])?;
    assert_eq!(wrong.status.code(), Some(1));
    let complaints = String::from_utf8_lossy(&wrong.stderr);
    assert!(complaints.lines().count() == 2 && complaints.lines().all(|line| line.starts_with("error: --set ")), "{complaints}");

    let lease = [("ATOLL_NETWORK__LEASE", "3s")];
    desk.ends(0, &["apply", "-c", "atoll.toml", "--set", "sites.docs.keep_versions=7"], &lease)?;

    let in_force = desk.in_force()?;
    assert_eq!(in_force["network"]["network"]["lease"], "3s");
    assert_eq!(in_force["network"]["sites"]["docs"]["keep_versions"], 7);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_line_of_a_publish_is_where_it_can_be_seen() -> Result<()> {
    let desk = Desk::open().await?;
    let token = fs::read_to_string(desk.folder.path().join("data/admin.token"))?;
    let elsewhere = [("ATOLL_ORIGIN", desk.origin.as_str()), ("ATOLL_TOKEN", token.trim())];

    let published = desk.ends(0, &["publish", "site", "--site", "docs"], &elsewhere)?;
    assert_eq!(published.lines().last(), Some("http://docs.example.test/"), "the file here does not know the site");

    let preview = desk.run(&["publish", "site", "--site", "docs", "--alias", "preview"], &elsewhere)?;
    let last = String::from_utf8(preview.stdout.clone())?;
    assert!(last.lines().last().is_some_and(|line| line.starts_with("docs@")), "{last}");
    assert!(said(&preview).contains("no address serves the alias `preview`"), "{}", said(&preview));

    let json = desk.ends(0, &["publish", "site", "--site", "docs", "--wait", "none", "--json"], &elsewhere)?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!((json["url"].as_str(), json.get("everywhere")), (Some("http://docs.example.test/"), Some(&Value::Null)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_typed_wrong_or_hardly_meant_is_said() -> Result<()> {
    let desk = Desk::open().await?;
    desk.ends(0, &["publish", "site", "--site", "docs", "-c", "atoll.toml"], &[])?;

    desk.ends(1, &["rollback", "--site", "docs", "-c", "atoll.toml"], &[])?;
    desk.ends(1, &["status", "-c", "atoll.toml"], &[("ATOLL_ORIGIN", "127.0.0.1")])?;
    desk.ends(1, &["status", "-c", "atoll.toml", "--log", "atoll=nonsense"], &[])?;
    let stranger = desk.run(&["status", "-c", "atoll.toml"], &[("ATOLL_TOKEN", "atoll_00")])?;
    assert_eq!(stranger.status.code(), Some(2));
    assert!(said(&stranger).contains("the token of ATOLL_TOKEN is unknown"), "{}", said(&stranger));
    for (arguments, warning) in [
        (&["purge", "--all", "--owner", "nobody"][..], "has the owner `nobody`"),
        (&["token", "create", "--can", "publish:nosuch"][..], "has no site `nosuch`"),
    ] {
        let output = desk.run(&[arguments, &["-c", "atoll.toml"]].concat(), &[])?;
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        assert!(said(&output).contains(warning), "{}", said(&output));
    }
    Ok(())
}

#[test]
fn a_result_that_can_not_be_written_is_a_failure_and_a_reader_that_went_away_is_none() -> Result<()> {
    let full = fs::File::options().write(true).open("/dev/full")?;
    let output = command(&["config", "show"]).stdout(full).output()?;
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));

    let mut reading = command(&["completions", "bash"]).stdout(Stdio::piped()).spawn()?;
    drop(reading.stdout.take());
    assert_eq!(reading.wait()?.code(), Some(0));
    Ok(())
}
