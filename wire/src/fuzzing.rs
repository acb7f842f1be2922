//! Doors for the fuzz targets in `fuzz/`: each takes bytes as a stranger could send them, to a reader of this crate, and
//! asserts what must hold whatever they are.
//!
//! In tests the same doors see a few hundred inputs from a fixed seed.

use crate::{Digest, FeedLine, Host, HostPattern, PrefixScope, PurgeRequest, Tag, Target, Unpacker, UrlScope, pack};

/// Reads a request target.
pub fn target(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(target) = text.parse::<Target>() else { return };
    assert!(target.as_str().parse::<Target>().is_ok_and(|again| again == target), "{target} is not canonical");
    assert!(target.as_str().bytes().all(|byte| byte.is_ascii_graphic()), "{target} has letters that no request line has");
    let _ = (target.path(), target.query(), target.decoded_path());
}

/// Reads an authority, and a pattern of hosts.
pub fn host(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let pattern = text.parse::<HostPattern>();
    let Ok(host) = Host::of_authority(text) else { return };
    assert!(host.as_str().parse::<Host>().is_ok_and(|again| again == host), "{host} is not canonical");
    let _ = pattern.map(|pattern| pattern.matches(&host));
}

/// Unpacks a pack that comes in two chunks, the first byte saying where it is cut.
pub fn unpack(bytes: &[u8]) {
    let Some((cut, body)) = bytes.split_first() else { return };
    let (first, rest) = body.split_at(usize::from(*cut).min(body.len()));
    let (mut unpacker, mut again) = (Unpacker::default(), Vec::new());
    for chunk in [first, rest] {
        unpacker.push(chunk);
        loop {
            match unpacker.next_blob() {
                Ok(Some((digest, blob))) => {
                    assert!(Digest::of(&blob) == digest, "a blob under another's name");
                    pack(&mut again, &digest, &blob);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
    if unpacker.finish().is_ok() {
        assert!(again == body, "what was unpacked is not what was sent");
    }
}

/// Reads the body of a purge, and the scopes in it.
pub fn purge(bytes: &[u8]) {
    let Ok(request) = serde_json::from_slice::<PurgeRequest>(bytes) else { return };
    for url in request.urls.iter().filter_map(|url| url.parse::<UrlScope>().ok()) {
        assert!(url.to_string().parse::<UrlScope>().is_ok_and(|again| again == url), "{url} is not canonical");
    }
    for prefix in request.prefixes.iter().filter_map(|prefix| prefix.parse::<PrefixScope>().ok()) {
        assert!(prefix.to_string().parse::<PrefixScope>().is_ok_and(|again| again == prefix), "{prefix} is not canonical");
    }
    let _ = request.tags.iter().filter_map(|tag| tag.parse::<Tag>().ok()).count();
}

/// Reads a line of the feed; what we write of it can be read again.
pub fn feed_line(bytes: &[u8]) {
    let Ok(line) = serde_json::from_slice::<FeedLine>(bytes) else { return };
    let written = serde_json::to_vec(&line);
    assert!(written.is_ok_and(|text| serde_json::from_slice::<FeedLine>(&text).is_ok()), "a line that can't be passed on");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proptest::test_runner::RngSeed;

    use super::*;
    use crate::{Chain, Epoch, Event, Fact, Mode, Owner, Scope, Timestamp};

    const PIECES: &[&str] = &[
        "/",
        "a",
        "%41",
        "%2f",
        "..",
        "?",
        "#",
        "*.",
        "H",
        ".",
        ":80",
        "[::1]",
        "@",
        "{",
        "}",
        "[",
        "]",
        "\"",
        ":",
        ",",
        "\"urls\":",
        "\"tags\":",
        "\"h/a\"",
        "\"mode\":\"soft\"",
        "\"epoch\":\"0101010101010101\"",
        "\"from\":0",
        "\"events\":[",
        "null",
        "1e999",
        "-1",
        "\\u0000",
        " ",
    ];

    /// A line that is well formed, for others to be bent from.
    fn whole_line() -> Vec<u8> {
        let fact = Fact::purged(Owner::default(), Mode::Hard, vec![Scope::All]);
        let event = Event { seq: 1, at: Timestamp::from_millis(0), actor: "test".to_owned(), fact };
        let epoch = Epoch::from_bytes([1; 8]);
        let line = FeedLine { epoch, from: 0, to: 1, chain: Chain::START, head: 1, events: vec![event], live: None, questions: vec![] };
        serde_json::to_vec(&line).unwrap()
    }

    /// The same with one byte changed and the end cut off.
    fn bent(whole: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
        (0..whole.len(), any::<u8>(), 0..=whole.len()).prop_map(move |(at, byte, length)| {
            let mut bent = whole.clone();
            bent[at] = byte;
            bent.truncate(length.max(at + 1));
            bent
        })
    }

    fn whole_pack() -> Vec<u8> {
        let mut packed = vec![40];
        for blob in [&b""[..], b"abc", &[7; 50]] {
            pack(&mut packed, &Digest::of(blob), blob);
        }
        packed
    }

    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let scrambled = vec(select(PIECES), 0..12).prop_map(|pieces| pieces.concat().into_bytes());
        let purge = br#"{"urls":["http://h.test/a?b"],"tags":["t"],"prefixes":["h/a/"],"mode":"soft","wait":"none"}"#.to_vec();
        prop_oneof![1 => vec(any::<u8>(), 0..64), 4 => scrambled, 1 => bent(whole_line()), 1 => bent(whole_pack()), 1 => bent(purge)]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 512, failure_persistence: None, rng_seed: RngSeed::Fixed(3986), ..ProptestConfig::default()
        })]

        #[test]
        fn no_bytes_of_a_stranger_make_a_reader_panic(bytes in bytes()) {
            target(&bytes);
            host(&bytes);
            unpack(&bytes);
            purge(&bytes);
            feed_line(&bytes);
        }
    }

    #[test]
    fn what_is_well_formed_goes_through() {
        feed_line(&whole_line());
        unpack(&whole_pack());
        assert!(serde_json::from_slice::<FeedLine>(&whole_line()).is_ok());
    }
}
