//! Readers who name a position of the journal, purges that are sent to an edge, and what an edge says of itself that can't
//! rely on what it knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Answer, Draft, Gate, Reply, Town, Upstream, Visitor, eventually, exchange, raw};
use wire::{Epoch, FollowerState, Position, PurgeRequest, Receipt, ReceiptState, Wait};

const API: &str = "api.test";
const SITE: &str = "www.test";

/// A number that the upstream puts into each reply.
#[derive(Clone, Debug, Default)]
struct Truth(Arc<AtomicU64>);

impl Truth {
    fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn change(&self) -> u64 {
        self.0.fetch_add(1, Ordering::AcqRel) + 1
    }

    async fn upstream(&self) -> Result<Upstream> {
        let truth = self.clone();
        Ok(Upstream::start(move |_| Reply::fresh(truth.now().to_string())).await?)
    }
}

fn told(answer: &Answer) -> Result<u64> {
    answer.text().parse().with_context(|| format!("`{}` is no number", answer.text()))
}

fn purge_of(url: &str, wait: Wait) -> PurgeRequest {
    PurgeRequest { urls: vec![url.to_owned()], wait, ..PurgeRequest::default() }
}

async fn read(edge: &Visitor, path: &str, position: &str) -> Result<Answer> {
    edge.send("GET", API, path, &[("atoll-min-position", position)]).await
}

/// A position of a life of the journal that nobody here follows.
fn of_another_life(position: Position) -> String {
    Position { epoch: Epoch::from_bytes([9; 8]), ..position }.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_at_an_edge_without_a_token_goes_nowhere() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("read")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    edge.hit(API, "/item").await?;
    let head = control.head().await?;

    for headers in [&[][..], &[("authorization", "Basic eA==")][..], &[("fastly-key", ""), ("fastly-soft-purge", "1")][..]] {
        let refused = edge.send("PURGE", API, "/item", headers).await?;
        assert_eq!((refused.header("www-authenticate"), refused.header("cache-control")), ("Bearer", "no-store"), "{headers:?}");
        assert_eq!(refused.cache_status(), "atoll; detail=no-token", "{headers:?}");
        refused.problem(401)?;
    }

    assert!(edge.get(API, "/item").await?.is_hit());
    assert_eq!(control.head().await?, head);
    let methods: Vec<_> = upstream.seen("/item").into_iter().map(|seen| seen.method).collect();
    assert_eq!(methods, ["GET"], "an upstream hears of no purge");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_at_one_edge_purges_at_all_and_is_answered_with_the_receipt() -> Result<()> {
    let truth = Truth::default();
    let upstream = truth.upstream().await?;
    let town = Town::of_three(&upstream).await?;
    let (control, edges) = (town.control()?, town.visitors()?);
    let here = edges.first().context("there are edges")?;
    let (_, purger) = control.issue(&["purge:default"]).await?;
    let bearer = format!("Bearer {}", purger.token());

    for token in [("authorization", bearer.as_str()), ("fastly-key", purger.token())] {
        for edge in &edges {
            edge.hit(API, "/item").await?;
        }
        let least = truth.change();

        let answer = here.send("PURGE", API, "/item", &[token]).await?.with_status(200)?;

        assert_eq!((answer.header("cache-control"), answer.header("content-type")), ("no-store", "application/json"));
        assert_eq!(answer.cache_status(), "atoll; detail=complete");
        let receipt: Receipt = answer.json()?;
        let applied = receipt.followers.iter().filter(|follower| follower.state == FollowerState::Applied).count();
        assert_eq!((receipt.state, applied), (ReceiptState::Complete, 3), "{receipt:?}");
        for edge in &edges {
            let answer = edge.get(API, "/item").await?;
            assert!(!answer.is_hit() && told(&answer)? >= least, "{} {}", answer.text(), answer.cache_status());
        }
    }

    // Whatever else comes along is ignored.
    let with_body =
        format!("PURGE /item HTTP/1.1\r\nHost: api.test\r\nAuthorization: {bearer}\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    assert_eq!(exchange(here.address(), with_body.as_bytes()).await?.answer.status, 200);
    let events = control.journal().await?;
    assert_eq!(events.last().map(|event| event.actor.as_str()), Some("scenario"), "the client purges, not the edge");
    assert!(upstream.seen("/item").iter().all(|seen| seen.method == "GET"));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_origin_says_to_a_purge_at_an_edge_is_said_to_its_sender() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("read")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    control.publish("www", &Draft::of([("index.html", "home")])?).await?;
    let (_, publisher) = control.issue(&["publish:www"]).await?;
    let (_, purger) = control.issue(&["purge:default"]).await?;
    edge.hit(API, "/item").await?;
    let head = control.head().await?;
    let purge = |host: &'static str, path: &'static str, token: &str| {
        let (edge, token) = (edge.clone(), token.to_owned());
        async move { edge.send("PURGE", host, path, &[("fastly-key", token.as_str())]).await }
    };

    let forbidden = purge(API, "/item", publisher.token()).await?.problem(403)?;
    assert!(forbidden.detail.contains("purge:default") && forbidden.detail.contains("publish:www"), "{forbidden:?}");
    let unknown = purge(API, "/item", "atoll_0000").await?;
    assert_eq!(unknown.header("www-authenticate"), "Bearer");
    unknown.problem(401)?;
    purge("nowhere.test", "/", purger.token()).await?.with_status(421)?;
    assert_eq!(control.head().await?, head);
    assert!(edge.get(API, "/item").await?.is_hit());

    let receipt: Receipt = purge(SITE, "/index.html", purger.token()).await?.with_status(200)?.json()?;
    assert!(receipt.notes.iter().any(|note| note.contains("publishing")), "{receipt:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_soft_purge_at_an_edge_leaves_the_response_to_the_stale_modes_and_a_hard_one_does_not() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::plain(200, "read").with("Cache-Control", "max-age=60, stale-while-revalidate=60")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    edge.hit(API, "/soft").await?;
    edge.hit(API, "/hard").await?;

    let token = ("fastly-key", control.token());
    edge.send("PURGE", API, "/soft", &[token, ("fastly-soft-purge", "1")]).await?.with_status(200)?;
    edge.send("PURGE", API, "/hard", &[token]).await?.with_status(200)?;

    let soft = edge.get(API, "/soft").await?;
    assert!(soft.is_hit() && soft.cache_status().contains("detail=soft-purged"), "{}", soft.cache_status());
    let hard = edge.get(API, "/hard").await?;
    assert!(!hard.is_hit() && hard.cache_status().contains("detail=purged"), "{}", hard.cache_status());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_at_an_edge_that_reaches_no_origin_fails_and_says_so() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("read")).await?;
    let mut town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    town.stop_origin().await?;

    let refused = edge.send("PURGE", API, "/item", &[("fastly-key", control.token())]).await?;

    assert_eq!((refused.header("retry-after"), refused.header("cache-control")), ("1", "no-store"));
    let problem = refused.problem(503)?;
    assert!(problem.detail.contains("origin"), "{problem:?}");
    assert!(upstream.seen("/item").is_empty());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_names_the_position_of_a_purge_never_reads_what_was_before_it() -> Result<()> {
    let truth = Truth::default();
    let upstream = truth.upstream().await?;
    let plan = Town::plan().edges(&["fra-1", "iad-1", "sin-1"]).upstream(&upstream).on_routes("min_position = true");
    let town = plan.start().await?;
    let (control, edges) = (town.control()?, town.visitors()?);
    let mut position = String::new();

    for _ in 0..30 {
        for edge in &edges {
            edge.get(API, "/item").await?.with_status(200)?;
        }
        let least = truth.change();
        let sent: Receipt = control.send_purge(&purge_of("api.test/item", Wait::None)).await?.json()?;
        position = sent.position.to_string();

        let answers = join_all(edges.iter().map(|edge| read(edge, "/item", &position))).await;

        for answer in answers {
            let answer = answer?.with_status(200)?;
            assert!(told(&answer)? >= least, "{} where {least} was written: {}", answer.text(), answer.cache_status());
        }
    }

    // It costs nothing where as much is in force.
    for edge in &edges {
        eventually("a hit for who names a position", || async {
            let answer = read(edge, "/item", &position).await?.with_status(200)?;
            ensure!(answer.is_hit(), "{}", answer.cache_status());
            Ok(())
        })
        .await?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_has_not_heard_of_a_position_asks_the_upstream_for_its_reader() -> Result<()> {
    let truth = Truth::default();
    let script_truth = truth.clone();
    let upstream = Upstream::start(move |seen| match (seen.target.as_str(), seen.header("if-none-match")) {
        ("/same", Some("\"same\"")) => Reply::plain(304, "").with("ETag", "\"same\""),
        ("/same", _) => Reply::fresh("0").with("ETag", "\"same\""),
        _ => Reply::fresh(script_truth.now().to_string()),
    });
    let upstream = upstream.await?;
    let lines = "min_position = true\nwhen_fenced = \"serve\"";
    let mut town = Town::plan().lease("2s").edges(&["fra-1", "sin-1"]).upstream(&upstream).on_routes(lines).start().await?;
    let edge = town.visit("sin-1")?;
    let before = told(&edge.hit(API, "/item").await?)?;
    edge.hit(API, "/same").await?;
    town.cut("sin-1")?;
    let least = truth.change();
    let purge = PurgeRequest { all: true, wait: Wait::None, ..PurgeRequest::default() };
    let sent: Receipt = town.control()?.send_purge(&purge).await?.json()?;
    let position = sent.position.to_string();

    // By its route's choice it goes on for everybody else, fenced or not.
    assert_eq!(told(&edge.get(API, "/item").await?)?, before);
    let answer = read(&edge, "/item", &position).await?.with_status(200)?;
    assert!(told(&answer)? >= least && answer.cache_status().contains("fwd=request"), "{} {}", answer.text(), answer.cache_status());
    let same = read(&edge, "/same", &position).await?.with_status(200)?;
    assert!(same.cache_status().contains("fwd-status=304"), "what has a strong validator is asked about: {}", same.cache_status());
    let known: Position = answer.header("atoll-position").parse()?;
    assert!(known.seq < sent.seq, "it says how far it is: {known}");

    // What was fetched serves others, too.
    assert!(told(&edge.hit(API, "/item").await?)? >= least);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_has_seen_more_shares_no_fetch_that_began_before_it_came() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |seen| {
        let reply = Reply::fresh(seen.number.to_string());
        if seen.number == 1 { reply.held(&held) } else { reply }
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).on_routes("min_position = true").start().await?;
    let edge = town.visit("fra-1")?;
    let position = of_another_life(town.control()?.status().await?.position);
    let early = edge.clone();
    let early = tokio::spawn(async move { early.get(API, "/item").await });
    eventually("the fetch to be under way", || async {
        ensure!(upstream.count("/item") == 1, "{upstream:?}");
        Ok(())
    })
    .await?;

    // One of them leads the next fetch, and the other waits for it.
    let late = [(edge.clone(), position.clone()), (edge.clone(), position)];
    let late = late.map(|(edge, position)| tokio::spawn(async move { read(&edge, "/item", &position).await }));
    eventually("one to share the fetch of the other", || async {
        ensure!(town.metric("fra-1", "atoll_edge_collapsed_total").await? >= 1.0, "it has not come yet");
        Ok(())
    })
    .await?;
    gate.open();

    assert_eq!(told(&early.await??)?, 1);
    for late in late {
        let answer = late.await??.with_status(200)?;
        assert_eq!(told(&answer)?, 2, "{}", answer.cache_status());
    }
    assert_eq!(upstream.count("/item"), 2);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_that_is_none_or_that_the_journal_has_not_is_refused() -> Result<()> {
    let upstream = Upstream::start(|seen| Reply::fresh(seen.number.to_string())).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).on_routes("min_position = true").start().await?;
    let (edge, here) = (town.visit("fra-1")?, town.control()?.status().await?.position);
    let text = here.to_string();
    edge.hit(API, "/item").await?;

    for wrong in ["7", "latest", text.trim_end_matches(|letter: char| letter.is_ascii_hexdigit())] {
        let refused = read(&edge, "/item", wrong).await?.with_status(400)?;
        assert_eq!(refused.cache_status(), "atoll; detail=bad-position", "{wrong}");
    }
    let twice = [("atoll-min-position", text.as_str()), ("atoll-min-position", text.as_str())];
    edge.send("GET", API, "/item", &twice).await?.with_status(400)?;
    assert_eq!(upstream.count("/item"), 1);

    // The edge waits for it first, and asks the upstream where the origin has not told in time how long the journal is.
    let beyond = Position { seq: here.seq + 1000, ..here }.to_string();
    let refused = eventually("a refusal", || async { read(&edge, "/item", &beyond).await?.with_status(400) }).await?;
    assert_eq!(refused.cache_status(), "atoll; detail=beyond-journal");

    // Of another life of the journal this one knows nothing.
    let asked = upstream.count("/item");
    let answer = read(&edge, "/item", &of_another_life(here)).await?.with_status(200)?;
    assert!(!answer.is_hit() && answer.cache_status().contains("detail=behind"), "{}", answer.cache_status());
    assert_eq!(upstream.count("/item"), asked + 1);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_that_lets_nobody_name_a_position_ignores_it_and_none_goes_upstream() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("read")).await?;
    let plan = Town::plan().edges(&["fra-1"]).upstream(&upstream).route("told", "/told/*", &upstream, "min_position = true");
    let town = plan.start().await?;
    let edge = town.visit("fra-1")?;
    let position = of_another_life(town.control()?.status().await?.position);

    let miss = read(&edge, "/item", "whatever").await?.with_status(200)?;
    assert!(!miss.headers.contains_key("atoll-position"), "{:?}", miss.headers);
    edge.hit(API, "/item").await?;
    assert!(read(&edge, "/item", &position).await?.is_hit());
    read(&edge, "/told/item", &position).await?.with_status(200)?;
    edge.send("POST", API, "/told/item", &[("atoll-min-position", "whatever")]).await?.with_status(200)?;

    let seen = [upstream.seen("/item"), upstream.seen("/told/item")].concat();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|seen| seen.header("atoll-min-position").is_none()), "{seen:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_is_told_a_position_that_is_in_force_and_never_falls_back() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("read").with("Atoll-Position", "an upstream's own")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).on_routes("min_position = true").start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    let mut last = 0;

    for n in 0..10 {
        let receipt = control.purge(&purge_of("api.test/other", Wait::All)).await?;
        for (method, path) in [("GET", "/item".to_owned()), ("GET", format!("/item/{n}")), ("HEAD", "/item".to_owned())] {
            let answer = edge.send(method, API, &path, &[]).await?.with_status(200)?;
            let told: Position = answer.header("atoll-position").parse()?;
            assert_eq!(told.epoch, receipt.position.epoch);
            assert!(told.seq >= receipt.seq.max(last) && told.seq <= control.head().await?, "{told} after {receipt:?}");
            last = told.seq;
            // Whoever was told so may name it, anywhere.
            read(&edge, &path, &told.to_string()).await?.with_status(200)?;
        }
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_fenced_edge_answers_says_that_it_is_fenced() -> Result<()> {
    let upstream = Upstream::start(|seen| match (seen.target.as_str(), seen.header("if-none-match")) {
        ("/tagged", Some(_)) => Reply::plain(304, "").with("ETag", "\"a\""),
        ("/tagged", None) => Reply::fresh("tagged").with("ETag", "\"a\""),
        ("/no-store", _) => Reply::plain(200, "for one").with("Cache-Control", "no-store"),
        ("/lazy/stale", _) => Reply::plain(200, "old").with("Cache-Control", "max-age=1, stale-while-revalidate=600").with("Age", "60"),
        ("/broken", _) => Reply::verbatim(""),
        _ => Reply::fresh("read"),
    });
    let upstream = upstream.await?;
    let plan = Town::plan().lease("2s").edges(&["fra-1"]).upstream(&upstream);
    let plan = plan.route("lazy", "/lazy/*", &upstream, "when_fenced = { serve_for = \"1h\" }");
    let mut town = plan.route("strict", "/strict/*", &upstream, "when_fenced = \"refuse\"").start().await?;
    let edge = town.visit("fra-1")?;
    town.control()?.publish("www", &Draft::of([("index.html", "home"), ("docs/index.html", "docs")])?).await?;
    edge.get(SITE, "/").await?.with_status(200)?;
    for path in ["/tagged", "/lazy/hit", "/lazy/stale"] {
        edge.hit(API, path).await?;
    }

    town.cut("fra-1")?;
    eventually("the edge to be fenced", || async {
        let answer = edge.get(API, "/any").await?;
        ensure!(answer.cache_status().ends_with("; fenced"), "{}", answer.cache_status());
        Ok(())
    })
    .await?;

    let cases: [(&str, &str, &str, &[(&str, &str)], u16); 19] = [
        ("GET", SITE, "/", &[], 200),
        ("GET", SITE, "/docs", &[], 301),
        ("GET", SITE, "/nowhere", &[], 404),
        ("POST", SITE, "/", &[], 405),
        ("GET", API, "/lazy/hit", &[], 200),
        ("HEAD", API, "/lazy/hit", &[], 200),
        ("GET", API, "/lazy/hit", &[("range", "bytes=0-1")], 206),
        ("GET", API, "/lazy/stale", &[], 200),
        ("GET", API, "/tagged", &[], 200),
        ("GET", API, "/missed", &[], 200),
        ("HEAD", API, "/headed", &[], 200),
        ("POST", API, "/posted", &[], 200),
        ("GET", API, "/no-store", &[], 200),
        ("GET", API, "/broken", &[], 502),
        ("GET", API, "/uncached", &[("cache-control", "only-if-cached")], 504),
        ("GET", API, "/looped", &[("cdn-loop", "atoll")], 508),
        ("GET", API, "/strict/item", &[], 503),
        ("GET", "nowhere.test", "/", &[], 421),
        ("PURGE", API, "/item", &[], 401),
    ];
    for (method, host, path, headers, status) in cases {
        let answer = edge.send(method, host, path, headers).await?.with_status(status)?;
        assert!(answer.cache_status().ends_with("; fenced"), "{method} {host}{path}: {}", answer.cache_status());
    }
    for request in ["GET /a b HTTP/1.1\r\nHost: api.test\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n"] {
        let answer = raw(edge.address(), request.as_bytes()).await?;
        assert!(answer.contains("; fenced\r\n"), "{answer}");
    }
    // Where there is another reason, it stays the detail.
    let own = edge.get(API, "/no-store").await?;
    assert!(own.cache_status().contains("detail=no-store"), "{}", own.cache_status());
    assert!(town.metric("fra-1", "atoll_edge_fenced_responses_total").await? >= 20.0);
    town.stop().await;
    Ok(())
}
