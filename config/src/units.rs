//! Values with units: sizes such as `256 MiB` and spans of time such as `5s`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 10] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for ByteSize {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let at = text.find(|c: char| !c.is_ascii_digit()).ok_or(())?;
        let (number, unit) = (&text[..at], text[at..].trim_start());
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or(())?;
        number.parse::<u64>().map_err(|_| ())?.checked_mul(*size).map(Self).ok_or(())
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS[..5].iter().rev().find(|(_, size)| self.0 >= *size && self.0.is_multiple_of(*size));
        let (unit, size) = fitting.unwrap_or(&UNITS[0]);
        write!(f, "{} {unit}", self.0 / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("256 MiB", 256 << 20), ("1KiB", 1024), ("10 GB", 10_000_000_000), ("0 B", 0)] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "256", "MiB", "-1 B", "1.5 GiB", "1 mib", "99999999999 TiB"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(ByteSize(256 << 20).to_string(), "256 MiB");
    }
}
