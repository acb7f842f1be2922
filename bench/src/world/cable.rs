//! A cable between an edge and the origin, where there are no network namespaces: what goes in comes out later, and while
//! the cable is cut nothing comes out. What was under way then comes out once it is mended, as TCP would send it again.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

/// Pieces that are under way in one direction, and the bytes of each: 1 MiB.
const PIECES: usize = 64;
const PIECE: usize = 16 << 10;

/// A TCP forwarder.
#[derive(Debug)]
pub(crate) struct Cable {
    near: SocketAddr,
    cut: watch::Sender<bool>,
}

/// What a cable does to what it carries.
#[derive(Clone, Debug)]
struct Carrier {
    far: SocketAddr,
    one_way: Duration,
    cut: watch::Receiver<bool>,
}

impl Cable {
    /// Lays a cable to `far`.
    pub(crate) async fn lay(far: SocketAddr, one_way: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = listener.local_addr()?;
        let cut = watch::Sender::new(false);
        tokio::spawn(carry_all(listener, Carrier { far, one_way, cut: cut.subscribe() }));
        Ok(Self { near, cut })
    }

    /// Returns the address of its near end.
    pub(crate) fn near(&self) -> SocketAddr {
        self.near
    }

    /// Cuts it, or mends it.
    pub(crate) fn set_cut(&self, cut: bool) {
        self.cut.send_replace(cut);
    }
}

async fn carry_all(listener: TcpListener, carrier: Carrier) {
    while let Ok((near, _)) = listener.accept().await {
        let carrier = carrier.clone();
        // Whoever is at either end sees the connection end; there is nobody else to tell.
        tokio::spawn(async move { carrier.carry(near).await.unwrap_or_default() });
    }
}

impl Carrier {
    async fn carry(mut self, near: TcpStream) -> io::Result<()> {
        // A connection is there after a round trip, and while the cable is cut it is not.
        tokio::time::sleep(self.one_way * 2).await;
        self.mended().await?;
        let far = TcpStream::connect(self.far).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let ((near_out, near_in), (far_out, far_in)) = (near.into_split(), far.into_split());
        // Neither side of HTTP/1.1 goes on when the other has closed.
        tokio::select! {
            ended = self.clone().carry_one_way(near_out, far_in) => ended,
            ended = self.clone().carry_one_way(far_out, near_in) => ended,
        }
    }

    async fn mended(&mut self) -> io::Result<()> {
        let mended = self.cut.wait_for(|cut| !*cut).await;
        mended.map(|_| ()).map_err(io::Error::other)
    }

    async fn carry_one_way(mut self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) -> io::Result<()> {
        let (sent, mut arriving) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
        let one_way = self.one_way;
        let send = async move {
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                if from.read_buf(&mut piece).await? == 0 || sent.send((Instant::now() + one_way, piece)).await.is_err() {
                    break;
                }
            }
            drop(sent);
            io::Result::Ok(())
        };
        let arrive = async move {
            while let Some((due, piece)) = arriving.recv().await {
                tokio::time::sleep_until(due).await;
                self.mended().await?;
                to.write_all(&piece).await?;
            }
            to.shutdown().await
        };
        tokio::try_join!(send, arrive).map(|_: ((), ())| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The far end, which says what it hears.
    async fn echo() -> io::Result<SocketAddr> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    tokio::io::copy(&mut from, &mut to).await.unwrap_or_default()
                });
            }
        });
        Ok(address)
    }

    #[tokio::test]
    async fn a_cable_delays_each_way_and_holds_what_was_under_way_while_it_is_cut() {
        let one_way = Duration::from_millis(30);
        let cable = Cable::lay(echo().await.unwrap(), one_way).await.unwrap();
        let mut stream = TcpStream::connect(cable.near()).await.unwrap();
        let mut heard = [0; 4];
        let begun = Instant::now();
        stream.write_all(b"ping").await.unwrap();
        stream.read_exact(&mut heard).await.unwrap();
        assert!(begun.elapsed() >= one_way * 2, "{:?}", begun.elapsed());

        cable.set_cut(true);
        stream.write_all(b"pong").await.unwrap();
        let while_cut = tokio::time::timeout(Duration::from_millis(200), stream.read_exact(&mut heard)).await;
        assert!(while_cut.is_err(), "{heard:?}");

        cable.set_cut(false);
        stream.read_exact(&mut heard).await.unwrap();
        assert_eq!(&heard, b"pong");
    }
}
