//! The shell around the follower: reads the feed, keeps and applies its lines, acknowledges at once
//! and at each heartbeat, and comes back after every failure.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use reqwest::Response;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{Ack, Event, FeedLine, LiveEdge, NodeName, PROTOCOL, Position, Question, Refused, RegionName, Role, State};

use crate::follower::{drops_all, live_of, may_load};
use crate::lease::Sent;
use crate::origin::LINE_MOST;
use crate::{Follower, Kept, KeptError, Lease, Origins, OriginsError, Refusal, Trouble, boottime};

/// Waits between attempts grow from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// An ack that takes longer than this is given up; the next one says more.
const ACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Pauses between two lives of one process grow from the first to the second.
const REBORN: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// Who follows, as what, and where it keeps its fold.
#[derive(Debug)]
pub struct Settings {
    /// Its name.
    pub name: NodeName,
    /// What it does.
    pub role: Role,
    /// Its region.
    pub region: RegionName,
    /// Where it keeps its fold.
    pub folder: PathBuf,
    /// The addresses that DNS gives out for it.
    pub answers: Vec<IpAddr>,
}

/// What a node says of itself in each ack.
#[derive(Clone, Debug, Default)]
pub struct Vitals {
    /// Whether it asks DNS to leave it out.
    pub draining: bool,
    /// How busy it is, from 0 to 1.
    pub load: f64,
    /// What it counts.
    pub counts: BTreeMap<String, u64>,
}

/// A node can't put an event in force, since it does not understand it.
#[derive(Debug, thiserror::Error)]
#[error("event {seq} is not understood: {why}; a newer version of atoll is needed here")]
pub struct NotUnderstood {
    /// The event.
    pub seq: u64,
    /// Why.
    pub why: String,
}

/// What a node does with what it follows. Everything that these calls were given is in force when
/// they return.
pub trait Apply: Send + Sync + 'static {
    /// Begins with a whole fold. Where `drop_all`, nothing that was held before may be used again.
    ///
    /// # Errors
    /// Where its configuration is not understood.
    fn load(&self, state: &State, drop_all: bool) -> impl Future<Output = Result<(), NotUnderstood>> + Send;

    /// Goes on with `events`, which `state` has folded already.
    ///
    /// # Errors
    /// Where one of them is not understood.
    fn apply(&self, state: &State, events: &[Event]) -> impl Future<Output = Result<(), NotUnderstood>> + Send;

    /// Takes in which edges are live; for DNS nodes.
    fn live(&self, live: &[LiveEdge]);

    /// Is asked something, by an origin whose events up to now are in force here. It must not wait.
    fn asked(&self, _questions: Vec<Question>) {}

    /// Tells how the node is.
    fn vitals(&self) -> Vitals;

    /// Returns how often it is heard of when nothing happens.
    fn heartbeat(&self) -> Duration;
}

/// A node that follows. Dropping it stops it.
#[derive(Debug)]
pub struct Following {
    loaded: watch::Receiver<bool>,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    ack_now: Arc<Notify>,
    answers: watch::Sender<Vec<IpAddr>>,
}

impl Following {
    /// Tells whether the node has a fold to answer from.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Tells whether all that has to run for it does; else something panicked, and the node can't go on as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Sends an ack soon, since what the node says of itself has changed.
    pub fn ack_now(&self) {
        self.ack_now.notify_one();
    }

    /// The DNS gives out other addresses for the node from now on.
    pub fn set_answers(&self, answers: Vec<IpAddr>) {
        if self.answers.send_if_modified(|known| std::mem::replace(known, answers.clone()) != answers) {
            self.ack_now();
        }
    }

    /// Stops following and waits until it has.
    pub async fn stop(mut self) {
        self.stop.cancel();
        for task in self.tasks.drain(..) {
            let _ = task.await;
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Begins to follow: with the fold that was kept, where there is one, then with the feed.
///
/// # Errors
/// Where the folder can't be used.
pub async fn start<A: Apply>(settings: Settings, origins: Arc<Origins>, node: Arc<A>, lease: Arc<Lease>) -> Result<Following, KeptError> {
    let (kept, follower) = Kept::open(&settings.folder)?;
    let (loaded, is_loaded) = watch::channel(false);
    let (position, positions) = watch::channel(None);
    let (stop, ack_now) = (CancellationToken::new(), Arc::new(Notify::new()));
    let resync = Arc::new(Notify::new());
    let answers = watch::Sender::new(settings.answers.clone());
    let settings = Arc::new(settings);
    let acker = Acker {
        answers: answers.subscribe(),
        life: new_life(),
        settings: Arc::clone(&settings),
        origins: Arc::clone(&origins),
        node: Arc::clone(&node),
        lease: Arc::clone(&lease),
        positions,
        ack_now: Arc::clone(&ack_now),
        resync: Arc::clone(&resync),
        unanswered: Trouble::default(),
        retired: Trouble::default(),
        reborn: Reborn::default(),
        stop: stop.clone(),
    };
    let mut reader = Reader {
        settings,
        origins,
        node,
        lease,
        kept,
        follower: None,
        last: None,
        loaded,
        position,
        resync,
        trouble: Trouble::default(),
        has_followed: false,
        stop: stop.clone(),
    };
    if let Some(follower) = follower
        && let Err(error) = reader.begin_with(follower, false).await
    {
        tracing::error!(node = %reader.settings.name, "the fold that was kept is of no use: {error}");
    }
    let tasks = vec![tokio::spawn(acker.run()), tokio::spawn(reader.run())];
    Ok(Following { loaded: is_loaded, stop, tasks, ack_now, answers })
}

/// L4: a random id of this start.
fn new_life() -> String {
    let mut bytes = [0; 8];
    // Without randomness the time and the process still tell two starts apart.
    if getrandom::fill(&mut bytes).is_err() {
        let now = u64::try_from(boottime().as_nanos()).unwrap_or(u64::MAX);
        bytes = (now ^ u64::from(std::process::id())).to_be_bytes();
    }
    hex::encode(bytes)
}

struct Reader<A> {
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    node: Arc<A>,
    lease: Arc<Lease>,
    kept: Kept,
    follower: Option<Follower>,
    /// What was last in force here: it stays when the follower begins again.
    last: Option<Position>,
    loaded: watch::Sender<bool>,
    position: watch::Sender<Option<Position>>,
    /// The origin says that our position is of another history.
    resync: Arc<Notify>,
    /// Why this node does not follow at the moment was told then and then.
    trouble: Trouble,
    /// Whether a line was taken since it last began to follow.
    has_followed: bool,
    stop: CancellationToken,
}

/// Why the feed was left.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("{0}")]
    Origin(#[from] OriginsError),
    #[error("the feed ended")]
    Ended,
    #[error("a snapshot was loaded")]
    Reloaded,
    #[error("another origin was chosen")]
    Moved,
    #[error("nothing was heard for {0:?}")]
    Silent(Duration),
    #[error("a line of the feed is not understood: {0}")]
    BadLine(String),
    #[error("{0}")]
    Refusal(#[from] Refusal),
    #[error("{0}")]
    NotUnderstood(#[from] NotUnderstood),
}

impl Left {
    /// Tells whether another origin may do better.
    fn is_of_origin(&self) -> bool {
        match self {
            // Which history there is the next ack decides, here as elsewhere.
            Self::Origin(OriginsError::Refused { is_lost, .. }) => !is_lost,
            Self::Origin(_) | Self::Ended | Self::Silent(_) | Self::BadLine(_) | Self::Refusal(Refusal::Behind(_)) => true,
            Self::Reloaded | Self::Moved | Self::Refusal(_) | Self::NotUnderstood(_) => false,
        }
    }
}

impl<A: Apply> Reader<A> {
    async fn run(mut self) {
        let mut wait = BACKOFF.0;
        loop {
            let stop = self.stop.clone();
            let (used, _) = self.origins.choice();
            let left = tokio::select! {
                left = self.follow() => left,
                () = stop.cancelled() => return,
            };
            let Err(left) = left else { return };
            match &left {
                // A new origin, or one that was restarted, ends feeds: that is no news.
                Left::Ended | Left::Reloaded | Left::Moved => wait = BACKOFF.0,
                left => self.tell(left),
            }
            if std::mem::take(&mut self.has_followed) {
                wait = BACKOFF.0;
            }
            if left.is_of_origin() {
                self.origins.move_on_from(used);
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = stop.cancelled() => return,
            }
            wait = (wait * 2).min(BACKOFF.1);
        }
    }

    /// A failure is told when it begins and once a minute: it comes again with every attempt.
    fn tell(&mut self, left: &Left) {
        let node = &self.settings.name;
        match (left, self.trouble.failed(boottime())) {
            (Left::NotUnderstood(_) | Left::Refusal(Refusal::UnknownConfig(_)), true) => {
                tracing::error!(%node, "{left}; this node is fenced");
            }
            (_, true) => tracing::warn!(%node, "failed to follow the journal, trying again: {left}"),
            (_, false) => tracing::debug!(%node, "failed to follow the journal again: {left}"),
        }
    }

    /// Follows until something breaks.
    async fn follow(&mut self) -> Result<(), Left> {
        if self.follower.is_none() {
            self.load_snapshot().await?;
        }
        let Some(after) = self.follower.as_ref().map(Follower::folded) else { return Err(Left::Ended) };
        let (_, mut choice) = self.origins.choice();
        let patience = self.node.heartbeat() * 3 + Duration::from_millis(500);
        let feed = match self.origins.feed(&after, self.settings.role, patience).await {
            // The next ack begins a new epoch: a snapshot of this one would be of another history under its name.
            Err(lost @ OriginsError::Refused { is_lost: true, .. }) => return Err(lost.into()),
            Err(OriginsError::Refused { status: 409, .. }) => {
                self.load_snapshot().await?;
                return Err(Left::Reloaded);
            }
            feed => feed?,
        };
        let mut lines = Lines { response: feed, buffer: BytesMut::new() };
        loop {
            let patience = self.node.heartbeat() * 3 + Duration::from_millis(500);
            let resync = Arc::clone(&self.resync);
            let mut line = tokio::select! {
                line = tokio::time::timeout(patience, lines.next()) => line.map_err(|_| Left::Silent(patience))??,
                () = resync.notified() => {
                    self.load_snapshot().await?;
                    return Err(Left::Reloaded);
                }
                // The origin that this feed is of gives no leases: whoever acknowledges has moved to another one.
                _ = choice.changed() => return Err(Left::Moved),
            };
            // They are no part of the fold: what is kept and folded is the line without them.
            let questions = std::mem::take(&mut line.questions);
            self.take(&line).await?;
            self.has_followed = true;
            if !questions.is_empty() {
                self.node.asked(questions);
            }
            if let Some(lasted) = self.trouble.over(boottime()) {
                tracing::info!(node = %self.settings.name, seconds = lasted.as_secs(), "following the journal again after {} s", lasted.as_secs());
            }
        }
    }

    async fn load_snapshot(&mut self) -> Result<(), Left> {
        let state = self.origins.snapshot(self.settings.role).await?;
        if let Some(last) = &self.last {
            may_load(last, &state)?;
        }
        let drop_all = drops_all(self.last.as_ref(), &state);
        let is_other = self.last.is_some_and(|last| last.epoch != state.position.epoch);
        // The history before was left for one that never came into force, and may be back.
        let was_left = self.last.is_some() && self.lease.in_force().is_none();
        if is_other || was_left {
            tracing::warn!(node = %self.settings.name, position = %state.position, "the journal is of another history: all that was held is dropped");
            // A fetch that begins before the new fold is in force counts as begun before everything.
            self.lease.leave_history(state.position.epoch);
            self.lease.set_nothing_in_force();
        } else if drop_all {
            tracing::info!(node = %self.settings.name, position = %state.position, "a snapshot is loaded: all that was held is dropped");
        }
        self.keep(|kept| kept.replace(&state));
        Ok(self.begin_with(Follower::new(state), drop_all).await?)
    }

    async fn begin_with(&mut self, mut follower: Follower, drop_all: bool) -> Result<(), NotUnderstood> {
        self.follower = None;
        self.node.load(follower.state(), drop_all).await?;
        follower.set_in_force();
        self.follower = Some(follower);
        self.tell_in_force();
        self.loaded.send_replace(true);
        Ok(())
    }

    /// Keeps a line, puts it in force, and only then says so.
    async fn take(&mut self, line: &FeedLine) -> Result<(), Left> {
        self.lease.set_head(line.head);
        let Some(follower) = &mut self.follower else { return Err(Left::Ended) };
        if line.to > line.from {
            follower.fits(line)?;
            let kept = self.kept.add(line);
            follower.take(line)?;
            if let Err(error) = kept {
                self.keep(|_| Err(error));
            }
            self.tell_in_force();
            let Some(follower) = &mut self.follower else { return Err(Left::Ended) };
            if let Err(error) = self.node.apply(follower.state(), &line.events).await {
                // What is folded but not in force is never acknowledged: begin again from a snapshot.
                self.follower = None;
                return Err(error.into());
            }
            follower.set_in_force();
            self.tell_in_force();
            if self.kept.is_long()
                && let Some(follower) = &self.follower
            {
                let kept = self.kept.replace(follower.state());
                self.keep(|_| kept);
            }
        } else {
            follower.take(line)?;
        }
        if let Some(live) = live_of(line) {
            self.node.live(live);
        }
        Ok(())
    }

    /// A disk that refuses costs the next start its head start, nothing else. What it holds then is
    /// older than what was shown here, so it is forgotten.
    fn keep(&mut self, keep: impl FnOnce(&mut Kept) -> Result<(), KeptError>) {
        if let Err(error) = keep(&mut self.kept) {
            tracing::warn!(node = %self.settings.name, "{error}; going on without it");
            self.kept.forget();
        }
    }

    /// Tells readers and the acker up to where all is in force, as the follower has it, where that has moved.
    fn tell_in_force(&mut self) {
        let Some(position) = self.follower.as_ref().and_then(Follower::in_force) else { return };
        if self.lease.in_force() == Some(position) {
            return;
        }
        self.last = Some(position);
        self.lease.set_in_force(position);
        self.position.send_replace(Some(position));
    }
}

/// A feed's lines.
struct Lines {
    response: Response,
    buffer: BytesMut,
}

impl Lines {
    async fn next(&mut self) -> Result<FeedLine, Left> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.buffer.iter().skip(searched).position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(searched + at + 1);
                return serde_json::from_slice(&line).map_err(|error| Left::BadLine(error.to_string()));
            }
            searched = self.buffer.len();
            if searched > LINE_MOST {
                return Err(Left::BadLine("it has no end".to_owned()));
            }
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.buffer.extend_from_slice(&chunk),
                Ok(None) | Err(_) => return Err(Left::Ended),
            }
        }
    }
}

struct Acker<A> {
    answers: watch::Receiver<Vec<IpAddr>>,
    life: String,
    settings: Arc<Settings>,
    origins: Arc<Origins>,
    node: Arc<A>,
    lease: Arc<Lease>,
    positions: watch::Receiver<Option<Position>>,
    ack_now: Arc<Notify>,
    resync: Arc<Notify>,
    /// That nobody answers is told then and then, and that this life was retired.
    unanswered: Trouble,
    retired: Trouble,
    reborn: Reborn,
    stop: CancellationToken,
}

/// When a follower may begin another life, whose present one was replaced: two processes under one name take turns,
/// ever more rarely, and neither is fenced for good.
#[derive(Debug, Default)]
struct Reborn {
    not_before: Duration,
    wait: Duration,
}

impl Reborn {
    /// Tells whether another one begins.
    fn begin_if_due(&mut self, life: &mut String, now: Duration) -> bool {
        if now < self.not_before {
            return false;
        }
        *life = new_life();
        self.wait = (self.wait * 2).clamp(REBORN.0, REBORN.1);
        self.not_before = now + self.wait;
        true
    }
}

impl<A: Apply> Acker<A> {
    /// One ack at a time: what comes while one is under way goes with the next.
    async fn run(mut self) {
        loop {
            let position = *self.positions.borrow_and_update();
            if let Some(position) = position {
                let stop = self.stop.clone();
                tokio::select! {
                    () = self.ack_in_turn(position) => {}
                    () = stop.cancelled() => return,
                }
            }
            tokio::select! {
                changed = self.positions.changed() => if changed.is_err() { return },
                () = self.ack_now.notified() => {}
                () = tokio::time::sleep(self.node.heartbeat()) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Acknowledges; where an origin gives no answer the next one is asked at once, each of them once.
    async fn ack_in_turn(&mut self, position: Position) {
        for _ in 0..self.origins.count().max(1) {
            let (used, _) = self.origins.choice();
            let Err(error) = self.ack(position).await else {
                if let Some(lasted) = self.unanswered.over(boottime()) {
                    tracing::info!(node = %self.settings.name, seconds = lasted.as_secs(), "acks are answered again after {} s", lasted.as_secs());
                }
                return;
            };
            if self.unanswered.failed(boottime()) {
                tracing::warn!(node = %self.settings.name, "failed to acknowledge, trying again: {error}");
            }
            self.origins.move_on_from(used);
        }
    }

    /// How long one origin may take: where there is another, so much is left of a lease that it can be asked too.
    fn patience(&self) -> Duration {
        if self.origins.count() < 2 { ACK_TIMEOUT } else { self.node.heartbeat().clamp(ACK_TIMEOUT / 3, ACK_TIMEOUT) }
    }

    async fn ack(&mut self, position: Position) -> Result<(), OriginsError> {
        let vitals = self.node.vitals();
        let ack = Ack {
            follower: self.settings.name.clone(),
            role: self.settings.role,
            region: self.settings.region.clone(),
            life: self.life.clone(),
            protocol: PROTOCOL,
            position,
            answers: self.answers.borrow().clone(),
            draining: vitals.draining,
            load: vitals.load,
            counts: vitals.counts,
        };
        let sent = Sent::now();
        let answer = self.origins.ack(&ack, self.patience()).await?;
        if answer.lease_ms > 0 {
            self.lease.set_told(position.epoch, answer.head, sent);
            self.lease.grant(position.epoch, sent, Duration::from_millis(answer.lease_ms));
        } else {
            self.refused(answer.reason, answer.anew);
        }
        Ok(())
    }

    fn refused(&mut self, reason: Option<Refused>, anew: bool) {
        let node = &self.settings.name;
        match reason {
            Some(Refused::OtherHistory) => self.resync.notify_one(),
            Some(Refused::Retired) if anew => {
                if self.retired.failed(boottime()) {
                    tracing::error!(%node, "another process follows as `{node}`, or an ack of one came late; following as a new one");
                }
                // This life was replaced: it must not go on by what a route allows who was fenced.
                self.lease.drop_lease();
                if self.reborn.begin_if_due(&mut self.life, boottime()) {
                    self.ack_now.notify_one();
                }
            }
            // It lasts until the process is started anew.
            Some(Refused::Retired) => {
                self.lease.set_retired();
                if self.retired.failed(boottime()) {
                    tracing::error!(
                        %node,
                        "`{node}` gets no lease any more: it was taken out of service (`atoll drain`); it is fenced until it is started anew"
                    );
                }
            }
            // Catching up ends both.
            Some(Refused::BelowComplete | Refused::Laggard | Refused::Other) | None => {}
        }
    }
}
