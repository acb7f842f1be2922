//! Who may come in: caps on connections, in all and for one address (http.md 33).

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use config::EdgeNode;
use ipnet::IpNet;

/// Who is in.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    seated: Mutex<Seated>,
}

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caps<'a> {
    pub(crate) most: u64,
    pub(crate) most_per_address: u64,
    /// Addresses that speak for many: their number is not the number of one client.
    pub(crate) trusted: &'a [IpNet],
}

impl<'a> Caps<'a> {
    pub(crate) fn of(node: &'a EdgeNode) -> Self {
        Self { most: node.max_connections, most_per_address: node.max_connections_per_address, trusted: &node.trusted_proxies }
    }
}

#[derive(Debug, Default)]
struct Seated {
    all: u64,
    by_address: HashMap<IpAddr, u64>,
}

/// The right to one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Seat {
    admission: Arc<Admission>,
    address: Option<IpAddr>,
}

impl Admission {
    fn lock(&self) -> MutexGuard<'_, Seated> {
        self.seated.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a seat for a client, where there is one left.
    pub(crate) fn admit(self: &Arc<Self>, peer: IpAddr, caps: Caps<'_>) -> Option<Seat> {
        // This machine itself is a proxy or a test, never a crowd of strangers' connections.
        let is_exempt = peer.is_loopback() || caps.trusted.iter().any(|network| network.contains(&peer));
        let address = (!is_exempt).then(|| of_one_client(peer));
        let mut seated = self.lock();
        if seated.all >= caps.most {
            return None;
        }
        if let Some(address) = address {
            let taken = seated.by_address.entry(address).or_default();
            if *taken >= caps.most_per_address {
                return None;
            }
            *taken += 1;
        }
        seated.all += 1;
        Some(Seat { admission: Arc::clone(self), address })
    }
}

/// An IPv6 client has a whole /64 to itself.
fn of_one_client(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seated = self.admission.lock();
        seated.all -= 1;
        let Some(address) = self.address else { return };
        if let Some(taken) = seated.by_address.get_mut(&address) {
            *taken -= 1;
            if *taken == 0 {
                seated.by_address.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_33_connections_are_capped_per_address_and_in_all() {
        let (admission, proxies) = (Arc::new(Admission::default()), ["192.0.2.9/32".parse().unwrap()]);
        let caps = Caps { most: 4, most_per_address: 2, trusted: &proxies };
        let admit = |peer: &str| admission.admit(peer.parse().unwrap(), caps);
        let first = admit("2001:db8::1").unwrap();
        let _second = admit("2001:db8::2").unwrap();
        assert!(admit("2001:db8::3").is_none(), "one /64 is one client");
        let _third = admit("2001:db8:0:1::1").unwrap();
        drop(first);
        let _again = admit("2001:db8::3").unwrap();
        let _proxy = admit("192.0.2.9").unwrap();
        assert!(admit("127.0.0.1").is_none(), "all seats are taken");
        drop((_second, _again));
        assert_eq!(admission.lock().by_address.len(), 1, "who is gone is forgotten");
        let _proxies: Vec<_> = (0..2).map(|_| admit("192.0.2.9").unwrap()).collect();
    }
}
