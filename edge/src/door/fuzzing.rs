//! A connection's bytes without a socket, for the fuzz target: whatever they are and however they are cut, they
//! are read as the same requests.

use bytes::{Buf as _, BytesMut};

use super::framing::{self, Reader};
use super::head::{self, Scan};
use crate::normalise::{Normalised, normalise};

/// What came of a connection's bytes: the requests, and whether it ended in a refusal. Which refusal may depend
/// on how much of what is wrong had come.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    requests: Vec<(String, Vec<u8>)>,
    is_refused: bool,
}

/// Reads a connection's bytes at once and in pieces, and asserts that both come to the same.
pub(crate) fn connection(bytes: &[u8]) {
    let whole = hear([bytes].into_iter());
    for size in [1, 7] {
        assert_eq!(hear(bytes.chunks(size)), whole, "in pieces of {size}");
    }
}

fn hear<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut heard = Heard { requests: Vec::new(), is_refused: false };
    let (mut bytes, mut scan, mut body) = (BytesMut::new(), Scan::default(), None::<Reader>);
    for piece in pieces {
        bytes.extend_from_slice(piece);
        if step(&mut heard, &mut bytes, &mut scan, &mut body).is_err() {
            heard.is_refused = true;
            // How much of a body that was refused had been read is nobody's business.
            if body.is_some() {
                heard.requests.pop();
            }
            break;
        }
    }
    heard
}

fn step(heard: &mut Heard, bytes: &mut BytesMut, scan: &mut Scan, body: &mut Option<Reader>) -> Result<(), crate::refuse::Refusal> {
    loop {
        if let Some(reader) = body {
            while let Some(content) = reader.next(bytes, 1024)? {
                if let Some((_, told)) = heard.requests.last_mut() {
                    told.extend_from_slice(&content);
                }
            }
            if !reader.is_done() {
                return Ok(());
            }
            *body = None;
        }
        let Some(found) = scan.find(bytes)? else { return Ok(()) };
        let head = head::parse(found)?;
        bytes.advance(scan.end());
        *scan = Scan::default();
        let frame = framing::of(head.version, &head.headers)?;
        let asked = match normalise(&head.method, &head.target, head.headers)? {
            Normalised::Ask(ask) => format!("{} {}{}", ask.method, ask.host, ask.target),
            Normalised::OptionsOfServer => "OPTIONS *".to_owned(),
        };
        heard.requests.push((asked, Vec::new()));
        *body = Some(Reader::new(frame.body));
    }
}
