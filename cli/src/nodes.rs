//! `atoll origin`, `atoll edge` and `atoll dns`: one node in one process.

use tokio::signal::unix::{SignalKind, signal};
use wire::NodeName;

use crate::args::Origin;
use crate::context::{Context, follow_token};
use crate::exit::{Done, Failure, Outcome};

/// Waits until somebody asks the process to end.
pub(crate) async fn told_to_stop() -> Result<(), Failure> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    tracing::info!("stopping");
    Ok(())
}

/// Runs `atoll origin`.
pub(crate) async fn origin(context: &Context, arguments: Origin) -> Outcome {
    context.needed_file()?;
    let mut origin = origin::Origin::new(context.settings()?);
    if arguments.new_epoch {
        origin = origin.with_new_epoch();
    }
    let running = origin.start().await?;
    told_to_stop().await?;
    running.stop().await;
    Ok(Done::Everywhere)
}

/// Runs `atoll edge NAME`.
pub(crate) async fn edge(context: &Context, name: &NodeName) -> Outcome {
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = edge::Edge::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    told_to_stop().await?;
    running.stop().await;
    Ok(Done::Everywhere)
}

/// Runs `atoll dns NAME`.
pub(crate) async fn dns(context: &Context, name: &NodeName) -> Outcome {
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = dns::Dns::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    told_to_stop().await?;
    running.stop().await;
    Ok(Done::Everywhere)
}
