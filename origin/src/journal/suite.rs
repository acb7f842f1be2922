//! The suite that both engines of the journal pass, and what only a Redis can do to its origins.

mod server;
mod shared;

use std::path::Path;
use std::sync::Arc;

use wire::{Mode, Owner, Scope, State};

use super::transfer::TransferError;
use super::*;
use server::Server;

/// Where a journal lies that a test opens again and again: in a folder, or in a Redis of its own.
enum Place {
    Folder(tempfile::TempDir),
    Redis(Server),
}

impl Place {
    fn both() -> [Self; 2] {
        [Self::Folder(tempfile::tempdir().unwrap()), Self::Redis(Server::start())]
    }

    async fn open(&self) -> Journal {
        match self {
            Self::Folder(folder) => reopen(folder.path()).await,
            Self::Redis(server) => server.origin().await,
        }
    }
}

/// The writer thread of the journal before lets go of the file a moment after it was told to.
async fn reopen(folder: &Path) -> Journal {
    loop {
        match Journal::open(folder, false) {
            Err(OpenError::Busy { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}

fn purge(tag: &str) -> Append {
    let fact = Fact::purged(Owner::default(), Mode::Hard, vec![Scope::Tag(tag.parse().unwrap())]);
    Append { actor: "test".to_owned(), facts: vec![fact], if_unchanged: vec![] }
}

fn token(id: &str, tokens: u64) -> Append {
    let fact = Fact::TokenRevoked { id: id.to_owned() };
    Append { actor: "test".to_owned(), facts: vec![fact], if_unchanged: vec![("tokens".to_owned(), tokens)] }
}

fn text(state: &State) -> String {
    serde_json::to_string(state).unwrap()
}

/// Returns the actor and fact of all events behind `seq`, in order.
async fn all_behind(journal: &Journal, mut seq: u64) -> Vec<String> {
    let mut found = Vec::new();
    loop {
        let page: Vec<Arc<StoredEvent>> = journal.read_after(seq, 100).await.unwrap();
        let Some(last) = page.last() else { return found };
        assert_eq!(page[0].seq, seq + 1, "without gaps");
        seq = last.seq;
        found.extend(page.iter().map(|event| event.json.to_string()));
    }
}

#[tokio::test]
async fn what_was_appended_is_there_after_reopening() {
    for place in Place::both() {
        let journal = place.open().await;
        for n in 0..50 {
            journal.append(purge(&format!("t{n}"))).await.unwrap();
        }
        let (head, state) = (journal.head(), text(&journal.state()));
        journal.close().await;
        let journal = place.open().await;
        assert_eq!((journal.head(), text(&journal.state())), (head, state));
        assert_eq!(all_behind(&journal, 0).await.len(), 50);
        assert_eq!(journal.fit(&head).await.unwrap(), Fit::Here);
    }
}

#[tokio::test]
async fn of_two_appends_on_one_stream_only_one_wins_even_in_one_batch() {
    for place in Place::both() {
        let journal = place.open().await;
        let (one, two) = tokio::join!(journal.append(token("a", 0)), journal.append(token("b", 0)));
        assert!(one.is_ok() != two.is_ok());
        assert!(matches!(journal.append(token("c", 0)).await, Err(AppendError::Conflict { .. })));
        journal.append(token("c", 1)).await.unwrap();
        assert_eq!(journal.head().seq, 2);
    }
}

#[tokio::test]
async fn a_position_of_another_history_does_not_fit() {
    for place in Place::both() {
        let journal = place.open().await;
        let first = journal.append(purge("a")).await.unwrap();
        journal.append(purge("b")).await.unwrap();
        let fit = async |position: Position| journal.fit(&position).await.unwrap();
        assert_eq!(fit(first).await, Fit::Here);
        assert_eq!(fit(Position { chain: Chain::START, ..first }).await, Fit::Lost);
        assert_eq!(fit(Position { seq: 9, ..first }).await, Fit::Lost);
        journal.begin_epoch(first.epoch).await.unwrap();
        assert_eq!(fit(first).await, Fit::OtherEpoch);
        assert_eq!(journal.state().purges.newest(), 0, "followers drop all they hold, so nothing is left to purge");
        assert_eq!(journal.append(purge("c")).await.unwrap().seq, 3);
        let head = journal.head();
        journal.begin_epoch(first.epoch).await.unwrap();
        assert_eq!(journal.head(), head, "a life that is over is not ended again");
    }
}

#[tokio::test]
async fn positions_that_are_in_no_memory_any_more_are_judged_all_the_same() {
    for place in Place::both() {
        let journal = place.open().await;
        let start = journal.head();
        let first = journal.append(purge("a")).await.unwrap();
        journal.append(purge("b")).await.unwrap();
        journal.close().await;
        let journal = place.open().await;
        let fit = async |position: Position| journal.fit(&position).await.unwrap();
        assert_eq!((fit(start).await, fit(first).await), (Fit::Here, Fit::Here));
        assert_eq!(fit(Position { chain: Chain::START, ..first }).await, Fit::Lost);
    }
}

#[tokio::test]
async fn a_long_journal_is_cut_behind_its_snapshot() {
    for place in Place::both() {
        let journal = place.open().await;
        let start = journal.head();
        let first = journal.append(purge("a")).await.unwrap();
        let facts: Vec<_> = purge("b").facts.into_iter().cycle().take(1000).collect();
        for _ in 0..(2 * SNAPSHOT_EVERY + KEPT) / 1000 {
            journal.append(Append { actor: "test".to_owned(), facts: facts.clone(), if_unchanged: vec![] }).await.unwrap();
        }
        // A shared snapshot is written beside the appends.
        let mut last = journal.append(purge("c")).await.unwrap();
        while journal.fit(&first).await.unwrap() != Fit::Cut {
            tokio::time::sleep(Duration::from_millis(20)).await;
            last = journal.append(purge("c")).await.unwrap();
        }
        assert_eq!((journal.fit(&start).await.unwrap(), journal.fit(&last).await.unwrap()), (Fit::Cut, Fit::Here));
        let head = journal.head();
        journal.close().await;
        assert_eq!(place.open().await.state().position, head);
    }
}

#[tokio::test]
async fn an_export_is_imported_into_either_engine_as_another_life_with_the_same_state() {
    for from in Place::both() {
        let journal = from.open().await;
        for n in 0..30 {
            journal.append(purge(&format!("t{n}"))).await.unwrap();
        }
        journal.append(token("a", 0)).await.unwrap();
        let mut file = Vec::new();
        let head = export(&journal, Vec::new(), &mut file, |_, _| {}).await.unwrap();
        assert_eq!(head, journal.head());
        for into in Place::both() {
            let copy = into.open().await;
            let imported = import(&copy, &mut file.as_slice(), |_, _| {}).await.unwrap();
            assert_eq!((imported.from, imported.to, imported.events), (head, copy.head(), 31));
            assert!(imported.to.epoch != head.epoch && imported.to.seq == head.seq && imported.to.chain == head.chain);
            let (ours, theirs) = (journal.state().clone(), copy.state().clone());
            assert_eq!((theirs.control, theirs.sites), (ours.control, ours.sites));
            assert_eq!(copy.append(token("b", 31)).await.unwrap().seq, 32);
            let again = import(&copy, &mut file.as_slice(), |_, _| {}).await;
            assert!(matches!(again, Err(TransferError::Journal(AppendError::NotEmpty))));
            let state = text(&copy.state());
            copy.close().await;
            assert_eq!(text(&into.open().await.state()), state);
        }
    }
}

#[tokio::test]
async fn an_export_that_was_cut_or_changed_is_refused_and_changes_nothing() {
    for place in Place::both() {
        let journal = Place::Folder(tempfile::tempdir().unwrap()).open().await;
        for n in 0..5 {
            journal.append(purge(&format!("t{n}"))).await.unwrap();
        }
        let mut file = Vec::new();
        export(&journal, Vec::new(), &mut file, |_, _| {}).await.unwrap();
        let text = String::from_utf8(file).unwrap();
        let lines: Vec<_> = text.split_inclusive('\n').collect();
        let without = |skipped: usize| lines.iter().enumerate().filter(|(at, _)| *at != skipped).map(|(_, line)| *line).collect::<String>();
        let copy = place.open().await;
        let head = copy.head();
        let mut damaged: Vec<String> = (0..lines.len()).map(without).collect();
        damaged.extend([String::new(), text[..text.len() - 1].to_owned(), text.replace("\"t3\"", "\"t9\"")]);
        for damaged in damaged {
            assert!(import(&copy, &mut damaged.as_bytes(), |_, _| {}).await.is_err(), "{damaged}");
            assert_eq!(copy.head(), head);
        }
        import(&copy, &mut text.as_bytes(), |_, _| {}).await.unwrap();
    }
}
