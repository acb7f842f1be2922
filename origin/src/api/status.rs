//! The network as the origin sees it, and the journal as it stands.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use wire::{Event, Grant, SiteStatus, Status};

use super::{Shared, name};
use crate::auth;
use crate::clock::boottime;
use crate::fault::Fault;
use crate::journal::Fit;

/// Events in one answer.
const PAGE: usize = 1000;

/// Followers, leases, sites, and how far everybody is.
#[utoipa::path(get, path = "/v1/status", responses((status = 200, body = Status)))]
pub(super) async fn status(core: Shared, request: HttpRequest) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must(&Grant::Read)?;
    let engines = vec![core.custody.status(), core.blobs.status().await];
    let network = core.network();
    let (head, complete) = core.progress().await;
    let followers = core.book().status(head.seq, boottime());
    let state = core.journal.state();
    let sites = state.sites.iter().map(|(name, site)| SiteStatus {
        site: name.clone(),
        aliases: site.aliases.iter().map(|(alias, at)| (alias.clone(), at.version)).collect(),
        versions: site.versions.len() as u64,
    });
    let config = state.config.as_ref().map(|version| version.number);
    Ok(HttpResponse::Ok().json(Status {
        network: network.name.clone(),
        position: head,
        config,
        complete,
        followers,
        sites: sites.collect(),
        engines,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    #[serde(default)]
    after: Option<String>,
}

/// The journal's events behind a position or a seq, the audit trail; secrets never stood in it.
#[utoipa::path(get, path = "/v1/journal", params(("after" = Option<String>, Query)), responses((status = 200, body = Object)))]
pub(super) async fn journal(core: Shared, request: HttpRequest, query: web::Query<After>) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must(&Grant::Admin)?;
    let seq = match query.after.as_deref() {
        None => 0,
        Some(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => name(text)?,
        Some(text) => {
            let position: wire::Position = name(text)?;
            if core.fit(&position).await? != Fit::Here {
                return Err(Fault::NeedsSnapshot(format!("events behind {position} were cut, or it is of another history")));
            }
            position.seq
        }
    };
    let stored = core.journal.read_after(seq, PAGE).await?;
    let events: Vec<Event> = stored.iter().filter_map(|event| serde_json::from_str(&event.json).ok()).collect();
    Ok(HttpResponse::Ok().json(serde_json::json!({ "head": core.journal.head(), "events": events })))
}
