//! The second tier of responses: edges of one region share a real Redis, an edge alone has a folder. It saves fetches,
//! and nothing that it does or suffers is seen by anybody but in how long a miss takes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Answer, Gate, PATIENCE, Plan, RedisCluster, RedisOptions, RedisServer, Reply, Town, Upstream, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wire::{Mode, PurgeRequest, ReceiptState, Wait};

const API: &str = "api.test";

/// What the edges of a region with this Redis look like on paper.
fn region_of(redis: &str, upstream: &Upstream) -> Plan {
    Town::plan().edges(&["fra-1", "fra-2"]).upstream(upstream).on_region("fra", &format!("redis = {redis}"))
}

async fn numbered() -> Result<Upstream> {
    let reply = |seen: &harness::Seen| Reply::fresh(format!("{} {}", seen.target, seen.number)).with("Surrogate-Key", "all");
    Ok(Upstream::start(reply).await?)
}

fn quoted(server: &RedisServer) -> String {
    format!("\"{}\"", server.url())
}

fn is_from_second_tier(answer: &Answer) -> bool {
    answer.is_hit() && answer.cache_status().contains("detail=l2")
}

/// Starts a town whose edges have found their Redis.
async fn start(plan: Plan) -> Result<Town> {
    let town = plan.start().await?;
    for edge in town.names() {
        eventually("the edges to find their Redis", || async {
            ensure!(town.metric(&edge, "atoll_edge_second_tier_up").await? > 0.0, "{edge} has not");
            Ok(())
        })
        .await?;
    }
    Ok(town)
}

/// Waits until so many responses of an edge were written.
async fn written(town: &Town, edge: &str, count: f64) -> Result<()> {
    eventually("responses to be written to the second tier", || async {
        let written = town.metric(edge, "atoll_edge_second_tier_writes_total{result=\"stored\"}").await?;
        ensure!(written >= count, "{written} are");
        Ok(())
    })
    .await
}

/// Waits until an edge has found its Redis to be well again. It tries that when somebody asks for what is not here.
async fn in_use_again(town: &Town, edge: &str) -> Result<()> {
    let (visitor, asked) = (town.visit(edge)?, AtomicUsize::new(0));
    eventually("the edge to use its Redis again", || async {
        visitor.get(API, &format!("/probe-{}", asked.fetch_add(1, Ordering::Relaxed))).await?;
        ensure!(town.metric(edge, "atoll_edge_second_tier_up").await? > 0.0);
        Ok(())
    })
    .await
}

async fn purge(town: &Town, request: PurgeRequest) -> Result<()> {
    let receipt = town.control()?.purge(&PurgeRequest { wait: Wait::All, ..request }).await?;
    ensure!(receipt.state == ReceiptState::Complete, "{receipt:?}");
    Ok(())
}

fn of_tag(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], ..PurgeRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_edge_fetched_its_neighbour_has_too_until_it_is_purged() -> Result<()> {
    shares_until_it_is_purged(RedisOptions::default()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_valkey_is_shared_like_a_redis() -> Result<()> {
    shares_until_it_is_purged(RedisOptions::valkey().await?).await
}

async fn shares_until_it_is_purged(options: RedisOptions) -> Result<()> {
    let server = RedisServer::start(options).await?;
    let upstream = numbered().await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);

    assert!(!first.get(API, "/a").await?.is_hit());
    written(&town, "fra-1", 1.0).await?;
    let shared = second.get(API, "/a").await?.with_status(200)?;
    assert!(is_from_second_tier(&shared), "{}", shared.cache_status());
    assert_eq!((shared.text().as_str(), upstream.count("/a")), ("/a 1", 1));
    assert!(shared.header("age").parse::<u64>().is_ok(), "{:?}", shared.headers);
    assert_eq!(shared.header("surrogate-key"), "");
    let again = second.get(API, "/a").await?;
    assert!(again.is_hit() && !is_from_second_tier(&again), "it is in the memory of this edge now: {}", again.cache_status());

    purge(&town, of_tag("all")).await?;
    assert_eq!(second.get(API, "/a").await?.text(), "/a 2");
    written(&town, "fra-2", 1.0).await?;
    let shared = first.get(API, "/a").await?;
    assert!(is_from_second_tier(&shared) && shared.text() == "/a 2", "{}", shared.cache_status());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_a_lifetime_and_variants_count_in_the_second_tier_too() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = Upstream::start(|seen| match seen.target.as_str() {
        "/brief" => Reply::plain(200, format!("{}", seen.number)).with("Cache-Control", "max-age=1").with("ETag", "\"same\""),
        _ => Reply::fresh(seen.header("accept-language").unwrap_or("none")).with("Vary", "Accept-Language").with("Surrogate-Key", "t"),
    })
    .await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);

    for language in ["de", "en"] {
        first.send("GET", API, "/page", &[("accept-language", language)]).await?;
    }
    written(&town, "fra-1", 2.0).await?;
    for language in ["en", "de"] {
        let answer = second.send("GET", API, "/page", &[("accept-language", language)]).await?;
        assert!(is_from_second_tier(&answer) && answer.text() == language, "{language}: {}", answer.cache_status());
    }
    assert!(!second.get(API, "/page").await?.is_hit(), "nothing was stored for who names no language");
    assert_eq!(upstream.count("/page"), 3);

    purge(&town, PurgeRequest { mode: Mode::Soft, ..of_tag("t") }).await?;
    town.admin("fra-2", "/metrics").await?;
    let asked = second.send("GET", API, "/page", &[("accept-language", "de")]).await?;
    assert!(!is_from_second_tier(&asked), "{}", asked.cache_status());

    first.get(API, "/brief").await?;
    eventually("the response to be stale", || async {
        let answer = second.get(API, "/brief").await?;
        ensure!(answer.text() != "1" || !answer.is_hit(), "{}", answer.cache_status());
        Ok(())
    })
    .await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_all_who_miss_in_a_region_one_fetches() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| Reply::fresh("body").held(if seen.target == "/held" { &held } else { &OPEN })).await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let visitors = [town.visit("fra-1")?, town.visit("fra-2")?];

    let asking = join_all((0..40).map(|n| visitors[n % 2].get(API, "/held")));
    let opening = async {
        eventually("the fetch to be under way", || async {
            ensure!(upstream.count("/held") == 1);
            let waiting = server.command(&["INFO", "commandstats"]).await?;
            let looks =
                waiting.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls=")?.split(',').next()?.parse::<u32>().ok());
            // One edge has claimed it, and the other looks again and again.
            ensure!(looks.context("nobody looked")? > 6);
            Ok(())
        })
        .await?;
        gate.open();
        Ok::<_, anyhow::Error>(())
    };
    let (answers, opened) = tokio::join!(asking, opening);
    opened?;

    for answer in answers {
        assert_eq!(answer?.text(), "body");
    }
    assert_eq!(upstream.count("/held"), 1, "one fetch for the region");
    town.stop().await;
    Ok(())
}

/// Reads from a connection until it has seen a text.
async fn read_until(stream: &mut TcpStream, wanted: &str) -> Result<()> {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(wanted) {
        let mut buffer = [0; 4096];
        let count = tokio::time::timeout(PATIENCE, stream.read(&mut buffer)).await.with_context(|| format!("no `{wanted}`"))??;
        ensure!(count > 0, "it ended: {}", String::from_utf8_lossy(&heard));
        heard.extend_from_slice(&buffer[..count]);
    }
    Ok(())
}

async fn ask(address: SocketAddr, path: &str) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {API}\r\n\r\n").as_bytes()).await?;
    Ok(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_for_a_fetch_of_its_own_edge_gets_the_bytes_as_they_come() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::fresh("first half, second half").held_in_body(&held)).await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let visitor = town.visit("fra-1")?;

    let mut first = ask(visitor.address(), "/slow").await?;
    read_until(&mut first, "first").await?;
    let mut second = ask(visitor.address(), "/slow").await?;
    read_until(&mut second, "first").await?;
    gate.open();
    read_until(&mut first, "second half").await?;
    read_until(&mut second, "second half").await?;

    assert_eq!(upstream.count("/slow"), 1);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_does_not_end_and_a_client_that_leaves_hold_up_no_other_edge() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let gate = Gate::closed();
    let held = gate.clone();
    let reply = move |seen: &harness::Seen| match (seen.target.as_str(), seen.number) {
        ("/endless", 1) => Reply::fresh("begun, and no end").held_in_body(&held),
        _ => Reply::fresh("whole"),
    };
    let upstream = Upstream::start(reply).await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);

    let mut endless = ask(first.address(), "/endless").await?;
    read_until(&mut endless, "begun").await?;
    // Its claim would last as long as its fetch runs.
    assert_eq!(second.get(API, "/endless").await?.text(), "whole");
    drop(endless);
    for n in 0..20 {
        drop(ask(first.address(), &format!("/left-{n}")).await?);
    }
    let begun = Instant::now();
    for n in 0..20 {
        assert_eq!(second.get(API, &format!("/left-{n}")).await?.text(), "whole");
    }

    assert!(begun.elapsed() < Duration::from_secs(20), "who left holds nobody up: {:?}", begun.elapsed());
    gate.open();
    town.stop().await;
    Ok(())
}

/// A gate that holds nothing.
static OPEN: std::sync::LazyLock<Gate> = std::sync::LazyLock::new(|| {
    let gate = Gate::closed();
    gate.open();
    gate
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_fetches_for_a_region_and_dies_or_gets_what_can_not_be_shared_holds_nobody_up() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = Upstream::start(|seen| Reply::plain(200, format!("{}", seen.number)).with("Cache-Control", "private")).await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let visitors = [town.visit("fra-1")?, town.visit("fra-2")?];

    let begun = Instant::now();
    let answers = join_all((0..20).map(|n| visitors[n % 2].get(API, "/private"))).await;

    let bodies: std::collections::BTreeSet<_> =
        answers.into_iter().map(|answer| answer.map(|answer| answer.text())).collect::<Result<_>>()?;
    assert_eq!((bodies.len(), upstream.count("/private")), (20, 20), "each has its own");
    assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits for a claim to end: {:?}", begun.elapsed());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_unsafe_method_changed_is_not_read_back() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = numbered().await?;
    let town = start(region_of(&quoted(&server), &upstream).on_routes("unsafe_invalidates = \"edge\"")).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);

    second.get(API, "/a").await?;
    written(&town, "fra-2", 1.0).await?;
    let before = server.command(&["KEYS", "*"]).await?;
    let kept = server.bytes(&["DUMP", before.as_str()]).await?;
    first.send("POST", API, "/a", &[]).await?;
    // The removal may come late, or not at all: what was there before is put back.
    eventually("the key to be removed", || async {
        ensure!(server.command(&["KEYS", "*"]).await?.is_empty());
        Ok(())
    })
    .await?;
    server.bytes(&[b"RESTORE".as_slice(), before.as_bytes(), b"0", &kept]).await?;

    assert_eq!(first.get(API, "/a").await?.text(), "/a 2");
    assert_eq!(town.metric("fra-1", "atoll_edge_second_tier_unusable_total{reason=\"buried\"}").await?, 1.0);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_with_what_it_held_long_ago_serves_nothing_that_was_purged() -> Result<()> {
    let mut server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = numbered().await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);
    first.get(API, "/a").await?;
    written(&town, "fra-1", 1.0).await?;
    let older = server.copy_files().await?;
    purge(&town, of_tag("all")).await?;
    assert_eq!(first.get(API, "/a").await?.text(), "/a 2");

    server.restart_with_older_files(&older).await?;

    in_use_again(&town, "fra-2").await?;
    assert_eq!(second.get(API, "/a").await?.text(), "/a 3");
    assert_eq!(town.metric("fra-2", "atoll_edge_second_tier_unusable_total{reason=\"purged\"}").await?, 1.0);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_redis_is_stopped_paused_full_flushed_or_dead() -> Result<()> {
    let mut server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = numbered().await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let visitor = town.visit("fra-1")?;
    visitor.get(API, "/hot").await?;
    let mut number = 0;
    let mut all_well = async |what: &str| -> Result<()> {
        for _ in 0..20 {
            number += 1;
            visitor.get(API, &format!("/{number}")).await?.with_status(200).with_context(|| what.to_owned())?;
            ensure!(visitor.get(API, "/hot").await?.is_hit(), "{what}: a hit of the memory tier");
        }
        Ok(())
    };

    all_well("well").await?;
    server.stop_clock()?;
    all_well("stopped").await?;
    assert_eq!(town.metric("fra-1", "atoll_edge_second_tier_up").await?, 0.0);
    let slow = town.metric("fra-1", "atoll_edge_second_tier_reads_total{result=\"slow\"}").await?;
    // Three calls in a row that failed, what was to be written among them.
    assert!((1.0..=8.0).contains(&slow), "a few waited for it, and then nobody: {slow}");
    server.go_on()?;
    all_well("going on").await?;
    server.client_pause(Duration::from_millis(300)).await?;
    all_well("paused").await?;
    server.debug_sleep(Duration::from_millis(300)).await?;
    all_well("asleep").await?;
    in_use_again(&town, "fra-1").await?;
    server.command(&["CONFIG", "SET", "maxmemory", "1mb"]).await?;
    all_well("full").await?;
    server.flush().await?;
    all_well("flushed").await?;
    server.kill9()?;
    all_well("dead").await?;
    server.restart().await?;
    all_well("back").await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_corrupt_foreign_cut_or_of_another_version_is_a_miss_and_is_counted() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = numbered().await?;
    let town = start(region_of(&quoted(&server), &upstream)).await?;
    let (first, second) = (town.visit("fra-1")?, town.visit("fra-2")?);
    for (at, reason) in ["corrupt", "foreign", "truncated", "version", "other-key"].into_iter().enumerate() {
        let path = format!("/{reason}");
        first.get(API, &path).await?;
        written(&town, "fra-1", (at + 1) as f64).await?;
        let key = server.command(&["KEYS", "*"]).await?;
        let fields = server.command(&["HKEYS", &key]).await?;
        let field = fields.lines().find(|name| name.starts_with("value:")).context("no value")?.to_owned();
        let mut value = server.bytes(&["HGET", &key, &field]).await?;
        match reason {
            "corrupt" => *value.last_mut().context("it is empty")? ^= 1,
            "foreign" => value = b"{\"a\":1}".to_vec(),
            "truncated" => value.truncate(10),
            "version" => value[3] = 99,
            // What a digest does not tell: a value that belongs to another URL.
            _ => {
                first.get(API, "/another").await?;
                written(&town, "fra-1", (at + 2) as f64).await?;
                let keys = server.command(&["KEYS", "*"]).await?;
                let other = keys.lines().find(|name| **name != key).context("no other key")?.to_owned();
                value = server.bytes(&["HGET", &other, &field]).await?;
            }
        }
        server.bytes(&[b"HSET".as_slice(), key.as_bytes(), field.as_bytes(), &value]).await?;
        let answer = second.get(API, &path).await?.with_status(200)?;
        assert_eq!(answer.text(), format!("{path} 2"), "{reason}");
        let metric = format!("atoll_edge_second_tier_unusable_total{{reason=\"{reason}\"}}");
        assert_eq!(town.metric("fra-2", &metric).await?, 1.0);
        server.flush().await?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fenced_edge_writes_nothing_for_others() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default()).await?;
    let upstream = numbered().await?;
    let mut town = start(region_of(&quoted(&server), &upstream).lease("2s")).await?;
    town.cut("fra-1")?;
    eventually("the lease to end", || async {
        ensure!(town.metric("fra-1", "atoll_edge_leased").await? == 0.0);
        Ok(())
    })
    .await?;

    town.visit("fra-1")?.get(API, "/a").await?.with_status(200)?;

    eventually("the write to be left out", || async {
        ensure!(town.metric("fra-1", "atoll_edge_second_tier_writes_total{result=\"fenced\"}").await? == 1.0);
        Ok(())
    })
    .await?;
    assert_eq!(server.command(&["KEYS", "*"]).await?, "", "nor a claim that others would wait for");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_started_anew_has_what_lay_in_its_folder() -> Result<()> {
    let upstream = numbered().await?;
    let mut town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    for path in ["/a", "/b"] {
        town.visit("fra-1")?.get(API, path).await?;
    }
    written(&town, "fra-1", 2.0).await?;

    town.stop_edge("fra-1").await?;
    // Its lease runs still, so nobody waits for this one to complete.
    let of_url = PurgeRequest { urls: vec![format!("{API}/b")], wait: Wait::None, ..PurgeRequest::default() };
    town.control()?.send_purge(&of_url).await?;
    town.start_edge("fra-1").await?;
    town.settled().await?;

    let visitor = town.visit("fra-1")?;
    let kept = visitor.get(API, "/a").await?;
    assert!(is_from_second_tier(&kept) && kept.text() == "/a 1", "{}", kept.cache_status());
    assert_eq!(visitor.get(API, "/b").await?.text(), "/b 2", "it was purged while nobody served it");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_is_reached_by_tls_with_a_user_and_a_cluster_by_any_of_its_servers() -> Result<()> {
    let upstream = numbered().await?;
    let shares = async |redis: String| -> Result<()> {
        let town = start(region_of(&redis, &upstream)).await?;
        town.control()?.purge(&PurgeRequest { wait: Wait::All, ..of_tag("all") }).await?;
        for n in 0..8 {
            let path = format!("/{n}");
            let first = town.visit("fra-1")?.get(API, &path).await?.text();
            written(&town, "fra-1", f64::from(n + 1)).await?;
            let second = town.visit("fra-2")?.get(API, &path).await?;
            ensure!(is_from_second_tier(&second) && second.text() == first, "{redis}: {}", second.cache_status());
        }
        town.stop().await;
        Ok(())
    };

    let server = RedisServer::start(RedisOptions::default().password("other").user("atoll", "hunter2").tls()).await?;
    let secrets = tempfile::tempdir()?;
    let password = secrets.path().join("password");
    std::fs::write(&password, "hunter2\n")?;
    let (url, ca) = (server.tls_url()?, server.authority());
    shares(format!("{{ url = \"{url}\", user = \"atoll\", password = \"file:{}\", ca = \"file:{}\" }}", password.display(), ca.display()))
        .await?;

    let cluster = RedisCluster::start(RedisOptions::default()).await?;
    let urls: Vec<_> = cluster.addresses().iter().map(|address| format!("\"redis://{address}\"")).collect();
    shares(format!("{{ url = {}, cluster = true }}", urls[0])).await?;
    shares(format!("[{}]", urls.join(", "))).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_password_or_name_costs_nobody_a_request_and_is_told_by_the_key_in_the_file() -> Result<()> {
    let server = RedisServer::start(RedisOptions::default().password("right").tls()).await?;
    let secrets = tempfile::tempdir()?;
    let wrong = secrets.path().join("wrong");
    std::fs::write(&wrong, "wrong")?;
    let upstream = numbered().await?;
    for redis in [
        format!("{{ url = \"{}\", password = \"file:{}\" }}", server.url(), wrong.display()),
        format!("\"{}\"", server.url()),
        // Nobody vouches for its certificate.
        format!("\"{}\"", server.tls_url()?),
        "\"redis://nowhere.invalid\"".to_owned(),
        "{ url = \"redis://127.0.0.1\", password = \"file:not-there\" }".to_owned(),
    ] {
        let town = region_of(&redis, &upstream).start().await?;
        for n in 0..10 {
            town.visit("fra-1")?.get(API, &format!("/{n}")).await?.with_status(200).with_context(|| redis.clone())?;
        }
        assert_eq!(town.metric("fra-1", "atoll_edge_second_tier_up").await?, 0.0, "{redis}");
        let explained = town.admin("fra-1", "/explain?url=api.test/1").await?.text();
        ensure!(explained.contains("does not answer") || explained.contains("\"second_tier\":\"none\""), "{explained}");
        town.stop().await;
    }
    Ok(())
}
