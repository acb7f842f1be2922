//! `atoll token`: issue, list, revoke.

use wire::{TokenInfo, TokenIssued, TokenRequest};

use crate::args::TokenCommand;
use crate::context::Context;
use crate::exit::{Done, Outcome};
use crate::say;

/// Runs `atoll token`.
pub(crate) async fn run(context: &Context, command: TokenCommand) -> Outcome {
    let control = context.control()?;
    match command {
        TokenCommand::Create { can, name, json } => {
            let issued: TokenIssued = control.post("/v1/tokens", &TokenRequest { name, can }).await?;
            if json {
                say::json(&issued);
            } else {
                say::note(format!("token {}; its secret is shown this once:", issued.id));
                say::line(issued.token);
            }
        }
        TokenCommand::List { json } => {
            let tokens: Vec<TokenInfo> = control.get("/v1/tokens").await?;
            if json {
                say::json(&tokens);
            } else {
                say::table(
                    ["ID", "NAME", "CAN", "ISSUED"],
                    tokens.iter().map(|token| {
                        let can: Vec<_> = token.can.iter().map(ToString::to_string).collect();
                        [token.id.clone(), token.name.clone(), can.join(", "), token.issued_at.to_string()]
                    }),
                );
            }
        }
        TokenCommand::Revoke { id } => {
            control.delete(&format!("/v1/tokens/{id}")).await?;
            say::line(format!("token {id} is revoked"));
        }
    }
    Ok(Done::Everywhere)
}
