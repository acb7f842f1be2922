//! Reads one raw packet as a question, or says at once what it deserves instead: silence, or an error reply.
//!
//! The bytes are checked here and not by a DNS library: libraries refuse a malformed OPT without saying where the question was,
//! and a reply to such a packet must carry both its question and an OPT.

use crate::{
    name::Name,
    packet::{self, Cursor, Head, RawOpt, TYPE_OPT, Walk},
    subnet::{self, Subnet},
    write::{self, Rcode, Reply},
};

/// The class of everything that we serve.
pub(crate) const CLASS_IN: u16 = 1;
/// Options of OPT that we know, beside the client subnet.
const COOKIE: u16 = 10;
pub(crate) const TCP_KEEPALIVE: u16 = 11;

const TYPE_TKEY: u16 = 249;
const TYPE_TSIG: u16 = 250;
const TYPE_IXFR: u16 = 251;
const TYPE_AXFR: u16 = 252;

/// A question that can be answered.
#[derive(Debug)]
pub(crate) struct Ask<'p> {
    /// What the reply takes over from it.
    pub(crate) envelope: Envelope<'p>,
    /// The name asked for, in lower case.
    pub(crate) name: Name,
    /// The record type asked for.
    pub(crate) kind: u16,
}

/// What every reply takes over from its query.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Envelope<'p> {
    /// Identifier and flags.
    pub(crate) head: Head,
    /// The question's bytes as they came, its letters included; empty where there is none to repeat.
    pub(crate) question: &'p [u8],
    /// Present when the query had an OPT, and then the reply has one too.
    pub(crate) edns: Option<Edns>,
}

/// What a query's OPT asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edns {
    /// The largest UDP reply that the client takes.
    pub(crate) payload: u16,
    /// The DO bit, copied into the reply.
    pub(crate) dnssec_ok: bool,
    /// The client subnet, echoed in the reply.
    pub(crate) subnet: Option<Subnet>,
    /// Whether the client would like to know how long a TCP connection may idle (RFC 7828).
    pub(crate) keepalive: bool,
}

/// What a packet gets that is no question to be answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// No reply: it is a reply itself, or too short to be either.
    Drop,
    /// A finished error reply.
    Reply(Reply),
}

/// Reads a packet as one question of class IN.
pub(crate) fn parse(packet: &[u8]) -> Result<Ask<'_>, Verdict> {
    let (head, counts) = packet::read_header(packet).ok_or(Verdict::Drop)?;
    if head.is_reply {
        return Err(Verdict::Drop);
    }
    if head.opcode != 0 {
        return Err(Verdict::Reply(write::not_implemented(head)));
    }
    let walk = Walk::over(packet, counts);
    let mut envelope = Envelope {
        head,
        question: walk.question.as_ref().map(|question| question.raw).unwrap_or_default(),
        edns: walk.opt.as_ref().map(Edns::without_options),
    };
    let cookie = match read_edns(&walk, &mut envelope) {
        Ok(cookie) => cookie,
        Err(rcode) => return Err(Verdict::Reply(write::bare(&envelope, rcode))),
    };
    match check_question(&walk, counts.questions, cookie) {
        Ok((name, kind)) => Ok(Ask { envelope, name, kind }),
        Err(rcode) => Err(Verdict::Reply(write::bare(&envelope, rcode))),
    }
}

/// Completes the envelope with what OPT says; returns whether it holds a cookie.
fn read_edns(walk: &Walk<'_>, envelope: &mut Envelope<'_>) -> Result<bool, Rcode> {
    let Some(opt) = &walk.opt else {
        return Ok(false);
    };
    if walk.opts > 1 || !opt.in_place {
        return Err(Rcode::FormErr);
    }
    let options = read_options(opt.options);
    if let (Some(edns), Some(options)) = (&mut envelope.edns, &options) {
        edns.subnet = options.subnet;
        edns.keepalive = options.keepalive;
    }
    // The options of a version that we don't know may look different, so this comes before judging them.
    if opt.version > 0 {
        return Err(Rcode::BadVers);
    }
    options.map(|options| options.cookie).ok_or(Rcode::FormErr)
}

fn check_question(walk: &Walk<'_>, questions: u16, cookie: bool) -> Result<(Name, u16), Rcode> {
    if !walk.complete {
        return Err(Rcode::FormErr);
    }
    if questions == 0 && cookie {
        // A resolver fetches a cookie without a question (RFC 7873, section 5.4).
        return Err(Rcode::NoError);
    }
    let Some(question) = &walk.question else {
        return Err(Rcode::FormErr);
    };
    match (question.kind, question.class) {
        (TYPE_OPT | TYPE_TKEY | TYPE_TSIG, _) => Err(Rcode::FormErr),
        (TYPE_IXFR | TYPE_AXFR, _) => Err(Rcode::Refused),
        (kind, CLASS_IN) => Ok((question.name.clone(), kind)),
        _ => Err(Rcode::Refused),
    }
}

impl Edns {
    fn without_options(opt: &RawOpt<'_>) -> Self {
        Self { payload: opt.payload, dnssec_ok: opt.flags & 0x8000 != 0, subnet: None, keepalive: false }
    }
}

#[derive(Debug, Default)]
struct Options {
    subnet: Option<Subnet>,
    keepalive: bool,
    cookie: bool,
}

/// Reads the options that we know and steps over the others; `None` means that one is malformed.
fn read_options(bytes: &[u8]) -> Option<Options> {
    let mut options = Options::default();
    let mut cursor = Cursor::new(bytes);
    while !cursor.is_at_end() {
        let code = cursor.u16()?;
        let length = cursor.u16()?;
        let value = cursor.take(usize::from(length))?;
        match code {
            // Two subnets would make two right answers.
            subnet::CODE if options.subnet.is_some() => return None,
            subnet::CODE => options.subnet = Some(Subnet::read(value)?),
            // A client's half, or that and a server's (RFC 7873, section 4).
            COOKIE if !matches!(value.len(), 8 | 16..=40) => return None,
            COOKIE => options.cookie = true,
            TCP_KEEPALIVE => options.keepalive = true,
            _ => {}
        }
    }
    Some(options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{option, question, subnet_option, with_opt};

    const A: u16 = 1;

    /// The reply's rcode with the extended part, how many questions it repeats, and whether it has an OPT.
    fn verdict(packet: &[u8]) -> (u16, u8, bool) {
        let Err(Verdict::Reply(reply)) = parse(packet) else {
            panic!("an error reply was expected");
        };
        let bytes = &reply.bytes;
        assert_eq!(bytes[0..2], packet[0..2]);
        (reply.rcode.code(), bytes[5], bytes[11] == 1)
    }

    #[test]
    fn a_plain_question_is_read_and_its_letters_are_kept() {
        let packet = question("wWw.Example.TEST", A);

        let ask = parse(&packet).unwrap();

        assert_eq!(ask.name, Name::from_text("www.example.test").unwrap());
        assert_eq!((ask.kind, ask.envelope.question), (A, &packet[12..]));
        assert!(ask.envelope.edns.is_none());
    }

    #[test]
    fn replies_and_stumps_are_dropped() {
        let mut reply = question("a.test", A);
        reply[2] |= 0x80;

        assert!(matches!(parse(&reply), Err(Verdict::Drop)));
        for length in 0..12 {
            let stump = &question("a.test", A)[..length];
            assert!(matches!(parse(stump), Err(Verdict::Drop)));
        }
    }

    #[test]
    fn an_unknown_opcode_gets_notimp_and_a_header_only_even_when_the_rest_is_broken() {
        let mut packet = with_opt(question("a.test", A), 1232, 0, 0, &[]);
        packet[2] = 0x29;
        packet[3] = 0x10;

        let Err(Verdict::Reply(reply)) = parse(&packet[..20]) else {
            panic!("an error reply was expected");
        };

        assert_eq!(reply.bytes, [0x12, 0x34, 0xa8, 4, 0, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_malformed_packet_gets_formerr_with_all_that_could_be_read() {
        let plain = question("a.test", A);
        let with_edns = with_opt(plain.clone(), 1232, 0, 0, &[]);
        let counted = |count: u8| {
            let mut packet = with_edns.clone();
            packet[5] = count;
            packet
        };
        let mut none = with_edns[..12].to_vec();
        none[5] = 0;
        none.extend(&with_edns[plain.len()..]);
        let mut pointer = plain[..12].to_vec();
        pointer.extend([0xc0, 0x0c, 0, 1, 0, 1]);
        let mut two = plain[..12].to_vec();
        two[5] = 2;
        two.extend(&plain[12..]);
        two.extend(&plain[12..]);
        let cases = [
            ("no question", none, (1, 0, true)),
            ("two questions", with_opt(two, 1232, 0, 0, &[]), (1, 0, true)),
            ("more questions than bytes", counted(9), (1, 0, false)),
            ("pointer in the question", with_opt(pointer, 1232, 0, 0, &[]), (1, 0, true)),
            ("cut question", plain[..plain.len() - 1].to_vec(), (1, 0, false)),
            ("something behind", [plain.clone(), vec![0]].concat(), (1, 1, false)),
            ("two OPT", with_opt(with_edns.clone(), 1232, 0, 0, &[]), (1, 1, true)),
            ("cut option", with_opt(plain.clone(), 1232, 0, 0, &[0, 8, 0]), (1, 1, true)),
            ("short cookie", with_opt(plain.clone(), 1232, 0, 0, &option(COOKIE, &[1; 7])), (1, 1, true)),
            ("bad subnet", with_opt(plain.clone(), 1232, 0, 0, &subnet_option(1, 33, 0, &[0; 5])), (1, 1, true)),
            ("asking for OPT", question("a.test", TYPE_OPT), (1, 1, false)),
        ];
        for (what, packet, expected) in cases {
            assert_eq!(verdict(&packet), expected, "{what}");
        }
    }

    #[test]
    fn an_unknown_version_gets_badvers_whatever_its_options_hold() {
        for options in [vec![], vec![0, 8, 0], subnet_option(1, 24, 0, &[192, 0, 2])] {
            let packet = with_opt(question("a.test", A), 1232, 1, 0, &options);

            assert_eq!(verdict(&packet), (16, 1, true));
        }
    }

    #[test]
    fn a_cookie_without_a_question_gets_noerror() {
        let mut packet = question("", A)[..12].to_vec();
        packet[5] = 0;

        assert_eq!(verdict(&with_opt(packet, 1232, 0, 0, &option(COOKIE, &[1; 8]))), (0, 0, true));
    }

    #[test]
    fn other_classes_and_zone_transfers_are_refused() {
        let mut chaos = question("version.bind", 16);
        let last = chaos.len() - 1;
        chaos[last] = 3;

        assert_eq!(verdict(&chaos), (5, 1, false));
        assert_eq!(verdict(&question("a.test", TYPE_AXFR)), (5, 1, false));
        assert_eq!(verdict(&question("a.test", TYPE_IXFR)), (5, 1, false));
    }

    #[test]
    fn unknown_options_and_flags_are_ignored_and_known_ones_are_read() {
        let options = [option(65001, &[1, 2, 3]), option(TCP_KEEPALIVE, &[]), subnet_option(1, 24, 0, &[192, 0, 2])].concat();
        let packet = with_opt(question("a.test", A), 4096, 0, 0xffff, &options);

        let edns = parse(&packet).unwrap().envelope.edns.unwrap();

        assert_eq!((edns.payload, edns.dnssec_ok, edns.keepalive), (4096, true, true));
        assert_eq!(edns.subnet.map(|subnet| subnet.source()), Some(24));
    }

    #[test]
    fn no_packet_that_was_cut_or_bent_makes_the_parser_panic() {
        let packet = with_opt(question("a.test", A), 1232, 0, 0, &subnet_option(2, 56, 0, &[1; 7]));
        for at in 0..packet.len() {
            let _ = parse(&packet[..at]);
            for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
                let mut bent = packet.clone();
                bent[at] = value;
                let _ = parse(&bent);
            }
        }
    }
}
