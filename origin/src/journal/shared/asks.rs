//! The appends that an origin was asked for: those that are not written yet, and those that are, until they may be shown.
//! Time comes as an argument.

use std::collections::VecDeque;

use tokio::time::Instant;
use wire::Position;

use super::super::{Append, AppendError, Reply};

/// Appends in one batch, and appends that wait for one: all others wait in the queue.
const MOST: usize = 1024;

/// What was asked and what is owed.
#[derive(Debug, Default)]
pub(super) struct Asks {
    waiting: VecDeque<Ask>,
    owed: VecDeque<Owed>,
}

#[derive(Debug)]
struct Ask {
    append: Append,
    /// `None` once who asked was told that nobody knows what becomes of it.
    reply: Option<Reply<Position>>,
    until: Instant,
}

/// An answer that is given when all it rests on is shown.
#[derive(Debug)]
struct Owed {
    seq: u64,
    verdict: Result<Position, AppendError>,
    reply: Reply<Position>,
    until: Instant,
}

impl Asks {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MOST
    }

    pub(super) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.owed.is_empty()
    }

    pub(super) fn push(&mut self, append: Append, reply: Reply<Position>, until: Instant) {
        self.waiting.push_back(Ask { append, reply: Some(reply), until });
    }

    /// Returns what is to be decided, the oldest first. Nothing of it may be under way.
    pub(super) fn appends(&mut self) -> impl Iterator<Item = &Append> {
        // Who was told that it may have been appended does not count on another try.
        self.waiting.retain(|ask| ask.reply.is_some());
        self.waiting.iter().map(|ask| &ask.append)
    }

    /// The first of what waits is decided and written; the answers are given when all up to `seq` is shown.
    pub(super) fn settle(&mut self, verdicts: Vec<Result<Position, AppendError>>, seq: u64) {
        for verdict in verdicts {
            let Some(Ask { reply, until, .. }) = self.waiting.pop_front() else { return };
            self.owed.extend(reply.map(|reply| Owed { seq, verdict, reply, until }));
        }
    }

    /// Answers all that rests on what is shown.
    pub(super) fn pay(&mut self, shown: u64) {
        while self.owed.front().is_some_and(|owed| owed.seq <= shown)
            && let Some(owed) = self.owed.pop_front()
        {
            let _ = owed.reply.send(owed.verdict);
        }
    }

    /// Tells those whose time is over what is known; of the first `in_flight` nobody knows whether they were appended.
    pub(super) fn expire(&mut self, now: Instant, in_flight: usize, why: &str) {
        let mut number = 0;
        self.waiting.retain_mut(|ask| {
            number += 1;
            let (is_over, may_be_there) = (now >= ask.until, number <= in_flight);
            if is_over && let Some(reply) = ask.reply.take() {
                let error = if may_be_there { AppendError::Unknown(why.to_owned()) } else { AppendError::Away(why.to_owned()) };
                let _ = reply.send(Err(error));
            }
            // What is under way is counted by its place.
            !is_over || may_be_there
        });
        let (over, owed): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut self.owed).into_iter().partition(|owed| now >= owed.until);
        self.owed = owed;
        for owed in over {
            let _ = owed.reply.send(owed.verdict.and(Err(AppendError::Unreplicated)));
        }
    }

    /// Nothing of a batch was done, and the engine says why.
    pub(super) fn refuse(&mut self, count: usize, why: impl Fn() -> AppendError) {
        for ask in self.waiting.drain(..count.min(self.waiting.len())) {
            let _ = ask.reply.map(|reply| reply.send(Err(why())));
        }
    }

    /// Another life of the journal begins: whether what is owed or under way is part of it, nobody can tell.
    pub(super) fn give_up(&mut self, in_flight: usize) {
        let why = || AppendError::Unknown("another life of the journal began, or this origin stops".to_owned());
        for ask in self.waiting.drain(..in_flight.min(self.waiting.len())) {
            let _ = ask.reply.map(|reply| reply.send(Err(why())));
        }
        for owed in self.owed.drain(..) {
            let _ = owed.reply.send(owed.verdict.and_then(|_| Err(why())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::sync::oneshot;
    use wire::Epoch;

    type Answer = oneshot::Receiver<Result<Position, AppendError>>;

    fn ask(asks: &mut Asks, until: Instant) -> Answer {
        let (reply, answer) = oneshot::channel();
        asks.push(Append { actor: "test".to_owned(), facts: vec![], if_unchanged: vec![] }, reply, until);
        answer
    }

    fn at(seq: u64) -> Result<Position, AppendError> {
        Ok(Position { seq, ..Position::start(Epoch::from_bytes([1; 8])) })
    }

    #[test]
    fn an_answer_is_given_when_what_it_rests_on_is_shown() {
        let (mut asks, later) = (Asks::default(), Instant::now() + Duration::from_secs(9));
        let mut answers = [ask(&mut asks, later), ask(&mut asks, later)];
        asks.settle(vec![at(1), Err(AppendError::Conflict { stream: "tokens".to_owned() })], 2);
        asks.pay(1);
        assert!(answers.iter_mut().all(|answer| answer.try_recv().is_err()));
        asks.pay(2);
        assert_eq!(answers[0].try_recv().unwrap().unwrap().seq, 1);
        assert!(matches!(answers[1].try_recv().unwrap(), Err(AppendError::Conflict { .. })));
    }

    #[test]
    fn who_waited_too_long_is_told_whether_it_may_be_there_all_the_same() {
        let (mut asks, now) = (Asks::default(), Instant::now());
        let mut written = ask(&mut asks, now);
        asks.settle(vec![at(1)], 1);
        let (mut in_flight, mut waiting) = (ask(&mut asks, now), ask(&mut asks, now));
        asks.expire(now, 1, "away");
        assert!(matches!(written.try_recv().unwrap(), Err(AppendError::Unreplicated)));
        assert!(matches!(in_flight.try_recv().unwrap(), Err(AppendError::Unknown(_))));
        assert!(matches!(waiting.try_recv().unwrap(), Err(AppendError::Away(_))));
        assert_eq!(asks.waiting.len(), 1, "what is under way keeps its place");
        assert_eq!(asks.appends().count(), 0, "and is not tried again");
    }
}
