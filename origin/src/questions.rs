//! What edges are asked beside the journal: how much each holds of what a purge would take.
//!
//! The origin never connects to anyone, so a question goes out on the feeds, and each edge answers by a call. [`Open`] is
//! the pure part: what is asked, who may answer, who is still waited for. Nothing of it outlives its asker's patience.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wire::{Counted, NodeName, Owner, PlannedEdge, PurgePlan, PurgeRequest, Question, QuestionAnswer, Scope, Timestamp, Wait};

use crate::clock::boottime;
use crate::core::Core;
use crate::fault::Fault;

/// How long answers are waited for where a dry run does not say.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest that they are.
const LONGEST: Duration = Duration::from_secs(60);

/// Questions that are open at a time: each makes every edge go over its memory.
const OPEN: usize = 16;

/// Of these, how many one token may have asked.
const OPEN_OF_ONE: usize = 2;

/// Scopes that they have together where there are several: all of them go out on every feed, and a URL may be long.
const SCOPES: usize = 2000;

/// Says what a purge would take away: its scopes, and what each edge that answers in time holds of them. `asker` is the id of
/// the token that asks.
pub(crate) async fn plan(core: &Core, asker: &str, request: &PurgeRequest, scopes: Vec<Scope>, mut notes: Vec<String>) -> PurgePlan {
    if request.wait == Wait::None {
        return PurgePlan { scopes, edges: Vec::new(), total: Counted::default(), notes };
    }
    let patience = request.timeout_ms.map_or(PATIENCE, Duration::from_millis).min(LONGEST);
    let now = boottime();
    let (rows, live) = {
        let book = core.book();
        (book.receipt(0, None, now, Timestamp::now()), book.live(now))
    };
    let live: BTreeSet<NodeName> = live.into_iter().map(|live| live.edge).collect();
    let edges = rows.iter().map(|row| (row.name.clone(), live.contains(&row.name))).collect();
    let answers = match core.questions.ask(asker, &request.owner, &scopes, edges, now, now + patience) {
        Some(id) => core.questions.answers(id, patience, &core.stop).await,
        None => {
            let said = format!("too many dry runs are under way (of one token {OPEN_OF_ONE}), so no edge was asked; try again in a moment");
            notes.push(said);
            BTreeMap::new()
        }
    };
    let total = answers.values().fold(Counted::default(), |sum, counted| sum.and(*counted));
    let edges = rows.into_iter().map(|row| {
        let counted = answers.get(&row.name).copied();
        PlannedEdge::new(row.name, row.region, counted)
    });
    PurgePlan { scopes, edges: edges.collect(), total, notes }
}

/// The questions that are open, and those who wait for something about them.
#[derive(Debug)]
pub(crate) struct Questions {
    open: Mutex<Open>,
    /// The number of the last question, for the feeds.
    asked: watch::Sender<u64>,
    /// Rises with each answer.
    answered: watch::Sender<u64>,
}

impl Questions {
    pub(crate) fn new() -> Self {
        let mut bytes = [0; 8];
        // An answer that was meant for an origin before this one should fit no question of this one. Without randomness
        // it might, and a dry run would tell too much or too little.
        let _ = getrandom::fill(&mut bytes);
        // Readers of JSON that have floating point alone read it exactly too.
        let first = (u64::from_be_bytes(bytes) >> 12) + 1;
        Self { open: Mutex::new(Open::new(first)), asked: watch::Sender::new(0), answered: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the number of each question that comes up.
    pub(crate) fn watch(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }

    /// Returns the open questions behind `last`.
    pub(crate) fn behind(&self, last: u64) -> Vec<Arc<Question>> {
        self.lock().behind(last, boottime())
    }

    /// Takes in an answer.
    pub(crate) fn answer(&self, id: u64, answer: &QuestionAnswer) -> Result<(), Fault> {
        if !self.lock().answer(id, &answer.follower, answer.counted, boottime()) {
            return Err(Fault::NotFound(format!("nobody waits for what `{}` says to question {id}", answer.follower)));
        }
        self.answered.send_modify(|version| *version += 1);
        Ok(())
    }

    fn ask(
        &self,
        asker: &str,
        owner: &Owner,
        scopes: &[Scope],
        edges: Vec<(NodeName, bool)>,
        now: Duration,
        until: Duration,
    ) -> Option<u64> {
        let id = self.lock().ask(asker, owner, scopes, edges, now, until)?;
        self.asked.send_replace(id);
        Some(id)
    }

    /// Waits for the answers to a question, and closes it.
    async fn answers(&self, id: u64, patience: Duration, stop: &CancellationToken) -> BTreeMap<NodeName, Counted> {
        let mut answered = self.answered.subscribe();
        let deadline = tokio::time::sleep(patience);
        tokio::pin!(deadline);
        while !self.lock().is_answered(id) {
            tokio::select! {
                _ = answered.changed() => {}
                () = &mut deadline => break,
                () = stop.cancelled() => break,
            }
        }
        self.lock().close(id)
    }
}

/// The open questions.
#[derive(Debug)]
struct Open {
    next: u64,
    asked: BTreeMap<u64, Asked>,
}

#[derive(Debug)]
struct Asked {
    question: Arc<Question>,
    /// The id of the token that asked.
    asker: String,
    /// Who may answer, and who has.
    answers: BTreeMap<NodeName, Option<Counted>>,
    /// Who is waited for: of those who held a lease when it was asked, who has not answered.
    waiting: BTreeSet<NodeName>,
    /// As long as its asker waits, unless that one leaves before.
    until: Duration,
}

impl Open {
    fn new(first: u64) -> Self {
        Self { next: first, asked: BTreeMap::new() }
    }

    /// Opens a question to these edges, of each of which it is said whether it holds a lease; returns its number, or
    /// nothing where too many are open.
    fn ask(
        &mut self,
        asker: &str,
        owner: &Owner,
        scopes: &[Scope],
        edges: Vec<(NodeName, bool)>,
        now: Duration,
        until: Duration,
    ) -> Option<u64> {
        self.asked.retain(|_, asked| asked.until > now);
        let before: usize = self.asked.values().map(|asked| asked.question.scopes.len()).sum();
        let own = self.asked.values().filter(|asked| asked.asker == asker).count();
        if self.asked.len() >= OPEN || own >= OPEN_OF_ONE || (before > 0 && before + scopes.len() > SCOPES) {
            return None;
        }
        let id = self.next;
        self.next += 1;
        let question = Arc::new(Question { id, owner: owner.clone(), scopes: scopes.to_vec() });
        let waiting = edges.iter().filter(|(_, is_live)| *is_live).map(|(name, _)| name.clone()).collect();
        let answers = edges.into_iter().map(|(name, _)| (name, None)).collect();
        self.asked.insert(id, Asked { question, asker: asker.to_owned(), answers, waiting, until });
        Some(id)
    }

    /// Returns the questions behind `last` that somebody still waits for.
    fn behind(&self, last: u64, now: Duration) -> Vec<Arc<Question>> {
        let open = self.asked.values().filter(|asked| asked.until > now && asked.question.id > last);
        open.map(|asked| Arc::clone(&asked.question)).collect()
    }

    /// Takes in what an edge says; tells whether somebody waits for it.
    fn answer(&mut self, id: u64, edge: &NodeName, counted: Counted, now: Duration) -> bool {
        let Some(asked) = self.asked.get_mut(&id).filter(|asked| asked.until > now) else { return false };
        let Some(answer) = asked.answers.get_mut(edge) else { return false };
        *answer = Some(counted);
        asked.waiting.remove(edge);
        true
    }

    /// Tells whether there is nobody left to wait for.
    fn is_answered(&self, id: u64) -> bool {
        self.asked.get(&id).is_none_or(|asked| asked.waiting.is_empty())
    }

    /// Forgets a question, and returns its answers.
    fn close(&mut self, id: u64) -> BTreeMap<NodeName, Counted> {
        let answers = self.asked.remove(&id).map(|asked| asked.answers).unwrap_or_default();
        answers.into_iter().filter_map(|(edge, counted)| Some((edge, counted?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNTIL: Duration = Duration::from_millis(2000);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn name(name: &str) -> NodeName {
        name.parse().unwrap()
    }

    fn held(entries: u64) -> Counted {
        Counted { urls: 1, entries, bytes: 1024 }
    }

    fn ask(open: &mut Open, edges: &[(&str, bool)], now: u64, until: Duration) -> Option<u64> {
        let edges = edges.iter().map(|(edge, is_live)| (name(edge), *is_live)).collect();
        // Each of a token of its own.
        let asker = open.next.to_string();
        open.ask(&asker, &Owner::default(), &[Scope::All], edges, at(now), until)
    }

    fn ids(open: &Open, last: u64, now: u64) -> Vec<u64> {
        open.behind(last, at(now)).iter().map(|question| question.id).collect()
    }

    #[test]
    fn a_question_is_answered_when_all_who_hold_a_lease_have_answered() {
        let mut open = Open::new(7);
        let id = ask(&mut open, &[("a", true), ("b", true), ("fenced", false), ("gone", false)], 0, UNTIL).unwrap();
        assert!(!open.is_answered(id));
        assert!(open.answer(id, &name("a"), held(1), at(1)) && open.answer(id, &name("fenced"), held(5), at(1)));
        assert!(!open.is_answered(id), "b has not said anything");
        assert!(open.answer(id, &name("b"), held(2), at(2)));
        assert!(open.is_answered(id));
        let answers: Vec<_> = open.close(id).into_iter().map(|(edge, counted)| (edge.to_string(), counted.entries)).collect();
        assert_eq!(answers, [("a".to_owned(), 1), ("b".to_owned(), 2), ("fenced".to_owned(), 5)]);
        assert!(open.close(id).is_empty() && open.is_answered(id));
        let nobody = ask(&mut open, &[("fenced", false)], 3, UNTIL).unwrap();
        assert!(open.is_answered(nobody), "there is nobody to wait for");
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_refused() {
        let mut open = Open::new(1);
        let id = ask(&mut open, &[("a", true)], 0, UNTIL).unwrap();
        assert!(!open.answer(id + 1, &name("a"), held(1), at(1)), "there is no such question");
        assert!(!open.answer(id, &name("stranger"), held(1), at(1)));
        assert!(!open.answer(id, &name("a"), held(1), UNTIL), "its asker went on without");
        assert!(open.close(id).is_empty());
        assert!(!open.answer(id, &name("a"), held(1), at(1)), "it is closed");
    }

    #[test]
    fn an_edge_that_is_asked_again_says_what_is_true_now() {
        let mut open = Open::new(1);
        let id = ask(&mut open, &[("a", true)], 0, UNTIL).unwrap();
        assert!(open.answer(id, &name("a"), held(1), at(1)) && open.answer(id, &name("a"), held(2), at(2)));
        assert_eq!(open.close(id)[&name("a")], held(2));
    }

    #[test]
    fn a_feed_gets_each_question_once_and_none_that_is_over() {
        let mut open = Open::new(5);
        assert_eq!((ask(&mut open, &[], 0, at(100)), ask(&mut open, &[], 0, UNTIL)), (Some(5), Some(6)));
        assert_eq!(ids(&open, 0, 1), [5, 6]);
        assert_eq!(ids(&open, 5, 1), [6]);
        assert!(ids(&open, 6, 1).is_empty());
        assert_eq!(ids(&open, 0, 100), [6], "the asker of the first went on without");
        open.close(6);
        assert!(ids(&open, 0, 1).len() == 1 && ids(&open, 5, 1).is_empty());
    }

    #[test]
    fn no_more_are_open_than_may_be_and_one_that_is_over_makes_room() {
        let mut open = Open::new(1);
        for n in 0..OPEN as u64 {
            assert_eq!(ask(&mut open, &[], 0, at(100 + n)), Some(n + 1));
        }
        assert_eq!(ask(&mut open, &[], 99, UNTIL), None);
        assert!(ask(&mut open, &[], 100, UNTIL).is_some());
        assert_eq!(ask(&mut open, &[], 100, UNTIL), None);
        open.close(2);
        assert!(ask(&mut open, &[], 100, UNTIL).is_some());
    }

    #[test]
    fn several_have_no_more_scopes_together_than_may_be_and_one_alone_has_as_many_as_it_has() {
        let mut open = Open::new(1);
        let mut ask = |scopes: usize, now: u64| {
            let scopes = vec![Scope::All; scopes];
            open.ask("a", &Owner::default(), &scopes, Vec::new(), at(now), at(now + 10))
        };
        assert!(ask(SCOPES + 1, 0).is_some());
        assert_eq!(ask(1, 1), None);
        assert!(ask(SCOPES - 1, 10).is_some() && ask(1, 11).is_some(), "the first is over");
        assert_eq!(ask(1, 12), None);
    }

    #[test]
    fn one_token_has_no_more_open_than_two_and_leaves_room_for_others() {
        let mut open = Open::new(1);
        let mut ask = |asker: &str, now: u64| open.ask(asker, &Owner::default(), &[Scope::All], Vec::new(), at(now), at(now + 10));
        assert!(ask("a", 0).is_some() && ask("a", 1).is_some());
        assert_eq!(ask("a", 2), None);
        assert!(ask("b", 2).is_some());
        assert!(ask("a", 10).is_some(), "the first is over");
    }
}
