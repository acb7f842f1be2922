//! Where the shared journal lies, and what can be asked of it: one function for each script.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::redis::{self, FromRedisValue as _, Value};
use engine::{Redis, Script, Trouble};
use wire::{Chain, Epoch, Position};

use super::super::batch::Row;
use super::super::{StoredEvent, class_of};
use super::said::{self, Entry, Said, Word};

/// How long a WAIT waits for replicas; well below what one call may take.
const REPLICATING: Duration = Duration::from_secs(1);

macro_rules! script {
    ($name:literal) => {
        concat!(include_str!("scripts/common.lua"), include_str!(concat!("scripts/", $name, ".lua")))
    };
}

const APPEND: &str = script!("append");
const TOUCH: &str = script!("touch");

/// The journal's keys in a Redis. All have one hash tag, so that a cluster keeps them together.
pub(in crate::journal) struct Shelf {
    redis: Redis,
    network: String,
    keys: [String; 4],
    replicas: u64,
    /// Whether the server can wait for the logs of replicas, not for their memory alone.
    waits_for_logs: AtomicBool,
    scripts: Scripts,
}

struct Scripts {
    look: Script,
    append: Script,
    raise: Script,
    adopt: Script,
    load: Script,
    begin: Script,
    snapshot: Script,
    read: Script,
}

/// An event on its way to the shelf.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) seq: u64,
    pub(super) chain: Chain,
    pub(super) json: &'a str,
}

impl<'a> Line<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        Self { seq: row.event.seq, chain: row.chain, json: &row.json }
    }

    pub(super) fn of_stored(event: &'a StoredEvent) -> Self {
        Self { seq: event.seq, chain: event.chain, json: &event.json }
    }
}

/// A position as the scripts compare it.
struct Place {
    epoch: String,
    seq: String,
    chain: String,
}

impl Place {
    fn of(position: &Position) -> Self {
        Self { epoch: position.epoch.to_string(), seq: position.seq.to_string(), chain: position.chain.to_string() }
    }

    fn arguments(&self) -> [&[u8]; 3] {
        [self.epoch.as_bytes(), self.seq.as_bytes(), self.chain.as_bytes()]
    }
}

impl Shelf {
    pub(in crate::journal) fn new(redis: Redis, network: &str, replicas: u64) -> Self {
        let key = |name: &str| format!("{{{network}}}:atoll-journal:1:{name}");
        let scripts = Scripts {
            look: Script::new(script!("look")),
            append: Script::new(APPEND),
            raise: Script::new(script!("raise")),
            adopt: Script::new(script!("adopt")),
            load: Script::new(script!("load")),
            begin: Script::new(script!("begin")),
            snapshot: Script::new(script!("snapshot")),
            read: Script::new(script!("read")),
        };
        let keys = [key("head"), key("events"), key("snapshot"), key("durable")];
        Self { redis, network: network.to_owned(), keys, replicas, waits_for_logs: AtomicBool::new(false), scripts }
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) fn network(&self) -> &str {
        &self.network
    }

    /// The streams of events, and of how far they are durable.
    pub(super) fn streams(&self) -> [&str; 2] {
        [&self.keys[1], &self.keys[3]]
    }

    pub(super) fn has_replicas(&self) -> bool {
        self.replicas > 0
    }

    async fn ask(&self, script: &Script, arguments: &[&[u8]]) -> Result<Said, Trouble> {
        let keys: Vec<&[u8]> = self.keys.iter().map(String::as_bytes).collect();
        self.redis.run(script, &keys, arguments).await
    }

    /// Asks what is behind a position; with a fence, an append that is under way can't succeed any more.
    pub(super) async fn look(&self, run: &str, at: &Position, fence: bool) -> Result<Said, Trouble> {
        let at = Place::of(at);
        let [epoch, seq, chain] = at.arguments();
        let fence: &[u8] = if fence { b"1" } else { b"0" };
        self.ask(&self.scripts.look, &[run.as_bytes(), epoch, seq, chain, fence]).await
    }

    /// Appends if the head is exactly `at`; tells also whether replicas have it, where they must.
    pub(super) async fn append(&self, run: &str, at: &Position, turn: &str, lines: &[Line<'_>]) -> Result<(Said, bool), Trouble> {
        let at = Place::of(at);
        let [epoch, seq, chain] = at.arguments();
        let places: Vec<_> = lines.iter().map(|line| (line.seq.to_string(), line.chain.to_string())).collect();
        let mut arguments = vec![run.as_bytes(), epoch, seq, chain, turn.as_bytes()];
        for ((seq, chain), line) in places.iter().zip(lines) {
            arguments.extend([seq.as_bytes(), chain.as_bytes(), line.json.as_bytes()]);
        }
        if self.has_replicas() {
            return self.ask_and_wait(APPEND, &arguments).await;
        }
        Ok((self.ask(&self.scripts.append, &arguments).await?, true))
    }

    /// Tells whether replicas have all that was written by now.
    pub(super) async fn confirm(&self, run: &str, epoch: Epoch) -> Result<(Said, bool), Trouble> {
        self.ask_and_wait(TOUCH, &[run.as_bytes(), epoch.to_string().as_bytes()]).await
    }

    /// A WAIT counts what its own connection wrote: the script that writes and the WAIT go out as one, since the connection
    /// may be another one by the next call, and a WAIT there would say yes at once.
    async fn ask_and_wait(&self, script: &str, arguments: &[&[u8]]) -> Result<(Said, bool), Trouble> {
        let mut pipeline = redis::pipe();
        pipeline.cmd("EVAL").arg(script).arg(self.keys.len());
        for part in self.keys.iter().map(String::as_bytes).chain(arguments.iter().copied()) {
            pipeline.arg(part);
        }
        let waits_for_logs = self.waits_for_logs.load(Ordering::Relaxed);
        if waits_for_logs {
            pipeline.cmd("WAITAOF").arg(1);
        } else {
            pipeline.cmd("WAIT");
        }
        pipeline.arg(self.replicas).arg(u64::try_from(REPLICATING.as_millis()).unwrap_or(u64::MAX));
        let answers: Vec<Value> = self.redis.pipe(&pipeline).await?;
        let [answer, waited] = said::array(Value::Array(answers)).map_err(refused)?;
        Ok((Said::from_redis_value(answer).map_err(refused)?, reached(waited).map_err(refused)? >= self.replicas))
    }

    /// Says up to where replicas have it, so that other origins show it.
    pub(super) async fn raise(&self, run: &str, epoch: Epoch, seq: u64) -> Result<Said, Trouble> {
        let (epoch, seq) = (epoch.to_string(), seq.to_string());
        self.ask(&self.scripts.raise, &[run.as_bytes(), epoch.as_bytes(), seq.as_bytes()]).await
    }

    /// Agrees on the process that there is now, unless somebody else did.
    pub(super) async fn adopt(&self, known: &str, actual: &str) -> Result<Said, Trouble> {
        self.ask(&self.scripts.adopt, &[known.as_bytes(), actual.as_bytes()]).await
    }

    /// Asks what there is, with the snapshot.
    pub(super) async fn load(&self) -> Result<Said, Trouble> {
        self.ask(&self.scripts.load, &[]).await
    }

    /// Begins a life of the journal with `next` and what it looks like, if the head is exactly `expected`.
    pub(super) async fn begin(&self, run: &str, expected: Option<&Position>, next: &Position, state: &[u8]) -> Result<Said, Trouble> {
        let (expected, next) = (expected.map(Place::of), Place::of(next));
        let [epoch, seq, chain] = expected.as_ref().map_or([b"".as_slice(); 3], Place::arguments);
        let [next_epoch, next_seq, next_chain] = next.arguments();
        self.ask(&self.scripts.begin, &[run.as_bytes(), epoch, seq, chain, next_epoch, next_seq, next_chain, state]).await
    }

    /// Replaces the snapshot, unless who asks is behind, and cuts what lies before `kept_from`.
    pub(super) async fn snapshot(&self, run: &str, at: &Position, fence: u64, kept_from: u64, state: &[u8]) -> Result<Said, Trouble> {
        let (at, fence, kept_from) = (Place::of(at), fence.to_string(), kept_from.to_string());
        let [epoch, seq, chain] = at.arguments();
        self.ask(&self.scripts.snapshot, &[run.as_bytes(), epoch, seq, chain, fence.as_bytes(), kept_from.as_bytes(), state]).await
    }

    /// Reads events behind `seq` that are shown by now.
    pub(in crate::journal) async fn read_after(
        &self,
        run: &str,
        seq: u64,
        most: usize,
        head: &Position,
    ) -> Result<Vec<Arc<StoredEvent>>, Trouble> {
        let entries = self.read(run, seq + 1, most).await?;
        // Another origin may have begun another life meanwhile, or appended what is not shown here yet.
        let shown = entries.into_iter().take_while(|entry| entry.epoch == head.epoch && entry.seq <= head.seq);
        let stored =
            |entry: Entry| StoredEvent { seq: entry.seq, chain: entry.chain, class: class_of(&entry.json), json: entry.json.into() };
        Ok(shown.map(stored).map(Arc::new).collect())
    }

    /// Returns the chain behind an event of this life, where it was not cut.
    pub(in crate::journal) async fn chain_at(&self, run: &str, epoch: Epoch, seq: u64) -> Result<Option<Chain>, Trouble> {
        let entries = self.read(run, seq.max(1), 1).await?;
        let first = entries.first().filter(|entry| entry.epoch == epoch);
        Ok(match first {
            Some(entry) if entry.seq == seq => Some(entry.chain),
            Some(entry) if seq == 0 && entry.seq == 1 => Some(Chain::START),
            _ => None,
        })
    }

    async fn read(&self, run: &str, from: u64, most: usize) -> Result<Vec<Entry>, Trouble> {
        let (from, most) = (from.to_string(), most.to_string());
        let said = self.ask(&self.scripts.read, &[run.as_bytes(), from.as_bytes(), most.as_bytes()]).await?;
        if said.word == Word::Here {
            return Ok(said.entries);
        }
        Err(Trouble::Away("it is another process, and what that knows is compared first".to_owned()))
    }

    /// Finds out whether the server can wait for the logs of its replicas.
    pub(super) async fn learn_to_wait(&self) -> Result<(), Trouble> {
        let known: Value = self.redis.call(redis::cmd("COMMAND").arg("INFO").arg("WAITAOF")).await?;
        let is_known = matches!(&known, Value::Array(commands) if commands.iter().any(|command| !matches!(command, Value::Nil)));
        self.waits_for_logs.store(is_known, Ordering::Relaxed);
        Ok(())
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("redis", &self.redis).field("keys", &self.keys).finish_non_exhaustive()
    }
}

fn refused(error: redis::ParsingError) -> Trouble {
    Trouble::Refused(error.into())
}

/// How many replicas have it: WAIT says just that, WAITAOF whether this server has it before.
fn reached(waited: Value) -> Result<u64, redis::ParsingError> {
    match waited {
        Value::Array(_) => {
            let [own, replicas] = said::array(waited)?;
            Ok(if u64::from_redis_value(own)? > 0 { u64::from_redis_value(replicas)? } else { 0 })
        }
        count => u64::from_redis_value(count),
    }
}
