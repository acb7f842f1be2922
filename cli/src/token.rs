//! `atoll token`: issue, list, revoke.

use wire::{Grant, TokenInfo, TokenIssued, TokenRequest};

use crate::args::TokenCommand;
use crate::context::Context;
use crate::control::Control;
use crate::exit::{Done, Outcome};
use crate::{in_force, say};

/// Runs `atoll token`.
pub(crate) async fn run(context: &Context, command: TokenCommand) -> Outcome {
    let control = context.control()?;
    match command {
        TokenCommand::Create { can, name, purge_rate, json } => {
            warn_of_strangers(&control, &can).await;
            let issued: TokenIssued = control.post("/v1/tokens", &TokenRequest { name, can, purge_rate }).await?;
            if json {
                say::json(&issued)?;
            } else {
                say::note(format!("token {}; its secret is shown this once:", issued.id));
                say::line(issued.token)?;
            }
        }
        TokenCommand::List { json } => {
            let tokens: Vec<TokenInfo> = control.get("/v1/tokens").await?;
            if json {
                say::json(&tokens)?;
            } else {
                say::table(
                    ["ID", "NAME", "CAN", "PURGES/S", "ISSUED"],
                    tokens.iter().map(|token| {
                        let can: Vec<_> = token.can.iter().map(ToString::to_string).collect();
                        let rate = token.purge_rate.map(|rate| rate.to_string()).unwrap_or_default();
                        [token.id.clone(), token.name.clone(), can.join(", "), rate, token.issued_at.to_string()]
                    }),
                )?;
            }
        }
        TokenCommand::Revoke { id, force } => {
            control.delete(&format!("/v1/tokens/{id}?force={force}")).await?;
            say::line(format!("token {id} is revoked"))?;
        }
    }
    Ok(Done::Everywhere)
}

/// A token may be older than what it is for, so a name that is not there is remarked on, and no more.
async fn warn_of_strangers(control: &Control, can: &[Grant]) {
    let Some(network) = in_force::network(control).await else { return };
    for grant in can {
        match grant {
            Grant::Publish(Some(site)) if !network.sites.contains_key(site) => {
                say::warning(format!("{grant}: the configuration in force has no site `{site}`"));
            }
            Grant::Purge(Some(owner)) if !in_force::has_owner(&network, owner) => {
                say::warning(format!("{grant}: no site or route of the configuration in force has the owner `{owner}`"));
            }
            _ => {}
        }
    }
}
