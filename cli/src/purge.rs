//! `atoll purge`: what was purged, and where it is in force.

use wire::{FollowerState, Mode, Owner, PurgePlan, PurgeRequest, Receipt, ReceiptState};

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
    let request = request(arguments);
    if dry_run {
        let plan: PurgePlan = control.post("/v1/purges", &request).await?;
        warn_of_stranger(&control, &request.owner).await;
        if json {
            say::json(&plan)?;
        } else {
            plan.scopes.iter().try_for_each(|scope| say::line(format!("would purge {scope}")))?;
            plan.notes.iter().for_each(|note| say::note(format!("note: {note}")));
        }
        return Ok(Done::Everywhere);
    }
    let receipt: Receipt = control.post_patiently("/v1/purges", &request, patience).await?;
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
        dry_run: arguments.dry_run,
    }
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
    if !receipt.may_serve.is_empty() {
        say::note(format!("routes by which a fenced edge may go on serving: {}", receipt.may_serve.join(", ")));
    }
    receipt.notes.iter().for_each(|note| say::note(format!("note: {note}")));
    Ok(())
}
