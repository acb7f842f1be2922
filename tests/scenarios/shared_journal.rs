//! What becomes of origins when the Redis that they share is killed, put back to what it once held, or emptied; what is wrong
//! with it is told; and a journal moves there and back.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use config::Settings;
use harness::{Control, Draft, Plan, RedisOptions, RedisServer, Reply, S3, Town, Upstream, eventually, free_port};
use origin::Origin;
use tokio::task::JoinHandle;
use wire::{Digest, EngineStatus, Epoch, Fact, FollowerState, Position, PurgeRequest, Receipt, Wait};

const ATOLL: &str = env!("CARGO_BIN_EXE_atoll-node");
const API: &str = "api.test";

/// The pause of a purger whom an origin refused: it is told so at once while there is no Redis.
const PAUSE: Duration = Duration::from_millis(20);

async fn redis() -> Result<RedisServer> {
    RedisServer::start(RedisOptions::default().append_only()).await
}

async fn numbered() -> Result<Upstream> {
    let reply = |seen: &harness::Seen| {
        let reply = Reply::plain(200, format!("{} {}", seen.target, seen.number));
        reply.with("Cache-Control", "max-age=3600").with("Surrogate-Key", "kept")
    };
    Ok(Upstream::start(reply).await?)
}

/// Two origins and two edges. Leases outlast a Redis that is started anew, and their ends can be waited for.
fn of_two(server: &RedisServer, upstream: &Upstream) -> Plan {
    Town::plan().origins(2).journal(server).lease("5s").edges(&["fra-1", "iad-1"]).upstream(upstream)
}

fn unhurried(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], wait: Wait::None, ..PurgeRequest::default() }
}

/// Where the first origin stands, when all stand there.
async fn common_position(town: &Town) -> Result<Position> {
    eventually("both origins to stand at the same place", || async {
        let first = town.control_of(0)?.status().await?.position;
        let second = town.control_of(1)?.status().await?.position;
        ensure!(first == second, "{first} and {second}");
        Ok(first)
    })
    .await
}

/// The places of purges that were accepted.
#[derive(Clone, Debug, Default)]
struct Accepted(Arc<Mutex<Vec<Position>>>);

impl Accepted {
    fn all(&self) -> Vec<Position> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    async fn purge(&self, control: &Control, tag: &str) -> Result<Receipt> {
        let answer = control.send_purge(&unhurried(tag)).await?;
        ensure!(matches!(answer.status, 200 | 202), "{}: {}", answer.status, answer.text());
        let receipt: Receipt = answer.json()?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(receipt.position);
        Ok(receipt)
    }

    /// Waits until so many more were accepted.
    async fn more(&self, count: usize) -> Result<()> {
        let wanted = self.count() + count;
        eventually("more purges to be accepted", || async {
            ensure!(self.count() >= wanted, "{} of {wanted} are", self.count());
            Ok(())
        })
        .await
    }

    /// Each must be in the journal, and nothing but a purge. Two of them at one place would be one that was lost.
    async fn are_all_there(&self, control: &Control) -> Result<()> {
        let (journal, all) = (control.journal().await?, self.all());
        let facts: BTreeMap<u64, &Fact> = journal.iter().map(|event| (event.seq, &event.fact)).collect();
        for position in &all {
            let fact = facts.get(&position.seq);
            ensure!(matches!(fact, Some(Fact::Purged { .. })), "{position} was accepted as a purge, but is {fact:?}");
        }
        let mut seqs: Vec<_> = all.iter().map(|position| position.seq).collect();
        seqs.sort_unstable();
        ensure!(seqs.windows(2).all(|pair| pair.first() != pair.last()), "two were accepted at one place: {seqs:?}");
        // By its whole position the last one is known not to be another one's place.
        if let Some(last) = all.last() {
            let told = control.get(&format!("/v1/purges/{last}")).await?;
            ensure!(matches!(told.status, 200 | 202), "{}", told.text());
        }
        Ok(())
    }
}

/// Somebody who purges through one origin without an end.
struct Purger {
    accepted: Accepted,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Purger {
    /// Its few tags are in none of the edges' entries, which share no place in the purge table with them but by a rare chance.
    fn start(control: Control, name: &'static str) -> Self {
        let (accepted, stop) = (Accepted::default(), Arc::new(AtomicBool::new(false)));
        let (accepts, stops) = (accepted.clone(), Arc::clone(&stop));
        let task = tokio::spawn(async move {
            while !stops.load(Ordering::Acquire) {
                if accepts.purge(&control, name).await.is_err() {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        });
        Self { accepted, stop, task }
    }

    async fn stop(self) -> Result<Accepted> {
        self.stop.store(true, Ordering::Release);
        self.task.await?;
        Ok(self.accepted)
    }
}

/// Fills an entry at each edge, and returns how often the upstream was asked for that.
async fn fill(town: &Town, upstream: &Upstream) -> Result<usize> {
    for edge in town.visitors()? {
        edge.hit(API, "/kept").await?;
    }
    Ok(upstream.count("/kept"))
}

/// The edges still have what they had, and nobody was asked for it again.
async fn nothing_was_dropped(town: &Town, upstream: &Upstream, asked: usize) -> Result<()> {
    town.settled().await?;
    for edge in town.visitors()? {
        let answer = edge.get(API, "/kept").await?;
        ensure!(answer.is_hit(), "{}", answer.cache_status());
    }
    ensure!(upstream.count("/kept") == asked, "{upstream:?}");
    Ok(())
}

/// A purge through each origin is complete at both.
async fn purges_are_complete(town: &Town) -> Result<()> {
    let controls = [town.control_of(0)?, town.control_of(1)?];
    for control in &controls {
        let sent: Receipt = control.send_purge(&unhurried("other")).await?.json()?;
        for control in &controls {
            eventually("the purge to be complete", || async { control.complete(sent.seq).await }).await?;
        }
    }
    Ok(())
}

/// Every edge applies a purge through each origin. Whether it is complete is not asked: where the lease book was lost, the
/// longest lease that there may ever be is waited for, and that is minutes.
async fn purges_are_applied(town: &Town) -> Result<()> {
    for origin in [0, 1] {
        let control = town.control_of(origin)?;
        let sent: Receipt = control.send_purge(&unhurried("kept")).await?.json()?;
        eventually("every edge to have applied the purge", || async {
            let receipt: Receipt = control.receipt(sent.seq, Duration::ZERO).await?.json()?;
            let is_applied =
                |name: &str| receipt.followers.iter().any(|edge| edge.name.as_str() == name && edge.state == FollowerState::Applied);
            ensure!(town.names().iter().all(|name| is_applied(name)), "{receipt:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_under_purges_loses_nothing_that_was_accepted_and_no_edge_drops_what_it_holds() -> Result<()> {
    loses_nothing_when_it_is_killed(redis().await?).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_that_is_killed_under_purges_loses_nothing_either() -> Result<()> {
    loses_nothing_when_it_is_killed(RedisServer::start(RedisOptions::valkey().await?.append_only()).await?).await
}

async fn loses_nothing_when_it_is_killed(mut server: RedisServer) -> Result<()> {
    let upstream = numbered().await?;
    let town = of_two(&server, &upstream).start().await?;
    let asked = fill(&town, &upstream).await?;
    let epoch = town.control()?.status().await?.position.epoch;
    let purgers = [Purger::start(town.control_of(0)?, "first"), Purger::start(town.control_of(1)?, "second")];

    for _ in 0..3 {
        for purger in &purgers {
            purger.accepted.more(20).await?;
        }
        server.kill9()?;
        server.restart().await?;
    }
    for purger in &purgers {
        purger.accepted.more(20).await?;
    }

    let mut accepted = Vec::new();
    for purger in purgers {
        accepted.push(purger.stop().await?);
    }
    assert_eq!(common_position(&town).await?.epoch, epoch);
    for origin in [0, 1] {
        for accepted in &accepted {
            accepted.are_all_there(&town.control_of(origin)?).await?;
        }
    }
    purges_are_complete(&town).await?;
    nothing_was_dropped(&town, &upstream, asked).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_redis_lost_that_was_restored_from_an_older_copy_is_put_back_by_origins_that_live() -> Result<()> {
    let (mut server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let asked = fill(&town, &upstream).await?;
    let (first, second, accepted) = (town.control_of(0)?, town.control_of(1)?, Accepted::default());
    accepted.purge(&first, "a").await?;
    let older = server.copy_files().await?;
    for _ in 0..30 {
        accepted.purge(&first, "a").await?;
        accepted.purge(&second, "b").await?;
    }
    let (_, holder) = first.issue(&["purge:default"]).await?;
    second.apply(&town.text().replace("max_file = \"2 MiB\"", "max_file = \"3 MiB\"")).await?;
    let before = common_position(&town).await?;

    server.restart_with_older_files(&older).await?;

    for control in [&first, &second] {
        eventually("a purge to be accepted again", || async { accepted.purge(&control.with_token(holder.token()), "c").await }).await?;
    }
    let after = common_position(&town).await?;
    assert!(after.epoch == before.epoch && after.seq > before.seq, "{before} and {after}");
    for control in [&first, &second] {
        accepted.are_all_there(control).await?;
        assert_eq!(control.status().await?.config, Some(2));
    }
    purges_are_complete(&town).await?;
    nothing_was_dropped(&town, &upstream, asked).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_was_emptied_gets_the_journal_back_as_another_life_of_it_and_edges_drop_what_they_held() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);
    let (_, holder) = first.issue(&["purge:default"]).await?;
    second.apply(&town.text().replace("max_file = \"2 MiB\"", "max_file = \"3 MiB\"")).await?;
    let accepted = Accepted::default().purge(&first, "a").await?;
    fill(&town, &upstream).await?;
    let before = common_position(&town).await?;

    server.flush().await?;

    let after = eventually("another life of the journal", || async {
        let position = common_position(&town).await?;
        ensure!(position.epoch != before.epoch, "still at {position}");
        Ok(position)
    })
    .await?;
    assert!(after.seq >= before.seq, "{before} and {after}");
    town.settled().await?;
    for edge in town.visitors()? {
        assert!(!edge.get(API, "/kept").await?.is_hit());
    }
    for control in [&first, &second] {
        assert_eq!(control.status().await?.config, Some(2));
        let sent = control.with_token(holder.token()).send_purge(&unhurried("a")).await?;
        assert!(matches!(sent.status, 200 | 202), "{}", sent.text());
        control.get(&format!("/v1/purges/{}", accepted.position)).await?.problem(410)?;
    }
    purges_are_applied(&town).await?;
    town.stop().await;
    Ok(())
}

fn settings(folder: &Path, journal: &str) -> Result<Settings> {
    let text = format!("data = \"data\"\n[origin]\nlisten = \"127.0.0.1:0\"\njournal = {journal}\n[sites.www]\nhosts = [\"*\"]\n");
    let file = folder.join("atoll.toml");
    std::fs::write(&file, &text)?;
    Ok(Settings::from_text(&text, &file, [], [])?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_the_journal_s_redis_is_told_at_the_start_and_names_its_key() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default().password("a-secret")).await?;
    let (url, folder) = (server.url(), tempfile::tempdir()?);
    std::fs::write(folder.path().join("password"), "not-the-secret")?;
    let nobody = format!("redis://127.0.0.1:{}", free_port()?);
    for (journal, key) in [
        (format!("{{ url = \"{url}\", password = \"file:password\" }}"), "origin.journal"),
        (format!("\"{url}\""), "origin.journal"),
        (format!("\"{nobody}\""), "origin.journal"),
        (format!("{{ url = \"{url}\", password = \"file:lost\" }}"), "origin.journal.password"),
    ] {
        let begun = Instant::now();
        let failed = Box::pin(Origin::new(settings(folder.path(), &journal)?).start()).await.err().context("it started")?;
        let told = format!("{failed:#}");
        assert!(told.contains(key) && !told.contains("the-secret"), "{journal}: {told}");
        assert!(begun.elapsed() < Duration::from_secs(15), "{journal}: {:?}", begun.elapsed());
    }
    Ok(())
}

/// What an origin says of its journal's engine.
async fn journal_engine(control: &Control) -> Result<EngineStatus> {
    let engines = control.status().await?.engines;
    engines.into_iter().find(|engine| engine.name == "journal").context("the status has no journal")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_may_lose_what_was_accepted_is_named_in_every_receipt_until_it_is_mended() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let town = Town::plan().origins(2).journal(&server).lease("2s").edges(&["fra-1"]).start().await?;

    let sent: Receipt = town.control()?.send_purge(&unhurried("a")).await?.json()?;
    for origin in [0, 1] {
        let control = town.control_of(origin)?;
        eventually("the receipt to say what is wrong", || async {
            let (receipt, engine) = (control.complete(sent.seq).await?, journal_engine(&control).await?);
            let says = |notes: &[String]| notes.iter().any(|note| note.contains("appendonly yes"));
            ensure!(says(&receipt.notes) && receipt.notes.iter().any(|note| note.contains("may be lost")), "{receipt:?}");
            ensure!(!engine.well && says(&engine.notes) && engine.at.contains("redis://"), "{engine:?}");
            Ok(())
        })
        .await?;
    }

    for setting in [["CONFIG", "SET", "appendfsync", "always"], ["CONFIG", "SET", "appendonly", "yes"]] {
        server.command(&setting).await?;
    }
    for origin in [0, 1] {
        let control = town.control_of(origin)?;
        eventually("the receipt to have nothing to say", || async {
            let (receipt, engine) = (control.complete(sent.seq).await?, journal_engine(&control).await?);
            ensure!(receipt.notes.is_empty() && engine.well && engine.notes.is_empty(), "{receipt:?} {engine:?}");
            Ok(())
        })
        .await?;
    }
    town.stop().await;
    Ok(())
}

/// Runs a command in a folder, while the test's cables go on carrying.
async fn atoll(folder: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(ATOLL);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ATOLL_")) {
        command.env_remove(name);
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null());
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

fn said(output: &Output) -> String {
    format!("{:?} {}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_fails_for_a_redis_that_may_lose_what_was_accepted() -> Result<()> {
    let (server, folder) = (RedisServer::start(RedisOptions::default()).await?, tempfile::tempdir()?);
    settings(folder.path(), &format!("\"{}\"", server.url()))?;
    let check = || atoll(folder.path(), &["check", "atoll.toml"]);

    let careless = check().await?;
    assert_eq!(careless.status.code(), Some(1), "{}", said(&careless));
    assert!(said(&careless).contains("origin.journal") && said(&careless).contains("appendonly yes"), "{}", said(&careless));
    server.command(&["CONFIG", "SET", "appendonly", "yes"]).await?;
    let hasty = check().await?;
    assert!(hasty.status.code() == Some(1) && said(&hasty).contains("appendfsync everysec"), "{}", said(&hasty));
    server.command(&["CONFIG", "SET", "appendfsync", "always"]).await?;
    let sound = check().await?;
    assert_eq!(sound.status.code(), Some(0), "{}", said(&sound));
    server.command(&["CONFIG", "SET", "maxmemory", "100mb"]).await?;
    server.command(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await?;
    let evicting = check().await?;
    assert!(evicting.status.code() == Some(1) && said(&evicting).contains("noeviction"), "{}", said(&evicting));
    server.command(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await?;
    server.command(&["ACL", "SETUSER", "default", "-flushall"]).await?;
    let forgetful = check().await?;
    assert!(forgetful.status.code() == Some(1) && said(&forgetful).contains("user default off nopass"), "{}", said(&forgetful));
    // The file alone is as it should be.
    let offline = atoll(folder.path(), &["check", "--offline", "atoll.toml"]).await?;
    assert_eq!(offline.status.code(), Some(0), "{}", said(&offline));
    Ok(())
}

/// What must be there wherever the journal lies.
struct Known {
    version: Digest,
    holder: Control,
    text: String,
}

impl Known {
    /// All of it is there at an origin, and at the edges, which have begun anew.
    async fn is_all_there(&self, town: &Town, origins: usize, former: Epoch) -> Result<Epoch> {
        town.settled().await?;
        let epoch = town.control()?.status().await?.position.epoch;
        ensure!(epoch != former, "it is still the life before");
        for origin in 0..origins {
            let control = town.control_of(origin)?;
            ensure!(control.status().await?.config == Some(2));
            ensure!(control.versions("www").await?.versions.iter().any(|row| row.version == self.version));
            let sent = control.with_token(self.holder.token()).send_purge(&unhurried("a")).await?;
            ensure!(matches!(sent.status, 200 | 202), "{}", sent.text());
            let applied = control.apply(&self.text).await?;
            ensure!((applied.number, applied.changed) == (2, false), "{applied:?}");
        }
        for edge in town.visitors()? {
            ensure!(edge.get("new.test", "/").await?.with_status(200)?.text() == "home");
            ensure!(!edge.get(API, "/kept").await?.is_hit(), "what it held is of another life");
            edge.hit(API, "/kept").await?;
        }
        Ok(epoch)
    }
}

/// Takes the journal out of one engine and into another.
async fn move_journal(town: &mut Town, name: &str, server: Option<&RedisServer>) -> Result<()> {
    let exported = atoll(town.folder(), &["journal", "export", name, "-c", "atoll.toml"]).await?;
    ensure!(exported.status.success(), "{}", said(&exported));
    town.keep_journal_in(server)?;
    let imported = atoll(town.folder(), &["journal", "import", name, "-c", "atoll.toml"]).await?;
    ensure!(imported.status.success(), "{}", said(&imported));
    let again = atoll(town.folder(), &["journal", "import", name, "-c", "atoll.toml"]).await?;
    ensure!(again.status.code() == Some(2) && said(&again).contains("an empty one"), "{}", said(&again));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_moves_to_a_redis_that_origins_share_and_back_and_followers_begin_anew_each_time() -> Result<()> {
    let (server, store, upstream) = (redis().await?, S3::start().await?, numbered().await?);
    let plan = Town::plan().origins(2).lease("3s").edges(&["fra-1"]).upstream(&upstream);
    let mut town = plan.on_origins(&store.line(&store.endpoint())).start().await?;
    let control = town.control()?;
    let version = control.publish("www", &Draft::of([("index.html", "home")])?).await?.version;
    let (_, holder) = control.issue(&["purge:default"]).await?;
    let text = town.text().replace("hosts = [\"www.test\"]", "hosts = [\"www.test\", \"new.test\"]");
    assert_eq!(control.apply(&text).await?.number, 2);
    town.visit("fra-1")?.hit(API, "/kept").await?;
    let (embedded, known) = (control.status().await?.position.epoch, Known { version, holder, text });

    town.stop_origin().await?;
    move_journal(&mut town, "there.jsonl", Some(&server)).await?;
    town.start_origins(2).await?;
    let shared = known.is_all_there(&town, 2, embedded).await?;

    town.stop_origin_at(0).await?;
    town.stop_origin_at(1).await?;
    // It holds what was there before all moved, and an import goes into an empty one.
    std::fs::remove_file(town.folder().join("data/origin/journal.redb"))?;
    move_journal(&mut town, "back.jsonl", None).await?;
    town.start_origin().await?;
    let back = known.is_all_there(&town, 1, shared).await?;

    assert!(back != embedded, "nobody takes it for the life that ended long ago");
    town.stop().await;
    Ok(())
}
