//! How old a response is: what its Age and Date say, what the way to us added, and the time since.

use std::time::Duration;

use http::header::{AGE, DATE};
use http::{HeaderMap, HeaderValue};
use wire::Timestamp;

use super::date;
use super::directives::{LONGEST, delta_seconds};

/// Reads Age: the first member of the first line; what is not digits is ignored, what is huge is 2^31 (RFC 9111, 5.1).
pub(crate) fn received(headers: &HeaderMap) -> Option<Duration> {
    let line = headers.get(AGE)?.as_bytes();
    delta_seconds(line.split(|&byte| byte == b',').next()?.trim_ascii())
}

/// Returns the Date of a response, or when it was received where that is missing or no date (RFC 9110, 6.6.1).
pub(crate) fn date_of(headers: &HeaderMap, received_at: Timestamp) -> Timestamp {
    date::field(headers, &DATE, received_at).time().unwrap_or(received_at)
}

/// Returns how old a response was when it was received: `corrected_initial_age` of RFC 9111, 4.2.3.
///
/// `sent_at` is when we asked for it, for all of the delay may lie behind the moment that Age was written.
pub(crate) fn initial(headers: &HeaderMap, sent_at: Timestamp, received_at: Timestamp) -> Duration {
    // In whole seconds, since a Date has no others: a response made within this second is not old.
    let date = date_of(headers, received_at);
    let apparent = Duration::from_secs(received_at.as_secs().saturating_sub(date.as_secs()));
    let corrected = received(headers).unwrap_or_default() + received_at.since(sent_at);
    apparent.max(corrected).min(LONGEST)
}

/// Returns the value of the Age that goes with every response from the cache (RFC 9111, 4 and 5.1).
pub(crate) fn value(age: Duration) -> HeaderValue {
    HeaderValue::from(age.min(LONGEST).as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::{THEN, after, headers};

    const DATED: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");

    #[test]
    fn age_is_the_first_member_of_the_first_line_or_nothing() {
        let cases = [
            ("7", Some(7)),
            ("007", Some(7)),
            ("7, 9", Some(7)),
            ("7,x", Some(7)),
            ("4294967296", Some(1 << 31)),
            ("99999999999999999999", Some(1 << 31)),
        ];
        for (value, expected) in cases {
            assert_eq!(received(&headers(&[("age", value), ("age", "1")])), expected.map(Duration::from_secs), "{value}");
        }
        for value in ["", "-7", "7.0", "7s", "\"7\"", "x, 7", ",7"] {
            assert_eq!(received(&headers(&[("age", value)])), None, "{value}");
        }
    }

    #[test]
    fn the_initial_age_is_the_greater_of_what_date_and_age_say() {
        let cases: [(&[(&str, &str)], u64, u64, u64); 7] = [
            (&[], 0, 0, 0),
            (&[], 10, 13, 3),
            (&[DATED], 10, 13, 13),
            (&[DATED, ("age", "20")], 10, 13, 23),
            (&[DATED, ("age", "5")], 10, 13, 13),
            (&[DATED, ("age", "x")], 10, 13, 13),
            (&[("date", "yesterday"), ("age", "5")], 10, 10, 5),
        ];
        for (lines, sent, received, age) in cases {
            assert_eq!(initial(&headers(lines), after(sent), after(received)), Duration::from_secs(age), "{lines:?}");
        }
    }

    #[test]
    fn a_date_in_the_future_makes_no_response_younger() {
        let early = Timestamp::from_millis(THEN.as_millis() - 60_000);
        assert_eq!(initial(&headers(&[DATED, ("age", "2")]), early, early), Duration::from_secs(2));
    }
}
