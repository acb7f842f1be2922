//! What origins tell each other of leases: the lines of the log of the book that they share, and the whole of that book.
//!
//! Every line is a list of texts, the first of which says what kind it is: Redis' scripts write them as JSON. Nothing here has
//! a time: each origin counts a lease by its own clock, from when it first saw its number.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::{Ack, Epoch, NodeName, PROTOCOL, RegionName, Role};

use super::millis;

/// A follower, by what it does and its name.
pub type Who = (Role, NodeName);

/// Bytes of what a follower says of itself; the counters of one that says more are left out.
const NEWS: usize = 8192;

/// A lease as the book knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its number: each grant of a run of the book has a higher one, whoever it is for.
    pub number: u64,
    /// How long it runs, or the longest that was granted to the same life.
    pub lease: Duration,
}

/// The lease of a former life that may still run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What that life had applied.
    pub applied: u64,
    /// Its last lease.
    pub grant: Grant,
}

/// One change of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line {
    /// An ack was taken in.
    Ack {
        /// Whose.
        who: Who,
        /// The life that it is of, which is the present one from now on.
        life: String,
        /// What that life has applied.
        applied: u64,
        /// The lease that it was given, if it was.
        grant: Option<Grant>,
        /// What it says of itself; empty where that is no news.
        news: String,
    },
    /// Of too many former lives two count as one from now on.
    Merged {
        /// Whose.
        who: Who,
        /// The grants of the two.
        of: [u64; 2],
        /// The life that stands for both.
        life: String,
        /// What both had applied.
        applied: u64,
        /// The grant that stands for both: one of theirs, or a new one.
        grant: Grant,
    },
    /// Everything up to `seq` is complete.
    Complete {
        /// Up to where.
        seq: u64,
        /// The grants whose leases have ended for it, in order.
        ended: Vec<u64>,
    },
    /// Its present life was taken out of service.
    Drained(Who),
    /// Nothing of it matters any more.
    Forgotten(Who),
    /// An origin remembered a follower that the book had lost.
    Known(Recalled),
    /// The longest lease that may run is shorter from now on.
    Longest(Duration),
    /// Another run or epoch has begun, or a newer version wrote this: everything is to be read anew.
    Anew,
}

/// A follower without any lease, as an origin puts it back into a book that has lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Who.
    pub who: Who,
    /// Its present life.
    pub life: String,
    /// What that has applied.
    pub applied: u64,
    /// Whether it was taken out of service.
    pub drained: bool,
    /// What it says of itself.
    pub news: String,
}

/// Lines that were written in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The place in the log: one more than the entry before.
    pub number: u64,
    /// The run of the book that it is of.
    pub run: String,
    /// What has changed.
    pub lines: Vec<Line>,
}

/// The whole book as of one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The run that it is of.
    pub run: String,
    /// The epoch that it is for.
    pub epoch: Epoch,
    /// The highest seq that was made complete in this epoch.
    pub complete: u64,
    /// The longest lease that may run.
    pub longest: Duration,
    /// The number of the last grant.
    pub grants: u64,
    /// The last entry of the log that it contains.
    pub log: u64,
    /// Every follower, in order.
    pub named: Vec<Named>,
}

/// One follower in the whole book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Who.
    pub who: Who,
    /// Its present life.
    pub life: String,
    /// Whether that was taken out of service.
    pub drained: bool,
    /// What that has applied.
    pub applied: u64,
    /// Its last lease; number 0 where it had none.
    pub grant: Grant,
    /// Whether the book still counts that as running: of edges alone.
    pub is_counted: bool,
    /// Leases of former lives that may still run, the oldest first.
    pub former: Vec<Held>,
    /// Lives that were replaced, the oldest first.
    pub replaced: Vec<String>,
    /// What it says of itself; empty where nobody knows.
    pub news: String,
}

/// What a follower says of itself, beside how far it has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct News {
    pub(crate) region: RegionName,
    #[serde(default = "protocol")]
    pub(crate) protocol: [u32; 2],
    #[serde(default)]
    pub(crate) answers: Vec<IpAddr>,
    #[serde(default)]
    pub(crate) draining: bool,
    #[serde(default)]
    pub(crate) load: f64,
    #[serde(default)]
    pub(crate) counts: BTreeMap<String, u64>,
    /// The id of the token that its ack came with.
    #[serde(default)]
    pub(crate) token: Option<String>,
}

fn protocol() -> [u32; 2] {
    PROTOCOL
}

impl News {
    pub(crate) fn of(ack: &Ack, token: Option<String>) -> Self {
        Self {
            region: ack.region.clone(),
            protocol: ack.protocol,
            answers: ack.answers.clone(),
            draining: ack.draining,
            load: ack.load,
            counts: ack.counts.clone(),
            token,
        }
    }

    /// Returns it as text; empty, as if there were no news, where it is too long even without its counters.
    pub(crate) fn written(mut self) -> String {
        let text = serde_json::to_string(&self).unwrap_or_default();
        if text.len() <= NEWS {
            return text;
        }
        self.counts.clear();
        let text = serde_json::to_string(&self).unwrap_or_default();
        if text.len() <= NEWS { text } else { String::new() }
    }

    pub(crate) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

pub(crate) fn write_who((role, name): &Who) -> String {
    format!("{role}/{name}")
}

pub(crate) fn read_who(text: &str) -> Option<Who> {
    let (role, name) = text.split_once('/')?;
    Some((role.parse().ok()?, name.parse().ok()?))
}

impl Line {
    /// Reads a line of the log. One that is not understood may change anything.
    pub(crate) fn read(texts: &[String]) -> Self {
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        Self::understand(&texts).unwrap_or(Self::Anew)
    }

    fn understand(texts: &[&str]) -> Option<Self> {
        let lease = |number: &str, ms: &str| Some(Grant { number: number.parse().ok()?, lease: Duration::from_millis(ms.parse().ok()?) });
        Some(match *texts {
            ["ack", who, life, applied, number, ms, news] => {
                let grant = Some(lease(number, ms)?).filter(|grant| grant.number > 0);
                Self::Ack { who: read_who(who)?, life: life.to_owned(), applied: applied.parse().ok()?, grant, news: news.to_owned() }
            }
            ["merged", who, one, two, life, applied, number, ms] => Self::Merged {
                who: read_who(who)?,
                of: [one.parse().ok()?, two.parse().ok()?],
                life: life.to_owned(),
                applied: applied.parse().ok()?,
                grant: lease(number, ms)?,
            },
            ["complete", seq, ref ended @ ..] => {
                let mut ended: Vec<u64> = ended.iter().map(|number| number.parse().ok()).collect::<Option<_>>()?;
                ended.sort_unstable();
                Self::Complete { seq: seq.parse().ok()?, ended }
            }
            ["drained", who] => Self::Drained(read_who(who)?),
            ["forgotten", who] => Self::Forgotten(read_who(who)?),
            ["known", who, life, applied, drained, news] => Self::Known(Recalled {
                who: read_who(who)?,
                life: life.to_owned(),
                applied: applied.parse().ok()?,
                drained: drained == "1",
                news: news.to_owned(),
            }),
            ["longest", ms] => Self::Longest(Duration::from_millis(ms.parse().ok()?)),
            ["anew"] => Self::Anew,
            _ => return None,
        })
    }
}

impl Recalled {
    /// Returns what a script is given of it.
    pub(crate) fn written(&self) -> [String; 5] {
        let drained = if self.drained { "1" } else { "0" };
        [write_who(&self.who), self.life.clone(), self.applied.to_string(), drained.to_owned(), self.news.clone()]
    }
}

impl Table {
    /// Reads what the script `load` returns; `None` where the book is of no run, or is not understood.
    pub(crate) fn read(head: Vec<String>, names: Vec<String>, lives: Vec<String>, edges: Vec<String>, said: Vec<String>) -> Option<Self> {
        let head = pairs(head);
        let number = |field: &str| head.get(field).and_then(|text| text.parse::<u64>().ok());
        let (lives, mut said) = (pairs(lives), pairs(said));
        let edges: BTreeSet<String> = edges.into_iter().collect();
        let mut named: Vec<Named> = pairs(names)
            .iter()
            .filter_map(|(who, stored)| {
                let news = said.remove(who).unwrap_or_default();
                Named::read(who, stored, &lives, &edges, news)
            })
            .collect();
        named.sort_by(|one, other| one.who.cmp(&other.who));
        Some(Self {
            run: head.get("run").filter(|run| !run.is_empty())?.clone(),
            epoch: head.get("epoch")?.parse().ok()?,
            complete: number("complete")?,
            longest: Duration::from_millis(number("longest")?),
            grants: number("grants")?,
            log: number("log")?,
            named,
        })
    }
}

impl Named {
    fn read(who: &str, stored: &str, lives: &BTreeMap<String, String>, edges: &BTreeSet<String>, news: String) -> Option<Self> {
        let mut lines = stored.split('\n');
        let (life, drained, former, replaced) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let held = |life: &str| lives.get(&format!("{who}/{life}")).and_then(|stored| Held::read(stored));
        let none = Held { applied: 0, grant: Grant { number: 0, lease: Duration::ZERO } };
        let present = held(life).unwrap_or(none);
        Some(Self {
            who: read_who(who)?,
            life: life.to_owned(),
            drained: drained == "1",
            applied: present.applied,
            grant: present.grant,
            is_counted: edges.contains(&format!("{who}/{life}")),
            former: former.split_whitespace().filter_map(held).collect(),
            replaced: replaced.split_whitespace().map(str::to_owned).collect(),
            news,
        })
    }
}

impl Held {
    fn read(stored: &str) -> Option<Self> {
        let mut numbers = stored.split(' ').map(str::parse::<u64>);
        let (number, ms, applied) = (numbers.next()?.ok()?, numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(Self { applied, grant: Grant { number, lease: Duration::from_millis(ms) } })
    }
}

fn pairs(flat: Vec<String>) -> BTreeMap<String, String> {
    let mut flat = flat.into_iter();
    std::iter::from_fn(|| flat.next().zip(flat.next())).collect()
}

/// What a follower asks for with an ack whose position is of this history.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who asks.
    pub who: Who,
    /// The life that asks.
    pub life: String,
    /// Up to where everything is in force there.
    pub seq: u64,
    /// The lease that it is to be given.
    pub lease: Duration,
    /// Whether it has left an event unapplied for longer than a lease (L3), as the origin that heard it knows.
    pub is_laggard: bool,
    /// What it says of itself; empty where that is no news.
    pub news: String,
}

impl Asked {
    /// Returns what a script is given of it.
    pub(crate) fn written(&self) -> [String; 7] {
        let lags = if self.is_laggard { "1" } else { "0" };
        let (role, name) = (self.who.0.to_string(), self.who.1.to_string());
        [role, name, self.life.clone(), self.seq.to_string(), millis(self.lease).to_string(), lags.to_owned(), self.news.clone()]
    }
}

/// What becomes of an ack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It gets a lease, by this number.
    Granted(u64),
    /// It has not applied what is complete (L2).
    BelowComplete,
    /// It lags (L3).
    Laggard,
    /// Its life was taken out of service, or another one was heard after it (L4).
    Retired {
        /// Whether a new life of it would be heard.
        anew: bool,
    },
}

/// What becomes of acks that came together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acked {
    /// Where the journal ends that lies beside the book, as far as it is of the book's epoch.
    pub head: u64,
    /// One for each.
    pub verdicts: Vec<Verdict>,
}

/// What was made complete, by this call or before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Up to where.
    pub seq: u64,
    /// The entry of the log by which all origins hear of it: whose leases have ended at that, only the log tells.
    pub log: u64,
}

impl Verdict {
    pub(crate) fn read(word: &str, number: &str) -> Option<Self> {
        Some(match word {
            "granted" => Self::Granted(number.parse().ok()?),
            "below_complete" => Self::BelowComplete,
            "laggard" => Self::Laggard,
            "retired" => Self::Retired { anew: number == "1" },
            _ => return None,
        })
    }
}

/// The book is not the one that the caller means; nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Elsewhere {
    /// It is of this run; of none, where it is empty.
    #[error("the lease book is of another run")]
    Run(String),
    /// It is for this epoch.
    #[error("the lease book is for epoch {0}")]
    Epoch(Epoch),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(texts: &[&str]) -> Line {
        Line::read(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn a_line_that_is_not_understood_makes_everything_be_read_anew() {
        for texts in [&["new_kind", "x"][..], &[], &["ack", "edge/a"], &["complete", "x"], &["drained", "a"], &["longest", "-1"]] {
            assert_eq!(line(texts), Line::Anew, "{texts:?}");
        }
        assert_eq!(line(&["complete", "7", "3", "2"]), Line::Complete { seq: 7, ended: vec![2, 3] });
        assert!(matches!(line(&["ack", "edge/a", "1", "7", "0", "5000", ""]), Line::Ack { grant: None, .. }));
    }

    #[test]
    fn news_that_are_too_long_lose_their_counters() {
        let news = News::read(r#"{"region":"fra"}"#).unwrap();
        let long = News { counts: (0..1000).map(|at| (format!("a counter {at}"), at)).collect(), ..news.clone() };
        assert_eq!(News::read(&long.written()), Some(news));
    }
}
