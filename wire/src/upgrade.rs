//! Old and new versions meet during every upgrade: what a node of this version does with what an older and a newer one
//! say. What an older one does with what this one says is that older version's test; the golden files hold that still.

use serde_json::{Value, json};

use crate::{Ack, AckAnswer, Class, Event, Fact, FeedLine, Matched, Owner, Position, PurgeTable, Refused, State, Subject};

const POSITION: &str = "0707070707070707.42.000102030405060708090a0b0c0d0e0f";

fn event(seq: u64, more: &Value) -> Event {
    let mut event = json!({ "seq": seq, "at": "2026-01-02T03:04:05.006Z", "actor": "ci" });
    event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(event).unwrap()
}

/// Tells whether an entry that no purge names is gone after an event.
fn takes_all(event: &Event) -> bool {
    let table = PurgeTable::new([1; 16]);
    let (owner, host, sent) = (Owner::default(), "h".parse().unwrap(), "/".parse().unwrap());
    let slots = table.slots(&Subject { owner: &owner, host: &host, sent: &sent, keyed: None, tags: &[] });
    table.hear(event);
    table.matched(&slots, &host, &sent, 0) != Matched::Nothing
}

#[test]
fn a_purge_that_a_newer_version_wrote_takes_what_it_names_or_everything() {
    let scope = json!([{ "tag": "t" }]);
    let cases = [
        (
            "with a member that is not known",
            json!({ "kind": "Purged", "class": "purge", "v": 1, "owner": "default", "mode": "hard", "scopes": scope, "hint": 1 }),
            false,
        ),
        (
            "of a newer form",
            json!({ "kind": "Purged", "class": "purge", "v": 2, "owner": "default", "mode": "hard", "scopes": scope }),
            true,
        ),
        (
            "of a newer mode",
            json!({ "kind": "Purged", "class": "purge", "v": 1, "owner": "default", "mode": "softer", "scopes": scope }),
            true,
        ),
        (
            "of a newer scope",
            json!({ "kind": "Purged", "class": "purge", "v": 1, "owner": "default", "mode": "hard", "scopes": [{ "regex": ".*" }] }),
            true,
        ),
        ("of a newer kind", json!({ "kind": "PurgedByVariant", "class": "purge", "v": 1, "variant": "fr" }), true),
    ];
    for (what, more, takes) in cases {
        assert_eq!(takes_all(&event(1, &more)), takes, "{what}");
    }
}

#[test]
fn a_purge_that_an_older_version_wrote_is_read() {
    let old =
        event(1, &json!({ "kind": "Purged", "class": "purge", "v": 1, "owner": "default", "mode": "hard", "scopes": [{ "all": true }] }));
    assert!(matches!(&old.fact, Fact::Purged { once: None, again_after_ms: None, repeats: None, .. }) && takes_all(&old));
}

#[test]
fn what_a_newer_version_configures_is_known_to_be_a_configuration_and_all_else_is_skipped() {
    for (class, v) in [("config", 2), ("config", 1), ("weather", 1), ("site", 7)] {
        let event = event(1, &json!({ "kind": "Newer", "class": class, "v": v, "sunny": true }));
        let Fact::Unknown { class: read, rest, .. } = &event.fact else { panic!("{event:?}") };
        assert_eq!((read, rest.get("sunny")), (&Class::from(class.to_owned()), Some(&json!(true))));
        assert!(!takes_all(&event), "{class}");
        assert_eq!(serde_json::to_value(&event).unwrap()["sunny"], true, "it is handed on as it was");
    }
}

#[test]
fn lines_and_acks_with_members_of_a_newer_version_are_read() {
    let line = json!({
        "epoch": "0707070707070707", "from": 4, "to": 5, "chain": "000102030405060708090a0b0c0d0e0f", "head": 5,
        "events": [{ "seq": 5, "at": "2026-01-02T03:04:05.006Z", "actor": "ci", "kind": "Newer", "class": "weather", "v": 3 }],
        "signature": "…",
    });
    assert_eq!(serde_json::from_value::<FeedLine>(line).unwrap().events.len(), 1);
    let ack = json!({
        "follower": "fra-1", "role": "edge", "region": "fra", "life": "a1", "protocol": [1, 9], "position": POSITION, "battery": 0.9,
    });
    assert_eq!(serde_json::from_value::<Ack>(ack).unwrap().protocol, [1, 9]);
    let refused: AckAnswer = serde_json::from_value(json!({ "head": 9, "lease_ms": 0, "reason": "solar_eclipse", "until": 7 })).unwrap();
    assert_eq!((refused.lease_ms, refused.reason, refused.anew), (0, Some(Refused::Other), false));
}

#[test]
fn a_snapshot_of_a_newer_version_is_read_and_one_of_an_older_version_has_purged_everything_before_it() {
    let state = State::new(POSITION.parse::<Position>().unwrap().epoch, [3; 16]);
    let mut written = serde_json::to_value(&state).unwrap();
    written["comets"] = json!([]);
    assert!(serde_json::from_value::<State>(written.clone()).is_ok());

    // The purge table of the first version had other slots and did not say so.
    written["purges"] = json!({ "key": "00".repeat(16), "newest": 7, "hard": [[5, 7]], "soft": [], "prefixes": [] });
    if let Some(control) = written["control"].as_object_mut() {
        control.retain(|member, _| ["streams", "tokens", "condemned", "configs"].contains(&member.as_str()));
    }
    let old: State = serde_json::from_value(written).unwrap();
    let (owner, host, sent) = (Owner::default(), "h".parse().unwrap(), "/".parse().unwrap());
    let slots = old.purges.slots(&Subject { owner: &owner, host: &host, sent: &sent, keyed: None, tags: &[] });
    assert_eq!(old.purges.matched(&slots, &host, &sent, 6), Matched::Hard(7));
    assert_eq!(old.purges.matched(&slots, &host, &sent, 7), Matched::Nothing);
}
