//! The sockets that a node serves on: handed over by the service manager, else bound by the node.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};

/// How many connections may wait to be accepted; the system has a bound of its own too.
const BACKLOG: i32 = 4096;

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
            None => beside_ipv4(address, |alone| bind_listener(address, alone)),
        }
    }

    /// Returns the socket for datagrams at an address: the one that was handed over, else a new one.
    ///
    /// # Errors
    /// Where the address is taken.
    pub fn datagrams(&mut self, address: SocketAddr) -> io::Result<UdpSocket> {
        match self.datagrams.iter().position(|handed| is_at(handed.local_addr(), address)) {
            Some(at) => Ok(self.datagrams.swap_remove(at)),
            None => beside_ipv4(address, |alone| bind_datagrams(address, alone)),
        }
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

/// `[::]` takes the connections of IPv4 too, unless somebody has `0.0.0.0` at the same port: then it is for IPv6 alone.
fn beside_ipv4<T>(address: SocketAddr, bind: impl Fn(bool) -> io::Result<T>) -> io::Result<T> {
    match bind(false) {
        Err(error) if error.kind() == ErrorKind::AddrInUse && address.is_ipv6() && address.ip().is_unspecified() => bind(true),
        bound => bound,
    }
}

fn bind_listener(address: SocketAddr, alone: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of a process before that linger are no reason not to start.
    socket.set_reuse_address(true)?;
    if alone {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn bind_datagrams(address: SocketAddr, alone: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if alone {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn a_socket_that_was_handed_over_serves_the_address_that_it_is_bound_to() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let (listener, datagrams) = (TcpListener::bind(any).unwrap(), UdpSocket::bind(any).unwrap());
        let (tcp, udp) = (listener.local_addr().unwrap(), datagrams.local_addr().unwrap());
        let mut sockets = Sockets::new(vec![listener], vec![datagrams]);

        assert_eq!(sockets.left(), [tcp, udp]);
        // They are bound already: binding them once more would fail.
        assert_eq!(sockets.listen(tcp).unwrap().local_addr().unwrap(), tcp);
        assert_eq!(sockets.left(), [udp]);
        assert_eq!(sockets.datagrams(udp).unwrap().local_addr().unwrap(), udp);
        assert!(sockets.left().is_empty());
        assert_ne!(sockets.listen(any).unwrap().local_addr().unwrap(), tcp);
    }

    #[test]
    fn both_families_may_have_one_port_and_ipv6_alone_takes_both() {
        let (four, six) = ((Ipv4Addr::UNSPECIFIED, 0), Ipv6Addr::UNSPECIFIED);
        let mut sockets = Sockets::default();
        let listener = sockets.listen(four.into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let other = sockets.listen((six, port).into()).unwrap();
        assert_eq!(sockets.listen((six, port).into()).unwrap_err().kind(), ErrorKind::AddrInUse);
        drop((listener, other));

        let both = sockets.listen((six, 0).into()).unwrap();
        let port = both.local_addr().unwrap().port();
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();

        let datagrams = sockets.datagrams(four.into()).unwrap();
        sockets.datagrams((six, datagrams.local_addr().unwrap().port()).into()).unwrap();
    }
}
