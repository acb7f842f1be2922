//! How long answers are kept whose upstream says nothing about it, by their status: negative caching.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use crate::section::Section;

/// The lifetimes that a route gives to statuses, where the response has no explicit freshness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatusLifetimes(BTreeMap<Statuses, Duration>);

/// `404`, or a class such as `5xx` by its first digit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Statuses {
    Exact(u16),
    Class(u16),
}

const EXPECTED: &str = "a status from 200 to 599 other than 206 and 304, or a class such as \"5xx\"";

impl StatusLifetimes {
    pub(crate) fn read(section: &Section<'_>) -> Self {
        Self(section.spans("status_lifetimes", EXPECTED).into_iter().collect())
    }

    /// Returns the lifetime of a status: its own, else that of its class.
    #[must_use]
    pub fn get(&self, status: u16) -> Option<Duration> {
        let of_class = || self.0.get(&Statuses::Class(status / 100));
        self.0.get(&Statuses::Exact(status)).or_else(of_class).copied()
    }
}

impl FromStr for Statuses {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.as_bytes() {
            [class @ b'2'..=b'5', b'x', b'x'] => Ok(Self::Class(u16::from(class - b'0'))),
            // A part and a "not modified" are about a response that has a lifetime of its own.
            b"206" | b"304" => Err(()),
            [b'2'..=b'5', b'0'..=b'9', b'0'..=b'9'] => text.parse().map(Self::Exact).map_err(|_| ()),
            _ => Err(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_has_its_own_lifetime_or_that_of_its_class() {
        let rows = [("404", 10), ("4xx", 2), ("5xx", 1)];
        let rows = rows.map(|(statuses, seconds)| (statuses.parse().unwrap(), Duration::from_secs(seconds)));
        let lifetimes = StatusLifetimes(rows.into_iter().collect());
        for (status, seconds) in [(404, Some(10)), (410, Some(2)), (500, Some(1)), (599, Some(1)), (200, None), (301, None)] {
            assert_eq!(lifetimes.get(status), seconds.map(Duration::from_secs), "{status}");
        }
    }

    #[test]
    fn only_statuses_of_whole_answers_have_lifetimes() {
        for good in ["200", "404", "499", "599", "2xx", "5xx"] {
            assert!(good.parse::<Statuses>().is_ok(), "{good}");
        }
        for bad in ["", "199", "600", "206", "304", "1xx", "6xx", "4XX", "40x", "0404", "+40", "xx4", "error"] {
            assert!(bad.parse::<Statuses>().is_err(), "{bad}");
        }
    }
}
