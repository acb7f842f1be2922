//! By what a response is found outside of this process: names of one length, whatever the URL. The value says the URL
//! itself, so that two that ever shared a name would cost a miss.

use std::fmt;

use http::HeaderName;
use wire::{Digest, Hasher};

use crate::gateway::CacheKey;
use crate::rules::vary::Selection;

/// Bytes of a digest that make a name.
const BYTES: usize = 16;

/// The name of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct UrlName([u8; BYTES]);

/// Which of a URL's responses: the names of the request fields that tell them apart, and what a request says in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Variant {
    /// In order, with commas between them, as no field's name has one.
    pub(crate) names: String,
    pub(crate) selection: [u8; BYTES],
}

impl UrlName {
    pub(crate) fn of(key: &CacheKey) -> Self {
        Self(half(&Digest::of(key.to_string().as_bytes())))
    }

    #[cfg(test)]
    pub(super) fn of_bytes(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }
}

impl Variant {
    pub(crate) fn of(selection: &Selection) -> Self {
        let mut fields: Vec<_> = selection.fields.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        fields.sort_unstable();
        let names: Vec<_> = fields.iter().map(|(name, _)| *name).collect();
        let names = names.join(",");
        let mut cookies: Vec<_> = selection.cookies.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        cookies.sort_unstable();
        let mut hasher = Hasher::new();
        for (kind, rows) in [(b'f', fields), (b'c', cookies)] {
            for (name, value) in rows {
                // What is absent is not what is empty, and no row can be taken for the end of another.
                hasher.update(&[kind, u8::from(value.is_some())]);
                for part in [name.as_bytes(), value.unwrap_or_default()] {
                    hasher.update(&(part.len() as u64).to_be_bytes());
                    hasher.update(part);
                }
            }
        }
        Self { names, selection: half(&hasher.finish()) }
    }

    /// Returns the fields of a list of names, nothing where it is none.
    pub(crate) fn fields(names: &str) -> Option<Vec<HeaderName>> {
        if names.is_empty() {
            return Some(Vec::new());
        }
        names.split(',').map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
    }

    pub(crate) fn selection_hex(&self) -> String {
        hex(&self.selection)
    }
}

impl fmt::Display for UrlName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

fn half(digest: &Digest) -> [u8; BYTES] {
    let mut half = [0; BYTES];
    half.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
    half
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;
    use crate::rules::vary::selecting;

    fn variant(names: &[&'static str], lines: &[(&str, &str)]) -> Variant {
        let names: Vec<_> = names.iter().map(|name| HeaderName::from_static(name)).collect();
        Variant::of(&selecting(&names, &[], &headers(lines)))
    }

    #[test]
    fn the_order_of_fields_does_not_tell_variants_apart() {
        let lines = [("a", "1"), ("b", "2")];
        assert_eq!(variant(&["a", "b"], &lines), variant(&["b", "a"], &lines));
        assert_eq!(variant(&["b", "a"], &lines).names, "a,b");
    }

    #[test]
    fn what_is_absent_empty_or_in_another_field_is_another_variant() {
        let names = ["a", "b"];
        let all = [
            variant(&names, &[]),
            variant(&names, &[("a", "")]),
            variant(&names, &[("b", "")]),
            variant(&names, &[("a", "1"), ("b", "2")]),
            variant(&names, &[("a", "2"), ("b", "1")]),
            variant(&names, &[("a", "12"), ("b", "")]),
            variant(&["a"], &[("a", "1")]),
            variant(&[], &[]),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn names_of_fields_are_read_as_they_are_written() {
        assert_eq!(UrlName(*b"0123456789abcdef").to_string(), "30313233343536373839616263646566");
        assert_eq!(Variant::fields("a,b").unwrap().len(), 2);
        assert_eq!((Variant::fields("").unwrap().len(), Variant::fields("a,,b")), (0, None));
    }
}
