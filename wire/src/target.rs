//! The canonical form of a request target: one spelling for the cache key AND for what the upstream
//! is sent, so that two requests with equal keys are the same request (RFC 3986, 6.2.2).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A canonical path with its query, as it goes into keys, purges and requests upstream.
///
/// Percent-escapes are upper-case, unreserved characters are decoded, dot segments are removed, and
/// what RFC 3986 forbids but browsers send is escaped. `%2F`, `//` and `;` stay as they were.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target {
    text: String,
    path_len: usize,
}

/// Why a target is refused; each is a 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    /// The path does not begin with `/`.
    #[error("the path does not begin with a slash")]
    NoSlash,
    /// A percent sign without two hex digits behind it.
    #[error("a percent sign without two hex digits behind it")]
    Escape,
    /// `%00`.
    #[error("an escaped NUL")]
    Nul,
    /// A backslash, which some servers take for a slash.
    #[error("a backslash")]
    Backslash,
    /// A raw control character, space or byte above 127.
    #[error("a raw control character, space or 8-bit byte")]
    Raw,
    /// A fragment, which never goes over the wire.
    #[error("a fragment")]
    Fragment,
}

impl Target {
    /// Returns the path, always beginning with `/`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[..self.path_len]
    }

    /// Returns what follows the `?`, where there is one.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.text[self.path_len..].strip_prefix('?')
    }

    /// Returns the same path with another query; `None` where that is not one.
    #[must_use]
    pub fn with_query(&self, query: Option<&str>) -> Option<Self> {
        match query {
            None => self.path().parse().ok(),
            Some(query) => format!("{}?{query}", self.path()).parse().ok(),
        }
    }

    /// Returns path and query as they are sent.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the path with every escape decoded, where that is UTF-8 without control characters.
    ///
    /// `None` also where it has a `%2F`: that is a slash within a segment, and no file's name has one.
    #[must_use]
    pub fn decoded_path(&self) -> Option<String> {
        let mut bytes = Vec::with_capacity(self.path_len);
        let mut rest = self.path().bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'%' => escaped(rest.next(), rest.next()).ok().filter(|byte| *byte != b'/')?,
                byte => byte,
            });
        }
        String::from_utf8(bytes).ok().filter(|path| !path.chars().any(char::is_control))
    }
}

fn escaped(high: Option<u8>, low: Option<u8>) -> Result<u8, BadTarget> {
    let digit = |byte: Option<u8>| byte.and_then(|b| char::from(b).to_digit(16)).ok_or(BadTarget::Escape);
    let value = digit(high)? * 16 + digit(low)?;
    u8::try_from(value).map_err(|_| BadTarget::Escape)
}

fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

/// Gives every character its one spelling.
fn respell(text: &str) -> Result<String, BadTarget> {
    let mut out = String::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => match escaped(bytes.next(), bytes.next())? {
                0 => return Err(BadTarget::Nul),
                byte if is_unreserved(byte) => out.push(char::from(byte)),
                byte => push_escape(&mut out, byte),
            },
            b'\\' => return Err(BadTarget::Backslash),
            b'#' => return Err(BadTarget::Fragment),
            0..=0x20 | 0x7f.. => return Err(BadTarget::Raw),
            b'"' | b'<' | b'>' | b'^' | b'{' | b'|' | b'}' | b'`' => push_escape(&mut out, byte),
            _ => out.push(char::from(byte)),
        }
    }
    Ok(out)
}

/// RFC 3986, 5.2.4: `.` goes, `..` takes the segment before it along; empty segments count.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path[1..].split('/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

impl FromStr for Target {
    type Err = BadTarget;

    fn from_str(text: &str) -> Result<Self, BadTarget> {
        let (path, query) = match text.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (text, None),
        };
        if !path.starts_with('/') {
            return Err(BadTarget::NoSlash);
        }
        let mut text = without_dots(&respell(path)?);
        let path_len = text.len();
        if let Some(query) = query {
            text.push('?');
            text.push_str(&respell(query)?);
        }
        Ok(Self { text, path_len })
    }
}

impl TryFrom<String> for Target {
    type Error = BadTarget;

    fn try_from(text: String) -> Result<Self, BadTarget> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.text
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_target_has_one_spelling() {
        let cases = [
            ("/", "/"),
            ("/a%2fb%2Fc", "/a%2Fb%2Fc"),
            ("/%7euser/%41", "/~user/A"),
            ("/a/./b/../c", "/a/c"),
            ("/a/%2e%2E/b", "/b"),
            ("/../../etc", "/etc"),
            ("/a/..", "/"),
            ("/a/b/.", "/a/b/"),
            ("/a//b", "/a//b"),
            ("/a//../b", "/a/b"),
            ("/a;x=1/b", "/a;x=1/b"),
            ("/\"<>^{|}`", "/%22%3C%3E%5E%7B%7C%7D%60"),
            ("/a?", "/a?"),
            ("/a?b=%c3%a9&a=%41/../c?d", "/a?b=%C3%A9&a=A/../c?d"),
            ("/a%5Cb", "/a%5Cb"),
            ("/'!$&()*+,:@=", "/'!$&()*+,:@="),
        ];
        for (given, canonical) in cases {
            assert_eq!(given.parse::<Target>().unwrap().as_str(), canonical, "{given}");
        }
    }

    #[test]
    fn a_target_that_servers_read_differently_is_refused() {
        let cases = [
            ("", BadTarget::NoSlash),
            ("a", BadTarget::NoSlash),
            ("?a", BadTarget::NoSlash),
            ("/%", BadTarget::Escape),
            ("/%4", BadTarget::Escape),
            ("/%zz", BadTarget::Escape),
            ("/?%g0", BadTarget::Escape),
            ("/%+1", BadTarget::Escape),
            ("/%00", BadTarget::Nul),
            ("/?%00", BadTarget::Nul),
            ("/a\\b", BadTarget::Backslash),
            ("/a#b", BadTarget::Fragment),
            ("/a b", BadTarget::Raw),
            ("/\u{7f}", BadTarget::Raw),
            ("/é", BadTarget::Raw),
        ];
        for (given, why) in cases {
            assert_eq!(given.parse::<Target>(), Err(why), "{given}");
        }
    }

    #[test]
    fn path_and_query_come_apart_again() {
        let target: Target = "/a%20b?c=%20".parse().unwrap();
        assert_eq!((target.path(), target.query()), ("/a%20b", Some("c=%20")));
        assert_eq!(target.decoded_path().unwrap(), "/a b");
        assert_eq!("/x".parse::<Target>().unwrap().query(), None);
    }

    #[test]
    fn an_escaped_slash_is_no_slash_of_a_path() {
        for (given, decoded) in [("/docs%2Findex.html", None), ("/docs/%2f", None), ("/%252F", Some("/%2F")), ("/a?b=%2F", Some("/a"))] {
            assert_eq!(given.parse::<Target>().unwrap().decoded_path().as_deref(), decoded, "{given}");
        }
    }

    proptest! {
        #[test]
        fn canonical_form_is_a_fixed_point(text in "/[ -~]{0,60}") {
            if let Ok(target) = text.parse::<Target>() {
                prop_assert_eq!(target.as_str().parse::<Target>().unwrap(), target);
            }
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,60}") {
            let _ = text.parse::<Target>().map(|target| target.decoded_path());
        }
    }
}
