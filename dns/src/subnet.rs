//! The client subnet that a resolver may send with a question (RFC 7871), and its echo in the reply.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// The option's code in an OPT record.
pub(crate) const CODE: u16 = 8;

/// A client subnet that passed every check: so writing it again gives FAMILY, SOURCE and ADDRESS bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subnet(IpNet);

impl Subnet {
    /// Reads the option's value. Nothing lenient here: a resolver that got an answer for a malformed subnet would keep it
    /// for clients that it was not meant for.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let [family_high, family_low, source, scope, address @ ..] = value else {
            return None;
        };
        if *scope != 0 || address.len() != octets(*source) {
            return None;
        }
        let mut padded = [0; 16];
        padded.get_mut(..address.len())?.copy_from_slice(address);
        let [a, b, c, d, ..] = padded;
        let address = match u16::from_be_bytes([*family_high, *family_low]) {
            1 => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            2 => IpAddr::V6(Ipv6Addr::from(padded)),
            _ => return None,
        };
        // Fails where SOURCE is longer than the family's addresses.
        let network = IpNet::new(address, *source).ok()?;
        (network.network() == address).then_some(Self(network))
    }

    /// Returns the subnet that stands for one client, as if a resolver had sent its whole address.
    pub(crate) fn of_client(address: IpAddr) -> Self {
        Self(IpNet::from(address))
    }

    /// Returns the subnet's first address; bits past SOURCE are zero.
    pub(crate) fn address(&self) -> IpAddr {
        self.0.addr()
    }

    /// Returns how many bits of the client's address the resolver was willing to tell.
    pub(crate) fn source(&self) -> u8 {
        self.0.prefix_len()
    }

    /// Appends the whole option, with the SCOPE that the answer is right for.
    pub(crate) fn write(&self, scope: u8, out: &mut Vec<u8>) {
        let (family, address) = match self.address() {
            IpAddr::V4(address) => (1_u16, address.octets().to_vec()),
            IpAddr::V6(address) => (2_u16, address.octets().to_vec()),
        };
        let told = address.into_iter().take(octets(self.source()));
        let length = u16::from(self.source().div_ceil(8)) + 4;
        out.extend(CODE.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(family.to_be_bytes());
        out.extend([self.source(), scope.min(self.0.max_prefix_len())]);
        out.extend(told);
    }
}

fn octets(bits: u8) -> usize {
    usize::from(bits.div_ceil(8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_subnets_are_refused() {
        let cases: [(&str, &[u8]); 11] = [
            ("empty", &[]),
            ("cut inside the head", &[0, 1, 24]),
            ("family 0", &[0, 0, 0, 0]),
            ("family 3", &[0, 3, 8, 0, 10]),
            ("source over 32", &[0, 1, 33, 0, 1, 2, 3, 4, 0]),
            ("source over 128", &[0, 2, 129, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 0]),
            ("too few octets", &[0, 1, 24, 0, 1, 2]),
            ("too many octets", &[0, 1, 24, 0, 1, 2, 3, 0]),
            ("a bit past source", &[0, 1, 20, 0, 1, 2, 0x18]),
            ("a scope in a query", &[0, 1, 24, 24, 1, 2, 3]),
            ("octets without source", &[0, 1, 0, 0, 1]),
        ];
        for (what, value) in cases {
            assert_eq!(Subnet::read(value), None, "{what}");
        }
    }

    #[test]
    fn a_subnet_is_echoed_bit_for_bit_with_the_scope() {
        let cases: [&[u8]; 5] = [
            &[0, 1, 0, 0],
            &[0, 1, 20, 0, 1, 2, 0x10],
            &[0, 1, 32, 0, 192, 0, 2, 1],
            &[0, 2, 0, 0],
            &[0, 2, 56, 0, 0x20, 0x01, 0x0d, 0xb8, 0, 1, 2],
        ];
        for value in cases {
            let mut out = Vec::new();

            Subnet::read(value).unwrap().write(17, &mut out);

            let mut expected = vec![0, 8, 0, u8::try_from(value.len()).unwrap()];
            expected.extend(value);
            expected[7] = 17;
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn a_scope_never_exceeds_its_family() {
        let mut out = Vec::new();

        Subnet::of_client("192.0.2.1".parse().unwrap()).write(120, &mut out);

        assert_eq!(out[7], 32);
    }
}
