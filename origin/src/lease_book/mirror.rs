//! One origin's view of the book that many share: what it read there, with times of its own clock.
//!
//! A lease counts from when this origin first saw the number of its grant, which is after its follower asked for it: so it is
//! never counted as ended too early (L1). How late the mirror reads makes no difference for that, nor for what the book
//! believes of it: a grant that the mirror has not seen has another number. Pure, as the book itself is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::time::Duration;

use wire::{Ack, Chain, Epoch, PROTOCOL, Position, RegionName, Role, lease_margin};

use super::LeaseBook;
use super::follower::{Follower, Former};
use super::lines::{Entry, Grant, Line, News, Recalled, Who};

/// How often at the most all origins hear what a follower counts: each ack may say it, hundreds of times a second.
const NEWS_EVERY: Duration = Duration::from_millis(500);

/// What one origin knows of the shared book.
#[derive(Debug)]
pub struct Mirror {
    /// The followers and their leases, as people and the DNS are told of them.
    pub(super) book: LeaseBook,
    pub(super) run: String,
    pub(super) epoch: Option<Epoch>,
    /// The last entry of the log that was read.
    pub(super) log: u64,
    /// The last grant that was seen.
    pub(super) grants: u64,
    /// The longest lease that may run, and when a grant of that length was last seen.
    pub(super) longest: Duration,
    pub(super) longest_at: Duration,
    /// Followers that the book has lost and this origin knows.
    pub(super) lost: BTreeSet<Who>,
}

/// What may be made complete, as far as this origin knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The run of the book that the grants are of.
    pub run: String,
    /// The epoch.
    pub epoch: Epoch,
    /// Up to where.
    pub seq: u64,
    /// Grants below it whose leases have ended by this origin's clock.
    pub ended: Vec<u64>,
}

impl Deref for Mirror {
    type Target = LeaseBook;

    fn deref(&self) -> &LeaseBook {
        &self.book
    }
}

/// The region of somebody of whom nobody knows it.
#[expect(clippy::expect_used, reason = "it is written here, and a test reads it")]
fn nowhere() -> RegionName {
    "unknown".parse().expect("a region's name")
}

/// What is known of a follower that has not said anything of itself here.
pub(super) fn stranger((role, name): &Who, life: &str, epoch: Epoch) -> Ack {
    Ack {
        follower: name.clone(),
        role: *role,
        region: nowhere(),
        life: life.to_owned(),
        protocol: PROTOCOL,
        position: Position { epoch, seq: 0, chain: Chain::START },
        answers: Vec::new(),
        draining: false,
        load: 0.0,
        counts: BTreeMap::new(),
    }
}

/// Returns when a lease ends that was first seen `now`.
pub(super) fn end(lease: Duration, now: Duration) -> Duration {
    now + lease + lease_margin(lease)
}

impl Follower {
    /// What it says of itself came with an entry of the log.
    pub(super) fn hear_news(&mut self, news: &str, now: Duration) {
        let Some(news) = News::read(news) else { return };
        self.token = news.token;
        let (follower, role, life) = (self.ack.follower.clone(), self.ack.role, self.ack.life.clone());
        let News { region, protocol, answers, draining, load, counts, .. } = news;
        self.ack = Ack { follower, role, region, life, protocol, position: self.ack.position, answers, draining, load, counts };
        self.news_at = Some(now);
    }

    /// Returns the numbers of the leases that the shared book counts, what each life has applied, and when its lease ends here.
    pub(super) fn counted(&self) -> impl Iterator<Item = (u64, u64, Duration)> {
        let former = self.former.iter().filter(|former| former.grant > 0).map(|former| (former.grant, former.applied, former.until));
        former.chain(self.is_counted.then(|| (self.grant, self.applied, self.until.unwrap_or(Duration::MAX))))
    }

    /// The book does not count these leases any more: somebody's clock has shown that they have ended.
    fn settle(&mut self, ended: &BTreeSet<u64>, now: Duration) {
        if self.is_counted && ended.contains(&self.grant) {
            self.is_counted = false;
            self.until = self.until.map(|until| until.min(now));
        }
        let gone = self.former.iter().filter(|former| ended.contains(&former.grant)).map(|former| former.until.min(now));
        self.leased_until = gone.max().unwrap_or_default().max(self.leased_until);
        self.former.retain(|former| !ended.contains(&former.grant));
    }

    fn be_granted(&mut self, grant: Grant, now: Duration) {
        self.until = self.until.max(Some(end(grant.lease, now)));
        self.is_end_known = true;
        self.grant = grant.number;
        self.is_counted = self.ack.role == Role::Edge;
    }
}

impl Mirror {
    /// Returns the view of an origin that has read nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let (run, longest, longest_at) = (String::new(), Duration::ZERO, Duration::ZERO);
        let book = LeaseBook::new(0, Duration::ZERO);
        Self { book, run, epoch: None, log: 0, grants: 0, longest, longest_at, lost: BTreeSet::new() }
    }

    /// Returns the run of the book that it is of; empty where it has read none.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.run
    }

    /// Returns up to where something was made complete in an epoch, as far as this origin knows.
    #[must_use]
    pub fn complete_in(&self, epoch: Epoch) -> u64 {
        if self.epoch == Some(epoch) { self.book.complete } else { 0 }
    }

    /// Returns the epoch that the book is for.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// Returns the last entry of the log that was read.
    #[must_use]
    pub fn log(&self) -> u64 {
        self.log
    }

    /// Returns the longest lease that may run, as far as it knows.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.longest
    }

    /// Takes in an entry of the log, which was read before `now`. Tells whether it could: else the whole book is to be loaded.
    pub fn learn(&mut self, entry: &Entry, now: Duration) -> bool {
        if entry.run != self.run || entry.number > self.log + 1 || entry.lines.contains(&Line::Anew) {
            return false;
        }
        if entry.number == self.log + 1 {
            self.log = entry.number;
            self.book.latest = self.book.latest.max(now);
            entry.lines.iter().for_each(|line| self.take(line, now));
        }
        true
    }

    fn take(&mut self, line: &Line, now: Duration) {
        match line {
            Line::Ack { who, life, applied, grant, news } => self.take_ack(who, life, *applied, *grant, news, now),
            Line::Merged { who, of, applied, grant, .. } => {
                self.see_grant(*grant, now);
                if let Some(follower) = self.book.followers.get_mut(who) {
                    let former = std::mem::take(&mut follower.former);
                    let (two, others): (Vec<_>, Vec<_>) = former.into_iter().partition(|former| of.contains(&former.grant));
                    follower.former = others;
                    // One of theirs that stands for both ends as the later of them; a new grant begins now.
                    let is_theirs = two.len() == of.len() && of.contains(&grant.number);
                    let later = two.iter().map(|former| former.until).max().filter(|_| is_theirs);
                    let until = later.unwrap_or_else(|| end(grant.lease, now));
                    follower.former.insert(0, Former { until, applied: *applied, grant: grant.number });
                }
            }
            Line::Complete { seq, ended } => self.settle(*seq, ended, now),
            Line::Drained(who) => {
                if let Some(follower) = self.book.followers.get_mut(who) {
                    follower.drained = true;
                    self.book.live_version += 1;
                }
            }
            Line::Forgotten(who) => {
                self.book.followers.remove(who);
            }
            Line::Known(known) => self.take_known(known, now),
            Line::Longest(longest) => {
                // Leases of a run that is gone may be longer than was known when this one began.
                if *longest > self.longest && now < self.book.quiet_until {
                    self.book.quiet_until = self.book.quiet_until.max(end(*longest, now));
                }
                self.longest = *longest;
            }
            Line::Anew => {}
        }
    }

    fn take_ack(&mut self, who: &Who, life: &str, applied: u64, grant: Option<Grant>, news: &str, now: Duration) {
        let Some(epoch) = self.epoch else { return };
        if let Some(grant) = grant {
            self.see_grant(grant, now);
        }
        self.lost.remove(who);
        let before = self.book.followers.get(who).map(|follower| follower.shown(now));
        let follower = self.book.followers.entry(who.clone()).or_insert_with(|| Follower::new(stranger(who, life, epoch), now));
        if follower.ack.life != life {
            follower.end_life(now);
            life.clone_into(&mut follower.ack.life);
        }
        follower.hear_news(news, now);
        follower.ack.position = Position { epoch, seq: applied, chain: Chain::START };
        (follower.last_ack, follower.silent_before) = (now, Duration::ZERO);
        follower.acknowledge(applied, now);
        if let Some(grant) = grant {
            follower.be_granted(grant, now);
        }
        if before != Some(follower.shown(now)) || grant.is_none() {
            self.book.live_version += 1;
        }
    }

    fn take_known(&mut self, known: &Recalled, now: Duration) {
        let Some(epoch) = self.epoch else { return };
        self.lost.remove(&known.who);
        let quiet_until = self.book.quiet_until;
        self.book.followers.entry(known.who.clone()).or_insert_with(|| {
            let mut follower = Follower::new(stranger(&known.who, &known.life, epoch), now);
            follower.hear_news(&known.news, now);
            follower.news_at = None;
            (follower.applied, follower.drained, follower.is_end_known) = (known.applied, known.drained, false);
            follower.former.push(Former { until: quiet_until, applied: 0, grant: 0 });
            follower
        });
    }

    fn see_grant(&mut self, grant: Grant, now: Duration) {
        self.grants = self.grants.max(grant.number);
        if grant.lease >= self.longest {
            (self.longest, self.longest_at) = (grant.lease, now);
        }
    }

    fn settle(&mut self, seq: u64, ended: &[u64], now: Duration) {
        self.book.complete = self.book.complete.max(seq);
        if !ended.is_empty() {
            let ended: BTreeSet<u64> = ended.iter().copied().collect();
            self.book.followers.values_mut().for_each(|follower| follower.settle(&ended, now));
            self.book.live_version += 1;
        }
    }

    /// Returns the most that may be made complete of a journal that ends at `head`, where that is more than is complete already:
    /// what every edge has applied whose lease runs by this origin's clock.
    #[must_use]
    pub fn candidate(&self, head: &Position, now: Duration) -> Option<Candidate> {
        let epoch = self.epoch.filter(|epoch| *epoch == head.epoch)?;
        if now < self.book.quiet_until {
            return None;
        }
        let counted = || self.book.followers.values().flat_map(Follower::counted);
        let reached = counted().filter(|(.., until)| *until > now).map(|(_, applied, _)| applied).min();
        let seq = reached.map_or(head.seq, |reached| reached.min(head.seq));
        let ended = counted().filter(|(_, applied, _)| *applied < seq).map(|(grant, ..)| grant).collect();
        (seq > self.book.complete).then(|| Candidate { run: self.run.clone(), epoch, seq, ended })
    }

    /// Returns up to where the journal of this epoch is complete and may be said to be; 0 while nothing may be said.
    #[must_use]
    pub fn said(&self, epoch: Epoch, now: Duration) -> u64 {
        let may_say = self.epoch == Some(epoch) && now >= self.book.quiet_until;
        if may_say { self.book.complete } else { 0 }
    }

    /// Returns what all origins are to hear of a follower with its ack; empty where they know it.
    pub(crate) fn news(&self, ack: &Ack, token: Option<String>, now: Duration) -> String {
        let news = News::of(ack, token);
        let is_known = self.book.followers.get(&(ack.role, ack.follower.clone())).is_some_and(|known| {
            let is_recent = known.news_at.is_some_and(|at| now.saturating_sub(at) < NEWS_EVERY);
            let is_same = known.ack.region == ack.region && known.ack.answers == ack.answers && known.ack.draining == ack.draining;
            is_recent && is_same && known.token == news.token
        });
        if is_known { String::new() } else { news.written() }
    }

    /// Returns followers of which nothing matters any more, each with its last grant.
    #[must_use]
    pub fn forgettable(&self, now: Duration) -> Vec<(Who, u64)> {
        let forgotten = self.book.followers.iter().filter(|(_, follower)| follower.is_forgotten(now));
        forgotten.map(|(who, follower)| (who.clone(), follower.grant)).collect()
    }

    /// Returns the last grant that was seen, where all of the longest length have ended: it may be shorter from now on.
    #[must_use]
    pub fn shortenable(&self, now: Duration) -> Option<u64> {
        let has_ended = now >= self.book.quiet_until && now >= end(self.longest, self.longest_at);
        (has_ended && !self.longest.is_zero()).then_some(self.grants)
    }

    /// Returns the followers that the book has lost.
    #[must_use]
    pub fn lost(&self) -> Vec<Recalled> {
        let lost = self.lost.iter().filter_map(|who| Some((who, self.book.followers.get(who)?)));
        lost.map(|(who, follower)| Recalled {
            who: who.clone(),
            life: follower.ack.life.clone(),
            applied: follower.applied,
            drained: follower.drained,
            news: News::of(&follower.ack, follower.token.clone()).written(),
        })
        .collect()
    }

    /// Returns the numbers of all grants that it takes the book to count.
    #[must_use]
    pub fn counted(&self) -> BTreeSet<u64> {
        self.book.followers.values().flat_map(Follower::counted).map(|(grant, ..)| grant).collect()
    }
}

impl Default for Mirror {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_follower_of_which_nobody_knows_the_region_has_one() {
        assert_eq!(nowhere().as_str(), "unknown");
    }
}
