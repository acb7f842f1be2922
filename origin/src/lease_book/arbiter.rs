//! The lease book that many origins share, as it decides: what the scripts on Redis do, in plain Rust.
//!
//! It knows no time. Each grant has a number of its own; an origin counts the lease of a grant by its own clock, and says which
//! have ended when it wants something to be complete. The book believes that of exactly these grants: whoever was given another
//! lease since then holds completion back (L5). Each call is one step, and does nothing where its caller means another run or
//! epoch: a run ends where the process that keeps the book may have lost some of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use wire::mistake::{Mistake, makes};
use wire::{Epoch, Role};

use super::FOLLOWERS;
use super::follower::LIVES;
use super::lines::{Acked, Asked, Completed, Elsewhere, Entry, Grant, Held, Line, Named, Recalled, Table, Verdict, Who};

/// Entries of the log that are kept; whoever falls behind reads everything anew.
const KEPT: usize = 4096;

/// One life of one follower.
type Key = (Who, String);

/// The book. The suite of its cases runs on this one and on Redis.
#[derive(Clone, Debug, Default)]
pub struct Arbiter {
    /// What the process calls itself that keeps it.
    server: String,
    /// Where the journal stands that lies beside it.
    journal: Option<(Epoch, u64)>,
    head: Head,
    names: BTreeMap<Who, Name>,
    lives: BTreeMap<Key, Life>,
    /// The lives of edges that may hold a lease.
    edges: BTreeSet<Key>,
    log: VecDeque<Entry>,
}

#[derive(Clone, Debug, Default)]
struct Head {
    /// Empty where nobody has begun one.
    run: String,
    epoch: Option<Epoch>,
    /// The highest seq that was made complete in this epoch.
    complete: u64,
    /// No lease is given below it (L2): what is complete, or may have been.
    floor: u64,
    /// The longest lease that may run (L6), the last grant of that length, and the longest after that one.
    longest: Duration,
    longest_at: u64,
    next_longest: Duration,
    grants: u64,
    log: u64,
}

#[derive(Clone, Debug, Default)]
struct Name {
    life: String,
    drained: bool,
    former: Vec<String>,
    replaced: Vec<String>,
    news: String,
}

#[derive(Clone, Copy, Debug, Default)]
struct Life {
    /// Its last grant, 0 where it had none.
    grant: u64,
    /// The longest that it was given.
    lease: Duration,
    applied: u64,
}

/// Why and how a new run begins.
#[derive(Clone, Debug)]
pub struct Distrust<'a> {
    /// The run that the caller knows. Where the book is whole and of another one, somebody was faster.
    pub known: &'a str,
    /// What the new run is called: nobody else may think of the same.
    pub name: &'a str,
    /// The epoch of the caller's journal, for a book that has none.
    pub epoch: Epoch,
    /// Where that journal ends.
    pub head: u64,
    /// The longest lease that the caller knows of.
    pub longest: Duration,
    /// The longest that there may be: assumed where the book is lost and its journal is not.
    pub assumed: Duration,
}

impl Arbiter {
    /// Returns an empty book, kept by a process that calls itself `server`.
    #[must_use]
    pub fn new(server: &str) -> Self {
        Self { server: server.to_owned(), ..Self::default() }
    }

    /// Another process keeps what is there now.
    pub fn restart(&mut self, server: &str) {
        server.clone_into(&mut self.server);
    }

    /// The journal beside the book has come so far.
    pub fn set_journal(&mut self, epoch: Epoch, seq: u64) {
        self.journal = Some((epoch, seq));
    }

    fn present_run(&self) -> &str {
        let is_here = self.head.run.strip_prefix(&self.server).is_some_and(|rest| rest.starts_with('.'));
        if is_here { &self.head.run } else { "" }
    }

    fn must_be(&self, run: &str, epoch: Option<Epoch>) -> Result<(), Elsewhere> {
        let present = self.present_run();
        if present.is_empty() || present != run {
            return Err(Elsewhere::Run(present.to_owned()));
        }
        match self.head.epoch {
            Some(present) if epoch.is_some_and(|epoch| epoch != present) => Err(Elsewhere::Epoch(present)),
            _ => Ok(()),
        }
    }

    fn journal_seq(&self) -> u64 {
        self.journal.map_or(0, |(_, seq)| seq)
    }

    /// Takes in acks and decides about a lease for each. What is complete is looked at in the same step (L2).
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn ack(&mut self, run: &str, epoch: Epoch, asked: &[Asked]) -> Result<Acked, Elsewhere> {
        self.must_be(run, Some(epoch))?;
        let mut lines = Vec::new();
        let verdicts = asked.iter().map(|asked| self.judge(asked, &mut lines)).collect();
        self.tell(lines);
        let head = self.journal.filter(|(of, _)| *of == epoch).map_or(0, |(_, seq)| seq);
        Ok(Acked { head, verdicts })
    }

    fn judge(&mut self, asked: &Asked, lines: &mut Vec<Line>) -> Verdict {
        if let Some(refused) = self.meet(asked, lines) {
            return refused;
        }
        let key = (asked.who.clone(), asked.life.clone());
        let mut life = self.lives.get(&key).copied().unwrap_or_default();
        // What it says is in force there is, whether it is given another lease or not.
        life.applied = life.applied.max(asked.seq);
        let verdict = if self.names.get(&asked.who).is_some_and(|name| name.drained) {
            Verdict::Retired { anew: false }
        } else if asked.seq < self.head.floor && !makes(Mistake::GrantUnchecked) {
            Verdict::BelowComplete
        } else if asked.is_laggard {
            Verdict::Laggard
        } else {
            life = Life { grant: self.grant(asked.lease), lease: life.lease.max(asked.lease), ..life };
            if asked.who.0 == Role::Edge {
                self.edges.insert(key.clone());
            }
            Verdict::Granted(life.grant)
        };
        self.lives.insert(key, life);
        if let Some(name) = self.names.get_mut(&asked.who).filter(|_| !asked.news.is_empty()) {
            name.news.clone_from(&asked.news);
        }
        let grant = matches!(verdict, Verdict::Granted(_)).then_some(Grant { number: life.grant, lease: asked.lease });
        let (who, life, applied) = (asked.who.clone(), asked.life.clone(), life.applied);
        lines.push(Line::Ack { who, life, applied, grant, news: asked.news.clone() });
        verdict
    }

    /// Makes the life that asks the present one, unless it was replaced before.
    fn meet(&mut self, asked: &Asked, lines: &mut Vec<Line>) -> Option<Verdict> {
        let Some(name) = self.names.get(&asked.who) else {
            if self.names.len() >= FOLLOWERS {
                return Some(Verdict::Retired { anew: false });
            }
            self.names.insert(asked.who.clone(), Name { life: asked.life.clone(), ..Name::default() });
            return None;
        };
        if name.replaced.contains(&asked.life) || name.former.contains(&asked.life) {
            // Where the present life was taken out of service, another one must not come back in its place.
            return Some(Verdict::Retired { anew: !name.drained });
        }
        if name.life != asked.life {
            self.replace(asked, lines);
        }
        None
    }

    fn replace(&mut self, asked: &Asked, lines: &mut Vec<Line>) {
        let Some(mut name) = self.names.remove(&asked.who) else { return };
        let before = std::mem::replace(&mut name.life, asked.life.clone());
        let key = (asked.who.clone(), before.clone());
        if self.edges.contains(&key) {
            name.former.push(before.clone());
        } else {
            self.lives.remove(&key);
        }
        if name.former.len() > LIVES {
            lines.extend(self.merge(&asked.who, &mut name));
        }
        name.replaced.push(before);
        if name.replaced.len() > LIVES {
            name.replaced.remove(0);
        }
        name.drained = false;
        self.names.insert(asked.who.clone(), name);
    }

    /// Of too many former lives the two oldest count as one, which holds back what either does. The younger's last grant is later
    /// than all of the older's: where it is no shorter, it stands for both as it is. A new one would begin anew, and where two processes
    /// of one name go on to replace each other, none would ever end (P2).
    fn merge(&mut self, who: &Who, name: &mut Name) -> Option<Line> {
        let oldest = (who.clone(), name.former.remove(0));
        let next = (who.clone(), name.former.first()?.clone());
        let (one, two) = (self.lives.remove(&oldest)?, *self.lives.get(&next)?);
        let (lease, applied) = (one.lease.max(two.lease), one.applied.min(two.applied));
        let grant = if one.lease <= two.lease { two.grant } else { self.grant(lease) };
        let merged = Life { grant, lease, applied };
        self.edges.remove(&oldest);
        self.lives.insert(next.clone(), merged);
        let grant = Grant { number: merged.grant, lease };
        Some(Line::Merged { who: next.0, of: [one.grant, two.grant], life: next.1, applied, grant })
    }

    /// Returns the number of a new grant. How long the longest lease is that may run is raised in the same step (L6).
    fn grant(&mut self, lease: Duration) -> u64 {
        let head = &mut self.head;
        head.grants += 1;
        if lease >= head.longest {
            (head.longest, head.longest_at, head.next_longest) = (lease, head.grants, Duration::ZERO);
        } else {
            head.next_longest = head.next_longest.max(lease);
        }
        head.grants
    }

    fn applied(&self, key: &Key) -> u64 {
        self.lives.get(key).map_or(0, |life| life.applied)
    }

    /// Makes everything up to `seq` complete, where each edge's life that may hold a lease has applied it, or its last grant is
    /// among the `ended`. Returns up to where everything is complete then, or nothing where it was refused.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn complete(&mut self, run: &str, epoch: Epoch, seq: u64, ended: &[u64]) -> Result<Option<Completed>, Elsewhere> {
        self.must_be(run, Some(epoch))?;
        if seq <= self.head.complete {
            return Ok(Some(Completed { seq: self.head.complete, log: self.head.log }));
        }
        // Nobody could come up to what the journal has lost.
        if self.journal.is_some_and(|(of, last)| of == epoch && seq > last) {
            return Ok(None);
        }
        let below: Vec<Key> = self.edges.iter().filter(|key| self.applied(key) < seq).cloned().collect();
        let mut grants: Vec<u64> = below.iter().map(|key| self.lives.get(key).map_or(0, |life| life.grant)).collect();
        if !grants.iter().all(|grant| ended.contains(grant)) && !makes(Mistake::CompleteUnchecked) {
            return Ok(None);
        }
        below.iter().for_each(|key| self.settle(key));
        grants.sort_unstable();
        self.head.complete = seq;
        self.head.floor = self.head.floor.max(seq);
        self.tell(vec![Line::Complete { seq, ended: grants }]);
        Ok(Some(Completed { seq, log: self.head.log }))
    }

    /// Its lease holds nothing back any more. What the present life of a name has applied stays known.
    fn settle(&mut self, key: &Key) {
        self.edges.remove(key);
        match self.names.get_mut(&key.0) {
            Some(name) if name.life != key.1 => {
                name.former.retain(|life| *life != key.1);
                self.lives.remove(key);
            }
            _ => {}
        }
    }

    /// Takes the present life of a follower out of service; tells whether there is such a follower.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn drain(&mut self, run: &str, who: &Who) -> Result<bool, Elsewhere> {
        self.must_be(run, None)?;
        let Some(name) = self.names.get_mut(who) else { return Ok(false) };
        if !std::mem::replace(&mut name.drained, true) {
            self.tell(vec![Line::Drained(who.clone())]);
        }
        Ok(true)
    }

    /// Forgets a follower whose last grant is still this one, and has ended; tells whether it did.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn forget(&mut self, run: &str, who: &Who, grant: u64) -> Result<bool, Elsewhere> {
        self.must_be(run, None)?;
        let Some(name) = self.names.get(who).filter(|name| name.former.is_empty()) else { return Ok(false) };
        let key = (who.clone(), name.life.clone());
        if self.lives.get(&key).is_none_or(|life| life.grant != grant) {
            return Ok(false);
        }
        self.names.remove(who);
        self.lives.remove(&key);
        self.edges.remove(&key);
        self.tell(vec![Line::Forgotten(who.clone())]);
        Ok(true)
    }

    /// Lets the longest lease be shorter, where the last one of that length was granted no later than grant `seen`, and all up to
    /// that one have ended. Returns what it is then.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn shorten(&mut self, run: &str, seen: u64) -> Result<Option<Duration>, Elsewhere> {
        self.must_be(run, None)?;
        let head = &mut self.head;
        if head.longest_at > seen {
            return Ok(None);
        }
        (head.longest, head.longest_at, head.next_longest) = (head.next_longest, head.grants, Duration::ZERO);
        let longest = head.longest;
        self.tell(vec![Line::Longest(longest)]);
        Ok(Some(longest))
    }

    /// Takes the word of an origin that has seen another run begin: how far the journal had come as it knows it, and how long
    /// leases were. A server that was put back to what it held before may know less, and whoever met it first may too.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn vouch(&mut self, run: &str, epoch: Epoch, seq: u64, longest: Duration) -> Result<u64, Elsewhere> {
        self.must_be(run, Some(epoch))?;
        let head = &mut self.head;
        head.floor = head.floor.max(seq);
        if longest > head.longest {
            (head.longest, head.longest_at, head.next_longest) = (longest, head.grants, Duration::ZERO);
        }
        let (floor, longest) = (head.floor, head.longest);
        self.tell(vec![Line::Longest(longest)]);
        Ok(floor)
    }

    /// Goes over to the epoch that the journal is in. Of it nobody has applied anything; leases of the one before may run, for
    /// whose end each origin waits by its own clock.
    ///
    /// # Errors
    /// Where the caller means another book, or is behind.
    pub fn begin_epoch(&mut self, run: &str, epoch: Epoch, head: u64) -> Result<(), Elsewhere> {
        self.must_be(run, None)?;
        match self.head.epoch {
            Some(present) if present == epoch => return Ok(()),
            // A caller that is behind must not turn the book back.
            Some(present) if self.journal.is_none_or(|(of, _)| of != epoch) => return Err(Elsewhere::Epoch(present)),
            _ => {}
        }
        self.forget_leases(false);
        self.head.epoch = Some(epoch);
        self.head.complete = 0;
        self.head.floor = head.max(self.journal_seq());
        self.tell(vec![Line::Anew]);
        Ok(())
    }

    /// Begins another run: grants may have been lost, or the whole book. Returns what it is called. Until the longest lease has
    /// passed since it saw that run, no origin makes anything complete.
    ///
    /// # Errors
    /// Where somebody else has begun one already.
    pub fn distrust(&mut self, why: &Distrust<'_>) -> Result<String, Elsewhere> {
        let present = self.present_run();
        if !present.is_empty() && present != why.known {
            return Err(Elsewhere::Run(present.to_owned()));
        }
        // A journal that was just founded has had no followers.
        let is_lost = self.head.run.is_empty() && self.journal_seq() > 0;
        if self.head.run.is_empty() {
            self.log.clear();
        }
        self.forget_leases(true);
        let journal_seq = self.journal_seq();
        let head = &mut self.head;
        head.run = format!("{}.{}", self.server, why.name);
        head.epoch = head.epoch.or(Some(why.epoch));
        head.floor = head.floor.max(why.head).max(journal_seq);
        let assumed = if is_lost { why.assumed } else { Duration::ZERO };
        head.longest = head.longest.max(why.longest).max(assumed);
        (head.longest_at, head.next_longest) = (head.grants, Duration::ZERO);
        let run = head.run.clone();
        self.tell(vec![Line::Anew]);
        Ok(run)
    }

    /// Counts no lease any more, and knows of each follower its present life alone.
    fn forget_leases(&mut self, keeps_applied: bool) {
        let lives = std::mem::take(&mut self.lives);
        self.edges.clear();
        for (who, name) in &mut self.names {
            name.former.clear();
            let key = (who.clone(), name.life.clone());
            let applied = lives.get(&key).filter(|_| keeps_applied).map_or(0, |life| life.applied);
            self.lives.insert(key, Life { applied, ..Life::default() });
        }
    }

    /// Puts back followers that the caller knows and the book has lost; tells how many there were.
    ///
    /// # Errors
    /// Where the caller means another book.
    pub fn recall(&mut self, run: &str, epoch: Epoch, known: &[Recalled]) -> Result<usize, Elsewhere> {
        self.must_be(run, Some(epoch))?;
        let mut lines = Vec::new();
        for known in known {
            if self.names.contains_key(&known.who) || self.names.len() >= FOLLOWERS {
                continue;
            }
            let name = Name { life: known.life.clone(), drained: known.drained, news: known.news.clone(), ..Name::default() };
            self.names.insert(known.who.clone(), name);
            self.lives.insert((known.who.clone(), known.life.clone()), Life { applied: known.applied, ..Life::default() });
            lines.push(Line::Known(known.clone()));
        }
        let count = lines.len();
        self.tell(lines);
        Ok(count)
    }

    fn tell(&mut self, lines: Vec<Line>) {
        if lines.is_empty() {
            return;
        }
        self.head.log += 1;
        self.log.push_back(Entry { number: self.head.log, run: self.head.run.clone(), lines });
        if self.log.len() > KEPT {
            self.log.pop_front();
        }
    }

    /// Returns the whole book, unless it is of no run.
    #[must_use]
    pub fn load(&self) -> Option<Table> {
        let run = Some(self.present_run().to_owned()).filter(|run| !run.is_empty())?;
        let Head { complete, longest, grants, log, .. } = self.head;
        let named = self.names.iter().map(|(who, name)| self.named(who, name)).collect();
        Some(Table { run, epoch: self.head.epoch?, complete, longest, grants, log, named })
    }

    fn named(&self, who: &Who, name: &Name) -> Named {
        let held = |life: &String| {
            let life = self.lives.get(&(who.clone(), life.clone())).copied().unwrap_or_default();
            Held { applied: life.applied, grant: Grant { number: life.grant, lease: life.lease } }
        };
        let present = held(&name.life);
        Named {
            who: who.clone(),
            life: name.life.clone(),
            drained: name.drained,
            applied: present.applied,
            grant: present.grant,
            is_counted: self.edges.contains(&(who.clone(), name.life.clone())),
            former: name.former.iter().map(held).collect(),
            replaced: name.replaced.clone(),
            news: name.news.clone(),
        }
    }

    /// Returns up to `most` entries of the log behind number `after`, as far as they are kept.
    #[must_use]
    pub fn entries(&self, after: u64, most: usize) -> Vec<Entry> {
        let first = self.log.front().map_or(1, |entry| entry.number);
        let read = usize::try_from((after + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        self.log.iter().skip(read).take(most).cloned().collect()
    }

    /// Returns the numbers of all grants that hold completion back where their edge has not applied enough.
    #[must_use]
    pub fn counted(&self) -> BTreeSet<u64> {
        self.edges.iter().filter_map(|key| self.lives.get(key)).map(|life| life.grant).collect()
    }
}
