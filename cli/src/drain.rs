//! `atoll drain`: takes an edge out of service that will not come back.

use wire::NodeName;

use crate::context::Context;
use crate::exit::{Done, Outcome};
use crate::say;

/// Runs `atoll drain`.
pub(crate) async fn run(context: &Context, name: &NodeName) -> Outcome {
    context.control()?.tell(&format!("/v1/nodes/{name}/drain")).await?;
    say::line(format!("{name} is drained: it gets no lease, no clients by DNS, and no receipt waits for it"))?;
    Ok(Done::Everywhere)
}
