//! Purges, and the receipts of purges and of any other event.

use std::sync::PoisonError;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use wire::{Fact, Grant, IdempotencyKey, Once, Owner, PurgePlan, PurgeRequest, Receipt, ReceiptState, Role, Timestamp, Wait};

use super::{PURGE_MOST, Shared, idempotency_key, read_whole};
use crate::auth::{self, Caller};
use crate::clock::boottime;
use crate::core::Core;
use crate::decide;
use crate::fault::Fault;
use crate::once::{self, Before};
use crate::questions;
use crate::rate::BURST;

/// The longest that a call waits for a receipt.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// Purges, and waits until every edge has applied it or is fenced. Sent again with the same `Idempotency-Key` within a day it
/// purges nothing again, and answers with the receipt of the first time.
#[utoipa::path(
    post,
    path = "/v1/purges",
    request_body = PurgeRequest,
    params(("Idempotency-Key" = Option<String>, Header, description = "1 to 255 visible ASCII characters, bare or in quotes")),
    responses(
        (status = 200, body = Receipt, description = "complete; of a dry run a PurgePlan"),
        (status = 202, body = Receipt, description = "pending or partial"),
        (status = 410, body = wire::Problem, description = "done under this key before, but the journal has forgotten it since"),
        (status = 422, body = wire::Problem, description = "the key was used for another purge"),
        (status = 429, body = wire::Problem, description = "more than the token may purge per second; see Retry-After"),
        (status = 503, body = wire::Problem, description = "no room for one more repeat; see Retry-After")
    )
)]
pub(super) async fn purge(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request)?;
    let key = idempotency_key(request.headers())?;
    let body: PurgeRequest = serde_json::from_slice(&read_whole(&request, body, PURGE_MOST).await?).map_err(Fault::bad)?;
    if body.dry_run {
        return Ok(HttpResponse::Ok().json(plan(&core, &caller, &body).await?));
    }
    answer(carry_out(&core, &caller, &body, key.as_ref()).await?)
}

/// Purges for `caller`: what every door to purging comes to. Appends one event and waits as the request asks; of requests
/// with one key of one caller only the first appends, and all get its receipt.
///
/// What the request says of dry runs is for its door: this one purges.
pub(super) async fn carry_out(
    core: &Core,
    caller: &Caller,
    request: &PurgeRequest,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Receipt, Fault> {
    let right = right(caller, &request.owner)?;
    let network = core.network();
    let patience = request.timeout_ms.map_or_else(|| network.purge_bound() + Duration::from_secs(1), Duration::from_millis);
    let patience = if request.wait == Wait::None { Duration::ZERO } else { patience.min(LONGEST_WAIT) };
    let sender = caller.id.as_deref().unwrap_or_default();
    let once = idempotency.map(|key| once::of(sender, key, request)).transpose()?;
    if let Some(once) = &once
        && let Before::Done { seq } = before(core, once)?
    {
        charge(core, caller, right, 1)?;
        return receipt_of_before(core, seq, patience).await;
    }
    let resolved = decide::purge(request, &network)?;
    charge(core, caller, right, decide::cost(request))?;
    check_room(core, &resolved.fact)?;
    let scopes = if let Fact::Purged { scopes, .. } = &resolved.fact { scopes.len() as u64 } else { 0 };
    match append(core, caller, resolved.fact, once).await? {
        Appended::Now(seq) => {
            core.metrics.purges.inc();
            core.metrics.purge_scopes.inc_by(scopes);
            core.receipt(seq, patience, resolved.notes).await
        }
        Appended::Before(seq) => receipt_of_before(core, seq, patience).await,
    }
}

/// Whether an event was appended now, or under the same key before.
enum Appended {
    Now(u64),
    Before(u64),
}

/// How often an append is tried whose key others use at the same moment. One of those that collide gets through each time.
const TRIES: usize = 16;

async fn append(core: &Core, caller: &Caller, mut fact: Fact, key: Option<Once>) -> Result<Appended, Fault> {
    let Some(key) = key else {
        return Ok(Appended::Now(core.append(&caller.name, vec![fact], Vec::new()).await?.seq));
    };
    if let Fact::Purged { once, .. } = &mut fact {
        *once = Some(key);
    }
    for _ in 0..TRIES {
        let head = match before(core, &key)? {
            Before::Done { seq } => return Ok(Appended::Before(seq)),
            Before::Never { head } => head,
        };
        match core.append(&caller.name, vec![fact.clone()], vec![(key.stream(), head)]).await {
            Ok(position) => return Ok(Appended::Now(position.seq)),
            // Somebody with the same key was faster; until that is on the disk nobody knows whether it will be there.
            Err(Fault::Conflict(_)) => {}
            Err(fault) => return Err(fault),
        }
    }
    Err(Fault::Conflict("others are using the same Idempotency-Key at this moment; try again".to_owned()))
}

fn before(core: &Core, once: &Once) -> Result<Before, Fault> {
    let state = core.journal.state();
    state.control.as_ref().map_or(Ok(Before::Never { head: 0 }), |control| once::before(&control.keys, once, Timestamp::now()))
}

async fn receipt_of_before(core: &Core, seq: u64, patience: Duration) -> Result<Receipt, Fault> {
    let notes = vec![format!("this key was used before: here is the receipt of purge {seq}, and nothing was purged anew")];
    core.receipt(seq, patience, notes).await.map_err(|fault| match fault {
        Fault::NotFound(_) => Fault::Gone(format!(
            "purge {seq} was carried out under this Idempotency-Key; its receipt is no longer known, and nothing was purged anew"
        )),
        other => other,
    })
}

/// A repeat that was accepted is never dropped, so it is accepted only where there is room for it.
fn check_room(core: &Core, fact: &Fact) -> Result<(), Fault> {
    let Fact::Purged { scopes, again_after_ms: Some(_), .. } = fact else { return Ok(()) };
    let state = core.journal.state();
    let Some(repeats) = state.control.as_ref().map(|control| &control.repeats).filter(|repeats| !repeats.has_room_for(scopes)) else {
        return Ok(());
    };
    let said = format!(
        "{} purges are to be repeated already, and there is no room for this one: try again when some of them were, or purge \
         without again_after_ms",
        repeats.len()
    );
    let next = repeats.in_order().next().map(|repeat| repeat.due.since(Timestamp::now()));
    Err(Fault::Full(said, next.unwrap_or_default()))
}

/// Counts scopes against what the caller's token may purge per second.
fn charge(core: &Core, caller: &Caller, right: Right, scopes: u64) -> Result<(), Fault> {
    let Some(id) = caller.id.as_deref().filter(|_| right == Right::Purger) else { return Ok(()) };
    let own = core.journal.state().control.as_ref().and_then(|control| control.tokens.get(id)?.purge_rate);
    let rate = own.unwrap_or(core.settings.origin.purge_rate);
    let taken = core.rates.lock().unwrap_or_else(PoisonError::into_inner).take(id, scopes, rate, boottime());
    taken.map_err(|wait| {
        core.metrics.purges_limited.inc();
        let (name, burst) = (&caller.name, rate.saturating_mul(BURST.as_secs()));
        let limit = format!("the token of `{name}` may purge {rate} scopes per second, and {burst} at once when it rested");
        Fault::TooFast(format!("{scopes} more are too many at the moment: {limit}"), wait)
    })
}

/// Says what would be purged and how much of it each edge holds, and purges nothing.
async fn plan(core: &Core, caller: &Caller, request: &PurgeRequest) -> Result<PurgePlan, Fault> {
    let right = right(caller, &request.owner)?;
    let resolved = decide::purge(request, &core.network())?;
    charge(core, caller, right, 1)?;
    let scopes = if let Fact::Purged { scopes, .. } = resolved.fact { scopes } else { Vec::new() };
    Ok(questions::plan(core, request, scopes, resolved.notes).await)
}

/// By what right somebody purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// The token may purge what the owner has.
    Purger,
    /// An edge purges what an unsafe method made invalid there (P8). It isn't limited: nothing of that may be dropped.
    Edge,
}

fn right(caller: &Caller, owner: &Owner) -> Result<Right, Fault> {
    match caller.must(&Grant::Purge(Some(owner.clone()))) {
        Ok(()) => Ok(Right::Purger),
        Err(_) if caller.must_follow(Role::Edge).is_ok() => Ok(Right::Edge),
        Err(fault) => Err(fault),
    }
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
