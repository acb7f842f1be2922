//! Nodes that leave and come back, are cut off, or are told something that they must not take.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::{Draft, Reply, Town, Upstream, eventually, raw};
use wire::{ConfigVersion, PurgeRequest, Receipt};

const API: &str = "api.test";
const SITE: &str = "www.test";
const LEASE: Duration = Duration::from_secs(2);

/// Replies that count how often they were asked for, with a strong validator that always fits.
async fn counting_upstream() -> Result<Upstream> {
    let script = |seen: &harness::Seen| {
        let is_known = seen.header("if-none-match") == Some("\"v1\"");
        Reply::plain(if is_known { 304 } else { 200 }, format!("fetch {}", seen.number))
            .with("Cache-Control", "max-age=600")
            .with("ETag", "\"v1\"")
            .with("Surrogate-Key", "counted")
    };
    Ok(Upstream::start(script).await?)
}

fn purge(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], ..PurgeRequest::default() }
}

/// What an edge fetched lies in its folder a moment after it was served.
async fn wait_for_folder(town: &Town, edge: &str, bytes: usize) -> Result<()> {
    let least = f64::from(u32::try_from(bytes)?);
    eventually("the edge's folder to hold the site", || async {
        let held = town.metric(edge, "atoll_edge_folder_bytes").await?;
        ensure!(held >= least, "{held} bytes so far, of at least {least}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_restarts_serves_its_site_at_once_from_disk_and_nothing_that_was_purged_while_it_was_away() -> Result<()> {
    let upstream = counting_upstream().await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "iad-1"]).upstream(&upstream).start().await?;
    let control = town.control()?;
    let site = Draft::of([("index.html", "one")])?;
    control.publish("www", &site).await?;
    town.visit("fra-1")?.get(SITE, "/").await?.with_status(200)?;
    wait_for_folder(&town, "fra-1", site.manifest.canonical().len() + 3).await?;
    town.visit("fra-1")?.hit(API, "/item").await?;

    town.stop_edge("fra-1").await?;
    control.purge(&purge("counted")).await?;
    town.cut("fra-1")?;
    town.start_edge("fra-1").await?;

    assert!(town.is_ready("fra-1")?, "what it had kept is in force when it has started");
    let edge = town.visit("fra-1")?;
    let page = edge.get(SITE, "/").await?.with_status(200)?;
    assert_eq!(page.text(), "one");
    assert!(page.cache_status().contains("fenced"), "{}", page.cache_status());
    assert!(!edge.get(API, "/item").await?.is_hit());

    control.publish("www", &Draft::of([("index.html", "two")])?).await?;
    town.mend("fra-1")?;
    town.settled().await?;
    assert_eq!(edge.get(SITE, "/").await?.text(), "two");
    edge.hit(API, "/item").await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_restarts_gets_its_followers_back_and_publishes_go_on() -> Result<()> {
    let upstream = counting_upstream().await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "iad-1"]).upstream(&upstream).start().await?;
    let published = town.control()?.publish("www", &Draft::of([("index.html", "one")])?).await?;
    let head = town.control()?.head().await?;
    for edge in town.visitors()? {
        edge.get(SITE, "/").await?.with_status(200)?;
    }

    town.stop_origin().await?;
    for edge in town.visitors()? {
        assert_eq!(edge.get(SITE, "/").await?.text(), "one");
    }
    let begun = Instant::now();
    town.start_origin().await?;

    // Leases of the life before may still run, so nothing is complete before the longest of them has ended.
    let receipt = town.control()?.purge(&purge("counted")).await?;
    assert!(begun.elapsed() >= LEASE, "complete after {:?}", begun.elapsed());
    assert_eq!(receipt.seq, head + 1);
    town.settled().await?;
    let next = town.control()?.publish("www", &Draft::of([("index.html", "two")])?).await?;
    assert_ne!(next.version, published.version);
    for edge in town.visitors()? {
        assert_eq!(edge.get(SITE, "/").await?.text(), "two");
    }
    assert_eq!(town.control()?.rollback("www").await?, published.version);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_whose_origin_is_gone_asks_upstream_each_time_and_goes_on_serving_its_sites() -> Result<()> {
    let upstream = counting_upstream().await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1"]).upstream(&upstream).start().await?;
    town.control()?.publish("www", &Draft::of([("index.html", "home")])?).await?;
    let edge = town.visit("fra-1")?;
    edge.get(SITE, "/").await?.with_status(200)?;
    edge.hit(API, "/item").await?;

    town.stop_origin().await?;
    eventually("the edge to be fenced", || async {
        let answer = edge.get(API, "/item").await?.with_status(200)?;
        ensure!(answer.cache_status().contains("fenced"), "{}", answer.cache_status());
        Ok(())
    })
    .await?;

    let before = upstream.count("/item");
    for n in 1..=3 {
        let answer = edge.get(API, "/item").await?.with_status(200)?;
        assert!(!answer.is_hit() && answer.cache_status().contains("fenced"), "{}", answer.cache_status());
        assert_eq!((answer.text().as_str(), upstream.count("/item")), ("fetch 1", before + n));
    }
    assert!(upstream.seen("/item").last().is_some_and(|seen| seen.header("if-none-match") == Some("\"v1\"")));
    let page = edge.get(SITE, "/").await?.with_status(200)?;
    assert!(page.text() == "home" && page.cache_status().contains("fenced"), "{}", page.cache_status());
    assert_eq!(town.admin("fra-1", "/readyz").await?.status, 200);

    town.start_origin().await?;
    town.settled().await?;
    edge.hit(API, "/item").await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_fenced_refuses_on_a_route_that_says_so() -> Result<()> {
    let upstream = counting_upstream().await?;
    let plan = Town::plan().lease("2s").edges(&["fra-1"]).upstream(&upstream).on_routes("when_fenced = \"refuse\"");
    let mut town = plan.start().await?;
    let edge = town.visit("fra-1")?;
    edge.hit(API, "/item").await?;

    town.cut("fra-1")?;

    let refused = eventually("a refusal", || async { edge.get(API, "/item").await?.with_status(503) }).await?;
    assert_eq!(refused.header("retry-after"), "1");
    assert!(refused.cache_status().contains("fenced"), "{}", refused.cache_status());
    town.mend("fra-1")?;
    edge.hit(API, "/item").await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purged_response_never_stands_in_for_an_error_on_a_fenced_edge() -> Result<()> {
    let broken = Arc::new(AtomicBool::new(false));
    let is_broken = Arc::clone(&broken);
    let upstream = Upstream::start(move |_| {
        if is_broken.load(Ordering::Acquire) {
            return Reply::plain(503, "broken");
        }
        Reply::plain(200, "old").with("Cache-Control", "max-age=600, stale-if-error=600").with("ETag", "\"v1\"")
    });
    let upstream = upstream.await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "sin-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("sin-1")?;
    edge.hit(API, "/item").await?;
    town.cut("sin-1")?;

    let request = PurgeRequest { urls: vec!["api.test/item".to_owned()], ..PurgeRequest::default() };
    town.control()?.purge(&request).await?;
    broken.store(true, Ordering::Release);

    // The receipt says complete. The edge has not heard of the purge, so it must not rely on what it holds.
    let answer = edge.get(API, "/item").await?;
    assert!(answer.text() != "old", "{} {}", answer.status, answer.cache_status());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_edge_is_not_ready_until_it_has_a_snapshot() -> Result<()> {
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "iad-1"]).cut("iad-1").start().await?;
    town.control()?.publish("www", &Draft::of([("index.html", "home")])?).await?;
    let edge = town.visit("iad-1")?;

    assert!(!town.is_ready("iad-1")?);
    assert_eq!(town.admin("iad-1", "/readyz").await?.status, 503);
    assert_eq!(town.admin("iad-1", "/livez").await?.status, 200);
    let refused = edge.get(SITE, "/").await?.with_status(503)?;
    assert_eq!(refused.header("retry-after"), "1");

    town.mend("iad-1")?;
    eventually("the new edge to be ready", || async { town.admin("iad-1", "/readyz").await?.with_status(200) }).await?;
    assert_eq!(edge.get(SITE, "/").await?.with_status(200)?.text(), "home");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_with_a_kept_fold_starts_without_any_origin() -> Result<()> {
    let mut town = Town::plan().lease("2s").edges(&["fra-1"]).start().await?;
    let page = format!("<!doctype html>{}", "home ".repeat(200));
    let site = Draft::of([("index.html", page.clone())])?;
    town.control()?.publish("www", &site).await?;
    town.visit("fra-1")?.get(SITE, "/").await?.with_status(200)?;
    wait_for_folder(&town, "fra-1", site.manifest.canonical().len() + page.len()).await?;
    town.stop_edge("fra-1").await?;
    town.stop_origin().await?;

    town.start_edge("fra-1").await?;

    assert!(town.is_ready("fra-1")?);
    let edge = town.visit("fra-1")?;
    for headers in [&[][..], &[("accept-encoding", "gzip, br, zstd")][..]] {
        // A coded form that was never fetched can't be had; the page as it is can.
        let answer = edge.send("GET", SITE, "/", headers).await?.with_status(200)?;
        assert!(answer.text() == page && answer.cache_status().contains("fenced"), "{}", answer.cache_status());
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_configuration_reaches_the_edges_without_a_restart() -> Result<()> {
    let town = Town::plan().edges(&["fra-1", "iad-1"]).start().await?;
    let control = town.control()?;
    control.publish("www", &Draft::of([("index.html", "home")])?).await?;
    for edge in town.visitors()? {
        edge.get("new.test", "/").await?.with_status(421)?;
    }
    let text = town.text().replace("hosts = [\"www.test\"]", "hosts = [\"www.test\", \"new.test\"]");

    let applied = control.apply(&text).await?;
    assert_eq!((applied.number, applied.changed), (2, true));
    control.complete(control.head().await?).await?;

    for edge in town.visitors()? {
        assert_eq!(edge.get("new.test", "/").await?.with_status(200)?.text(), "home");
    }
    let again = control.apply(&text).await?;
    assert_eq!((again.number, again.changed), (2, false));
    let first: ConfigVersion = control.get("/v1/config/1").await?.with_status(200)?.json()?;
    assert_eq!(first.network["sites"]["www"]["hosts"], serde_json::json!(["www.test"]), "every version is kept");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_is_wrong_or_late_is_refused_and_changes_nothing() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let head = control.head().await?;
    let good = town.text().replace("max_file = \"2 MiB\"", "max_file = \"3 MiB\"");

    let bad = good.replace("lease = \"60s\"", "lease = \"soon\"").replace("hosts =", "hoasts =");
    let problem = control.put_config(&bad, &[]).await?.problem(422)?;
    let complaints: Vec<String> = serde_json::from_value(problem.more.get("complaints").cloned().unwrap_or_default())?;
    let complained = |part: &str| complaints.iter().any(|complaint| complaint.contains(part));
    assert!(complained("network.lease") && complained("did you mean `hosts`"), "{complaints:?}");
    control.put_config("[network", &[]).await?.problem(422)?;
    control.put_config(&good, &[("if-match", "\"7\"")]).await?.problem(412)?;
    control.put_config(&good, &[("if-match", "7")]).await?.problem(400)?;
    assert_eq!(control.head().await?, head);

    control.put_config(&good, &[("if-match", "\"1\"")]).await?.with_status(200)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_wrong_or_may_not_do_this_changes_nothing() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let draft = Draft::of([("index.html", "home")])?;
    let (id, purger) = control.issue(&["purge:default"]).await?;
    let (_, publisher) = control.issue(&["publish:www"]).await?;
    let head = control.head().await?;

    for stranger in [control.with_token("atoll_0000"), control.with_token("")] {
        let refused = stranger.send_purge(&purge("a")).await?;
        assert_eq!(refused.header("www-authenticate"), "Bearer");
        refused.problem(401)?;
        stranger.get("/v1/status").await?.problem(401)?;
        stranger.json("POST", "/v1/sites/www/publishes", &draft.manifest).await?.problem(401)?;
    }
    let refused = purger.json("POST", "/v1/sites/www/publishes", &draft.manifest).await?.problem(403)?;
    assert!(refused.detail.contains("publish:www") && refused.detail.contains("purge:default"), "{refused:?}");
    purger.put_config(town.text(), &[]).await?.problem(403)?;
    purger.get("/v1/status").await?.problem(403)?;
    purger.get("/v1/snapshot?role=edge").await?.problem(403)?;
    purger.json("POST", "/v1/tokens", &serde_json::json!({ "can": ["admin"] })).await?.problem(403)?;
    purger.put_blob(&draft.digest("index.html")?, b"home").await?.problem(403)?;
    purger.send_purge(&PurgeRequest { owner: "other".parse()?, ..purge("a") }).await?.problem(403)?;
    publisher.send_purge(&purge("a")).await?.problem(403)?;
    publisher.json("POST", "/v1/sites/other/publishes", &draft.manifest).await?.problem(403)?;
    assert_eq!(control.head().await?, head);

    purger.purge(&purge("a")).await?;
    publisher.publish("www", &draft).await?;
    control.send("DELETE", &format!("/v1/tokens/{id}"), &[], "").await?.with_status(204)?;
    purger.send_purge(&purge("a")).await?.problem(401)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_admin_and_a_token_that_followers_rely_on_are_not_revoked() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let head = control.head().await?;

    let last = control.send("DELETE", "/v1/tokens/admin", &[], "").await?.problem(409)?;
    let relied_on = control.send("DELETE", "/v1/tokens/follow", &[], "").await?.problem(409)?;

    assert!(last.detail.contains("token create --can admin"), "{last:?}");
    assert!(relied_on.detail.contains("fra-1") && relied_on.detail.contains("--force"), "{relied_on:?}");
    assert_eq!(control.head().await?, head);
    let (_, second) = control.issue(&["admin"]).await?;
    second.send("DELETE", "/v1/tokens/admin", &[], "").await?.with_status(204)?;
    let unknown = control.get("/v1/status").await?.problem(401)?;
    assert!(unknown.detail.contains("unknown"), "{unknown:?}");
    second.send("DELETE", "/v1/tokens/follow?force=true", &[], "").await?.with_status(204)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_whose_token_file_was_lost_gets_in_again_when_the_origin_is_restarted() -> Result<()> {
    let mut town = Town::plan().lease("2s").edges(&["fra-1"]).start().await?;
    let file = town.folder().join("data/admin.token");
    let lost = std::fs::read_to_string(&file)?;
    std::fs::remove_file(&file)?;

    town.stop_origin().await?;
    town.start_origin().await?;

    town.settled().await?;
    town.control()?.get("/v1/tokens").await?.with_status(200)?;
    // Whoever has the file that was lost is not let in by it any more.
    town.control()?.with_token(lost.trim()).get("/v1/tokens").await?.problem(401)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_that_is_idle_and_healthy_is_said_to_be_complete() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).dns().start().await?;
    let control = town.control()?;

    eventually("all of it to be complete", || async {
        let status = control.status().await?;
        ensure!(status.position.seq > 0 && status.complete == status.position.seq, "{status:?}");
        let regions: Vec<_> = status.followers.iter().map(|follower| (follower.name.as_str(), follower.region.as_str())).collect();
        ensure!(regions == [("fra-1", "fra"), ("ns-1", "")], "a DNS node is in no region: {regions:?}");
        Ok(())
    })
    .await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_health_answer_head_like_get_and_say_which_methods_they_take() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;

    for path in ["/livez", "/readyz", "/metrics"] {
        let got = control.get(path).await?.with_status(200)?;
        let head = control.send("HEAD", path, &[], "").await?.with_status(200)?;
        assert!(head.body.is_empty() && !got.body.is_empty(), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        let refused = control.send("POST", path, &[], "").await?;
        assert_eq!(refused.header("allow"), "GET, HEAD");
        refused.problem(405)?;
    }
    assert!(town.admin("fra-1", "/readyz").await?.with_status(200)?.header("content-type").starts_with("text/plain"));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_has_the_pages_of_a_new_version_before_anybody_asks_for_them() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let page = format!("<!doctype html>{}", "home ".repeat(2000));
    let site = Draft::of([("index.html", page.clone()), ("unread.html", "unread".to_owned())])?;

    town.control()?.publish("www", &site).await?;
    wait_for_folder(&town, "fra-1", site.manifest.canonical().len() + page.len()).await?;

    let answer = town.visit("fra-1")?.get(SITE, "/").await?.with_status(200)?;
    assert!(answer.text() == page && answer.is_hit(), "{}", answer.cache_status());
    assert!(!town.visit("fra-1")?.get(SITE, "/unread").await?.with_status(200)?.is_hit());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_oversized_body_is_refused_before_it_is_read() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let head = control.head().await?;
    let token = std::fs::read_to_string(town.folder().join("data/admin.token"))?;

    let request = format!(
        "POST /v1/purges HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        token.trim(),
        32 << 20
    );
    let answer = raw(town.origin_address()?, request.as_bytes()).await?;

    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert_eq!(control.head().await?, head);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_that_is_complete_after_a_restart_was_applied_by_every_edge_that_answers() -> Result<()> {
    let upstream = counting_upstream().await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "iad-1"]).upstream(&upstream).start().await?;
    town.visit("iad-1")?.hit(API, "/item").await?;
    town.cut("iad-1")?;
    let none = PurgeRequest { wait: wire::Wait::None, ..purge("counted") };
    let sent: Receipt = town.control()?.send_purge(&none).await?.json()?;

    town.stop_origin().await?;
    town.start_origin().await?;
    town.control()?.complete(sent.seq).await?;

    // It knows nothing of the purge, and no origin that it could reach remembers its lease.
    let answer = town.visit("iad-1")?.get(API, "/item").await?;
    assert!(!answer.is_hit(), "{}", answer.cache_status());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_journal_restored_from_a_backup_begins_a_new_epoch_and_edges_drop_what_they_held() -> Result<()> {
    let upstream = counting_upstream().await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1"]).upstream(&upstream).start().await?;
    let before = town.control()?.status().await?.position;
    let journal = town.folder().join("data/origin/journal.redb");
    town.stop_origin().await?;
    let backup = std::fs::read(&journal)?;
    town.start_origin().await?;
    town.settled().await?;
    town.control()?.purge(&purge("other")).await?;
    town.visit("fra-1")?.hit(API, "/item").await?;

    town.stop_origin().await?;
    std::fs::write(&journal, backup)?;
    town.start_origin().await?;

    // The edge's ack proves that the journal lost its end.
    eventually("a new epoch", || async {
        let now = town.control()?.status().await?.position;
        ensure!(now.epoch != before.epoch, "still at {now}");
        Ok(())
    })
    .await?;
    town.settled().await?;
    let answer = town.visit("fra-1")?.get(API, "/item").await?.with_status(200)?;
    assert!(!answer.is_hit(), "{}", answer.cache_status());
    assert_eq!(upstream.count("/item"), 2);
    let receipt = town.control()?.purge(&purge("counted")).await?;
    assert_eq!(receipt.followers.len(), 1);
    town.stop().await;
    Ok(())
}
