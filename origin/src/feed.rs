//! The feed: one endless answer per follower, a line per batch of events as they are appended and a
//! line each heartbeat. Who reads too slowly is cut off and comes back with its position.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::mpsc;
use wire::{Chain, Digest, Epoch, LiveEdge, Position, Question, Role};

use crate::auth;
use crate::clock::boottime;
use crate::core::Core;
use crate::journal::StoredEvent;

/// Lines that wait for a slow reader.
const QUEUE: usize = 16;

/// Events in one line, and bytes of them: a line always has one event at least.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 1 << 20;

/// Like [`wire::FeedLine`], with the events as the journal holds them.
#[derive(Serialize)]
struct Line<'a> {
    epoch: Epoch,
    from: u64,
    to: u64,
    chain: Chain,
    head: u64,
    events: Vec<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Vec<LiveEdge>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    questions: Vec<Arc<Question>>,
}

/// Starts the feed behind `after` and returns its lines. It ends when the reader leaves, when it is
/// too slow, when the epoch changes, when its token (`token` is its hash) is revoked, and when the origin stops.
pub(crate) fn start(core: Arc<Core>, after: Position, role: Role, token: Digest) -> mpsc::Receiver<Bytes> {
    let (lines, out) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        core.metrics.feeds.inc();
        Feed { at: after, role, token, live_version: None, asked: 0, lines, core: &core }.run().await;
        core.metrics.feeds.dec();
    });
    out
}

struct Feed<'a> {
    at: Position,
    role: Role,
    token: Digest,
    /// The version of the live set that was sent last.
    live_version: Option<u64>,
    /// The last question that was sent.
    asked: u64,
    lines: mpsc::Sender<Bytes>,
    core: &'a Core,
}

/// Why a feed ended.
enum End {
    ReaderLeft,
    TooSlow,
    Elsewhere,
    Revoked,
}

impl Feed<'_> {
    async fn run(mut self) {
        let ended = self.follow().await;
        match ended {
            Err(End::TooSlow) => {
                self.core.metrics.feeds_cut.inc();
                tracing::info!(at = %self.at, "a feed was cut off: its reader is too slow");
            }
            Err(End::Revoked) => tracing::info!(at = %self.at, "a feed was cut off: its token was revoked"),
            Err(End::ReaderLeft | End::Elsewhere) | Ok(()) => {}
        }
    }

    async fn follow(&mut self) -> Result<(), End> {
        let mut heads = self.core.journal.watch_head();
        let mut book = self.core.watch_book();
        let mut questions = self.core.questions.watch();
        loop {
            // At least one line at once, so that the follower knows where it stands.
            while !self.send_next().await? {}
            let heartbeat = tokio::time::sleep(self.core.network().heartbeat);
            tokio::pin!(heartbeat);
            loop {
                tokio::select! {
                    changed = heads.changed() => { changed.map_err(|_| End::Elsewhere)?; break }
                    // An ack that changes nothing for the DNS is no reason for a line.
                    _ = book.changed(), if self.role == Role::Dns => if self.live_version != Some(self.core.book().live_version()) { break },
                    // A question does not wait for the heartbeat: its asker does for the answer.
                    _ = questions.changed(), if self.role == Role::Edge => if *questions.borrow() > self.asked { break },
                    // What stands here is evaluated even where it is disabled: an async block waits to be polled.
                    () = async { tokio::time::sleep(self.until_live_change()).await }, if self.role == Role::Dns => break,
                    () = &mut heartbeat => break,
                    () = self.lines.closed() => return Err(End::ReaderLeft),
                    () = self.core.stop.cancelled() => return Err(End::Elsewhere),
                }
            }
        }
    }

    /// A lease that ends takes its edge out of the DNS without any message.
    fn until_live_change(&self) -> Duration {
        let now = boottime();
        let end = self.core.book().next_end(now);
        end.map_or(self.core.network().heartbeat, |end| end.saturating_sub(now) + Duration::from_millis(1))
    }

    /// Sends the next batch; tells whether the feed has caught up.
    async fn send_next(&mut self) -> Result<bool, End> {
        let head = self.core.journal.head();
        // An origin that is cut off says nothing more: its followers find another one.
        if head.epoch != self.at.epoch || self.core.must_be_current().is_err() {
            return Err(End::Elsewhere);
        }
        if !auth::is_in_force(self.core, &self.token) {
            return Err(End::Revoked);
        }
        let mut events = self.core.journal.read_after(self.at.seq, BATCH).await.map_err(|_| End::Elsewhere)?;
        let mut room = BATCH_BYTES;
        let fitting = events.iter().position(|event| {
            let full = room == 0;
            room = room.saturating_sub(event.json.len());
            full
        });
        events.truncate(fitting.unwrap_or(usize::MAX));
        if events.first().is_some_and(|first| first.seq != self.at.seq + 1) {
            return Err(End::Elsewhere);
        }
        let to = events.last().map_or(self.at, |last| Position { seq: last.seq, chain: last.chain, ..self.at });
        let line = self.line(&events, to, head.seq.max(to.seq));
        // Two leases without room for a line: the reader is gone or lost.
        let patience = self.core.network().lease * 2;
        match tokio::time::timeout(patience, self.lines.send(line)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(End::ReaderLeft),
            Err(_) => return Err(End::TooSlow),
        }
        self.at = to;
        Ok(to.seq >= head.seq)
    }

    fn line(&mut self, events: &[Arc<StoredEvent>], to: Position, head: u64) -> Bytes {
        let mine = events.iter().filter(|event| event.class.is_for(self.role));
        let live = (self.role == Role::Dns).then(|| {
            let book = self.core.book();
            self.live_version = Some(book.live_version());
            book.live(boottime())
        });
        // Who has yet to catch up is asked when it has: the answer is about what is in force there.
        let is_asked = self.role == Role::Edge && to.seq == head;
        let questions = if is_asked { self.core.questions.behind(self.asked) } else { Vec::new() };
        self.asked = questions.last().map_or(self.asked, |last| last.id);
        let line = Line {
            epoch: to.epoch,
            from: self.at.seq,
            to: to.seq,
            chain: to.chain,
            head,
            // What stands in the journal is JSON.
            events: mine.filter_map(|event| serde_json::from_str(&event.json).ok()).collect(),
            live,
            questions,
        };
        let mut text = serde_json::to_vec(&line).unwrap_or_default();
        text.push(b'\n');
        text.into()
    }
}
