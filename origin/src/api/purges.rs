//! Purges, and the receipts of purges and of any other event.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use wire::{Grant, PurgePlan, PurgeRequest, Receipt, ReceiptState, Wait};

use super::Shared;
use crate::auth;
use crate::decide;
use crate::fault::Fault;

/// The longest that a call waits for a receipt.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Purges, and waits until every edge has applied it or is fenced.
#[utoipa::path(post, path = "/v1/purges", request_body = PurgeRequest, responses((status = 200, body = Receipt, description = "complete"), (status = 202, body = Receipt, description = "pending or partial")))]
pub(super) async fn purge(core: Shared, request: HttpRequest, body: web::Json<PurgeRequest>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request)?;
    // An edge purges what an unsafe method made invalid there (P8).
    if caller.must_follow(wire::Role::Edge).is_err() {
        caller.must(&Grant::Purge(Some(body.owner.clone())))?;
    }
    let network = core.network();
    let resolved = decide::purge(&body, &network)?;
    if let wire::Fact::Purged { scopes, .. } = &resolved.fact {
        if body.dry_run {
            return Ok(HttpResponse::Ok().json(PurgePlan { scopes: scopes.clone(), notes: resolved.notes }));
        }
        core.metrics.purge_scopes.inc_by(scopes.len() as u64);
    }
    let position = core.append(&caller.name, vec![resolved.fact], Vec::new()).await?;
    core.metrics.purges.inc();
    let patience = body.timeout_ms.map_or_else(|| network.purge_bound() + Duration::from_secs(1), Duration::from_millis);
    let patience = if body.wait == Wait::None { Duration::ZERO } else { patience };
    answer(core.receipt(position.seq, patience.min(LONGEST_WAIT), resolved.notes).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    #[serde(default)]
    timeout_ms: u64,
}

/// Tells what became of the event `seq`; with `timeout_ms` it waits for its completion.
#[utoipa::path(get, path = "/v1/purges/{seq}", params(("seq" = u64, Path), ("timeout_ms" = Option<u64>, Query)), responses((status = 200, body = Receipt), (status = 202, body = Receipt)))]
pub(super) async fn receipt(
    core: Shared,
    request: HttpRequest,
    path: web::Path<u64>,
    query: web::Query<Patience>,
) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request)?;
    if *path == 0 || *path > core.journal.head().seq {
        return Err(Fault::NotFound(format!("the journal has no event {path} yet")));
    }
    let patience = Duration::from_millis(query.timeout_ms).min(LONGEST_WAIT);
    answer(core.receipt(*path, patience, Vec::new()).await?)
}

fn answer(receipt: Receipt) -> Result<HttpResponse, Fault> {
    let mut response = if receipt.state == ReceiptState::Complete { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    Ok(response.json(receipt))
}
