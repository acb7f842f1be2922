//! Readers who name a position of the journal (`Atoll-Min-Position`): this edge has applied at least that when it answers
//! from what is stored, else it asks the upstream for them.
//!
//! A position that a receipt has told is in force here a moment later, as a rule, so it is worth waiting for. [`decide`] is
//! the pure part; [`settle`] waits. Who is told of what was in force (`Atoll-Position`) has it from the same place.

use std::time::Duration;

use follow::boottime;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Semaphore;
use wire::Position;

use super::lookup::{Found, Why};
use crate::edge::Edge;
use crate::refuse::Refusal;

/// What a reader names.
pub(crate) const MIN_POSITION: HeaderName = HeaderName::from_static("atoll-min-position");

/// What a reader is told.
const POSITION: HeaderName = HeaderName::from_static("atoll-position");

/// How long a reader waits for what it names. An event takes milliseconds to an edge that follows; after a second it is
/// more likely that this one does not, and the upstream's answer is the faster one.
const PATIENCE: Duration = Duration::from_secs(1);

/// Readers who wait at a time. Anybody can make up a position, and each who waits holds a connection.
const WAITING_MOST: usize = 1024;

/// Where readers wait. Who finds no room in it is answered by the upstream at once.
#[derive(Debug)]
pub(crate) struct WaitingRoom(Semaphore);

impl Default for WaitingRoom {
    fn default() -> Self {
        Self(Semaphore::new(WAITING_MOST))
    }
}

/// What a reader stands on, of a route that lets it name a position.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Footing {
    /// What was in force before anything was looked up.
    in_force: Option<Position>,
    /// The reader has seen more of the journal than is in force here: what is stored may have been purged by then.
    pub(crate) is_behind: bool,
}

impl Footing {
    /// Tells the reader what was in force: never more than what its answer was made of.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let position = self.in_force.and_then(|position| HeaderValue::try_from(position.to_string()).ok());
        match position {
            Some(position) => headers.insert(POSITION, position),
            // What an upstream says of positions is none of this journal's; it has been taken off long since.
            None => headers.remove(POSITION),
        };
    }
}

/// What is done for a reader who names a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// As much is in force here: what is stored may answer.
    Answer,
    /// It may be in force in a moment.
    Wait,
    /// Only the upstream is sure to know as much.
    Ask,
    /// The journal has no such position.
    Refuse,
}

/// Decides what is done for a reader who names `wanted`. `may_wait`: there is time left, and reason to hope;
/// `is_beyond`: the origin has said since the reader came that the journal ends before it.
fn decide(wanted: &Position, in_force: Option<&Position>, may_wait: bool, is_beyond: bool) -> Step {
    // Of another life of the journal than this edge follows nobody can say here what is in it.
    let Some(here) = in_force.filter(|here| here.epoch == wanted.epoch) else { return Step::Ask };
    match (wanted.seq < here.seq || wanted == here, wanted.seq == here.seq) {
        (true, _) => Step::Answer,
        // The same seq with another chain is of another history, too.
        (false, true) => Step::Ask,
        (false, false) if may_wait => Step::Wait,
        (false, false) if is_beyond => Step::Refuse,
        (false, false) => Step::Ask,
    }
}

/// Finds out what a reader stands on, and waits for what it names where that is worth it. What is looked up has to be
/// read after this: what is in force moves on.
pub(crate) async fn settle(edge: &Edge, headers: &HeaderMap) -> Result<Footing, Refusal> {
    let mut in_force = edge.lease.in_force();
    let Some(wanted) = named(headers)? else { return Ok(Footing { in_force, is_behind: false }) };
    let came = boottime();
    // A fenced edge has not heard of the journal for as long as a lease: there is little hope that it does now.
    let may_wait = edge.lease.standing().holds();
    if decide(&wanted, in_force.as_ref(), may_wait, false) == Step::Wait
        && let Ok(_seat) = edge.waiting_room.0.try_acquire()
    {
        let mut moved = edge.lease.watch_in_force();
        let caught_up = moved.wait_for(|here| decide(&wanted, here.as_ref(), true, false) != Step::Wait);
        // Whether it did or the time is up is decided anew.
        let _ = tokio::time::timeout(PATIENCE, caught_up).await;
        in_force = edge.lease.in_force();
    }
    match decide(&wanted, in_force.as_ref(), false, edge.lease.is_beyond(&wanted, came)) {
        Step::Answer => Ok(Footing { in_force, is_behind: false }),
        Step::Wait | Step::Ask => Ok(Footing { in_force, is_behind: true }),
        Step::Refuse => Err(Refusal::BeyondJournal),
    }
}

/// Reads the position that a reader names.
fn named(headers: &HeaderMap) -> Result<Option<Position>, Refusal> {
    let mut lines = headers.get_all(&MIN_POSITION).iter();
    let (Some(line), another) = (lines.next(), lines.next()) else { return Ok(None) };
    let position = line.to_str().ok().and_then(|text| text.parse().ok());
    position.filter(|_| another.is_none()).map(Some).ok_or(Refusal::BadPosition)
}

/// Returns what is left of what was found, for a reader who has seen more of the journal than is in force here. What is
/// stored may have been purged by then, so it is used as on a fenced edge (P4): asked about with a strong validator, or
/// not at all.
pub(super) fn in_doubt(found: Found) -> Found {
    match found {
        Found::Fresh(entry) | Found::Stale(entry) | Found::StaleWhileRevalidate(entry, _) | Found::Revalidate(entry, _) => {
            if entry.head.has_strong_etag() { Found::Revalidate(entry, Why::Behind) } else { Found::Nothing(Why::Behind) }
        }
        Found::Nothing(why) => Found::Nothing(why),
        Found::Refuse => Found::Refuse,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Chain, Epoch};

    fn position(epoch: u8, seq: u64, chain: &str) -> Position {
        Position { epoch: Epoch::from_bytes([epoch; 8]), seq, chain: Chain::START.then(chain.as_bytes()) }
    }

    #[test]
    fn a_reader_is_answered_from_what_is_stored_only_where_as_much_is_in_force_as_it_names() {
        let here = position(1, 7, "seven");
        let rows = [
            // What is named, and what is done at first, when the time is up, and when the origin knows no such position.
            (position(1, 0, "nothing"), [Step::Answer; 3]),
            (position(1, 6, "six"), [Step::Answer; 3]),
            (position(1, 7, "seven"), [Step::Answer; 3]),
            (position(1, 7, "another seven"), [Step::Ask; 3]),
            (position(1, 8, "eight"), [Step::Wait, Step::Ask, Step::Refuse]),
            (position(1, u64::MAX, "made up"), [Step::Wait, Step::Ask, Step::Refuse]),
            (position(2, 7, "seven"), [Step::Ask; 3]),
            (position(2, 0, "nothing"), [Step::Ask; 3]),
            (position(2, 8, "eight"), [Step::Ask; 3]),
        ];
        for (wanted, steps) in rows {
            let done = [(true, false), (false, false), (false, true)];
            let done = done.map(|(may_wait, is_beyond)| decide(&wanted, Some(&here), may_wait, is_beyond));
            assert_eq!(done, steps, "{wanted}");
            assert_eq!(decide(&wanted, None, true, true), Step::Ask, "nothing is in force");
        }
    }

    #[test]
    fn a_reader_names_one_position_or_none() {
        let wanted = position(1, 7, "seven");
        let read = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(MIN_POSITION, HeaderValue::from_bytes(value.as_bytes()).unwrap());
            }
            named(&headers)
        };
        let text = wanted.to_string();
        let (text, list) = (text.as_str(), format!("{text}, {text}"));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&[text]), Ok(Some(wanted)));
        for wrong in [&["7"][..], &[""], &["ü"], &[text, text], &[list.as_str()]] {
            assert_eq!(read(wrong), Err(Refusal::BadPosition), "{wrong:?}");
        }
    }

    #[test]
    fn a_reader_is_told_what_was_in_force_and_nothing_of_what_an_upstream_says() {
        let mut headers = HeaderMap::new();
        let told = position(1, 7, "seven");
        Footing { in_force: Some(told), is_behind: true }.tell(&mut headers);
        assert_eq!(headers.get(POSITION).unwrap(), &told.to_string());
        Footing::default().tell(&mut headers);
        assert!(headers.is_empty());
    }
}
