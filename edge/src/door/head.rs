//! Reads the head of a request, strictly: what two servers could read in two ways is refused
//! (RFC 9112, 2 to 5 and 11; http.md 27 to 29).

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::normalise::{HEAD_MOST, METHOD_MOST, TARGET_MOST};
use crate::refuse::Refusal;

/// Fields of a head.
const FIELDS_MOST: usize = 96;

/// Empty lines that may stand before a request line (RFC 9112, 2.2).
const EMPTY_LINES_MOST: usize = 4;

/// The protocol's version, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

/// A head as it was read. The target is text that nobody has looked at.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) method: Method,
    pub(crate) target: String,
    pub(crate) version: Version,
    pub(crate) headers: HeaderMap,
}

/// Looks for the end of a head, remembering how far it has looked.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Where the head begins: behind empty lines.
    start: usize,
    /// Up to where the bytes have been looked at.
    at: usize,
    /// Where the current line begins.
    line: usize,
    empty_lines: usize,
}

impl Scan {
    /// Returns the head's bytes once all of it is there. Line ends are checked as they come, so that a
    /// head which can't become one is refused at once and not when its time is up.
    pub(crate) fn find<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Refusal> {
        while let Some(&byte) = bytes.get(self.at) {
            self.at += 1;
            let is_line_end = match (byte, bytes.get(self.at)) {
                (b'\r', Some(b'\n')) => true,
                // The line feed may come with the next bytes.
                (b'\r', None) => {
                    self.at -= 1;
                    break;
                }
                (b'\r' | b'\n', _) => return Err(Refusal::Malformed("a line end is not CR LF")),
                (0, _) => return Err(Refusal::Malformed("a NUL")),
                _ => false,
            };
            if !is_line_end {
                continue;
            }
            self.at += 1;
            let is_empty = self.at - self.line == 2;
            if is_empty && self.line > self.start {
                return Ok(bytes.get(self.start..self.at));
            }
            self.line = self.at;
            if is_empty {
                self.start = self.at;
                self.empty_lines += 1;
                if self.empty_lines > EMPTY_LINES_MOST {
                    return Err(Refusal::Malformed("empty lines in place of a request"));
                }
            }
        }
        self.check_size(bytes).map(|()| None)
    }

    /// Returns where the bytes behind the head begin, once it was found.
    pub(crate) fn end(&self) -> usize {
        self.at
    }

    fn check_size(&self, bytes: &[u8]) -> Result<(), Refusal> {
        let begun = bytes.get(self.start..).unwrap_or_default();
        let in_request_line = self.line == self.start;
        if !in_request_line {
            // What begins wrongly is not waited for.
            let line = begun.split(|&byte| byte == b'\n').next().unwrap_or_default();
            request_line(line.strip_suffix(b"\r").unwrap_or(line))?;
        }
        if in_request_line && !begun.iter().take(METHOD_MOST + 1).any(|&byte| byte == b' ') && begun.len() > METHOD_MOST {
            return Err(Refusal::UnknownMethod);
        }
        // Beside the target stand a method and a version.
        if in_request_line && begun.len() > TARGET_MOST + METHOD_MOST + 16 {
            return Err(Refusal::TargetTooLong);
        }
        if begun.len() > HEAD_MOST + 1024 { Err(Refusal::HeadTooLarge) } else { Ok(()) }
    }
}

/// Reads the lines of a head that [`Scan::find`] found.
pub(crate) fn parse(head: &[u8]) -> Result<Head, Refusal> {
    let mut lines = head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let (method, target, version) = request_line(lines.next().unwrap_or_default())?;
    let mut headers = HeaderMap::with_capacity(16);
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = field(line)?;
        if headers.len() == FIELDS_MOST {
            return Err(Refusal::HeadTooLarge);
        }
        headers.append(name, value);
    }
    Ok(Head { method, target, version, headers })
}

fn request_line(line: &[u8]) -> Result<(Method, String, Version), Refusal> {
    let mut words = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Refusal::Malformed("the request line is not a method, a target and a version with one space between"));
    };
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit() => {
            return Err(Refusal::UnknownVersion);
        }
        _ => return Err(Refusal::Malformed("the version is not HTTP/1.1 or HTTP/1.0")),
    };
    if method.len() > METHOD_MOST {
        return Err(Refusal::UnknownMethod);
    }
    let method = Method::from_bytes(method).map_err(|_| Refusal::Malformed("the method is not a token"))?;
    if target.len() > TARGET_MOST {
        return Err(Refusal::TargetTooLong);
    }
    let target = std::str::from_utf8(target).map_err(|_| Refusal::BadTarget(wire::BadTarget::Raw))?;
    Ok((method, target.to_owned(), version))
}

/// Reads `name: value`. A space before the colon and a folded line are refused (RFC 9112, 5.1 and 5.2).
pub(crate) fn field(line: &[u8]) -> Result<(HeaderName, HeaderValue), Refusal> {
    let colon = line.iter().position(|&byte| byte == b':').ok_or(Refusal::Malformed("a header field without a colon"))?;
    let (name, value) = line.split_at(colon);
    let name = HeaderName::from_bytes(name).map_err(|_| Refusal::Malformed("a header field's name is not a token"))?;
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    let value = HeaderValue::from_bytes(value).map_err(|_| Refusal::Malformed("a header field's value has a control character"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Head>, Refusal> {
        Scan::default().find(text.as_bytes())?.map(parse).transpose()
    }

    fn refused(text: &str) -> Option<u16> {
        read(text).err().map(|refusal| refusal.status().as_u16())
    }

    #[test]
    fn a_head_is_found_however_it_is_cut() {
        let text = b"\r\nGET /a HTTP/1.1\r\nHost: h\r\nX: \t 1 \r\n\r\nrest";
        let mut scan = Scan::default();
        let end = text.len() - 4;
        for cut in 0..end {
            assert!(scan.find(&text[..cut]).unwrap().is_none(), "{cut}");
        }
        let head = parse(scan.find(text).unwrap().unwrap()).unwrap();
        assert_eq!((head.method.as_str(), head.target.as_str(), head.version), ("GET", "/a", Version::Http11));
        assert_eq!(head.headers.get("host").unwrap(), "h");
        assert_eq!(head.headers.get("x").unwrap(), "1");
        assert_eq!(scan.end(), end);
    }

    #[test]
    fn rule_29_bare_line_ends_are_refused_as_they_come() {
        for text in
            ["GET / HTTP/1.1\n", "GET / HTTP/1.1\r\nHost: h\n", "GET / HTTP/1.1\r\nX: a\rb\r\n", "\n", "GET / HTTP/1.1\r\nX: a\0", "\r\r\n"]
        {
            assert_eq!(refused(text), Some(400), "{text:?}");
        }
        assert!(read("GET / HTTP/1.1\r").unwrap().is_none());
        assert_eq!(refused("\r\n\r\n\r\n\r\n\r\n"), Some(400));
    }

    #[test]
    fn rule_29_request_lines_have_one_form() {
        let lines = [
            ("GET  / HTTP/1.1", 400),
            (" GET / HTTP/1.1", 400),
            ("GET / HTTP/1.1 ", 400),
            ("GET /", 400),
            ("GET\t/\tHTTP/1.1", 400),
            ("GET / http/1.1", 400),
            ("GET / HTTP/1.1.1", 400),
            ("GET / HTTP/11", 400),
            ("GET / HTTP/2.0", 505),
            ("GET / HTTP/1.2", 505),
            ("G(T / HTTP/1.1", 400),
            (" / HTTP/1.1", 400),
            ("GET /\u{e4} HTTP/1.1", 400),
        ];
        for (line, status) in lines {
            let got = read(&format!("{line}\r\nHost: h\r\n\r\n"));
            let got = got.map(Option::unwrap).and_then(|head| crate::normalise::normalise(&head.method, &head.target, head.headers));
            assert_eq!(got.err().map(|refusal| refusal.status().as_u16()), Some(status), "{line:?}");
        }
    }

    #[test]
    fn rule_29_fields_have_one_form() {
        for line in ["Host : h", " Host: h", "\tfolded", "Host", ": h", "Ho st: h", "X: a\x01b", "X: a\x7fb", "H\u{e4}: h"] {
            assert_eq!(refused(&format!("GET / HTTP/1.1\r\nA: b\r\n{line}\r\n\r\n")), Some(400), "{line:?}");
        }
        for line in ["X:", "X:y", "X: \u{e4}", "X: a\tb"] {
            assert!(read(&format!("GET / HTTP/1.1\r\n{line}\r\n\r\n")).unwrap().is_some(), "{line:?}");
        }
    }

    #[test]
    fn rule_29_what_grows_without_end_is_cut_off() {
        assert_eq!(refused(&"M".repeat(33)), Some(501));
        assert_eq!(refused(&format!("GET /{}", "a".repeat(9000))), Some(414));
        assert_eq!(refused(&format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8192))), Some(414));
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(18_000))), Some(431));
        let many: String = (0..97).map(|n| format!("x{n}: y\r\n")).collect();
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Some(431));
    }
}
