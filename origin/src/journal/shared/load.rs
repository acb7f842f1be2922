//! Reads the whole shared journal: its snapshot, and what came behind it, each event checked against the chain.

use engine::Trouble;
use wire::{Event, Position, State};

use super::super::batch::Row;
use super::said::{Entry, Said, Word};
use super::shelf::Shelf;

/// How hard a snapshot is compressed: it is written once for many events, and read at each start.
const LEVEL: i32 = 3;

/// Why it can't be read.
#[derive(Debug)]
pub(super) enum LoadError {
    Trouble(Trouble),
    Damaged { seq: u64, why: String },
}

impl From<Trouble> for LoadError {
    fn from(trouble: Trouble) -> Self {
        Self::Trouble(trouble)
    }
}

/// Reads the journal under this process; nothing where somebody changes it meanwhile, or there is none.
pub(super) async fn whole(shelf: &Shelf, run: &str) -> Result<Option<(State, Said)>, LoadError> {
    let said = shelf.load().await?;
    if said.word != Word::Here {
        return Ok(None);
    }
    let (head, snapshot) = (said.head, said.snapshot);
    let mut state = decode(said.state).await.map_err(|why| LoadError::Damaged { seq: 0, why })?;
    if head.is_none_or(|head| head.epoch != state.position.epoch) {
        return Err(LoadError::Damaged { seq: 0, why: "its snapshot is of another life".to_owned() });
    }
    loop {
        let mut said = shelf.look(run, &state.position, false).await?;
        let damaged = |why: &str| LoadError::Damaged { seq: state.position.seq, why: why.to_owned() };
        match said.word {
            Word::Here => {}
            Word::Other | Word::Behind => return Err(damaged("the snapshot and the events don't fit")),
            Word::Cut => {
                let is_damaged = is_still(shelf, head, snapshot).await?;
                return if is_damaged { Err(damaged("events behind it are missing")) } else { Ok(None) };
            }
            _ => return Ok(None),
        }
        let entries = std::mem::take(&mut said.entries);
        if entries.is_empty() {
            return if said.head == Some(state.position) { Ok(Some((state, said))) } else { Err(damaged("events behind it are missing")) };
        }
        for entry in entries {
            let row = follow_on(&state.position, entry).map_err(|(seq, why)| LoadError::Damaged { seq, why })?;
            let position = Position { seq: row.event.seq, chain: row.chain, ..state.position };
            state.apply(&row.event, position);
        }
    }
}

/// Tells whether the snapshot is still the same: nothing behind it is ever cut.
async fn is_still(shelf: &Shelf, head: Option<Position>, snapshot: u64) -> Result<bool, Trouble> {
    let said = shelf.load().await?;
    Ok(said.snapshot == snapshot && said.head.map(|head| head.epoch) == head.map(|head| head.epoch))
}

/// Checks that an entry is the very next event behind a position.
pub(super) fn follow_on(position: &Position, entry: Entry) -> Result<Row, (u64, String)> {
    let Entry { seq, epoch, chain, json } = entry;
    if epoch != position.epoch || seq != position.seq + 1 || chain != position.chain.then(json.as_bytes()) {
        return Err((seq, "it does not follow from the event before it".to_owned()));
    }
    match serde_json::from_str::<Event>(&json) {
        Ok(event) if event.seq == seq => Ok(Row { event, json, chain }),
        Ok(event) => Err((seq, format!("it says that it is event {}", event.seq))),
        Err(error) => Err((seq, error.to_string())),
    }
}

/// Writes a state as a snapshot. It may have megabytes: other tasks go on meanwhile.
pub(super) async fn encode(state: State) -> Result<Vec<u8>, String> {
    let encode = move || {
        let text = serde_json::to_vec(&state).map_err(|error| error.to_string())?;
        zstd::encode_all(text.as_slice(), LEVEL).map_err(|error| error.to_string())
    };
    tokio::task::spawn_blocking(encode).await.map_err(|error| error.to_string())?
}

/// Reads a snapshot.
pub(super) async fn decode(bytes: Vec<u8>) -> Result<State, String> {
    let decode = move || {
        let text = zstd::decode_all(bytes.as_slice()).map_err(|error| format!("its snapshot: {error}"))?;
        serde_json::from_slice(&text).map_err(|error| format!("its snapshot: {error}"))
    };
    tokio::task::spawn_blocking(decode).await.map_err(|error| error.to_string())?
}
