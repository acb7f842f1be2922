//! Origins that share an engine: each sees it late, decides on what it has seen, and finds out where it stands when it is not sure,
//! as `origin/src/journal/shared` and `origin/src/lease_book/shared.rs` have it around their pure parts.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use config::Network;
use origin::cores::{Asked, Candidate, Distrust, Elsewhere, Fit, Known, Mirror, Step, Told, Verdict, Word, fit, judge, may_serve};
use wire::{
    Ack, AckAnswer, Alias, Chain, Class, Digest, Epoch, Event, Fact, FeedLine, Position, PurgeTable, Refused, Role, State, Timestamp,
};

use crate::chance::Chance;
use crate::clock::Clock;
use crate::engines::{Answer, Engine};
use crate::named;
use crate::origin::{Completion, Config, Feed, SLOTS, Stored, configs_since, unknown};
use crate::plan::Time;
use crate::truth::Purge;

/// Steps after which finding out where it stands has taken too long.
const STEPS: usize = 32;

/// Events that an origin can put back.
const RECENT: u64 = 12;

/// Events behind the snapshot after which the next one is written.
const SNAPSHOT_EVERY: u64 = 5;

/// How often the whole book is read until it stands still.
const ATTEMPTS: usize = 4;

/// What somebody wants to have appended.
#[derive(Clone, Debug)]
pub(crate) enum Order {
    /// A purge, and the edge that it is announced for: its number, its life and the key.
    Purge {
        purge: Purge,
        is_unknown: bool,
        of: Option<(usize, u64, usize)>,
    },
    Settings,
    Lease {
        lease: Time,
        is_lazy: bool,
    },
    Publish,
    UnknownConfig,
}

impl Order {
    /// Decides what it comes to beside what an origin knows.
    fn fact(&self, state: &State, now: Time) -> Fact {
        let config = Config::of(state);
        let changed = |config: Config| Fact::ConfigChanged { number: config.number + 1, network: config.written() };
        match self {
            Self::Purge { is_unknown: true, .. } => unknown(Class::Purge),
            Self::Purge { purge, .. } => purge.fact(),
            Self::Settings => changed(Config { settings: config.settings + 1, ..config }),
            Self::Lease { lease, is_lazy } => changed(Config { lease: *lease, is_lazy: *is_lazy, ..config }),
            Self::Publish => {
                let version = Digest::of(&now.to_be_bytes());
                Fact::AliasMoved { site: named("www"), alias: Alias::production(), version, back: false }
            }
            Self::UnknownConfig => unknown(Class::Config),
        }
    }
}

/// A call to the engine, which comes to it some time later.
#[derive(Debug)]
pub(crate) enum Call {
    Append { number: u64, run: String, at: Position, turn: u64, stored: Box<Stored>, order: Order },
    Ack { edge: usize, life: u64, number: u64, run: String, epoch: Epoch, asked: Asked },
    Complete(Candidate),
    Snapshot { run: String, fence: u64, state: Box<State> },
}

/// What comes back, later still.
#[derive(Debug)]
pub(crate) enum Reply {
    Appended {
        number: u64,
        answer: Answer,
    },
    Acked {
        edge: usize,
        life: u64,
        number: u64,
        lease: Duration,
        head: u64,
        verdict: Verdict,
    },
    Completed,
    /// The book is another one than was meant.
    Elsewhere,
}

/// What becomes of an ack.
#[derive(Debug)]
pub(crate) enum Heard {
    Answer(AckAnswer),
    Ask(Box<Call>),
    /// Nobody can say.
    Nothing,
}

/// What was appended, and nobody has heard of yet whether it was.
#[derive(Debug)]
struct Flight {
    number: u64,
    chain: Chain,
    order: Order,
    /// Until when its answer is waited for.
    until: Time,
}

/// What an origin has done that the world is to know.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Its own appends that are there for sure.
    pub(crate) landed: Vec<(Order, Position)>,
    /// What the engine had lost, and has again.
    pub(crate) put_back: Vec<Chain>,
    pub(crate) happened: Vec<&'static str>,
    pub(crate) wrong: Option<String>,
}

/// What dies with an origin's process.
#[derive(Debug)]
struct Seat {
    state: State,
    /// Events up to there, as far as they are known one by one.
    log: Vec<Stored>,
    /// Where all was read at once: what came before can't be put back.
    loaded_at: u64,
    /// When each event was seen.
    seen: BTreeMap<u64, Duration>,
    /// The process that it believes in.
    run: String,
    /// That process changed, and this history was not found again since.
    is_unproven: bool,
    healing_until: Duration,
    turn: u64,
    orders: VecDeque<Order>,
    flight: Option<Flight>,
    mirror: Mirror,
    feeds: BTreeMap<usize, Feed>,
    snapshot_at: u64,
}

/// One of the origins.
#[derive(Debug)]
pub(crate) struct Member {
    number: usize,
    pub(crate) clock: Clock,
    pub(crate) life: u64,
    pub(crate) paused_until: Time,
    /// Until then nothing comes to it by itself of what others do.
    pub(crate) deaf_until: Time,
    /// How long nothing is appended to a process that is new here.
    healing: Time,
    names: u64,
    seat: Option<Seat>,
    pub(crate) done: Done,
}

/// The beginning of another life of a journal, at the same seq.
fn next_life(mut state: State, chance: &mut Chance) -> State {
    state.position.epoch = Epoch::from_bytes(chance.bytes());
    state.purges = PurgeTable::sized(chance.bytes(), SLOTS);
    state
}

impl Seat {
    fn position(&self) -> Position {
        self.state.position
    }

    fn chain_in_log(&self, seq: u64) -> Option<Chain> {
        self.log.iter().find(|stored| stored.event.seq == seq).map(|stored| stored.chain)
    }

    fn decide(&self, said: &Answer) -> Step {
        let head = self.position();
        let is_recent = |seq: u64| seq > self.loaded_at;
        let chain_at = |seq: u64| if seq == head.seq { Some(head.chain) } else { self.chain_in_log(seq).filter(|_| is_recent(seq)) };
        let has_all_behind = |seq: u64| seq >= head.seq || (is_recent(seq + 1) && seq + RECENT >= head.seq);
        let told = Told { word: said.word, is_begun_here: said.begun == said.actual, head: Some(&said.head) };
        judge(&told, &Known { is_unproven: self.is_unproven, chain_at: &chain_at, has_all_behind: &has_all_behind })
    }

    /// Takes in an event that must be the very next one; tells whether it was.
    fn take(&mut self, stored: &Stored, boot: Duration, done: &mut Done) -> bool {
        let at = self.position();
        if stored.event.seq <= at.seq {
            return true;
        }
        if !stored.follows(&at) {
            return false;
        }
        stored.fold_into(&mut self.state);
        self.seen.insert(stored.event.seq, boot);
        self.log.push(stored.clone());
        if self.flight.as_ref().is_some_and(|flight| flight.chain == stored.chain)
            && let Some(flight) = self.flight.take()
        {
            done.landed.push((flight.order, self.state.position));
        }
        true
    }

    /// What was under way did not come, and can't any more.
    fn take_back(&mut self) {
        if let Some(flight) = self.flight.take() {
            self.orders.push_front(flight.order);
        }
    }

    /// Reads all anew.
    fn reload(&mut self, engine: &Engine, done: &mut Done) {
        match engine.whole() {
            Ok(state) => {
                self.log = engine.events().to_vec();
                (self.loaded_at, self.snapshot_at) = (state.position.seq, engine.snapshot_at());
                self.state = state;
                self.seen.clear();
                self.take_back();
            }
            Err(wrong) => done.wrong = Some(wrong),
        }
    }

    fn begin(&self, with: State, expected: &Position, engine: &mut Engine, chance: &mut Chance, done: &mut Done) {
        if engine.begin(&self.run, expected, next_life(with, chance)) {
            done.happened.push("a new epoch of a shared journal");
        }
    }

    fn begin_with_theirs(&self, engine: &mut Engine, chance: &mut Chance, done: &mut Done) {
        match engine.whole() {
            Ok(state) => {
                let expected = state.position;
                self.begin(state, &expected, engine, chance, done);
            }
            Err(wrong) => done.wrong = Some(wrong),
        }
    }

    /// Puts back what the engine lost, exactly as it was.
    fn heal(&mut self, said: &Answer, engine: &mut Engine, done: &mut Done) {
        let lost: Vec<Stored> = self.log.iter().filter(|stored| stored.event.seq > said.head.seq).cloned().collect();
        match engine.append(&self.run, &said.head, said.turn, &lost) {
            Ok(answer) if answer.word == Word::Done => {
                done.put_back.extend(lost.iter().map(|stored| stored.chain));
                done.happened.push("put back what was lost");
            }
            Ok(_) => {}
            Err(wrong) => done.wrong = Some(wrong),
        }
    }

    /// Takes what is new; tells whether it knows all then.
    fn catch_up(&mut self, said: &Answer, boot: Duration, done: &mut Done) -> bool {
        self.turn = said.turn;
        let follows = said.entries.iter().all(|stored| self.take(stored, boot, done));
        if follows && said.head == self.position() {
            self.take_back();
            self.is_unproven = false;
            return true;
        }
        false
    }

    /// Whether the journal here and the book are of one process: else what was judged by the one says nothing of the other.
    fn is_of_one_process(&self) -> bool {
        let rest = self.mirror.run().strip_prefix(self.run.as_str());
        !self.is_unproven && rest.is_some_and(|rest| rest.starts_with('.'))
    }

    fn fit(&self, shown: &Position) -> Fit {
        let head = self.position();
        fit(&head, shown, |seq| if seq == head.seq { Some(head.chain) } else { self.chain_in_log(seq) })
    }

    fn lease(&self) -> Duration {
        Duration::from_micros(Config::of(&self.state).lease)
    }
}

impl Member {
    pub(crate) fn new(number: usize, clock: Clock, healing: Time) -> Self {
        let done = Done::default();
        Self { number, clock, life: 0, paused_until: 0, deaf_until: 0, healing, names: 0, seat: None, done }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.seat.is_some()
    }

    /// Tells whether an append is under way, behind whose answer all else waits.
    pub(crate) fn is_waiting(&self, now: Time) -> bool {
        self.seat.as_ref().and_then(|seat| seat.flight.as_ref()).is_some_and(|flight| now < flight.until)
    }

    /// Returns which process of the engine it believes in.
    pub(crate) fn run(&self) -> &str {
        self.seat.as_ref().map_or("", |seat| seat.run.as_str())
    }

    pub(crate) fn head(&self) -> Option<Position> {
        self.seat.as_ref().map(Seat::position)
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("{}-{}", self.number, self.names)
    }

    fn healed_at(&self, now: Time) -> Duration {
        self.clock.boot(now) + Duration::from_micros(self.healing)
    }

    /// Starts the process on what the engine holds.
    pub(crate) fn start(&mut self, engine: &mut Engine, assumed: Duration, now: Time) {
        self.life += 1;
        self.deaf_until = 0;
        let run = engine.server().to_owned();
        let known = engine.look("", &engine.head(), false).agreed;
        let is_first = known != run;
        engine.adopt(&known, &run);
        let state = match engine.whole() {
            Ok(state) => state,
            Err(wrong) => {
                self.done.wrong = Some(wrong);
                return;
            }
        };
        let turn = engine.look(&run, &state.position, false).turn;
        self.seat = Some(Seat {
            log: engine.events().to_vec(),
            loaded_at: state.position.seq,
            snapshot_at: engine.snapshot_at(),
            state,
            seen: BTreeMap::new(),
            run,
            is_unproven: false,
            healing_until: if is_first { self.healed_at(now) } else { Duration::ZERO },
            turn,
            orders: VecDeque::new(),
            flight: None,
            mirror: Mirror::new(),
            feeds: BTreeMap::new(),
        });
        self.load_book(engine, assumed, now);
    }

    /// Kills the process; returns what it was asked for and did not do.
    pub(crate) fn kill(&mut self) -> Vec<Order> {
        let Some(seat) = self.seat.take() else { return Vec::new() };
        seat.flight.map(|flight| flight.order).into_iter().chain(seat.orders).collect()
    }

    /// Finds out where it stands, in the journal and then in the book. `assumed` is the longest lease that may run.
    pub(crate) fn recover(&mut self, engine: &mut Engine, chance: &mut Chance, assumed: Duration, now: Time) {
        let (boot, healed_at) = (self.clock.boot(now), self.healed_at(now));
        let Some(seat) = &mut self.seat else { return };
        for _ in 0..STEPS {
            let said = engine.look(&seat.run, &seat.position(), seat.flight.is_some());
            let done = &mut self.done;
            match seat.decide(&said) {
                Step::Follow if seat.catch_up(&said, boot, done) => break,
                // It does not go on as it should.
                Step::Follow | Step::BeginWithTheirs => seat.begin_with_theirs(engine, chance, done),
                Step::Meet => {
                    said.actual.clone_into(&mut seat.run);
                    (seat.is_unproven, seat.healing_until) = (true, healed_at);
                    engine.adopt(&said.agreed, &said.actual);
                    done.happened.push("met another process");
                }
                Step::Reload => seat.reload(engine, done),
                Step::Heal => seat.heal(&said, engine, done),
                Step::BeginWithOwn => seat.begin(seat.state.clone(), &said.head, engine, chance, done),
            }
            if self.done.wrong.is_some() {
                return;
            }
        }
        if seat.is_unproven {
            self.done.wrong = Some(format!("origin {} does not find out where it stands", self.number));
        }
        self.look_at_book(engine, assumed, now);
    }

    /// Begins another life, unless somebody already ended this one.
    fn begin_epoch(&mut self, only_if: Epoch, engine: &mut Engine, chance: &mut Chance, assumed: Duration, now: Time) {
        if let Some(seat) = &self.seat
            && seat.position().epoch == only_if
        {
            seat.begin(seat.state.clone(), &seat.position(), engine, chance, &mut self.done);
            self.recover(engine, chance, assumed, now);
        }
    }

    fn look_at_book(&mut self, engine: &mut Engine, assumed: Duration, now: Time) {
        let Some(seat) = &self.seat else { return };
        if !seat.is_of_one_process() || seat.mirror.epoch() != Some(seat.position().epoch) {
            self.load_book(engine, assumed, now);
        }
    }

    fn load_book(&mut self, engine: &mut Engine, assumed: Duration, now: Time) {
        let (boot, name) = (self.clock.boot(now), self.name());
        let Some(seat) = &mut self.seat else { return };
        let head = seat.position();
        for _ in 0..ATTEMPTS {
            let Some(table) = engine.book.load() else {
                let (known, longest) = (seat.mirror.run().to_owned(), seat.mirror.longest().max(assumed));
                let _ = engine.book.distrust(&Distrust { known: &known, name: &name, epoch: head.epoch, head: head.seq, longest, assumed });
                continue;
            };
            let is_other = table.epoch != head.epoch;
            if is_other && !matches!(engine.book.begin_epoch(&table.run, head.epoch, head.seq), Err(Elsewhere::Epoch(_))) {
                continue;
            }
            let (run, epoch) = (table.run.clone(), table.epoch);
            if seat.mirror.run() != run && !is_other {
                // It may know less than this origin does.
                let (seq, longest) = (head.seq.max(seat.mirror.complete_in(epoch)), seat.mirror.longest().max(assumed));
                let _ = engine.book.vouch(&run, epoch, seq, longest);
            }
            seat.mirror.load(table, assumed, boot);
            let _ = engine.book.recall(&run, epoch, &seat.mirror.lost());
            return;
        }
    }

    /// Reads what the book's log has that is new.
    pub(crate) fn read_book(&mut self, engine: &mut Engine, assumed: Duration, now: Time) {
        let boot = self.clock.boot(now);
        let Some(seat) = &mut self.seat else { return };
        let entries = engine.book.entries(seat.mirror.log(), usize::MAX);
        if !entries.iter().all(|entry| seat.mirror.learn(entry, boot)) {
            self.load_book(engine, assumed, now);
        }
    }

    pub(crate) fn take_order(&mut self, order: Order) {
        if let Some(seat) = &mut self.seat {
            seat.orders.push_back(order);
        }
    }

    /// Returns the next append, decided on what is known here.
    pub(crate) fn next_append(&mut self, now: Time) -> Option<Call> {
        let (boot, actor, number) = (self.clock.boot(now), format!("o{}.{}", self.number, self.names + 1), self.names + 1);
        let seat = self.seat.as_mut()?;
        if seat.flight.is_some() || seat.is_unproven || boot < seat.healing_until {
            return None;
        }
        let order = seat.orders.pop_front()?;
        let at = seat.position();
        let event = Event { seq: at.seq + 1, at: Timestamp::from_millis(now / 1000), actor, fact: order.fact(&seat.state, now) };
        let stored = Box::new(Stored::behind(at.chain, event));
        let until = now + 2 * self.healing;
        seat.flight = Some(Flight { number, chain: stored.chain, order: order.clone(), until });
        self.names = number;
        Some(Call::Append { number, run: seat.run.clone(), at, turn: seat.turn, stored, order })
    }

    /// An append was answered; tells whether it has to find out where it stands.
    pub(crate) fn appended(&mut self, number: u64, answer: &Answer, now: Time) -> bool {
        let boot = self.clock.boot(now);
        let Some(seat) = &mut self.seat else { return false };
        let Some(flight) = seat.flight.as_mut().filter(|flight| flight.number == number) else { return false };
        if answer.word != Word::Here {
            // What it wrote is read where it stands now, with all that may have come before it.
            flight.until = now;
            return true;
        }
        seat.take_back();
        seat.turn = answer.turn;
        !answer.entries.iter().all(|stored| seat.take(stored, boot, &mut self.done))
    }

    /// Hears of what somebody appended; tells whether it has to look for what it lacks.
    pub(crate) fn hear(&mut self, epoch: Epoch, stored: &Stored, now: Time) -> bool {
        let boot = self.clock.boot(now);
        let Some(seat) = &mut self.seat else { return false };
        epoch != seat.position().epoch || !seat.take(stored, boot, &mut self.done)
    }

    /// Judges a position that a follower shows; one that is further than this origin is judged again when it knows all.
    pub(crate) fn fit(&mut self, shown: &Position, engine: &mut Engine, chance: &mut Chance, assumed: Duration, now: Time) -> Fit {
        let fit = self.seat.as_ref().map_or(Fit::OtherEpoch, |seat| seat.fit(shown));
        if matches!(fit, Fit::Here | Fit::Cut) {
            return fit;
        }
        self.recover(engine, chance, assumed, now);
        self.seat.as_ref().map_or(Fit::OtherEpoch, |seat| seat.fit(shown))
    }

    /// Opens a feed behind a position that fits.
    pub(crate) fn open(&mut self, edge: usize, number: u64, after: Position) {
        self.seat.iter_mut().for_each(|seat| _ = seat.feeds.insert(edge, Feed { edge, number, at: after }));
    }

    pub(crate) fn close(&mut self, edge: usize) {
        self.seat.iter_mut().for_each(|seat| _ = seat.feeds.remove(&edge));
    }

    /// Returns the next line of each open feed; a heartbeat where it has nothing new.
    pub(crate) fn lines(&mut self, with_heartbeats: bool) -> Vec<(Feed, FeedLine)> {
        let Some(seat) = &mut self.seat else { return Vec::new() };
        let head = seat.state.position;
        let cut = seat.log.first().map_or(head.seq, |stored| stored.event.seq - 1);
        seat.feeds.retain(|_, feed| feed.at.epoch == head.epoch && feed.at.seq >= cut);
        let mut lines = Vec::new();
        for feed in seat.feeds.values_mut().filter(|feed| with_heartbeats || feed.at.seq < head.seq) {
            let behind = seat.log.iter().filter(|stored| stored.event.seq > feed.at.seq);
            let mine = behind.filter(|stored| stored.event.fact.class().is_for(Role::Edge));
            let events = mine.map(|stored| stored.event.clone()).collect();
            let Position { epoch, seq: to, chain } = head;
            let line = FeedLine { epoch, from: feed.at.seq, to, chain, head: to, events, live: None, questions: Vec::new() };
            feed.at = head;
            lines.push((*feed, line));
        }
        lines
    }

    pub(crate) fn snapshot(&self) -> Option<State> {
        self.seat.as_ref().map(|seat| seat.state.for_role(Role::Edge))
    }

    /// Takes in an ack as `Core::ack` does: judges its position, and asks the book about a lease.
    pub(crate) fn ack(
        &mut self,
        (edge, life, number): (usize, u64, u64),
        ack: Ack,
        (engine, chance): (&mut Engine, &mut Chance),
        assumed: Duration,
        now: Time,
    ) -> Heard {
        let position = ack.position;
        let fit = self.fit(&position, engine, chance, assumed, now);
        if fit == Fit::Lost {
            self.begin_epoch(position.epoch, engine, chance, assumed, now);
        }
        let boot = self.clock.boot(now);
        let Some(seat) = &self.seat else { return Heard::Nothing };
        let head = seat.position();
        if !matches!(fit, Fit::Here | Fit::Cut) || position.epoch != head.epoch {
            return Heard::Answer(AckAnswer { head: head.seq, lease_ms: 0, reason: Some(Refused::OtherHistory), anew: false });
        }
        if !seat.is_of_one_process() {
            return Heard::Nothing;
        }
        let (lease, next) = (seat.lease(), position.seq + 1);
        let unapplied = (next <= head.seq).then(|| seat.seen.get(&next).copied().unwrap_or_default());
        let is_laggard = unapplied.is_some_and(|seen| boot.saturating_sub(seen) > lease);
        let (who, news) = ((Role::Edge, ack.follower), String::new());
        let asked = Asked { who, life: ack.life, seq: position.seq, lease, is_laggard, news };
        Heard::Ask(Box::new(Call::Ack { edge, life, number, run: seat.mirror.run().to_owned(), epoch: head.epoch, asked }))
    }

    /// Returns what it may have made complete, by its clock.
    pub(crate) fn candidate(&self, now: Time) -> Option<Candidate> {
        let seat = self.seat.as_ref().filter(|seat| seat.is_of_one_process())?;
        seat.mirror.candidate(&seat.position(), self.clock.boot(now))
    }

    /// Returns a snapshot to be written, where it is time for it.
    pub(crate) fn next_snapshot(&mut self, engine: &mut Engine) -> Option<Call> {
        let seat = self.seat.as_mut().filter(|seat| !seat.is_unproven)?;
        if seat.position().seq <= seat.snapshot_at + SNAPSHOT_EVERY {
            return None;
        }
        seat.snapshot_at = seat.position().seq;
        Some(Call::Snapshot { run: seat.run.clone(), fence: engine.next_fence(), state: Box::new(seat.state.clone()) })
    }

    /// Returns up to where it says that its journal is complete.
    pub(crate) fn said(&self, now: Time) -> u64 {
        let seat = self.seat.as_ref().filter(|seat| seat.is_of_one_process());
        seat.map_or(0, |seat| seat.mirror.said(seat.position().epoch, self.clock.boot(now)).min(seat.position().seq))
    }

    /// Tells how the completion of an event stands that it says is complete: a fenced edge may go on serving by choice.
    pub(crate) fn completion(&self, seq: u64, fact: &Fact, networks: &mut BTreeMap<(bool, Time), Network>, now: Time) -> Completion {
        let boot = self.clock.boot(now);
        let Some(seat) = &self.seat else { return Completion::Pending };
        for (applied, until) in seat.mirror.fenced_at(seq, boot) {
            let fenced_for = boot.saturating_sub(until);
            for config in configs_since(&seat.state, applied) {
                let network = networks.entry((config.is_lazy, config.lease)).or_insert_with(|| config.network());
                if !may_serve(fact, network, fenced_for).is_empty() {
                    return Completion::Partial;
                }
            }
        }
        Completion::Complete
    }
}
