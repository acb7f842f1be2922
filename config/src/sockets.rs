//! The sockets that a node serves on: handed over by the service manager, else bound by the node.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

/// Sockets that were bound before the node started, each of which serves the address that it is bound to. So they need
/// no names, and a restart of the node refuses nobody: the service manager keeps them open.
#[derive(Debug, Default)]
pub struct Sockets {
    listeners: Vec<TcpListener>,
    datagrams: Vec<UdpSocket>,
}

impl Sockets {
    /// Takes what was handed over.
    #[must_use]
    pub fn new(listeners: Vec<TcpListener>, datagrams: Vec<UdpSocket>) -> Self {
        Self { listeners, datagrams }
    }

    /// Returns the listener for an address: the one that was handed over, else a new one.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn listen(&mut self, address: SocketAddr) -> io::Result<TcpListener> {
        match self.listeners.iter().position(|handed| is_at(handed.local_addr(), address)) {
            Some(at) => Ok(self.listeners.swap_remove(at)),
            None => TcpListener::bind(address),
        }
    }

    /// Returns the socket for datagrams at an address, where one was handed over.
    pub fn datagrams(&mut self, address: SocketAddr) -> Option<UdpSocket> {
        let at = self.datagrams.iter().position(|handed| is_at(handed.local_addr(), address))?;
        Some(self.datagrams.swap_remove(at))
    }

    /// Tells whether no listener was handed over for an address.
    #[must_use]
    pub fn lacks_listener(&self, address: SocketAddr) -> bool {
        !self.listeners.iter().any(|handed| is_at(handed.local_addr(), address))
    }

    /// Returns the addresses of all that nobody has taken.
    #[must_use]
    pub fn left(&self) -> Vec<SocketAddr> {
        let listeners = self.listeners.iter().map(TcpListener::local_addr);
        listeners.chain(self.datagrams.iter().map(UdpSocket::local_addr)).filter_map(Result::ok).collect()
    }
}

fn is_at(handed: io::Result<SocketAddr>, address: SocketAddr) -> bool {
    handed.is_ok_and(|handed| handed == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_was_handed_over_serves_the_address_that_it_is_bound_to() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, datagrams) = (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let (tcp, udp) = (listener.local_addr().unwrap(), datagrams.local_addr().unwrap());
        let mut sockets = Sockets::new(vec![listener], vec![datagrams]);

        assert_eq!(sockets.left(), [tcp, udp]);
        assert!(sockets.lacks_listener(udp) && !sockets.lacks_listener(tcp));
        // It is bound already: binding it once more would fail.
        assert_eq!(sockets.listen(tcp).unwrap().local_addr().unwrap(), tcp);
        assert!(sockets.datagrams(tcp).is_none() || tcp == udp);
        assert_eq!(sockets.left(), [udp]);
        assert_ne!(sockets.listen(any).unwrap().local_addr().unwrap(), tcp);
    }
}
