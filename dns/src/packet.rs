//! Walks a raw packet's sections for the question and the OPT record, however broken the rest is.
//!
//! Nothing that comes from a socket can panic: every read is bounded by the packet, and no pointer is followed.

use crate::name::Name;

/// The pseudo record type that carries EDNS.
pub(crate) const TYPE_OPT: u16 = 41;

const HEADER: usize = 12;

/// The part of a query's header that matters to us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    pub(crate) id: u16,
    pub(crate) opcode: u8,
    pub(crate) recursion_desired: bool,
    /// Whether it is a reply, which must never get one.
    pub(crate) is_reply: bool,
}

/// How many entries each section claims to have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) questions: u16,
    /// Answer, authority, additional.
    records: [u16; 3],
}

/// Reads the twelve octets that every message begins with.
pub(crate) fn read_header(packet: &[u8]) -> Option<(Head, Counts)> {
    let mut cursor = Cursor::new(packet);
    let id = cursor.u16()?;
    let (flags, _) = (cursor.u8()?, cursor.u8()?);
    let counts = Counts { questions: cursor.u16()?, records: [cursor.u16()?, cursor.u16()?, cursor.u16()?] };
    let head = Head { id, opcode: (flags >> 3) & 0x0f, recursion_desired: flags & 0x01 != 0, is_reply: flags & 0x80 != 0 };
    Some((head, counts))
}

/// What one pass over a packet's sections finds.
#[derive(Debug, Default)]
pub(crate) struct Walk<'p> {
    /// The question, if there is exactly one and it is well formed.
    pub(crate) question: Option<Question<'p>>,
    /// The first OPT.
    pub(crate) opt: Option<RawOpt<'p>>,
    /// How many there are.
    pub(crate) opts: usize,
    /// Whether every section could be read, and nothing follows.
    pub(crate) complete: bool,
}

/// A question that could be read.
#[derive(Debug)]
pub(crate) struct Question<'p> {
    pub(crate) raw: &'p [u8],
    pub(crate) name: Name,
    pub(crate) kind: u16,
    pub(crate) class: u16,
}

/// An OPT record, its options unread.
#[derive(Debug)]
pub(crate) struct RawOpt<'p> {
    pub(crate) payload: u16,
    pub(crate) version: u8,
    pub(crate) flags: u16,
    pub(crate) options: &'p [u8],
    /// Whether it belongs to the root and stands in the additional section.
    pub(crate) in_place: bool,
}

impl<'p> Walk<'p> {
    /// Walks as far as the packet can be read: an OPT is found behind a question that is refused, too.
    pub(crate) fn over(packet: &'p [u8], counts: Counts) -> Self {
        let mut walk = Self::default();
        let mut cursor = Cursor { packet, at: HEADER };
        let readable = walk.sections(&mut cursor, counts).is_some();
        walk.complete = readable && cursor.is_at_end();
        walk
    }

    fn sections(&mut self, cursor: &mut Cursor<'p>, counts: Counts) -> Option<()> {
        for _ in 0..counts.questions {
            let start = cursor.at;
            cursor.skip_name()?;
            let (kind, class) = (cursor.u16()?, cursor.u16()?);
            let raw = cursor.packet.get(start..cursor.at)?;
            // `read` refuses compression pointers: nothing stands before a question that it could share.
            self.question = Name::read(raw).filter(|_| counts.questions == 1).map(|(name, _)| Question { raw, name, kind, class });
        }
        for (section, count) in counts.records.into_iter().enumerate() {
            for _ in 0..count {
                self.record(cursor, section == 2)?;
            }
        }
        Some(())
    }

    fn record(&mut self, cursor: &mut Cursor<'p>, additional: bool) -> Option<()> {
        let start = cursor.at;
        cursor.skip_name()?;
        let is_root = cursor.at == start + 1;
        let kind = cursor.u16()?;
        let class = cursor.u16()?;
        let (_, version, flags) = (cursor.u8()?, cursor.u8()?, cursor.u16()?);
        let length = cursor.u16()?;
        let data = cursor.take(usize::from(length))?;
        if kind == TYPE_OPT {
            self.opts += 1;
            self.opt.get_or_insert(RawOpt { payload: class, version, flags, options: data, in_place: additional && is_root });
        }
        Some(())
    }
}

/// A place in some bytes that never leaves them.
#[derive(Debug)]
pub(crate) struct Cursor<'p> {
    packet: &'p [u8],
    at: usize,
}

impl<'p> Cursor<'p> {
    pub(crate) fn new(packet: &'p [u8]) -> Self {
        Self { packet, at: 0 }
    }

    pub(crate) fn is_at_end(&self) -> bool {
        self.at == self.packet.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Option<&'p [u8]> {
        let end = self.at.checked_add(length)?;
        let taken = self.packet.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        let bytes = self.take(2)?.try_into().ok()?;
        Some(u16::from_be_bytes(bytes))
    }

    /// Steps over a name; a pointer ends it and is not followed.
    fn skip_name(&mut self) -> Option<()> {
        loop {
            match self.u8()? {
                0 => return Some(()),
                length @ 1..=63 => {
                    self.take(usize::from(length))?;
                }
                192..=255 => {
                    self.u8()?;
                    return Some(());
                }
                64..=191 => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{question, with_opt};

    fn walk(packet: &[u8]) -> Walk<'_> {
        let (_, counts) = read_header(packet).unwrap();
        Walk::over(packet, counts)
    }

    #[test]
    fn question_and_opt_are_found_behind_other_records() {
        let mut packet = question("a.test", 1);
        packet[9] = 1;
        // An NS record whose owner and data are pointers to the question's name.
        packet.extend([0xc0, 12, 0, 2, 0, 1, 0, 0, 0, 60, 0, 2, 0xc0, 12]);
        let packet = with_opt(packet, 1400, 3, 0x8000, &[1, 2, 3]);

        let walk = walk(&packet);

        let opt = walk.opt.unwrap();
        assert!(walk.complete && opt.in_place);
        assert_eq!((opt.payload, opt.version, opt.flags, opt.options), (1400, 3, 0x8000, [1, 2, 3].as_slice()));
        assert_eq!(walk.question.map(|question| question.kind), Some(1));
    }

    #[test]
    fn an_opt_of_a_name_or_in_another_section_is_out_of_place() {
        let mut elsewhere = with_opt(question("a.test", 1), 512, 0, 0, &[]);
        elsewhere[7] = 1;
        elsewhere[11] = 0;
        let mut named = question("a.test", 1);
        named[11] = 1;
        named.extend([0xc0, 12, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0]);

        for packet in [elsewhere, named] {
            let walk = walk(&packet);

            assert!(walk.complete && walk.opt.is_some_and(|opt| !opt.in_place));
        }
    }
}
