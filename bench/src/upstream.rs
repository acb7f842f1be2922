//! An upstream that answers everything with one object that may be stored, on connections that stay, and counts what it is
//! asked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};

use crate::world::line::Line;

/// An upstream that runs until this program ends.
#[derive(Debug)]
pub(crate) struct Upstream {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Upstream {
    /// Starts one whose object has so many bytes.
    pub(crate) async fn start(length: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (address, asked) = (listener.local_addr()?, Arc::new(AtomicUsize::new(0)));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nCache-Control: max-age=3600\r\nSurrogate-Key: all\r\n\r\n");
        let mut answer = head.into_bytes();
        answer.resize(answer.len() + length, b'x');
        let (answer, counter): (Arc<[u8]>, _) = (answer.into(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&answer), Arc::clone(&counter)));
            }
        });
        Ok(Self { address, asked })
    }

    /// Returns the lines of a file that send `path` of a host here. A site of the same host answers before `/*`.
    pub(crate) fn routes(&self, host: &str, path: &str) -> String {
        format!(
            "[upstreams.u]\nservers = [\"http://{}\"]\n[routes.u]\nhosts = [\"{host}\"]\npath = \"{path}\"\nupstream = \"u\"\n",
            self.address
        )
    }

    /// Returns how often it was asked.
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }
}

async fn serve(stream: TcpStream, answer: Arc<[u8]>, asked: Arc<AtomicUsize>) -> io::Result<()> {
    let mut line = Line::new(stream)?;
    while line.head().await?.is_some() {
        asked.fetch_add(1, Ordering::AcqRel);
        line.send(&answer).await?;
    }
    Ok(())
}
