//! A strict reader of structured-field dictionaries: either the whole field is well formed, or it counts for nothing.
//!
//! That is RFC 8941, 4.2.2, in which a parse error anywhere voids the field. Parameters are checked and
//! dropped, and of types that no directive uses only the kind is kept.

use std::collections::BTreeMap;

/// What a member of a dictionary holds (RFC 8941, 3.1 to 3.3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A whole number of at most 15 digits.
    Integer(i64),
    /// Quoted text.
    Text(String),
    /// A bare word.
    Token(String),
    /// `?0`, `?1`, or a key alone.
    Boolean(bool),
    /// A decimal, a byte sequence or an inner list.
    Other,
}

/// Reads one dictionary (RFC 8941, 4.2.2); several lines of the field are to be joined by `, ` before.
///
/// Where a key comes twice the last one holds.
pub(crate) fn parse(text: &[u8]) -> Option<BTreeMap<String, Value>> {
    let mut parser = Parser { rest: text };
    let mut members = BTreeMap::new();
    parser.skip(b" ");
    while !parser.rest.is_empty() {
        let (key, value) = parser.member()?;
        members.insert(key, value);
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            break;
        }
        parser.expect(b',')?;
        parser.skip(b" \t");
        if parser.rest.is_empty() {
            return None;
        }
    }
    Some(members)
}

struct Parser<'a> {
    rest: &'a [u8],
}

impl<'a> Parser<'a> {
    fn skip(&mut self, bytes: &[u8]) {
        self.take_while(|byte| bytes.contains(&byte));
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let at = self.rest.iter().position(|&byte| !wanted(byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at_checked(at).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.expect(byte).is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        let (_, rest) = self.rest.split_first().filter(|(first, _)| **first == byte)?;
        self.rest = rest;
        Some(())
    }

    fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    fn member(&mut self) -> Option<(String, Value)> {
        let key = self.key()?;
        let value = match self.eat(b'=') {
            true if self.eat(b'(') => self.inner_list()?,
            true => self.bare_item()?,
            false => Value::Boolean(true),
        };
        self.parameters()?;
        Some((key, value))
    }

    /// Keys are lower case (RFC 8941, 3.1.2).
    fn key(&mut self) -> Option<String> {
        self.rest.first().filter(|first| matches!(first, b'*' | b'a'..=b'z'))?;
        Some(text(self.take_while(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-.*".contains(&byte))))
    }

    fn parameters(&mut self) -> Option<()> {
        while self.eat(b';') {
            self.skip(b" ");
            self.key()?;
            if self.eat(b'=') {
                self.bare_item()?;
            }
        }
        Some(())
    }

    /// What stands behind `(`: items between spaces, up to `)`.
    fn inner_list(&mut self) -> Option<Value> {
        loop {
            self.skip(b" ");
            if self.eat(b')') {
                return Some(Value::Other);
            }
            self.bare_item()?;
            self.parameters()?;
            self.rest.first().filter(|next| matches!(next, b' ' | b')'))?;
        }
    }

    fn bare_item(&mut self) -> Option<Value> {
        match self.rest.first()? {
            b'"' => self.quoted(),
            b':' => self.bytes(),
            b'?' => self.boolean(),
            b'-' | b'0'..=b'9' => self.number(),
            b'*' | b'a'..=b'z' | b'A'..=b'Z' => Some(Value::Token(text(self.take_while(is_token)))),
            _ => None,
        }
    }

    fn number(&mut self) -> Option<Value> {
        let negative = self.eat(b'-');
        let whole = self.take_while(|byte| byte.is_ascii_digit());
        if !(1..=15).contains(&whole.len()) {
            return None;
        }
        if self.eat(b'.') {
            let fraction = self.take_while(|byte| byte.is_ascii_digit());
            return (whole.len() <= 12 && (1..=3).contains(&fraction.len())).then_some(Value::Other);
        }
        let value = whole.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0'));
        Some(Value::Integer(if negative { -value } else { value }))
    }

    fn quoted(&mut self) -> Option<Value> {
        self.expect(b'"')?;
        let mut said = String::new();
        loop {
            match self.next()? {
                b'"' => return Some(Value::Text(said)),
                b'\\' => said.push(self.next().filter(|next| matches!(next, b'"' | b'\\')).map(char::from)?),
                byte @ 0x20..=0x7e => said.push(char::from(byte)),
                _ => return None,
            }
        }
    }

    fn bytes(&mut self) -> Option<Value> {
        self.expect(b':')?;
        self.take_while(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
        self.expect(b':')?;
        Some(Value::Other)
    }

    fn boolean(&mut self) -> Option<Value> {
        self.expect(b'?')?;
        match self.next()? {
            b'0' => Some(Value::Boolean(false)),
            b'1' => Some(Value::Boolean(true)),
            _ => None,
        }
    }
}

/// The letters of a structured field's token after its first (RFC 8941, 3.3.4).
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~:/".contains(&byte)
}

fn text(ascii: &[u8]) -> String {
    ascii.iter().copied().map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_well_formed_dictionary_gives_its_members() {
        let members =
            parse(b"  max-age=-60;x=1;y,  no-store ,private=\"a\\\"b\"\t,\tt=a/b:c, l=(1 \"x\";q=?0  tok);p, d=1.5, b=:aGk=:, f=?0 ")
                .unwrap();
        let expected = [
            ("b", Value::Other),
            ("d", Value::Other),
            ("f", Value::Boolean(false)),
            ("l", Value::Other),
            ("max-age", Value::Integer(-60)),
            ("no-store", Value::Boolean(true)),
            ("private", Value::Text("a\"b".to_owned())),
            ("t", Value::Token("a/b:c".to_owned())),
        ];
        assert_eq!(members.into_iter().collect::<Vec<_>>(), expected.map(|(key, value)| (key.to_owned(), value)));
        assert_eq!(parse(b" ").unwrap().len(), 0);
    }

    #[test]
    fn the_last_of_two_equal_keys_holds() {
        assert_eq!(parse(b"a=1, a=\"x\", a=3").unwrap().get("a"), Some(&Value::Integer(3)));
    }

    #[test]
    fn one_error_anywhere_voids_the_field() {
        let broken = [
            "max-age=60,",
            ",max-age=60",
            "max-age=60,,no-store",
            "Max-Age=60",
            "max-age =60",
            "max-age= 60",
            "max-age=",
            "max-age=60 no-store",
            "max-age=1234567890123456",
            "max-age=60.",
            "max-age=1.2345",
            "max-age=-",
            "max-age=60s",
            "max-age=&",
            "max-age=60; =1",
            "a=\"open",
            "a=\"x\\y\"",
            "a='x'",
            "a=(1 2",
            "a=(1,2)",
            "a=?2",
            "a=:x",
            "a=\"\u{e9}\"",
            "\tmax-age=60",
        ];
        for text in broken {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
