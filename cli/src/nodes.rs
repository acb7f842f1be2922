//! `atoll origin`, `atoll edge` and `atoll dns`: one node in one process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::NodeName;

use crate::args::Origin;
use crate::context::{Context, follow_token};
use crate::exit::{Done, Failure, Outcome};

/// SIGINT and SIGTERM, listened to from before anything starts: a signal that comes meanwhile is not lost.
#[derive(Debug)]
pub(crate) struct StopSignals {
    interrupt: Signal,
    terminate: Signal,
}

impl StopSignals {
    /// Begins to listen.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let interrupt = signal(SignalKind::interrupt()).map_err(Failure::failed)?;
        let terminate = signal(SignalKind::terminate()).map_err(Failure::failed)?;
        Ok(Self { interrupt, terminate })
    }

    /// Waits until somebody asks the process to end.
    pub(crate) async fn received(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
        tracing::info!("stopping");
    }
}

/// Runs `atoll origin`.
pub(crate) async fn origin(context: &Context, arguments: Origin) -> Outcome {
    let mut signals = StopSignals::listen()?;
    context.needed_file()?;
    let mut origin = origin::Origin::new(context.settings()?);
    if arguments.new_epoch {
        origin = origin.with_new_epoch();
    }
    let running = origin.start().await?;
    signals.received().await;
    running.stop().await;
    Ok(Done::Everywhere)
}

/// Runs `atoll edge NAME`.
pub(crate) async fn edge(context: &Context, name: &NodeName) -> Outcome {
    let mut signals = StopSignals::listen()?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = edge::Edge::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    signals.received().await;
    running.stop().await;
    Ok(Done::Everywhere)
}

/// Runs `atoll dns NAME`.
pub(crate) async fn dns(context: &Context, name: &NodeName) -> Outcome {
    let mut signals = StopSignals::listen()?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = dns::Dns::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    signals.received().await;
    running.stop().await;
    Ok(Done::Everywhere)
}
