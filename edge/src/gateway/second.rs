//! Beside the memory tier: the second one (L2), which a region's edges share or which outlives this process. A fill asks it
//! before it asks the upstream, so that who waits for the fill waits for either. What it holds comes into the memory tier
//! where it may be used, and is judged there like all else; what is stored there is written behind the response.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use config::{Network, RegionRedis};
use follow::boottime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::field::Empty;
use tracing::{Instrument as _, Span};
use wire::{Epoch, Owner, RegionName, Subject, Target};

use super::burials::Burials;
use super::claim::Claimed;
use super::entry::Entry;
use super::job::Job;
use super::key::CacheKey;
use crate::edge::Edge;
use crate::metrics::{Metrics, Used};
use crate::rules::vary;
use crate::tier::{
    FOLDER_PATIENCE, Failed, Folder, Held, Look, Portable, REDIS_PATIENCE, Rank, RedisTier, Tier, Unusable, UrlName, Variant, Write,
    Written,
};
use crate::validity::{Buried, Shared, Validity, may_share, may_store, of_shared};

/// What writes behind the responses: as many at a time, each for its share of the keys.
pub(crate) const LANES: usize = 4;

/// What waits to be written in each. Beyond it, or beyond the bytes of all, nothing is written: the tier is for speed alone.
pub(crate) const QUEUE: usize = 256;

/// Bytes that wait in all at the least and at the most, and as which share of the edge's memory.
const QUEUE_LEAST: u64 = 2 << 20;
const QUEUE_MOST: u64 = 32 << 20;
const QUEUE_SHARE: u64 = 16;

/// How long a fill waits for another edge that fetches the same.
const WAIT: Duration = Duration::from_secs(10);

/// The pauses between two looks for what another edge fetches, at first and at the most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// What the calls of one look may take together, beside that.
const PATIENCE: Duration = Duration::from_millis(25);

/// How often one look may turn out to be for other fields than those that tell variants apart.
const VARIATIONS: usize = 2;

/// A value above this size is not read or written on a thread that others wait for: hashing it takes a millisecond.
const LARGE: usize = 256 << 10;

/// How much the clocks of edges and of a tier may differ in how long ago something was (P8).
const SLACK: Duration = Duration::from_millis(250);

/// After how long a tier that could not be opened is tried again: a secret may be there by then.
const REOPEN: Duration = Duration::from_secs(10);

/// The second tier, and what this edge has to do with it at the moment.
#[derive(Debug)]
pub(crate) struct Second {
    place: Place,
    current: Mutex<Current>,
    burials: Burials,
    lanes: Vec<mpsc::Sender<Deposit>>,
    waiting_bytes: AtomicUsize,
    pub(super) metrics: Arc<Metrics>,
}

/// Where this edge is, and where its files are.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) region: RegionName,
    /// What secrets in files are relative to.
    pub(crate) settings: PathBuf,
    /// The folder for responses, and how many bytes it may take.
    pub(crate) folder: PathBuf,
    pub(crate) disk: u64,
    /// The bytes that this edge's memory may take.
    pub(crate) memory: u64,
}

impl Place {
    /// Returns how many bytes may wait to be written.
    fn queue_bytes(&self) -> usize {
        usize::try_from((self.memory / QUEUE_SHARE).clamp(QUEUE_LEAST, QUEUE_MOST)).unwrap_or(usize::MAX)
    }
}

/// The tier, and what of the configuration made it.
#[derive(Debug, Default)]
struct Current {
    wanted: Option<Wanted>,
    tier: Option<Arc<Tier>>,
}

/// What of a configuration decides which tier there is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    network: String,
    redis: Option<RegionRedis>,
}

/// Whether a fill asks the second tier first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Asking {
    /// It does not.
    #[default]
    No,
    /// It takes what is there.
    Look,
    /// It takes what is there, or fetches it for the whole region; another edge that does is waited for.
    Claim,
    /// The same, but nobody waits for it: where another edge fetches it, it need not be fetched here.
    Refresh,
}

/// What a look brought.
#[derive(Clone, Debug)]
pub(crate) enum Brought {
    /// What answers the request, or may be served while a fresh one is fetched, is in the memory tier now.
    Fresh,
    /// What is to be asked about is in the memory tier now.
    Old(Arc<Entry>),
    /// Nothing.
    Nothing,
    /// Another edge fetches it.
    Elsewhere,
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
    /// What was claimed for it.
    pub(crate) claim: Option<Arc<Claimed>>,
    /// The fill that it is of.
    pub(crate) span: Span,
}

pub(super) fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn size(entry: &Entry) -> usize {
    usize::try_from(entry.length().unwrap_or_default()).unwrap_or(usize::MAX)
}

impl Second {
    /// What is sent into `lanes` is what [`write_behind`] writes.
    pub(crate) fn new(place: Place, metrics: Arc<Metrics>, lanes: Vec<mpsc::Sender<Deposit>>) -> Self {
        Self { place, current: Mutex::default(), burials: Burials::new(), lanes, waiting_bytes: AtomicUsize::new(0), metrics }
    }

    /// A configuration is in force from now on; it may name another tier, which is opened in the background.
    pub(crate) fn adopt(self: &Arc<Self>, network: &Network) {
        let redis = network.regions.get(&self.place.region).and_then(|region| region.redis.clone());
        let wanted = Wanted { network: network.name.clone(), redis };
        {
            let mut current = lock(&self.current);
            if current.wanted.as_ref() == Some(&wanted) {
                return;
            }
            *current = Current { wanted: Some(wanted.clone()), tier: None };
        }
        tokio::spawn(Arc::clone(self).open(wanted));
    }

    /// Secrets may be others than before: a Redis is opened once more, and takes the place of the one that is in use.
    pub(crate) fn renew(self: &Arc<Self>) {
        let Some(wanted) = lock(&self.current).wanted.clone().filter(|wanted| wanted.redis.is_some()) else { return };
        let this = Arc::clone(self);
        tokio::spawn(async move {
            let place = this.place.clone();
            let of = wanted.clone();
            match tokio::task::spawn_blocking(move || open(&place, &of)).await {
                Ok(Ok(tier)) => {
                    {
                        let mut current = lock(&this.current);
                        if current.wanted.as_ref() == Some(&wanted) {
                            current.tier = Some(Arc::clone(&tier));
                        }
                    }
                    tier.greet().await;
                }
                Ok(Err(error)) => tracing::error!(region = %this.place.region, "going on with the second tier as it was: {error}"),
                Err(_) => {}
            }
        });
    }

    /// Opens what is wanted, as long as nothing else is.
    async fn open(self: Arc<Self>, wanted: Wanted) {
        loop {
            let (place, wanted_here) = (self.place.clone(), wanted.clone());
            let opened = tokio::task::spawn_blocking(move || open(&place, &wanted_here)).await;
            let opened = opened.unwrap_or_else(|error| Err(error.to_string()));
            let tier = {
                let mut current = lock(&self.current);
                if current.wanted.as_ref() != Some(&wanted) {
                    return;
                }
                current.tier = opened.as_ref().ok().cloned();
                opened
            };
            match tier {
                // Whoever comes first need not wait for a connection.
                Ok(tier) => return tier.greet().await,
                Err(error) => tracing::error!(region = %self.place.region, "going on without a second tier: {error}"),
            }
            tokio::time::sleep(REOPEN).await;
        }
    }

    /// Returns the tier; none where it can't be used.
    pub(super) fn tier(&self) -> Option<Arc<Tier>> {
        lock(&self.current).tier.clone()
    }

    /// Makes what was fetched for a URL before now invalid for this edge (P8).
    pub(crate) fn bury(&self, key: &CacheKey) {
        self.burials.bury(key, boottime());
    }

    /// Makes all that was fetched before now invalid for this edge.
    pub(crate) fn bury_all(&self) {
        self.burials.bury_all(boottime());
    }

    /// Has a URL forgotten: the next life of this edge knows nothing of burials.
    pub(crate) async fn forget(&self, key: &CacheKey) {
        // Where that fails, what is there is judged by who reads it: this edge by its burials, others by the journal.
        if let Some(tier) = self.tier()
            && let Err(failed) = tier.remove(&UrlName::of(key)).await
        {
            self.metrics.second_wrote(failed.as_str());
        }
    }

    /// Has an entry written behind the response, unless too much waits already.
    pub(crate) fn deposit(&self, deposit: Deposit) {
        let bytes = size(&deposit.entry);
        let Some(tier) = self.tier() else { return };
        if bytes as u64 > tier.most_bytes() {
            return self.metrics.second_wrote("too-large");
        }
        let lane = self.lanes.get(self.burials.share(&deposit.key, self.lanes.len()));
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::AcqRel);
        // What is larger than all of it may go alone.
        let is_too_much = waiting > 0 && waiting.saturating_add(bytes) > self.place.queue_bytes();
        if is_too_much || lane.is_none_or(|lane| lane.try_send(deposit).is_err()) {
            self.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
            self.metrics.second_wrote("dropped");
        }
    }

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

fn open(place: &Place, wanted: &Wanted) -> Result<Arc<Tier>, String> {
    let Some(redis) = &wanted.redis else {
        return Folder::open(&place.folder, place.disk, FOLDER_PATIENCE).map(Tier::Folder).map(Arc::new).map_err(|error| error.to_string());
    };
    let redis = RegionRedis { address: redis.address.within(&place.settings), ..redis.clone() };
    let opened = RedisTier::open(&redis, &wanted.network, REDIS_PATIENCE).map_err(|error| error.to_string())?;
    // What lies in the folder is of no use from now on, and would not be counted.
    if let Err(error) = std::fs::remove_dir_all(&place.folder)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(folder = %place.folder.display(), "failed to remove the folder of responses: {error}");
    }
    Ok(Arc::new(Tier::Redis(Box::new(opened))))
}

/// Brings what the second tier holds for a job into the memory tier, where it may be used. Where nothing is, what was
/// claimed goes to the job.
pub(crate) async fn bring(edge: &Arc<Edge>, job: &mut Job) -> Brought {
    let second = &edge.responses.second;
    let Some(tier) = second.tier().filter(|_| job.asking != Asking::No) else { return Brought::Nothing };
    let begun = Instant::now();
    let stage = trace::stage!("look up", atoll.tier = "l2", atoll.result = Empty);
    let (brought, read) = Looking { edge, tier, job }.look().instrument(stage.clone()).await;
    stage.record("atoll.result", read);
    second.metrics.second_read(read, begun.elapsed());
    brought
}

/// One look, with all that follows from it.
struct Looking<'a> {
    edge: &'a Arc<Edge>,
    tier: Arc<Tier>,
    job: &'a mut Job,
}

impl Looking<'_> {
    /// Returns what came of it, in a word for the metric too.
    async fn look(self) -> (Brought, &'static str) {
        let (url, tombstone) = (UrlName::of(&self.job.key), self.edge.responses.tombstones.generation(&self.job.key));
        let mut variant = self.variant(&self.job.route.key_headers);
        let mut claim = self.claimable(url, &variant);
        let (until, mut spent) = (boottime() + WAIT, Duration::ZERO);
        let (mut pause, mut variations, mut known, mut old) = (PAUSE.0, 0, None, None);
        let nothing = |old: Option<Arc<Entry>>| old.map_or(Brought::Nothing, Brought::Old);
        loop {
            let look = Look { url: &url, variant: &variant, known, claim: claim.as_ref().map(Claimed::claim) };
            let asked = Instant::now();
            let held = self.tier.look(look).await;
            spent += asked.elapsed();
            match held {
                Ok(Held::Value { bytes, since, as_of, stamp }) => {
                    match self.take(bytes, since, as_of, tombstone).await {
                        Taken::Fresh => return (Brought::Fresh, "hit"),
                        Taken::Old(entry) => old = Some(entry),
                        Taken::Unusable => {}
                    }
                    if claim.is_none() || known >= Some(stamp) {
                        return (nothing(old), "old");
                    }
                    // Who fetches a newer one does so for all.
                    known = Some(stamp);
                }
                Ok(Held::Varies(names)) => {
                    let Some(told_apart) = Variant::fields(&names).map(|fields| self.variant(&fields)) else {
                        return (nothing(old), "unusable");
                    };
                    variations += 1;
                    if told_apart == variant || variations > VARIATIONS {
                        return (nothing(old), "miss");
                    }
                    variant = told_apart;
                    claim = self.claimable(url, &variant);
                }
                Ok(Held::Claimed) => {
                    self.job.claim = claim.map(|claim| claim.hold(Arc::clone(&self.tier)));
                    return (nothing(old), "miss");
                }
                Ok(Held::Busy) if self.job.asking == Asking::Refresh => return (Brought::Elsewhere, "elsewhere"),
                Ok(Held::Busy) if boottime() < until => {
                    tokio::time::sleep(pause).await;
                    (pause, spent) = ((pause * 2).min(PAUSE.1), Duration::ZERO);
                }
                Ok(Held::Busy) => return (nothing(old), "waited"),
                Ok(Held::Nothing) => return (nothing(old), if known.is_some() { "old" } else { "miss" }),
                Ok(Held::Foreign) => {
                    self.edge.metrics.second_unusable(Unusable::Foreign.as_str());
                    return (nothing(old), "unusable");
                }
                Err(failed) => {
                    // It may have been given all the same, to who is not there to hear of it.
                    if let Some(claim) = claim.filter(|_| failed != Failed::LeftAlone) {
                        drop(claim.hold(Arc::clone(&self.tier)));
                    }
                    return (nothing(old), failed.as_str());
                }
            }
            if spent >= PATIENCE {
                return (nothing(old), "slow");
            }
        }
    }

    fn variant(&self, fields: &[http::HeaderName]) -> Variant {
        Variant::of(&vary::selecting(fields, &self.job.route.key_cookies, &self.job.headers))
    }

    /// Only who can write what it fetches has others wait for it.
    fn claimable(&self, url: UrlName, variant: &Variant) -> Option<Claimed> {
        let may = matches!(self.job.asking, Asking::Claim | Asking::Refresh) && self.tier.is_shared();
        (may && self.edge.lease.standing().holds()).then(|| Claimed::new(url, variant.clone())).flatten()
    }

    async fn take(&self, bytes: Bytes, since: Duration, as_of: Duration, tombstone: u64) -> Taken {
        let decoded = if bytes.len() > LARGE {
            tokio::task::spawn_blocking(move || Portable::decode(&bytes)).await.unwrap_or(Err(Unusable::Malformed))
        } else {
            Portable::decode(&bytes)
        };
        let taken = decoded.map_err(Unusable::as_str).and_then(|portable| self.judge(portable, since, as_of, tombstone));
        taken.unwrap_or_else(|why| {
            self.edge.metrics.second_unusable(why);
            Taken::Unusable
        })
    }

    /// Decides whether what was held may be used here, and puts it in the memory tier.
    fn judge(&self, portable: Portable, since: Duration, as_of: Duration, tombstone: u64) -> Result<Taken, &'static str> {
        let Job { key, route, headers, .. } = &*self.job;
        // Before what is in force is: that may have moved on since, and is no older.
        let applied = self.edge.lease.standing().applied;
        let view = self.edge.applied.view().ok_or("not-ready")?;
        if portable.key != *key || portable.owner != route.owner || !portable.selection.matches(headers) {
            return Err("other-key");
        }
        let keyed = (portable.sent != key.target).then_some(&key.target);
        let subject = Subject { owner: &portable.owner, host: &key.host, sent: &portable.sent, keyed, tags: &portable.tags };
        let slots = view.purges.slots(&subject);
        let provenance = of_shared(&portable.shared, view.epoch, applied, view.generation, portable.settings, slots).ok_or("epoch")?;
        let validity = provenance.validity(key.place(), view.in_force(), route.settings);
        match validity {
            Validity::Purged => return Err("purged"),
            Validity::OtherSettings => return Err("settings"),
            Validity::Valid | Validity::Stale => {}
        }
        let entry = Arc::new(portable.entry(provenance, as_of, since));
        if self.edge.responses.second.burials.is_buried(key, entry.head.started_boot.saturating_sub(SLACK)) {
            return Err("buried");
        }
        let responses = &self.edge.responses;
        let is_stored = responses.store(key, &entry, None, || {
            let Some(view) = self.edge.applied.view() else { return false };
            let buried = Buried { at_start: tombstone, now: responses.tombstones.generation(key) };
            may_store(&entry.head.provenance, key.place(), view.in_force(), buried)
        });
        if !is_stored {
            // What is here already is newer, or something passed meanwhile that it must not outlive.
            return Err("older");
        }
        let terms = &entry.head.terms;
        // What may be served while a fresh one is fetched is not waited for either.
        let usable = terms.lifetime.saturating_add(terms.stale_while_revalidate);
        let is_fresh = validity == Validity::Valid && !terms.no_cache && entry.head.age(boottime()) < usable;
        Ok(if is_fresh { Taken::Fresh } else { Taken::Old(entry) })
    }
}

/// What became of what a tier held.
#[derive(Debug)]
enum Taken {
    /// It answers the request, be it while a fresh one is fetched.
    Fresh,
    /// It is in the memory tier, and is to be asked about.
    Old(Arc<Entry>),
    /// It is of no use.
    Unusable,
}

/// Writes what waits in one lane.
pub(crate) async fn write_behind(edge: Arc<Edge>, mut waiting: mpsc::Receiver<Deposit>, stop: CancellationToken) {
    loop {
        let deposit = tokio::select! {
            deposit = waiting.recv() => deposit,
            () = stop.cancelled() => return,
        };
        let Some(deposit) = deposit else { return };
        let (second, bytes) = (&edge.responses.second, size(&deposit.entry));
        if let Some(tier) = second.tier() {
            let stage = deposit.span.in_scope(|| trace::stage!("store", atoll.tier = "l2", atoll.result = Empty));
            let wrote = write(&edge, &tier, deposit).instrument(stage.clone()).await;
            stage.record("atoll.result", wrote);
            second.metrics.second_wrote(wrote);
        }
        second.waiting_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

async fn write(edge: &Edge, tier: &Tier, deposit: Deposit) -> &'static str {
    let claim = deposit.claim.clone();
    let written = match prepare(edge, deposit).await {
        Ok(write) => tier.write(write).await,
        Err(why) => return why,
    };
    if let (Ok(Written::Stored | Written::Older), Some(claim)) = (written, claim) {
        claim.is_settled();
    }
    match written {
        Ok(Written::Stored) => "stored",
        Ok(Written::Older) => "older",
        Ok(Written::TooLarge) => "too-large",
        Err(failed) => failed.as_str(),
    }
}

/// Decides at the moment of writing whether an entry may still be shared (P5), and puts it into one value.
async fn prepare(edge: &Edge, deposit: Deposit) -> Result<Write, &'static str> {
    let Deposit { key, sent, owner, epoch, entry, tombstone, claim, span: _ } = deposit;
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
    let (ttl, started_ago) = (portable.ttl(), portable.started_ago);
    if ttl.is_zero() {
        return Err("short-lived");
    }
    let encoded = if size(&entry) > LARGE {
        tokio::task::spawn_blocking(move || portable.encode()).await.unwrap_or_default()
    } else {
        portable.encode()
    };
    let rank = Rank { epoch: *epoch.as_bytes(), filled_at: shared.filled_at };
    let (url, variant, claim) = (UrlName::of(&key), Variant::of(&entry.head.selection), claim.map(|claim| claim.claim().clone()));
    Ok(Write { url, variant, rank, bytes: encoded.ok_or("too-large")?, ttl, as_of, started_ago, claim })
}
