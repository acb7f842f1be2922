//! How long a response is fresh, and who says so: its author, or a guess that he allows.

use std::time::Duration;

use http::header::{EXPIRES, LAST_MODIFIED};
use http::{HeaderMap, StatusCode};
use wire::Timestamp;

use super::age;
use super::date::{self, DateField};
use super::directives::Directives;
use super::targeted::Source;

/// A freshness lifetime, counted from when the response was made (RFC 9111, 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// The response names it.
    Explicit(Duration),
    /// It was guessed from the age of the content, or the route's default was taken (RFC 9111, 4.2.2).
    Heuristic(Duration),
    /// Nothing names one and nothing allows a guess.
    None,
}

/// Decides how long a response is fresh: s-maxage, max-age, Expires less Date, then what may be guessed (RFC 9111, 4.2.1).
///
/// A targeted `source` puts Expires out of force (RFC 9213, 2.2). `by_status` is what the route says of this
/// very status; `default`, where a route has one, takes the place of the guess, within the same bounds.
pub(crate) fn lifetime(
    status: StatusCode,
    headers: &HeaderMap,
    (directives, source): (&Directives, Source),
    received_at: Timestamp,
    (by_status, default): (Option<Duration>, Option<Duration>),
) -> Lifetime {
    let named = directives.s_maxage.or(directives.max_age);
    let expires = || if source.is_targeted() { None } else { until_expires(headers, received_at) };
    if let Some(explicit) = named.or_else(expires) {
        return Lifetime::Explicit(explicit);
    }
    if let Some(by_status) = by_status {
        return Lifetime::Heuristic(by_status);
    }
    if !may_be_guessed(status, directives) {
        return Lifetime::None;
    }
    default.or_else(|| a_tenth_of_unchanged(headers, received_at)).map_or(Lifetime::None, Lifetime::Heuristic)
}

/// Expires is counted from the response's own Date; what is no date has expired (RFC 9111, 5.3).
fn until_expires(headers: &HeaderMap, received_at: Timestamp) -> Option<Duration> {
    match date::field(headers, &EXPIRES, received_at) {
        DateField::Absent => None,
        DateField::Bad => Some(Duration::ZERO),
        DateField::At(expires) => Some(expires.since(age::date_of(headers, received_at))),
    }
}

fn a_tenth_of_unchanged(headers: &HeaderMap, received_at: Timestamp) -> Option<Duration> {
    let modified = date::field(headers, &LAST_MODIFIED, received_at).time()?;
    let unchanged = age::date_of(headers, received_at).since(modified);
    (!unchanged.is_zero()).then(|| unchanged / 10)
}

/// Tells whether a response without explicit freshness may be kept at all: its status is one of those that are
/// cacheable by definition, or it says `public` (RFC 9110, 15.1; RFC 9111, 4.2.2).
pub(crate) fn may_be_guessed(status: StatusCode, directives: &Directives) -> bool {
    directives.public || matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::targeted::governing;
    use crate::rules::testing::{THEN, after, headers};

    const DATED: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
    const A_MINUTE_LATER: (&str, &str) = ("expires", "Sun, 06 Nov 1994 08:50:37 GMT");
    const HOURS_BEFORE: (&str, &str) = ("last-modified", "Sun, 06 Nov 1994 05:49:37 GMT");

    fn of(status: u16, lines: &[(&str, &str)], received_at: Timestamp, default: Option<Duration>) -> Lifetime {
        let headers = headers(lines);
        let (directives, source) = governing(&headers);
        lifetime(StatusCode::from_u16(status).unwrap(), &headers, (&directives, source), received_at, (None, default))
    }

    #[test]
    fn the_most_specific_field_names_the_lifetime() {
        let cases: [(&[(&str, &str)], u64); 9] = [
            (&[("cache-control", "max-age=5, s-maxage=7"), DATED, A_MINUTE_LATER], 7),
            (&[("cache-control", "max-age=5"), DATED, A_MINUTE_LATER], 5),
            (&[("cache-control", "max-age=x"), DATED, A_MINUTE_LATER], 0),
            (&[DATED, A_MINUTE_LATER], 60),
            (&[A_MINUTE_LATER], 50),
            (&[("date", "x"), A_MINUTE_LATER], 50),
            (&[DATED, ("expires", "0")], 0),
            (&[DATED, A_MINUTE_LATER, A_MINUTE_LATER], 0),
            (&[("cdn-cache-control", "max-age=9"), ("cache-control", "s-maxage=5"), DATED, A_MINUTE_LATER], 9),
        ];
        for (lines, seconds) in cases {
            assert_eq!(of(299, lines, after(10), None), Lifetime::Explicit(Duration::from_secs(seconds)), "{lines:?}");
        }
    }

    #[test]
    fn a_targeted_field_puts_expires_out_of_force() {
        assert_eq!(of(200, &[("cdn-cache-control", "public"), DATED, A_MINUTE_LATER], THEN, None), Lifetime::None);
    }

    #[test]
    fn a_tenth_of_the_time_since_the_last_change_is_guessed_where_the_status_allows_it() {
        let guess = Lifetime::Heuristic(Duration::from_secs(1080));
        for status in [200, 203, 204, 206, 300, 301, 308, 404, 405, 410, 414, 501] {
            assert_eq!(of(status, &[DATED, HOURS_BEFORE], after(10), None), guess, "{status}");
        }
        for status in [201, 202, 299, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599] {
            assert_eq!(of(status, &[DATED, HOURS_BEFORE], THEN, None), Lifetime::None, "{status}");
            assert_eq!(of(status, &[DATED, HOURS_BEFORE, ("cache-control", "public")], THEN, None), guess, "{status}");
        }
    }

    #[test]
    fn without_a_good_last_modified_nothing_is_guessed() {
        let not_older: [&[(&str, &str)]; 4] =
            [&[DATED], &[DATED, ("last-modified", "0")], &[DATED, ("last-modified", DATED.1)], &[DATED, HOURS_BEFORE, HOURS_BEFORE]];
        for lines in not_older {
            assert_eq!(of(200, lines, THEN, None), Lifetime::None, "{lines:?}");
        }
    }

    #[test]
    fn a_default_of_the_route_takes_the_place_of_the_guess_only() {
        let default = Some(Duration::from_secs(30));
        assert_eq!(of(200, &[DATED, HOURS_BEFORE], THEN, default), Lifetime::Heuristic(Duration::from_secs(30)));
        assert_eq!(of(200, &[], THEN, default), Lifetime::Heuristic(Duration::from_secs(30)));
        assert_eq!(of(302, &[], THEN, default), Lifetime::None);
        assert_eq!(of(200, &[("cache-control", "max-age=1")], THEN, default), Lifetime::Explicit(Duration::from_secs(1)));
    }
}
