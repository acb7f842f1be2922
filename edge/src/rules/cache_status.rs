//! What an answer says about how it came to be: one member of Cache-Status, written from the same value as the log.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderValue, StatusCode};

use super::dictionary::is_token;

/// Why a request went on to the upstream (RFC 9211, 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Forward {
    /// The method asks for it.
    Method,
    /// Nothing is stored for the URI.
    UriMiss,
    /// Something is stored for the URI, but for other selecting fields.
    VaryMiss,
    /// What is stored is stale.
    Stale,
    /// Only some of it is stored.
    Partial,
    /// The client wishes it.
    Request,
}

impl Forward {
    /// Returns the word of RFC 9211, 2.2.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::Request => "request",
        }
    }
}

/// One member of Cache-Status (RFC 9211, 2). The key is left out: it says nothing that the client does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// Why the request went on; nothing where it was a hit.
    forward: Option<Forward>,
    status: Option<StatusCode>,
    ttl: Option<i64>,
    is_stored: bool,
    is_collapsed: bool,
    is_made: bool,
    detail: Option<Cow<'static, str>>,
    is_fenced: bool,
}

impl CacheStatus {
    /// Returns the member of an answer from the cache (RFC 9211, 2.1).
    pub(crate) const fn hit() -> Self {
        Self {
            forward: None,
            status: None,
            ttl: None,
            is_stored: false,
            is_collapsed: false,
            is_made: false,
            detail: None,
            is_fenced: false,
        }
    }

    /// Returns the member of an answer that the edge made up itself: neither a hit nor forwarded.
    pub(crate) fn made() -> Self {
        Self { is_made: true, ..Self::hit() }
    }

    /// Returns the member of an answer for which the upstream was asked (RFC 9211, 2.2).
    pub(crate) fn forwarded(reason: Forward) -> Self {
        Self { forward: Some(reason), ..Self::hit() }
    }

    /// Returns the same for a request that had gone on to the upstream (RFC 9211, 2.2).
    #[must_use]
    pub(crate) fn after(self, reason: Forward) -> Self {
        Self { forward: Some(reason), is_made: false, ..self }
    }

    /// Adds what the upstream answered, which matters where the client gets another status (RFC 9211, 2.3).
    #[must_use]
    pub(crate) fn with_status(self, status: StatusCode) -> Self {
        Self { status: Some(status), ..self }
    }

    /// Adds for how many seconds the answer stays fresh; negative where it is stale (RFC 9211, 2.4).
    #[must_use]
    pub(crate) fn with_ttl(self, seconds: i64) -> Self {
        Self { ttl: Some(seconds), ..self }
    }

    /// Adds whether the upstream's answer was stored (RFC 9211, 2.5).
    #[must_use]
    pub(crate) fn with_stored(self, is_stored: bool) -> Self {
        Self { is_stored, ..self }
    }

    /// Adds whether the request shared its fetch with others (RFC 9211, 2.6).
    #[must_use]
    pub(crate) fn with_collapsed(self, is_collapsed: bool) -> Self {
        Self { is_collapsed, ..self }
    }

    /// Adds our own reason: the word that the log and the metric have too (RFC 9211, 2.8).
    #[must_use]
    pub(crate) fn with_detail(self, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { detail: Some(detail.into()), ..self }
    }

    /// Adds that the edge could not rely on what it has applied, whatever the detail says: a parameter of our own
    /// (RFC 9211, 2).
    #[must_use]
    pub(crate) fn with_fenced(self, is_fenced: bool) -> Self {
        Self { is_fenced, ..self }
    }

    /// Tells whether the edge could not rely on what it has applied.
    pub(crate) fn is_fenced(&self) -> bool {
        self.is_fenced
    }

    /// Returns the value of the field; further caches append theirs in lines of their own (RFC 9211, 2).
    pub(crate) fn value(&self) -> HeaderValue {
        HeaderValue::try_from(self.to_string()).unwrap_or_else(|_| HeaderValue::from_static("atoll"))
    }
}

impl fmt::Display for CacheStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forward {
            None if self.is_made => f.write_str("atoll")?,
            None => f.write_str("atoll; hit")?,
            Some(reason) => write!(f, "atoll; fwd={}", reason.as_str())?,
        }
        if let Some(status) = self.status {
            write!(f, "; fwd-status={}", status.as_u16())?;
        }
        if self.is_stored {
            f.write_str("; stored")?;
        }
        if self.is_collapsed {
            f.write_str("; collapsed")?;
        }
        if let Some(ttl) = self.ttl {
            write!(f, "; ttl={}", ttl.clamp(-LARGEST, LARGEST))?;
        }
        self.detail.as_deref().map_or(Ok(()), |detail| write_item(f, detail))?;
        if self.is_fenced { f.write_str("; fenced") } else { Ok(()) }
    }
}

/// The largest integer of a structured field (RFC 8941, 3.3.1).
const LARGEST: i64 = 999_999_999_999_999;

/// A token where the text is one, else a string (RFC 8941, 3.3.3 and 3.3.4).
fn write_item(f: &mut fmt::Formatter<'_>, detail: &str) -> fmt::Result {
    let starts_well = detail.starts_with(|first: char| first.is_ascii_alphabetic() || first == '*');
    if starts_well && detail.bytes().all(is_token) {
        return write!(f, "; detail={detail}");
    }
    f.write_str("; detail=\"")?;
    for letter in detail.chars() {
        match letter {
            '"' | '\\' => write!(f, "\\{letter}")?,
            ' '..='~' => write!(f, "{letter}")?,
            // A structured field's string has no other letters.
            _ => f.write_str("?")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::dictionary;

    #[test]
    fn a_member_says_what_happened() {
        let cases = [
            (CacheStatus::hit(), "atoll; hit"),
            (CacheStatus::hit().with_ttl(-3).with_detail("stale-if-error"), "atoll; hit; ttl=-3; detail=stale-if-error"),
            (CacheStatus::forwarded(Forward::UriMiss).with_stored(true).with_ttl(60), "atoll; fwd=uri-miss; stored; ttl=60"),
            (
                CacheStatus::forwarded(Forward::Stale).with_status(StatusCode::NOT_MODIFIED).with_collapsed(true),
                "atoll; fwd=stale; fwd-status=304; collapsed",
            ),
            (CacheStatus::forwarded(Forward::Method).with_stored(false), "atoll; fwd=method"),
            (CacheStatus::hit().with_ttl(i64::MIN), "atoll; hit; ttl=-999999999999999"),
            (CacheStatus::made().with_detail("not-found").with_fenced(true), "atoll; detail=not-found; fenced"),
            (CacheStatus::hit().with_detail("fenced").with_fenced(true), "atoll; hit; detail=fenced; fenced"),
        ];
        for (status, text) in cases {
            assert_eq!(status.value(), text);
        }
    }

    #[test]
    fn a_detail_is_escaped_as_structured_fields_want_it() {
        let cases = [
            ("no-store", "no-store"),
            ("no store", "\"no store\""),
            ("", "\"\""),
            ("1st", "\"1st\""),
            ("a\"b\\c", "\"a\\\"b\\\\c\""),
            ("a\r\nb\u{e9}", "\"a??b?\""),
            ("a;b", "\"a;b\""),
        ];
        for (detail, written) in cases {
            assert_eq!(CacheStatus::hit().with_detail(detail).value(), format!("atoll; hit; detail={written}"));
        }
    }

    #[test]
    fn every_member_is_a_structured_field() {
        for detail in ["x", "", "a \"b\" \\ c", "\u{0}", "a, b"] {
            let member = CacheStatus::forwarded(Forward::VaryMiss).with_ttl(1).with_detail(detail.to_owned()).with_fenced(true).to_string();
            assert_eq!(dictionary::parse(member.as_bytes()).map(|members| members.len()), Some(1), "{member}");
        }
    }
}
