//! A domain name in wire form and lower case: what names are looked up, compared and compressed by.

use std::{borrow::Borrow, iter::successors};

/// The longest label (RFC 1035, section 2.3.4); larger length octets are pointers or reserved.
const MAX_LABEL: u8 = 63;
/// The longest name, its length octets and the root included.
const MAX_NAME: usize = 255;

/// A name that was checked where it was born. Comparing two is comparing bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Name(Vec<u8>);

impl Name {
    /// Takes a name as people write it, with or without the last dot; an empty text is the root.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in text.split('.').filter(|_| !text.is_empty()) {
            let length = u8::try_from(label.len()).ok()?;
            if length == 0 || length > MAX_LABEL {
                return None;
            }
            wire.push(length);
            wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then_some(Self(wire))
    }

    /// Reads the uncompressed name at the start of `bytes`, and says how many octets it took.
    pub(crate) fn read(bytes: &[u8]) -> Option<(Self, usize)> {
        let mut at = 0;
        loop {
            let length = *bytes.get(at)?;
            at += 1;
            if length == 0 {
                break;
            }
            if length > MAX_LABEL {
                return None;
            }
            at += usize::from(length);
        }
        // Length octets are below 64 and letters above, so lowering all the bytes lowers only letters.
        let wire = bytes.get(..at).filter(|wire| wire.len() <= MAX_NAME)?;
        Some((Self(wire.to_ascii_lowercase()), at))
    }

    /// Returns the name, then its parent and so on down to the root, as slices of its wire form.
    pub(crate) fn suffixes(&self) -> impl Iterator<Item = &[u8]> {
        successors(Some(self.0.as_slice()), |suffix| match *suffix {
            [] | [0, ..] => None,
            [length, ..] => suffix.get(1 + usize::from(*length)..),
        })
    }

    /// Says whether this name is `apex` or lies under it.
    pub(crate) fn is_within(&self, apex: &Self) -> bool {
        self.suffixes().any(|suffix| suffix == apex.0.as_slice())
    }

    /// Returns the name's bytes with the closing root label.
    pub(crate) fn wire(&self) -> &[u8] {
        &self.0
    }
}

/// Lets maps that are keyed by names be asked for a suffix without copying it.
impl Borrow<[u8]> for Name {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_name_becomes_lower_case_wire_form() {
        let cases: [(&str, &[u8]); 4] =
            [("", &[0]), ("Test", b"\x04test\x00"), ("www.Example.test.", b"\x03www\x07example\x04test\x00"), ("_a.b", b"\x02_a\x01b\x00")];
        for (text, wire) in cases {
            assert_eq!(Name::from_text(text).unwrap().wire(), wire, "{text}");
        }
    }

    #[test]
    fn labels_over_63_and_names_over_255_are_refused() {
        let label = "a".repeat(63);
        let longest = format!("{label}.{label}.{label}.{}", "a".repeat(61));

        assert!(Name::from_text(&"a".repeat(64)).is_none());
        assert!(Name::from_text("a..b").is_none());
        assert_eq!(Name::from_text(&longest).unwrap().wire().len(), 255);
        assert!(Name::from_text(&format!("{longest}a")).is_none());
    }

    #[test]
    fn reading_stops_at_the_root_and_refuses_pointers_and_ends() {
        let (name, length) = Name::read(b"\x03WwW\x00rest").unwrap();

        assert_eq!((name.wire(), length), (b"\x03www\x00".as_slice(), 5));
        assert!(Name::read(b"\xc0\x0c").is_none());
        assert!(Name::read(b"\x40a").is_none());
        assert!(Name::read(b"\x03ww").is_none());
        assert!(Name::read(b"").is_none());
    }

    #[test]
    fn suffixes_go_from_the_name_to_the_root() {
        let name = Name::from_text("a.b").unwrap();

        let suffixes: Vec<&[u8]> = name.suffixes().collect();

        assert_eq!(suffixes, [b"\x01a\x01b\x00".as_slice(), b"\x01b\x00", b"\x00"]);
        assert!(name.is_within(&Name::from_text("b").unwrap()));
        assert!(!name.is_within(&Name::from_text("a").unwrap()));
    }
}
