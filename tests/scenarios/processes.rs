//! Nodes as processes: killed in the middle of their work, out of disk, asked to end.

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Control, Draft, PATIENCE, Process, eventually, free_port, raw};
use wire::{Digest, Event, Fact, Problem, PurgeRequest, Receipt, Scope, Wait};

const ATOLL: &str = env!("CARGO_BIN_EXE_atoll-node");

/// A file of one origin and one edge, in a folder of their own.
struct House {
    folder: tempfile::TempDir,
    data: PathBuf,
    origin: u16,
    edge: u16,
    admin: u16,
}

impl House {
    /// Writes the file; `data` is a path below its folder.
    fn new(data: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (origin, edge, admin) = (free_port()?, free_port()?, free_port()?);
        let text = format!(
            "data = \"{data}\"\n[network]\nname = \"house\"\nlease = \"2s\"\nheartbeat = \"200ms\"\n\
             [origin]\nlisten = \"127.0.0.1:{origin}\"\nurl = \"http://127.0.0.1:{origin}\"\n\
             [regions.fra]\nlatitude = 50.11\nlongitude = 8.68\n\
             [edges.fra-1]\nregion = \"fra\"\nlisten = \"127.0.0.1:{edge}\"\nadmin = \"127.0.0.1:{admin}\"\nmemory = \"32 MiB\"\n\
             [sites.www]\nhosts = [\"*\"]\n"
        );
        fs::write(folder.path().join("atoll.toml"), text)?;
        let data = folder.path().join(data);
        Ok(Self { folder, data, origin, edge, admin })
    }

    fn run(&self, arguments: &[&str]) -> Result<Process> {
        Process::spawn(ATOLL, arguments, self.folder.path())
    }

    /// Starts the origin and waits until it takes calls.
    async fn origin(&self) -> Result<(Process, Control)> {
        let process = self.run(&["origin", "-c", "atoll.toml"])?;
        answers(&process, self.origin, "/readyz").await?;
        let token = fs::read_to_string(self.data.join("admin.token"))?;
        Ok((process, Control::new(format!("http://127.0.0.1:{}", self.origin), &token)?))
    }
}

/// Waits until a page of a process is there.
async fn answers(process: &Process, port: u16, path: &str) -> Result<String> {
    let request = format!("GET {path} HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n");
    eventually(&format!("port {port} to answer {path}"), || async {
        let answer = raw(SocketAddr::from(([127, 0, 0, 1], port)), request.as_bytes()).await.with_context(|| process.said())?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "{answer}\n{}", process.said());
        Ok(answer)
    })
    .await
}

/// What an origin has acknowledged: seqs with the tag that each purged.
#[derive(Clone, Debug, Default)]
struct Acknowledged(Arc<Mutex<Vec<(u64, String)>>>);

impl Acknowledged {
    fn add(&self, seq: u64, tag: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((seq, tag));
    }

    fn all(&self) -> Vec<(u64, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Looks each one up in the journal.
    fn check(&self, journal: &[Event]) -> Result<()> {
        for (seq, tag) in self.all() {
            let event = journal.iter().find(|event| event.seq == seq);
            let scopes = match event.map(|event| &event.fact) {
                Some(Fact::Purged { scopes, .. }) => scopes.as_slice(),
                other => anyhow::bail!("event {seq} was acknowledged as a purge of {tag}, but is {other:?}"),
            };
            let is_there = scopes.iter().any(|scope| matches!(scope, Scope::Tag(known) if known.as_str() == tag));
            ensure!(is_there, "event {seq} was acknowledged as a purge of {tag}, but is one of {scopes:?}");
        }
        Ok(())
    }
}

fn purge(tags: Vec<String>) -> PurgeRequest {
    PurgeRequest { tags, wait: Wait::None, ..PurgeRequest::default() }
}

/// Purges one tag after another until the origin is gone.
async fn purge_until_it_is_gone(control: Control, name: String, acknowledged: Acknowledged) {
    for n in 0_u64.. {
        let tag = format!("{name}-{n}");
        let Ok(answer) = control.send_purge(&purge(vec![tag.clone()])).await else { return };
        let Ok(receipt) = answer.json::<Receipt>() else { return };
        acknowledged.add(receipt.seq, tag);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_killed_under_load_loses_no_acknowledged_event() -> Result<()> {
    let house = House::new("data")?;
    let acknowledged = Acknowledged::default();
    for round in 1..=3 {
        let (mut process, control) = house.origin().await?;
        acknowledged.check(&control.journal().await?)?;
        let before = acknowledged.all().len();
        let purgers = (0..8).map(|n| purge_until_it_is_gone(control.clone(), format!("r{round}-p{n}"), acknowledged.clone()));
        let purgers: Vec<_> = purgers.map(tokio::spawn).collect();
        eventually("purges to be acknowledged", || async {
            let since = acknowledged.all().len() - before;
            ensure!(since >= 100 * round, "{since} so far\n{}", process.said());
            Ok(())
        })
        .await?;

        process.kill()?;

        for purger in join_all(purgers).await {
            purger?;
        }
    }
    let (_process, control) = house.origin().await?;
    let journal = control.journal().await?;
    acknowledged.check(&journal)?;
    assert!(journal.len() >= acknowledged.all().len());
    control.purge(&PurgeRequest { tags: vec!["after".to_owned()], ..PurgeRequest::default() }).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_and_a_repeat_outlive_the_kill_of_their_origin() -> Result<()> {
    let house = House::new("data")?;
    let (mut process, control) = house.origin().await?;
    let request = PurgeRequest { again_after_ms: Some(1000), ..purge(vec!["once".to_owned()]) };
    let first: Receipt = control.send_purge_under("deploy-7", &request).await?.json()?;
    process.kill()?;

    let (mut process, control) = house.origin().await?;
    let second: Receipt = control.send_purge_under("deploy-7", &request).await?.json()?;
    assert_eq!((second.position, second.again_at), (first.position, first.again_at));
    let repeats = |journal: &[Event]| {
        let of_first = |event: &&Event| matches!(event.fact, Fact::Purged { repeats: Some(seq), .. } if seq == first.seq);
        journal.iter().filter(of_first).count()
    };
    eventually("the repeat", || async {
        let journal = control.journal().await?;
        ensure!(repeats(&journal) == 1, "{journal:?}");
        Ok(())
    })
    .await?;
    process.kill()?;

    let (_process, control) = house.origin().await?;
    // Whatever was still to be repeated would come before this one.
    let marker = PurgeRequest { again_after_ms: Some(1), ..purge(vec!["marker".to_owned()]) };
    let marker: Receipt = control.send_purge(&marker).await?.json()?;
    let journal = eventually("the marker's repeat", || async {
        let journal = control.journal().await?;
        let is_there = journal.iter().any(|event| matches!(event.fact, Fact::Purged { repeats: Some(seq), .. } if seq == marker.seq));
        ensure!(is_there, "{journal:?}");
        Ok(journal)
    })
    .await?;
    assert_eq!(repeats(&journal), 1, "{journal:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_killed_while_a_site_is_published_keeps_the_old_version_or_has_the_new_one() -> Result<()> {
    let house = House::new("data")?;
    let (mut process, control) = house.origin().await?;
    let draft = |n: usize| Draft::of((0..200).map(|file| (format!("{file}.txt"), format!("version {n}, file {file}"))));
    let first = control.publish("www", &draft(1)?).await?;
    let (second, publisher) = (draft(2)?, control.clone());
    let expected = second.version();
    let publishing = tokio::spawn(async move { publisher.publish("www", &second).await });
    // At whatever point it has come to: the outcome must be one of two, and nothing in between.
    tokio::task::yield_now().await;
    process.kill()?;
    let published = publishing.await?;

    let (_process, control) = house.origin().await?;

    let list = control.versions("www").await?;
    let current = list.aliases.values().next().map(|alias| alias.version);
    let allowed = if published.is_ok() { vec![expected] } else { vec![first.version, expected] };
    assert!(current.is_some_and(|version| allowed.contains(&version)), "{current:?} is none of {allowed:?}");
    assert!(list.versions.iter().all(|row| row.files == 200));
    assert_eq!(control.publish("www", &draft(2)?).await?.version, expected);
    Ok(())
}

/// A small file system of its own, unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts it; without the right to, says why not.
    fn mount(at: &Path) -> Result<Self, String> {
        fs::create_dir_all(at).map_err(|error| error.to_string())?;
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=32m", "tmpfs"]).arg(at).output();
        let mounted = mounted.map_err(|error| error.to_string())?;
        if mounted.status.success() { Ok(Self(at.to_owned())) } else { Err(String::from_utf8_lossy(&mounted.stderr).into_owned()) }
    }

    /// Fills all that is free.
    fn fill(&self) -> Result<PathBuf> {
        let path = self.0.join("ballast");
        let mut file = fs::File::create(&path)?;
        for size in [1 << 16, 1 << 10, 1] {
            while file.write_all(&vec![1; size]).is_ok() {}
        }
        Ok(path)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is being killed may still have files open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_whose_disk_is_full_refuses_writes_and_loses_nothing() -> Result<()> {
    let house = House::new("disk")?;
    let disk = match Disk::mount(&house.data) {
        Ok(disk) => disk,
        Err(why) => {
            eprintln!("skipped: a small disk can't be mounted here: {why}");
            return Ok(());
        }
    };
    let acknowledged = Acknowledged::default();
    let (mut process, control) = house.origin().await?;
    for n in 0..20 {
        let receipt: Receipt = control.send_purge(&purge(vec![format!("before-{n}")])).await?.json()?;
        acknowledged.add(receipt.seq, format!("before-{n}"));
    }

    let ballast = disk.fill()?;
    let refused = fill_journal(&control, &acknowledged).await?;
    assert_eq!(refused.status, 507, "{refused:?}");
    let blob = vec![7; 16 << 10];
    // The origin may refuse it unread, and a connection with unread bytes may break before the answer is seen.
    eventually("a blob to be refused", || async { control.put_blob(&Digest::of(&blob), &blob).await?.problem(507) }).await?;
    answers(&process, house.origin, "/readyz").await?;

    fs::remove_file(ballast)?;
    let receipt: Receipt = eventually("writes to be taken again", || async {
        let answer = control.send_purge(&purge(vec!["after".to_owned()])).await?;
        ensure!(matches!(answer.status, 200 | 202), "{}", answer.text());
        answer.json()
    })
    .await?;
    acknowledged.add(receipt.seq, "after".to_owned());
    acknowledged.check(&control.journal().await?)?;
    control.publish("www", &Draft::of([("index.html", "home")])?).await?;

    process.kill()?;
    let (_process, control) = house.origin().await?;
    acknowledged.check(&control.journal().await?)?;
    Ok(())
}

/// Appends large events, so that what the journal's file has in reserve is used up, until one is refused.
async fn fill_journal(control: &Control, acknowledged: &Acknowledged) -> Result<Problem> {
    for n in 0..2000 {
        let first = format!("large-{n}");
        let rest = (0..200).map(|tag| format!("{first}-{tag}-{}", "x".repeat(900)));
        let answer = control.send_purge(&purge(std::iter::once(first.clone()).chain(rest).collect())).await?;
        if !matches!(answer.status, 200 | 202) {
            return answer.json();
        }
        acknowledged.add(answer.json::<Receipt>()?.seq, first);
    }
    anyhow::bail!("a full disk took 2000 large events")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_serves_a_folder_and_ends_well_when_it_is_told_to() -> Result<()> {
    let house = House::new("data")?;
    let site = house.folder.path().join("site");
    fs::create_dir(&site)?;
    fs::write(site.join("index.html"), "hello from the lagoon")?;

    let mut process = house.run(&["up", "-c", "atoll.toml", "--site", "site"])?;

    answers(&process, house.origin, "/readyz").await?;
    answers(&process, house.admin, "/readyz").await?;
    let page = answers(&process, house.edge, "/").await?;
    assert!(page.contains("text/html"), "{page}");
    process.terminate()?;
    assert_eq!(process.ended().await?.code(), Some(0), "{}", process.said());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_of_its_own_follows_survives_a_kill_and_drains() -> Result<()> {
    let house = House::new("data")?;
    let (_origin, control) = house.origin().await?;
    let mut edge = house.run(&["edge", "fra-1", "-c", "atoll.toml"])?;
    answers(&edge, house.admin, "/readyz").await?;
    control.publish("www", &Draft::of([("index.html", "home")])?).await?;
    answers(&edge, house.edge, "/").await?;
    for (method, status) in [("HEAD", 200), ("DELETE", 405)] {
        let request = format!("{method} /readyz HTTP/1.1\r\nHost: admin.test\r\nConnection: close\r\n\r\n");
        let answer = raw(SocketAddr::from(([127, 0, 0, 1], house.admin)), request.as_bytes()).await?;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && !answer.contains("ready\n"), "{answer}");
    }

    edge.kill()?;
    let mut edge = house.run(&["edge", "fra-1", "-c", "atoll.toml"])?;

    answers(&edge, house.edge, "/").await?;
    edge.terminate()?;
    assert_eq!(edge.ended().await?.code(), Some(0), "{}", edge.said());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_with_complaints_is_refused_before_a_port_is_opened() -> Result<()> {
    let house = House::new("data")?;
    let file = house.folder.path().join("atoll.toml");
    fs::write(&file, fs::read_to_string(&file)?.replace("hosts =", "hoasts =").replace("lease = \"2s\"", "lease = \"soon\""))?;

    for arguments in [&["up", "-c", "atoll.toml"][..], &["origin", "-c", "atoll.toml"], &["check", "atoll.toml"]] {
        let mut process = house.run(arguments)?;
        assert_eq!(process.ended().await?.code(), Some(1), "{arguments:?}: {}", process.said());
        assert!(process.said().contains("hoasts") && process.said().contains("network.lease"), "{}", process.said());
    }
    assert!(!house.data.exists(), "nothing was written");
    Ok(())
}

/// P2 in the large: whatever else goes on, a call to the origin ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_killed_holds_up_a_purge_no_longer_than_its_lease() -> Result<()> {
    let house = House::new("data")?;
    let (_origin, control) = house.origin().await?;
    let mut edge = house.run(&["edge", "fra-1", "-c", "atoll.toml"])?;
    eventually("the edge to hold a lease", || async {
        let status = control.status().await?;
        ensure!(status.followers.iter().any(|follower| follower.live), "{status:?}\n{}", edge.said());
        Ok(())
    })
    .await?;
    edge.kill()?;

    let patience = u64::try_from(PATIENCE.as_millis())?;
    let request = PurgeRequest { all: true, timeout_ms: Some(patience), ..PurgeRequest::default() };
    let receipt = tokio::time::timeout(PATIENCE + Duration::from_secs(5), control.purge(&request)).await??;

    assert!(receipt.followers.iter().all(|follower| follower.since.is_some()), "{receipt:?}");
    Ok(())
}
