//! Beside the memory tier: the second one (L2), which a region's edges share or which outlives this process. What it
//! holds comes into the memory tier where it may be used, and is judged there like all else; what is stored there is
//! written behind the response. Nothing waits for it longer than for an upstream that is well, and nothing fails by it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::{Network, RegionRedis, Route};
use follow::boottime;
use http::HeaderMap;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use wire::{Epoch, Owner, RegionName, Subject, Target};

use super::burials::Burials;
use super::entry::Entry;
use super::key::CacheKey;
use crate::edge::Edge;
use crate::metrics::{Metrics, Used};
use crate::rules::vary;
use crate::tier::{CLAIM, Claim, Failed, Folder, Held, Look, Portable, Rank, RedisTier, Tier, Unusable, UrlName, Variant, Write, Written};
use crate::validity::{Buried, Shared, Validity, may_share, may_store, of_shared};

/// What waits to be written. Beyond it, or beyond the bytes, nothing is written: the tier is for speed alone.
pub(crate) const QUEUE: usize = 1024;
const QUEUE_BYTES: usize = 16 << 20;

/// The pauses between two looks for what another edge fetches, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(25));

/// How often one look may turn out to be for other fields than those that tell variants apart.
const VARIATIONS: usize = 2;

/// Claims that this edge remembers; one that is forgotten ends by itself.
const CLAIMS: usize = 4096;

/// For how long the other edges don't wait for what could not be stored.
const PASS_FOR: Duration = Duration::from_secs(5);

/// The second tier, and what this edge has to do with it at the moment.
#[derive(Debug)]
pub(crate) struct Second {
    place: Place,
    current: Mutex<Current>,
    /// One look per URL at a time; the others wait for its end.
    looks: Mutex<HashMap<CacheKey, watch::Receiver<()>>>,
    /// What this edge fetches for all edges of its region, and since when.
    claims: Mutex<HashMap<CacheKey, (Claim, Duration)>>,
    burials: Burials,
    work: mpsc::Sender<Work>,
    waiting_bytes: AtomicUsize,
    metrics: Arc<Metrics>,
}

/// Where this edge is, and where its files are.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) region: RegionName,
    /// What secrets in files are relative to.
    pub(crate) settings: PathBuf,
    /// The folder for responses, and how many bytes it may take.
    pub(crate) folder: PathBuf,
    pub(crate) disk: u64,
}

/// The tier, and what of the configuration made it.
#[derive(Debug, Default)]
struct Current {
    network: String,
    redis: Option<RegionRedis>,
    tier: Option<Arc<Tier>>,
}

/// What is done behind the responses, in order.
#[derive(Debug)]
pub(crate) enum Work {
    Write(Box<Deposit>),
    Remove(CacheKey),
    GiveUp(CacheKey, Claim, Option<Duration>),
}

/// An entry that is to be written.
#[derive(Debug)]
pub(crate) struct Deposit {
    pub(crate) key: CacheKey,
    pub(crate) sent: Target,
    pub(crate) owner: Owner,
    pub(crate) epoch: Epoch,
    pub(crate) entry: Arc<Entry>,
    /// The generation of its key when its fetch started (P8).
    pub(crate) tombstone: u64,
}

/// What a request wants of the second tier.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) key: CacheKey,
    pub(crate) route: Route,
    /// As they go upstream.
    pub(crate) headers: HeaderMap,
    /// Whether this request would fetch it for others too.
    pub(crate) may_claim: bool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Second {
    /// `work` is what [`work`] does.
    pub(crate) fn new(place: Place, metrics: Arc<Metrics>, work: mpsc::Sender<Work>) -> Self {
        Self {
            place,
            current: Mutex::default(),
            looks: Mutex::default(),
            claims: Mutex::default(),
            burials: Burials::new(),
            work,
            waiting_bytes: AtomicUsize::new(0),
            metrics,
        }
    }

    /// Takes the tier that a configuration names, which is in force from now on.
    pub(crate) fn adopt(&self, network: &Network) {
        let mut current = lock(&self.current);
        let redis = network.regions.get(&self.place.region).and_then(|region| region.redis.clone());
        if current.tier.is_none() || current.redis != redis || current.network != network.name {
            *current = Current { tier: self.open(redis.as_ref(), &network.name), redis, network: network.name.clone() };
            if let Some(tier) = current.tier.clone() {
                // Whoever comes first need not wait for a connection.
                tokio::spawn(async move { tier.greet().await });
            }
        }
    }

    /// Returns the tier; none where it can't be used at all.
    fn tier(&self) -> Option<Arc<Tier>> {
        lock(&self.current).tier.clone()
    }

    fn open(&self, redis: Option<&RegionRedis>, network: &str) -> Option<Arc<Tier>> {
        let opened = match redis {
            Some(redis) => {
                let redis = RegionRedis { address: redis.address.within(&self.place.settings), ..redis.clone() };
                RedisTier::open(&redis, network).map(Box::new).map(Tier::Redis).map_err(|error| error.to_string())
            }
            None => Folder::open(&self.place.folder, self.place.disk).map(Tier::Folder).map_err(|error| error.to_string()),
        };
        match opened {
            Ok(tier) => Some(Arc::new(tier)),
            Err(error) => {
                tracing::error!(region = %self.place.region, "going on without a second tier: {error}");
                None
            }
        }
    }

    /// Makes what was fetched for a URL before now invalid for this edge, and has it forgotten (P8).
    pub(crate) fn bury(&self, key: &CacheKey) {
        self.burials.bury(key, boottime());
        self.send(Work::Remove(key.clone()));
    }

    /// Makes all that was fetched before now invalid for this edge.
    pub(crate) fn bury_all(&self) {
        self.burials.bury_all(boottime());
    }

    /// Has an entry written behind the response, unless too much waits already.
    pub(crate) fn deposit(&self, deposit: Deposit) {
        let bytes = usize::try_from(deposit.entry.length().unwrap_or_default()).unwrap_or(usize::MAX);
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        if waiting.saturating_add(bytes) > QUEUE_BYTES || !self.send(Work::Write(Box::new(deposit))) {
            self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.metrics.second_wrote("dropped");
        }
    }

    fn send(&self, work: Work) -> bool {
        self.work.try_send(work).is_ok()
    }

    /// A fill has ended: where nothing came of it that is being written, no other edge waits for it. `is_passing`: what
    /// came can't be stored.
    pub(crate) fn settle(&self, key: &CacheKey, is_passing: bool) {
        if let Some(claim) = self.take_claim(key) {
            self.send(Work::GiveUp(key.clone(), claim, is_passing.then_some(PASS_FOR)));
        }
    }

    fn take_claim(&self, key: &CacheKey) -> Option<Claim> {
        lock(&self.claims).remove(key).map(|(claim, _)| claim)
    }

    fn remember(&self, key: &CacheKey, claim: Claim) {
        let (mut claims, now) = (lock(&self.claims), boottime());
        if claims.len() >= CLAIMS {
            claims.retain(|_, (_, since)| now.saturating_sub(*since) < CLAIM);
        }
        if claims.len() < CLAIMS {
            claims.insert(key.clone(), (claim, now));
        }
    }

    /// Begins to look for a URL, or waits for whoever does.
    fn begin(self: &Arc<Self>, key: &CacheKey) -> Turn {
        let mut looks = lock(&self.looks);
        if let Some(running) = looks.get(key) {
            return Turn::Wait(running.clone());
        }
        let (done, is_done) = watch::channel(());
        looks.insert(key.clone(), is_done);
        Turn::Mine(Looking { second: Arc::clone(self), key: key.clone(), _done: done })
    }
}

enum Turn {
    Mine(Looking),
    Wait(watch::Receiver<()>),
}

/// A look that runs; its end wakes who waits for it.
struct Looking {
    second: Arc<Second>,
    key: CacheKey,
    _done: watch::Sender<()>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        lock(&self.second.looks).remove(&self.key);
    }
}

/// Brings what the second tier holds for a request into the first, where it may be used; waits for an edge that fetches
/// it for all. Whether something came is seen in the first.
pub(crate) async fn bring(edge: &Arc<Edge>, wanted: Wanted) {
    let second = &edge.responses.second;
    let Some(tier) = second.tier() else { return };
    // Who waited for a look at another variant looks for its own.
    for _ in 0..=VARIATIONS {
        match second.begin(&wanted.key) {
            Turn::Mine(looking) => {
                let look = Looked { edge: Arc::clone(edge), tier, wanted };
                // It goes on when whoever asked leaves: others wait for it.
                let running = edge.runtime.spawn(async move {
                    look.run().await;
                    drop(looking);
                });
                let _ = running.await;
                return;
            }
            Turn::Wait(mut done) => {
                // Its end is the end of the sender.
                while done.changed().await.is_ok() {}
                let stored = edge.responses.stored(&wanted.key);
                if stored.is_some_and(|stored| stored.select(&wanted.headers).is_some()) {
                    return;
                }
            }
        }
    }
}

/// One look, with all that follows from it.
struct Looked {
    edge: Arc<Edge>,
    tier: Arc<Tier>,
    wanted: Wanted,
}

impl Looked {
    async fn run(&self) {
        let second = &self.edge.responses.second;
        let begun = std::time::Instant::now();
        let read = self.read(second).await;
        second.metrics.second_read(read, begun.elapsed());
    }

    async fn read(&self, second: &Second) -> &'static str {
        let Wanted { key, route, headers, .. } = &self.wanted;
        let (url, tombstone) = (UrlName::of(key), self.edge.responses.tombstones.generation(key));
        let claim = self.claim();
        let mut variant = Variant::of(&vary::selecting(&route.key_headers, &route.key_cookies, headers));
        let (until, mut pause, mut variations, mut known) = (boottime() + CLAIM, PAUSE.0, 0, None);
        loop {
            let look = Look { url: &url, variant: &variant, known, claim: claim.as_ref() };
            match self.tier.look(look).await {
                Ok(Held::Value { bytes, since, stamp }) => {
                    let taken = self.take(&bytes, since, tombstone);
                    if taken == Taken::Fresh || claim.is_none() || known >= Some(stamp) {
                        return if taken == Taken::Unusable { "unusable" } else { "hit" };
                    }
                    // Who fetches a newer one does so for all.
                    known = Some(stamp);
                }
                Ok(Held::Varies(names)) => {
                    let Some(told_apart) =
                        Variant::fields(&names).map(|fields| Variant::of(&vary::selecting(&fields, &route.key_cookies, headers)))
                    else {
                        return "unusable";
                    };
                    variations += 1;
                    if told_apart == variant || variations > VARIATIONS {
                        return "miss";
                    }
                    variant = told_apart;
                }
                Ok(Held::Claimed) => {
                    if let Some(claim) = claim {
                        second.remember(key, claim);
                    }
                    return "miss";
                }
                Ok(Held::Busy) if boottime() < until => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE.1);
                }
                Ok(Held::Busy) => return "waited",
                Ok(Held::Nothing) => return "miss",
                Err(failed) => return failed.as_str(),
            }
        }
    }

    /// Only who can write what it fetches has others wait for it.
    fn claim(&self) -> Option<Claim> {
        if !self.wanted.may_claim || !self.tier.is_shared() || !self.edge.lease.standing().holds() {
            return None;
        }
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).ok()?;
        Some(Claim(format!("{:016x}", u64::from_be_bytes(bytes))))
    }

    fn take(&self, bytes: &bytes::Bytes, since: Duration, tombstone: u64) -> Taken {
        let taken = Portable::decode(bytes).map_err(Unusable::as_str).and_then(|portable| self.judge(portable, since, tombstone));
        taken.unwrap_or_else(|why| {
            self.edge.metrics.second_unusable(why);
            Taken::Unusable
        })
    }

    /// Decides whether what was held may be used here, and puts it in the memory tier.
    fn judge(&self, portable: Portable, since: Duration, tombstone: u64) -> Result<Taken, &'static str> {
        let Wanted { key, route, headers, .. } = &self.wanted;
        let view = self.edge.applied.view().ok_or("not-ready")?;
        if portable.key != *key || portable.owner != route.owner || !portable.selection.matches(headers) {
            return Err("other-key");
        }
        let keyed = (portable.sent != key.target).then_some(&key.target);
        let slots =
            view.purges.slots(&Subject { owner: &portable.owner, host: &key.host, sent: &portable.sent, keyed, tags: &portable.tags });
        let provenance = of_shared(&portable.shared, view.epoch, view.generation, portable.settings, slots).ok_or("epoch")?;
        let validity = provenance.validity(key.place(), view.in_force(), route.settings);
        match validity {
            Validity::Purged => return Err("purged"),
            Validity::OtherSettings => return Err("settings"),
            Validity::Valid | Validity::Stale => {}
        }
        let boot = boottime();
        let entry = Arc::new(portable.entry(provenance, boot, since));
        if self.edge.responses.second.burials.is_buried(key, entry.head.started_boot) {
            return Err("buried");
        }
        let responses = &self.edge.responses;
        let is_stored = responses.store(key, &entry, None, || {
            let Some(view) = self.edge.applied.view() else { return false };
            let buried = Buried { at_start: tombstone, now: responses.tombstones.generation(key) };
            may_store(&entry.head.provenance, key.place(), view.in_force(), buried)
        });
        let terms = &entry.head.terms;
        // What may be served while a fresh one is fetched is not waited for either.
        let usable = terms.lifetime.saturating_add(terms.stale_while_revalidate);
        let is_fresh = validity == Validity::Valid && !terms.no_cache && entry.head.age(boot) < usable;
        match (is_stored, is_fresh) {
            (false, _) => Err("purged"),
            (true, true) => Ok(Taken::Fresh),
            (true, false) => Ok(Taken::Old),
        }
    }
}

/// What became of what a tier held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// It answers the request, be it while a fresh one is fetched.
    Fresh,
    /// It is in the memory tier, and is to be asked about.
    Old,
    /// It is of no use.
    Unusable,
}

/// Does what waits, one after the other, so that what was made invalid is not written back by what was under way.
pub(crate) async fn work(edge: Arc<Edge>, mut waiting: mpsc::Receiver<Work>, stop: CancellationToken) {
    loop {
        let work = tokio::select! {
            work = waiting.recv() => work,
            () = stop.cancelled() => return,
        };
        let Some(work) = work else { return };
        let second = &edge.responses.second;
        let tier = second.tier();
        match work {
            Work::Write(deposit) => {
                let bytes = usize::try_from(deposit.entry.length().unwrap_or_default()).unwrap_or(usize::MAX);
                if let Some(tier) = tier {
                    let wrote = write(&edge, &tier, *deposit).await;
                    second.metrics.second_wrote(wrote);
                }
                second.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            }
            // What can't be done now is of no consequence: what is there is judged by who reads it.
            Work::Remove(key) => {
                if let Some(tier) = tier {
                    let _ = tier.remove(UrlName::of(&key)).await;
                }
            }
            Work::GiveUp(key, claim, pass_for) => {
                if let Some(tier) = tier {
                    let _ = tier.give_up(UrlName::of(&key), claim, pass_for).await;
                }
            }
        }
    }
}

async fn write(edge: &Edge, tier: &Tier, deposit: Deposit) -> &'static str {
    let second = &edge.responses.second;
    let claim = second.take_claim(&deposit.key);
    let url = UrlName::of(&deposit.key);
    let write = match prepare(edge, deposit, claim.clone()) {
        Ok(write) => write,
        Err(why) => {
            if let Some(claim) = claim {
                let _ = tier.give_up(url, claim, Some(PASS_FOR)).await;
            }
            return why;
        }
    };
    match tier.write(write).await {
        Ok(Written::Stored) => "stored",
        Ok(Written::Older) => "older",
        Ok(Written::TooLarge) => {
            if let Some(claim) = claim {
                let _ = tier.give_up(url, claim, Some(PASS_FOR)).await;
            }
            "too-large"
        }
        Err(Failed::LeftAlone) => "left-alone",
        Err(Failed::As(how)) => how,
    }
}

/// Decides at the moment of writing whether an entry may still be shared (P5), and puts it into one value.
fn prepare(edge: &Edge, deposit: Deposit, claim: Option<Claim>) -> Result<Write, &'static str> {
    let Deposit { key, sent, owner, epoch, entry, tombstone } = deposit;
    let shared = Shared { epoch, filled_at: entry.head.provenance.filled_at };
    if !may_share(&edge.lease.standing(), None, &shared) {
        return Err("fenced");
    }
    let view = edge.applied.view().ok_or("not-ready")?;
    let buried = Buried { at_start: tombstone, now: edge.responses.tombstones.generation(&key) };
    if !may_store(&entry.head.provenance, key.place(), view.in_force(), buried) {
        return Err("purged");
    }
    let as_of = boottime();
    let portable = Portable::of(&entry, &key, &sent, &owner, epoch, as_of).ok_or("parts")?;
    let ttl = portable.ttl();
    if ttl.is_zero() {
        return Err("short-lived");
    }
    let bytes = portable.encode().ok_or("too-large")?;
    let rank = Rank { epoch: *epoch.as_bytes(), filled_at: shared.filled_at };
    Ok(Write { url: UrlName::of(&key), variant: Variant::of(&entry.head.selection), rank, bytes, ttl, as_of, claim })
}

impl Second {
    /// Returns what the gauges show of it.
    pub(crate) fn used(&self) -> Used {
        self.tier().map_or_else(Used::default, |tier| Used { up: tier.is_up(), disk_bytes: tier.disk_bytes() })
    }

    /// Returns what and where it is, for people.
    pub(crate) fn describe(&self) -> String {
        match self.tier() {
            None => "none".to_owned(),
            Some(tier) if tier.is_up() => tier.to_string(),
            Some(tier) => format!("{tier}, which does not answer"),
        }
    }
}
