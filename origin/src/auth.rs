//! Who calls, and what that bearer may do. Tokens are random, so their SHA-256 is all that is kept.

use std::collections::{BTreeMap, HashMap};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use actix_web::HttpRequest;
use actix_web::http::header::HeaderMap;
use subtle::ConstantTimeEq as _;
use wire::{Control, Digest, Fact, Grant, Secret, StoredToken};

use crate::core::Core;
use crate::fault::Fault;

/// Somebody whose token is known.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The token's id; `None` for the one that the configuration file names.
    pub(crate) id: Option<String>,
    /// The hash of the token.
    pub(crate) hash: Digest,
    /// What the journal calls them.
    pub(crate) name: String,
    can: Vec<Grant>,
}

impl Caller {
    /// Refuses what the token does not allow.
    pub(crate) fn must(&self, needed: &Grant) -> Result<(), Fault> {
        if self.may(needed) {
            return Ok(());
        }
        Err(Fault::Forbidden(format!("`{needed}` is needed, the token of `{}` has only {}", self.name, self.scopes())))
    }

    /// Tells whether the token allows it.
    pub(crate) fn may(&self, needed: &Grant) -> bool {
        self.can.iter().any(|held| held.covers(needed))
    }

    /// Tells whether the token speaks for any follower of this role.
    pub(crate) fn must_follow(&self, role: wire::Role) -> Result<(), Fault> {
        let follows = |held: &Grant| {
            matches!(held, Grant::Admin | Grant::Follow(None, _)) || matches!(held, Grant::Follow(Some(own), _) if *own == role)
        };
        if self.can.iter().any(follows) {
            return Ok(());
        }
        Err(Fault::Forbidden(format!("`follow:{role}/NAME` is needed, the token of `{}` has only {}", self.name, self.scopes())))
    }

    /// Returns somebody who may do this.
    #[cfg(test)]
    pub(crate) fn of_test(can: Vec<Grant>) -> Self {
        Self { id: None, hash: Digest::of(b""), name: "test".to_owned(), can }
    }

    fn scopes(&self) -> String {
        self.can.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Finds out who calls.
pub(crate) async fn caller(core: &Core, request: &HttpRequest) -> Result<Caller, Fault> {
    find(core, bearer(request.headers())).await
}

/// Finds out who calls, where clients of another API send a token in a `field` of their own, or else as a bearer.
pub(crate) async fn caller_by(core: &Core, request: &HttpRequest, field: &str) -> Result<Caller, Fault> {
    find(core, alone_in(request.headers(), field).or_else(|| bearer(request.headers()))).await
}

/// A token may have been revoked elsewhere, or issued a moment ago: this origin must know what the others know.
async fn find(core: &Core, token: Option<Secret>) -> Result<Caller, Fault> {
    core.must_be_current()?;
    core.decide(|| known(core, token.as_ref())).await
}

fn bearer(headers: &HeaderMap) -> Option<Secret> {
    let (scheme, token) = headers.get("authorization")?.to_str().ok()?.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty()).then(|| Secret::from_text(token))
}

fn alone_in(headers: &HeaderMap, field: &str) -> Option<Secret> {
    headers.get(field)?.to_str().ok().filter(|token| !token.trim().is_empty()).map(Secret::from_text)
}

/// The ids of the tokens in force by their hashes, as of the last change of the tokens.
///
/// Looking a hash up takes a time that depends on its bytes. That tells nothing of use: who sends a guess does not choose
/// its SHA-256, and what could be learnt of the hashes that are kept leads to no secret of 256 random bits.
#[derive(Debug, Default)]
pub(crate) struct TokensByHash {
    /// With the last seq of the tokens' stream.
    ids: Mutex<Option<(u64, HashMap<Digest, String>)>>,
}

impl TokensByHash {
    /// Returns the id of the token with this hash, and the token.
    fn find<'a>(&self, control: &'a Control, hash: &Digest) -> Option<(&'a String, &'a StoredToken)> {
        let seq = control.head_of("tokens");
        let mut cached = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.as_ref().is_none_or(|(of, _)| *of != seq) {
            *cached = Some((seq, control.tokens.iter().map(|(id, token)| (token.hash, id.clone())).collect()));
        }
        let (_, ids) = cached.as_ref()?;
        control.tokens.get_key_value(ids.get(hash)?)
    }
}

fn known(core: &Core, token: Option<&Secret>) -> Result<Caller, Fault> {
    by_hash(core, token.ok_or(Fault::Unauthorised)?.hash())
}

/// Tells whether a token is still in force, as far as this origin knows.
pub(crate) fn is_in_force(core: &Core, hash: &Digest) -> bool {
    by_hash(core, *hash).is_ok()
}

fn by_hash(core: &Core, hash: Digest) -> Result<Caller, Fault> {
    {
        let state = core.journal.state();
        if let Some((id, token)) = state.control.as_ref().and_then(|control| core.tokens.find(control, &hash)) {
            return Ok(Caller { id: Some(id.clone()), hash, name: token.name.clone(), can: token.can.clone() });
        }
    }
    let same = |known: &Digest| bool::from(known.as_bytes().ct_eq(hash.as_bytes()));
    if core.own().follow_token.as_ref().is_some_and(same) {
        return Ok(Caller { id: None, hash, name: "follow".to_owned(), can: vec![Grant::Follow(None, None)] });
    }
    Err(Fault::UnknownToken)
}

/// Makes a new random secret.
pub(crate) fn new_secret() -> Result<Secret, Fault> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| Fault::Storage(error.to_string()))?;
    Ok(Secret::from_bytes(bytes))
}

/// Returns the facts of the first start: an admin's and the followers' token, whose secrets are
/// written beside the journal for whoever may read that folder.
pub(crate) fn first_tokens(folder: &Path) -> anyhow::Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for (name, can) in built_in() {
        let secret = write_new(&folder.join(format!("{name}.token")))?;
        facts.push(issued(name.to_owned(), name, &secret, can));
    }
    Ok(facts)
}

/// Returns the facts of a later start: who lost a token's file, or has one of another journal, would be
/// locked out for good, so a new token is issued into it. Where `has_follow_token`, followers have
/// another one than the file's.
///
/// The former `admin` is revoked: who has its file now is not known, unless it may be one of `others`, origins that share
/// the journal and have files of their own. The former `follow` goes on, since followers on other machines may have it, and
/// would be fenced without.
pub(crate) fn lost_tokens(
    folder: &Path,
    tokens: &BTreeMap<String, StoredToken>,
    has_follow_token: bool,
    others: bool,
) -> anyhow::Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for (name, can) in built_in() {
        let path = folder.join(format!("{name}.token"));
        let is_admin = can == Grant::Admin;
        if holds_one(&path, tokens, &can) || (has_follow_token && !is_admin) {
            continue;
        }
        let secret = write_new(&path)?;
        let mut id = name.to_owned();
        let mut former = "";
        if tokens.contains_key(name) && is_admin && !others {
            facts.push(Fact::TokenRevoked { id: id.clone() });
            former = "; the former one is revoked";
        } else if tokens.contains_key(name) {
            id = id_of(&secret, name);
            former = match others {
                true => "; those of other origins go on",
                false => "; the former one goes on, for followers elsewhere: revoke it once they have the new one",
            };
        }
        tracing::warn!("{} was missing or held no token of this journal: token `{id}` was issued into it{former}", path.display());
        facts.push(issued(id, name, &secret, can));
    }
    Ok(facts)
}

/// What an origin gives to whoever may read its folder, beside what is issued later.
fn built_in() -> [(&'static str, Grant); 2] {
    [("admin", Grant::Admin), ("follow", Grant::Follow(None, None))]
}

/// Tells whether a file holds a token that may do what it is for. One that is there but can't be read is
/// left to whoever made it so.
fn holds_one(path: &Path, tokens: &BTreeMap<String, StoredToken>, can: &Grant) -> bool {
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let hash = Secret::from_text(&text).hash();
            tokens.values().any(|token| token.hash == hash && token.can.iter().any(|held| held.covers(can)))
        }
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) => false,
        Err(error) => {
            tracing::warn!("failed to read {}: {error}; it is left as it is", path.display());
            true
        }
    }
}

fn issued(id: String, name: &str, secret: &Secret, can: Grant) -> Fact {
    Fact::TokenIssued { id, name: name.to_owned(), hash: secret.hash(), can: vec![can], purge_rate: None }
}

/// Returns an id that does not lead to the secret, nor repeats.
fn id_of(secret: &Secret, name: &str) -> String {
    format!("{name}-{}", Digest::of(secret.hash().to_string().as_bytes()).short())
}

fn write_new(path: &Path) -> anyhow::Result<Secret> {
    let secret = new_secret().map_err(|fault| anyhow::anyhow!("{fault}"))?;
    write_secret(path, &secret)?;
    Ok(secret)
}

fn write_secret(path: &Path, secret: &Secret) -> std::io::Result<()> {
    let staged = path.with_extension("token.new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    writeln!(file, "{}", secret.reveal())?;
    file.sync_all()?;
    std::fs::rename(staged, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};
    use wire::Timestamp;

    fn stored(facts: &[Fact], tokens: &mut BTreeMap<String, StoredToken>) {
        for fact in facts {
            match fact {
                Fact::TokenIssued { id, name, hash, can, purge_rate } => {
                    let (name, can, issued_at) = (name.clone(), can.clone(), Timestamp::from_millis(0));
                    tokens.insert(id.clone(), StoredToken { name, hash: *hash, can, issued_at, purge_rate: *purge_rate });
                }
                Fact::TokenRevoked { id } => {
                    tokens.remove(id);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_token_comes_as_a_bearer_or_in_the_field_that_another_api_has_for_it() {
        let headers = |fields: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for &(name, value) in fields {
                headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            headers
        };
        let cases = [
            (headers(&[("authorization", "Bearer  one ")]), Some("one"), None),
            (headers(&[("authorization", "bEARER one"), ("fastly-key", " two ")]), Some("one"), Some("two")),
            (headers(&[("authorization", "Basic b25l"), ("fastly-key", "two")]), None, Some("two")),
            (headers(&[("authorization", "Bearer "), ("fastly-key", " ")]), None, None),
            (headers(&[("authorization", "one"), ("x-auth-key", "two")]), None, None),
        ];
        for (headers, as_bearer, in_field) in cases {
            assert_eq!(bearer(&headers).as_ref().map(Secret::reveal), as_bearer, "{headers:?}");
            assert_eq!(alone_in(&headers, "fastly-key").as_ref().map(Secret::reveal), in_field, "{headers:?}");
        }
    }

    #[test]
    fn a_token_is_found_by_its_hash_until_it_is_revoked() {
        let (tokens, mut control) = (TokensByHash::default(), Control::default());
        let found = |control: &Control, hash: &[u8]| tokens.find(control, &Digest::of(hash)).map(|(id, _)| id.clone());
        let issue = |control: &mut Control, id: &str, seq| {
            let (name, can, issued_at) = (String::new(), vec![Grant::Read], Timestamp::from_millis(0));
            let token = StoredToken { name, hash: Digest::of(id.as_bytes()), can, issued_at, purge_rate: None };
            control.tokens.insert(id.to_owned(), token);
            control.streams.insert("tokens".to_owned(), seq);
        };
        assert_eq!(found(&control, b"a"), None);
        issue(&mut control, "a", 1);
        assert_eq!((found(&control, b"a"), found(&control, b"b")), (Some("a".to_owned()), None));
        issue(&mut control, "b", 2);
        assert_eq!((found(&control, b"a"), found(&control, b"b")), (Some("a".to_owned()), Some("b".to_owned())));
        control.tokens.remove("a");
        control.streams.insert("tokens".to_owned(), 3);
        assert_eq!((found(&control, b"a"), found(&control, b"b")), (None, Some("b".to_owned())));
    }

    #[test]
    fn a_lost_token_file_is_written_anew_and_only_the_former_admin_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let mut tokens = BTreeMap::new();
        stored(&first_tokens(folder.path()).unwrap(), &mut tokens);
        assert!(lost_tokens(folder.path(), &tokens, false, false).unwrap().is_empty(), "nothing is lost");
        let first = tokens.clone();

        std::fs::remove_file(folder.path().join("admin.token")).unwrap();
        std::fs::write(folder.path().join("follow.token"), "of another journal").unwrap();
        stored(&lost_tokens(folder.path(), &tokens, false, false).unwrap(), &mut tokens);

        assert_eq!(tokens.len(), 3);
        assert!(tokens["admin"].hash != first["admin"].hash && tokens["follow"] == first["follow"], "{tokens:?}");
        for (name, can) in built_in() {
            assert!(holds_one(&folder.path().join(format!("{name}.token")), &tokens, &can), "{name}");
        }
        assert!(lost_tokens(folder.path(), &tokens, false, false).unwrap().is_empty(), "it is mended once");
    }

    #[test]
    fn an_origin_that_joins_others_gets_tokens_of_its_own_and_revokes_none() {
        let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut tokens = BTreeMap::new();
        stored(&first_tokens(first.path()).unwrap(), &mut tokens);

        stored(&lost_tokens(second.path(), &tokens, false, true).unwrap(), &mut tokens);

        assert_eq!(tokens.len(), 4);
        for folder in [first, second] {
            for (name, can) in built_in() {
                assert!(holds_one(&folder.path().join(format!("{name}.token")), &tokens, &can), "{name}");
            }
        }
    }

    #[test]
    fn a_revoked_admin_is_issued_anew_and_a_follow_token_of_the_file_needs_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let mut tokens = BTreeMap::new();
        stored(&first_tokens(folder.path()).unwrap(), &mut tokens);
        tokens.clear();

        let facts = lost_tokens(folder.path(), &tokens, true, false).unwrap();

        assert!(matches!(facts.as_slice(), [Fact::TokenIssued { id, .. }] if id == "admin"), "{facts:?}");
    }
}
