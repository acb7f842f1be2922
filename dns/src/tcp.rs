//! The TCP door (RFC 7766): any number of questions on a connection, answered in their order, and room kept for new clients.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    answer::{self, Transport},
    metrics::Metrics,
    view::View,
};

/// How long a connection may go without a whole question, in the tenths of seconds that clients are told it in (RFC 7828).
pub(crate) const IDLE_TENTHS: u16 = 100;
const IDLE: Duration = Duration::from_millis(IDLE_TENTHS as u64 * 100);
/// A client that does not read its answers holds a buffer of ours.
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// Out of file descriptors, accepting fails at once, again and again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(50);

/// How many connections may be open. For a new one beyond that, the one that was silent for the longest time is closed.
#[derive(Debug, Clone, Copy)]
struct Limits {
    in_all: usize,
    per_client: usize,
}

/// Each costs some 10 KiB and a descriptor; no resolver needs more than a handful at once.
const LIMITS: Limits = Limits { in_all: 1024, per_client: 32 };

#[derive(Debug)]
struct Door {
    view: Arc<ArcSwap<View>>,
    metrics: Arc<Metrics>,
    book: Mutex<Book>,
}

/// Answers what comes to a bound listener until told to stop; then each connection ends after the answer in hand.
pub(crate) async fn serve(listener: TcpListener, view: Arc<ArcSwap<View>>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let book = Mutex::new(Book::new(LIMITS));
    let door = Arc::new(Door { view, metrics, book });
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, from)) => {
                let seat = Seat::take(&door, from.ip(), stop.child_token());
                connections.spawn(converse(stream, from, seat));
            }
            Err(error) => {
                tracing::warn!(%error, "failed to accept a connection");
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
    connections.close();
    connections.wait().await;
}

/// Answers one connection's questions, one after the other, which keeps their order and what they may hold of our memory.
async fn converse(stream: TcpStream, from: SocketAddr, seat: Seat) {
    // An answer is one small write, and the client waits for it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, client = %from, "failed to turn off delays");
    }
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut packet = Vec::new();
    let mut rotation = seat.number;
    loop {
        let read = tokio::select! {
            () = seat.close.cancelled() => return,
            read = timeout(IDLE, read_message(&mut reader, &mut packet)) => read,
        };
        // Silent for too long, or gone: both are how a connection ends.
        let Ok(Ok(())) = read else {
            return;
        };
        seat.touch();
        rotation = rotation.wrapping_add(1);
        let Some(framed) = seat.door.answer(&packet, from, rotation) else {
            return;
        };
        let Ok(Ok(())) = timeout(WRITE_WITHIN, writer.write_all(&framed)).await else {
            return;
        };
    }
}

/// Reads one message behind its two octets of length, in however many segments it comes.
async fn read_message(reader: &mut (impl AsyncRead + Unpin), packet: &mut Vec<u8>) -> io::Result<()> {
    let length = reader.read_u16().await?;
    packet.resize(usize::from(length), 0);
    reader.read_exact(packet).await?;
    Ok(())
}

impl Door {
    /// Returns the answer behind its length, or `None` where the connection has nothing more to say.
    fn answer(&self, packet: &[u8], from: SocketAddr, rotation: usize) -> Option<Vec<u8>> {
        let reply = answer::reply(&self.view.load(), packet, from, Transport::Tcp, rotation);
        self.metrics.count(Transport::Tcp, reply.as_ref().map(|reply| reply.rcode));
        let bytes = reply?.bytes;
        let length = u16::try_from(bytes.len()).ok()?;
        Some([&length.to_be_bytes()[..], &bytes].concat())
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // The book is whole after every step, so a panic elsewhere does not spoil it.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's place in the book, given back when it ends, however it ends.
#[derive(Debug)]
struct Seat {
    door: Arc<Door>,
    number: usize,
    close: CancellationToken,
}

impl Seat {
    fn take(door: &Arc<Door>, client: IpAddr, close: CancellationToken) -> Self {
        let (number, closed) = door.book().admit(client.to_canonical(), close.clone(), Instant::now());
        for _ in 0..closed {
            door.metrics.count_closed_for_room();
        }
        Self { door: Arc::clone(door), number, close }
    }

    fn touch(&self) {
        self.door.book().touch(self.number, Instant::now());
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.door.book().leave(self.number);
    }
}

/// Who is connected, and since when each is silent.
#[derive(Debug)]
struct Book {
    limits: Limits,
    open: BTreeMap<usize, Open>,
    next: usize,
}

#[derive(Debug)]
struct Open {
    client: IpAddr,
    active: Instant,
    close: CancellationToken,
}

impl Book {
    fn new(limits: Limits) -> Self {
        Self { limits, open: BTreeMap::new(), next: 0 }
    }

    /// Enters a connection; returns its number, and how many were closed for it: a client's own before those of others.
    fn admit(&mut self, client: IpAddr, close: CancellationToken, now: Instant) -> (usize, usize) {
        let mut closed = 0;
        let of_client = self.open.values().filter(|open| open.client == client).count();
        if of_client >= self.limits.per_client {
            closed += self.close_the_most_silent(|open| open.client == client);
        }
        if self.open.len() >= self.limits.in_all {
            closed += self.close_the_most_silent(|_| true);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let open = Open { client, active: now, close };
        self.open.insert(number, open);
        (number, closed)
    }

    fn touch(&mut self, number: usize, now: Instant) {
        if let Some(open) = self.open.get_mut(&number) {
            open.active = now;
        }
    }

    fn leave(&mut self, number: usize) {
        self.open.remove(&number);
    }

    fn close_the_most_silent(&mut self, among: impl Fn(&Open) -> bool) -> usize {
        let candidates = self.open.iter().filter(|(_, open)| among(open));
        let silent = candidates.min_by_key(|(_, open)| open.active).map(|(number, _)| *number);
        let Some(open) = silent.and_then(|number| self.open.remove(&number)) else {
            return 0;
        };
        open.close.cancel();
        1
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinHandle;

    use super::*;
    use crate::testing::{edge, question, view};

    async fn door() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let view = Arc::new(ArcSwap::from_pointee(view(vec![edge("fra-1", "fra", "192.0.2.1")])));
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, view, Arc::new(Metrics::default()), stop.clone()));
        (address, stop, serving)
    }

    fn framed(packet: &[u8]) -> Vec<u8> {
        let length = u16::try_from(packet.len()).unwrap();
        [&length.to_be_bytes()[..], packet].concat()
    }

    #[tokio::test]
    async fn pipelined_and_split_questions_are_all_answered_in_their_order() {
        let (address, stop, serving) = door().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.set_nodelay(true).unwrap();
        let mut second = question("example.test", 1);
        second[0] = 0x99;
        let sent = [framed(&question("www.example.test", 1)), framed(&second)].concat();

        for segment in sent.chunks(7) {
            client.write_all(segment).await.unwrap();
            sleep(Duration::from_millis(2)).await;
        }
        client.write_all(&sent).await.unwrap();

        let mut packet = Vec::new();
        for first_octet in [0x12, 0x99, 0x12, 0x99] {
            read_message(&mut client, &mut packet).await.unwrap();
            assert_eq!(packet[0], first_octet);
            assert!(packet.ends_with(&[192, 0, 2, 1]));
        }
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_message_that_gets_no_reply_ends_the_connection() {
        let (address, stop, serving) = door().await;
        let mut client = TcpStream::connect(address).await.unwrap();

        client.write_all(&framed(b"stump")).await.unwrap();

        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
        stop.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn stopping_ends_idle_connections_at_once() {
        let (address, stop, serving) = door().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(&framed(&question("www.example.test", 1))).await.unwrap();
        read_message(&mut client, &mut Vec::new()).await.unwrap();

        stop.cancel();

        timeout(Duration::from_secs(5), serving).await.unwrap().unwrap();
        assert_eq!(client.read(&mut [0; 16]).await.unwrap(), 0);
    }

    #[test]
    fn the_most_silent_connection_makes_room_for_a_new_one() {
        let mut book = Book::new(Limits { in_all: 3, per_client: 2 });
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let clients = [1, 1, 2, 3].map(|last| IpAddr::from([192, 0, 2, last]));
        let closes: Vec<CancellationToken> = clients.iter().map(|_| CancellationToken::new()).collect();

        for (number, (client, close)) in clients.into_iter().zip(&closes).take(3).enumerate() {
            assert_eq!(book.admit(client, close.clone(), after(0)), (number, 0));
        }
        book.touch(0, after(1));
        book.touch(1, after(2));
        let of_another = book.admit(clients[3], closes[3].clone(), after(3));
        book.leave(3);
        let of_the_first = book.admit(clients[0], CancellationToken::new(), after(4));

        assert_eq!((of_another, of_the_first), ((3, 1), (4, 1)));
        let closed: Vec<bool> = closes.iter().map(CancellationToken::is_cancelled).collect();
        assert_eq!(closed, [true, false, true, false]);
    }
}
