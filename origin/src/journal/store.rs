//! The journal's file: events by seq, the snapshot behind which they were cut, and what must be
//! known before a lease is granted. redb, one file, every commit waits for the disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redb::{Database, ReadableDatabase, TableDefinition};
use wire::{Chain, Event, Position, State};

use super::batch::Row;
use super::longest::LongestLease;
use super::{KEPT, OpenError, StoredEvent, class_of, random, random_epoch};

/// Chain and JSON by seq.
const EVENTS: TableDefinition<'_, u64, (&[u8], &str)> = TableDefinition::new("events");
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const SNAPSHOT: &str = "snapshot";
const LONGEST_LEASE: &str = "longest_lease_ms";
const FOLLOWERS: &str = "followers";

/// Bytes of JSON after which one reading ends.
const READ_BYTES: usize = 32 << 20;

/// The journal's file, and the one beside it.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
    /// `None` after a failed write until it was opened anew: redb refuses all work after an I/O error.
    database: RwLock<Option<Database>>,
    longest_lease: LongestLease,
}

type Result<T> = std::result::Result<T, redb::Error>;

impl Store {
    /// Opens or founds the file and folds what it holds.
    pub(super) fn open(path: &Path) -> std::result::Result<(Self, State), OpenError> {
        let failed = |error: redb::Error| OpenError::of(path, &error);
        let longest_lease = LongestLease::new(path.parent().unwrap_or_else(|| Path::new(".")));
        let store = Self { path: path.to_owned(), database: RwLock::new(None), longest_lease };
        store.reopen().map_err(failed)?;
        let mut state = match store.read_snapshot().map_err(failed)? {
            Some(text) => serde_json::from_slice(&text).map_err(|error| OpenError::Damaged { seq: 0, why: error.to_string() })?,
            None => store.found().map_err(failed)?,
        };
        store.fold_into(&mut state)?;
        Ok((store, state))
    }

    /// Closes the file; reading and writing fail from now on.
    pub(super) fn close(&self) {
        *self.database.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn reopen(&self) -> Result<()> {
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        *database = None;
        *database = Some(Database::create(&self.path)?);
        Ok(())
    }

    fn with<T>(&self, work: impl FnOnce(&Database) -> Result<T>) -> Result<T> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(database.as_ref().ok_or(redb::Error::PreviousIo)?)
    }

    /// Writes in one transaction. After an I/O error (a full disk) the file is opened anew, so that
    /// the next write may succeed; the failed one left nothing behind.
    fn write(&self, work: impl FnOnce(&redb::WriteTransaction) -> Result<()>) -> Result<()> {
        if self.database.read().unwrap_or_else(PoisonError::into_inner).is_none() {
            self.reopen()?;
        }
        let written = self.with(|database| {
            let mut transaction = database.begin_write()?;
            // Else opening after a kill -9 walks the whole file.
            transaction.set_quick_repair(true);
            work(&transaction)?;
            transaction.commit()?;
            Ok(())
        });
        if written.is_err() {
            // Where this fails too, the next write tries again.
            let _ = self.reopen();
        }
        written
    }

    fn found(&self) -> Result<State> {
        // Before the journal is there: one without this file was restored, or its file was lost.
        self.longest_lease.found().map_err(redb::Error::Io)?;
        let state = State::new(random_epoch(), random());
        self.write(|transaction| {
            transaction.open_table(EVENTS)?;
            write_snapshot(transaction, &state)
        })?;
        Ok(state)
    }

    /// Ends the life of this journal and begins another with `next`: what followers hold from the life before fits no
    /// longer. Events before are cut, as their places are of the other life.
    pub(super) fn begin_epoch(&self, next: &State) -> Result<()> {
        self.write(|transaction| {
            transaction.open_table(EVENTS)?.retain(|_, _| false)?;
            write_snapshot(transaction, next)
        })
    }

    pub(super) fn read_snapshot(&self) -> Result<Option<Vec<u8>>> {
        self.read_meta(SNAPSHOT)
    }

    fn read_meta(&self, key: &str) -> Result<Option<Vec<u8>>> {
        self.with(|database| match database.begin_read()?.open_table(META) {
            Ok(table) => Ok(table.get(key)?.map(|value| value.value().to_vec())),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(None),
            Err(error) => Err(error.into()),
        })
    }

    fn fold_into(&self, state: &mut State) -> std::result::Result<(), OpenError> {
        loop {
            let after = state.position.seq;
            let damaged = |seq: u64, why: &str| OpenError::Damaged { seq, why: why.to_owned() };
            let events = self.read_after(after, 10_000).map_err(|error| damaged(after + 1, &error.to_string()))?;
            if events.is_empty() {
                return Ok(());
            }
            for stored in events {
                let chain = state.position.chain.then(stored.json.as_bytes());
                if stored.seq != state.position.seq + 1 || stored.chain != chain {
                    return Err(damaged(stored.seq, "it does not follow from the event before it"));
                }
                let event: Event = serde_json::from_str(&stored.json).map_err(|error| damaged(stored.seq, &error.to_string()))?;
                let position = Position { seq: stored.seq, chain, ..state.position };
                state.apply(&event, position);
            }
        }
    }

    /// Writes a batch of events, durably; cuts the journal behind a new snapshot where it is time.
    pub(super) fn append(&self, rows: &[Row], snapshot: Option<&State>) -> Result<()> {
        self.write(|transaction| {
            let mut events = transaction.open_table(EVENTS)?;
            // A commit that failed may have reached the disk all the same: what it left would not follow.
            if let Some(first) = rows.first() {
                events.retain_in(first.event.seq.., |_, _| false)?;
            }
            for row in rows {
                events.insert(row.event.seq, (row.chain.as_bytes().as_slice(), row.json.as_str()))?;
            }
            if let Some(state) = snapshot {
                events.retain_in(..state.position.seq.saturating_sub(KEPT), |_, _| false)?;
                drop(events);
                write_snapshot(transaction, state)?;
            }
            Ok(())
        })
    }

    pub(super) fn read_after(&self, seq: u64, most: usize) -> Result<Vec<Arc<StoredEvent>>> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(EVENTS)?;
            let (mut events, mut bytes) = (Vec::new(), 0);
            for row in table.range(seq + 1..)?.take(most) {
                let (seq, value) = row?;
                let (chain, json) = value.value();
                bytes += json.len();
                events.push(Arc::new(StoredEvent { seq: seq.value(), chain: read_chain(chain), class: class_of(json), json: json.into() }));
                if bytes >= READ_BYTES {
                    break;
                }
            }
            Ok(events)
        })
    }

    pub(super) fn chain_at(&self, seq: u64) -> Result<Option<Chain>> {
        self.with(|database| {
            let table = database.begin_read()?.open_table(EVENTS)?;
            // The events behind a position must all be there, or a snapshot is needed instead.
            let follows = table.range(seq + 1..)?.next().transpose()?.is_some_and(|(next, _)| next.value() == seq + 1);
            if seq == 0 && follows {
                return Ok(Some(Chain::START));
            }
            Ok(table.get(seq)?.map(|value| read_chain(value.value().0)))
        })
    }

    /// Returns the longest lease that may run, by what either file says; `None` where one can't be read, and where the one
    /// beside the journal is missing, without which no journal is founded.
    pub(super) fn longest_lease(&self) -> Option<Duration> {
        let read = self.read_meta(LONGEST_LEASE).map_err(|error| error.to_string());
        let beside = self.longest_lease.read().map_err(|error| error.to_string());
        match read.and_then(|bytes| Ok((bytes, beside?))) {
            Ok((bytes, Some(beside))) => {
                let ms = bytes.map_or(Some(0), |bytes| bytes.try_into().ok().map(u64::from_be_bytes))?;
                Some(beside.max(Duration::from_millis(ms)))
            }
            Ok((_, None)) => None,
            Err(error) => {
                tracing::error!("failed to read the longest lease: {error}");
                None
            }
        }
    }

    pub(super) fn followers(&self) -> Result<Option<Vec<u8>>> {
        self.read_meta(FOLLOWERS)
    }

    pub(super) fn store_followers(&self, json: &[u8]) -> Result<()> {
        self.write(|transaction| {
            transaction.open_table(META)?.insert(FOLLOWERS, json)?;
            Ok(())
        })
    }

    pub(super) fn store_longest_lease(&self, lease: Duration) -> Result<()> {
        let ms = u64::try_from(lease.as_millis()).unwrap_or(u64::MAX);
        self.longest_lease.write(lease).map_err(redb::Error::Io)?;
        self.write(|transaction| {
            transaction.open_table(META)?.insert(LONGEST_LEASE, ms.to_be_bytes().as_slice())?;
            Ok(())
        })
    }
}

fn write_snapshot(transaction: &redb::WriteTransaction, state: &State) -> Result<()> {
    let text = serde_json::to_vec(state).map_err(|error| redb::Error::Io(std::io::Error::other(error)))?;
    transaction.open_table(META)?.insert(SNAPSHOT, text.as_slice())?;
    Ok(())
}

fn read_chain(bytes: &[u8]) -> Chain {
    Chain::from_bytes(bytes.try_into().unwrap_or_default())
}
