//! How an edge answers reads and writes: the shell around the pure parts as `edge/src/gateway` has it, with the shared
//! tier between memory and upstream.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::time::Duration;

use edge::cores::{
    Arrival, Begun, Buried, FillTable, Part, Place, Proof, Provenance, Said, Shared, Tombstones, Validity, may_join, may_rely, may_renew,
    may_share, may_store, may_take, of_shared, renewed_at,
};
use follow::Standing;
use wire::mistake::{Mistake, makes};
use wire::{Epoch, Host, Owner, Slots, Subject, Tag, Target};

use crate::edge::Edge;
use crate::named;
use crate::origin::HOSTS;
use crate::plan::{KEYS, Time};
use crate::shared::{Look, SharedEntry, SharedFound};
use crate::truth::{Answered, Arrived, Body, Served};
use crate::world::{Shown, What, World};

/// A hasher that is the same on every machine.
#[derive(Debug, Default)]
pub(crate) struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |sum, byte| sum.wrapping_add(u64::from(*byte)));
    }
}

/// How often a request looks again before it fetches for itself.
const LOOKS: u32 = 3;

/// How a reader is answered by a fetch that started after it came.
const WAITED: &str = "waited for a fetch";

/// Keys whose stale entries are served while a fresh one is fetched.
const SERVED_STALE: [bool; KEYS] = [false, true, true];

/// Whether a key's route goes on serving while its edge is fenced.
pub(crate) fn is_lazy(key: usize) -> bool {
    key + 1 == KEYS
}

/// Where a key is stored, and what purges it.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) host: Host,
    pub(crate) target: Target,
    pub(crate) tags: Vec<Tag>,
}

impl Address {
    pub(crate) fn of(key: usize) -> Self {
        Self {
            host: named(HOSTS[usize::from(is_lazy(key))]),
            target: named(&format!("/k{key}")),
            tags: vec![named(&format!("t{}", key % 2))],
        }
    }

    fn place(&self) -> Place<'_> {
        Place { host: &self.host, target: &self.target }
    }
}

/// An entry in memory.
#[derive(Clone, Debug)]
struct Entry {
    id: u64,
    provenance: Provenance,
    epoch: Epoch,
    body: Body,
}

/// What a read wants beside the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nothing.
    Any,
    /// That it is asked for again.
    Reload,
    /// The fields alone.
    Head,
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Visit {
    arrived: Arrived,
    wish: Wish,
    arrival: Arrival,
    looks: u32,
}

impl Visit {
    pub(crate) fn key(&self) -> usize {
        self.arrived.key
    }
}

/// What was true when a fetch started.
#[derive(Clone, Copy, Debug)]
struct Start {
    filled_at: u64,
    tombstone: u64,
    generation: u64,
    epoch: Epoch,
    settings: u64,
    at: Time,
}

/// A fill's name.
#[derive(Debug)]
pub(crate) struct Fill(u64);

#[derive(Debug)]
struct Running {
    fill: Arc<Fill>,
    key: usize,
    /// The route's settings when it was asked for.
    settings: u64,
    start: Option<Start>,
    /// What is stored already, to be asked about.
    entry: Option<Entry>,
    leader: Option<Visit>,
    /// Who waits, and whether the fetch had started when it came.
    waiting: Vec<(Visit, bool)>,
    /// What it brought, once its head has come.
    brought: Option<(Provenance, Body, Option<u64>)>,
    /// Who begins when it has ended.
    next: Option<u64>,
}

/// What an edge's memory holds.
#[derive(Debug)]
pub(crate) struct Serving {
    l1: BTreeMap<usize, Entry>,
    fills: FillTable<usize, Fill>,
    running: BTreeMap<u64, Running>,
    tombstones: Tombstones<BuildHasherDefault<Plain>>,
    /// Keys whose invalidation is not in force through the journal yet, with the seq that it got, once it has one.
    unannounced: BTreeMap<usize, Vec<Option<u64>>>,
    /// When each key was last made invalid here (P8), for entries that come from the shared tier.
    burials: BTreeMap<usize, Duration>,
    /// What this edge fetches for all edges of its region, and by what name.
    claims: BTreeMap<usize, u64>,
}

impl Serving {
    pub(crate) fn new() -> Self {
        let tombstones = Tombstones::sized(8, BuildHasherDefault::default());
        Self {
            l1: BTreeMap::new(),
            fills: FillTable::default(),
            running: BTreeMap::new(),
            tombstones,
            unannounced: BTreeMap::new(),
            burials: BTreeMap::new(),
            claims: BTreeMap::new(),
        }
    }

    /// Drops what is stored: the journal is of another history.
    pub(crate) fn forget_all(&mut self) {
        self.l1.clear();
    }
}

/// A request that looks again, as if it came now.
fn anew(standing: Standing, generation: u64) -> Arrival {
    Arrival { standing, generation, asks_again: true, must_be_strong: !standing.holds() }
}

/// What is found for a request.
enum Found {
    Fresh(Entry),
    Stale(Entry),
    Revalidate(Entry),
    Nothing,
}

fn look_up(edge: &Edge, visit: &Visit, has_etag: bool) -> Found {
    let key = visit.arrived.key;
    let Some(process) = &edge.process else { return Found::Nothing };
    let (Some(view), Some(entry)) = (&process.view, process.serving.l1.get(&key)) else { return Found::Nothing };
    let address = Address::of(key);
    let validity = entry.provenance.validity(address.place(), view.in_force(), visit.arrived.settings);
    // Who came under settings that no longer hold must not rely on what they brought.
    let is_late = visit.arrived.settings != view.config.settings && !makes(Mistake::OldSettings);
    if is_late || matches!(validity, Validity::Purged | Validity::OtherSettings) {
        return Found::Nothing;
    }
    if !may_rely(edge.when_fenced(key), &visit.arrival.standing) {
        // Without a strong validator a fenced edge fetches in full (P4).
        return if has_etag { Found::Revalidate(entry.clone()) } else { Found::Nothing };
    }
    match validity {
        Validity::Valid if visit.wish != Wish::Reload => Found::Fresh(entry.clone()),
        Validity::Stale if SERVED_STALE.get(key) == Some(&true) && visit.wish == Wish::Any => Found::Stale(entry.clone()),
        _ => Found::Revalidate(entry.clone()),
    }
}

fn slots(edge: &Edge, key: usize) -> Option<Slots> {
    let view = edge.process.as_ref()?.view.as_ref()?;
    let address = Address::of(key);
    let owner = Owner::default();
    Some(view.purges.slots(&Subject { owner: &owner, host: &address.host, sent: &address.target, keyed: None, tags: &address.tags }))
}

impl World {
    /// A read comes to an edge.
    pub(crate) fn read(&mut self, at: usize, key: usize, wish: Wish, came: Time) {
        let Some(edge) = self.edges.get(at) else { return };
        let standing = edge.standing(self.now);
        let Some(view) = edge.process.as_ref().and_then(|process| process.view.as_ref()) else { return };
        let arrived = Arrived {
            edge: at,
            life: edge.life,
            key,
            at: came,
            epoch: (standing.applied > 0).then_some(view.epoch),
            applied: standing.applied,
            settings: view.config.settings,
            is_fenced: !standing.holds(),
            is_lazy: is_lazy(key),
        };
        let shown = Shown { epoch: view.epoch, site: view.site, applied: standing.applied };
        let arrival = Arrival { standing, generation: view.generation, asks_again: false, must_be_strong: !standing.holds() };
        self.show_site(at, shown);
        self.visit(Visit { arrived, wish, arrival, looks: 0 });
    }

    fn has_etag(&self, key: usize) -> bool {
        self.plan.has_etag.get(key) == Some(&true)
    }

    fn visit(&mut self, mut visit: Visit) {
        let Some(edge) = self.edges.get(visit.arrived.edge) else { return };
        if visit.looks > 0 {
            let Some(view) = edge.process.as_ref().and_then(|process| process.view.as_ref()) else { return };
            // It looks again as if it came now; what it must not get is judged by when it really came.
            visit.arrival = anew(edge.standing(self.now), view.generation);
        }
        match look_up(edge, &visit, self.has_etag(visit.arrived.key)) {
            Found::Fresh(entry) => self.serve(&visit, &entry.provenance, entry.body, true, "a hit"),
            Found::Stale(entry) => {
                self.serve(&visit, &entry.provenance, entry.body, false, "a stale hit");
                self.refresh(&visit, entry);
            }
            Found::Revalidate(entry) if visit.wish == Wish::Head => self.send_head(&visit, Some(entry)),
            Found::Nothing if visit.wish == Wish::Head => self.send_head(&visit, None),
            Found::Revalidate(entry) => self.fetch(visit, Some(entry)),
            Found::Nothing => self.ask_shared(visit),
        }
    }

    fn serve(&mut self, visit: &Visit, provenance: &Provenance, body: Body, is_fresh: bool, how: &'static str) {
        self.count(how);
        let is_new = how == WAITED;
        let served = Served { body, is_fresh, settings: provenance.settings, is_new };
        let Visit { arrived, .. } = visit;
        self.tell(|| {
            format!(
                "edge {} answers a read of key {} that came at {} with version {}: {how}",
                arrived.edge, arrived.key, arrived.at, body.version
            )
        });
        if let Err(wrong) = self.truth.judge(&visit.arrived, &served) {
            self.fail(format!("{wrong}; at edge {}, key {}, {how}: {served:?} for {:?}", arrived.edge, arrived.key, visit.arrived));
        }
    }

    /// Asks the shared tier, where it may be asked.
    fn ask_shared(&mut self, visit: Visit) {
        let (at, key) = (visit.arrived.edge, visit.arrived.key);
        let claim = self.name();
        let Some(edge) = self.edges.get(at) else { return };
        let Some(process) = &edge.process else { return };
        // Whoever can join what this edge fetches itself does.
        let is_running = process.serving.running.values().any(|running| running.key == key);
        let asks = self.plan.shares && visit.looks == 0 && !is_running && may_rely(edge.when_fenced(key), &visit.arrival.standing);
        if !asks || visit.wish == Wish::Reload {
            return self.fetch(visit, None);
        }
        let look = Look {
            tombstone: process.serving.tombstones.generation(&key),
            generation: visit.arrival.generation,
            // Only who can write what it fetches has others wait for it.
            claim: edge.standing(self.now).holds().then_some(claim),
            known: Duration::ZERO,
            asked: edge.clock.boot(self.now),
            until: self.now + self.plan.lease / 2,
        };
        self.look_elsewhere(visit, look, 0);
    }

    fn look_elsewhere(&mut self, visit: Visit, look: Look, pause: Time) {
        let (at, now) = (visit.arrived.edge, self.now);
        let delay = pause + self.delay();
        let Some(edge) = self.edges.get(at) else { return };
        let (region, life, look) = (edge.region, edge.life, Look { asked: edge.clock.boot(now), ..look });
        self.after(delay, What::SharedRead { region, at, life, visit: Box::new(visit), look });
    }

    /// Who fetches in place of what is of no use does so for all.
    fn look_once_more(&mut self, visit: Visit, look: Look, stamp: Duration) {
        if look.claim.is_some() && stamp > look.known {
            self.look_elsewhere(visit, Look { known: stamp, ..look }, 0);
        } else {
            self.fetch(visit, None);
        }
    }

    /// The shared tier answered.
    pub(crate) fn shared_answered(&mut self, visit: Visit, found: SharedFound, look: Look) {
        match found {
            SharedFound::Value { entry, stamp, since } => self.take_shared(visit, entry, (stamp, since), look),
            SharedFound::Busy if self.now < look.until => {
                self.count("waited for another edge's fetch");
                let pause = self.plan.lease / 20;
                self.look_elsewhere(visit, look, pause);
            }
            SharedFound::Claimed => {
                if let (Some(claim), Some(Edge { process: Some(process), .. })) = (look.claim, self.edges.get_mut(visit.arrived.edge)) {
                    process.serving.claims.insert(visit.arrived.key, claim);
                }
                self.fetch(visit, None);
            }
            SharedFound::Busy | SharedFound::Nothing => self.fetch(visit, None),
        }
    }

    /// What the shared tier holds becomes an entry like any other.
    fn take_shared(&mut self, visit: Visit, found: SharedEntry, (stamp, since): (Duration, Duration), look: Look) {
        let (at, key) = (visit.arrived.edge, visit.arrived.key);
        let Some(slots) = self.edges.get(at).and_then(|edge| slots(edge, key)) else { return };
        let applied = self.edges.get(at).map_or(0, |edge| edge.standing(self.now).applied);
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let Some(view) = &process.view else { return };
        let address = Address::of(key);
        let provenance = of_shared(&found.shared, view.epoch, applied, view.generation, found.settings, slots);
        let Some(provenance) = provenance else { return self.look_once_more(visit, look, stamp) };
        let buried = Buried { at_start: look.tombstone, now: process.serving.tombstones.generation(&key) };
        // P8: it counts from when it was asked, and three clocks have measured.
        let started = look.asked.saturating_sub((since + found.started_ago) * 101 / 100);
        let is_buried = process.serving.burials.get(&key).is_some_and(|at| started <= *at) && !makes(Mistake::NoTombstone);
        let is_same = look.generation == view.generation && visit.arrived.settings == view.config.settings;
        let validity = provenance.validity(address.place(), view.in_force(), visit.arrived.settings);
        let may_store = may_store(&provenance, address.place(), view.in_force(), buried);
        if !is_same || is_buried || validity != Validity::Valid || !may_store {
            return self.look_once_more(visit, look, stamp);
        }
        let entry = Entry { id: found.id, provenance, epoch: view.epoch, body: Body { was_shared: true, ..found.body } };
        let known = process.serving.l1.get(&key);
        if known.is_none_or(|known| entry.provenance.may_replace(&known.provenance)) {
            process.serving.l1.insert(key, entry.clone());
        }
        self.serve(&visit, &entry.provenance, entry.body, true, "a hit in the shared tier");
    }

    fn fetch(&mut self, visit: Visit, entry: Option<Entry>) {
        let (at, key) = (visit.arrived.edge, visit.arrived.key);
        let anew = self.name();
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let serving = &mut process.serving;
        if visit.looks >= LOOKS {
            let fill = Arc::new(Fill(anew));
            return self.lead(at, fill, None, visit, entry);
        }
        let tombstone = serving.tombstones.generation(&key);
        match serving.fills.take_part(&key, tombstone, may_join(&visit.arrival), || Fill(anew)) {
            Part::Lead(fill, before) => self.lead(at, fill, before, visit, entry),
            Part::Join(fill) => self.wait(at, &fill, visit, true),
            Part::Await(fill) => self.wait(at, &fill, visit, false),
        }
    }

    fn lead(&mut self, at: usize, fill: Arc<Fill>, before: Option<Arc<Fill>>, visit: Visit, entry: Option<Entry>) {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let (number, key) = (fill.0, visit.arrived.key);
        let settings = visit.arrived.settings;
        let running =
            Running { fill, key, settings, start: None, entry, leader: Some(visit), waiting: Vec::new(), brought: None, next: None };
        process.serving.running.insert(number, running);
        match before.and_then(|before| process.serving.running.get_mut(&before.0)) {
            Some(before) => before.next = Some(number),
            None => self.begin(at, number),
        }
    }

    fn wait(&mut self, at: usize, fill: &Fill, visit: Visit, had_started: bool) {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let Some(running) = process.serving.running.get_mut(&fill.0) else { return };
        if running.brought.is_some() {
            let number = fill.0;
            self.hand_over(at, number, visit, had_started);
        } else {
            running.waiting.push((visit, had_started));
        }
    }

    fn refresh(&mut self, visit: &Visit, entry: Entry) {
        let at = visit.arrived.edge;
        let anew = self.name();
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let Some(fill) = process.serving.fills.lead_if_idle(&visit.arrived.key, Fill(anew)) else { return };
        let Arrived { key, settings, .. } = visit.arrived;
        let running =
            Running { fill, key, settings, start: None, entry: Some(entry), leader: None, waiting: Vec::new(), brought: None, next: None };
        process.serving.running.insert(anew, running);
        self.begin(at, anew);
    }

    /// P4: the position is read before the fetch starts, never after.
    fn start_at(&self, at: usize, key: usize, settings: u64) -> Option<Start> {
        let edge = self.edges.get(at)?;
        let process = edge.process.as_ref()?;
        let view = process.view.as_ref()?;
        Some(Start {
            filled_at: edge.standing(self.now).applied,
            tombstone: process.serving.tombstones.generation(&key),
            generation: view.generation,
            epoch: view.epoch,
            settings,
            at: self.now,
        })
    }

    fn begin(&mut self, at: usize, number: u64) {
        let Some((key, settings)) = self.running(at, number).map(|running| (running.key, running.settings)) else { return };
        let Some(start) = self.start_at(at, key, settings) else { return };
        let has_etag = self.has_etag(key);
        let Some(Edge { process: Some(process), life, .. }) = self.edges.get_mut(at) else { return };
        let Some(view) = &process.view else { return };
        let Some(running) = process.serving.running.get_mut(&number) else { return };
        running.start = Some(start);
        process.serving.fills.begin(&key, &running.fill, Begun { filled_at: start.filled_at, tombstone: start.tombstone });
        // Validators and bodies of a hard-purged entry are never used again.
        let address = Address::of(key);
        running.entry = running.entry.take().filter(|entry| may_renew(&entry.provenance, address.place(), view.in_force()));
        let known = running.entry.as_ref().map(|entry| entry.body.version).filter(|_| has_etag);
        let life = *life;
        self.send_fetch(at, life, number, key, known);
    }

    fn send_fetch(&mut self, at: usize, life: u64, fill: u64, key: usize, known: Option<u64>) {
        let slowest = self.plan.slowest_fetch;
        let (there, back) = (self.chance.between(1, slowest), self.chance.between(1, slowest));
        self.after(there, What::Upstream { at, life, fill, key, known, back });
    }

    fn running(&mut self, at: usize, number: u64) -> Option<&mut Running> {
        self.edges.get_mut(at)?.process.as_mut()?.serving.running.get_mut(&number)
    }

    /// The upstream answered a fetch: with a version, or that the one it was asked about is right.
    pub(crate) fn fetched(&mut self, at: usize, number: u64, version: Option<u64>) {
        let slots = self.running(at, number).map(|running| running.key).and_then(|key| slots(self.edges.get(at)?, key));
        let applied = self.edges.get(at).map_or(0, |edge| edge.standing(self.now).applied);
        let id = self.name();
        let Some(Edge { process: Some(process), life, .. }) = self.edges.get_mut(at) else { return };
        let (Some(view), Some(slots)) = (&process.view, slots) else { return };
        let Some(running) = process.serving.running.get_mut(&number) else { return };
        let Some(start) = running.start else { return };
        let (key, address) = (running.key, Address::of(running.key));
        let filled_at = if makes(Mistake::FilledAtEnd) { applied } else { start.filled_at };
        let brought = match (version, &running.entry) {
            (None, Some(entry)) if !may_renew(&entry.provenance, address.place(), view.in_force()) => {
                running.entry = None;
                let life = *life;
                return self.send_fetch(at, life, number, key, None);
            }
            (None, Some(entry)) => {
                if let Err(wrong) = self.truth.judge_renewal(key, &entry.body, view.epoch, applied) {
                    return self.fail(wrong);
                }
                let filled_at = renewed_at(Said::NotModified, entry.provenance.filled_at, filled_at);
                let body = Body { validated: start.at, ..entry.body };
                let provenance = Provenance { filled_at, generation: start.generation, settings: start.settings, slots };
                (provenance, body, Some(entry.id))
            }
            (None, None) => return,
            (Some(version), _) => {
                let body = Body { version, begun: start.at, validated: start.at, was_shared: false };
                (Provenance { filled_at, generation: start.generation, settings: start.settings, slots }, body, None)
            }
        };
        running.brought = Some(brought);
        let (leader, waiting) = (running.leader.take(), std::mem::take(&mut running.waiting));
        if leader.is_some() {
            self.count("a fetch");
        }
        for (visit, had_started) in waiting {
            self.hand_over(at, number, visit, had_started);
        }
        // The rest of its body is still on its way: others may join until it has come.
        let tail = self.chance.between(0, self.plan.slowest_fetch);
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        self.after(tail, What::FillEnds { at, life, fill: number, id });
    }

    /// No answer came. What is stored may stand in for it, as it would be found now.
    pub(crate) fn fetch_failed(&mut self, at: usize, number: u64) {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let Some(running) = process.serving.running.remove(&number) else { return };
        process.serving.fills.end(&running.key, &running.fill);
        self.give_up_claim(at, running.key);
        let waiting = running.waiting.into_iter().map(|(visit, _)| visit);
        for visit in running.leader.into_iter().chain(waiting) {
            self.stand_in(visit);
        }
        if let Some(next) = running.next {
            self.begin(at, next);
        }
    }

    fn stand_in(&mut self, mut visit: Visit) {
        let (at, key) = (visit.arrived.edge, visit.arrived.key);
        let Some(edge) = self.edges.get(at) else { return };
        let Some(view) = edge.process.as_ref().and_then(|process| process.view.as_ref()) else { return };
        visit.arrival = anew(edge.standing(self.now), view.generation);
        let relies = may_rely(edge.when_fenced(key), &visit.arrival.standing);
        match look_up(edge, &visit, self.has_etag(key)) {
            Found::Fresh(entry) => self.serve(&visit, &entry.provenance, entry.body, true, "a hit in place of an error"),
            Found::Stale(entry) | Found::Revalidate(entry) if relies => {
                self.serve(&visit, &entry.provenance, entry.body, false, "a stale hit in place of an error");
            }
            _ => self.count("an error"),
        }
    }

    fn hand_over(&mut self, at: usize, number: u64, mut visit: Visit, had_started: bool) {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        let (Some(view), Some(running)) = (&process.view, process.serving.running.get(&number)) else { return };
        let Some((provenance, body, _)) = running.brought.clone() else { return };
        let address = Address::of(running.key);
        // What was decided by other settings is for nobody else.
        let fits = provenance.settings == visit.arrived.settings;
        if fits && may_take(&provenance, Proof::Strong, address.place(), view.in_force(), had_started, &visit.arrival) {
            let how = if had_started { "joined a fetch" } else { WAITED };
            return self.serve(&visit, &provenance, body, true, how);
        }
        self.count("not for who joined");
        visit.looks += 1;
        self.visit(visit);
    }

    /// A fill's body has come: it is stored, unless something passed meanwhile that it must not outlive.
    pub(crate) fn fill_ends(&mut self, at: usize, number: u64, id: u64) {
        let Some(Edge { process: Some(process), life, region, .. }) = self.edges.get_mut(at) else { return };
        let Some(running) = process.serving.running.remove(&number) else { return };
        process.serving.fills.end(&running.key, &running.fill);
        let (life, region, key) = (*life, *region, running.key);
        if let (Some((provenance, body, of)), Some(start)) = (running.brought, running.start) {
            let entry = Entry { id, provenance, epoch: start.epoch, body };
            if self.store(at, &entry, key, start.tombstone, of) && self.plan.shares {
                self.share(at, life, region, key, &entry);
            }
        }
        self.give_up_claim(at, key);
        if let Some(next) = running.next {
            self.begin(at, next);
        }
    }

    fn store(&mut self, at: usize, entry: &Entry, key: usize, tombstone: u64, of: Option<u64>) -> bool {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return false };
        let (Some(view), address) = (&process.view, Address::of(key)) else { return false };
        let serving = &mut process.serving;
        let buried = Buried { at_start: tombstone, now: serving.tombstones.generation(&key) };
        let known = serving.l1.get(&key);
        let is_there = of.is_none_or(|of| known.is_some_and(|known| known.id == of));
        let is_newer = known.is_none_or(|known| entry.provenance.may_replace(&known.provenance));
        if !is_there || !is_newer || !may_store(&entry.provenance, address.place(), view.in_force(), buried) {
            return false;
        }
        serving.l1.insert(key, entry.clone());
        true
    }

    fn share(&mut self, at: usize, life: u64, region: usize, key: usize, entry: &Entry) {
        let Some(edge) = self.edges.get(at) else { return };
        let standing = edge.standing(self.now);
        let shared = Shared { epoch: entry.epoch, filled_at: entry.provenance.filled_at };
        if !may_share(&standing, None, &shared) || edge.life != life {
            return;
        }
        // By the clock that went on where the machine stood still.
        let started_ago = edge.clock.wall(self.now).saturating_sub(edge.clock.wall(entry.body.validated));
        let claim = self.take_claim(at, key);
        let (delay, written) = (self.delay(), self.now);
        let entry = SharedEntry { shared, settings: entry.provenance.settings, body: entry.body, id: entry.id, started_ago };
        self.after(delay, What::SharedWrite { region, key, entry, standing, written, claim });
    }

    fn take_claim(&mut self, at: usize, key: usize) -> Option<u64> {
        self.edges.get_mut(at)?.process.as_mut()?.serving.claims.remove(&key)
    }

    /// A fill has ended: where nothing of it is being written, no other edge waits for it.
    fn give_up_claim(&mut self, at: usize, key: usize) {
        let Some(claim) = self.take_claim(at, key) else { return };
        let (delay, region) = (self.delay(), self.edges.get(at).map_or(0, |edge| edge.region));
        self.after(delay, What::SharedGiveUp { region, key, claim });
    }

    fn send_head(&mut self, visit: &Visit, entry: Option<Entry>) {
        let (at, key) = (visit.arrived.edge, visit.arrived.key);
        let (Some(start), Some(entry)) = (self.start_at(at, key, visit.arrived.settings), entry) else { return };
        let slowest = self.plan.slowest_fetch;
        let life = self.edges.get(at).map_or(0, |edge| edge.life);
        let delay = self.chance.between(1, slowest);
        let head = Head { key, entry, start };
        self.after(delay, What::Head { at, life, head: Box::new(head) });
    }

    /// A HEAD was answered: the body that is stored is as old as it was.
    pub(crate) fn head_answered(&mut self, at: usize, head: Head) {
        let Head { key, entry, start } = head;
        let version = self.upstream.read(key, self.now, &mut self.chance);
        let differs = self.has_etag(key) && version != entry.body.version;
        let id = self.name();
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        if differs {
            process.serving.tombstones.bury(&key);
            process.serving.l1.remove(&key);
            return;
        }
        let filled_at = renewed_at(Said::Head, entry.provenance.filled_at, start.filled_at);
        let provenance = Provenance { filled_at, generation: start.generation, settings: start.settings, slots: entry.provenance.slots };
        let updated = Entry { id, provenance, epoch: start.epoch, body: entry.body };
        self.store(at, &updated, key, start.tombstone, Some(entry.id));
    }

    /// An unsafe request was answered by the upstream, well or not at all: what it changed becomes invalid (P8).
    pub(crate) fn unsafe_answered(&mut self, at: usize, key: usize, written: Time, has_answer: bool) {
        let Some(Edge { process: Some(process), life, region, clock, .. }) = self.edges.get_mut(at) else { return };
        let (life, region) = (*life, *region);
        process.serving.burials.insert(key, clock.boot(self.now));
        process.serving.tombstones.bury(&key);
        process.serving.l1.remove(&key);
        process.serving.unannounced.entry(key).or_default().push(None);
        let delay = self.delay();
        self.after(delay, What::SharedRemove { region, key });
        if has_answer {
            self.tell(|| format!("edge {at} answers an unsafe request of key {key}, which was written at {written}"));
            self.truth.answered.push(Answered { edge: at, life, key, written, answered: self.now, is_owed: true });
        }
        if !makes(Mistake::NotAnnounced) {
            self.announce(at, life, key);
        }
    }

    /// The journal holds what was announced: once it is in force here too, nothing else is needed.
    pub(crate) fn announced(&mut self, at: usize, key: usize, seq: u64) {
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        if let Some(waiting) = process.serving.unannounced.get_mut(&key).and_then(|waiting| waiting.iter_mut().find(|seq| seq.is_none())) {
            *waiting = Some(seq);
        }
        self.forget_announced(at);
    }

    pub(crate) fn forget_announced(&mut self, at: usize) {
        let applied = self.edges.get(at).map_or(0, |edge| edge.standing(self.now).applied);
        let Some(Edge { process: Some(process), .. }) = self.edges.get_mut(at) else { return };
        process.serving.unannounced.retain(|_, waiting| {
            waiting.retain(|seq| seq.is_none_or(|seq| seq > applied));
            !waiting.is_empty()
        });
    }

    /// Tells which keys' invalidations die with an edge's process.
    pub(crate) fn untold(&self, at: usize) -> BTreeSet<usize> {
        let process = self.edges.get(at).and_then(|edge| edge.process.as_ref());
        process.map_or_else(BTreeSet::new, |process| process.serving.unannounced.keys().copied().collect())
    }
}

/// A HEAD on its way.
#[derive(Debug)]
pub(crate) struct Head {
    key: usize,
    entry: Entry,
    start: Start,
}
