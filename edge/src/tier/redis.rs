//! The Redis (or Valkey) that a region's edges share. One URL is one key, with its variants and the claim of who fetches
//! it; every call is one script, so that no two edges meet in the midst of one. It may do no harm: a call has 25 ms,
//! and after a few that failed none is made for a while.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::RegionRedis;
use engine::redis::{FromRedisValue, Value};
use engine::{BadAddress, Breaker, Redis, Script, Trouble};
use follow::boottime;

use super::name::hex;
use super::portable::VERSION;
use super::{Claim, Failed, Held, Look, Stamp, UrlName, Write, Written};

/// How long any call may take.
const PATIENCE: Duration = Duration::from_millis(25);

/// How long others wait for who fetches a response; an edge that dies meanwhile holds them up no longer.
pub(crate) const CLAIM: Duration = Duration::from_secs(10);

/// How often a server is greeted: a connection by TLS to another place takes a while.
const GREETINGS: u32 = 20;

/// Variants of one URL.
const VARIANTS: usize = 16;

/// Nothing stays for longer, whatever its lifetime: what is still asked for by then is fetched anew.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A region's Redis.
pub(crate) struct RedisTier {
    redis: Redis,
    /// The key of the configuration, for whoever has to mend it.
    key: String,
    prefix: String,
    most_bytes: u64,
    scripts: Scripts,
    breaker: Mutex<Breaker>,
    /// Its clock, as it was read last.
    clock: Mutex<Option<Clock>>,
}

struct Scripts {
    look: Script,
    write: Script,
    give_up: Script,
}

/// What a server's clock said, and when: its answer came at `boot` or before, so it says at least that much by now.
#[derive(Clone, Copy)]
struct Clock {
    ms: u64,
    /// CLOCK_BOOTTIME when the answer was here.
    boot: Duration,
}

impl Clock {
    /// Returns what it said at `boot` at the least.
    fn at(self, boot: Duration) -> u64 {
        if boot >= self.boot {
            self.ms.saturating_add(millis(boot.saturating_sub(self.boot)))
        } else {
            // A millisecond that has begun counts as one that has passed.
            self.ms.saturating_sub(millis(self.boot.saturating_sub(boot)).saturating_add(1))
        }
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

impl RedisTier {
    /// Prepares to use the Redis of a region, for the network called `network`.
    ///
    /// # Errors
    /// Where a secret can't be had, or the address is of no use.
    pub(crate) fn open(region: &RegionRedis, network: &str) -> Result<Self, BadAddress> {
        Ok(Self {
            redis: Redis::open(&region.address, PATIENCE)?,
            key: region.address.key.clone(),
            prefix: format!("{network}:atoll-l2.{VERSION}:"),
            most_bytes: region.max_entry.0,
            scripts: Scripts {
                look: Script::new(include_str!("look.lua")),
                write: Script::new(include_str!("write.lua")),
                give_up: Script::new(include_str!("give_up.lua")),
            },
            breaker: Mutex::default(),
            clock: Mutex::default(),
        })
    }

    /// Connects, and reads the server's clock. Where it does not answer now, the first who asks connects.
    pub(super) async fn greet(&self) {
        for _ in 0..GREETINGS {
            match self.redis.call::<(u64, u64)>(&engine::redis::cmd("TIME")).await {
                Ok((s, us)) => {
                    *lock(&self.clock) = Some(Clock { ms: s.saturating_mul(1000).saturating_add(us / 1000), boot: boottime() });
                    tracing::info!(redis = %self.redis, "the region's Redis is in use ({})", self.key);
                    return;
                }
                Err(Trouble::Denied(why)) => {
                    tracing::error!(redis = %self.redis, "the region's Redis lets this edge not in; going on without it ({}): {why}", self.key);
                    return;
                }
                Err(_) => tokio::time::sleep(PATIENCE).await,
            }
        }
        tracing::warn!(redis = %self.redis, "the region's Redis does not answer; going on without it, and trying it now and then ({})", self.key);
    }

    pub(super) async fn look(&self, look: Look<'_>) -> Result<Held, Failed> {
        let known = look.known.map_or(0, |stamp| stamp.0).to_string();
        let claim = look.claim.map_or("", |claim| claim.0.as_str());
        let selection = look.variant.selection_hex();
        let lasts = CLAIM.as_millis().to_string();
        let arguments = [look.variant.names.as_str(), &selection, &known, claim, &lasts].map(str::as_bytes);
        let asked = boottime();
        let answer: Vec<Value> = self.run(&self.scripts.look, look.url, &arguments).await?;
        let answered = boottime();
        let said = read_answer(answer).ok_or(Failed::As("nonsense"))?;
        *lock(&self.clock) = Some(Clock { ms: said.now, boot: answered });
        match (said.word.as_str(), said.first, said.second) {
            ("value", Some(value), Some(stamp)) => {
                let stamp = std::str::from_utf8(&stamp).ok().and_then(|text| text.parse().ok()).ok_or(Failed::As("nonsense"))?;
                // What its clock says may be of any moment since it was asked.
                let since = Duration::from_millis(said.now.saturating_sub(stamp)) + answered.saturating_sub(asked);
                // A clock that was set back: nobody knows how old this is.
                if stamp > said.now { Ok(Held::Nothing) } else { Ok(Held::Value { bytes: value, since, stamp: Stamp(stamp) }) }
            }
            ("varies", Some(names), _) => String::from_utf8(names.to_vec()).map(Held::Varies).map_err(|_| Failed::As("nonsense")),
            ("claimed", ..) => Ok(Held::Claimed),
            ("busy", ..) => Ok(Held::Busy),
            ("nothing", ..) => Ok(Held::Nothing),
            _ => Err(Failed::As("nonsense")),
        }
    }

    pub(super) async fn write(&self, write: Write) -> Result<Written, Failed> {
        if write.bytes.len() as u64 > self.most_bytes {
            self.release(write.url, write.claim).await?;
            return Ok(Written::TooLarge);
        }
        // Without its clock nobody could tell later how old this is.
        let clock = *lock(&self.clock);
        let Some(clock) = clock else { return Err(Failed::As("no-clock")) };
        let (stamp, ttl) = (clock.at(write.as_of).to_string(), millis(write.ttl.min(LONGEST)).max(1).to_string());
        let (selection, claim) = (write.variant.selection_hex(), write.claim.as_ref().map_or("", |claim| claim.0.as_str()));
        let (epoch, filled_at, variants) = (hex(&write.rank.epoch), format!("{:016x}", write.rank.filled_at), VARIANTS.to_string());
        let arguments: [&[u8]; 9] = [
            write.variant.names.as_bytes(),
            selection.as_bytes(),
            &write.bytes,
            ttl.as_bytes(),
            epoch.as_bytes(),
            filled_at.as_bytes(),
            stamp.as_bytes(),
            claim.as_bytes(),
            variants.as_bytes(),
        ];
        let answer: Vec<Value> = self.run(&self.scripts.write, &write.url, &arguments).await?;
        match read_answer(answer).map(|said| said.word).as_deref() {
            Some("stored") => Ok(Written::Stored),
            Some("older") => Ok(Written::Older),
            _ => Err(Failed::As("nonsense")),
        }
    }

    pub(super) async fn remove(&self, url: UrlName) -> Result<(), Failed> {
        let key = self.name(&url);
        self.told(self.guarded()?.call::<Value>(engine::redis::cmd("UNLINK").arg(key)).await).map(drop)
    }

    async fn release(&self, url: UrlName, claim: Option<Claim>) -> Result<(), Failed> {
        match claim {
            Some(claim) => self.give_up(url, claim, None).await,
            None => Ok(()),
        }
    }

    pub(super) async fn give_up(&self, url: UrlName, claim: Claim, pass_for: Option<Duration>) -> Result<(), Failed> {
        let pass_ms = pass_for.map_or(0, millis).to_string();
        self.run::<Value>(&self.scripts.give_up, &url, &[claim.0.as_bytes(), pass_ms.as_bytes()]).await.map(drop)
    }

    pub(super) fn is_up(&self) -> bool {
        !lock(&self.breaker).is_open() && lock(&self.clock).is_some()
    }

    fn name(&self, url: &UrlName) -> String {
        format!("{}{url}", self.prefix)
    }

    async fn run<T: FromRedisValue>(&self, script: &Script, url: &UrlName, arguments: &[&[u8]]) -> Result<T, Failed> {
        let key = self.name(url);
        let ran = self.guarded()?.run(script, &[key.as_bytes()], arguments).await;
        self.told(ran)
    }

    fn guarded(&self) -> Result<&Redis, Failed> {
        if lock(&self.breaker).may_call(boottime()) { Ok(&self.redis) } else { Err(Failed::LeftAlone) }
    }

    /// Takes note of how a call went.
    fn told<T>(&self, called: Result<T, Trouble>) -> Result<T, Failed> {
        let Err(trouble) = called else {
            if std::mem::take(&mut *lock(&self.breaker)).is_open() {
                tracing::info!(redis = %self.redis, "the region's Redis answers again ({})", self.key);
            }
            return called.map_err(|_| Failed::As("away"));
        };
        if is_of_server(&trouble) {
            lock(&self.breaker).succeeded();
        } else if lock(&self.breaker).failed(boottime()) {
            tracing::warn!(redis = %self.redis, "going on without the region's Redis, and trying it now and then ({}): {trouble}", self.key);
        }
        Err(Failed::As(trouble.name()))
    }
}

/// Tells whether a server that is well refused this one call. One that is reading its files, or follows a master that is
/// gone, is of no use for any.
fn is_of_server(trouble: &Trouble) -> bool {
    let Trouble::Refused(error) = trouble else { return false };
    !matches!(error.code(), Some("LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "BUSY" | "NOPERM" | "NOAUTH"))
}

/// What a script answered.
struct Said {
    now: u64,
    word: String,
    first: Option<Bytes>,
    second: Option<Bytes>,
}

fn read_answer(answer: Vec<Value>) -> Option<Said> {
    let mut values = answer.into_iter();
    let now = if let Value::Int(now) = values.next()? { u64::try_from(now).ok()? } else { return None };
    let mut texts = values.map(|value| if let Value::BulkString(bytes) = value { Some(Bytes::from(bytes)) } else { None });
    let word = String::from_utf8(texts.next()??.to_vec()).ok()?;
    let (first, second) = (texts.next().flatten(), texts.next().flatten());
    Some(Said { now, word, first, second })
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Display for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.redis.fmt(f)
    }
}

impl fmt::Debug for RedisTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTier").field("redis", &self.redis).field("key", &self.key).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_servers_clock_is_never_taken_for_later_than_it_is() {
        let clock = Clock { ms: 1000, boot: Duration::from_micros(50_500) };
        assert_eq!(clock.at(Duration::from_micros(51_400)), 1000, "not a whole millisecond has passed");
        assert_eq!(clock.at(Duration::from_millis(60)), 1009);
        assert_eq!(clock.at(Duration::from_micros(50_400)), 999);
        assert_eq!(clock.at(Duration::ZERO), 949);
    }
}
