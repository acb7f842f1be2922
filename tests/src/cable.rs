//! A cable between a node and what it connects to. It keeps its near end's port when the far end moves to another one. It
//! can be cut: then what was connected breaks off, and nothing connects any more. And it can fall silent, as when a machine
//! at its end loses power: then connections stay, new ones are made, and nothing is carried.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Where a cable leads.
#[derive(Clone, Copy, Debug)]
enum Far {
    /// Nowhere: connections break off.
    Loose,
    /// To somebody who listens there.
    At(SocketAddr),
    /// Nobody knows: connections stay, and nothing passes.
    Silent,
}

/// A TCP forwarder.
#[derive(Clone, Debug)]
pub struct Cable {
    near: SocketAddr,
    far: Arc<watch::Sender<Far>>,
}

impl Cable {
    /// Lays a cable whose far end is loose.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn lay() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = listener.local_addr()?;
        let (far, plug) = watch::channel(Far::Loose);
        tokio::spawn(carry_all(listener, plug));
        Ok(Self { near, far: Arc::new(far) })
    }

    /// Returns the address of its near end.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.near
    }

    /// Returns the URL of its near end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.near)
    }

    /// Plugs its far end in; connections of before break off.
    pub fn plug(&self, far: SocketAddr) {
        self.far.send_replace(Far::At(far));
    }

    /// Cuts it; connections break off.
    pub fn cut(&self) {
        self.far.send_replace(Far::Loose);
    }

    /// Lets nothing pass any more, and tells nobody so.
    pub fn fall_silent(&self) {
        self.far.send_replace(Far::Silent);
    }
}

async fn carry_all(listener: TcpListener, plug: watch::Receiver<Far>) {
    while let Ok((near, _)) = listener.accept().await {
        // Whoever is at either end sees the connection end; there is nobody else to tell.
        tokio::spawn(carry(near, plug.clone()));
    }
}

async fn carry(mut near: TcpStream, mut plug: watch::Receiver<Far>) -> io::Result<()> {
    let far = *plug.borrow_and_update();
    let mut far = match far {
        Far::Loose => return Ok(()),
        Far::At(far) => TcpStream::connect(far).await?,
        // It stays as it is until something is plugged in or cut.
        Far::Silent => return plug.changed().await.map_err(io::Error::other),
    };
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::select! {
        carried = tokio::io::copy_bidirectional(&mut near, &mut far) => return carried.map(|_| ()),
        changed = plug.changed() => changed.map_err(io::Error::other)?,
    }
    let next = *plug.borrow_and_update();
    if matches!(next, Far::Silent) {
        // Both ends are still held.
        plug.changed().await.map_err(io::Error::other)?;
    }
    Ok(())
}
