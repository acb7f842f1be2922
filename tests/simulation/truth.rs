//! What is really so, whatever any node believes: which purge was appended and reported when, and whether what a
//! reader got could be right. All rules are checked against true time, which no node knows.

use wire::{Epoch, Fact, Mode, Owner, Scope, UrlScope};

use crate::named;
use crate::plan::Time;
use crate::serving::Address;

/// What a purge is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    Key(usize),
    /// Keys with this tag: it is their number's remainder by two.
    Tag(usize),
    All,
}

impl About {
    pub(crate) fn touches(self, key: usize) -> bool {
        match self {
            Self::Key(one) => one == key,
            Self::Tag(tag) => key % 2 == tag,
            Self::All => true,
        }
    }
}

/// A purge in the journal.
#[derive(Clone, Debug)]
pub(crate) struct Purge {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    pub(crate) appended: Time,
    pub(crate) mode: Mode,
    pub(crate) about: About,
    pub(crate) complete: Option<Time>,
    /// Whether its sender was told that it is accepted.
    pub(crate) accepted: bool,
    /// Whether the journal that held it was replaced by an older copy.
    pub(crate) is_void: bool,
}

impl Purge {
    /// Returns it as the journal has it.
    pub(crate) fn fact(&self) -> Fact {
        let scope = match self.about {
            About::Key(key) => {
                let Address { host, target, .. } = Address::of(key);
                Scope::Url(UrlScope { host, target })
            }
            About::Tag(tag) => Scope::Tag(named(&format!("t{tag}"))),
            About::All => Scope::All,
        };
        Fact::purged(Owner::default(), self.mode, vec![scope])
    }
}

/// A response's bytes, and when they were really right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Body {
    pub(crate) version: u64,
    /// When the fetch started that brought it.
    pub(crate) begun: Time,
    /// When the last request started of which the upstream said that it is right.
    pub(crate) validated: Time,
    /// Whether it came through the shared tier. Where a journal was replaced by an older copy and nobody declared it,
    /// nothing tells its entries of the one history from those of the other until a follower shows that it knows more.
    pub(crate) was_shared: bool,
}

/// A reader's request, and the edge's state when it came.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrived {
    pub(crate) edge: usize,
    pub(crate) life: u64,
    pub(crate) key: usize,
    pub(crate) at: Time,
    /// What was in force when it was read.
    pub(crate) epoch: Option<Epoch>,
    pub(crate) applied: u64,
    pub(crate) settings: u64,
    /// Whether its lease had ended.
    pub(crate) is_fenced: bool,
    /// Whether the route goes on serving then.
    pub(crate) is_lazy: bool,
}

/// What a reader got from a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    pub(crate) body: Body,
    /// Whether it was said to be fresh.
    pub(crate) is_fresh: bool,
    /// The settings that it came to be by.
    pub(crate) settings: u64,
    /// Whether it was fetched after the reader came: then it is right by itself.
    pub(crate) is_new: bool,
}

/// An unsafe request that was answered well.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    pub(crate) edge: usize,
    pub(crate) life: u64,
    pub(crate) key: usize,
    /// When the upstream changed its value.
    pub(crate) written: Time,
    pub(crate) answered: Time,
    /// Whether the other edges must hear of it: not where this one was killed before the journal had it.
    pub(crate) is_owed: bool,
}

/// A configuration that all nodes understand, or not.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Configured {
    pub(crate) epoch: Epoch,
    pub(crate) seq: u64,
    /// The routes' settings from here on; nothing where nobody understands them.
    pub(crate) settings: Option<u64>,
    pub(crate) complete: Option<Time>,
}

/// All that is so.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    pub(crate) purges: Vec<Purge>,
    pub(crate) configured: Vec<Configured>,
    pub(crate) answered: Vec<Answered>,
    /// Epochs whose journal was replaced by an older copy of itself: seqs tell nothing in them.
    pub(crate) ambiguous: Vec<Epoch>,
    /// Whether there may be fenced edges of which the origin does not know that they go on serving by choice (P7): where
    /// the journal was replaced by a copy from before they followed, or two processes follow under one name.
    pub(crate) is_uncertain: bool,
    /// When all was healed and settled: what unsafe requests changed is changed everywhere from there on.
    pub(crate) settled: Option<Time>,
}

impl Truth {
    /// Says what is wrong with what a reader got from a cache.
    pub(crate) fn judge(&self, arrived: &Arrived, served: &Served) -> Result<(), String> {
        for purge in self.purges.iter().filter(|purge| purge.about.touches(arrived.key) && !purge.is_void) {
            let is_told = arrived.epoch == Some(purge.epoch) && !self.ambiguous.contains(&purge.epoch);
            let was_applied = is_told && arrived.applied >= purge.seq;
            let is_unknown = arrived.is_fenced && arrived.is_lazy && self.is_uncertain;
            let was_complete = !is_unknown && purge.complete.is_some_and(|complete| complete <= arrived.at);
            let how = match (was_complete, was_applied) {
                (true, _) => "was complete",
                (_, true) => "was in force here",
                _ => continue,
            };
            if served.body.was_shared && self.ambiguous.contains(&purge.epoch) {
                continue;
            }
            match purge.mode {
                Mode::Hard if served.body.validated < purge.appended => {
                    return Err(format!("P1: it got what was right before purge {}, which {how} when it came", purge.seq));
                }
                Mode::Soft if served.is_fresh && served.body.validated < purge.appended => {
                    return Err(format!("P1: it got as fresh what was right before soft purge {}, which {how} when it came", purge.seq));
                }
                Mode::Hard | Mode::Soft => {}
            }
        }
        let is_ambiguous = served.body.was_shared && arrived.epoch.is_some_and(|epoch| self.ambiguous.contains(&epoch));
        for write in self.answered.iter().filter(|write| write.key == arrived.key && served.body.validated < write.written) {
            if !is_ambiguous && write.edge == arrived.edge && write.life == arrived.life && write.answered <= arrived.at {
                return Err("P8: it got what an unsafe request had changed before, at this very edge".to_owned());
            }
            if self.settled.is_some_and(|settled| settled <= arrived.at) && write.is_owed {
                return Err("P8: it got what an unsafe request had changed at another edge, long before".to_owned());
            }
        }
        self.judge_settings(arrived, served)
    }

    /// Says what is wrong with renewing an entry by a 304, at an edge where this is in force: the bytes of what was
    /// purged are never used again, whatever the upstream says (P4).
    pub(crate) fn judge_renewal(&self, key: usize, body: &Body, epoch: Epoch, applied: u64) -> Result<(), String> {
        let touches = |purge: &&Purge| purge.mode == Mode::Hard && purge.about.touches(key) && !purge.is_void;
        let is_told = |purge: &&Purge| purge.epoch == epoch && purge.seq <= applied && !self.ambiguous.contains(&epoch);
        match self.purges.iter().filter(touches).filter(is_told).find(|purge| body.validated < purge.appended) {
            Some(purge) => Err(format!("P4: a 304 renewed what purge {} had taken", purge.seq)),
            None => Ok(()),
        }
    }

    fn judge_settings(&self, arrived: &Arrived, served: &Served) -> Result<(), String> {
        if served.settings != arrived.settings {
            return Err(format!("P1: it came to be by settings {}, and {} are in force", served.settings, arrived.settings));
        }
        let complete = |config: &Configured| config.complete.is_some_and(|complete| complete <= arrived.at);
        let done = self.configured.iter().rposition(complete);
        // What came after an unknown configuration, in its place, may be in force already.
        let later = done.and_then(|done| self.configured.get(done + 1..)?.iter().find_map(|config| config.settings));
        let is_later = later.is_some_and(|later| later <= arrived.settings);
        let done = done.and_then(|done| self.configured.get(done));
        match done {
            _ if served.is_new || is_later || (arrived.is_fenced && arrived.is_lazy && self.is_uncertain) => Ok(()),
            Some(Configured { settings: None, seq, .. }) => Err(format!("configuration {seq}, which is not understood, was complete")),
            Some(Configured { settings: Some(settings), .. }) if served.settings < *settings => {
                Err(format!("P1: it came to be by settings {}, and {settings} were complete when it came", served.settings))
            }
            _ => Ok(()),
        }
    }

    /// Returns the newest event that bears this number, where there is one.
    pub(crate) fn purge(&mut self, epoch: Epoch, seq: u64) -> Option<&mut Purge> {
        self.purges.iter_mut().rev().find(|purge| purge.epoch == epoch && purge.seq == seq)
    }
}
