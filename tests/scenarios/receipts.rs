//! What the sender of a purge can rely on: done once under a key, once more where that was asked for, and within a limit.

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Control, Reply, Town, Upstream, eventually};
use serde_json::json;
use wire::{Chain, Event, Fact, Position, PurgeRequest, Receipt, Timestamp, TokenIssued, Wait};

const API: &str = "api.test";

fn purge(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], ..PurgeRequest::default() }
}

fn purge_of_many(count: usize) -> PurgeRequest {
    PurgeRequest { tags: (0..count).map(|n| format!("t{n}")).collect(), wait: Wait::None, ..PurgeRequest::default() }
}

/// All purges that the journal holds.
async fn purges(control: &Control) -> Result<Vec<Event>> {
    let journal = control.journal().await?;
    Ok(journal.into_iter().filter(|event| matches!(event.fact, Fact::Purged { .. })).collect())
}

/// Waits until the purge `seq` was repeated, and returns the seqs of all that repeat it.
async fn repeated(control: &Control, seq: u64) -> Result<Vec<u64>> {
    let repeats = |event: &Event| matches!(event.fact, Fact::Purged { repeats: Some(first), .. } if first == seq);
    eventually(&format!("purge {seq} to be repeated"), || async {
        let seqs: Vec<_> = purges(control).await?.iter().filter(|event| repeats(event)).map(|event| event.seq).collect();
        ensure!(!seqs.is_empty(), "not yet");
        Ok(seqs)
    })
    .await
}

/// Waits until a purge was repeated that was asked for after all others: what was due before it has come before it.
async fn all_that_was_due_was_repeated(control: &Control) -> Result<()> {
    let marker = PurgeRequest { again_after_ms: Some(1), wait: Wait::None, ..purge("marker") };
    let marker: Receipt = control.send_purge(&marker).await?.json()?;
    repeated(control, marker.seq).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_under_a_key_is_done_once_also_when_the_origin_was_restarted_in_between() -> Result<()> {
    let mut town = Town::plan().lease("2s").edges(&["fra-1"]).start().await?;
    let control = town.control()?;

    let first: Receipt = control.send_purge_under("deploy-7", &purge("a")).await?.with_status(200)?.json()?;
    let patient = PurgeRequest { timeout_ms: Some(5000), ..purge("a") };
    let second: Receipt = control.send_purge_under("\"deploy-7\"", &patient).await?.with_status(200)?.json()?;
    assert_eq!((second.position, second.state, second.followers.len()), (first.position, first.state, 1));
    assert!(first.notes.is_empty() && second.notes.iter().any(|note| note.contains("nothing was purged anew")), "{second:?}");

    town.stop_origin().await?;
    town.start_origin().await?;
    let control = town.control()?;
    let unhurried = PurgeRequest { wait: Wait::None, ..purge("a") };
    let third: Receipt = control.send_purge_under("deploy-7", &unhurried).await?.json()?;
    assert_eq!(third.position, first.position);
    let other: Receipt = control.send_purge_under("deploy-8", &unhurried).await?.json()?;

    let journal = purges(&control).await?;
    assert_eq!(journal.iter().map(|event| event.seq).collect::<Vec<_>>(), [first.seq, other.seq], "{journal:?}");
    assert!(!serde_json::to_string(&journal)?.contains("deploy"), "the journal can't be read for keys");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_under_one_key_one_purges_and_all_get_its_receipt() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;

    for round in 1..=5 {
        let (key, request) = (format!("round-{round}"), purge("a"));
        let answers = join_all((0..12).map(|_| control.send_purge_under(&key, &request))).await;

        let mut seqs = Vec::new();
        for answer in answers {
            let receipt: Receipt = answer?.with_status(200)?.json()?;
            seqs.push(receipt.seq);
        }
        seqs.dedup();
        assert_eq!((seqs.len(), purges(&control).await?.len()), (1, round), "{seqs:?}");
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_purges_at_once_under_one_key_one_is_counted_as_what_it_names() -> Result<()> {
    let town = Town::plan().start().await?;
    let slow = limited(&town.control()?, &["purge:default"], 250).await?;

    let request = purge_of_many(400);
    for answer in join_all((0..3).map(|_| slow.send_purge_under("k", &request))).await {
        answer?.with_status(200)?;
    }

    // It may have 1,250 at once.
    slow.send_purge(&purge_of_many(800)).await?.with_status(200)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_long_counts_more_and_so_does_counting() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let long = PurgeRequest { urls: vec![format!("{API}/{}", "p".repeat(8000))], wait: Wait::None, ..PurgeRequest::default() };
    let dry_run = PurgeRequest { dry_run: true, ..purge("a") };

    let slow = limited(&control, &["purge:default"], 1).await?;
    slow.send_purge(&long).await?.with_status(200)?;
    let refused = slow.send_purge(&long).await?.problem(429)?;
    assert!(refused.detail.contains("counts as 8 scopes"), "{refused:?}");

    let curious = limited(&control, &["purge:default"], 1).await?;
    curious.send_purge(&PurgeRequest { wait: Wait::None, ..dry_run.clone() }).await?.with_status(200)?;
    let refused = curious.send_purge(&dry_run).await?.problem(429)?;
    assert!(refused.detail.contains("counts as 1000 scopes"), "{refused:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receipt_is_for_who_may_know_and_is_found_by_its_whole_position() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let receipt: Receipt = control.purge(&purge("a")).await?;
    let (by_seq, by_position) = (format!("/v1/purges/{}", receipt.seq), format!("/v1/purges/{}", receipt.position));

    for grant in ["purge:default", "purge:*", "publish:www", "publish:*", "follow:edge/fra-1", "follow:dns/*", "read", "config", "admin"] {
        let (_, reader) = control.issue(&[grant]).await?;
        for path in [&by_seq, &by_position] {
            let answer = reader.get(path).await?.with_status(200)?;
            assert_eq!(answer.header("cache-control"), "no-store", "{grant}");
            assert_eq!(answer.json::<Receipt>()?.position, receipt.position, "{grant}");
        }
    }
    let (_, stranger) = control.issue(&["purge:other"]).await?;
    for path in [&by_seq, &by_position] {
        stranger.get(path).await?.problem(403)?;
    }
    let (_, purger) = control.issue(&["purge:default"]).await?;
    let head = control.head().await?;
    purger.get(&format!("/v1/purges/{head}")).await?.problem(403)?;

    let position = receipt.position;
    for other in [
        Position { chain: Chain::START, ..position },
        Position { epoch: wire::Epoch::from_bytes([7; 8]), ..position },
        Position { seq: head + 1, ..position },
    ] {
        control.get(&format!("/v1/purges/{other}?timeout_ms=60000")).await?.problem(410)?;
    }
    control.get("/v1/purges/first").await?.problem(400)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_s_token_tells_what_became_invalid_and_does_nothing_else() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let (_, edge) = control.issue(&["follow:edge/fra-1"]).await?;
    let head = control.head().await?;

    for request in [
        PurgeRequest { again_after_ms: Some(1000), ..purge("a") },
        PurgeRequest { dry_run: true, ..purge("a") },
        PurgeRequest { sites: vec!["www".to_owned()], ..PurgeRequest::default() },
    ] {
        edge.send_purge(&request).await?.problem(403)?;
    }
    edge.send_purge_under("k", &purge("a")).await?.problem(403)?;
    assert_eq!(control.head().await?, head);
    edge.send_purge(&purge("a")).await?.with_status(200)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_stands_for_one_purge_of_one_token() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let (_, other) = control.issue(&["purge:default"]).await?;
    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));

    // A dry run does nothing, so it uses no key.
    let dry_run = PurgeRequest { dry_run: true, wait: Wait::None, ..purge("dry") };
    control.send_purge_under("k", &dry_run).await?.with_status(200)?;
    let mine: Receipt = control.send_purge_under("k", &purge("a")).await?.with_status(200)?.json()?;
    let head = control.head().await?;

    for changed in [purge("b"), PurgeRequest { again_after_ms: Some(1), ..purge("a") }] {
        let reused = control.send_purge_under("k", &changed).await?.problem(422)?;
        assert!(reused.detail.contains("Idempotency-Key") && reused.detail.contains(&mine.seq.to_string()), "{reused:?}");
    }
    for bad in ["two words", "\"open", "\"\"", too_long.as_str()] {
        control.send_purge_under(bad, &purge("a")).await?.problem(400)?;
    }
    let body = serde_json::to_vec(&purge("a"))?;
    control.send("POST", "/v1/purges", &[("idempotency-key", "k"), ("idempotency-key", "l")], body).await?.problem(400)?;
    assert_eq!(control.head().await?, head);

    let theirs: Receipt = other.send_purge_under("k", &purge("b")).await?.with_status(200)?.json()?;
    assert!(theirs.seq > mine.seq);
    control.send_purge_under(&longest, &purge("b")).await?.with_status(200)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_done_once_more_when_it_asked_for_that_and_what_was_filled_meanwhile_is_gone() -> Result<()> {
    let upstream = Upstream::start(|seen| Reply::fresh(format!("read {}", seen.number)).with("Surrogate-Key", "lagging")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (control, edge) = (town.control()?, town.visit("fra-1")?);
    edge.hit(API, "/page").await?;

    let request = PurgeRequest { again_after_ms: Some(1500), ..purge("lagging") };
    let receipt: Receipt = control.send_purge_under("k", &request).await?.with_status(200)?.json()?;
    // What a replica that lags would give.
    let filled = edge.hit(API, "/page").await?.text();
    let is_filled_before = control.head().await? == receipt.seq;
    let again: Receipt = control.send_purge_under("k", &request).await?.json()?;
    assert_eq!((again.seq, again.again_at), (receipt.seq, receipt.again_at));

    let at = receipt.again_at.context("the receipt does not say when")?;
    let seqs = repeated(&control, receipt.seq).await?;
    assert!(Timestamp::now() >= at, "it came before {at}");
    control.complete(seqs.first().copied().unwrap_or_default()).await?;
    if is_filled_before {
        let answer = edge.get(API, "/page").await?;
        assert!(!answer.is_hit() && answer.text() != filled, "{} {}", answer.text(), answer.cache_status());
    }
    all_that_was_due_was_repeated(&control).await?;
    assert_eq!(repeated(&control, receipt.seq).await?, seqs);
    let repeat = purges(&control).await?.into_iter().find(|event| seqs.contains(&event.seq)).context("it is there")?;
    assert!(repeat.actor == "origin" && repeat.again_at().is_none(), "{repeat:?}");

    let said: Receipt = control.complete(receipt.seq).await?;
    assert_eq!(said.again_at, Some(at));
    for wrong in [0, 3_600_001] {
        control.send_purge(&PurgeRequest { again_after_ms: Some(wrong), ..purge("a") }).await?.problem(400)?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeat_that_became_due_while_the_origin_was_down_is_done_once_when_it_is_back() -> Result<()> {
    let mut town = Town::plan().start().await?;
    let request = PurgeRequest { again_after_ms: Some(1000), ..purge("a") };
    let late = PurgeRequest { again_after_ms: Some(3_600_000), ..purge("b") };
    let receipt: Receipt = town.control()?.send_purge(&request).await?.with_status(200)?.json()?;
    let hour: Receipt = town.control()?.send_purge(&late).await?.with_status(200)?.json()?;
    town.stop_origin().await?;
    let at = receipt.again_at.context("the receipt does not say when")?;
    eventually("the repeat to be due", || async {
        ensure!(Timestamp::now() >= at, "{at} is still to come");
        Ok(())
    })
    .await?;

    town.start_origin().await?;
    let seqs = repeated(&town.control()?, receipt.seq).await?;
    town.stop_origin().await?;
    town.start_origin().await?;

    let control = town.control()?;
    all_that_was_due_was_repeated(&control).await?;
    assert_eq!((repeated(&control, receipt.seq).await?, seqs.len()), (seqs, 1));
    let hours = |event: &Event| matches!(event.fact, Fact::Purged { repeats: Some(seq), .. } if seq == hour.seq);
    assert!(!purges(&control).await?.iter().any(hours), "it has an hour");
    town.stop().await;
    Ok(())
}

/// Issues a token that may purge so many scopes per second.
async fn limited(control: &Control, can: &[&str], rate: u64) -> Result<Control> {
    let request = json!({ "name": "limited", "can": can, "purge_rate": rate });
    let issued: TokenIssued = control.json("POST", "/v1/tokens", &request).await?.with_status(201)?.json()?;
    Ok(control.with_token(&issued.token))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_purged_too_much_is_told_how_long_to_wait_and_then_may_again() -> Result<()> {
    let mut town = Town::plan().start().await?;
    let control = town.control()?;
    let slow = limited(&control, &["purge:default"], 1).await?;
    let one = purge_of_many(1);

    // More than it may have at once leaves it a thousand seconds in debt.
    slow.send_purge(&purge_of_many(1000)).await?.with_status(200)?;
    let head = control.head().await?;
    for refused in [one.clone(), PurgeRequest { dry_run: true, ..one.clone() }] {
        let refused = slow.send_purge(&refused).await?;
        let wait: u64 = refused.header("retry-after").parse().with_context(|| format!("{:?}", refused.headers))?;
        assert!((100..=1000).contains(&wait), "{wait}");
        let problem = refused.problem(429)?;
        assert!(problem.detail.contains("1 scopes per second") && problem.detail.contains(&wait.to_string()), "{problem:?}");
    }
    assert_eq!(control.head().await?, head);
    control.send_purge(&one).await?.with_status(200)?;

    let faster = limited(&control, &["purge:default"], 150).await?;
    faster.send_purge(&purge_of_many(1000)).await?.with_status(200)?;
    eventually("the limit to allow one more", || async { faster.send_purge(&one).await?.with_status(200) }).await?;

    // An edge that tells what unsafe methods made invalid is not limited, whatever its token says.
    let edge = limited(&control, &["follow:edge/fra-1"], 1).await?;
    for _ in 0..3 {
        edge.send_purge(&purge_of_many(1000)).await?.with_status(200)?;
    }

    for wrong in [0, 1_000_001] {
        control.json("POST", "/v1/tokens", &json!({ "can": ["read"], "purge_rate": wrong })).await?.problem(400)?;
    }
    town.stop_origin().await?;
    town.start_origin().await?;
    let tokens: serde_json::Value = town.control()?.get("/v1/tokens").await?.with_status(200)?.json()?;
    let rates: Vec<_> = tokens.as_array().into_iter().flatten().filter_map(|token| token.get("purge_rate")?.as_u64()).collect();
    assert!(rates.len() == 3 && rates.contains(&150), "{tokens}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_long_urls_are_one_purge_and_one_more_is_refused() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::plain(200, "")).await?;
    let town = Town::plan().upstream(&upstream).start().await?;
    let control = town.control()?;
    // A target of 8 KiB, the longest that an edge reads.
    let url = |n: usize| format!("https://{API}/{n:04}/{}", "p".repeat((8 << 10) - 6));
    let request = |count: usize| PurgeRequest { urls: (0..count).map(url).collect(), ..PurgeRequest::default() };

    control.purge(&request(1000)).await?;
    let head = control.head().await?;
    let refused = control.send_purge(&request(1001)).await?.problem(400)?;

    assert!(refused.detail.contains("more than the 1000"), "{refused:?}");
    assert_eq!(control.head().await?, head);
    let journal = purges(&control).await?;
    assert!(matches!(journal.as_slice(), [Event { fact: Fact::Purged { scopes, .. }, .. }] if scopes.len() == 1000));
    town.stop().await;
    Ok(())
}
