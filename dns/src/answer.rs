//! One question's way, top to bottom: parse, find the name, locate the client, rank the regions, write. No socket, no clock.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
};

use crate::{
    locate::locate,
    query::{self, Ask, Edns, Verdict},
    rank::{self, Family},
    records::{Data, RrSet, TYPE_A, TYPE_AAAA, TYPE_NS},
    view::View,
    write::{self, Draft, Rcode, Reply, UDP_LIMIT},
    zone::{Found, Zone},
};

/// How many aliases are followed inside a zone; a resolver follows the rest.
const MAX_ALIASES: usize = 8;
/// What a client without EDNS takes (RFC 1035, section 4.2.1); EDNS can't make it less.
const PLAIN_UDP_LIMIT: u16 = 512;

/// How a question came, which decides how long its answer may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Transport {
    /// One datagram each way.
    Udp,
    /// A stream of messages, each behind its length.
    Tcp,
}

/// Answers one packet with bytes alone.
#[cfg(test)]
pub(crate) fn answer(view: &View, packet: &[u8], from: SocketAddr, transport: Transport, rotation: usize) -> Option<Vec<u8>> {
    reply(view, packet, from, transport, rotation).map(|reply| reply.bytes)
}

/// Answers one packet, or returns `None` for one that gets no reply. `rotation` chooses which address comes first; the
/// reply says how it is to be counted.
pub(crate) fn reply(view: &View, packet: &[u8], from: SocketAddr, transport: Transport, rotation: usize) -> Option<Reply> {
    let mut ask = match query::parse(packet) {
        Ok(ask) => ask,
        Err(Verdict::Drop) => return None,
        Err(Verdict::Reply(reply)) => return Some(reply),
    };
    let limit = limit(transport, ask.envelope.edns.as_ref());
    if let Some(edns) = &mut ask.envelope.edns {
        edns.keepalive &= transport == Transport::Tcp;
    }
    let draft = decide(view, &ask, from, rotation);
    Some(write::reply(&ask.envelope, &draft, limit))
}

fn limit(transport: Transport, edns: Option<&Edns>) -> usize {
    let limit = match (transport, edns) {
        (Transport::Tcp, _) => u16::MAX,
        (Transport::Udp, Some(edns)) => edns.payload.clamp(PLAIN_UDP_LIMIT, UDP_LIMIT),
        (Transport::Udp, None) => PLAIN_UDP_LIMIT,
    };
    usize::from(limit)
}

fn decide<'v>(view: &'v View, ask: &Ask<'_>, from: SocketAddr, rotation: usize) -> Draft<'v> {
    let Some(zone) = view.zone_of(&ask.name) else {
        return Draft::new(Rcode::Refused, false);
    };
    let mut draft = Draft::new(Rcode::NoError, true);
    let mut name = ask.name.clone();
    for _ in 0..=MAX_ALIASES {
        match zone.find(&name, ask.kind) {
            Found::Records(set) => {
                draft.additional = glue(zone, set);
                draft.answers.push((name, Cow::Borrowed(set)));
                return draft;
            }
            Found::Alias(set, target) => {
                draft.answers.push((name, Cow::Borrowed(set)));
                let is_inside = view.zone_of(target).is_some_and(|other| other.apex == zone.apex);
                let is_loop = draft.answers.iter().any(|(owner, _)| owner == target);
                if is_loop || !is_inside {
                    return draft;
                }
                name = target.clone();
            }
            Found::Steered(family) => {
                let Some((addresses, scope)) = nearest(view, ask, from, family, rotation) else {
                    return without_addresses(view, zone, draft);
                };
                draft.answers.push((name, Cow::Owned(address_set(family, zone.ttl, addresses))));
                draft.scope = scope;
                return draft;
            }
            Found::NoData => return deny(zone, Rcode::NoError, draft),
            Found::NxDomain => return deny(zone, Rcode::NxDomain, draft),
        }
    }
    draft
}

/// Finds the addresses of the nearest live region, and the SCOPE that they are right for.
fn nearest(view: &View, ask: &Ask<'_>, from: SocketAddr, family: Family, rotation: usize) -> Option<(Vec<IpAddr>, u8)> {
    let subnet = ask.envelope.edns.as_ref().and_then(|edns| edns.subnet.as_ref());
    let located = locate(&view.network.table, view.places.as_deref(), subnet, from.ip());
    let ranked = rank::rank(&view.network.regions, &located.place);
    let choice = rank::choose(&ranked, &view.live, &view.last_known, family, rotation)?;
    Some((choice.addresses, located.scope))
}

fn address_set(family: Family, ttl: u32, addresses: Vec<IpAddr>) -> RrSet {
    let kind = match family {
        Family::V4 => TYPE_A,
        Family::V6 => TYPE_AAAA,
    };
    let data = addresses.into_iter().map(Data::from).collect();
    RrSet { kind, ttl, data }
}

/// No region has ever had an address of the family asked for: the same for every client, so that it may be said. A node
/// that has heard of no edge at all knows nothing, and must not have that kept.
fn without_addresses<'v>(view: &View, zone: &'v Zone, draft: Draft<'v>) -> Draft<'v> {
    if view.last_known.is_empty() {
        return Draft::new(Rcode::ServFail, false);
    }
    deny(zone, Rcode::NoError, draft)
}

fn deny<'v>(zone: &'v Zone, rcode: Rcode, mut draft: Draft<'v>) -> Draft<'v> {
    draft.rcode = rcode;
    draft.authority.push((zone.apex.clone(), Cow::Borrowed(&zone.denial)));
    draft
}

/// Returns the addresses of the nameservers that an answer names.
fn glue<'v>(zone: &'v Zone, set: &RrSet) -> Vec<write::Owned<'v>> {
    let nameservers = set.data.iter().filter(|_| set.kind == TYPE_NS);
    nameservers
        .filter_map(|data| match data {
            Data::Name(nameserver) => Some(nameserver),
            _ => None,
        })
        .flat_map(|nameserver| zone.glue(nameserver).map(move |set| (nameserver.clone(), Cow::Borrowed(set))))
        .collect()
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, ResponseCode};
    use wire::LiveEdge;

    use super::*;
    use crate::{
        records::{TYPE_ANY, TYPE_CNAME, TYPE_SOA, TYPE_TXT},
        testing::{edge, question, subnet_option, view, with_opt},
    };

    const TYPE_MX: u16 = 15;

    fn live() -> Vec<LiveEdge> {
        vec![edge("fra-1", "fra", "192.0.2.1"), edge("iad-1", "iad", "198.51.100.1"), edge("sin-1", "sin", "203.0.113.1")]
    }

    fn ask_from(packet: &[u8], from: &str, transport: Transport) -> Vec<u8> {
        let from = SocketAddr::new(from.parse().unwrap(), 5353);
        answer(&view(live()), packet, from, transport, 0).unwrap()
    }

    fn ask(packet: &[u8]) -> Vec<u8> {
        ask_from(packet, "192.0.2.77", Transport::Udp)
    }

    /// The rcode in the header, AA, TC, and the four counts.
    fn shape(bytes: &[u8]) -> (u8, bool, bool, [u8; 4]) {
        let counts = [bytes[5], bytes[7], bytes[9], bytes[11]];
        (bytes[3] & 0x0f, bytes[2] & 4 != 0, bytes[2] & 2 != 0, counts)
    }

    fn client(source: u8, address: &[u8]) -> Vec<u8> {
        subnet_option(1, source, 0, address)
    }

    #[test]
    fn each_client_gets_its_region_and_the_scope_that_this_is_right_for() {
        let cases: [(&str, Vec<u8>, [u8; 4], Vec<u8>); 4] = [
            ("the resolver's", vec![], [192, 0, 2, 1], vec![]),
            ("the client's", client(24, &[203, 0, 113]), [203, 0, 113, 1], subnet_option(1, 24, 24, &[203, 0, 113])),
            ("source 0", client(0, &[]), [192, 0, 2, 1], subnet_option(1, 0, 0, &[])),
            ("private", client(16, &[10, 1]), [192, 0, 2, 1], subnet_option(1, 16, 8, &[10, 1])),
        ];
        for (what, options, address, echoed) in cases {
            let packet = with_opt(question("www.example.test", TYPE_A), 1232, 0, 0, &options);

            let bytes = ask(&packet);

            assert_eq!(shape(&bytes), (0, true, false, [1, 1, 0, 1]), "{what}");
            assert_eq!(bytes[46..50], address, "{what}");
            assert!(bytes.ends_with(&echoed), "{what}");
            assert_eq!(bytes.len(), 61 + echoed.len(), "{what}");
        }
    }

    #[test]
    fn the_questions_letters_come_back_as_they_came() {
        let packet = question("wWW.eXample.tEST", TYPE_A);

        let bytes = ask(&packet);

        assert_eq!(bytes[12..packet.len()], packet[12..]);
        assert_eq!(bytes.len(), packet.len() + 16);
    }

    #[test]
    fn every_rcode_echoes_the_client_subnet_and_negative_answers_have_scope_0_and_soa() {
        let cases = [
            ("no.example.test", TYPE_A, (3, true, false, [1, 0, 1, 1])),
            ("www.example.test", TYPE_TXT, (0, true, false, [1, 0, 1, 1])),
            ("www.example.test", 28, (0, true, false, [1, 0, 1, 1])),
            ("example.com", TYPE_A, (5, false, false, [1, 0, 0, 1])),
        ];
        for (name, kind, expected) in cases {
            let packet = with_opt(question(name, kind), 1232, 0, 0, &client(24, &[203, 0, 113]));

            let bytes = ask(&packet);

            assert_eq!(shape(&bytes), expected, "{name}");
            assert!(bytes.ends_with(&subnet_option(1, 24, 0, &[203, 0, 113])), "{name}");
        }
    }

    #[test]
    fn aliases_are_followed_inside_the_zone_only() {
        let cases = [
            ("alias.example.test", TYPE_A, (0, true, false, [1, 2, 0, 0])),
            ("alias.example.test", TYPE_CNAME, (0, true, false, [1, 1, 0, 0])),
            ("alias.example.test", TYPE_MX, (0, true, false, [1, 1, 1, 0])),
            ("away.example.test", TYPE_A, (0, true, false, [1, 1, 0, 0])),
            ("gone.example.test", TYPE_A, (3, true, false, [1, 1, 1, 0])),
            ("loop.example.test", TYPE_A, (0, true, false, [1, 2, 0, 0])),
            ("alias.example.test", TYPE_ANY, (0, true, false, [1, 1, 0, 0])),
            ("www.example.test", TYPE_ANY, (0, true, false, [1, 1, 0, 0])),
        ];
        for (name, kind, expected) in cases {
            assert_eq!(shape(&ask(&question(name, kind))), expected, "{name} {kind}");
        }
    }

    #[test]
    fn the_limit_of_udp_is_the_clients_but_at_most_1232_and_tcp_has_none() {
        let plain = question("long.example.test", TYPE_TXT);
        let with_payload = |payload| with_opt(plain.clone(), payload, 0, 0, &[]);
        let whole = (0, true, false, 1);
        let truncated = (0, true, true, 0);
        let cases = [
            ("without OPT", plain.clone(), Transport::Udp, truncated),
            ("512", with_payload(512), Transport::Udp, truncated),
            ("0", with_payload(0), Transport::Udp, truncated),
            ("1232", with_payload(1232), Transport::Udp, whole),
            ("over TCP", plain.clone(), Transport::Tcp, whole),
        ];
        for (what, packet, transport, expected) in cases {
            let bytes = ask_from(&packet, "192.0.2.1", transport);

            let (rcode, aa, tc, counts) = shape(&bytes);
            assert_eq!((rcode, aa, tc, counts[1]), expected, "{what}");
        }
    }

    #[test]
    fn other_libraries_read_what_we_write() {
        for (name, kind) in [
            ("example.test", TYPE_NS),
            ("example.test", TYPE_SOA),
            ("example.test", TYPE_A),
            ("alias.example.test", TYPE_A),
            ("long.example.test", TYPE_TXT),
            ("www.example.test", TYPE_ANY),
            ("no.example.test", TYPE_A),
        ] {
            let packet = with_opt(question(name, kind), 1232, 0, 0x8000, &client(24, &[203, 0, 113]));

            let message = Message::from_vec(&ask(&packet)).unwrap();

            assert_eq!(message.metadata.id, 0x1234, "{name} {kind}");
            assert!(message.metadata.authoritative && message.metadata.recursion_desired);
            assert!(message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok && edns.max_payload() == 1232));
            let is_missing = message.metadata.response_code == ResponseCode::NXDomain;
            assert_eq!(is_missing, name == "no.example.test");
            assert_eq!(message.authorities.is_empty(), !is_missing);
        }
    }

    #[test]
    fn nameservers_come_with_their_addresses() {
        let message = Message::from_vec(&ask(&question("example.test", TYPE_NS))).unwrap();

        assert_eq!((message.answers.len(), message.additionals.len()), (1, 1));
        assert_eq!(message.additionals[0].name.to_ascii(), "ns1.example.test.");
    }

    #[test]
    fn a_node_that_heard_of_no_edge_says_so_and_one_that_lost_them_all_goes_on() {
        let from = SocketAddr::from(([198, 51, 100, 7], 53));
        let packet = question("www.example.test", TYPE_A);
        let rcode_and_answers = |view: &View| {
            let bytes = answer(view, &packet, from, Transport::Udp, 0).unwrap();
            (bytes[3] & 0x0f, bytes[7], bytes.ends_with(&[198, 51, 100, 1]))
        };

        assert_eq!(rcode_and_answers(&view(Vec::new())), (2, 0, false));
        assert_eq!(rcode_and_answers(&view(live()).with_live(Vec::new())), (0, 1, true));
    }

    #[test]
    fn keepalive_is_told_over_tcp_only() {
        let options = [0, 11, 0, 0];
        let packet = with_opt(question("www.example.test", TYPE_A), 1232, 0, 0, &options);

        let over_udp = ask_from(&packet, "192.0.2.1", Transport::Udp);
        let over_tcp = ask_from(&packet, "192.0.2.1", Transport::Tcp);

        assert_eq!(over_tcp.len(), over_udp.len() + 6);
    }
}
