//! An upstream that follows a script: a function from the request that was seen to the reply. It counts what it was asked,
//! and a gate can hold a reply for as long as a scenario wants a fetch to be under way.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its method.
    pub method: String,
    /// What stood in its request line.
    pub target: String,
    /// Its fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The how-manieth of this method and target it is, from 1.
    pub number: usize,
}

impl Seen {
    /// Returns a field's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// What is held stays until it is opened.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Returns a gate that is closed.
    #[must_use]
    pub fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// Opens it for good.
    pub fn open(&self) {
        self.0.send_replace(true);
    }

    /// Waits until it is open.
    pub async fn passed(&self) {
        // The sender lives as long as the gate.
        let _ = self.0.subscribe().wait_for(|open| *open).await;
    }
}

/// A reply.
#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    delay: Duration,
    held_head: Option<Gate>,
    held_body: Option<Gate>,
    verbatim: Option<Vec<u8>>,
}

impl Reply {
    /// Returns a reply of exactly these bytes, after which the connection is closed; none are no answer at all.
    #[must_use]
    pub fn verbatim(bytes: impl Into<Vec<u8>>) -> Self {
        Self { verbatim: Some(bytes.into()), ..Self::plain(200, "") }
    }

    /// Returns a reply that may be kept for a minute.
    #[must_use]
    pub fn fresh(body: impl Into<Vec<u8>>) -> Self {
        Self::plain(200, body).with("Cache-Control", "max-age=60")
    }

    /// Returns a reply that says nothing about keeping it.
    #[must_use]
    pub fn plain(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let (headers, body) = (Vec::new(), body.into());
        Self { status, headers, body, delay: Duration::ZERO, held_head: None, held_body: None, verbatim: None }
    }

    /// Adds a field; one of the same name stays beside it.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Waits before the head, so that answers overtake each other.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Waits for a gate before the head.
    #[must_use]
    pub fn held(mut self, gate: &Gate) -> Self {
        self.held_head = Some(gate.clone());
        self
    }

    /// Waits for a gate in the middle of the body.
    #[must_use]
    pub fn held_in_body(mut self, gate: &Gate) -> Self {
        self.held_body = Some(gate.clone());
        self
    }

    fn head(&self) -> String {
        let fields: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let length = if matches!(self.status, 204 | 304) { String::new() } else { format!("Content-Length: {}\r\n", self.body.len()) };
        format!("HTTP/1.1 {} Scripted\r\nConnection: close\r\n{length}{fields}\r\n", self.status)
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

struct Inner {
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
}

/// The upstream. Clones share it.
#[derive(Clone)]
pub struct Upstream {
    address: SocketAddr,
    inner: Arc<Inner>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Upstream({}, {} requests)", self.address, self.lock().len())
    }
}

impl Upstream {
    /// Starts an upstream that answers by `script`.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn start(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let upstream =
            Self { address: listener.local_addr()?, inner: Arc::new(Inner { seen: Mutex::default(), script: Box::new(script) }) };
        let accepting = upstream.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let serving = accepting.clone();
                // An edge that leaves in the middle is no fault of the upstream.
                tokio::spawn(async move { serving.serve(stream).await.unwrap_or_default() });
            }
        });
        Ok(upstream)
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Seen>> {
        self.inner.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns every request for a target, in the order in which they came.
    #[must_use]
    pub fn seen(&self, target: &str) -> Vec<Seen> {
        self.lock().iter().filter(|seen| seen.target == target).cloned().collect()
    }

    /// Returns how often a target was asked for with GET.
    #[must_use]
    pub fn count(&self, target: &str) -> usize {
        self.lock().iter().filter(|seen| seen.method == "GET" && seen.target == target).count()
    }

    async fn serve(&self, mut stream: TcpStream) -> io::Result<()> {
        let Some((method, target, headers)) = read(&mut stream).await? else { return Ok(()) };
        let seen = {
            let mut all = self.lock();
            let number = all.iter().filter(|seen| seen.method == method && seen.target == target).count() + 1;
            let seen = Seen { method, target, headers, number };
            all.push(seen.clone());
            seen
        };
        let reply = (self.inner.script)(&seen);
        tokio::time::sleep(reply.delay).await;
        if let Some(gate) = &reply.held_head {
            gate.passed().await;
        }
        if let Some(bytes) = &reply.verbatim {
            stream.write_all(bytes).await?;
            return stream.shutdown().await;
        }
        stream.write_all(reply.head().as_bytes()).await?;
        if seen.method != "HEAD" && !matches!(reply.status, 204 | 304) {
            let (first, rest) = reply.body.split_at(reply.body.len() / 2);
            stream.write_all(first).await?;
            stream.flush().await?;
            if let Some(gate) = &reply.held_body {
                gate.passed().await;
            }
            stream.write_all(rest).await?;
        }
        stream.shutdown().await
    }
}

type Head = (String, String, Vec<(String, String)>);

/// Reads a request and lets its body go.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Head>> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 16 << 10]);
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend(buffer.iter().take(read));
    };
    let head = String::from_utf8_lossy(bytes.get(..end).unwrap_or_default()).into_owned();
    let mut lines = head.lines();
    let mut words = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let fields = lines.filter_map(|line| line.split_once(':'));
    let headers: Vec<_> = fields.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
    let field = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.as_str());
    let length: usize = field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let chunked = field("transfer-encoding").is_some();
    let is_whole = |body: &[u8]| if chunked { body.ends_with(b"0\r\n\r\n") } else { body.len() >= length };
    while !is_whole(bytes.get(end..).unwrap_or_default()) {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        bytes.extend(buffer.iter().take(read));
    }
    Ok(Some((method, target, headers)))
}
