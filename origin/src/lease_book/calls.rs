//! The book that origins share, on Redis: each call is one script, whose texts lie beside this file.

use std::time::Duration;

use engine::redis;
use engine::redis::aio::MultiplexedConnection;
use engine::redis::streams::{StreamId, StreamReadReply};
use engine::redis::{FromRedisValue, RedisError};
use engine::{Redis, Script, Trouble};
use wire::{Epoch, Position};

use super::arbiter::Distrust;
use super::lines::{Acked, Asked, Completed, Elsewhere, Entry, Line, Recalled, Table, Verdict, Who, write_who};
use super::millis;

/// How long a read of the log waits for news. Then the book is looked at: another process may keep it by now.
const BLOCK: Duration = Duration::from_secs(1);

/// How much longer the answer may take, before the connection counts as broken.
const BLOCK_MORE: Duration = Duration::from_secs(2);

/// Entries that are read at a time.
const ENTRIES: usize = 256;

/// How many replicas must have a grant before its follower hears of it, and how long that may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas {
    pub(crate) number: u64,
    pub(crate) within: Duration,
}

/// Why a call failed. What was written then holds completion back at the most.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Elsewhere(#[from] Elsewhere),
    #[error(transparent)]
    Trouble(#[from] Trouble),
    #[error("the log of the lease book could not be read: {0}")]
    Log(#[from] RedisError),
    #[error("the log of the lease book was silent for {0:?}")]
    Silent(Duration),
    #[error("the answer of the lease book is not understood: {0}")]
    NotUnderstood(String),
    #[error("it has just begun anew, and gives leases in a moment")]
    Early,
    #[error("its log is read from another server than the one that answers")]
    Missed,
    #[error("fewer than {0} replicas have the lease")]
    NotReplicated(u64),
    #[error("the lease book changes all the time")]
    Unsettled,
}

/// Handles on the scripts, and on the server that runs them.
#[derive(Debug)]
pub(crate) struct Calls {
    redis: Redis,
    keys: [String; 7],
    replicas: Option<Replicas>,
    hold: Duration,
    scripts: Scripts,
}

#[derive(Debug)]
struct Scripts {
    ack: Script,
    complete: Script,
    drain: Script,
    forget: Script,
    shorten: Script,
    epoch: Script,
    distrust: Script,
    recall: Script,
    vouch: Script,
    load: Script,
    look: Script,
}

/// Every script begins with the same part.
macro_rules! script {
    ($file:literal) => {
        Script::new(concat!(include_str!("scripts/prelude.lua"), "\n", include_str!($file)))
    };
}

impl Scripts {
    fn new() -> Self {
        Self {
            ack: script!("scripts/ack.lua"),
            complete: script!("scripts/complete.lua"),
            drain: script!("scripts/drain.lua"),
            forget: script!("scripts/forget.lua"),
            shorten: script!("scripts/shorten.lua"),
            epoch: script!("scripts/epoch.lua"),
            distrust: script!("scripts/distrust.lua"),
            recall: script!("scripts/recall.lua"),
            vouch: script!("scripts/vouch.lua"),
            load: script!("scripts/load.lua"),
            look: script!("scripts/look.lua"),
        }
    }
}

impl Calls {
    /// Prepares calls to the book of a network. All of its keys share one hash tag. For as long as `hold`, a run that has just
    /// begun gives no lease: whoever knew the one before says first how far that had come.
    pub(crate) fn new(redis: Redis, network: &str, replicas: Option<Replicas>, hold: Duration) -> Self {
        let key = |part: &str| format!("{{{network}}}:atoll-book:1:{part}");
        let journal = format!("{{{network}}}:atoll-journal:1:head");
        let keys = [key("head"), key("names"), key("lives"), key("edges"), key("said"), key("log"), journal];
        Self { redis, keys, replicas, hold, scripts: Scripts::new() }
    }

    async fn run<T: FromRedisValue>(&self, script: &Script, arguments: &[String]) -> Result<T, CallError> {
        let keys: Vec<&[u8]> = self.keys.iter().map(String::as_bytes).collect();
        let arguments: Vec<&[u8]> = arguments.iter().map(String::as_bytes).collect();
        Ok(self.redis.run(script, &keys, &arguments).await?)
    }

    /// Returns what a script answered, or nothing where it refused.
    async fn ask(&self, script: &Script, arguments: &[String]) -> Result<Option<Vec<String>>, CallError> {
        let mut answer: Vec<String> = self.run(script, arguments).await?;
        let word = if answer.is_empty() { String::new() } else { answer.remove(0) };
        let first = || answer.first().cloned().unwrap_or_default();
        match word.as_str() {
            "ok" | "done" => Ok(Some(answer)),
            "no" => Ok(None),
            "early" => Err(CallError::Early),
            "run" => Err(Elsewhere::Run(first()).into()),
            "epoch" => Err(Elsewhere::Epoch(first().parse().map_err(|_| CallError::NotUnderstood(first()))?).into()),
            _ => Err(CallError::NotUnderstood(word)),
        }
    }

    /// As [`super::Arbiter::ack`] does it. Where replicas are to have the grants, nobody hears of one before they do: else a
    /// server that was cut off could go on granting while another one is taken for the book.
    pub(crate) async fn ack(&self, run: &str, epoch: Epoch, asked: &[Asked]) -> Result<Acked, CallError> {
        let mut arguments = vec![run.to_owned(), epoch.to_string(), millis(self.hold).to_string()];
        arguments.extend(asked.iter().flat_map(Asked::written));
        let connection = self.redis.connection();
        let answer = self.ask(&self.scripts.ack, &arguments).await?;
        self.replicated(connection).await?;
        let read = answer.as_deref().and_then(|answer| {
            let (head, verdicts) = answer.split_first()?;
            let verdicts = verdicts.chunks_exact(2).map(|pair| Verdict::read(pair.first()?, pair.last()?));
            Some(Acked { head: head.parse().ok()?, verdicts: verdicts.collect::<Option<Vec<_>>>()? })
        });
        let acked = read.filter(|acked| acked.verdicts.len() == asked.len());
        acked.ok_or_else(|| CallError::NotUnderstood(format!("{answer:?}").chars().take(200).collect()))
    }

    /// Waits until replicas have what was written on `connection`: the server counts for the connection that asks.
    async fn replicated(&self, connection: u64) -> Result<(), CallError> {
        let Some(Replicas { number, within }) = self.replicas else { return Ok(()) };
        let reached: u64 = self.redis.call(redis::cmd("WAIT").arg(number).arg(millis(within))).await?;
        let is_same = self.redis.connection() == connection;
        if is_same && reached >= number { Ok(()) } else { Err(CallError::NotReplicated(number)) }
    }

    /// As [`super::Arbiter::complete`] does it.
    pub(crate) async fn complete(&self, run: &str, epoch: Epoch, seq: u64, ended: &[u64]) -> Result<Option<Completed>, CallError> {
        let mut arguments = vec![run.to_owned(), epoch.to_string(), seq.to_string()];
        arguments.extend(ended.iter().map(u64::to_string));
        let connection = self.redis.connection();
        let answer = self.ask(&self.scripts.complete, &arguments).await?;
        // On a server that was cut off from its replicas, others may hold leases that are not known there.
        self.replicated(connection).await?;
        let Some(answer) = answer else { return Ok(None) };
        Ok(Some(Completed { seq: number(&answer)?, log: number(answer.get(1..).unwrap_or_default())? }))
    }

    /// As [`super::Arbiter::drain`] does it.
    pub(crate) async fn drain(&self, run: &str, who: &Who) -> Result<bool, CallError> {
        let connection = self.redis.connection();
        let is_known = self.ask(&self.scripts.drain, &[run.to_owned(), write_who(who)]).await?.is_some();
        self.replicated(connection).await?;
        Ok(is_known)
    }

    /// As [`super::Arbiter::forget`] does it.
    pub(crate) async fn forget(&self, run: &str, who: &Who, grant: u64) -> Result<bool, CallError> {
        Ok(self.ask(&self.scripts.forget, &[run.to_owned(), write_who(who), grant.to_string()]).await?.is_some())
    }

    /// As [`super::Arbiter::shorten`] does it.
    pub(crate) async fn shorten(&self, run: &str, seen: u64) -> Result<Option<Duration>, CallError> {
        let answer = self.ask(&self.scripts.shorten, &[run.to_owned(), seen.to_string()]).await?;
        answer.map(|answer| number(&answer).map(Duration::from_millis)).transpose()
    }

    /// As [`super::Arbiter::begin_epoch`] does it.
    pub(crate) async fn begin_epoch(&self, run: &str, head: &Position) -> Result<(), CallError> {
        self.ask(&self.scripts.epoch, &[run.to_owned(), head.epoch.to_string(), head.seq.to_string()]).await?;
        Ok(())
    }

    /// As [`super::Arbiter::distrust`] does it.
    pub(crate) async fn distrust(&self, why: &Distrust<'_>) -> Result<String, CallError> {
        let arguments = [
            why.known.to_owned(),
            why.name.to_owned(),
            why.epoch.to_string(),
            why.head.to_string(),
            millis(why.longest).to_string(),
            millis(why.assumed).to_string(),
        ];
        let answer = self.ask(&self.scripts.distrust, &arguments).await?;
        answer.into_iter().flatten().next().ok_or_else(|| CallError::NotUnderstood("a run without a name".to_owned()))
    }

    /// As [`super::Arbiter::recall`] does it.
    pub(crate) async fn recall(&self, run: &str, epoch: Epoch, known: &[Recalled]) -> Result<usize, CallError> {
        let mut arguments = vec![run.to_owned(), epoch.to_string()];
        arguments.extend(known.iter().flat_map(Recalled::written));
        let answer = self.ask(&self.scripts.recall, &arguments).await?.unwrap_or_default();
        Ok(usize::try_from(number(&answer)?).unwrap_or(usize::MAX))
    }

    /// As [`super::Arbiter::vouch`] does it.
    pub(crate) async fn vouch(&self, run: &str, epoch: Epoch, seq: u64, longest: Duration) -> Result<u64, CallError> {
        let arguments = [run.to_owned(), epoch.to_string(), seq.to_string(), millis(longest).to_string()];
        let answer = self.ask(&self.scripts.vouch, &arguments).await?.unwrap_or_default();
        number(&answer)
    }

    /// As [`super::Arbiter::load`] does it.
    pub(crate) async fn load(&self) -> Result<Option<Table>, CallError> {
        let parts: (Vec<String>, Vec<String>, Vec<String>, Vec<String>, Vec<String>) = self.run(&self.scripts.load, &[]).await?;
        let (head, names, lives, edges, said) = parts;
        if head.iter().take(2).map(String::as_str).eq(["run", ""]) {
            return Ok(None);
        }
        let table = Table::read(head, names, lives, edges, said);
        table.map(Some).ok_or_else(|| CallError::NotUnderstood("its head".to_owned()))
    }

    /// Returns the number of the log's last entry. Fails where the book is not the one of `run` any more.
    pub(crate) async fn look(&self, run: &str) -> Result<u64, CallError> {
        let answer = self.ask(&self.scripts.look, &[run.to_owned()]).await?.unwrap_or_default();
        number(&answer)
    }

    /// Returns a connection to read the log on.
    pub(crate) async fn reader(&self) -> Result<MultiplexedConnection, CallError> {
        Ok(self.redis.own().await?)
    }

    /// Returns what stands in the log behind number `after`, as soon as there is something; nothing where there is nothing for a
    /// while.
    pub(crate) async fn entries(&self, reader: &mut MultiplexedConnection, after: u64) -> Result<Vec<Entry>, CallError> {
        let [.., log, _] = &self.keys;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(ENTRIES).arg("BLOCK").arg(millis(BLOCK)).arg("STREAMS").arg(log).arg(format!("{after}-0"));
        let reading = command.query_async::<Option<StreamReadReply>>(reader);
        let read = tokio::time::timeout(BLOCK + BLOCK_MORE, reading).await.map_err(|_| CallError::Silent(BLOCK + BLOCK_MORE))??;
        let found = read.into_iter().flat_map(|read| read.keys).flat_map(|key| key.ids);
        found.map(|found| entry(&found).ok_or(CallError::NotUnderstood(found.id))).collect()
    }
}

fn number(answer: &[String]) -> Result<u64, CallError> {
    let number = answer.first().and_then(|text| text.parse().ok());
    number.ok_or_else(|| CallError::NotUnderstood(format!("{answer:?}").chars().take(200).collect()))
}

fn entry(found: &StreamId) -> Option<Entry> {
    let number = found.id.strip_suffix("-0")?.parse().ok()?;
    let lines: Vec<Vec<String>> = serde_json::from_str(&found.get::<String>("l")?).ok()?;
    Some(Entry { number, run: found.get("r")?, lines: lines.iter().map(|line| Line::read(line)).collect() })
}
