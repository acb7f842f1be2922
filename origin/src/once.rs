//! Decides what a request with an idempotency key comes to: it was carried out before, the key stands for another request,
//! or it is to be carried out now.

use wire::{Digest, IdempotencyKey, Once, PurgeRequest, Timestamp, UsedKeys, Wait};

use crate::fault::Fault;

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Before {
    /// The request was carried out by this event.
    Done { seq: u64 },
    /// It was not; the key's stream stands here.
    Never { head: u64 },
}

/// Returns what the journal keeps of a key: it is its sender's own, and stands for what is to be purged, not for how long to
/// wait for it.
pub(crate) fn of(sender: &str, key: &IdempotencyKey, request: &PurgeRequest) -> Result<Once, Fault> {
    let meant = PurgeRequest { wait: Wait::default(), timeout_ms: None, dry_run: false, ..request.clone() };
    let meant = serde_json::to_vec(&meant).map_err(Fault::bad)?;
    // Neither an id of a token nor a key holds a line's end.
    Ok(Once { key: Digest::of(format!("{sender}\n{key}").as_bytes()), request: Digest::of(&meant) })
}

/// Decides whether it was carried out before.
pub(crate) fn before(keys: &UsedKeys, once: &Once, now: Timestamp) -> Result<Before, Fault> {
    let Some(used) = keys.get(&once.key) else { return Ok(Before::Never { head: 0 }) };
    if !used.is_remembered(now) {
        return Ok(Before::Never { head: used.seq });
    }
    if used.once.request != once.request {
        return Err(Fault::Reused(format!(
            "this Idempotency-Key was used by the same token at {} for another purge ({}): give each purge a key of its own",
            used.at, used.seq
        )));
    }
    Ok(Before::Done { seq: used.seq })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use wire::UsedKey;

    const DAY_MS: u64 = 24 * 3600 * 1000;

    fn once(sender: &str, key: &str, request: serde_json::Value) -> Once {
        of(sender, &key.parse().unwrap(), &serde_json::from_value(request).unwrap()).unwrap()
    }

    #[test]
    fn a_key_is_its_senders_own_and_a_request_is_what_it_purges() {
        let first = once("ci", "k", json!({ "tags": ["a"] }));
        for (same, other) in [
            (true, once("ci", "\"k\"", json!({ "tags": ["a"], "wait": "none", "timeout_ms": 5, "owner": "default" }))),
            (false, once("ci", "k", json!({ "tags": ["b"] }))),
            (false, once("ci", "k", json!({ "tags": ["a"], "mode": "soft" }))),
            (false, once("ci", "k", json!({ "tags": ["a"], "again_after_ms": 5 }))),
            (false, once("ci", "K", json!({ "tags": ["a"] }))),
            (false, once("cms", "k", json!({ "tags": ["a"] }))),
        ] {
            assert_eq!(first == other, same, "{other:?}");
        }
        assert_eq!(first.key, once("ci", "k", json!({ "tags": ["b"] })).key);
    }

    #[test]
    fn a_key_stands_for_its_first_request_for_a_day() {
        let (first, other) = (once("ci", "k", json!({ "tags": ["a"] })), once("ci", "k", json!({ "tags": ["b"] })));
        let at = Timestamp::from_millis(1_000);
        let keys = UsedKeys::from(vec![UsedKey { once: first, seq: 42, at }]);
        let later = at.plus_millis(DAY_MS - 1);
        assert_eq!(before(&keys, &first, later).unwrap(), Before::Done { seq: 42 });
        assert!(matches!(before(&keys, &other, later), Err(Fault::Reused(said)) if said.contains("42")));
        assert_eq!(before(&keys, &other, at.plus_millis(DAY_MS)).unwrap(), Before::Never { head: 42 });
        assert_eq!(before(&keys, &once("ci", "new", json!({ "all": true })), later).unwrap(), Before::Never { head: 0 });
    }
}
