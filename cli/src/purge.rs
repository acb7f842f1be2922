//! `atoll purge`: what was purged, and where it is in force; or what would be, and how much each edge holds of it.

use wire::{FollowerState, Mode, Owner, PlannedEdge, PurgePlan, PurgeRequest, Receipt, ReceiptState};

use crate::args::{Purge, Wait};
use crate::context::Context;
use crate::control::Control;
use crate::exit::{Done, Failure, Outcome};
use crate::{in_force, say};

/// Runs `atoll purge`.
pub(crate) async fn run(context: &Context, arguments: Purge) -> Outcome {
    let control = context.control()?;
    let patience = arguments.timeout.unwrap_or(std::time::Duration::from_secs(60));
    let wait = arguments.wait;
    let json = arguments.json;
    let dry_run = arguments.dry_run;
    let key = arguments.idempotency_key.clone();
    let request = request(arguments);
    if dry_run {
        let plan: PurgePlan = control.post_patiently("/v1/purges", &request, patience).await?;
        warn_of_stranger(&control, &request.owner).await;
        if json {
            say::json(&plan)?;
        } else {
            print_plan(&plan)?;
        }
        return Ok(Done::Everywhere);
    }
    let receipt: Receipt = control.post_once("/v1/purges", &request, key.as_ref(), patience).await?;
    // After it: what is to be gone does not wait for remarks.
    warn_of_stranger(&control, &request.owner).await;
    if json {
        say::json(&receipt)?;
    } else {
        print(&receipt)?;
    }
    Ok(if receipt.state == ReceiptState::Complete || wait == Wait::None { Done::Everywhere } else { Done::NotEverywhere })
}

async fn warn_of_stranger(control: &Control, owner: &Owner) {
    if in_force::network(control).await.is_some_and(|network| !in_force::has_owner(&network, owner)) {
        say::warning(format!("no site or route of the configuration in force has the owner `{owner}`"));
    }
}

fn request(arguments: Purge) -> PurgeRequest {
    PurgeRequest {
        owner: arguments.owner,
        urls: arguments.urls,
        tags: arguments.tags,
        prefixes: arguments.prefixes,
        sites: arguments.sites,
        all: arguments.all,
        mode: if arguments.soft { Mode::Soft } else { Mode::Hard },
        wait: match arguments.wait {
            Wait::All => wire::Wait::All,
            Wait::None => wire::Wait::None,
        },
        timeout_ms: arguments.timeout.map(|timeout| u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
        again_after_ms: arguments.again_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
        dry_run: arguments.dry_run,
    }
}

fn print_plan(plan: &PurgePlan) -> Result<(), Failure> {
    plan.scopes.iter().try_for_each(|scope| say::line(format!("would purge {scope}")))?;
    if !plan.edges.is_empty() {
        say::table(["EDGE", "REGION", "URLS", "ENTRIES", "MEMORY"], plan_rows(plan))?;
    }
    let silent: Vec<_> = plan.edges.iter().filter(|edge| edge.entries.is_none()).map(|edge| edge.name.as_str()).collect();
    if !silent.is_empty() {
        say::note(format!("note: nothing was heard of {} in time: fenced, of an older version, or busy", silent.join(", ")));
    }
    plan.notes.iter().for_each(|note| say::note(format!("note: {note}")));
    Ok(())
}

/// Returns a row for each edge, and one for all of several.
fn plan_rows(plan: &PurgePlan) -> Vec<[String; 5]> {
    let number = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), |count| count.to_string());
    let memory = |count: Option<u64>| count.map_or_else(|| "?".to_owned(), say::bytes);
    let row =
        |edge: &PlannedEdge| [edge.name.to_string(), edge.region.to_string(), number(edge.urls), number(edge.entries), memory(edge.bytes)];
    let mut rows: Vec<_> = plan.edges.iter().map(row).collect();
    if rows.len() > 1 {
        let total = &plan.total;
        rows.push(["all".to_owned(), String::new(), total.urls.to_string(), total.entries.to_string(), say::bytes(total.bytes)]);
    }
    rows
}

fn print(receipt: &Receipt) -> Result<(), Failure> {
    let state = match receipt.state {
        ReceiptState::Complete => "complete: no edge answers from what it purged",
        ReceiptState::Pending => "pending: some edge has neither applied it nor lost its lease yet",
        ReceiptState::Partial => "partial: a fenced edge may go on serving by its routes' choice",
    };
    say::line(format!("purge {} is {state}", receipt.seq))?;
    say::table(
        ["EDGE", "REGION", "STATE", "AFTER"],
        receipt.followers.iter().map(|follower| {
            let (state, after) = match follower.state {
                FollowerState::Applied => ("applied", follower.after_ms.map(|ms| format!("{ms} ms")).unwrap_or_default()),
                FollowerState::Fenced => ("fenced", follower.since.map(|since| format!("since {since}")).unwrap_or_default()),
                FollowerState::Pending => ("pending", String::new()),
            };
            [follower.name.to_string(), follower.region.to_string(), state.to_owned(), after]
        }),
    )?;
    if receipt.state == ReceiptState::Pending {
        say::note(format!("how far it is later: GET /v1/purges/{}", receipt.position));
    }
    if !receipt.may_serve.is_empty() {
        say::note(format!("routes by which a fenced edge may go on serving: {}", receipt.may_serve.join(", ")));
    }
    if let Some(at) = receipt.again_at {
        say::note(format!("it is purged once more at {at}"));
    }
    receipt.notes.iter().for_each(|note| say::note(format!("note: {note}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Counted;

    #[test]
    fn a_plan_has_a_row_for_each_edge_also_for_one_that_said_nothing() {
        let held = Counted { urls: 1, entries: 2, bytes: 1536 };
        let edge = |name: &str, counted| PlannedEdge::new(format!("{name}-1").parse().unwrap(), name.parse().unwrap(), counted);
        let mut plan = PurgePlan { scopes: vec![], edges: vec![edge("fra", Some(held)), edge("sin", None)], total: held, notes: vec![] };
        let said = plan_rows(&plan);
        let rows = [["fra-1", "fra", "1", "2", "1.50 KiB"], ["sin-1", "sin", "?", "?", "?"], ["all", "", "1", "2", "1.50 KiB"]];
        assert_eq!(said, rows.map(|row| row.map(str::to_owned)));
        plan.edges.pop();
        assert_eq!(plan_rows(&plan).len(), 1, "of one edge all is what it holds");
    }
}
