//! The Redis (or Valkey) that a region's edges share. One URL is one key, with its variants and the claim of who fetches
//! it; every call is one script, so that no two edges meet in the midst of one. It may do no harm: a call has 25 ms,
//! and after a few that failed none is made for a while.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::RegionRedis;
use engine::redis::{FromRedisValue, RedisError, Value};
use engine::{BadAddress, Breaker, Redis, Script, Trouble};
use follow::boottime;

use super::name::hex;
use super::portable::VERSION;
use super::{Claim, Failed, Held, Look, Stamp, UrlName, Variant, Write, Written};

/// How long any call may take: a miss costs a reader no more (P5).
pub(crate) const REDIS_PATIENCE: Duration = Duration::from_millis(25);

/// How long a claim lasts that is not renewed: an edge that dies holds nobody up for longer.
pub(crate) const CLAIM: Duration = Duration::from_secs(2);

/// How far a server's clock may be behind what it said before: beyond that it was set back.
const SET_BACK_MS: u64 = 100;

/// How often a server is greeted: a connection by TLS to another place takes a while.
const GREETINGS: u32 = 20;

/// Variants of one URL.
const VARIANTS: usize = 16;

/// Nothing stays for longer, whatever its lifetime: what is still asked for by then is fetched anew.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A region's Redis.
pub(crate) struct RedisTier {
    redis: Redis,
    /// How long any call may take.
    patience: Duration,
    /// The key of the configuration, for whoever has to mend it.
    key: String,
    prefix: String,
    most_bytes: u64,
    scripts: Scripts,
    breaker: Mutex<Breaker>,
    /// Its clock, as it was read last.
    clock: Mutex<Option<Clock>>,
    /// What was written up to then by its clock is not believed: that was set back.
    distrusted: Mutex<u64>,
    /// What it refused last.
    refused: Mutex<String>,
}

struct Scripts {
    look: Script,
    write: Script,
    give_up: Script,
    renew: Script,
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
    pub(crate) fn open(region: &RegionRedis, network: &str, patience: Duration) -> Result<Self, BadAddress> {
        Ok(Self {
            redis: Redis::open(&region.address, patience)?,
            patience,
            key: region.address.key.clone(),
            prefix: format!("{network}:atoll-l2.{VERSION}:"),
            most_bytes: region.max_entry.0,
            scripts: Scripts {
                look: Script::new(include_str!("look.lua")),
                write: Script::new(include_str!("write.lua")),
                give_up: Script::new(include_str!("give_up.lua")),
                renew: Script::new(include_str!("renew.lua")),
            },
            breaker: Mutex::default(),
            clock: Mutex::default(),
            distrusted: Mutex::default(),
            refused: Mutex::default(),
        })
    }

    /// Connects, reads the server's clock, and tries whether this edge may do there what it will have to. Where it does not
    /// answer now, the first who asks connects.
    pub(super) async fn greet(&self) {
        for _ in 0..GREETINGS {
            let tried = self.try_out().await;
            match tried {
                Ok(()) => return tracing::info!(redis = %self.redis, "the region's Redis is in use ({})", self.key),
                Err(trouble) if trouble.may_pass() => tokio::time::sleep(self.patience).await,
                Err(trouble) => {
                    let key = &self.key;
                    return tracing::error!(redis = %self.redis, "the region's Redis is of no use to this edge ({key}): {trouble}");
                }
            }
        }
        tracing::warn!(redis = %self.redis, "the region's Redis does not answer; going on without it, and trying it now and then ({})", self.key);
    }

    async fn try_out(&self) -> Result<(), Trouble> {
        let (s, us) = self.redis.call::<(u64, u64)>(&engine::redis::cmd("TIME")).await?;
        *lock(&self.clock) = Some(Clock { ms: s.saturating_mul(1000).saturating_add(us / 1000), boot: boottime() });
        // A user who may read the time may be allowed nothing else.
        let key = format!("{}hello", self.prefix);
        let selection = "0";
        let _: Value = self.redis.run(&self.scripts.give_up, &[key.as_bytes()], &[selection.as_bytes(), b"nobody", b"0"]).await?;
        let mut writes = engine::redis::cmd("HSET");
        let _: Value = self.redis.call(writes.arg(&key).arg("greeted").arg("1")).await.or_else(only_full)?;
        let _: Value = self.redis.call(engine::redis::cmd("UNLINK").arg(&key)).await?;
        Ok(())
    }

    pub(super) async fn look(&self, look: Look<'_>) -> Result<Held, Failed> {
        let asked = boottime();
        let (clock, distrusted) = (*lock(&self.clock), *lock(&self.distrusted));
        let known = look.known.map_or(0, |stamp| stamp.0).max(distrusted).to_string();
        // Who asks waits no longer than it has patience: what is carried out later claims nothing.
        let until = clock.map_or(0, |clock| clock.at(asked).saturating_add(2 * millis(self.patience))).to_string();
        let claim = look.claim.map_or("", |claim| claim.0.as_str());
        let (selection, lasts, most) = (look.variant.selection_hex(), CLAIM.as_millis().to_string(), self.most_bytes.to_string());
        let arguments = [look.variant.names.as_str(), &selection, &known, &most, claim, &lasts, &until].map(str::as_bytes);
        let answer: Vec<Value> = self.run(&self.scripts.look, look.url, &arguments).await?;
        let answered = boottime();
        let said = read_answer(answer).ok_or(Failed::As("nonsense"))?;
        self.read_clock(said.now, asked, answered);
        match (said.word.as_str(), said.first, said.second) {
            ("value", Some(bytes), Some(stamp)) => {
                let stamp = std::str::from_utf8(&stamp).ok().and_then(|text| text.parse().ok()).ok_or(Failed::As("nonsense"))?;
                if stamp > said.now || stamp <= *lock(&self.distrusted) {
                    // A clock that was set back: nobody knows how old this is.
                    return Ok(Held::Nothing);
                }
                // What its clock says may be of any moment since it was asked, and is cut off to a millisecond.
                let since = Duration::from_millis(said.now - stamp + 1) + answered.saturating_sub(asked);
                Ok(Held::Value { bytes, since, as_of: answered, stamp: Stamp(stamp) })
            }
            ("varies", Some(names), _) => String::from_utf8(names.to_vec()).map(Held::Varies).map_err(|_| Failed::As("nonsense")),
            ("claimed", ..) => Ok(Held::Claimed),
            ("busy", ..) => Ok(Held::Busy),
            ("nothing", ..) => Ok(Held::Nothing),
            ("foreign", ..) => Ok(Held::Foreign),
            _ => Err(Failed::As("nonsense")),
        }
    }

    /// Takes note of what the clock says. One that was set back makes what was written before look younger than it is: none
    /// of that is believed any more.
    fn read_clock(&self, now: u64, asked: Duration, answered: Duration) {
        let mut clock = lock(&self.clock);
        if let Some(least) = clock.map(|clock| clock.at(asked)).filter(|least| now.saturating_add(SET_BACK_MS) < *least) {
            tracing::warn!(redis = %self.redis, "the clock of the region's Redis was set back by {} ms", least - now);
            let mut distrusted = lock(&self.distrusted);
            *distrusted = least.max(*distrusted);
        }
        *clock = Some(Clock { ms: now, boot: answered });
    }

    pub(super) async fn write(&self, write: Write) -> Result<Written, Failed> {
        if write.bytes.len() as u64 > self.most_bytes {
            return Ok(Written::TooLarge);
        }
        // Without its clock nobody could tell later how old this is.
        let clock = *lock(&self.clock);
        let Some(clock) = clock else { return Err(Failed::As("no-clock")) };
        let stamp = clock.at(write.as_of);
        let began = stamp.saturating_sub(millis(write.started_ago));
        let (selection, claim) = (write.variant.selection_hex(), write.claim.as_ref().map_or("", |claim| claim.0.as_str()));
        let texts = [millis(write.ttl.min(LONGEST)).max(1), stamp, began].map(|number| number.to_string());
        let [ttl, stamp, began] = &texts;
        let (epoch, filled_at, variants) = (hex(&write.rank.epoch), format!("{:016x}", write.rank.filled_at), VARIANTS.to_string());
        let arguments: [&[u8]; 10] = [
            write.variant.names.as_bytes(),
            selection.as_bytes(),
            &write.bytes,
            ttl.as_bytes(),
            epoch.as_bytes(),
            filled_at.as_bytes(),
            stamp.as_bytes(),
            began.as_bytes(),
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

    pub(super) async fn remove(&self, url: &UrlName) -> Result<(), Failed> {
        let key = self.name(url);
        self.told(self.guarded()?.call::<Value>(engine::redis::cmd("UNLINK").arg(key)).await).map(drop)
    }

    pub(super) async fn give_up(&self, url: &UrlName, variant: &Variant, claim: &Claim, pass_for: Option<Duration>) -> Result<(), Failed> {
        let (selection, pass_ms) = (variant.selection_hex(), pass_for.map_or(0, millis).to_string());
        let arguments = [selection.as_bytes(), claim.0.as_bytes(), pass_ms.as_bytes()];
        self.run::<Value>(&self.scripts.give_up, url, &arguments).await.map(drop)
    }

    pub(super) async fn renew(&self, url: &UrlName, variant: &Variant, claim: &Claim) -> Result<bool, Failed> {
        let (selection, lasts) = (variant.selection_hex(), CLAIM.as_millis().to_string());
        let arguments = [selection.as_bytes(), claim.0.as_bytes(), lasts.as_bytes()];
        Ok(self.run::<u64>(&self.scripts.renew, url, &arguments).await? == 1)
    }

    pub(super) fn most_bytes(&self) -> u64 {
        self.most_bytes
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

    /// A server that is well refused something: that is told when it begins.
    fn told_no(&self, error: &RedisError) {
        lock(&self.breaker).succeeded();
        let code = error.code().unwrap_or("ERR");
        if code == "READONLY" {
            // What was the master is none any more; whoever it is now may be found at the same address.
            self.redis.reconnect();
        }
        let mut refused = lock(&self.refused);
        if *refused != code {
            tracing::warn!(redis = %self.redis, "the region's Redis refuses what this edge asks for ({}): {error}", self.key);
            code.clone_into(&mut refused);
        }
    }

    fn guarded(&self) -> Result<&Redis, Failed> {
        if lock(&self.breaker).may_call(boottime()) { Ok(&self.redis) } else { Err(Failed::LeftAlone) }
    }

    /// Takes note of how a call went.
    fn told<T>(&self, called: Result<T, Trouble>) -> Result<T, Failed> {
        let Err(trouble) = called else {
            if lock(&self.breaker).succeeded() {
                tracing::info!(redis = %self.redis, "the region's Redis answers again ({})", self.key);
            }
            return called.map_err(|_| Failed::As("away"));
        };
        if let Trouble::Refused(error) = &trouble
            && is_of_server(&trouble)
        {
            self.told_no(error);
        } else if lock(&self.breaker).failed(boottime()) {
            tracing::warn!(redis = %self.redis, "going on without the region's Redis, and trying it now and then ({}): {trouble}", self.key);
            self.redis.reconnect();
        }
        Err(Failed::As(trouble.name()))
    }
}

/// A server that is full is of use all the same.
fn only_full(trouble: Trouble) -> Result<Value, Trouble> {
    match &trouble {
        Trouble::Refused(error) if error.code() == Some("OOM") => Ok(Value::Nil),
        _ => Err(trouble),
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
