//! Purges, and the receipts of purges and of any other event.

use std::sync::Arc;
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use tracing::Instrument as _;
use wire::{
    Fact, Grant, IdempotencyKey, Once, Owner, PendingRepeats, Position, PurgePlan, PurgeRequest, Receipt, ReceiptState, Role, Room,
    SiteName, Timestamp, Wait,
};

use super::blobs::must_publish;
use super::{PURGE_MOST, Shared, idempotency_key, name, read_whole};
use crate::auth::{self, Caller};
use crate::clock::boottime;
use crate::core::Core;
use crate::decide;
use crate::fault::Fault;
use crate::journal::Fit;
use crate::once::{self, Before};
use crate::questions;
use crate::rate::BURST;

/// The longest that a call waits for a receipt.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The least that a dry run costs which asks the edges: each goes over all that it holds.
const COUNTING: u64 = 1000;

/// How far a purge has come is true for a moment.
pub(super) const NO_STORE: (&str, &str) = ("Cache-Control", "no-store");

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
    let caller = auth::caller(&core, &request).await?;
    let key = idempotency_key(request.headers())?;
    let body: PurgeRequest =
        serde_json::from_slice(&read_whole(&core, &caller, &request, body, PURGE_MOST).await?).map_err(Fault::unreadable)?;
    if body.dry_run {
        may_purge(&caller, &body, key.as_ref())?;
        let plan = plan(&core, &caller, &body).await?;
        return Ok(HttpResponse::Ok().insert_header(NO_STORE).json(plan));
    }
    answer(carry_out(&core, &caller, body, key.as_ref()).await?)
}

/// Purges for `caller`: what every door to purging comes to. Appends one event and waits as the request asks; of requests
/// with one key of one caller only the first appends, and all get its receipt. A caller that leaves takes nothing back.
///
/// What the request says of dry runs is for its door: this one purges.
pub(super) async fn carry_out(
    core: &Arc<Core>,
    caller: &Caller,
    request: PurgeRequest,
    idempotency: Option<&IdempotencyKey>,
) -> Result<Receipt, Fault> {
    let right = may_purge(caller, &request, idempotency)?;
    if !request.sites.is_empty() {
        // Which hosts a site has may have been changed elsewhere a moment ago.
        core.know_all().await?;
    }
    let network = core.network();
    let patience = request.timeout_ms.map_or_else(|| network.purge_bound() + Duration::from_secs(1), Duration::from_millis);
    let patience = if request.wait == Wait::None { Duration::ZERO } else { patience.min(LONGEST_WAIT) };
    let sender = caller.id.as_deref().unwrap_or_default();
    let once = idempotency.map(|key| once::of(sender, key, &request)).transpose()?;
    if let Some(once) = &once {
        match before(core, once) {
            Ok(Before::Never { .. }) => {}
            // What was looked up costs one, also where the key stands for something else.
            known => {
                charge(core, caller, right, 1)?;
                if let Before::Done { seq } = known? {
                    return receipt_of_before(core, seq, patience).await;
                }
            }
        }
    }
    if request.again_after_ms.is_some() {
        look_for_room(core, &request.owner, decide::room(&request))?;
    }
    let cost = decide::cost(&request);
    charge(core, caller, right, cost)?;
    let resolved = decide::purge(&request, &network)?;
    // As long as the receipt is waited for, what was asked need not be kept.
    drop(request);
    let scopes = if let Fact::Purged { scopes, .. } = &resolved.fact { scopes.len() as u64 } else { 0 };
    let room = Kept::of(core, &resolved.fact).inspect_err(|_| give_back(core, caller, right, cost.saturating_sub(1)))?;
    match append_apart(core, caller, resolved.fact, once, room).await? {
        Appended::Now(seq) => {
            core.metrics.purges.inc();
            core.metrics.purge_scopes.inc_by(scopes);
            core.receipt(seq, patience, resolved.notes).await
        }
        Appended::Before(seq) => {
            give_back(core, caller, right, cost.saturating_sub(1));
            receipt_of_before(core, seq, patience).await
        }
    }
}

/// Whether an event was appended now, or under the same key before.
enum Appended {
    Now(u64),
    Before(u64),
}

/// How often an append is tried whose key others use at the same moment. One of those that collide gets through each time.
const TRIES: usize = 16;

/// Appends apart from the call: the room for a repeat is kept until it is known what came of it, also where the caller leaves.
async fn append_apart(core: &Arc<Core>, caller: &Caller, fact: Fact, key: Option<Once>, room: Option<Kept>) -> Result<Appended, Fault> {
    let (core, actor) = (Arc::clone(core), caller.name.clone());
    let appending = async move {
        let appended = append(&core, &actor, fact, key).await;
        drop(room);
        appended
    };
    let appending = tokio::spawn(appending.in_current_span());
    appending.await.map_err(|_| Fault::Stopping)?
}

async fn append(core: &Core, actor: &str, mut fact: Fact, key: Option<Once>) -> Result<Appended, Fault> {
    let Some(key) = key else {
        return Ok(Appended::Now(core.append(actor, vec![fact], Vec::new()).await?.seq));
    };
    if let Fact::Purged { once, .. } = &mut fact {
        *once = Some(key);
    }
    for _ in 0..TRIES {
        let head = match before(core, &key)? {
            Before::Done { seq } => return Ok(Appended::Before(seq)),
            Before::Never { head } => head,
        };
        match core.append(actor, vec![fact.clone()], vec![(key.stream(), head)]).await {
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

/// Room for a repeat, kept as long as this lives. A repeat that was accepted is never dropped, so it is accepted only where
/// there is room for it.
struct Kept {
    core: Arc<Core>,
    owner: Owner,
    room: Room,
}

impl Kept {
    /// Keeps the room that the repeat of a purge needs, where it asks for one.
    fn of(core: &Arc<Core>, fact: &Fact) -> Result<Option<Self>, Fault> {
        let Fact::Purged { owner, scopes, again_after_ms: Some(_), .. } = fact else { return Ok(None) };
        let room = Room::of(scopes);
        // Room is looked at and kept under one lock; what is folded meanwhile was kept before.
        let mut reserved = core.limits.room();
        let has_room = with_repeats(core, |repeats| reserved.reserve(repeats, owner, room));
        drop(reserved);
        if has_room { Ok(Some(Self { core: Arc::clone(core), owner: owner.clone(), room })) } else { Err(no_room(core)) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.core.limits.room().release(&self.owner, self.room);
    }
}

/// Tells before anything is counted or decided where there is no room at all.
fn look_for_room(core: &Core, owner: &Owner, wanted: Room) -> Result<(), Fault> {
    let reserved = core.limits.room();
    let has_room = with_repeats(core, |repeats| reserved.has_room(repeats, owner, wanted));
    drop(reserved);
    if has_room { Ok(()) } else { Err(no_room(core)) }
}

fn with_repeats<T>(core: &Core, look: impl FnOnce(&PendingRepeats) -> T) -> T {
    let state = core.journal.state();
    match &state.control {
        Some(control) => look(&control.repeats),
        None => look(&PendingRepeats::default()),
    }
}

fn no_room(core: &Core) -> Fault {
    let now = Timestamp::now();
    let (count, next) = with_repeats(core, |repeats| (repeats.len(), repeats.in_order().next().map(|repeat| repeat.due.since(now))));
    let said = format!(
        "{count} purges are to be repeated already, and of the room that others leave one owner may have half: try again when some \
         of them were, or purge without again_after_ms"
    );
    Fault::Full(said, next.unwrap_or_default())
}

/// Counts a cost in scopes against what the caller's token may purge per second.
fn charge(core: &Core, caller: &Caller, right: Right, cost: u64) -> Result<(), Fault> {
    let Some((id, rate)) = bucket(core, caller, right) else { return Ok(()) };
    let taken = core.limits.rates().take(id, cost, rate, boottime());
    taken.map_err(|wait| {
        core.metrics.purges_limited.inc();
        let (name, burst) = (&caller.name, rate.saturating_mul(BURST.as_secs()));
        let limit = format!("the token of `{name}` may purge {rate} scopes per second, and {burst} at once when it rested");
        Fault::TooFast(format!("this counts as {cost} scopes, which are too many at the moment: {limit}"), wait)
    })
}

/// Takes back what was counted in vain.
fn give_back(core: &Core, caller: &Caller, right: Right, cost: u64) {
    if let Some((id, rate)) = bucket(core, caller, right) {
        core.limits.rates().give_back(id, cost, rate);
    }
}

/// Returns whose bucket it goes by and how fast that fills, where there is a limit.
fn bucket<'a>(core: &Core, caller: &'a Caller, right: Right) -> Option<(&'a str, u64)> {
    let id = caller.id.as_deref().filter(|_| right == Right::Purger)?;
    let own = core.journal.state().control.as_ref().and_then(|control| control.tokens.get(id)?.purge_rate);
    Some((id, own.unwrap_or_else(|| core.own().purge_rate)))
}

/// Says what would be purged and how much of it each edge holds, and purges nothing.
async fn plan(core: &Core, caller: &Caller, request: &PurgeRequest) -> Result<PurgePlan, Fault> {
    let least = if request.wait == Wait::None { 0 } else { COUNTING };
    charge(core, caller, Right::Purger, decide::cost(request).max(least))?;
    let resolved = decide::purge(request, &core.network())?;
    let scopes = if let Fact::Purged { scopes, .. } = resolved.fact { scopes } else { Vec::new() };
    let asker = caller.id.as_deref().unwrap_or_default();
    Ok(questions::plan(core, asker, request, scopes, resolved.notes).await)
}

/// By what right somebody purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Right {
    /// The token may purge what the owner has.
    Purger,
    /// An edge purges what an unsafe method made invalid there (P8). It isn't limited: nothing of that may be dropped.
    Edge,
}

fn may_purge(caller: &Caller, request: &PurgeRequest, key: Option<&IdempotencyKey>) -> Result<Right, Fault> {
    match caller.must(&Grant::Purge(Some(request.owner.clone()))) {
        Ok(()) => Ok(Right::Purger),
        Err(_) if caller.must_follow(Role::Edge).is_ok() => {
            // As it isn't limited, it is no way to do anything else.
            let does_more = request.dry_run || request.again_after_ms.is_some() || !request.sites.is_empty() || key.is_some();
            if !does_more {
                return Ok(Right::Edge);
            }
            Err(Fault::Forbidden(
                "a follower's token purges what unsafe methods made invalid: for sites, dry_run, again_after_ms and Idempotency-Key a \
                 token with purge:OWNER is needed"
                    .to_owned(),
            ))
        }
        Err(fault) => Err(fault),
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Patience {
    #[serde(default)]
    timeout_ms: u64,
}

/// Which event a receipt is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    /// Whichever has this number.
    Seq(u64),
    /// This one and no other: a journal that lost its end may number another like it.
    At(Position),
}

impl Wanted {
    fn read(text: &str) -> Result<Self, Fault> {
        match text.parse() {
            Ok(seq) if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self::Seq(seq)),
            _ => name(text).map(Self::At),
        }
    }

    fn seq(self) -> u64 {
        match self {
            Self::Seq(seq) => seq,
            Self::At(position) => position.seq,
        }
    }
}

/// Tells what became of the event `seq`, which is a number or a whole position; with `timeout_ms` it waits for its completion.
/// A position of an event that this journal does not have is 410.
#[utoipa::path(
    get,
    path = "/v1/purges/{seq}",
    params(("seq" = String, Path, description = "a seq, or a position: EPOCH.SEQ.CHAIN"), ("timeout_ms" = Option<u64>, Query)),
    responses(
        (status = 200, body = Receipt, description = "complete"),
        (status = 202, body = Receipt, description = "pending or partial"),
        (status = 403, body = wire::Problem, description = "neither may the token purge this owner, nor publish, follow or read"),
        (status = 410, body = wire::Problem, description = "the position is of another history"),
        (status = 503, body = wire::Problem, description = "too many wait already; see Retry-After")
    )
)]
pub(super) async fn receipt(
    core: Shared,
    request: HttpRequest,
    path: web::Path<String>,
    query: web::Query<Patience>,
) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    let wanted = Wanted::read(&path)?;
    let seq = wanted.seq();
    if let Wanted::At(position) = wanted
        && !matches!(core.fit(&position).await?, Fit::Here | Fit::Cut)
    {
        return Err(of_another_history(&position));
    }
    if seq > core.journal.head().seq {
        core.know_all().await?;
    }
    if seq == 0 || seq > core.journal.head().seq {
        return Err(Fault::NotFound(format!("the journal has no event {seq} yet")));
    }
    must_read(&core, &caller, seq).await?;
    let patience = Duration::from_millis(query.timeout_ms).min(LONGEST_WAIT);
    let _seat = if patience.is_zero() { None } else { Some(seat(&core)?) };
    let receipt = core.receipt(seq, patience, Vec::new()).await?;
    match wanted {
        // The journal may have begun another life meanwhile.
        Wanted::At(position) if position != receipt.position => Err(of_another_history(&position)),
        _ => answer(receipt),
    }
}

fn of_another_history(position: &Position) -> Fault {
    Fault::Gone(format!("{position} is not in this journal, which lost its end since or was restored: purge what it purged again"))
}

fn seat(core: &Core) -> Result<tokio::sync::SemaphorePermit<'_>, Fault> {
    let full = |_| Fault::Full("as many wait for receipts as may; without timeout_ms nobody waits".to_owned(), Duration::from_secs(1));
    core.limits.waiters.try_acquire().map_err(full)
}

/// What an event says of whose it is.
#[derive(Debug, Default, Deserialize)]
struct Whose {
    owner: Option<Owner>,
    site: Option<SiteName>,
}

/// Who reads, publishes or follows may look at every receipt: a publisher waits for whatever moved an alias last. Who purges
/// looks at the purges of its own owners.
async fn must_read(core: &Core, caller: &Caller, seq: u64) -> Result<(), Fault> {
    let follows = || [Role::Edge, Role::Dns].into_iter().any(|role| caller.must_follow(role).is_ok());
    if caller.may(&Grant::Read) || follows() || must_publish(core, caller).is_ok() {
        return Ok(());
    }
    let stored = core.journal.read_after(seq.saturating_sub(1), 1).await?;
    let stored = stored.into_iter().next().filter(|stored| stored.seq == seq);
    let whose: Whose = stored.and_then(|stored| serde_json::from_str(&stored.json).ok()).unwrap_or_default();
    let needed = [whose.owner.map(|owner| Grant::Purge(Some(owner))), whose.site.map(|site| Grant::Publish(Some(site)))];
    if needed.iter().flatten().any(|needed| caller.may(needed)) { Ok(()) } else { caller.must(&Grant::Read) }
}

fn answer(receipt: Receipt) -> Result<HttpResponse, Fault> {
    let mut response = if receipt.state == ReceiptState::Complete { HttpResponse::Ok() } else { HttpResponse::Accepted() };
    Ok(response.insert_header(NO_STORE).json(receipt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn caller(grant: &str) -> Caller {
        Caller::of_test(vec![grant.parse().unwrap()])
    }

    #[test]
    fn a_receipt_is_asked_for_by_number_or_by_position() {
        let position = Position { seq: 42, ..Position::start(wire::Epoch::from_bytes([7; 8])) };
        assert_eq!(Wanted::read("42").unwrap(), Wanted::Seq(42));
        assert_eq!(Wanted::read(&position.to_string()).unwrap(), Wanted::At(position));
        for bad in ["", "+42", "-1", "4 2", "x", "18446744073709551616", "0707.42.00"] {
            assert!(matches!(Wanted::read(bad), Err(Fault::Bad(_))), "{bad}");
        }
    }

    #[test]
    fn an_edge_tells_what_became_invalid_and_does_nothing_else_by_that_right() {
        let key: IdempotencyKey = "k".parse().unwrap();
        let request = |more: serde_json::Value| serde_json::from_value::<PurgeRequest>(more).unwrap();
        let plain = request(json!({ "urls": ["a/"], "tags": ["t"], "prefixes": ["a/"] }));
        let edge = caller("follow:edge/fra-1");
        assert_eq!(may_purge(&edge, &plain, None).unwrap(), Right::Edge);
        for (more, key) in [
            (json!({ "tags": ["t"], "again_after_ms": 1 }), None),
            (json!({ "tags": ["t"], "dry_run": true }), None),
            (json!({ "sites": ["www"] }), None),
            (json!({ "tags": ["t"] }), Some(&key)),
        ] {
            let asked = request(more);
            assert!(matches!(may_purge(&edge, &asked, key), Err(Fault::Forbidden(_))), "{asked:?}");
            assert_eq!(may_purge(&caller("purge:default"), &asked, key).unwrap(), Right::Purger);
        }
        for other in ["follow:dns/ns-1", "purge:other", "read"] {
            assert!(may_purge(&caller(other), &plain, None).is_err(), "{other}");
        }
    }
}
