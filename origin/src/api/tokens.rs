//! Tokens: issued, listed, revoked. A secret is shown once, in the answer that issues it.

use actix_web::{HttpRequest, HttpResponse, web};
use config::PURGE_RATES;
use serde::Deserialize;
use wire::{Fact, Grant, StoredToken, TokenInfo, TokenIssued, TokenRequest};

use super::{Shared, read_json};
use crate::auth;
use crate::clock::boottime;
use crate::decide;
use crate::fault::Fault;

/// Tokens in all.
const MOST: usize = 10_000;

/// Issues a token.
#[utoipa::path(post, path = "/v1/tokens", request_body = TokenRequest, responses((status = 201, body = TokenIssued)))]
pub(super) async fn issue(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    caller.must(&Grant::Admin)?;
    let TokenRequest { name, can, purge_rate } = read_json(&core, &caller, &request, body).await?;
    core.know_all().await?;
    if can.is_empty() {
        return Err(Fault::bad("a token that may do nothing is of no use: give it at least one scope in `can`"));
    }
    if name.len() > 100 || name.chars().any(char::is_control) {
        return Err(Fault::bad("a token's name has at most 100 characters, and no control characters"));
    }
    if let Some(rate) = purge_rate.filter(|rate| !PURGE_RATES.contains(rate)) {
        return Err(Fault::bad(format!(
            "a token's purge_rate is {} to {} scopes per second, not {rate}",
            PURGE_RATES.start(),
            PURGE_RATES.end()
        )));
    }
    let count = core.journal.state().control.as_ref().map_or(0, |control| control.tokens.len());
    if count >= MOST {
        return Err(Fault::Conflict(format!("there are {count} tokens already; revoke some")));
    }
    let secret = auth::new_secret()?;
    // The id must not lead to the secret, nor repeat.
    let id = wire::Digest::of(secret.hash().to_string().as_bytes()).short();
    let name = if name.is_empty() { id.clone() } else { name };
    let issued = Fact::TokenIssued { id: id.clone(), name, hash: secret.hash(), can, purge_rate };
    core.append(&caller.name, vec![issued], Vec::new()).await?;
    Ok(HttpResponse::Created().insert_header(("Cache-Control", "no-store")).json(TokenIssued { id, token: secret.reveal().to_owned() }))
}

/// Lists the tokens in force, without their secrets.
#[utoipa::path(get, path = "/v1/tokens", responses((status = 200, body = Vec<TokenInfo>)))]
pub(super) async fn list(core: Shared, request: HttpRequest) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must(&Grant::Admin)?;
    let state = core.journal.state();
    let tokens = state.control.iter().flat_map(|control| &control.tokens);
    let row = |(id, token): (&String, &StoredToken)| {
        let StoredToken { name, can, issued_at, purge_rate, .. } = token.clone();
        TokenInfo { id: id.clone(), name, can, issued_at, purge_rate }
    };
    let rows: Vec<_> = tokens.map(row).collect();
    Ok(HttpResponse::Ok().json(rows))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct How {
    #[serde(default)]
    force: bool,
}

/// Revokes a token, at once; not the last with scope `admin`, nor, unless by `force`, one for any follower on which some rely.
#[utoipa::path(delete, path = "/v1/tokens/{id}", params(("id" = String, Path), ("force" = Option<bool>, Query)), responses((status = 204), (status = 404, body = wire::Problem), (status = 409, body = wire::Problem)))]
pub(super) async fn revoke(
    core: Shared,
    request: HttpRequest,
    path: web::Path<String>,
    how: web::Query<How>,
) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    core.know_all().await?;
    caller.must(&Grant::Admin)?;
    let id = path.into_inner();
    let relying = core.book().relying_on(&id, boottime());
    let (fact, if_unchanged) = {
        let state = core.journal.state();
        let control = state.control.as_ref().ok_or_else(|| Fault::NotFound(format!("there is no token `{id}`")))?;
        // Of two that revoke the last but one at once, one must lose.
        let tokens = ("tokens".to_owned(), control.streams.get("tokens").copied().unwrap_or(0));
        (decide::revoke(&control.tokens, &id, &relying, how.force)?, vec![tokens])
    };
    core.append(&caller.name, vec![fact], if_unchanged).await?;
    Ok(HttpResponse::NoContent().finish())
}
