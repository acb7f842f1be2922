//! Counts questions by how they came and answers by how they ended, for the admin listener to show.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::{answer::Transport, write::Rcode};

/// The counters of one DNS node.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    udp: AtomicU64,
    tcp: AtomicU64,
    dropped: AtomicU64,
    closed_for_room: AtomicU64,
    no_error: AtomicU64,
    form_err: AtomicU64,
    serv_fail: AtomicU64,
    nx_domain: AtomicU64,
    not_imp: AtomicU64,
    refused: AtomicU64,
    bad_vers: AtomicU64,
}

impl Metrics {
    /// Returns how many packets came, by transport.
    #[must_use]
    pub(crate) fn queries(&self) -> [(&'static str, u64); 2] {
        [("udp", self.udp.load(Relaxed)), ("tcp", self.tcp.load(Relaxed))]
    }

    /// Returns how many answers went out, by rcode.
    #[must_use]
    pub(crate) fn answers(&self) -> [(&'static str, u64); 7] {
        [
            ("noerror", self.no_error.load(Relaxed)),
            ("formerr", self.form_err.load(Relaxed)),
            ("servfail", self.serv_fail.load(Relaxed)),
            ("nxdomain", self.nx_domain.load(Relaxed)),
            ("notimp", self.not_imp.load(Relaxed)),
            ("refused", self.refused.load(Relaxed)),
            ("badvers", self.bad_vers.load(Relaxed)),
        ]
    }

    /// Returns how many packets got no reply, since they were none to reply to.
    #[must_use]
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Returns how many TCP connections were closed to make room for others.
    #[must_use]
    pub(crate) fn connections_closed_for_room(&self) -> u64 {
        self.closed_for_room.load(Relaxed)
    }

    /// Counts one packet, and what became of it.
    pub(crate) fn count(&self, transport: Transport, rcode: Option<Rcode>) {
        let came = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        };
        let ended = match rcode {
            None => &self.dropped,
            Some(Rcode::NoError) => &self.no_error,
            Some(Rcode::FormErr) => &self.form_err,
            Some(Rcode::ServFail) => &self.serv_fail,
            Some(Rcode::NxDomain) => &self.nx_domain,
            Some(Rcode::NotImp) => &self.not_imp,
            Some(Rcode::Refused) => &self.refused,
            Some(Rcode::BadVers) => &self.bad_vers,
        };
        came.fetch_add(1, Relaxed);
        ended.fetch_add(1, Relaxed);
    }

    /// Counts a connection that was closed to make room.
    pub(crate) fn count_closed_for_room(&self) {
        self.closed_for_room.fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_counts_where_it_came_in_and_how_it_ended() {
        let metrics = Metrics::default();

        metrics.count(Transport::Udp, Some(Rcode::BadVers));
        metrics.count(Transport::Tcp, None);

        assert_eq!(metrics.queries(), [("udp", 1), ("tcp", 1)]);
        assert_eq!(metrics.answers().map(|(_, count)| count), [0, 0, 0, 0, 0, 0, 1]);
        assert_eq!(metrics.dropped(), 1);
    }
}
