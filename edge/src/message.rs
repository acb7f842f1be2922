//! A request and a response as the core knows them, whatever door they came through.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode};

use crate::door::{Exchange, Incoming};
use crate::normalise::Normalised;

/// Bytes that come as they come. Between the core and its doors everything can change threads.
pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A request as a door read it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) asked: Normalised,
    /// `None` where the request has no body.
    pub(crate) body: Option<Incoming>,
    /// Who is at the other end of the connection.
    pub(crate) peer: SocketAddr,
    /// Its way back to the client, before the answer.
    pub(crate) exchange: Arc<Exchange>,
}

/// A response as a door writes it.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// A response's body.
pub(crate) enum Body {
    /// None, as 204 and 304 have it.
    Empty,
    /// All of it.
    Whole(Bytes),
    /// A stream of this many bytes.
    Sized(u64, ByteStream),
    /// A stream whose end alone tells its length.
    Stream(ByteStream),
    /// None, but the head says how long it would be: an answer to HEAD.
    Head(u64),
    /// None, and the head does not say how long it would be: an answer to HEAD.
    Unknown,
}

impl Body {
    /// Returns the length, where it is known.
    pub(crate) fn len(&self) -> Option<u64> {
        match self {
            Self::Empty => Some(0),
            Self::Whole(bytes) => Some(bytes.len() as u64),
            Self::Sized(length, _) | Self::Head(length) => Some(*length),
            Self::Stream(_) | Self::Unknown => None,
        }
    }
}

impl Response {
    /// Returns a response with nothing but a status.
    pub(crate) fn new(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), body: Body::Empty }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("Empty"),
            Self::Whole(bytes) => write!(f, "Whole({} bytes)", bytes.len()),
            Self::Sized(length, _) => write!(f, "Sized({length} bytes)"),
            Self::Stream(_) => f.write_str("Stream"),
            Self::Unknown => f.write_str("Unknown"),
            Self::Head(length) => write!(f, "Head({length} bytes)"),
        }
    }
}
