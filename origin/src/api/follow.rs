//! What followers call: the feed, acks, answers to what the feed asked, and the snapshot.

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::stream;
use serde::Deserialize;
use wire::{Ack, AckAnswer, FeedLine, Grant, Position, QuestionAnswer, Role};

use super::{Shared, name, read_json};
use crate::auth;
use crate::fault::Fault;
use crate::feed;
use crate::journal::Fit;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct After {
    after: String,
    role: Role,
}

/// An endless answer: a line per batch of events behind a position, and a line each heartbeat.
#[utoipa::path(get, path = "/v1/feed", params(("after" = String, Query), ("role" = Role, Query)), responses((status = 200, body = FeedLine, content_type = "application/x-ndjson"), (status = 409, body = wire::Problem)))]
pub(super) async fn feed(core: Shared, request: HttpRequest, query: web::Query<After>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    caller.must_follow(query.role)?;
    let after: Position = name(&query.after)?;
    // That the journal lost its end is believed from an ack alone, whose token is bound to a name.
    match core.fit(&after).await? {
        Fit::Here => {}
        Fit::Cut => return Err(Fault::NeedsSnapshot(format!("events behind {after} were cut"))),
        Fit::OtherEpoch => return Err(Fault::NeedsSnapshot(format!("{after} is of another history"))),
        Fit::Lost => {
            return Err(Fault::LostHistory(format!("{after} is not in this journal: it lost its end; acknowledge it, and follow then")));
        }
    }
    let lines = feed::start(core.into_inner(), after, query.role, caller.hash);
    let lines = stream::unfold(lines, |mut lines| async { lines.recv().await.map(|line| (Ok::<_, actix_web::Error>(line), lines)) });
    Ok(HttpResponse::Ok().content_type("application/x-ndjson").insert_header(("Cache-Control", "no-store")).streaming(lines))
}

/// "All up to this position is in force here": answers with a lease, or with the reason for none.
#[utoipa::path(post, path = "/v1/ack", request_body = Ack, responses((status = 200, body = AckAnswer)))]
pub(super) async fn ack(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    let said: Ack = read_json(&core, &caller, &request, body).await?;
    caller.must(&Grant::Follow(Some(said.role), Some(said.follower.clone())))?;
    let answer = core.ack(said, caller.id).await?;
    core.metrics.acks.inc();
    if answer.reason.is_some() {
        core.metrics.acks_refused.inc();
    }
    Ok(HttpResponse::Ok().json(answer))
}

/// What an edge holds of what its feed asked about.
#[utoipa::path(post, path = "/v1/questions/{id}", params(("id" = u64, Path)), request_body = QuestionAnswer, responses((status = 204), (status = 404, body = wire::Problem)))]
pub(super) async fn answer(core: Shared, request: HttpRequest, path: web::Path<u64>, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    let said: QuestionAnswer = read_json(&core, &caller, &request, body).await?;
    caller.must(&Grant::Follow(Some(Role::Edge), Some(said.follower.clone())))?;
    core.questions.answer(*path, &said)?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct For {
    #[serde(default = "edge")]
    role: Role,
}

/// Who does not say what it is begins as an edge: the snapshot that has everything.
fn edge() -> Role {
    Role::Edge
}

/// The fold of the journal as a follower of `role` begins with.
#[utoipa::path(get, path = "/v1/snapshot", params(("role" = Option<Role>, Query)), responses((status = 200, body = Object)))]
pub(super) async fn snapshot(core: Shared, request: HttpRequest, query: web::Query<For>) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must_follow(query.role)?;
    let snapshot = core.journal.state().for_role(query.role);
    Ok(HttpResponse::Ok().json(snapshot))
}
