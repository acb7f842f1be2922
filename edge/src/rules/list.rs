//! How list fields come apart: at commas that are not within quotes, over as many lines as there are.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

/// The members of one field line, trimmed, without the empty ones (RFC 9110, 5.6.1).
#[derive(Clone, Debug)]
pub(crate) struct Members<'a> {
    rest: Option<&'a [u8]>,
    /// Whether a backslash within quotes takes the next byte's meaning away.
    escapes: bool,
    /// Off once a quote was seen that never closes: what follows it must not hide a directive such as `private`.
    quotes: bool,
}

/// Returns the members of a list of tokens and quoted strings (RFC 9110, 5.6.4).
pub(crate) fn members(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line), escapes: true, quotes: true }
}

/// Returns the members of a list of entity tags, in which a backslash is a letter like others (RFC 9110, 8.8.3).
pub(crate) fn entity_tags(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line), escapes: false, quotes: true }
}

/// Returns the members of a list of tokens, in which quotes mean nothing.
pub(crate) fn tokens(line: &[u8]) -> Members<'_> {
    Members { rest: Some(line), escapes: false, quotes: false }
}

/// Returns the members of all lines of a field in order.
pub(crate) fn members_of<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> + use<'a> {
    headers.get_all(name).iter().flat_map(|line| members(line.as_bytes()))
}

impl Members<'_> {
    fn comma(&mut self, text: &[u8]) -> Option<usize> {
        if self.quotes {
            match quoted_comma(text, self.escapes) {
                Ok(at) => return at,
                Err(NeverCloses) => self.quotes = false,
            }
        }
        text.iter().position(|&byte| byte == b',')
    }
}

struct NeverCloses;

fn quoted_comma(text: &[u8], escapes: bool) -> Result<Option<usize>, NeverCloses> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted && escapes => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => return Ok(Some(at)),
            _ => {}
        }
    }
    if quoted { Err(NeverCloses) } else { Ok(None) }
}

impl<'a> Iterator for Members<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(text) = self.rest {
            let (member, rest) = match self.comma(text).and_then(|at| text.split_at_checked(at)) {
                Some((member, rest)) => (member, rest.get(1..)),
                None => (text, None),
            };
            self.rest = rest;
            if !member.trim_ascii().is_empty() {
                return Some(member.trim_ascii());
            }
        }
        None
    }
}

/// Splits `name=value` at its first `=`; nothing is trimmed.
pub(crate) fn pair(member: &[u8]) -> (&[u8], Option<&[u8]>) {
    match member.iter().position(|&byte| byte == b'=').and_then(|at| member.split_at_checked(at)) {
        Some((name, value)) => (name, value.get(1..)),
        None => (member, None),
    }
}

/// Returns what a quoted string says; other text as it is (RFC 9110, 5.6.4).
pub(crate) fn unquoted(value: &[u8]) -> Cow<'_, [u8]> {
    let Some(inner) = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")) else {
        return Cow::Borrowed(value);
    };
    if !inner.contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    let mut escaped = false;
    let kept = inner.iter().copied().filter(|&byte| {
        escaped = byte == b'\\' && !escaped;
        !escaped
    });
    Cow::Owned(kept.collect())
}

/// A weight in thousandths: 0 is "not acceptable", 1000 the most wanted (RFC 9110, 12.4.2).
pub(crate) type Weight = u16;

/// Splits `name;q=0.5` into name and weight; nothing where the grammar is broken or has other parameters.
pub(crate) fn weighted(member: &[u8]) -> Option<(&[u8], Weight)> {
    let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
    let name = parts.next().filter(|name| is_range(name))?;
    let weight = match parts.next() {
        None => 1000,
        Some(parameter) => match pair(parameter) {
            (b"q" | b"Q", Some(value)) => weight(value)?,
            _ => return None,
        },
    };
    parts.next().is_none().then_some((name, weight))
}

/// The letters of codings, languages and `*`.
fn is_range(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-*_.+!#$%&'^`|~".contains(byte))
}

fn weight(value: &[u8]) -> Option<Weight> {
    let (whole, fraction) = match value {
        [whole] => (*whole, b"".as_slice()),
        [whole, b'.', fraction @ ..] if fraction.len() <= 3 => (*whole, fraction),
        _ => return None,
    };
    if !matches!(whole, b'0' | b'1') || !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = std::iter::once(&whole).chain(fraction).chain(std::iter::repeat(&b'0')).take(4);
    let weight = digits.fold(0, |sum, digit| sum * 10 + Weight::from(digit - b'0'));
    (weight <= 1000).then_some(weight)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn texts<'a>(members: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
        members.map(|member| String::from_utf8_lossy(member).into_owned()).collect()
    }

    #[test]
    fn commas_within_quotes_do_not_split_and_empty_members_do_not_count() {
        let cases: [(&str, &[&str]); 6] = [
            ("a, b ,c", &["a", "b", "c"]),
            (" , ,a,, b,", &["a", "b"]),
            ("a=\"x, y\", b", &["a=\"x, y\"", "b"]),
            ("a=\"x\\\", y\", b", &["a=\"x\\\", y\"", "b"]),
            ("a='x, y'", &["a='x", "y'"]),
            ("", &[]),
        ];
        for (line, expected) in cases {
            assert_eq!(texts(members(line.as_bytes())), expected, "{line}");
        }
    }

    #[test]
    fn a_quote_that_never_closes_hides_nothing() {
        assert_eq!(texts(members(b"a=\"x, private, b=\"y\"z\", c")), ["a=\"x, private, b=\"y\"z\"", "c"]);
        assert_eq!(texts(members(b"a=\"x, private")), ["a=\"x", "private"]);
    }

    #[test]
    fn a_backslash_in_an_entity_tag_is_a_letter() {
        assert_eq!(texts(entity_tags(b"\"a\\\", \"b,c\"")), ["\"a\\\"", "\"b,c\""]);
    }

    #[test]
    fn several_lines_are_one_list() {
        let map = headers(&[("x", "a, b"), ("y", "n"), ("x", "c")]);
        assert_eq!(texts(members_of(&map, &HeaderName::from_static("x"))), ["a", "b", "c"]);
    }

    #[test]
    fn a_quoted_string_says_what_is_between_its_quotes() {
        for (value, said) in [("\"a\"", "a"), ("a", "a"), ("\"a\\\"\\\\b\"", "a\"\\b"), ("\"", "\""), ("'a'", "'a'"), ("\"\"", "")] {
            assert_eq!(unquoted(value.as_bytes()).as_ref(), said.as_bytes(), "{value}");
        }
    }

    #[test]
    fn weights_follow_their_grammar() {
        let good = [("gzip", 1000), ("gzip;q=0.5", 500), ("gzip ; Q=0", 0), ("*;q=1.000", 1000), ("en-GB;q=0.123", 123), ("a;q=0.", 0)];
        for (member, expected) in good {
            assert_eq!(weighted(member.as_bytes()).unwrap().1, expected, "{member}");
        }
        for bad in
            ["", ";q=1", "gzip;q=1.001", "gzip;q=2", "gzip;q=-1", "gzip;q=.5", "gzip;q=0.1234", "gzip;q", "gzip;x=1", "gzip;q=1;q=1", "a b"]
        {
            assert_eq!(weighted(bad.as_bytes()), None, "{bad}");
        }
    }
}
