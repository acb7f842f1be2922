//! Who calls, and what that bearer may do. Tokens are random, so their SHA-256 is all that is kept.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use actix_web::HttpRequest;
use subtle::ConstantTimeEq as _;
use wire::{Digest, Fact, Grant, Secret};

use crate::core::Core;
use crate::fault::Fault;

/// Somebody whose token is known.
#[derive(Debug)]
pub(crate) struct Caller {
    /// What the journal calls them.
    pub(crate) name: String,
    can: Vec<Grant>,
}

impl Caller {
    /// Refuses what the token does not allow.
    pub(crate) fn must(&self, needed: &Grant) -> Result<(), Fault> {
        if self.can.iter().any(|held| held.covers(needed)) {
            return Ok(());
        }
        Err(Fault::Forbidden(format!("`{needed}` is needed, the token of `{}` has only {}", self.name, self.scopes())))
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

    fn scopes(&self) -> String {
        self.can.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
    }
}

/// Finds out who calls.
pub(crate) fn caller(core: &Core, request: &HttpRequest) -> Result<Caller, Fault> {
    let header = request.headers().get("authorization").and_then(|value| value.to_str().ok());
    let token = header.and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| Secret::from_text(token))
    });
    let hash = token.ok_or(Fault::Unauthorised)?.hash();
    let same = |known: &Digest| bool::from(known.as_bytes().ct_eq(hash.as_bytes()));
    let state = core.journal.state();
    let tokens = state.control.iter().flat_map(|control| control.tokens.values());
    // All are compared, so that the time tells nothing about which one fits.
    let found = tokens.fold(None, |found, token| if same(&token.hash) { Some(token) } else { found });
    if let Some(token) = found {
        return Ok(Caller { name: token.name.clone(), can: token.can.clone() });
    }
    if core.follow_token.as_ref().is_some_and(same) {
        return Ok(Caller { name: "follow".to_owned(), can: vec![Grant::Follow(None, None)] });
    }
    Err(Fault::Unauthorised)
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
    for (name, can) in [("admin", Grant::Admin), ("follow", Grant::Follow(None, None))] {
        let secret = new_secret().map_err(|fault| anyhow::anyhow!("{fault}"))?;
        write_secret(&folder.join(format!("{name}.token")), &secret)?;
        facts.push(Fact::TokenIssued { id: name.to_owned(), name: name.to_owned(), hash: secret.hash(), can: vec![can] });
    }
    Ok(facts)
}

fn write_secret(path: &Path, secret: &Secret) -> std::io::Result<()> {
    let staged = path.with_extension("token.new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
    writeln!(file, "{}", secret.reveal())?;
    file.sync_all()?;
    std::fs::rename(staged, path)
}
