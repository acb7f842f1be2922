//! A connection that speaks HTTP/1.1 head by head: enough for what bench asks and answers itself.

use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What is read at a time.
const PIECE: usize = 4 << 10;

/// A connection, and what was read of it and not taken yet.
#[derive(Debug)]
pub(crate) struct Line {
    stream: TcpStream,
    heard: Vec<u8>,
}

/// The head of a request or of an answer.
#[derive(Clone, Debug)]
pub(crate) struct Head(String);

impl Head {
    /// Returns a word of the first line, counted from 0.
    pub(crate) fn word(&self, number: usize) -> &str {
        self.0.lines().next().and_then(|first| first.split(' ').nth(number)).unwrap_or_default()
    }

    /// Returns a field's value.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.0.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }
}

impl Line {
    /// Takes a connection.
    pub(crate) fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, heard: Vec::new() })
    }

    /// Sends bytes.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Returns the next head, or nothing where the other side has closed.
    pub(crate) async fn head(&mut self) -> io::Result<Option<Head>> {
        loop {
            if let Some(at) = self.heard.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.heard.drain(..at + 4).collect();
                return Ok(Some(Head(String::from_utf8_lossy(&head).into_owned())));
            }
            if !self.more().await? {
                return Ok(None);
            }
        }
    }

    /// Returns a body of a length that is known.
    pub(crate) async fn body(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.heard.len() < length {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.heard.drain(..length).collect())
    }

    async fn more(&mut self) -> io::Result<bool> {
        self.heard.reserve(PIECE);
        Ok(self.stream.read_buf(&mut self.heard).await? > 0)
    }
}
