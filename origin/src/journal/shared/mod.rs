//! The engine that any number of origins share: a journal in a Redis, where a script appends if nobody else did meanwhile.
//!
//! An origin decides on its own fold, says which head it decided on, and gets either its place or what it had not seen yet.
//! One task per origin writes and folds. What it does not know for sure (a call without an answer, a server that was started
//! anew) it finds out before it does anything else. ARGV and replies of all scripts are text.

mod said;
mod shelf;
mod judge;
mod load;
mod open;
mod asks;
mod writer;
mod recover;
mod tail;
mod snapshots;

use std::sync::Arc;

use tokio::sync::mpsc;
use wire::State;

pub(super) use open::{Opened, open};
pub(super) use shelf::Shelf;

pub use judge::{Known, Step, Told, judge};
pub use said::Word;

use super::Job;
use super::shown::Shown;
use crate::clock::boottime;

/// Pages of news that wait for the writer; the tail waits for room.
const NEWS: usize = 16;

/// Starts the writer, and the task that hears of other origins' events; both end with the jobs.
pub(super) fn start(shelf: Arc<Shelf>, opened: Opened, jobs: mpsc::Receiver<Job>) -> Arc<Shown> {
    let shown = Arc::new(Shown::new(opened.state, opened.run.clone()));
    shown.confirm(boottime());
    let (tell, news) = mpsc::channel(NEWS);
    tokio::spawn(tail::run(Arc::clone(&shelf), Arc::clone(&shown), tell));
    let writer = writer::Writer::new(shelf, Arc::clone(&shown), &opened.known);
    tokio::spawn(writer.run(jobs, news));
    shown
}

/// Reads the snapshot that is stored.
pub(super) async fn stored_snapshot(shelf: &Shelf) -> Result<State, String> {
    let said = shelf.load().await.map_err(|trouble| trouble.to_string())?;
    match said.word {
        Word::Here => load::decode(said.state).await,
        _ => Err("there is no journal".to_owned()),
    }
}
