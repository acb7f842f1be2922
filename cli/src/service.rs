//! What a node has to do with the service manager that started it: it takes sockets from it, and tells it how it is.
//! By systemd's protocols, sd_listen_fds(3) and sd_notify(3); where nobody speaks them nothing happens.

use std::net::SocketAddr;
use std::time::Duration;

use listen::Sockets;
use listenfd::ListenFd;
use sd_notify::NotifyState;

use crate::exit::Failure;

/// Takes the sockets that were handed over. Each has to be bound to one of these addresses: what nobody answers would
/// keep its clients waiting for ever.
pub(crate) fn sockets(addresses: &[SocketAddr]) -> Result<Sockets, Failure> {
    let mut handed = ListenFd::from_env();
    let (mut listeners, mut datagrams) = (Vec::new(), Vec::new());
    for at in 0..handed.len() {
        match (handed.take_tcp_listener(at), handed.take_udp_socket(at)) {
            (Ok(Some(listener)), _) => listeners.push(listener),
            (_, Ok(Some(socket))) => datagrams.push(socket),
            _ => return Err(Failure::typed(format!("socket {at} of LISTEN_FDS is neither a TCP listener nor a UDP socket"))),
        }
    }
    let sockets = Sockets::new(listeners, datagrams);
    match sockets.left().iter().find(|handed| !addresses.contains(handed)) {
        None => Ok(sockets),
        Some(stranger) => {
            let known = addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            Err(Failure::typed(format!(
                "a socket was handed over (LISTEN_FDS) for {stranger}, where this node does not listen; it does on {known}"
            )))
        }
    }
}

/// The node serves.
pub(crate) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("ready")]);
}

/// The node reads its file again; [`ready`] says that it has.
pub(crate) fn reloading() {
    // Without the time a manager that waits for the reload (Type=notify-reload) would not know which one this is.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
}

/// The node leaves, which may take so long.
pub(crate) fn stopping(within: Duration) {
    let within = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(within)]);
}

/// Returns how often the manager wants to hear that the node lives: twice within the time after which it ends it.
pub(crate) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|within| within / 2).filter(|every| !every.is_zero())
}

/// The node lives.
pub(crate) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "failed to tell the service manager how this node is (NOTIFY_SOCKET)");
    }
}
