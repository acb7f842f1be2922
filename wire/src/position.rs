//! A place in the journal: which life of it, how far, and a running hash that tells histories apart.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The random id of one life of the journal; a restored or truncated journal gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; 8]);

/// A running hash over a journal's events: equal chains at equal seqs mean equal histories.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Chain([u8; 16]);

/// A place in the journal, written `EPOCH.SEQ.CHAIN` and opaque to clients.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position {
    /// Which life of the journal.
    pub epoch: Epoch,
    /// The number of the last event, counted from 1; 0 is before the first.
    pub seq: u64,
    /// The hash over all events up to `seq`.
    pub chain: Chain,
}

/// Text that is no position.
#[derive(Debug, thiserror::Error)]
#[error("a position is EPOCH.SEQ.CHAIN, not `{0}`")]
pub struct BadPosition(String);

impl Epoch {
    /// Wraps eight random bytes as a new life's id.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }
}

impl Chain {
    /// The chain before the first event.
    pub const START: Self = Self([0; 16]);

    /// Returns the chain after `event`, the exact bytes that the journal keeps.
    #[must_use]
    pub fn then(self, event: &[u8]) -> Self {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update(event);
        let full: [u8; 32] = hash.finalize().into();
        let mut half = [0; 16];
        half.copy_from_slice(&full[..16]);
        Self(half)
    }

    /// Wraps the raw bytes of a stored chain.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Returns the raw bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl Position {
    /// Returns the place before the first event of the life `epoch`.
    #[must_use]
    pub fn start(epoch: Epoch) -> Self {
        Self { epoch, seq: 0, chain: Chain::START }
    }
}

macro_rules! hex_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadPosition;

            fn from_str(text: &str) -> Result<Self, BadPosition> {
                let mut bytes = Self([0; _]);
                hex::decode_to_slice(text, &mut bytes.0).map_err(|_| BadPosition(text.chars().take(120).collect()))?;
                Ok(bytes)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_text!(Epoch);
hex_text!(Chain);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.epoch, self.seq, self.chain)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Position {
    type Err = BadPosition;

    fn from_str(text: &str) -> Result<Self, BadPosition> {
        let bad = || BadPosition(text.chars().take(120).collect());
        let mut parts = text.split('.');
        let (Some(epoch), Some(seq), Some(chain), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
            return Err(bad());
        };
        if !seq.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad());
        }
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse().map_err(|_| bad())?, chain: chain.parse()? })
    }
}

impl TryFrom<String> for Position {
    type Error = BadPosition;

    fn try_from(text: String) -> Result<Self, BadPosition> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> Self {
        position.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text() {
        let position = Position { epoch: Epoch([7; 8]), seq: 42, chain: Chain::START.then(b"event") };
        assert_eq!(position.to_string().parse::<Position>().unwrap(), position);
    }

    #[test]
    fn text_that_is_no_position_is_refused() {
        let good = Position::start(Epoch([1; 8])).to_string();
        for bad in ["", "1.2.3", "..", &good[1..], &good.replace(".0.", ".-1."), &good.replace(".0.", ".+1."), &format!("{good}.1")] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn histories_that_differ_once_differ_ever_after() {
        let left = Chain::START.then(b"a").then(b"c");
        let right = Chain::START.then(b"b").then(b"c");
        assert_ne!(left, right);
    }
}
