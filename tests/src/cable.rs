//! A cable between a follower and its origin. It keeps its near end's port when the origin moves to another one, and it
//! can be cut: then what was connected breaks off, and nothing connects any more.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A TCP forwarder.
#[derive(Clone, Debug)]
pub struct Cable {
    near: SocketAddr,
    far: Arc<watch::Sender<Option<SocketAddr>>>,
}

impl Cable {
    /// Lays a cable whose far end is loose.
    ///
    /// # Errors
    /// Where no port can be had.
    pub async fn lay() -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let near = listener.local_addr()?;
        let (far, plug) = watch::channel(None);
        tokio::spawn(carry_all(listener, plug));
        Ok(Self { near, far: Arc::new(far) })
    }

    /// Returns the URL of its near end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.near)
    }

    /// Plugs its far end in; connections of before break off.
    pub fn plug(&self, far: SocketAddr) {
        self.far.send_replace(Some(far));
    }

    /// Cuts it; connections break off.
    pub fn cut(&self) {
        self.far.send_replace(None);
    }
}

async fn carry_all(listener: TcpListener, plug: watch::Receiver<Option<SocketAddr>>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut plug = plug.clone();
        tokio::spawn(async move {
            let far = *plug.borrow_and_update();
            let Some(far) = far else { return };
            tokio::select! {
                // Whoever is at either end sees the connection end; there is nobody else to tell.
                _ = carry(near, far) => {}
                _ = plug.changed() => {}
            }
        });
    }
}

async fn carry(mut near: TcpStream, far: SocketAddr) -> io::Result<()> {
    let mut far = TcpStream::connect(far).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::io::copy_bidirectional(&mut near, &mut far).await.map(|_| ())
}
