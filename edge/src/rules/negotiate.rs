//! Which of the codings at hand a client gets: the one it weighs most, and among equals the one that we like best.

use http::HeaderMap;
use http::header::ACCEPT_ENCODING;

use super::list::{self, Weight};

/// How the content goes to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// In this one of the codings on offer.
    Coding(&'static str),
    /// As it is.
    Identity,
    /// The client takes neither a coding on offer nor the content as it is: 406, or as it is all the same.
    NotAcceptable,
}

/// Chooses among `offered`, the best liked first, by the client's Accept-Encoding (RFC 9110, 12.5.3).
///
/// Without the field, or with an empty one, the content goes as it is. A member that is malformed is left out.
pub(crate) fn choose(request: &HeaderMap, offered: &[&'static str]) -> Choice {
    let lines = request.get_all(ACCEPT_ENCODING);
    let wanted: Vec<_> = lines
        .iter()
        .flat_map(|line| list::tokens(line.as_bytes()))
        .filter_map(list::weighted)
        .map(|(name, weight)| (plain(name), weight))
        .collect();
    let weigh = |coding: &[u8]| wanted.iter().find(|(name, _)| name.eq_ignore_ascii_case(coding)).map(|(_, weight)| *weight);
    let star = weigh(b"*");

    let weights = offered.iter().map(|coding| (weigh(coding.as_bytes()).or(star).unwrap_or(0), *coding));
    // The first of equals: `max_by_key` would give the last.
    let best = weights.filter(|(weight, _)| *weight > 0).reduce(|best, next| if next.0 > best.0 { next } else { best });
    settle(best, weigh(b"identity"), star)
}

/// The content as it is is acceptable unless it is excluded, and preferred only where it is named with a greater weight.
fn settle(best: Option<(Weight, &'static str)>, identity: Option<Weight>, star: Option<Weight>) -> Choice {
    match best {
        Some((weight, coding)) if identity.is_none_or(|identity| identity <= weight) => Choice::Coding(coding),
        _ if identity.or(star) == Some(0) => Choice::NotAcceptable,
        _ => Choice::Identity,
    }
}

/// `x-gzip` and `x-compress` are other names of the same (RFC 9110, 8.4.1.1 and 8.4.1.3).
fn plain(name: &[u8]) -> &[u8] {
    match name.split_at_checked(2) {
        Some((prefix, rest)) if prefix.eq_ignore_ascii_case(b"x-") => rest,
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    const OFFERED: [&str; 3] = ["zstd", "br", "gzip"];

    #[test]
    fn the_greatest_weight_wins_and_among_equals_our_own_order() {
        let cases = [
            ("gzip, br", Choice::Coding("br")),
            ("gzip, deflate, br, zstd", Choice::Coding("zstd")),
            ("gzip;q=1.0, br;q=0.9", Choice::Coding("gzip")),
            ("GZIP", Choice::Coding("gzip")),
            ("x-gzip", Choice::Coding("gzip")),
            ("*", Choice::Coding("zstd")),
            ("zstd;q=0, *;q=0.5", Choice::Coding("br")),
            ("gzip;q=0.001", Choice::Coding("gzip")),
            ("gzip, identity", Choice::Coding("gzip")),
            ("deflate", Choice::Identity),
            ("", Choice::Identity),
            ("gzip;q=0", Choice::Identity),
            ("gzip;q=0.5, identity", Choice::Identity),
            ("identity;q=0.5, gzip;q=0.4", Choice::Identity),
            ("gzip;q=2", Choice::Identity),
            ("gzip;q=x, br", Choice::Coding("br")),
            ("*;q=0", Choice::NotAcceptable),
            ("identity;q=0", Choice::NotAcceptable),
            ("identity;q=0, deflate", Choice::NotAcceptable),
            ("identity;q=0, gzip;q=0.1", Choice::Coding("gzip")),
            ("*;q=0, identity", Choice::Identity),
            ("*;q=0, identity;q=0.1", Choice::Identity),
            ("gzip, *;q=0", Choice::Coding("gzip")),
        ];
        for (value, choice) in cases {
            assert_eq!(choose(&headers(&[("accept-encoding", value)]), &OFFERED), choice, "{value}");
        }
    }

    #[test]
    fn without_the_field_the_content_goes_as_it_is() {
        assert_eq!(choose(&headers(&[]), &OFFERED), Choice::Identity);
    }

    #[test]
    fn several_lines_are_one_list() {
        let request = headers(&[("accept-encoding", "gzip;q=0.5"), ("accept-encoding", "br;q=0.7")]);
        assert_eq!(choose(&request, &OFFERED), Choice::Coding("br"));
    }

    #[test]
    fn with_nothing_on_offer_only_the_content_as_it_is_remains() {
        assert_eq!(choose(&headers(&[("accept-encoding", "gzip")]), &[]), Choice::Identity);
        assert_eq!(choose(&headers(&[("accept-encoding", "*;q=0")]), &[]), Choice::NotAcceptable);
    }
}
