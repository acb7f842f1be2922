//! `atoll origin`, `atoll edge` and `atoll dns`: one node in one process.

use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::NodeName;

use crate::args::Origin;
use crate::context::{Context, follow_token};
use crate::exit::{Done, Failure, Outcome};
use crate::say;

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

    /// Waits until somebody asks the process to end, and returns the exit code that shells know for it.
    async fn received(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 130,
            _ = self.terminate.recv() => 143,
        }
    }

    /// Waits until somebody asks the process to end, and lets it stop in its own time, unless somebody asks again: a
    /// transfer that is under way may take longer than they want to wait.
    pub(crate) async fn then(mut self, stop: impl AsyncFnOnce()) -> Outcome {
        self.received().await;
        say::note("stopping; again to stop at once");
        tokio::select! {
            () = stop() => Ok(Done::Everywhere),
            code = self.received() => Ok(Done::CutShort(code)),
        }
    }
}

/// Runs `atoll origin`.
pub(crate) async fn origin(context: &Context, arguments: Origin) -> Outcome {
    let signals = StopSignals::listen()?;
    context.needed_file()?;
    let mut origin = origin::Origin::new(context.settings()?);
    if arguments.new_epoch {
        origin = origin.with_new_epoch();
    }
    let running = origin.start().await?;
    signals.then(async || running.stop().await).await
}

/// Runs `atoll edge NAME`.
pub(crate) async fn edge(context: &Context, name: &NodeName) -> Outcome {
    let signals = StopSignals::listen()?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = edge::Edge::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    signals.then(async || running.stop().await).await
}

/// Runs `atoll dns NAME`.
pub(crate) async fn dns(context: &Context, name: &NodeName) -> Outcome {
    let signals = StopSignals::listen()?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    let running = dns::Dns::new(settings, name, token).map_err(Failure::Typed)?.start().await?;
    signals.then(async || running.stop().await).await
}
