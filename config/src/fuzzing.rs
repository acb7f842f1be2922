//! Doors for the fuzz targets in `fuzz/`: each takes bytes as somebody's file or journal could hold them, and asserts that
//! the checker ends, and says something about what it refuses.
//!
//! In tests the same doors see a few hundred texts from a fixed seed.

use std::path::Path;

use crate::{Complaints, Network, Settings};

/// Reads a configuration file, the first line laid on top as a flag would be.
pub fn file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (flag, text) = text.split_once('\n').unwrap_or(("", text));
    let flags = Some(flag).filter(|flag| !flag.is_empty());
    let read = Settings::from_text(text, Path::new("fuzz.toml"), std::iter::empty(), flags);
    match &read {
        // What was taken is taken again from the journal.
        Ok(settings) => assert!(Network::from_json(&settings.network_json).is_ok(), "{text}"),
        Err(complaints) => assert_spoken(complaints),
    }
}

/// Reads the network's configuration as the journal keeps it.
pub fn network(bytes: &[u8]) {
    let Ok(json) = serde_json::from_slice(bytes) else { return };
    if let Err(complaints) = Network::from_json(&json) {
        assert_spoken(&complaints);
    }
}

fn assert_spoken(complaints: &Complaints) {
    assert!(!complaints.to_string().trim().is_empty(), "a refusal without a word");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use proptest::test_runner::RngSeed;

    use crate::LAPTOP;

    const PIECES: &[&str] = &[
        "[",
        "]",
        "\n",
        "\n",
        " = ",
        "\"",
        "1",
        "-1",
        "1.5",
        "true",
        "\"5s\"",
        "\"1 MiB\"",
        "{ ",
        " }",
        ",",
        ".",
        "regions",
        "sites",
        "routes",
        "upstreams",
        "zones",
        "[sites.a]\n",
        "[routes.a]\n",
        "hosts = [\"*\"]\n",
        "hosts = [\"a\"]\n",
        "upstream = \"u\"\n",
        "[upstreams.u]\n",
        "servers = [\"http://h:1\"]\n",
        "default_lifetime",
        "when_fenced",
        "lease = \"1s\"\n",
        "é",
        "\u{0}",
    ];

    /// The sample with a few lines gone, doubled, or replaced.
    fn bent() -> impl Strategy<Value = String> {
        vec((any::<Index>(), 0..3_u8, vec(select(PIECES), 0..4)), 0..4).prop_map(|changes| {
            let mut lines: Vec<_> = LAPTOP.lines().map(str::to_owned).collect();
            for (at, change, pieces) in changes {
                let at = at.index(lines.len());
                match change {
                    0 => drop(lines.remove(at)),
                    1 => lines.insert(at, lines[at].clone()),
                    _ => lines[at] = pieces.concat(),
                }
            }
            format!("\n{}", lines.join("\n"))
        })
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![1 => ".{0,40}", 3 => vec(select(PIECES), 0..16).prop_map(|pieces| pieces.concat()), 3 => bent()]
    }

    proptest! {
        #![proptest_config(ProptestConfig {
            cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(17), ..ProptestConfig::default()
        })]

        #[test]
        fn no_text_makes_the_checker_panic(text in text()) {
            super::file(text.as_bytes());
            super::network(text.as_bytes());
        }

        #[test]
        fn no_json_makes_the_checker_panic(at in any::<Index>(), section in select(PIECES), value in select(vec!["1", "[]", "{}", "null", "\"a\""])) {
            let sections = ["regions", "sites", "routes", "upstreams", "zones", "network"];
            let inner = serde_json::json!({ section: serde_json::from_str::<serde_json::Value>(value).unwrap() });
            let json = serde_json::json!({ sections[at.index(sections.len())]: { "a": inner } });
            super::network(json.to_string().as_bytes());
        }
    }

    #[test]
    fn the_sample_goes_through() {
        super::file(format!("\n{LAPTOP}").as_bytes());
    }
}
