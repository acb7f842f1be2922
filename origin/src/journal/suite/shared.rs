//! What several origins and one Redis go through together.

use std::time::Instant;

use super::*;

/// How long anything may take to come about.
const PATIENCE: Duration = Duration::from_secs(20);

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_same(one: &Journal, two: &Journal) {
    eventually("both origins show the same", async || one.head() == two.head()).await;
    assert_eq!(text(&one.state()), text(&two.state()));
}

/// Appends until it is accepted; an origin that has to find out where it stands may refuse for a while.
async fn append(journal: &Journal, tag: &str) -> Position {
    let begun = Instant::now();
    loop {
        match journal.append(purge(tag)).await {
            Ok(position) => return position,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_origins_that_are_founded_at_once_agree_and_both_show_all_that_either_appends_in_one_order() {
    let server = Server::start();
    let (one, two) = tokio::join!(server.origin(), server.origin());
    assert_eq!(one.head().epoch, two.head().epoch);
    let append = async |journal: &Journal, name: &str| {
        let appends = (0..500).map(|n| journal.append(purge(&format!("{name}-{n}"))));
        futures_util::future::join_all(appends).await.into_iter().map(|position| position.unwrap().seq).collect::<Vec<_>>()
    };
    let (of_one, of_two) = tokio::join!(append(&one, "one"), append(&two, "two"));
    let mut seqs = [of_one, of_two].concat();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=1000).collect::<Vec<_>>());
    until_same(&one, &two).await;
    let (events, others) = (all_behind(&one, 0).await, all_behind(&two, 0).await);
    assert!(events == others && events.len() == 1000);
    assert!((0..500).all(|n| events.iter().any(|event| event.contains(&format!("\"two-{n}\"")))));
    let third = server.origin().await;
    assert_eq!(text(&third.state()), text(&one.state()));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_origins_that_move_one_stream_one_wins_and_the_other_hears_of_it_before_it_is_told() {
    let server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    for round in 0..50 {
        let seq = one.state().control.as_ref().unwrap().head_of("tokens");
        let (first, second) = tokio::join!(one.append(token("a", seq)), two.append(token("b", seq)));
        assert!(first.is_ok() != second.is_ok(), "round {round}: {first:?} {second:?}");
        let loser = if first.is_ok() { &two } else { &one };
        assert!(loser.state().control.as_ref().unwrap().head_of("tokens") > seq, "who decides again decides on what won");
        until_same(&one, &two).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_origin_appended_another_shows_once_it_has_caught_up() {
    let server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    for _ in 0..20 {
        let position = one.append(purge("a")).await.unwrap();
        two.catch_up().await.unwrap();
        assert!(two.head().seq >= position.seq);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_epoch_of_one_origin_is_the_other_ones_too() {
    let server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    let position = append(&one, "a").await;
    one.begin_epoch(position.epoch).await.unwrap();
    until_same(&one, &two).await;
    assert_ne!(two.head().epoch, position.epoch);
    two.begin_epoch(position.epoch).await.unwrap();
    assert_eq!(one.head().epoch, two.head().epoch);
    assert_eq!(append(&two, "b").await.seq, 2);
    until_same(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_killed_and_started_again_has_lost_nothing_and_its_origins_distrust_it() {
    let mut server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    let (mut runs, run) = (one.watch_runs(), one.run());
    runs.borrow_and_update();
    let position = append(&one, "a").await;
    server.kill();
    let refused = tokio::time::timeout(Duration::from_millis(300), one.append(purge("lost"))).await;
    assert!(refused.is_err(), "it waits for Redis to come back");
    server.start_again();
    let next = append(&two, "b").await;
    assert!(next.epoch == position.epoch && next.seq > position.seq);
    until_same(&one, &two).await;
    assert!(runs.has_changed().unwrap());
    assert_ne!(one.run(), run);
    assert_eq!(one.fit(&position).await.unwrap(), Fit::Here);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_redis_lost_is_put_back_by_an_origin_that_has_it() {
    let mut server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    append(&one, "a").await;
    let copy = server.copy();
    for n in 0..600 {
        append(&one, &format!("b{n}")).await;
    }
    until_same(&one, &two).await;
    let (head, events) = (one.head(), all_behind(&one, 0).await);
    server.kill();
    server.put_back(&copy);
    server.start_again();
    eventually("all is back", async || server.call::<u64>(&["XLEN", "{test}:atoll-journal:1:events"]).await == 601).await;
    let next = append(&two, "c").await;
    assert_eq!((next.epoch, next.seq), (head.epoch, head.seq + 1));
    until_same(&one, &two).await;
    let third = server.origin().await;
    assert_eq!(all_behind(&third, 0).await[..601], events[..]);
    assert_eq!(third.fit(&head).await.unwrap(), Fit::Here);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_has_what_a_redis_lost_and_others_went_on_a_new_epoch_begins() {
    let mut server = Server::start();
    let one = server.origin().await;
    let common = append(&one, "a").await;
    let copy = server.copy();
    let lost = append(&one, "lost").await;
    server.kill();
    // The server is another one by its port, so that the first origin is away while the second goes on.
    let mut other = Server::start();
    other.kill();
    other.put_back(&copy);
    other.start_again();
    let two = other.origin().await;
    assert_eq!(append(&two, "other").await.seq, lost.seq);
    two.close().await;
    server.put_back(&other.copy());
    server.start_again();
    eventually("the first origin begins a new epoch", async || one.head().epoch != common.epoch).await;
    let third = server.origin().await;
    until_same(&one, &third).await;
    assert_eq!(one.fit(&lost).await.unwrap(), Fit::OtherEpoch);
    assert_eq!(one.head().seq, lost.seq, "it goes on with what Redis holds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_was_emptied_gets_the_state_back_in_a_new_epoch() {
    let server = Server::start();
    let (one, two) = (server.origin().await, server.origin().await);
    let position = one.append(token("a", 0)).await.unwrap();
    until_same(&one, &two).await;
    server.call::<()>(&["FLUSHALL"]).await;
    eventually("a new epoch", async || one.head().epoch != position.epoch && one.head() == two.head()).await;
    assert_eq!(one.state().control.as_ref().unwrap().head_of("tokens"), 1);
    assert_eq!(append(&two, "b").await.seq, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_answer_was_lost_is_there_once() {
    let server = Server::start();
    let journal = server.origin().await;
    append(&journal, "a").await;
    // Longer than a call may take: the answer comes when nobody listens to it any more.
    let sleeping = async { server.call::<()>(&["DEBUG", "SLEEP", "3"]).await };
    let ((), appended) = tokio::join!(sleeping, async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        append(&journal, "b").await
    });
    assert_eq!(appended.seq, 2);
    assert_eq!(append(&journal, "c").await.seq, 3);
    let events = all_behind(&journal, 0).await;
    assert_eq!(events.iter().filter(|event| event.contains("\"b\"")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_shown_before_replicas_have_it() {
    let (master, mut replica) = (Server::start(), Server::start());
    replica.follow(&master).await;
    let (one, two) = (master.origin_with_replicas(1).await, master.origin_with_replicas(1).await);
    let first = append(&one, "a").await;
    until_same(&one, &two).await;
    replica.kill();
    let refused = one.append(purge("b")).await;
    assert!(matches!(refused, Err(AppendError::Unreplicated)), "{refused:?}");
    assert_eq!((one.head(), two.head()), (first, first));
    assert!(one.append(purge("c")).await.is_err(), "nothing more is written");
    replica.start_again();
    replica.follow(&master).await;
    eventually("what was written is shown", async || one.head().seq == 2 && two.head().seq == 2).await;
    assert_eq!(append(&two, "d").await.seq, 3);
    until_same(&one, &two).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_journal_is_not_opened_and_the_way_out_is_named() {
    let server = Server::start();
    let journal = server.origin().await;
    append(&journal, "a").await;
    append(&journal, "b").await;
    journal.close().await;
    server.call::<()>(&["XDEL", "{test}:atoll-journal:1:events", "1-0"]).await;
    let opened = Journal::open_shared(server.journal_redis(), "test", 0, false).await;
    let said = opened.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(said.contains("damaged") && said.contains("import"), "{said}");
}
