//! `atoll origin`, `atoll edge` and `atoll dns`: one node in one process, from its start to its end.

use std::fs::DirBuilder;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use config::Settings;
use tokio::signal::unix::{Signal, SignalKind, signal};
use wire::NodeName;

use crate::args::Origin;
use crate::changes::Changes;
use crate::context::{Context, follow_token};
use crate::exit::{Done, Failure, Outcome};
use crate::{demo, say, service};

/// How long a node may take to stop once it has drained, with what is in hand.
const STOPPING: Duration = Duration::from_secs(15);

/// How often it is looked at whether a node is whole.
const LOOK: Duration = Duration::from_secs(1);

/// What runs in a process until it is told to stop.
pub(crate) trait Node {
    /// Takes in a configuration that was read anew: all of it or nothing.
    async fn reload(&mut self, settings: &Settings) -> Result<(), Failure>;

    /// Tells whether all that belongs to it runs.
    fn is_whole(&self) -> bool;

    /// Begins to leave, and returns for how long it should go on answering.
    fn drain(&mut self) -> Duration;

    /// Finishes what is in hand, and ends.
    async fn stop(self);
}

/// What a process is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    /// To end, with the exit code that shells know for it. Whoever presses Ctrl-C waits in front of it.
    Stop { code: u8, in_a_hurry: bool },
    /// To read its file again, by a signal or since that is another than before.
    Reload { is_asked: bool },
}

/// SIGINT, SIGTERM, SIGHUP and changes of files, listened to from before anything is read: what comes meanwhile is not lost.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    changes: Changes,
}

impl Signals {
    /// Begins to listen.
    pub(crate) fn listen(context: &Context) -> Result<Self, Failure> {
        let listen = |kind| signal(kind).map_err(Failure::failed);
        let (interrupt, terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
        let changes = Changes::of(context.files());
        Ok(Self { interrupt, terminate, hang_up: listen(SignalKind::hangup())?, changes })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.interrupt.recv() => Told::Stop { code: 130, in_a_hurry: true },
            _ = self.terminate.recv() => Told::Stop { code: 143, in_a_hurry: false },
            _ = self.hang_up.recv() => Told::Reload { is_asked: true },
            () = self.changes.next() => Told::Reload { is_asked: false },
        }
    }

    async fn stop(&mut self) -> (u8, bool) {
        loop {
            if let Told::Stop { code, in_a_hurry } = self.next().await {
                return (code, in_a_hurry);
            }
        }
    }

    /// Lets a node run until somebody asks it to end, and end in its own time, unless somebody asks again. A node that is
    /// not whole ends at once: what it keeps outlives that, and who watches over it starts it anew.
    pub(crate) async fn attend(mut self, mut node: impl Node, context: &Context) -> Outcome {
        service::ready();
        let in_a_hurry = self.until_told_to_stop(&mut node, context).await?;
        let draining = if in_a_hurry { Duration::ZERO } else { node.drain() };
        service::stopping(draining + STOPPING);
        say_stopping(draining);
        let stop = async {
            tokio::time::sleep(draining).await;
            node.stop().await;
        };
        tokio::select! {
            () = stop => Ok(Done::Everywhere),
            (code, _) = self.stop() => Ok(Done::CutShort(code)),
        }
    }

    async fn until_told_to_stop(&mut self, node: &mut impl Node, context: &Context) -> Result<bool, Failure> {
        let mut look = tokio::time::interval(LOOK);
        let mut alive = tokio::time::interval(service::watchdog().unwrap_or(Duration::MAX / 4));
        loop {
            let is_asked = tokio::select! {
                told = self.next() => match told {
                    Told::Stop { in_a_hurry, .. } => return Ok(in_a_hurry),
                    Told::Reload { is_asked } => is_asked,
                },
                _ = look.tick() => {
                    if node.is_whole() {
                        continue;
                    }
                    return Err(Failure::failed("a task that this node can't do without has ended or panicked, see above: so it ends itself, to be started anew"));
                }
                _ = alive.tick() => {
                    service::alive();
                    continue;
                }
            };
            // Before anything is read: what changes from here on is another change. The files may be others than before too.
            self.changes = Changes::of(context.files());
            service::reloading();
            match reload(node, context).await {
                Ok(()) => tracing::info!(is_asked, "the configuration was read again and is in force"),
                Err(Failure::Typed(error) | Failure::Failed(error)) => {
                    tracing::error!(is_asked, "the configuration was read again, and nothing of it is taken in: {error:#}");
                }
            }
            service::ready();
        }
    }
}

async fn reload(node: &mut impl Node, context: &Context) -> Result<(), Failure> {
    node.reload(&context.settings()?).await
}

/// For people at a terminal; a log has lines of its own form.
fn say_stopping(draining: Duration) {
    let said = if draining.is_zero() { String::new() } else { format!("draining for {}, then ", humantime::format_duration(draining)) };
    if std::io::stderr().is_terminal() {
        say::note(format!("{said}stopping; again to stop at once"));
    } else {
        tracing::info!(draining_ms = u64::try_from(draining.as_millis()).unwrap_or(u64::MAX), "{said}stopping");
    }
}

/// Makes the folder for what nodes keep, where there is none: nobody else's to read, since all that readers get is in it.
pub(crate) fn make_folder(data: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(data);
    made.map_err(|error| Failure::failed(format!("failed to create {} (data): {error}", data.display())))
}

/// Where a node has its files is known to all that runs.
fn same_data(old: &Settings, new: &Settings) -> Result<(), Failure> {
    if old.data == new.data { Ok(()) } else { Err(Failure::typed("a restart is needed to change data")) }
}

struct OriginNode {
    settings: Settings,
    running: origin::Running,
}

impl Node for OriginNode {
    async fn reload(&mut self, settings: &Settings) -> Result<(), Failure> {
        same_data(&self.settings, settings)?;
        self.running.reload(settings)?;
        if settings.network_json != self.settings.network_json {
            tracing::info!("the network's part of the file has changed: `atoll apply` puts it in force");
        }
        self.settings = settings.clone();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.running.is_whole()
    }

    /// Its followers move to another origin when their feeds end, and callers know all of them.
    fn drain(&mut self) -> Duration {
        Duration::ZERO
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

struct EdgeNode {
    settings: Settings,
    running: edge::Running,
}

impl Node for EdgeNode {
    async fn reload(&mut self, settings: &Settings) -> Result<(), Failure> {
        same_data(&self.settings, settings)?;
        self.running.reload(settings, settings.origin.urls.clone(), follow_token(settings)?)?;
        self.settings = settings.clone();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.running.is_whole()
    }

    fn drain(&mut self) -> Duration {
        self.running.drain();
        self.settings.drain
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

struct DnsNode {
    settings: Settings,
    running: dns::Running,
}

impl Node for DnsNode {
    async fn reload(&mut self, settings: &Settings) -> Result<(), Failure> {
        same_data(&self.settings, settings)?;
        self.running.reload(settings, settings.origin.urls.clone(), follow_token(settings)?)?;
        self.settings = settings.clone();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.running.is_whole()
    }

    fn drain(&mut self) -> Duration {
        self.running.drain();
        self.settings.drain
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

/// The demo upstream, alone.
struct Demo(ServerHandle);

impl Node for Demo {
    async fn reload(&mut self, _settings: &Settings) -> Result<(), Failure> {
        Ok(())
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn drain(&mut self) -> Duration {
        Duration::ZERO
    }

    async fn stop(self) {
        self.0.stop(true).await;
    }
}

/// Runs `atoll demo`.
pub(crate) async fn demo(context: &Context, listen: SocketAddr) -> Outcome {
    let signals = Signals::listen(context)?;
    let server = demo::start(listen)?;
    say::line(format!("the demo upstream is at http://{listen}/api/"))?;
    signals.attend(Demo(server), context).await
}

/// Runs `atoll origin`.
pub(crate) async fn origin(context: &Context, arguments: Origin) -> Outcome {
    let signals = Signals::listen(context)?;
    context.needed_file()?;
    let settings = context.settings()?;
    make_folder(&settings.data)?;
    let mut origin = origin::Origin::new(settings.clone()).with_sockets(service::sockets(&[settings.origin.listen])?);
    if arguments.new_epoch {
        origin = origin.with_new_epoch();
    }
    let running = origin.start().await?;
    signals.attend(OriginNode { settings, running }, context).await
}

/// Runs `atoll edge NAME`.
pub(crate) async fn edge(context: &Context, name: &NodeName) -> Outcome {
    let signals = Signals::listen(context)?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    make_folder(&settings.data)?;
    let edge = edge::Edge::new(settings.clone(), name, token).map_err(Failure::Typed)?;
    let addresses: Vec<SocketAddr> =
        settings.edges.get(name).into_iter().flat_map(|node| node.listen.iter().copied().chain([node.admin])).collect();
    let running = edge.with_sockets(service::sockets(&addresses)?).start().await?;
    signals.attend(EdgeNode { settings, running }, context).await
}

/// Runs `atoll dns NAME`.
pub(crate) async fn dns(context: &Context, name: &NodeName) -> Outcome {
    let signals = Signals::listen(context)?;
    context.needed_file()?;
    let settings = context.settings()?;
    let token = follow_token(&settings)?;
    make_folder(&settings.data)?;
    let dns = dns::Dns::new(settings.clone(), name, token).map_err(Failure::Typed)?;
    let addresses: Vec<SocketAddr> =
        settings.dns.get(name).into_iter().flat_map(|node| node.listen.iter().copied().chain([node.admin])).collect();
    let running = dns.with_sockets(service::sockets(&addresses)?).start().await?;
    signals.attend(DnsNode { settings, running }, context).await
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one of its tasks has left after so many looks.
    struct Leaving(std::cell::Cell<u32>);

    impl Node for Leaving {
        async fn reload(&mut self, _settings: &Settings) -> Result<(), Failure> {
            Ok(())
        }

        fn is_whole(&self) -> bool {
            let left = self.0.get();
            self.0.set(left.saturating_sub(1));
            left > 0
        }

        fn drain(&mut self) -> Duration {
            Duration::ZERO
        }

        async fn stop(self) {}
    }

    #[tokio::test]
    async fn a_node_that_is_not_whole_any_more_ends_as_a_failure() {
        let context = Context::new(None, Vec::new());
        let signals = Signals::listen(&context).unwrap();
        let Err(Failure::Failed(error)) = signals.attend(Leaving(1.into()), &context).await else { panic!("it went on") };
        assert!(error.to_string().contains("panicked"), "{error}");
    }
}
