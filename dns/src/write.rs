//! Writes a reply's bytes: header, question as it came, records with compressed names, and the OPT that answers the client's.

use std::borrow::Cow;

use crate::{
    name::Name,
    packet::{Head, TYPE_OPT},
    query::{CLASS_IN, Edns, Envelope, TCP_KEEPALIVE},
    records::{Data, RrSet},
    tcp,
};

/// The largest UDP reply: with IPv6 and UDP headers it fits the smallest MTU that the internet guarantees (1280).
pub(crate) const UDP_LIMIT: u16 = 1232;

/// Compression pointers hold 14 bits.
const POINTER_LIMIT: u16 = 0x4000;
const POINTER: u16 = 0xc000;

/// How a question ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rcode {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    BadVers,
}

impl Rcode {
    /// Returns the number on the wire; what exceeds 15 is split between header and OPT.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }

    /// Returns (what goes into the header, what goes into OPT).
    fn split(self) -> (u8, u8) {
        let [high, low] = (self.code() << 4).to_be_bytes();
        (low >> 4, high)
    }
}

/// A finished reply, and how it counts.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(crate) bytes: Vec<u8>,
    pub(crate) rcode: Rcode,
}

/// A record set under its owner's name.
pub(crate) type Owned<'z> = (Name, Cow<'z, RrSet>);

/// What a reply will say, before it is bytes.
#[derive(Debug)]
pub(crate) struct Draft<'z> {
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    pub(crate) answers: Vec<Owned<'z>>,
    pub(crate) authority: Vec<Owned<'z>>,
    /// Helpful, and left away where it does not fit.
    pub(crate) additional: Vec<Owned<'z>>,
    /// The network that the answer is right for; 0 where it is the same for all.
    pub(crate) scope: u8,
}

impl Draft<'_> {
    /// Starts an empty reply.
    pub(crate) fn new(rcode: Rcode, authoritative: bool) -> Self {
        Self { rcode, authoritative, answers: Vec::new(), authority: Vec::new(), additional: Vec::new(), scope: 0 }
    }
}

/// Writes the one reply without OPT and question: an unknown opcode says nothing about what the rest of its packet means.
pub(crate) fn not_implemented(mut head: Head) -> Reply {
    let rcode = Rcode::NotImp;
    head.recursion_desired = false;
    let mut writer = Writer::default();
    writer.header(head, rcode, 0);
    writer.bytes.resize(12, 0);
    Reply { bytes: writer.bytes, rcode }
}

/// Writes a reply without records.
pub(crate) fn bare(envelope: &Envelope<'_>, rcode: Rcode) -> Reply {
    let bytes = lay_out(envelope, &Draft::new(rcode, false), Size::Empty { truncated: false });
    Reply { bytes, rcode }
}

/// Writes a reply within `limit`: whole, else without what only helps, else empty with TC.
pub(crate) fn reply(envelope: &Envelope<'_>, draft: &Draft<'_>, limit: usize) -> Reply {
    let sizes = [Size::Whole, Size::Needed];
    let fitting = sizes.into_iter().map(|size| lay_out(envelope, draft, size)).find(|bytes| bytes.len() <= limit);
    let bytes = fitting.unwrap_or_else(|| lay_out(envelope, draft, Size::Empty { truncated: true }));
    Reply { bytes, rcode: draft.rcode }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Whole,
    Needed,
    Empty { truncated: bool },
}

const AUTHORITATIVE: u8 = 0x04;
const TRUNCATED: u8 = 0x02;

fn lay_out(envelope: &Envelope<'_>, draft: &Draft<'_>, size: Size) -> Vec<u8> {
    let mut writer = Writer::default();
    let mut flags = 0;
    if draft.authoritative {
        flags |= AUTHORITATIVE;
    }
    if size == (Size::Empty { truncated: true }) {
        flags |= TRUNCATED;
    }
    writer.header(envelope.head, draft.rcode, flags);
    let none: &[Owned<'_>] = &[];
    let (answers, authority) = match size {
        Size::Whole | Size::Needed => (draft.answers.as_slice(), draft.authority.as_slice()),
        Size::Empty { .. } => (none, none),
    };
    let additional = if size == Size::Whole { draft.additional.as_slice() } else { none };
    writer.u16(u16::from(!envelope.question.is_empty()));
    writer.u16(count(answers));
    writer.u16(count(authority));
    writer.u16(count(additional).saturating_add(u16::from(envelope.edns.is_some())));
    writer.question(envelope.question);
    for (owner, set) in answers.iter().chain(authority).chain(additional) {
        writer.set(owner, set);
    }
    if let Some(edns) = &envelope.edns {
        writer.opt(edns, draft);
    }
    writer.bytes
}

fn count(sets: &[Owned<'_>]) -> u16 {
    let records: usize = sets.iter().map(|(_, set)| set.data.len()).sum();
    // More than that can't fit any message, so that this number is never sent.
    u16::try_from(records).unwrap_or(u16::MAX)
}

#[derive(Debug, Default)]
struct Writer {
    bytes: Vec<u8>,
    /// Names that were written, in lower case, and where.
    seen: Vec<(Vec<u8>, u16)>,
}

impl Writer {
    fn header(&mut self, head: Head, rcode: Rcode, flags: u8) {
        self.u16(head.id);
        self.bytes.push(0x80 | (head.opcode << 3) | flags | u8::from(head.recursion_desired));
        // AD and CD stay clear: nothing here validates (RFC 4035, section 3.1.6).
        self.bytes.push(rcode.split().0);
    }

    fn question(&mut self, raw: &[u8]) {
        if let Some((name, _)) = Name::read(raw) {
            let mut at = self.bytes.len();
            for suffix in name.suffixes().filter(|suffix| suffix.len() > 1) {
                self.remember(suffix, at);
                at += suffix.first().map_or(0, |length| usize::from(*length) + 1);
            }
        }
        self.bytes.extend(raw);
    }

    fn set(&mut self, owner: &Name, set: &RrSet) {
        for data in &set.data {
            self.name(owner);
            self.u16(set.kind);
            self.u16(CLASS_IN);
            self.u32(set.ttl);
            self.with_length(|writer| writer.data(data));
        }
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::Raw(bytes) => self.bytes.extend(bytes),
            Data::Name(name) => self.name(name),
            Data::Mx { preference, exchange } => {
                self.u16(*preference);
                self.name(exchange);
            }
            Data::Soa { primary, contact, numbers } => {
                self.name(primary);
                self.name(contact);
                for number in numbers {
                    self.u32(*number);
                }
            }
        }
    }

    fn opt(&mut self, edns: &Edns, draft: &Draft<'_>) {
        let flags: u16 = if edns.dnssec_ok { 0x8000 } else { 0 };
        self.bytes.push(0);
        self.u16(TYPE_OPT);
        self.u16(UDP_LIMIT);
        self.bytes.extend([draft.rcode.split().1, 0]);
        self.u16(flags);
        self.with_length(|writer| {
            if let Some(subnet) = edns.subnet {
                subnet.write(draft.scope, &mut writer.bytes);
            }
            if edns.keepalive {
                writer.u16(TCP_KEEPALIVE);
                writer.u16(2);
                writer.u16(tcp::IDLE_TENTHS);
            }
        });
    }

    /// Writes a name, as a pointer from where it was written before.
    fn name(&mut self, name: &Name) {
        for suffix in name.suffixes().filter(|suffix| suffix.len() > 1) {
            let before = self.seen.iter().find(|(seen, _)| seen.as_slice() == suffix);
            if let Some((_, at)) = before {
                let pointer = POINTER | *at;
                self.u16(pointer);
                return;
            }
            self.remember(suffix, self.bytes.len());
            let length = suffix.first().map_or(0, |length| usize::from(*length) + 1);
            self.bytes.extend(suffix.iter().take(length));
        }
        self.bytes.push(0);
    }

    fn remember(&mut self, suffix: &[u8], at: usize) {
        if let Some(at) = u16::try_from(at).ok().filter(|at| *at < POINTER_LIMIT) {
            self.seen.push((suffix.to_vec(), at));
        }
    }

    /// Writes what `write` writes, with its length in two octets before it.
    fn with_length(&mut self, write: impl FnOnce(&mut Self)) {
        let at = self.bytes.len();
        self.u16(0);
        write(self);
        // A zone refuses longer data when it is built.
        let length = u16::try_from(self.bytes.len() - at - 2).unwrap_or(u16::MAX);
        if let Some(place) = self.bytes.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
    }

    fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_be_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        query,
        testing::{option, question, subnet_option, with_opt},
    };

    const A: u16 = 1;

    fn addresses(count: u8) -> RrSet {
        RrSet { kind: A, ttl: 20, data: (0..count).map(|last| Data::Raw(vec![192, 0, 2, last])).collect() }
    }

    fn draft(name: &str, count: u8) -> Draft<'static> {
        let mut draft = Draft::new(Rcode::NoError, true);
        draft.answers.push((Name::from_text(name).unwrap(), Cow::Owned(addresses(count))));
        draft
    }

    #[test]
    fn a_plain_answer_points_at_the_question_and_takes_16_octets_a_record() {
        let packet = question("wWw.example.test", A);
        let ask = query::parse(&packet).unwrap();

        let reply = reply(&ask.envelope, &draft("www.example.test", 1), 512);

        assert_eq!(reply.bytes.len(), packet.len() + 16);
        assert_eq!(reply.bytes[2..12], [0x85, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(reply.bytes[12..packet.len()], packet[12..]);
        assert_eq!(reply.bytes[packet.len()..], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 20, 0, 4, 192, 0, 2, 0]);
    }

    #[test]
    fn names_in_data_share_what_was_written_before() {
        let packet = question("example.test", 15);
        let ask = query::parse(&packet).unwrap();
        let mut draft = Draft::new(Rcode::NoError, true);
        let exchange = Name::from_text("mx.example.test").unwrap();
        let data = vec![Data::Mx { preference: 10, exchange: exchange.clone() }, Data::Mx { preference: 20, exchange }];
        let set = RrSet { kind: 15, ttl: 1, data };
        draft.answers.push((ask.name.clone(), Cow::Owned(set)));

        let bytes = reply(&ask.envelope, &draft, 512).bytes;

        let first = packet.len() + 12;
        let pointer = u8::try_from(first + 2).unwrap();
        assert_eq!(bytes[first - 2..first + 7], [0, 7, 0, 10, 2, b'm', b'x', 0xc0, 12]);
        assert_eq!(bytes[bytes.len() - 6..], [0, 4, 0, 20, 0xc0, pointer]);
    }

    #[test]
    fn what_does_not_fit_is_empty_and_truncated_and_keeps_its_opt() {
        let options = subnet_option(1, 24, 0, &[192, 0, 2]);
        let packet = with_opt(question("a.test", A), 512, 0, 0x8000, &options);
        let ask = query::parse(&packet).unwrap();
        let mut draft = draft("a.test", 40);
        draft.scope = 20;

        let bytes = reply(&ask.envelope, &draft, 512).bytes;

        assert_eq!(bytes[2..12], [0x87, 0, 0, 1, 0, 0, 0, 0, 0, 1]);
        let opt = [&[0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 11][..], &subnet_option(1, 24, 20, &[192, 0, 2])[..]].concat();
        assert_eq!(bytes[bytes.len() - opt.len()..], opt);
    }

    #[test]
    fn what_only_helps_is_left_away_before_anything_is_truncated() {
        let packet = question("a.test", A);
        let ask = query::parse(&packet).unwrap();
        let mut draft = draft("a.test", 20);
        draft.additional = self::draft("b.test", 20).answers;

        let bytes = reply(&ask.envelope, &draft, 512).bytes;

        assert_eq!(bytes[2..12], [0x85, 0, 0, 1, 0, 20, 0, 0, 0, 0]);
    }

    #[test]
    fn badvers_is_split_between_header_and_opt() {
        let packet = with_opt(question("a.test", A), 512, 1, 0, &[]);
        let Err(query::Verdict::Reply(reply)) = query::parse(&packet) else {
            panic!("an error reply was expected");
        };

        assert_eq!(reply.bytes[3], 0);
        assert_eq!(reply.bytes[reply.bytes.len() - 11..], [0, 0, 41, 4, 208, 1, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn who_asks_for_keepalive_is_told_the_idle_time() {
        let packet = with_opt(question("a.test", A), 512, 0, 0, &option(TCP_KEEPALIVE, &[]));
        let ask = query::parse(&packet).unwrap();

        let bytes = bare(&ask.envelope, Rcode::NoError).bytes;

        let told = tcp::IDLE_TENTHS.to_be_bytes();
        assert_eq!(bytes[bytes.len() - 6..], option(TCP_KEEPALIVE, &told));
    }
}
