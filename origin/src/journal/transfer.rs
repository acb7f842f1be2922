//! Takes a journal from one engine to another, as lines of JSON: a header, the snapshot, all events that are kept, and a
//! footer by which a file that was cut is known.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use wire::{Digest, Event, Hasher, Position, State, Timestamp};

use super::{AppendError, Journal};
use crate::lease_book::Remembered;

/// The form of the file.
const FORM: u64 = 1;

/// Events that are read at once.
const PAGE: usize = 1000;

/// Bytes of one line at the most: a snapshot may have many, and a file that is none has no end of line.
const LINE: u64 = 1 << 30;

#[derive(Serialize, Deserialize)]
struct Header {
    atoll_journal: u64,
    position: Position,
    at: Timestamp,
    /// Who follows: a fenced edge may go on serving, and receipts must know of it (P7).
    #[serde(default)]
    followers: Vec<Remembered>,
}

#[derive(Serialize)]
struct SnapshotLine<'a> {
    snapshot: &'a State,
}

#[derive(Deserialize)]
struct ReadSnapshot {
    snapshot: State,
}

/// The event's JSON stands in it as it was chained.
#[derive(Serialize, Deserialize)]
struct EventLine<'a> {
    #[serde(borrow)]
    event: &'a RawValue,
}

#[derive(Serialize, Deserialize)]
struct Footer {
    events: u64,
    lines: u64,
    sha256: Digest,
}

/// What came of an import.
#[derive(Debug)]
pub(crate) struct Imported {
    /// Where the journal stood that was exported.
    pub(crate) from: Position,
    /// Where the new one stands: at the same event, in a life of its own.
    pub(crate) to: Position,
    pub(crate) events: u64,
    /// Who followed; the lease book has to hear of them.
    pub(crate) followers: Vec<Remembered>,
}

/// Why a journal can't be exported or imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransferError {
    #[error("failed to read or write the file: {0}")]
    File(#[from] io::Error),
    #[error(transparent)]
    Journal(#[from] AppendError),
    #[error("line {line} of the file is not what it should be: {why}")]
    Line { line: u64, why: String },
    #[error("the file was cut off or changed: {0}; nothing was imported")]
    Cut(String),
    #[error("the journal changed too fast: events behind {0} were cut while it was read; export it again")]
    Gap(u64),
}

/// Lines that are counted and hashed as they are written or read.
struct Count {
    lines: u64,
    events: u64,
    hash: Hasher,
}

impl Count {
    fn new() -> Self {
        Self { lines: 0, events: 0, hash: Hasher::new() }
    }

    fn add(&mut self, line: &[u8]) {
        self.lines += 1;
        self.hash.update(line);
    }

    fn footer(self) -> Footer {
        Footer { events: self.events, lines: self.lines, sha256: self.hash.finish() }
    }

    fn write(&mut self, out: &mut impl Write, line: &impl Serialize) -> Result<(), TransferError> {
        let text = written(line)?;
        self.add(&text);
        Ok(out.write_all(&text)?)
    }
}

fn written(line: &impl Serialize) -> Result<Vec<u8>, TransferError> {
    let mut text = serde_json::to_vec(line).map_err(io::Error::other)?;
    text.push(b'\n');
    Ok(text)
}

/// Writes all that the journal keeps, up to its present head, and tells of each page how many events are written of how
/// many.
///
/// # Errors
/// Where the journal can't be read or the file can't be written.
pub(crate) async fn export(
    journal: &Journal,
    followers: Vec<Remembered>,
    out: &mut impl Write,
    mut progress: impl FnMut(u64, u64),
) -> Result<Position, TransferError> {
    let snapshot = journal.stored_snapshot().await?;
    let head = journal.head();
    let mut count = Count::new();
    count.write(out, &Header { atoll_journal: FORM, position: head, at: Timestamp::now(), followers })?;
    count.write(out, &SnapshotLine { snapshot: &snapshot })?;
    let mut at = 0;
    while at < head.seq {
        let page = journal.read_after(at, PAGE).await?;
        let is_gap = |seq: u64| seq != at + 1 && (at > 0 || seq > snapshot.position.seq + 1);
        match page.first() {
            // What the snapshot holds may have been cut, and a life may have begun at this very event.
            None if at <= snapshot.position.seq && head.seq == snapshot.position.seq => break,
            Some(first) if !is_gap(first.seq) => {}
            _ => return Err(TransferError::Gap(at)),
        }
        for stored in page.iter().take_while(|stored| stored.seq <= head.seq) {
            let event: &RawValue = serde_json::from_str(&stored.json).map_err(io::Error::other)?;
            count.write(out, &EventLine { event })?;
            (count.events, at) = (count.events + 1, stored.seq);
        }
        progress(at, head.seq);
        if page.last().is_none_or(|last| last.seq > head.seq) {
            break;
        }
    }
    out.write_all(&written(&count.footer())?)?;
    out.flush()?;
    Ok(head)
}

/// Reads an export into an empty journal. Nothing is changed there before the whole file was read and checked.
///
/// # Errors
/// Where the file is not whole, its events don't follow from one another, or the journal is not empty.
pub(crate) async fn import(
    journal: &Journal,
    file: &mut impl BufRead,
    mut progress: impl FnMut(u64, u64),
) -> Result<Imported, TransferError> {
    if journal.head().seq > 0 {
        return Err(AppendError::NotEmpty.into());
    }
    let mut reader = Reader { file, count: Count::new() };
    let header: Header = read(reader.count.lines + 1, &reader.next()?)?;
    if header.atoll_journal != FORM {
        return Err(TransferError::Line { line: 1, why: format!("it is of form {}, and {FORM} is read here", header.atoll_journal) });
    }
    let ReadSnapshot { snapshot } = read(2, &reader.next()?)?;
    let (state, events) = reader.fold(snapshot, &header.position, &mut progress)?;
    journal.import_state(state).await?;
    Ok(Imported { from: header.position, to: journal.head(), events, followers: header.followers })
}

fn read<'a, T: Deserialize<'a>>(line: u64, text: &'a [u8]) -> Result<T, TransferError> {
    serde_json::from_slice(text).map_err(|error| TransferError::Line { line, why: error.to_string() })
}

struct Reader<'a, F> {
    file: &'a mut F,
    count: Count,
}

impl<F: BufRead> Reader<'_, F> {
    /// Reads the next line, which must have an end.
    fn line(&mut self) -> Result<Vec<u8>, TransferError> {
        let mut text = Vec::new();
        io::Read::take(&mut *self.file, LINE).read_until(b'\n', &mut text)?;
        if text.last() != Some(&b'\n') {
            return Err(TransferError::Cut(format!("line {} has no end", self.count.lines + 1)));
        }
        Ok(text)
    }

    fn next(&mut self) -> Result<Vec<u8>, TransferError> {
        let text = self.line()?;
        self.count.add(&text);
        Ok(text)
    }

    /// Folds all events behind the snapshot up to the footer, and checks that this is what was exported.
    fn fold(mut self, mut state: State, end: &Position, progress: &mut impl FnMut(u64, u64)) -> Result<(State, u64), TransferError> {
        loop {
            let (number, text) = (self.count.lines + 1, self.line()?);
            if let Ok(footer) = serde_json::from_slice::<Footer>(&text) {
                self.check(&footer)?;
                if state.position != *end {
                    return Err(TransferError::Cut(format!("its events lead to {}, not to {end}", state.position)));
                }
                return Ok((state, footer.events));
            }
            let line: EventLine<'_> = read(number, &text)?;
            self.count.add(&text);
            self.count.events += 1;
            let json = line.event.get();
            let event: Event = read(number, json.as_bytes())?;
            if event.seq > state.position.seq {
                if event.seq != state.position.seq + 1 {
                    return Err(TransferError::Line { line: number, why: format!("event {} does not follow", event.seq) });
                }
                let position = Position { seq: event.seq, chain: state.position.chain.then(json.as_bytes()), ..state.position };
                state.apply(&event, position);
            }
            if event.seq.is_multiple_of(1000) {
                progress(event.seq, end.seq);
            }
        }
    }

    fn check(self, footer: &Footer) -> Result<(), TransferError> {
        let own = self.count.footer();
        if (own.lines, own.events, own.sha256) == (footer.lines, footer.events, footer.sha256) {
            return Ok(());
        }
        Err(TransferError::Cut(format!("it has {} lines and {} events, and its digest is another one", own.lines, own.events)))
    }
}
