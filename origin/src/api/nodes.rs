//! Nodes as the operator handles them: an edge is taken out of service.

use actix_web::{HttpRequest, HttpResponse, web};
use wire::{Grant, NodeName};

use super::{Shared, name};
use crate::auth;
use crate::fault::Fault;

/// Retires an edge until it is started anew: it gets no lease any more, the DNS loses it at once, and
/// receipts when its last lease has ended.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", params(("name" = String, Path)), responses((status = 204), (status = 404, body = wire::Problem)))]
pub(super) async fn drain(core: Shared, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    core.know_all().await?;
    caller.must(&Grant::Admin)?;
    let edge: NodeName = name(&path)?;
    if !core.drain(&edge).await? {
        return Err(Fault::NotFound(format!("no edge `{edge}` has followed this origin; see `atoll status`")));
    }
    tracing::info!(actor = caller.name, %edge, "`{edge}` was drained: it gets no lease until it is started anew");
    Ok(HttpResponse::NoContent().finish())
}
