//! Purging what upstreams answered: everywhere, provably, also under load and in the middle of a fetch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Gate, PATIENCE, Reply, Seen, Town, Upstream, Visitor, eventually};
use wire::{FollowerState, Mode, PurgeRequest, Receipt, ReceiptState, Wait};

const API: &str = "api.test";

/// A number that the upstream puts into each reply. What it was when a purge began is the least that may be seen after it.
#[derive(Clone, Debug, Default)]
struct Truth(Arc<AtomicU64>);

impl Truth {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn change(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    fn body(&self, target: &str) -> String {
        format!("{target} {}", self.now())
    }
}

fn told(body: &str) -> Result<u64> {
    let number = body.rsplit(' ').next().unwrap_or_default();
    number.parse().with_context(|| format!("`{body}` tells no number"))
}

/// The tag of a target: its last segment but one, or all of it.
fn tag_of(target: &str) -> String {
    let mut segments = target.split('/').rev();
    let last = segments.next().unwrap_or_default();
    format!("t-{}", segments.next().filter(|segment| !segment.is_empty()).unwrap_or(last))
}

async fn tagged_upstream(truth: &Truth) -> Result<Upstream> {
    let truth = truth.clone();
    Ok(Upstream::start(move |seen| Reply::fresh(truth.body(&seen.target)).with("Surrogate-Key", &tag_of(&seen.target))).await?)
}

fn purge_of_url(url: &str) -> PurgeRequest {
    PurgeRequest { urls: vec![url.to_owned()], ..PurgeRequest::default() }
}

fn purge_of_tag(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], ..PurgeRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miss_then_a_hit_with_age_and_cache_status() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("hello").with("ETag", "\"v1\"").with("Vary", "Accept-Language")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;

    let miss = edge.get(API, "/greeting?to=all").await?.with_status(200)?;
    assert!(miss.cache_status().starts_with("atoll; fwd=uri-miss; fwd-status=200; stored"), "{}", miss.cache_status());
    let hit = edge.hit(API, "/greeting?to=all").await?;
    assert!(hit.cache_status().contains("; ttl="), "{}", hit.cache_status());
    assert!(hit.header("age").parse::<u64>().is_ok(), "{:?}", hit.headers);
    assert_eq!((hit.text().as_str(), hit.header("etag")), ("hello", "\"v1\""));
    assert_eq!(upstream.count("/greeting?to=all"), 1);

    edge.send("GET", API, "/greeting?to=all", &[("if-none-match", "\"v1\"")]).await?.with_status(304)?;
    let part = edge.send("GET", API, "/greeting?to=all", &[("range", "bytes=1-2")]).await?.with_status(206)?;
    assert_eq!(part.text(), "el");
    let head = edge.send("HEAD", API, "/greeting?to=all", &[]).await?.with_status(200)?;
    assert!(head.is_hit() && head.header("content-length") == "5", "{:?}", head.headers);
    assert_eq!(upstream.count("/greeting?to=all"), 1);

    let other = edge.send("GET", API, "/greeting?to=all", &[("accept-language", "de")]).await?;
    assert!(other.cache_status().contains("fwd=vary-miss"), "{}", other.cache_status());
    assert!(!edge.get(API, "/greeting").await?.is_hit(), "the query is part of the key");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upstream_sees_the_host_of_the_key_and_our_own_fields() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::plain(200, "")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;

    let forged = [("x-forwarded-for", "203.0.113.9"), ("x-original-url", "/admin"), ("connection", "x-secret"), ("x-secret", "1")];
    town.visit("fra-1")?.send("GET", "API.test:81", "/a%7Eb/../c?q=%2f", &forged).await?;
    let looped = town.visit("fra-1")?.send("GET", API, "/loop", &[("cdn-loop", "atoll")]).await?;

    let seen = upstream.seen("/c?q=%2F");
    let seen = seen.first().with_context(|| format!("{upstream:?} saw another target"))?;
    assert_eq!((seen.header("host"), seen.header("via"), seen.header("cdn-loop")), (Some("api.test"), Some("1.1 atoll"), Some("atoll")));
    assert_eq!(
        (seen.header("x-forwarded-host"), seen.header("forwarded")),
        (Some("api.test"), Some("for=127.0.0.1;host=\"api.test\";proto=http"))
    );
    assert_eq!((seen.header("x-forwarded-for"), seen.header("x-forwarded-proto")), (Some("127.0.0.1"), Some("http")));
    assert_eq!((seen.header("x-original-url"), seen.header("x-secret")), (None, None));
    assert_eq!((looped.status, upstream.count("/loop")), (508, 0));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_purge_of_any_scope_every_edge_misses_and_the_receipt_names_them_all() -> Result<()> {
    let truth = Truth::default();
    let upstream = tagged_upstream(&truth).await?;
    let town = Town::of_three(&upstream).await?;
    let control = town.control()?;
    let edges = town.visitors()?;
    let strings = |text: &str| vec![text.to_owned()];
    let cases = [
        ("tag", PurgeRequest { tags: strings("t-tag"), ..PurgeRequest::default() }),
        ("url", PurgeRequest { urls: strings("https://WWW.test:8081/api/url/../url/item"), ..PurgeRequest::default() }),
        ("prefix", PurgeRequest { prefixes: strings("www.test/api/prefix/"), ..PurgeRequest::default() }),
        ("site", PurgeRequest { sites: strings("www"), ..PurgeRequest::default() }),
        ("all", PurgeRequest { all: true, ..PurgeRequest::default() }),
    ];
    for (name, request) in cases {
        let (item, bystanders) = (format!("/api/{name}/item"), [1, 2, 3].map(|n| format!("/{name}/bystander-{n}/x")));
        for edge in &edges {
            edge.hit("www.test", &item).await?;
            for path in &bystanders {
                edge.hit(API, path).await?;
            }
        }
        let least = truth.change();

        let receipt = control.purge(&request).await?;

        let followers: Vec<_> = receipt.followers.iter().map(|follower| (follower.name.to_string(), follower.state)).collect();
        assert_eq!(followers, ["fra-1", "iad-1", "sin-1"].map(|edge| (edge.to_owned(), FollowerState::Applied)), "{name}");
        assert!(receipt.followers.iter().all(|follower| follower.after_ms.is_some() && follower.since.is_none()), "{receipt:?}");
        assert_eq!((receipt.position.seq, receipt.may_serve.len()), (receipt.seq, 0));
        for edge in &edges {
            let mut hits = 0;
            for path in &bystanders {
                hits += usize::from(edge.get(API, path).await?.is_hit());
            }
            // Two scopes may share a slot of the purge table, which costs a miss; three never do.
            assert!(if name == "all" { hits == 0 } else { hits >= 2 }, "{name}: {hits} of 3 bystanders stayed");
            let answer = edge.get("www.test", &item).await?;
            assert!(!answer.is_hit() && told(&answer.text())? >= least, "{name}: {} {}", answer.cache_status(), answer.text());
            edge.hit("www.test", &item).await?;
        }
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_serves_the_stale_response_until_a_fresh_one_is_there() -> Result<()> {
    let truth = Truth::default();
    let told_truth = truth.clone();
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::plain(200, told_truth.body(&seen.target));
        let reply = reply.with("Cache-Control", "max-age=60, stale-while-revalidate=60").with("Surrogate-Key", "soft");
        if seen.number > 1 { reply.held(&held) } else { reply }
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;
    let before = edge.hit(API, "/page").await?.text();
    let least = truth.change();

    town.control()?.purge(&PurgeRequest { mode: Mode::Soft, ..purge_of_tag("soft") }).await?;

    // The refresh is held, so every answer must be the stale one, and there is one refresh alone.
    for _ in 0..3 {
        let stale = edge.get(API, "/page").await?.with_status(200)?;
        assert_eq!(stale.text(), before);
        assert!(stale.cache_status().contains("detail=soft-purged"), "{}", stale.cache_status());
    }
    eventually("the refresh to be under way", || async {
        ensure!(upstream.count("/page") == 2, "{upstream:?}");
        Ok(())
    })
    .await?;
    gate.open();
    eventually("the fresh response", || async {
        let answer = edge.get(API, "/page").await?;
        ensure!(told(&answer.text())? >= least && answer.is_hit(), "{} {}", answer.text(), answer.cache_status());
        ensure!(!answer.cache_status().contains("soft-purged"), "{}", answer.cache_status());
        Ok(())
    })
    .await?;
    assert_eq!(upstream.count("/page"), 2);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_asks_whether_the_response_is_still_right_and_a_hard_one_never_does() -> Result<()> {
    let upstream = Upstream::start(|seen| {
        let status = if seen.header("if-none-match") == Some("\"v1\"") { 304 } else { 200 };
        Reply::plain(status, "same").with("Cache-Control", "max-age=60").with("ETag", "\"v1\"").with("Surrogate-Key", "soft")
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    edge.hit(API, "/page").await?;

    control.purge(&PurgeRequest { mode: Mode::Soft, ..purge_of_tag("soft") }).await?;
    let renewed = edge.get(API, "/page").await?.with_status(200)?;
    assert_eq!(renewed.text(), "same");
    assert!(renewed.cache_status().contains("fwd=stale; fwd-status=304"), "{}", renewed.cache_status());
    edge.hit(API, "/page").await?;

    control.purge(&purge_of_tag("soft")).await?;
    edge.get(API, "/page").await?.with_status(200)?;
    let asked: Vec<_> = upstream.seen("/page").iter().map(|seen| seen.header("if-none-match").is_some()).collect();
    assert_eq!(asked, [false, true, false]);
    town.stop().await;
    Ok(())
}

/// Purges while the first fetch of `/page` is held where `hold` says, and asks again before and after it comes to its end.
async fn purge_during_a_fill(hold: fn(Reply, &Gate) -> Reply) -> Result<()> {
    let (truth, gate) = (Truth::default(), Gate::closed());
    let (script_truth, script_gate) = (truth.clone(), gate.clone());
    let upstream = Upstream::start(move |seen: &Seen| {
        let reply = Reply::fresh(script_truth.body(&seen.target)).with("Surrogate-Key", "held");
        if seen.number == 1 { hold(reply, &script_gate) } else { reply }
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;
    let ask = |edge: &Visitor| {
        let edge = edge.clone();
        tokio::spawn(async move { edge.get(API, "/page").await })
    };
    let early = ask(&edge);
    eventually("the fetch to be under way", || async {
        ensure!(upstream.count("/page") == 1, "{upstream:?}");
        Ok(())
    })
    .await?;
    let least = truth.change();

    town.control()?.purge(&PurgeRequest { urls: vec![format!("http://{API}/page")], ..purge_of_tag("held") }).await?;
    let late = ask(&edge);
    eventually("the late request to have met the running fetch", || async {
        ensure!(town.metric("fra-1", "atoll_edge_collapsed_total").await? >= 1.0, "it has not come yet");
        Ok(())
    })
    .await?;
    gate.open();

    early.await??.with_status(200)?;
    let late = late.await??.with_status(200)?;
    assert!(told(&late.text())? >= least, "who came after the purge got the body of before: {}", late.text());
    let after = edge.hit(API, "/page").await?;
    assert!(told(&after.text())? >= least, "the old body came back: {}", after.text());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_before_the_head_of_a_running_fill_does_not_resurrect_the_old_body() -> Result<()> {
    purge_during_a_fill(|reply, gate| reply.held(gate)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_in_the_body_of_a_running_fill_does_not_resurrect_the_old_body() -> Result<()> {
    purge_during_a_fill(|reply, gate| reply.held_in_body(gate)).await
}

/// Reads until told to stop; nothing may be older than what was complete before it was asked for.
async fn read_truths(edge: Visitor, complete: Truth, stop: Arc<AtomicBool>) -> Result<u64> {
    let mut reads = 0;
    while !stop.load(Ordering::Acquire) {
        let least = complete.now();
        let answer = edge.get(API, "/truth/x").await?.with_status(200)?;
        let seen = told(&answer.text())?;
        ensure!(seen >= least, "{seen} was served after the purge of all before {least}: {}", answer.cache_status());
        reads += 1;
    }
    Ok(reads)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_under_load_never_serves_stale_after_its_receipt() -> Result<()> {
    let (truth, complete, stop) = (Truth::default(), Truth::default(), Arc::new(AtomicBool::new(false)));
    let script_truth = truth.clone();
    // Replies of various slowness, so that fetches of before a purge end after it.
    let upstream = Upstream::start(move |seen| {
        let slowness = Duration::from_millis(u64::try_from(seen.number % 5).unwrap_or(0) * 4);
        Reply::fresh(script_truth.body(&seen.target)).with("Surrogate-Key", "truth").after(slowness)
    });
    let upstream = upstream.await?;
    let town = Town::of_three(&upstream).await?;
    let control = town.control()?;
    let edges = town.visitors()?;
    let readers: Vec<_> =
        edges.iter().chain(&edges).map(|edge| tokio::spawn(read_truths(edge.clone(), complete.clone(), Arc::clone(&stop)))).collect();

    let purging = async {
        for n in 0..40 {
            let least = truth.change();
            let request = if n % 2 == 0 { purge_of_tag("truth") } else { purge_of_url("api.test/truth/x") };
            control.purge(&request).await?;
            complete.0.store(least, Ordering::Release);
        }
        anyhow::Ok(())
    };
    let purged = purging.await;
    stop.store(true, Ordering::Release);

    for reads in join_all(readers).await {
        assert!(reads?? > 0);
    }
    town.stop().await;
    purged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_does_not_wait_tells_its_seq_and_the_receipt_can_be_asked_for() -> Result<()> {
    let truth = Truth::default();
    let upstream = tagged_upstream(&truth).await?;
    let town = Town::of_three(&upstream).await?;
    let control = town.control()?;

    let answer = control.send_purge(&PurgeRequest { wait: Wait::None, ..purge_of_tag("x") }).await?;
    assert!(matches!(answer.status, 200 | 202), "{}", answer.text());
    let sent: Receipt = answer.json()?;

    let receipt = control.complete(sent.seq).await?;
    assert_eq!((receipt.position, receipt.state), (sent.position, ReceiptState::Complete));
    control.receipt(sent.seq + 1, Duration::ZERO).await?.problem(404)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_means_nothing_is_refused_and_changes_nothing() -> Result<()> {
    let truth = Truth::default();
    let upstream = tagged_upstream(&truth).await?;
    let town = Town::plan().upstream(&upstream).start().await?;
    let control = town.control()?;
    let head = control.head().await?;

    let empty = control.send_purge(&PurgeRequest::default()).await?.problem(400)?;
    assert!(empty.detail.contains("nothing to purge"), "{empty:?}");
    let one = |text: &str| vec![text.to_owned()];
    for request in [
        PurgeRequest { urls: one("/no-host"), ..PurgeRequest::default() },
        PurgeRequest { urls: one("ftp://api.test/"), ..PurgeRequest::default() },
        PurgeRequest { prefixes: one("api.test"), ..PurgeRequest::default() },
        PurgeRequest { tags: one("two words"), ..PurgeRequest::default() },
    ] {
        control.send_purge(&request).await?.problem(400)?;
    }
    control.send_purge(&PurgeRequest { sites: one("wwww"), ..PurgeRequest::default() }).await?.problem(404)?;
    control.send_purge(&PurgeRequest { sites: one("www"), owner: "other".parse()?, ..PurgeRequest::default() }).await?.problem(403)?;
    control.send("POST", "/v1/purges", &[], "{\"tagz\":[\"a\"]}").await?.problem(400)?;
    control.send("POST", "/v1/purges", &[], "{").await?.problem(400)?;

    assert_eq!(control.head().await?, head);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_of_assets_completes_and_says_that_it_touches_nothing() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    control.publish("www", &harness::Draft::of([("index.html", "home")])?).await?;

    let receipt = control.purge(&purge_of_url("https://www.test/index.html")).await?;

    assert!(receipt.notes.iter().any(|note| note.contains("publishing")), "{receipt:?}");
    assert_eq!(town.visit("fra-1")?.get("www.test", "/").await?.text(), "home");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_must_not_be_stored_is_not() -> Result<()> {
    let cases = BTreeMap::from([
        ("/no-store", ("Cache-Control", "no-store, max-age=60")),
        ("/private", ("Cache-Control", "private, max-age=60")),
        ("/set-cookie", ("Set-Cookie", "a=b")),
        ("/vary-star", ("Vary", "*")),
        ("/no-freshness", ("X-Nothing", "1")),
    ]);
    let script = cases.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = match seen.target.as_str() {
            "/set-cookie" | "/vary-star" => Reply::fresh("for one"),
            _ => Reply::plain(200, "for one"),
        };
        match script.get(seen.target.as_str()) {
            Some((name, value)) => reply.with(name, value),
            None => reply,
        }
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;

    for path in cases.keys() {
        for asked in 1..=3 {
            let answer = edge.get(API, path).await?.with_status(200)?;
            assert!(!answer.is_hit() && answer.text() == "for one", "{path}: {}", answer.cache_status());
            let reason = format!("detail={}", path.trim_start_matches('/'));
            assert!(answer.cache_status().contains(&reason), "{path}: {}", answer.cache_status());
            assert_eq!(upstream.count(path), asked);
        }
    }
    let named = edge.send("GET", API, "/named", &[("authorization", "Basic eA==")]).await?;
    assert!(!named.is_hit());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tags_purge_whatever_field_they_came_in_and_never_reach_the_client() -> Result<()> {
    const FIELDS: [&str; 5] = ["surrogate-key", "cache-tag", "xkey", "edge-cache-tag", "surrogate-control"];
    let upstream = Upstream::start(|_| {
        let reply = Reply::fresh("tagged").with("Surrogate-Key", "a b").with("Cache-Tag", "c,d").with("xkey", "e");
        reply.with("Edge-Cache-Tag", "f").with("Surrogate-Control", "max-age=60")
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);

    for tag in ["a", "b", "c", "d", "e", "f"] {
        let miss = edge.get(API, "/tagged").await?;
        assert!(!miss.is_hit(), "{tag}: {}", miss.cache_status());
        let hit = edge.hit(API, "/tagged").await?;
        for field in FIELDS {
            assert!(!miss.headers.contains_key(field) && !hit.headers.contains_key(field), "{field}");
        }
        control.purge(&purge_of_tag(tag)).await?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_misses_collapse_to_one_fetch() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::fresh("for all").held(&held)).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;

    let readers: Vec<_> = (0..8).map(|_| edge.clone()).map(|edge| tokio::spawn(async move { edge.get(API, "/hot").await })).collect();
    eventually("seven to share the fetch of one", || async {
        let collapsed = town.metric("fra-1", "atoll_edge_collapsed_total").await?;
        ensure!(collapsed >= 7.0, "{collapsed} so far");
        Ok(())
    })
    .await?;
    gate.open();

    let mut shared = 0;
    for reader in readers {
        let answer = reader.await??.with_status(200)?;
        assert_eq!(answer.text(), "for all");
        shared += usize::from(answer.cache_status().contains("; collapsed"));
    }
    assert_eq!((shared, upstream.count("/hot")), (7, 1));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_post_that_went_well_invalidates_its_url_and_one_that_did_not_leaves_it() -> Result<()> {
    let upstream = Upstream::start(|seen| match (seen.method.as_str(), seen.number) {
        ("POST", 1) => Reply::plain(422, "no"),
        ("POST", _) => Reply::plain(201, "yes"),
        (_, number) => Reply::fresh(format!("read {number}")),
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;
    edge.hit(API, "/list").await?;

    edge.send("POST", API, "/list", &[]).await?.with_status(422)?;
    assert_eq!(edge.get(API, "/list").await?.text(), "read 1");

    edge.send("POST", API, "/list", &[]).await?.with_status(201)?;
    let answer = edge.get(API, "/list").await?;
    assert!(!answer.is_hit() && answer.text() == "read 2", "{} {}", answer.text(), answer.cache_status());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p8_what_an_unsafe_method_changed_is_invalid_in_all_regions() -> Result<()> {
    let upstream = Upstream::start(|seen| match seen.method.as_str() {
        "GET" => Reply::fresh(format!("read {}", seen.number)).with("Cache-Groups", "\"lists\""),
        "DELETE" => Reply::plain(204, "").with("Cache-Group-Invalidation", "\"lists\""),
        _ => Reply::plain(201, "yes").with("Location", "/list/made"),
    });
    let upstream = upstream.await?;
    let town = Town::of_three(&upstream).await?;
    let (here, there) = (town.visit("fra-1")?, town.visit("sin-1")?);
    for path in ["/list", "/list/made", "/other", "/grouped"] {
        here.hit(API, path).await?;
        there.hit(API, path).await?;
    }
    let is_anew = |path: &'static str| {
        let there = there.clone();
        move || {
            let there = there.clone();
            async move {
                let answer = there.get(API, path).await?;
                ensure!(!answer.is_hit(), "{path}: {}", answer.cache_status());
                Ok(())
            }
        }
    };

    here.send("POST", API, "/list", &[]).await?.with_status(201)?;
    for path in ["/list", "/list/made"] {
        assert!(!here.get(API, path).await?.is_hit(), "{path}");
        eventually("the other region to have forgotten it", is_anew(path)).await?;
    }
    assert!(there.get(API, "/other").await?.is_hit());

    // The group is invalid here before its answer comes, and soon there.
    here.send("DELETE", API, "/one", &[]).await?.with_status(204)?;
    assert!(!here.get(API, "/grouped").await?.is_hit());
    eventually("the other region to have forgotten the group", is_anew("/grouped")).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_completes_without_an_edge_that_is_cut_off_and_that_edge_never_serves_what_it_purged() -> Result<()> {
    let truth = Truth::default();
    let upstream = tagged_upstream(&truth).await?;
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "iad-1", "sin-1"]).upstream(&upstream).start().await?;
    let control = town.control()?;
    for edge in town.visitors()? {
        edge.hit(API, "/cut/x").await?;
    }
    town.cut("sin-1")?;
    let least = truth.change();

    let waiting: Receipt = control.send_purge(&PurgeRequest { wait: Wait::None, ..purge_of_tag("t-cut") }).await?.json()?;
    let receipt = control.complete(waiting.seq).await?;

    let state = |name: &str| receipt.followers.iter().find(|follower| follower.name.as_str() == name).map(|follower| follower.state);
    assert_eq!(["fra-1", "iad-1", "sin-1"].map(state), [FollowerState::Applied, FollowerState::Applied, FollowerState::Fenced].map(Some));
    assert!(receipt.followers.iter().any(|follower| follower.since.is_some()), "{receipt:?}");
    let edge = town.visit("sin-1")?;
    for _ in 0..3 {
        let answer = edge.get(API, "/cut/x").await?;
        assert!(told(&answer.text())? >= least, "a fenced edge served {}: {}", answer.text(), answer.cache_status());
    }

    town.mend("sin-1")?;
    let stop = Arc::new(AtomicBool::new(false));
    let floor = Truth::default();
    floor.0.store(least, Ordering::Release);
    let read = {
        let (edge, stop) = (edge.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::Acquire) {
                let answer = edge.get(API, "/cut/x").await?;
                ensure!(told(&answer.text())? >= floor.now(), "an edge that came back served {}", answer.text());
            }
            anyhow::Ok(())
        })
    };
    let settled = town.settled().await;
    stop.store(true, Ordering::Release);
    read.await??;
    settled?;
    let again = control.receipt(waiting.seq, PATIENCE).await?.with_status(200)?;
    let again: Receipt = again.json()?;
    assert!(again.followers.iter().all(|follower| follower.state == FollowerState::Applied), "{again:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_partial_where_a_route_lets_a_fenced_edge_go_on_serving() -> Result<()> {
    let truth = Truth::default();
    let upstream = tagged_upstream(&truth).await?;
    let plan = Town::plan().lease("2s").edges(&["fra-1", "sin-1"]).upstream(&upstream).on_routes("when_fenced = { serve_for = \"1h\" }");
    let mut town = plan.start().await?;
    let before = town.visit("sin-1")?.hit(API, "/lazy/x").await?.text();
    town.cut("sin-1")?;
    truth.change();

    let answer = town.control()?.send_purge(&purge_of_url("api.test/lazy/x")).await?.with_status(202)?;

    let receipt: Receipt = answer.json()?;
    assert_eq!((receipt.state, receipt.may_serve.as_slice()), (ReceiptState::Partial, &["api".to_owned()][..]));
    let served = town.visit("sin-1")?.get(API, "/lazy/x").await?;
    assert_eq!(served.text(), before);
    assert!(served.cache_status().contains("fenced"), "{}", served.cache_status());
    town.stop().await;
    Ok(())
}
