//! Several origins on one journal: what one of them took in counts at all of them, at once; each answers for what the others
//! did; and followers go over to another one before a lease ends.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::{join, join_all};
use harness::{Control, Draft, PATIENCE, Plan, RedisOptions, RedisServer, Reply, S3, Town, Upstream, eventually};
use wire::{AliasAnswer, ApplyAnswer, CommitAnswer, Event, Fact, FollowerState, PurgeRequest, Receipt, ReceiptState, Wait};

const API: &str = "api.test";
const SITE: &str = "www.test";

/// Long enough for a busy machine, and short enough that what waits for its end does not wait for long: an origin that was
/// started says nothing to be complete before leases from before have ended.
const LEASE: &str = "3s";

/// Longer than any lease of [`LEASE`] runs.
const LONGER: Duration = Duration::from_secs(4);

/// How often an edge is asked while nothing may happen to it: often enough to meet every moment without a lease.
const PACE: Duration = Duration::from_millis(10);

async fn redis() -> Result<RedisServer> {
    RedisServer::start(RedisOptions::default().append_only()).await
}

async fn numbered() -> Result<Upstream> {
    let reply = |seen: &harness::Seen| Reply::fresh(format!("{} {}", seen.target, seen.number)).with("Surrogate-Key", "all");
    Ok(Upstream::start(reply).await?)
}

/// Two origins and two edges: `fra-1` asks the first origin first, `iad-1` the second.
fn of_two(server: &RedisServer, upstream: &Upstream) -> Plan {
    Town::plan().origins(2).journal(server).lease(LEASE).edges(&["fra-1", "iad-1"]).upstream(upstream)
}

fn purge(tag: &str) -> PurgeRequest {
    PurgeRequest { tags: vec![tag.to_owned()], ..PurgeRequest::default() }
}

fn unhurried(tag: &str) -> PurgeRequest {
    PurgeRequest { wait: Wait::None, ..purge(tag) }
}

/// Each origin beside the other one, both ways.
fn both_ways(town: &Town) -> Result<[(Control, Control); 2]> {
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);
    Ok([(first.clone(), second.clone()), (second, first)])
}

/// What became of each edge, by its name.
fn edges(receipt: &Receipt) -> Vec<(&str, FollowerState)> {
    receipt.followers.iter().map(|follower| (follower.name.as_str(), follower.state)).collect()
}

async fn purges(control: &Control) -> Result<Vec<Event>> {
    let journal = control.journal().await?;
    Ok(journal.into_iter().filter(|event| matches!(event.fact, Fact::Purged { .. })).collect())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_purged_through_one_origin_is_in_force_at_the_edges_of_the_other_and_both_have_its_receipt() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).only("fra-1", 0).only("iad-1", 1).start().await?;
    let applied = [("fra-1", FollowerState::Applied), ("iad-1", FollowerState::Applied)];

    for (here, there) in both_ways(&town)? {
        let mut held = Vec::new();
        for edge in town.visitors()? {
            held.push(edge.hit(API, "/page").await?.text());
        }
        let receipt = here.purge(&purge("all")).await?;
        assert_eq!(edges(&receipt), applied);
        for (edge, held) in town.visitors()?.into_iter().zip(held) {
            let answer = edge.get(API, "/page").await?;
            assert!(!answer.is_hit() && answer.text() != held, "{} {}", answer.text(), answer.cache_status());
        }
        for wanted in [receipt.seq.to_string(), receipt.position.to_string()] {
            let told: Receipt = there.get(&format!("/v1/purges/{wanted}?timeout_ms=30000")).await?.with_status(200)?.json()?;
            assert_eq!((told.position, told.state, edges(&told)), (receipt.position, ReceiptState::Complete, applied.to_vec()));
        }
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_has_not_heard_of_a_purge_yet_does_not_say_that_there_is_none() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;

    for (here, there) in both_ways(&town)? {
        for _ in 0..20 {
            let sent: Receipt = here.send_purge(&unhurried("all")).await?.json()?;
            for wanted in [sent.seq.to_string(), sent.position.to_string()] {
                let told: Receipt = there.get(&format!("/v1/purges/{wanted}")).await?.json()?;
                assert_eq!(told.position, sent.position);
            }
        }
        let head = here.head().await?;
        there.complete(head).await?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_one_origin_took_is_what_the_other_judges_the_next_one_by_at_once() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let of_size = |size: u64| town.text().replace("max_file = \"2 MiB\"", &format!("max_file = \"{size} MiB\""));

    let mut number = 1;
    for (here, there) in both_ways(&town)? {
        let (before, next) = (format!("\"{number}\""), format!("\"{}\"", number + 1));
        here.put_config(&of_size(3), &[("if-match", &before)]).await?.with_status(200)?;
        there.put_config(&of_size(4), &[("if-match", &before)]).await?.problem(412)?;
        there.put_config(&of_size(4), &[("if-match", &next)]).await?.with_status(200)?;
        // What is in force anew is no change; what was in force before is one, also for who has yet to hear of what came since.
        let again: ApplyAnswer = here.apply(&of_size(4)).await?;
        assert_eq!((again.number, again.changed), (number + 2, false));
        here.apply(&of_size(5)).await?;
        let back: ApplyAnswer = there.apply(&of_size(4)).await?;
        assert_eq!((back.number, back.changed), (number + 4, true));
        number += 4;
    }
    for edge in town.visitors()? {
        edge.get("new.test", "/").await?.with_status(421)?;
    }
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);
    let text = of_size(4).replace("hosts = [\"www.test\"]", "hosts = [\"www.test\", \"new.test\"]");
    assert_eq!(first.apply(&text).await?.number, number + 1);
    first.complete(first.head().await?).await?;
    for edge in town.visitors()? {
        assert_ne!(edge.get("new.test", "/").await?.status, 421, "it is in force at the edges of both");
    }
    second.complete(second.head().await?).await?;
    assert_eq!(second.status().await?.config, Some(number + 1));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_who_change_the_configuration_at_two_origins_at_once_one_wins() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let of_size = |size: u64| town.text().replace("max_file = \"2 MiB\"", &format!("max_file = \"{size} MiB\""));
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);

    for number in 1..=5_u64 {
        let tag = format!("\"{number}\"");
        let (ours, theirs) = (of_size(2 * number + 2), of_size(2 * number + 3));
        let headers = [("if-match", tag.as_str())];
        let (ours, theirs) = join(first.put_config(&ours, &headers), second.put_config(&theirs, &headers)).await;

        let mut statuses = [ours?.status, theirs?.status];
        statuses.sort_unstable();
        assert!(statuses == [200, 409] || statuses == [200, 412], "{statuses:?}");
        for control in [&first, &second] {
            assert_eq!(control.status().await?.config, Some(number + 1));
        }
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_one_origin_issued_lets_in_at_the_other_at_once_until_one_revokes_it() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;

    for (here, there) in both_ways(&town)? {
        for _ in 0..10 {
            let (id, holder) = here.issue(&["purge:default"]).await?;
            let elsewhere = there.with_token(holder.token());
            assert!(matches!(elsewhere.send_purge(&unhurried("a")).await?.status, 200 | 202));
            there.send("DELETE", &format!("/v1/tokens/{id}"), &[], "").await?.with_status(204)?;
            elsewhere.send_purge(&unhurried("a")).await?.problem(401)?;
            eventually("the token to be refused", || async { holder.send_purge(&unhurried("a")).await?.problem(401) }).await?;
        }
        // Nobody has shown this one there before.
        let (id, _) = here.issue(&["read"]).await?;
        there.send("DELETE", &format!("/v1/tokens/{id}"), &[], "").await?.with_status(204)?;
        there.with_token(here.token()).status().await?;
        there.with_token("atoll_0000").get("/v1/status").await?.problem(401)?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_at_once_under_one_key_at_two_origins_one_purges_and_all_get_its_receipt() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    // A key is its token's own, and each origin's admin has another one.
    let first = town.control_of(0)?;
    let both = [first.clone(), town.control_of(1)?.with_token(first.token())];

    for round in 1..=5 {
        let (key, request) = (format!("round-{round}"), purge("a"));
        let sent = both.iter().cycle().take(12).map(|control| control.send_purge_under(&key, &request));
        let mut seqs = Vec::new();
        for answer in join_all(sent).await {
            seqs.push(answer?.with_status(200)?.json::<Receipt>()?.seq);
        }
        seqs.dedup();
        assert_eq!(seqs.len(), 1, "{seqs:?}");
        for control in &both {
            assert_eq!(purges(control).await?.len(), round);
        }
    }
    town.stop().await;
    Ok(())
}

/// Asks an edge for as long as any lease may run: it has one all the time.
async fn is_never_fenced(town: &Town, name: &str) -> Result<()> {
    let (edge, begun, mut pace) = (town.visit(name)?, Instant::now(), tokio::time::interval(PACE));
    while begun.elapsed() < LONGER {
        pace.tick().await;
        let answer = edge.get(API, "/item").await?.with_status(200)?;
        ensure!(!answer.cache_status().contains("fenced"), "after {:?}: {}", begun.elapsed(), answer.cache_status());
    }
    let fenced = town.metric(name, "atoll_edge_fenced_responses_total").await?;
    ensure!(fenced < 1.0, "{fenced} answers were given without a lease");
    Ok(())
}

/// A purge through an origin is complete since every edge has applied it.
async fn all_apply(control: &Control) -> Result<()> {
    let receipt: Receipt = control.purge(&purge("all")).await?;
    ensure!(edges(&receipt).iter().all(|(_, state)| *state == FollowerState::Applied), "{receipt:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_origin_stops_or_whose_cable_is_cut_goes_over_to_another_one_before_its_lease_ends() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;

    town.cut_from("fra-1", 0)?;
    is_never_fenced(&town, "fra-1").await?;
    town.mend_to("fra-1", 0)?;
    town.cut_from("fra-1", 1)?;
    is_never_fenced(&town, "fra-1").await?;
    town.mend_to("fra-1", 1)?;
    town.stop_origin_at(0).await?;
    is_never_fenced(&town, "fra-1").await?;

    all_apply(&town.control_of(1)?).await?;
    town.start_origin_at(0).await?;
    town.stop_origin_at(1).await?;
    is_never_fenced(&town, "iad-1").await?;
    all_apply(&town.control_of(0)?).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_dies_under_purges_fences_none_of_its_followers_and_no_purge_waits_for_it() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;
    let control = town.control_of(1)?;
    control.complete(control.head().await?).await?;

    town.lose_origin(0)?;

    let purging = async {
        for _ in 0..20 {
            all_apply(&control).await?;
        }
        anyhow::Ok(())
    };
    let (served, purged) = join(is_never_fenced(&town, "fra-1"), purging).await;
    served.and(purged)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_whose_machine_loses_power_fences_none_of_its_followers() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;

    town.silence_origin(0)?;

    is_never_fenced(&town, "fra-1").await?;
    all_apply(&town.control_of(1)?).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_that_is_cut_off_from_the_journal_fences_none_of_its_followers_and_takes_part_again() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;

    town.cut_from_shared(0)?;
    is_never_fenced(&town, "fra-1").await?;
    all_apply(&town.control_of(1)?).await?;
    let refused = town.control_of(0)?.send_purge(&unhurried("all")).await?;
    assert!(refused.status >= 500, "{}", refused.text());

    town.mend_to_shared(0)?;
    eventually("the origin to take purges again", || async { all_apply(&town.control_of(0)?).await }).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_is_complete_at_both_origins_only_when_an_edge_that_reaches_neither_has_lost_its_lease() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);
    for control in [&first, &second] {
        // Neither waits for leases from before its start any more.
        control.complete(control.head().await?).await?;
    }
    let edge = town.visit("iad-1")?;
    let held = edge.hit(API, "/page").await?.text();
    town.cut("iad-1")?;

    let sent: Receipt = first.send_purge(&unhurried("all")).await?.json()?;
    assert_eq!(sent.state, ReceiptState::Pending);
    for control in [&second, &first, &second] {
        let receipt = eventually("the purge to be complete", || async {
            let receipt: Receipt = control.receipt(sent.seq, Duration::ZERO).await?.json()?;
            // What was said before the question counts for the answer.
            let answer = edge.get(API, "/page").await?;
            if receipt.state == ReceiptState::Complete {
                assert!(answer.text() != held, "{}", answer.cache_status());
            }
            ensure!(receipt.state == ReceiptState::Complete, "{receipt:?}");
            Ok(receipt)
        })
        .await?;
        assert_eq!(edges(&receipt), [("fra-1", FollowerState::Applied), ("iad-1", FollowerState::Fenced)]);
    }

    town.mend_to("iad-1", 1)?;
    town.settled().await?;
    let filled = edge.hit(API, "/page").await?.text();
    assert_ne!(filled, held);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publish_that_was_begun_at_one_origin_is_sent_to_and_committed_at_the_other() -> Result<()> {
    let (server, store) = (redis().await?, S3::start().await?);
    let plan = Town::plan().origins(2).journal(&server).lease(LEASE).on_origins(&store.line(&store.endpoint()));
    let town = plan.edges(&["fra-1", "iad-1"]).only("fra-1", 0).only("iad-1", 1).start().await?;

    let mut published = Vec::new();
    for (round, (here, there)) in both_ways(&town)?.into_iter().enumerate() {
        let page = format!("page {round}");
        let draft = Draft::of([("index.html", page.clone().into_bytes()), ("large.bin", page.repeat(20_000).into_bytes())])?;
        let started = here.begin("www", &draft.manifest).await?;
        there.upload(&draft, &started.missing).await?;
        let committed: CommitAnswer = there.commit("www", &started.id).await?.with_status(200)?.json()?;
        // The other one need not have heard of the version yet.
        let moved: AliasAnswer = here.point("www", "production", committed.version, false).await?.with_status(200)?.json()?;
        there.receipt(moved.position.seq, PATIENCE).await?.with_status(200)?;
        for edge in town.visitors()? {
            assert_eq!(edge.get(SITE, "/").await?.with_status(200)?.text(), page);
            assert_eq!(edge.get(SITE, "/large.bin").await?.with_status(200)?.body.len(), 6 * 20_000);
        }
        published.push(committed.version);
    }

    let (first, second) = (town.control_of(0)?, town.control_of(1)?);
    assert_eq!(Some(&first.rollback("www").await?), published.first());
    for edge in town.visitors()? {
        assert_eq!(edge.get(SITE, "/").await?.text(), "page 0");
    }
    // Who has yet to hear of a move does not take what is asked for to be there already.
    let latest = published.last().copied().context("two were published")?;
    for _ in 0..5 {
        first.point("www", "production", latest, false).await?.with_status(200)?;
        let back: AliasAnswer = second.point("www", "production", published[0], false).await?.with_status(200)?.json()?;
        assert_eq!(back.previous, Some(latest));
    }
    town.stop().await;
    Ok(())
}

/// Waits until so many purges were repeated, and returns the seqs of all that were.
async fn all_repeated(control: &Control, wanted: usize) -> Result<Vec<u64>> {
    let first = |event: &Event| if let Fact::Purged { repeats, .. } = &event.fact { *repeats } else { None };
    eventually("all purges to be repeated", || async {
        let mut repeated: Vec<_> = purges(control).await?.iter().filter_map(first).collect();
        ensure!(repeated.len() >= wanted, "{repeated:?}");
        repeated.sort_unstable();
        Ok(repeated)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_is_to_be_done_once_more_is_done_once_more_by_one_of_two_origins() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let mut sent = Vec::new();
    for round in 0..5 {
        for (here, _) in both_ways(&town)? {
            let request = PurgeRequest { again_after_ms: Some(500 + 10 * round), ..unhurried("a") };
            sent.push(here.send_purge(&request).await?.json::<Receipt>()?.seq);
        }
    }
    let control = town.control_of(1)?;
    all_repeated(&control, sent.len()).await?;

    // Whoever would repeat them a second time would have done so before this one, which is due later.
    let marker = PurgeRequest { again_after_ms: Some(1), ..unhurried("marker") };
    for (here, _) in both_ways(&town)? {
        sent.push(here.send_purge(&marker).await?.json::<Receipt>()?.seq);
    }
    sent.sort_unstable();
    assert_eq!(all_repeated(&control, sent.len()).await?, sent);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_was_drained_at_one_origin_is_not_waited_for_at_the_other() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let town = of_two(&server, &upstream).start().await?;
    let (first, second) = (town.control_of(0)?, town.control_of(1)?);

    first.send("POST", "/v1/nodes/iad-1/drain", &[], "").await?.with_status(204)?;

    for control in [&second, &first] {
        eventually("the edge to be out of service", || async {
            let status = control.status().await?;
            ensure!(status.followers.iter().all(|follower| follower.name.as_str() != "iad-1"), "{status:?}");
            Ok(())
        })
        .await?;
        let receipt = control.purge(&purge("all")).await?;
        assert_eq!(edges(&receipt), [("fra-1", FollowerState::Applied)]);
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_that_are_all_restarted_go_on_where_they_were_and_edges_keep_what_they_hold() -> Result<()> {
    let (server, upstream) = (redis().await?, numbered().await?);
    let mut town = of_two(&server, &upstream).start().await?;
    let second = town.control_of(1)?;
    let (_, holder) = second.issue(&["purge:default"]).await?;
    second.apply(&town.text().replace("max_file = \"2 MiB\"", "max_file = \"3 MiB\"")).await?;
    let sent: Receipt = holder.send_purge_under("deploy-7", &purge("other")).await?.with_status(200)?.json()?;
    for edge in town.visitors()? {
        edge.hit(API, "/page").await?;
    }
    let (before, asked) = (second.journal().await?, upstream.count("/page"));

    town.stop_origin_at(0).await?;
    town.stop_origin_at(1).await?;
    town.start_origins(2).await?;
    town.settled().await?;

    for origin in [0, 1] {
        let control = town.control_of(origin)?;
        assert_eq!(control.journal().await?, before, "nothing was lost, and nobody needed another token");
        assert_eq!((control.status().await?.config, control.status().await?.position.epoch), (Some(2), sent.position.epoch));
        let again = control.with_token(holder.token()).send_purge_under("deploy-7", &unhurried("other")).await?;
        assert_eq!(again.json::<Receipt>()?.position, sent.position);
        assert_eq!(control.complete(sent.seq).await?.position, sent.position);
    }
    for edge in town.visitors()? {
        let answer = edge.get(API, "/page").await?;
        assert!(answer.is_hit(), "{}", answer.cache_status());
    }
    assert_eq!(upstream.count("/page"), asked);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn origins_that_start_at_the_same_moment_on_an_empty_redis_agree() -> Result<()> {
    for _ in 0..3 {
        let server = redis().await?;
        let town = Town::plan().origins(3).journal(&server).lease(LEASE).start().await?;
        let controls = (0..3).map(|origin| town.control_of(origin)).collect::<Result<Vec<_>>>()?;

        let journal = eventually("all to hold the same", || async {
            let mut journals = Vec::new();
            for control in &controls {
                journals.push((control.status().await?.position, control.journal().await?));
            }
            let (first, others) = journals.split_first().context("there are three")?;
            ensure!(others.iter().all(|journal| journal == first), "{journals:?}");
            Ok(first.1.clone())
        })
        .await?;

        let configurations = journal.iter().filter(|event| matches!(event.fact, Fact::ConfigChanged { .. })).count();
        assert_eq!(configurations, 1, "{journal:?}");
        assert!(!journal.iter().any(|event| matches!(event.fact, Fact::TokenRevoked { .. })), "{journal:?}");
        for (here, there) in controls.iter().flat_map(|here| controls.iter().map(move |there| (here, there))) {
            there.with_token(here.token()).get("/v1/tokens").await?.with_status(200)?;
        }
        town.stop().await;
    }
    Ok(())
}
