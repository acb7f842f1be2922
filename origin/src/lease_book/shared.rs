//! The shell around the book that origins share: asks the scripts, reads the log into the mirror, and has completed what is
//! waited for.
//!
//! Nothing is decided here: the book decides on Redis, in one step each, and the mirror what this origin's clock shows. So it does
//! not matter in which order these tasks run, nor for how long one of them stands still.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use config::LONGEST_LEASE;
use engine::Redis;
use engine::redis::aio::MultiplexedConnection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{Ack, AckAnswer, Epoch, LEASE_NONE, NodeName, Position, Refused, Role};

use super::arbiter::Distrust;
use super::calls::{CallError, Calls, Replicas};
use super::leases::{Judged, standing};
use super::lines::{Acked, Asked, Elsewhere, Verdict};
use super::mirror::{Candidate, Mirror};
use super::{Remembered, is_life, millis};
use crate::clock::boottime;
use crate::fault::Fault;
use crate::journal::{Journal, LongestLease};

/// Acks that wait for the book. Beyond it a follower is told to come again: an ack that waits for long is worth little.
const WAITING: usize = 4096;

/// Acks in one call. While one is under way the next ones gather; each takes the server some 25 microseconds, for which the
/// journal's appends wait there too.
const BATCH: usize = 128;

/// Followers that are put back in one call.
const RECALLED: usize = 256;

/// How often the book is read anew until it stands still: each other origin may begin a run or an epoch once.
const ATTEMPTS: usize = 8;

/// How long a run gives no leases that has just begun: origins that knew the one before hear of it at once, and say how far
/// that had come. Less than what is left of most leases, so that a server that was only restarted fences nobody.
const HOLD: Duration = Duration::from_secs(2);

/// The pause behind a failure.
const PAUSE: Duration = Duration::from_millis(250);

/// When completion is tried again that the book refused: the log tells why before.
const AGAIN: Duration = Duration::from_millis(100);

/// When completion is looked at again where nothing happens.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);

/// An ack that waits for the book, and who waits for what becomes of it.
#[derive(Debug)]
struct Waiting {
    asked: Asked,
    /// The book for which its position was judged.
    place: Place,
    epoch: Epoch,
    reply: oneshot::Sender<Result<(u64, Verdict), String>>,
}

/// Which book the mirror is of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    run: String,
    epoch: Option<Epoch>,
}

impl Place {
    /// Tells whether it is kept by this life of a server.
    fn is_of(&self, server: &str) -> bool {
        self.run.strip_prefix(server).is_some_and(|rest| rest.starts_with('.'))
    }
}

/// A handle on the book.
#[derive(Debug)]
pub(crate) struct Shared {
    calls: Calls,
    journal: Journal,
    mirror: Mutex<Mirror>,
    pub(super) version: watch::Sender<u64>,
    waiting: mpsc::Sender<Waiting>,
    /// The highest seq that somebody waits for.
    wanted: watch::Sender<u64>,
    /// The longest lease that this origin gave, or was about to.
    assumed_ms: AtomicU64,
    /// What this machine remembers of that, for when the book and all its origins are gone at once.
    longest: Arc<Mutex<LongestLease>>,
    remembered_ms: AtomicU64,
    /// Held while the whole book is read.
    loading: tokio::sync::Mutex<()>,
    /// Held while something is made complete: one call at a time says all that there is to say.
    completing: tokio::sync::Mutex<()>,
    stop: CancellationToken,
}

impl Shared {
    /// Reads the book that `network` has on a Redis, and starts to read along. The handle is the book's own: others would wait
    /// while replicas take a grant. `lease` is the longest that this origin knows of.
    pub(crate) async fn open(
        redis: Redis,
        network: &str,
        journal: Journal,
        lease: Duration,
        longest: LongestLease,
        replicas: Option<Replicas>,
        stop: CancellationToken,
    ) -> Result<(Arc<Self>, Vec<JoinHandle<()>>), CallError> {
        let (waiting, queue) = mpsc::channel(WAITING);
        let shared = Arc::new(Self {
            calls: Calls::new(redis, network, replicas, HOLD),
            journal,
            mirror: Mutex::new(Mirror::new()),
            version: watch::Sender::new(0),
            waiting,
            wanted: watch::Sender::new(0),
            assumed_ms: AtomicU64::new(millis(lease)),
            longest: Arc::new(Mutex::new(longest)),
            remembered_ms: AtomicU64::new(0),
            loading: tokio::sync::Mutex::new(()),
            completing: tokio::sync::Mutex::new(()),
            stop,
        });
        shared.load(None).await?;
        let tasks = vec![
            tokio::spawn(Arc::clone(&shared).answer_acks(queue)),
            tokio::spawn(Arc::clone(&shared).read_along()),
            tokio::spawn(Arc::clone(&shared).complete_what_is_wanted()),
            tokio::spawn(Arc::clone(&shared).heed_the_journal()),
        ];
        Ok((shared, tasks))
    }

    pub(super) fn mirror(&self) -> MutexGuard<'_, Mirror> {
        self.mirror.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Place {
        let mirror = self.mirror();
        Place { run: mirror.run().to_owned(), epoch: mirror.epoch() }
    }

    fn changed(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Leases of this length may run, should the book lose what it knows of them, also once this process has ended.
    pub(super) async fn assume(&self, lease: Duration) -> Result<(), Fault> {
        self.assumed_ms.fetch_max(millis(lease), Ordering::SeqCst);
        if self.remembered_ms.load(Ordering::SeqCst) >= millis(lease) {
            return Ok(());
        }
        let remembered = self.longest.clone();
        let written = tokio::task::spawn_blocking(move || remembered.lock().unwrap_or_else(PoisonError::into_inner).raise(lease)).await;
        written.map_err(|_| Fault::Stopping)?.map_err(|error| Fault::Storage(format!("failed to store the longest lease: {error}")))?;
        self.remembered_ms.fetch_max(millis(lease), Ordering::SeqCst);
        Ok(())
    }

    /// At its start an origin knows no more than the book, where that is whole.
    fn assumed_where(&self, is_known: bool) -> Duration {
        if is_known { self.assumed() } else { Duration::ZERO }
    }

    /// No longer lease runs any more, also by what this machine remembers.
    async fn remember_less(&self, longest: Duration) -> Result<(), Fault> {
        let remembered = Arc::clone(&self.longest);
        let written = tokio::task::spawn_blocking(move || remembered.lock().unwrap_or_else(PoisonError::into_inner).write(longest)).await;
        written.map_err(|_| Fault::Stopping)?.map_err(|error| Fault::Storage(format!("failed to store the longest lease: {error}")))?;
        // Whoever is about to give a longer one says so again.
        self.remembered_ms.store(millis(longest), Ordering::SeqCst);
        self.assumed_ms.store(millis(longest), Ordering::SeqCst);
        Ok(())
    }

    fn assumed(&self) -> Duration {
        Duration::from_millis(self.assumed_ms.load(Ordering::SeqCst))
    }

    /// Asks the book about a lease.
    pub(super) async fn ack(&self, ack: Ack, token: Option<String>, judged: Judged, lease: Duration) -> Result<AckAnswer, Fault> {
        let place = self.place();
        // A server that lost events has numbers that mean others than the ones by which the position was judged.
        if !judged.server.is_some_and(|server| place.is_of(&server)) {
            return Err(Fault::Away("another server answers; whether it holds all that is known here is to be found out first".to_owned()));
        }
        let head = self.journal.head();
        let standing = standing(&self.journal, &head, &ack.position, judged.fit, lease);
        let answer = |reason, anew| AckAnswer { head: head.seq, lease_ms: LEASE_NONE, reason: Some(reason), anew };
        if !standing.fits {
            return Ok(answer(Refused::OtherHistory, false));
        }
        if !is_life(&ack.life) {
            return Ok(answer(Refused::Retired, false));
        }
        let news = self.mirror().news(&ack, token, standing.now);
        let who = (ack.role, ack.follower);
        let asked = Asked { who, life: ack.life, seq: ack.position.seq, lease, is_laggard: standing.is_laggard(), news };
        let (known_head, verdict) = self.ask(asked, place, head.epoch).await?;
        // Another origin may have appended what has not come here yet: a follower must not hear that nobody has.
        let head = head.seq.max(known_head);
        Ok(match verdict {
            Verdict::Granted(_) => AckAnswer { head, lease_ms: millis(lease), reason: None, anew: false },
            Verdict::BelowComplete => AckAnswer { head, ..answer(Refused::BelowComplete, false) },
            Verdict::Laggard => AckAnswer { head, ..answer(Refused::Laggard, false) },
            Verdict::Retired { anew } => AckAnswer { head, ..answer(Refused::Retired, anew) },
        })
    }

    async fn ask(&self, asked: Asked, place: Place, epoch: Epoch) -> Result<(u64, Verdict), Fault> {
        let (reply, answer) = oneshot::channel();
        let waiting = Waiting { asked, place, epoch, reply };
        if self.waiting.try_send(waiting).is_err() {
            return Err(Fault::Full("too many acks wait for the lease book".to_owned(), PAUSE));
        }
        answer.await.map_err(|_| Fault::Stopping)?.map_err(Fault::Away)
    }

    /// Asks for all acks that have come, one call at a time.
    async fn answer_acks(self: Arc<Self>, mut queue: mpsc::Receiver<Waiting>) {
        let mut came = Vec::with_capacity(BATCH);
        loop {
            tokio::select! {
                count = queue.recv_many(&mut came, BATCH) => if count == 0 { return },
                () = self.stop.cancelled() => return,
            }
            while let Some((place, epoch)) = came.first().map(|waiting| (waiting.place.clone(), waiting.epoch)) {
                let (of_one, others) = came.into_iter().partition(|waiting| (&waiting.place, waiting.epoch) == (&place, epoch));
                self.answer_batch(&place, epoch, of_one).await;
                came = others;
            }
        }
    }

    async fn answer_batch(&self, place: &Place, epoch: Epoch, mut waiting: Vec<Waiting>) {
        // A lease for who has given up would hold back what is complete, and those who still wait.
        waiting.retain(|waiting| !waiting.reply.is_closed());
        if waiting.is_empty() {
            return;
        }
        let (asked, replies): (Vec<_>, Vec<_>) = waiting.into_iter().map(|waiting| (waiting.asked, waiting.reply)).unzip();
        // Whoever has left does not hear of it; its lease counts all the same.
        match self.call_ack(place, epoch, &asked).await {
            Ok(acked) => replies.into_iter().zip(acked.verdicts).for_each(|(reply, verdict)| {
                let _ = reply.send(Ok((acked.head, verdict)));
            }),
            Err(error) => replies.into_iter().for_each(|reply| {
                let _ = reply.send(Err(format!("the lease book failed: {error}")));
            }),
        }
    }

    async fn call_ack(&self, place: &Place, epoch: Epoch, asked: &[Asked]) -> Result<Acked, CallError> {
        let elsewhere = match self.calls.ack(&place.run, epoch, asked).await {
            Err(CallError::Elsewhere(elsewhere)) => elsewhere,
            answered => return answered,
        };
        // Nothing was done. It is asked again where the book only had to begin the epoch; with another run the journal may have
        // lost what these positions were judged by.
        self.load(Some(place)).await?;
        match elsewhere {
            Elsewhere::Epoch(_) => self.calls.ack(&place.run, epoch, asked).await,
            Elsewhere::Run(_) => Err(elsewhere.into()),
        }
    }

    /// Takes in who followed an imported journal; leases up to the `longest` may run.
    pub(super) async fn take_over(&self, followers: &[Remembered], longest: Duration) -> Result<(), Fault> {
        self.assume(longest).await?;
        // The journal has begun another life, and the book is to begin it too.
        self.load(None).await.map_err(fault)?;
        self.distrust(&self.journal.head()).await.map_err(fault)?;
        self.load(None).await.map_err(fault)?;
        let place = self.place();
        let Some(epoch) = place.epoch else { return Ok(()) };
        let recalled: Vec<_> = followers.iter().filter_map(Remembered::recalled).collect();
        for recalled in recalled.chunks(RECALLED) {
            self.calls.recall(&place.run, epoch, recalled).await.map_err(fault)?;
        }
        Ok(())
    }

    pub(super) async fn drain(&self, edge: &NodeName) -> Result<bool, Fault> {
        let who = (Role::Edge, edge.clone());
        let place = self.place();
        let drained = match self.calls.drain(&place.run, &who).await {
            Err(CallError::Elsewhere(_)) => {
                self.load(Some(&place)).await.map_err(fault)?;
                let run = self.place().run;
                self.calls.drain(&run, &who).await
            }
            drained => drained,
        };
        drained.map_err(fault)
    }

    /// Takes in the whole book, and brings it along where its run or epoch has ended. Nothing is done where the mirror is of
    /// another book already than the one that was `seen` to be gone.
    async fn load(&self, seen: Option<&Place>) -> Result<(), CallError> {
        let _one_at_a_time = self.loading.lock().await;
        if seen.is_some_and(|seen| *seen != self.place()) {
            return Ok(());
        }
        for _ in 0..ATTEMPTS {
            let head = self.journal.head();
            let Some(table) = self.calls.load().await? else {
                self.distrust(&head).await?;
                continue;
            };
            if table.epoch != head.epoch {
                match self.calls.begin_epoch(&table.run, &head).await {
                    // It is to be read again.
                    Ok(()) | Err(CallError::Elsewhere(Elsewhere::Run(_))) => continue,
                    // The journal here is behind. The mirror is not: nothing is complete until both are of one epoch.
                    Err(CallError::Elsewhere(Elsewhere::Epoch(_))) => {}
                    Err(error) => return Err(error),
                }
            }
            let (known_run, known_seq) = {
                let mirror = self.mirror();
                (mirror.run().to_owned(), mirror.complete_in(head.epoch))
            };
            if known_run != table.run && table.epoch == head.epoch {
                // It may know less than this origin does.
                let longest = self.mirror().longest().max(self.assumed_where(!known_run.is_empty()));
                match self.calls.vouch(&table.run, head.epoch, head.seq.max(known_seq), longest).await {
                    Ok(_) => {}
                    Err(CallError::Elsewhere(_)) => continue,
                    Err(error) => return Err(error),
                }
            }
            // The clock is read behind the answer: what it tells was seen by then.
            self.mirror().load(table, self.assumed(), boottime());
            self.changed();
            return self.recall().await;
        }
        Err(CallError::Unsettled)
    }

    /// Begins another run. Whoever is faster does it for all.
    async fn distrust(&self, head: &Position) -> Result<(), CallError> {
        let (known, longest) = {
            let mirror = self.mirror();
            (mirror.run().to_owned(), mirror.longest().max(self.assumed()))
        };
        let name = format!("{:016x}", random()?);
        let why = Distrust { known: &known, name: &name, epoch: head.epoch, head: head.seq, longest, assumed: LONGEST_LEASE };
        match self.calls.distrust(&why).await {
            Ok(run) => tracing::warn!(run, "the lease book begins anew: nothing is complete until all leases from before have ended"),
            Err(CallError::Elsewhere(_)) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Puts followers back that the book has lost (P7).
    async fn recall(&self) -> Result<(), CallError> {
        let (place, lost) = (self.place(), self.mirror().lost());
        let Some(epoch) = place.epoch else { return Ok(()) };
        for lost in lost.chunks(RECALLED) {
            self.calls.recall(&place.run, epoch, lost).await?;
        }
        Ok(())
    }

    /// Reads the log as long as it can be read, and begins again after a while.
    async fn read_along(self: Arc<Self>) {
        let mut is_told = false;
        loop {
            let read = tokio::select! {
                read = self.read_until_it_fails(&mut is_told) => read,
                () = self.stop.cancelled() => return,
            };
            if let Err(error) = read
                && !std::mem::replace(&mut is_told, true)
            {
                tracing::warn!("failed to read the lease book, trying again: {error}");
            }
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    async fn read_until_it_fails(&self, is_told: &mut bool) -> Result<(), CallError> {
        let mut reader = self.calls.reader().await?;
        loop {
            self.read_once(&mut reader).await?;
            if std::mem::take(is_told) {
                tracing::info!("the lease book is read again");
            }
        }
    }

    async fn read_once(&self, reader: &mut MultiplexedConnection) -> Result<(), CallError> {
        let after = self.mirror().log();
        let entries = self.calls.entries(reader, after).await?;
        // Behind the answer: what it tells was seen by then, and not before.
        let now = boottime();
        if entries.is_empty() {
            self.recall().await?;
            // An entry that comes while this looks is no sign of anything.
            return match self.look(after).await {
                Err(CallError::Missed) => self
                    .calls
                    .entries(reader, after)
                    .await
                    .and_then(|entries| if entries.is_empty() { Err(CallError::Missed) } else { Ok(()) }),
                looked => looked,
            };
        }
        let has_learned = {
            let mut mirror = self.mirror();
            entries.iter().all(|entry| mirror.learn(entry, now))
        };
        self.changed();
        if has_learned { Ok(()) } else { self.load(None).await }
    }

    /// Finds out whether the book is still the same.
    async fn look(&self, read: u64) -> Result<(), CallError> {
        let place = self.place();
        let is_behind = place.epoch != Some(self.journal.head().epoch);
        match self.calls.look(&place.run).await {
            // What was written since it was asked comes with the next entries; what was written before does not come here any
            // more, since they are read from another server.
            Ok(last) if !is_behind && last <= read => Ok(()),
            Ok(_) if !is_behind => Err(CallError::Missed),
            Ok(_) | Err(CallError::Elsewhere(_)) => self.load(Some(&place)).await,
            Err(error) => Err(error),
        }
    }

    /// The journal hears first of a new epoch, and may of another run of the server.
    async fn heed_the_journal(self: Arc<Self>) {
        let (mut heads, mut runs) = (self.journal.watch_head(), self.journal.watch_runs());
        loop {
            tokio::select! {
                changed = heads.changed() => {
                    let epoch = heads.borrow_and_update().epoch;
                    if changed.is_err() { return }
                    if self.place().epoch == Some(epoch) { continue }
                }
                changed = runs.changed() => if changed.is_err() { return },
                () = self.stop.cancelled() => return,
            }
            if let Err(error) = self.look(u64::MAX).await {
                tracing::debug!("failed to look at the lease book: {error}");
                tokio::time::sleep(PAUSE).await;
            }
            self.changed();
        }
    }

    /// Tells whether the journal's events and the book's numbers are of one life of one server: else a seq may mean two events.
    fn is_of_one_server(&self) -> bool {
        self.journal.proven_run().is_some_and(|server| self.place().is_of(&server))
    }

    /// Returns up to where the journal is complete and may be said to be.
    fn said(&self, now: Duration) -> u64 {
        if self.is_of_one_server() { self.mirror().said(self.journal.head().epoch, now) } else { 0 }
    }

    /// Returns what may be made complete.
    fn candidate(&self, now: Duration) -> Option<Candidate> {
        let head = self.journal.head();
        if self.is_of_one_server() { self.mirror().candidate(&head, now) } else { None }
    }

    /// Tells whether `seq` is complete; else it is tried, and whoever waits is told by the version.
    pub(super) fn judge(&self, seq: u64, now: Duration) -> (bool, Option<Duration>) {
        let (said, next) = (self.said(now), self.mirror().next_change(seq, now));
        let is_complete = seq <= said;
        if !is_complete {
            self.wanted.send_if_modified(|wanted| {
                let is_more = seq > *wanted;
                *wanted = seq.max(*wanted);
                is_more
            });
        }
        (is_complete, next)
    }

    /// Returns the journal's head, and up to where it is complete.
    pub(super) async fn progress(&self) -> (Position, u64) {
        let head = self.journal.head();
        if let Some(candidate) = self.candidate(boottime())
            && let Err(error) = self.complete(&candidate).await
        {
            tracing::debug!("failed to ask the lease book what is complete: {error}");
        }
        (head, self.said(boottime()))
    }

    async fn complete_what_is_wanted(self: Arc<Self>) {
        let (mut version, mut wanted) = (self.version.subscribe(), self.wanted.subscribe());
        loop {
            let highest = *wanted.borrow_and_update();
            version.mark_unchanged();
            let sleep = self.complete_up_to(highest).await;
            tokio::select! {
                changed = version.changed() => if changed.is_err() { return },
                changed = wanted.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(sleep) => {}
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Has as much completed as there is, if somebody waits for more than is. Returns how long to sleep where nothing changes.
    async fn complete_up_to(&self, wanted: u64) -> Duration {
        let now = boottime();
        let next = self.mirror().next_change(wanted, now);
        let Some(candidate) = self.candidate(now).filter(|_| wanted > self.said(now)) else {
            return next.map_or(LONGEST_SLEEP, |next| next.saturating_sub(now) + Duration::from_millis(1)).min(LONGEST_SLEEP);
        };
        match self.complete(&candidate).await {
            Ok(true) => Duration::ZERO,
            // Somebody was granted a lease that is not known here yet.
            Ok(false) => AGAIN,
            Err(error) => {
                tracing::debug!("failed to have {} completed: {error}", candidate.seq);
                PAUSE
            }
        }
    }

    async fn complete(&self, candidate: &Candidate) -> Result<bool, CallError> {
        let _one_at_a_time = self.completing.lock().await;
        let Candidate { run, epoch, seq, ended } = candidate;
        match self.calls.complete(run, *epoch, *seq, ended).await {
            Ok(Some(completed)) => Ok(self.has_read(run, completed.log).await),
            Ok(None) => Ok(false),
            Err(CallError::Elsewhere(_)) => {
                self.load(Some(&Place { run: run.clone(), epoch: Some(*epoch) })).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Waits until the mirror has read the log up to `entry`; tells whether it did. Nobody says that something is complete who
    /// does not know yet whose leases have ended at that (P7).
    async fn has_read(&self, run: &str, entry: u64) -> bool {
        let mut version = self.version.subscribe();
        let has_read = || {
            let mirror = self.mirror();
            mirror.run() == run && mirror.log() >= entry
        };
        tokio::time::timeout(PAUSE, version.wait_for(|_| has_read())).await.is_ok()
    }

    pub(super) async fn tidy(&self) -> Result<(), Fault> {
        let now = boottime();
        let (run, forgettable, shortenable) = {
            let mirror = self.mirror();
            (mirror.run().to_owned(), mirror.forgettable(now), mirror.shortenable(now))
        };
        for (who, grant) in forgettable {
            self.calls.forget(&run, &who, grant).await.map_err(fault)?;
        }
        if let Some(seen) = shortenable
            && let Some(longest) = self.calls.shorten(&run, seen).await.map_err(fault)?
        {
            self.remember_less(longest).await?;
        }
        Ok(())
    }
}

fn random() -> Result<u64, CallError> {
    let mut bytes = [0; 8];
    // Two runs of one name would let numbers of grants mean two things.
    getrandom::fill(&mut bytes).map_err(|error| CallError::NotUnderstood(format!("there is no randomness: {error}")))?;
    Ok(u64::from_be_bytes(bytes))
}

fn fault(error: CallError) -> Fault {
    Fault::Away(format!("the lease book failed: {error}"))
}
