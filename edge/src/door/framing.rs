//! Where a request's body ends (RFC 9112, 6 and 7; http.md 29): lengths and chunks are read strictly,
//! and only their content goes on. Chunk extensions and trailers end here.

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING, UPGRADE};

use super::head::{Version, field};
use crate::refuse::Refusal;

/// Extensions of one chunk, and of all of them.
const EXTENSION_MOST: usize = 4 << 10;
const EXTENSIONS_MOST: usize = 16 << 10;

/// Trailers of a body.
const TRAILERS_MOST: usize = 8 << 10;

/// Trailers that would change what the head meant (RFC 9110, 6.5.1).
const NOT_TRAILERS: [&str; 19] = [
    "transfer-encoding",
    "content-length",
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
    "expect",
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "content-type",
    "content-encoding",
    "content-range",
    "range",
    "cache-control",
    "max-forwards",
];

/// How a request's body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// What a head says about the message and the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) body: Framing,
    /// Another request may follow.
    pub(crate) keeps_alive: bool,
    /// The client waits for a word before it sends the body.
    pub(crate) expects_continue: bool,
    /// The client wants to speak websocket.
    pub(crate) upgrades: bool,
}

/// Reads what a head says about framing. What two servers could read in two ways is refused.
pub(crate) fn of(version: Version, headers: &HeaderMap) -> Result<Frame, Refusal> {
    let body = body(version, headers)?;
    let connection: Vec<_> = headers.get_all(CONNECTION).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b',')).collect();
    let says = |word: &str| connection.iter().any(|option| option.trim_ascii().eq_ignore_ascii_case(word.as_bytes()));
    let is_11 = version == Version::Http11;
    Ok(Frame {
        body,
        keeps_alive: if is_11 { !says("close") } else { says("keep-alive") && !says("close") },
        expects_continue: expectation(headers)? && is_11 && body != Framing::None,
        upgrades: is_11
            && body == Framing::None
            && says("upgrade")
            && headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket")),
    })
}

fn body(version: Version, headers: &HeaderMap) -> Result<Framing, Refusal> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    match (codings.next(), lengths.next()) {
        (None, None) => Ok(Framing::None),
        (Some(_), Some(_)) => Err(Refusal::Malformed("both Content-Length and Transfer-Encoding")),
        (Some(coding), None) => {
            let is_chunked = coding.as_bytes().eq_ignore_ascii_case(b"chunked") && codings.next().is_none();
            if version == Version::Http10 || !is_chunked {
                return Err(Refusal::Malformed("a Transfer-Encoding other than chunked in HTTP/1.1"));
            }
            Ok(Framing::Chunked)
        }
        (None, Some(length)) => {
            let is_one = lengths.next().is_none() && !length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit);
            let length = length.to_str().ok().filter(|_| is_one).and_then(|text| text.parse().ok());
            match length.ok_or(Refusal::Malformed("the Content-Length is not one number"))? {
                0 => Ok(Framing::None),
                length => Ok(Framing::Length(length)),
            }
        }
    }
}

fn expectation(headers: &HeaderMap) -> Result<bool, Refusal> {
    let mut lines = headers.get_all(EXPECT).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(false),
        (Some(line), None) if line.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Refusal::ExpectationFailed),
    }
}

/// Reads a body out of a connection's bytes.
#[derive(Debug)]
pub(crate) enum Reader {
    /// All of it has come.
    Done,
    /// So many bytes are still to come.
    Length(u64),
    /// Chunks are.
    Chunks(Chunks),
}

/// Where in a chunked body the reader stands.
#[derive(Debug)]
pub(crate) struct Chunks {
    at: At,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Before a chunk's size.
    Size,
    /// So many bytes before the end of a chunk.
    Data(u64),
    /// Behind a chunk's data, before its CR LF.
    DataEnd,
    /// In the trailers.
    Trailers,
}

impl Reader {
    pub(crate) fn new(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunks(Chunks { at: At::Size, extensions: 0, trailers: 0 }),
        }
    }

    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Takes the next content out of `bytes`, at most `most` of it; nothing where more has to come first.
    pub(crate) fn next(&mut self, bytes: &mut BytesMut, most: usize) -> Result<Option<Bytes>, Refusal> {
        match self {
            Self::Done => Ok(None),
            Self::Length(left) => {
                let content = take(bytes, left, most);
                if *left == 0 {
                    *self = Self::Done;
                }
                Ok(content)
            }
            Self::Chunks(chunks) => {
                let (content, is_done) = chunks.next(bytes, most)?;
                if is_done {
                    *self = Self::Done;
                }
                Ok(content)
            }
        }
    }
}

fn take(bytes: &mut BytesMut, left: &mut u64, most: usize) -> Option<Bytes> {
    let here = bytes.len().min(most).min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= here as u64;
    (here > 0).then(|| bytes.split_to(here).freeze())
}

impl Chunks {
    fn next(&mut self, bytes: &mut BytesMut, most: usize) -> Result<(Option<Bytes>, bool), Refusal> {
        loop {
            match &mut self.at {
                At::Data(left) => {
                    let content = take(bytes, left, most);
                    if *left == 0 {
                        self.at = At::DataEnd;
                    }
                    return Ok((content, false));
                }
                At::DataEnd => {
                    let Some(line) = line(bytes, 2)? else { return Ok((None, false)) };
                    if !line.is_empty() {
                        return Err(Refusal::Malformed("a chunk is longer than its size"));
                    }
                    self.at = At::Size;
                }
                At::Size => {
                    let Some(line) = line(bytes, EXTENSION_MOST + 18)? else { return Ok((None, false)) };
                    let (size, extension) = size_line(&line)?;
                    self.extensions += extension;
                    if self.extensions > EXTENSIONS_MOST {
                        return Err(Refusal::Malformed("too many chunk extensions"));
                    }
                    self.at = if size == 0 { At::Trailers } else { At::Data(size) };
                }
                At::Trailers => {
                    let Some(line) = line(bytes, TRAILERS_MOST)? else { return Ok((None, false)) };
                    if line.is_empty() {
                        return Ok((None, true));
                    }
                    self.trailers += line.len();
                    let (name, _) = field(&line)?;
                    if self.trailers > TRAILERS_MOST || NOT_TRAILERS.contains(&name.as_str()) {
                        return Err(Refusal::Malformed("a trailer that can't be one"));
                    }
                }
            }
        }
    }
}

/// Takes a line that ends in CR LF, without its end; nothing where the end has not come yet.
fn line(bytes: &mut BytesMut, most: usize) -> Result<Option<Bytes>, Refusal> {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        // A CR at the very end may be half of a line end.
        let whole = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let is_sound = whole.len() <= most && !whole.contains(&b'\r');
        return if is_sound { Ok(None) } else { Err(Refusal::Malformed("a line of a chunked body is too long or not ended by CR LF")) };
    };
    let mut line = bytes.split_to(end + 1).freeze();
    let Some(length) = line.len().checked_sub(2).filter(|&length| length <= most && line.get(length) == Some(&b'\r')) else {
        return Err(Refusal::Malformed("a line of a chunked body is too long or not ended by CR LF"));
    };
    line.truncate(length);
    if line.contains(&b'\r') {
        return Err(Refusal::Malformed("a line of a chunked body has a CR in it"));
    }
    Ok(Some(line))
}

/// Reads a chunk's size, and how long the extensions behind it are (RFC 9112, 7.1 and 7.1.1).
fn size_line(line: &[u8]) -> Result<(u64, usize), Refusal> {
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let (size, extension) = line.split_at(digits);
    // 16 digits fill 64 bits; no body is that long.
    let size = std::str::from_utf8(size).ok().filter(|size| size.len() <= 16).and_then(|size| u64::from_str_radix(size, 16).ok());
    let size = size.filter(|&size| size <= u64::MAX >> 1).ok_or(Refusal::Malformed("a chunk's size is not a number that can be"))?;
    if extension.len() > EXTENSION_MOST || !are_extensions(extension) {
        return Err(Refusal::Malformed("a chunk's extensions are too long or malformed"));
    }
    Ok((size, extension.len()))
}

/// `*( BWS ";" BWS name [ BWS "=" BWS ( token / quoted-string ) ] )`
fn are_extensions(mut rest: &[u8]) -> bool {
    while !rest.is_empty() {
        rest = rest.trim_ascii_start();
        let [b';', behind @ ..] = rest else { return false };
        let Some(behind) = after_token(behind.trim_ascii_start()) else { return false };
        rest = behind;
        let [b'=', value @ ..] = rest.trim_ascii_start() else { continue };
        let value = value.trim_ascii_start();
        let Some(behind) = (if value.first() == Some(&b'"') { after_string(value) } else { after_token(value) }) else { return false };
        rest = behind;
    }
    true
}

fn after_token(text: &[u8]) -> Option<&[u8]> {
    let length = text.iter().take_while(|&&byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)).count();
    if length == 0 { None } else { text.get(length..) }
}

fn after_string(text: &[u8]) -> Option<&[u8]> {
    let mut rest = text.get(1..)?;
    loop {
        match rest.split_first()? {
            (b'"', behind) => return Some(behind),
            (b'\\', behind) => rest = behind.get(1..)?,
            (&byte, behind) if byte == b'\t' || (byte >= b' ' && byte != 0x7f) => rest = behind,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    fn frame(version: Version, lines: &[(&str, &str)]) -> Result<Frame, u16> {
        of(version, &headers(lines)).map_err(|refusal| refusal.status().as_u16())
    }

    /// Reads a body that comes in pieces of `size` bytes; returns its content and what is left over.
    fn read(framing: Framing, text: &str, size: usize) -> Result<(String, String), Refusal> {
        let (mut reader, mut bytes, mut content) = (Reader::new(framing), BytesMut::new(), Vec::new());
        for piece in text.as_bytes().chunks(size) {
            bytes.extend_from_slice(piece);
            while let Some(part) = reader.next(&mut bytes, 3)? {
                content.extend_from_slice(&part);
            }
        }
        if !reader.is_done() {
            return Err(Refusal::Malformed("not done"));
        }
        Ok((String::from_utf8(content).unwrap(), String::from_utf8(bytes.to_vec()).unwrap()))
    }

    #[test]
    fn rule_29_a_body_is_framed_in_one_way_or_refused() {
        use Version::{Http10, Http11};
        let body = |version, lines: &[(&str, &str)]| frame(version, lines).map(|frame| frame.body);
        assert_eq!(body(Http11, &[]), Ok(Framing::None));
        assert_eq!(body(Http11, &[("content-length", "0")]), Ok(Framing::None));
        assert_eq!(body(Http11, &[("content-length", "007")]), Ok(Framing::Length(7)));
        assert_eq!(body(Http11, &[("transfer-encoding", "Chunked")]), Ok(Framing::Chunked));
        for length in ["", "+5", "-5", "5,5", "5 5", "0x5", "5.0", "99999999999999999999", "5;"] {
            assert_eq!(body(Http11, &[("content-length", length)]), Err(400), "{length:?}");
        }
        assert_eq!(body(Http11, &[("content-length", "5"), ("content-length", "5")]), Err(400));
        assert_eq!(body(Http11, &[("content-length", "5"), ("transfer-encoding", "chunked")]), Err(400));
        for coding in ["", "gzip", "chunked, chunked", "gzip, chunked", "identity", "xchunked", "chunked;a=b", "\"chunked\""] {
            assert_eq!(body(Http11, &[("transfer-encoding", coding)]), Err(400), "{coding:?}");
        }
        assert_eq!(body(Http11, &[("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")]), Err(400));
        assert_eq!(body(Http10, &[("transfer-encoding", "chunked")]), Err(400));
    }

    #[test]
    fn a_connection_is_kept_as_both_sides_say() {
        use Version::{Http10, Http11};
        let keeps = |version, value: &str| frame(version, &[("connection", value)]).unwrap().keeps_alive;
        assert!(frame(Http11, &[]).unwrap().keeps_alive && !frame(Http10, &[]).unwrap().keeps_alive);
        assert!(!keeps(Http11, "x, Close") && keeps(Http10, "keep-alive") && !keeps(Http10, "keep-alive, close"));
        let upgrade = |lines: &[(&str, &str)]| frame(Http11, lines).unwrap().upgrades;
        assert!(upgrade(&[("connection", "keep-alive, Upgrade"), ("upgrade", "WebSocket")]));
        assert!(!upgrade(&[("upgrade", "websocket")]) && !upgrade(&[("connection", "upgrade"), ("upgrade", "h2c")]));
    }

    #[test]
    fn an_expectation_is_the_one_that_there_is() {
        let expect = |lines: &[(&str, &str)]| frame(Version::Http11, lines).map(|frame| frame.expects_continue);
        assert_eq!(expect(&[("expect", "100-Continue"), ("content-length", "1")]), Ok(true));
        assert_eq!(expect(&[("expect", "100-continue")]), Ok(false));
        assert_eq!(expect(&[("expect", "200-ok"), ("content-length", "1")]), Err(417));
    }

    #[test]
    fn bodies_are_read_however_they_are_cut() {
        let chunked = "3;a=b ; c=\"d\\\"\"\r\nabc\r\n0A\r\n0123456789\r\n0\r\nX-Sum: 1\r\n\r\nGET";
        for size in 1..chunked.len() {
            assert_eq!(read(Framing::Chunked, chunked, size).unwrap(), ("abc0123456789".to_owned(), "GET".to_owned()), "{size}");
            assert_eq!(read(Framing::Length(5), "helloGET", size).unwrap(), ("hello".to_owned(), "GET".to_owned()), "{size}");
        }
    }

    #[test]
    fn rule_29_chunks_have_one_form() {
        let long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(5000));
        let much = format!("{}0\r\n\r\n", format!("1;{}\r\na\r\n", "x".repeat(3000)).repeat(6));
        let trailers = format!("0\r\n{}\r\n", format!("x: {}\r\n", "y".repeat(3000)).repeat(3));
        let bodies = [
            "1\na\r\n0\r\n\r\n",
            "1\r\na\n0\r\n\r\n",
            "1\r\nab\r\n0\r\n\r\n",
            "1\r\na\r\n0\r\n\n",
            "1\r\na\r\n0\n\n",
            "\r\na\r\n0\r\n\r\n",
            "0x1\r\na\r\n0\r\n\r\n",
            "-1\r\na\r\n0\r\n\r\n",
            "+1\r\na\r\n0\r\n\r\n",
            " 1\r\na\r\n0\r\n\r\n",
            "1 \r\na\r\n0\r\n\r\n",
            "g\r\n",
            "ffffffffffffffff\r\n",
            "10000000000000000\r\n",
            "1;\r\na\r\n0\r\n\r\n",
            "1;a=\r\na\r\n0\r\n\r\n",
            "1;a=\"\r\na\r\n0\r\n\r\n",
            "1;a\rb\r\na\r\n0\r\n\r\n",
            "1 a\r\na\r\n0\r\n\r\n",
            "0\r\nContent-Length: 5\r\n\r\n",
            "0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "0\r\nHost: h\r\n\r\n",
            "0\r\nbad name: x\r\n\r\n",
            "0\r\n folded\r\n\r\n",
            &long,
            &much,
            &trailers,
        ];
        for body in bodies {
            for size in [1, 7, body.len()] {
                assert_eq!(read(Framing::Chunked, body, size).unwrap_err().status().as_u16(), 400, "{body:?} by {size}");
            }
        }
    }
}
