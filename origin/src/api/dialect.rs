//! What purging in the dialects of other CDNs has in common: whose entries are meant, how long an answer may take, how far
//! the purge has come, and a refusal in another's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError as _};
use config::Network;
use serde_json::Value;
use wire::{Grant, HostPattern, Owner, PurgeRequest, Receipt, ReceiptState, Wait};

use super::idempotency_key;
use super::purges::{NO_STORE, carry_out};
use crate::auth::Caller;
use crate::core::Core;
use crate::fault::Fault;

/// How long a call waits for every edge: clients of other CDNs expect "accepted" at once, and some give up after five seconds.
const PATIENCE_MS: u64 = 3000;

/// Returns a part of the path by its name.
pub(super) fn part<'a>(request: &'a HttpRequest, name: &str) -> &'a str {
    request.match_info().get(name).unwrap_or_default()
}

/// Returns every host of a site or route, with whose it is.
pub(super) fn hosts(network: &Network) -> impl Iterator<Item = (&Owner, &HostPattern)> {
    let of_sites = network.sites.values().flat_map(|site| site.hosts.iter().map(move |host| (&site.owner, host)));
    let of_routes = network.routes.values().flat_map(|route| route.hosts.iter().map(move |host| (&route.owner, host)));
    of_sites.chain(of_routes)
}

/// Returns the owners of sites and routes that the caller may purge.
pub(super) fn owners(caller: &Caller, network: &Network) -> BTreeSet<Owner> {
    let all: BTreeSet<&Owner> = hosts(network).map(|(owner, _)| owner).collect();
    all.into_iter().filter(|owner| caller.may(&Grant::Purge(Some((*owner).clone())))).cloned().collect()
}

/// Returns the owner that the caller names by `id`. One that has nothing is refused: whoever left another CDN's id in a
/// client's settings must not read that all went well.
pub(super) fn owner(caller: &Caller, network: &Network, id: &str) -> Result<Owner, Fault> {
    let owners = owners(caller, network);
    if let Ok(owner) = id.parse::<Owner>() {
        caller.must(&Grant::Purge(Some(owner.clone())))?;
        if owners.contains(&owner) {
            return Ok(owner);
        }
    }
    let known: Vec<_> = owners.iter().map(Owner::as_str).collect();
    let id: String = id.chars().take(80).collect();
    Err(Fault::NotFound(format!("no site or route has the owner `{id}`; the token may purge what these have: {}", known.join(", "))))
}

/// Purges and waits for a moment. What was `sent` may name an `Idempotency-Key`, as any purge may.
pub(super) async fn purge(core: &Arc<Core>, caller: &Caller, sent: &HttpRequest, asked: PurgeRequest) -> Result<Receipt, Fault> {
    let key = idempotency_key(sent.headers())?;
    let asked = PurgeRequest { wait: Wait::All, timeout_ms: Some(PATIENCE_MS), ..asked };
    carry_out(core, caller, asked, key.as_ref()).await
}

/// Begins the answer to a purge that was stored, with how far it has come: `Atoll-Purge: complete; seq=7`.
pub(super) fn accepted(receipt: &Receipt) -> HttpResponseBuilder {
    let state = match receipt.state {
        ReceiptState::Complete => "complete",
        ReceiptState::Pending => "pending",
        ReceiptState::Partial => "partial",
    };
    let mut response = HttpResponse::Ok();
    response.insert_header(("Atoll-Purge", format!("{state}; seq={}", receipt.seq))).insert_header(NO_STORE);
    response
}

/// Answers a fault with a body in another's words; its status stays, and what its header says, such as Retry-After.
pub(super) fn refuse(fault: &Fault, body: &Value) -> HttpResponse {
    let problem = fault.error_response();
    let mut response = HttpResponse::build(problem.status());
    for (name, value) in problem.headers().iter().filter(|(name, _)| **name != CONTENT_TYPE) {
        response.append_header((name.clone(), value.clone()));
    }
    response.json(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::Duration;

    fn network() -> Network {
        Network::from_json(&json!({
            "sites": { "www": { "hosts": ["www.test", "*.www.test"] } },
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "api": { "hosts": ["api.test"], "upstream": "u", "owner": "shop" } },
        }))
        .unwrap()
    }

    fn caller(grants: &[&str]) -> Caller {
        Caller::of_test(grants.iter().map(|grant| grant.parse().unwrap()).collect())
    }

    #[test]
    fn an_id_is_an_owner_that_has_something_and_that_the_token_may_purge() {
        let (network, any, shop) = (network(), caller(&["purge:*"]), caller(&["purge:shop", "purge:gone"]));
        assert_eq!(owner(&any, &network, "default").unwrap().as_str(), "default");
        assert_eq!(owner(&shop, &network, "shop").unwrap().as_str(), "shop");
        assert!(matches!(owner(&shop, &network, "default"), Err(Fault::Forbidden(_))));
        let foreign = "SU1Z0isxPaozGVKXdv0eY";
        for (caller, id, known) in [(&any, "nobody", "default, shop"), (&any, foreign, "default, shop"), (&shop, "gone", "shop")] {
            let fault = owner(caller, &network, id).unwrap_err();
            assert!(matches!(&fault, Fault::NotFound(said) if said.contains(id) && said.ends_with(&format!(": {known}"))), "{fault}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_status_and_its_fields_but_not_its_words() {
        for (fault, status, field, value) in [
            (Fault::UnknownToken, 401, "www-authenticate", "Bearer"),
            (Fault::TooFast("no".to_owned(), Duration::from_secs(2)), 429, "retry-after", "2"),
        ] {
            let response = refuse(&fault, &json!({ "msg": "no" }));
            assert_eq!((response.status().as_u16(), response.headers().get(field).unwrap().to_str().unwrap()), (status, value));
            let kinds: Vec<_> = response.headers().get_all(CONTENT_TYPE).collect();
            assert_eq!(kinds, ["application/json"]);
        }
    }
}
