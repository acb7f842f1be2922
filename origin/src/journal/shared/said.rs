//! What the journal's scripts answer, read once and trusted after.

use engine::redis::{FromRedisValue, ParsingError, Value};
use wire::{Chain, Epoch, Position};

/// What a script did, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// It did what it was asked.
    Done,
    /// The position is of this history; what is behind it follows.
    Here,
    /// The process is another one than the asker believes, or than the head names.
    Run,
    /// There is no journal.
    Empty,
    /// The journal is in another life.
    Epoch,
    /// The journal ends before the position; or something newer is stored.
    Behind,
    /// The journal has another event there.
    Other,
    /// What is behind the position was cut.
    Cut,
    /// The head is another one.
    Moved,
}

/// One event as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) epoch: Epoch,
    pub(super) chain: Chain,
    pub(super) json: String,
}

/// A script's answer: the word, and what there is.
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub(super) word: Word,
    /// The process that answered.
    pub(super) actual: String,
    /// The process that origins agreed on.
    pub(super) run: String,
    /// The process under which this life of the journal was begun.
    pub(super) begun: String,
    pub(super) head: Option<Position>,
    /// Up to where replicas have it.
    pub(super) durable: u64,
    /// Changes when appends that are under way must not succeed any more.
    pub(super) turn: String,
    /// Where the stored snapshot ends.
    pub(super) snapshot: u64,
    pub(super) entries: Vec<Entry>,
    /// The stored snapshot, where it was asked for.
    pub(super) state: Vec<u8>,
}

impl Word {
    fn read(text: &str) -> Result<Self, ParsingError> {
        Ok(match text {
            "done" => Self::Done,
            "here" => Self::Here,
            "run" => Self::Run,
            "empty" => Self::Empty,
            "epoch" => Self::Epoch,
            "behind" => Self::Behind,
            "other" => Self::Other,
            "cut" => Self::Cut,
            "moved" => Self::Moved,
            _ => return Err(ParsingError::from(format!("`{text}` is no answer"))),
        })
    }
}

impl Entry {
    fn read(value: Value) -> Result<Self, ParsingError> {
        let [id, epoch, chain, json] = array(value)?;
        Self::of(&text(id)?, &text(epoch)?, &text(chain)?, text(json)?)
    }

    /// Reads an entry of the stream.
    pub(super) fn of(id: &str, epoch: &str, chain: &str, json: String) -> Result<Self, ParsingError> {
        Ok(Self { seq: seq_of(id)?, epoch: parsed(epoch)?, chain: parsed(chain)?, json })
    }
}

/// Reads the id of an entry.
pub(super) fn seq_of(id: &str) -> Result<u64, ParsingError> {
    id.strip_suffix("-0").map_or_else(|| Err(ParsingError::from(format!("`{id}` is no event's id"))), parsed)
}

impl FromRedisValue for Said {
    fn from_redis_value(value: Value) -> Result<Self, ParsingError> {
        let [word, actual, run, epoch, seq, chain, durable, turn, begun, snapshot, entries, state] = array(value)?;
        let (epoch, seq, chain) = (text(epoch)?, text(seq)?, text(chain)?);
        let head =
            if epoch.is_empty() { None } else { Some(Position { epoch: parsed(&epoch)?, seq: parsed(&seq)?, chain: parsed(&chain)? }) };
        Ok(Self {
            word: Word::read(&text(word)?)?,
            actual: text(actual)?,
            run: text(run)?,
            begun: text(begun)?,
            head,
            durable: number(durable)?,
            turn: text(turn)?,
            snapshot: number(snapshot)?,
            entries: list(entries)?.into_iter().map(Entry::read).collect::<Result<_, _>>()?,
            state: bytes(state)?,
        })
    }
}

fn list(value: Value) -> Result<Vec<Value>, ParsingError> {
    match value {
        Value::Array(values) => Ok(values),
        other => Err(ParsingError::from(format!("expected a list, not {other:?}"))),
    }
}

/// Reads a list of as many as there are names for.
pub(super) fn array<const N: usize>(value: Value) -> Result<[Value; N], ParsingError> {
    let values = list(value)?;
    let count = values.len();
    values.try_into().map_err(|_| ParsingError::from(format!("expected {N} parts, not {count}")))
}

/// Reads text.
pub(super) fn text(value: Value) -> Result<String, ParsingError> {
    String::from_redis_value(value)
}

fn bytes(value: Value) -> Result<Vec<u8>, ParsingError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => text(other).map(String::into_bytes),
    }
}

/// Nothing counts as 0.
fn number(value: Value) -> Result<u64, ParsingError> {
    let text = text(value)?;
    if text.is_empty() { Ok(0) } else { parsed(&text) }
}

/// Reads what stands there as text.
pub(super) fn parsed<T: std::str::FromStr>(text: &str) -> Result<T, ParsingError> {
    text.parse().map_err(|_| ParsingError::from(format!("`{}` is not what was expected", text.chars().take(80).collect::<String>())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    fn report(seq: &str, id: &str) -> Value {
        let epoch = "0101010101010101";
        let chain = Chain::START.to_string();
        let entry = Value::Array(vec![bulk(id), bulk(epoch), bulk(&chain), bulk("{}")]);
        let head = [bulk("here"), bulk("ab"), bulk("ab"), bulk(epoch), bulk(seq), bulk(&chain), bulk(""), bulk("1"), bulk("ab"), bulk("")];
        Value::Array(head.into_iter().chain([Value::Array(vec![entry]), bulk("")]).collect())
    }

    #[test]
    fn an_answer_is_read_and_one_that_is_none_is_an_error() {
        let said = Said::from_redis_value(report("7", "8-0")).unwrap();
        assert_eq!((said.word, said.durable, said.entries[0].seq), (Word::Here, 0, 8));
        assert_eq!(said.head.unwrap().seq, 7);
        for bad in [report("x", "8-0"), report("7", "8-1"), report("7", "8"), bulk("here"), Value::Array(vec![bulk("here")]), Value::Nil] {
            assert!(Said::from_redis_value(bad).is_err());
        }
    }
}
