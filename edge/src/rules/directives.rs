//! Cache-Control as it is meant: every directive of a request or response, from all lines of the field.

use std::time::Duration;

use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderName};

use super::list;

/// Where seconds saturate: 2^31, about 68 years (RFC 9111, 1.2.2).
const MAX_SECONDS: u64 = 1 << 31;

/// The longest duration that a field can name.
pub(crate) const LONGEST: Duration = Duration::from_secs(MAX_SECONDS);

/// `no-cache` or `private`, which may be about some fields only (RFC 9111, 5.2.2.4 and 5.2.2.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Qualified {
    /// The whole response is meant.
    Whole,
    /// These fields of it are meant.
    Fields(Vec<HeaderName>),
}

/// The directives of a message (RFC 9111, 5.2; RFC 5861; RFC 8246).
///
/// Where one comes twice the stricter one holds: the shorter time (the longer `min-fresh`), the whole
/// response rather than some fields, more fields rather than fewer. RFC 9111 (4.2.1) asks for the first
/// one or staleness; the shorter time is never fresher than either.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Directives {
    /// Fresh for so long after it was made (5.2.2.1), or the oldest a client takes (5.2.1.1).
    pub(crate) max_age: Option<Duration>,
    /// The same for shared caches, which it also forbids to serve stale (5.2.2.10).
    pub(crate) s_maxage: Option<Duration>,
    /// Not to be stored (5.2.2.5, 5.2.1.5).
    pub(crate) no_store: bool,
    /// Not to be used without asking again (5.2.2.4, 5.2.1.4).
    pub(crate) no_cache: Option<Qualified>,
    /// Not for shared caches (5.2.2.7).
    pub(crate) private: Option<Qualified>,
    /// Storable even where it would not be (5.2.2.9).
    pub(crate) public: bool,
    /// Never to be served stale (5.2.2.2).
    pub(crate) must_revalidate: bool,
    /// Never to be served stale by a shared cache (5.2.2.8).
    pub(crate) proxy_revalidate: bool,
    /// To be stored only by who knows the status, then in spite of `no-store` (5.2.2.3).
    pub(crate) must_understand: bool,
    /// The content must stay as it is (5.2.2.6).
    pub(crate) no_transform: bool,
    /// It will not change while it is fresh (RFC 8246).
    pub(crate) immutable: bool,
    /// How long after its lifetime it may be served while a fresh one is fetched (RFC 5861, 3).
    pub(crate) stale_while_revalidate: Option<Duration>,
    /// How long after its lifetime it may stand in for an error (RFC 5861, 4).
    pub(crate) stale_if_error: Option<Duration>,
    /// The client wants no fetch (5.2.1.7).
    pub(crate) only_if_cached: bool,
    /// How stale the client takes it; [`LONGEST`] without a value (5.2.1.2).
    pub(crate) max_stale: Option<Duration>,
    /// How long it must stay fresh for the client (5.2.1.3).
    pub(crate) min_fresh: Option<Duration>,
}

/// The argument of a directive, in whichever syntax it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Argument<'a> {
    /// There is none.
    None,
    /// Text, its quotes taken off.
    Text(&'a [u8]),
    /// An argument that no grammar allows, such as one behind a space.
    Broken,
}

impl Directives {
    /// Reads the Cache-Control of a request or response (RFC 9111, 5.2).
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut directives = Self::default();
        for member in list::members_of(headers, &CACHE_CONTROL) {
            directives.note_member(member);
        }
        directives
    }

    fn note_member(&mut self, member: &[u8]) {
        let (name, value) = list::pair(member);
        let value = value.map(|value| (value, list::unquoted(value)));
        let argument = match &value {
            None => Argument::None,
            Some((raw, _)) if name.ends_with(b" ") || name.ends_with(b"\t") || raw.starts_with(b" ") => Argument::Broken,
            Some((_, text)) => Argument::Text(text),
        };
        self.note(&String::from_utf8_lossy(name.trim_ascii()).to_ascii_lowercase(), argument);
    }

    /// Takes in one directive, its name in lower case. What is unknown is ignored (RFC 9111, 5.2.3).
    pub(crate) fn note(&mut self, name: &str, argument: Argument<'_>) {
        match name {
            "no-store" => self.no_store = true,
            "public" => self.public = true,
            "must-revalidate" => self.must_revalidate = true,
            "proxy-revalidate" => self.proxy_revalidate = true,
            "must-understand" => self.must_understand = true,
            "no-transform" => self.no_transform = true,
            "immutable" => self.immutable = true,
            "only-if-cached" => self.only_if_cached = true,
            "no-cache" => qualify(&mut self.no_cache, argument),
            "private" => qualify(&mut self.private, argument),
            _ => self.note_seconds(name, argument),
        }
    }

    fn note_seconds(&mut self, name: &str, argument: Argument<'_>) {
        let seconds = argument.seconds();
        match name {
            "max-age" => shorten(&mut self.max_age, seconds),
            "s-maxage" => shorten(&mut self.s_maxage, seconds),
            "stale-while-revalidate" => shorten(&mut self.stale_while_revalidate, seconds),
            "stale-if-error" => shorten(&mut self.stale_if_error, seconds),
            "max-stale" if matches!(argument, Argument::None) => shorten(&mut self.max_stale, LONGEST),
            "max-stale" => shorten(&mut self.max_stale, seconds),
            "min-fresh" => self.min_fresh = self.min_fresh.max(Some(seconds)),
            _ => {}
        }
    }

    /// Tells whether the whole response is private.
    pub(crate) fn is_private(&self) -> bool {
        self.private == Some(Qualified::Whole)
    }

    /// Tells whether the whole response must be asked for again on each use.
    pub(crate) fn is_no_cache(&self) -> bool {
        self.no_cache == Some(Qualified::Whole)
    }

    /// Returns the fields that may not be reused: those that `no-cache="…"` and `private="…"` name.
    pub(crate) fn qualified_fields(&self) -> Vec<HeaderName> {
        let of = |qualified: &Option<Qualified>| match qualified {
            Some(Qualified::Fields(fields)) => fields.clone(),
            Some(Qualified::Whole) | None => Vec::new(),
        };
        let mut fields = of(&self.no_cache);
        fields.extend(of(&self.private));
        fields
    }
}

impl Argument<'_> {
    /// What is there but is no number is zero: stale, or no permission (RFC 9111, 4.2.1).
    fn seconds(self) -> Duration {
        match self {
            Self::Text(text) => delta_seconds(text).unwrap_or_default(),
            Self::None | Self::Broken => Duration::ZERO,
        }
    }
}

/// Reads a number of seconds: digits only, saturating at 2^31 (RFC 9111, 1.2.2).
pub(crate) fn delta_seconds(text: &[u8]) -> Option<Duration> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let seconds = text.iter().fold(0, |sum: u64, digit| (sum * 10 + u64::from(digit - b'0')).min(MAX_SECONDS));
    Some(Duration::from_secs(seconds))
}

fn shorten(known: &mut Option<Duration>, seconds: Duration) {
    *known = Some(known.map_or(seconds, |known| known.min(seconds)));
}

fn qualify(known: &mut Option<Qualified>, argument: Argument<'_>) {
    let named = field_names(argument);
    *known = match (known.take(), named) {
        (Some(Qualified::Whole), _) | (_, None) => Some(Qualified::Whole),
        (None, Some(fields)) => Some(Qualified::Fields(fields)),
        (Some(Qualified::Fields(mut fields)), Some(more)) => {
            fields.extend(more);
            Some(Qualified::Fields(fields))
        }
    };
}

/// An empty list or a name that is none means the whole response: the stricter reading.
fn field_names(argument: Argument<'_>) -> Option<Vec<HeaderName>> {
    let Argument::Text(text) = argument else {
        return None;
    };
    let names: Vec<_> = list::tokens(text).map(HeaderName::from_bytes).collect::<Result<_, _>>().ok()?;
    (!names.is_empty()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn of(value: &str) -> Directives {
        Directives::of(&headers(&[("cache-control", value)]))
    }

    fn secs(seconds: u64) -> Option<Duration> {
        Some(Duration::from_secs(seconds))
    }

    #[test]
    fn seconds_are_digits_and_anything_else_is_stale() {
        let cases = [
            ("max-age=3600", secs(3600)),
            ("MaX-aGe=3600", secs(3600)),
            ("max-age=0003600", secs(3600)),
            ("max-age=\"3600\"", secs(3600)),
            ("max-age=2147483649", secs(1 << 31)),
            ("max-age=99999999999999999999999999", secs(1 << 31)),
            ("max-age=-1", secs(0)),
            ("max-age='3600'", secs(0)),
            ("max-age=3600a", secs(0)),
            ("max-age=a3600", secs(0)),
            ("max-age=3600.5", secs(0)),
            ("max-age=", secs(0)),
            ("max-age", secs(0)),
            ("max-age =3600", secs(0)),
            ("max-age= 3600", secs(0)),
            ("ext=\"max-age=9\"", None),
            ("ext=\"a, max-age=9\"", None),
            ("ext='a, max-age=9", secs(9)),
            ("x-max-age=9", None),
            ("max-age=9, max-age=5", secs(5)),
            ("max-age=5, max-age=9", secs(5)),
        ];
        for (value, expected) in cases {
            assert_eq!(of(value).max_age, expected, "{value}");
        }
    }

    #[test]
    fn names_in_any_case_and_over_several_lines_count() {
        let directives =
            Directives::of(&headers(&[("cache-control", "No-StorE, pRivate"), ("cache-control", ", S-MaxAge=3 ,MUST-understand")]));
        assert!(directives.no_store && directives.is_private() && directives.must_understand);
        assert_eq!(directives.s_maxage, secs(3));
        assert_eq!(of("stale-while-revalidate=7").stale_while_revalidate, secs(7));
    }

    #[test]
    fn a_qualified_directive_names_its_fields() {
        let directives = of("no-cache=\"a, B\", private=\"c\", max-age=1");
        assert_eq!(directives.qualified_fields(), ["a", "b", "c"]);
        assert!(!directives.is_private() && !directives.is_no_cache());
        assert_eq!(of("private=Set-Cookie").qualified_fields(), ["set-cookie"]);
    }

    #[test]
    fn a_qualification_that_cannot_be_read_means_the_whole_response() {
        for value in
            ["private", "private=", "private=\"\"", "private=\"a b\"", "private =\"a\"", "private=\"a\", private", "private, private=\"a\""]
        {
            assert!(of(value).is_private(), "{value}");
        }
    }

    #[test]
    fn request_directives_take_the_stricter_value() {
        assert_eq!(of("max-stale").max_stale, Some(LONGEST));
        assert_eq!(of("max-stale, max-stale=5").max_stale, secs(5));
        assert_eq!(of("min-fresh=5, min-fresh=9").min_fresh, secs(9));
        assert!(of("only-if-cached").only_if_cached);
        assert_eq!(of(""), Directives::default());
    }
}
