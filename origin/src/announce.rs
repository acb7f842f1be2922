//! What the log says of each accepted command: one sentence per fact, for whoever reads along. The
//! journal is the record; this is its voice.

use wire::{Fact, Mode};

/// Returns what happened, in the words of a log line; nothing for the origin's own housekeeping.
pub(crate) fn announce(fact: &Fact) -> Option<String> {
    Some(match fact {
        Fact::VersionPublished { site, version, files, bytes, .. } => {
            format!("published version {} of site `{site}`: {files} files, {bytes} bytes", version.short())
        }
        Fact::AliasMoved { site, alias, version, back: false } => {
            format!("`{alias}` of site `{site}` shows version {}", version.short())
        }
        Fact::AliasMoved { site, alias, version, back: true } => {
            format!("`{alias}` of site `{site}` was rolled back to version {}", version.short())
        }
        Fact::Purged { owner, mode, scopes, repeats, .. } => {
            let mode = if *mode == Mode::Soft { "made stale" } else { "purged" };
            let again = repeats.map(|seq| format!(" again (as {seq})")).unwrap_or_default();
            match scopes.as_slice() {
                [only] => format!("{mode}{again} for owner `{owner}`: {only}"),
                scopes => format!("{mode}{again} for owner `{owner}`: {} scopes", scopes.len()),
            }
        }
        Fact::ConfigChanged { number, .. } => format!("configuration {number} is in force"),
        Fact::TokenIssued { id, name, can, .. } => {
            let can: Vec<_> = can.iter().map(ToString::to_string).collect();
            format!("issued token `{id}` ({name}) for {}", can.join(", "))
        }
        Fact::TokenRevoked { id } => format!("revoked token `{id}`"),
        Fact::VersionRetired { .. }
        | Fact::BlobsCondemned { .. }
        | Fact::BlobsLifted { .. }
        | Fact::BlobsDeleted { .. }
        | Fact::Unknown { .. } => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Digest, Grant, Owner, Scope};

    #[test]
    fn each_command_has_its_sentence_and_no_secret_is_in_it() {
        let purge = |scopes: Vec<Scope>| Fact::purged(Owner::default(), Mode::Hard, scopes);
        let (owner, scopes) = (Owner::default(), vec![Scope::All]);
        let again = Fact::Purged { owner, mode: Mode::Soft, scopes, once: None, again_after_ms: None, repeats: Some(7) };
        let hash = Digest::of(b"secret");
        let (id, name, can) = ("1".to_owned(), "ci".to_owned(), vec![Grant::Read, Grant::Config]);
        let issued = Fact::TokenIssued { id, name, hash, can, purge_rate: None };
        let moved = Fact::AliasMoved { site: "www".parse().unwrap(), alias: "production".parse().unwrap(), version: hash, back: true };
        let cases = [
            (purge(vec![Scope::All]), "purged for owner `default`: all".to_owned()),
            (purge(vec![Scope::All, Scope::All]), "purged for owner `default`: 2 scopes".to_owned()),
            (again, "made stale again (as 7) for owner `default`: all".to_owned()),
            (issued, "issued token `1` (ci) for read, config".to_owned()),
            (moved, format!("`production` of site `www` was rolled back to version {}", hash.short())),
        ];
        for (fact, said) in cases {
            assert_eq!(announce(&fact), Some(said));
        }
        assert_eq!(announce(&Fact::BlobsDeleted { digests: vec![] }), None);
    }
}
