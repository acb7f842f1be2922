//! The UDP door: a few loops on one socket that receive a packet, ask for its answer and send it back.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{net::UdpSocket, task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::{self, Transport},
    metrics::Metrics,
    view::View,
    write::Reply,
};

/// Loops on one socket: enough that one which waits for room to send does not keep the others from receiving.
const LOOPS: usize = 4;
/// A longer query is cut, and so refused; none that we could answer comes near.
const MAX_QUERY_BYTES: usize = 4096;
/// A socket that fails at once must not spin.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(10);

#[derive(Debug)]
struct Door {
    socket: UdpSocket,
    view: Arc<ArcSwap<View>>,
    metrics: Arc<Metrics>,
}

/// Answers what comes to a bound socket until told to stop; an answer in hand is still sent.
pub(crate) async fn serve(socket: UdpSocket, view: Arc<ArcSwap<View>>, metrics: Arc<Metrics>, stop: CancellationToken) {
    let door = Arc::new(Door { socket, view, metrics });
    let mut loops = JoinSet::new();
    for number in 0..LOOPS {
        loops.spawn(receive(Arc::clone(&door), number, stop.clone()));
    }
    while let Some(ended) = loops.join_next().await {
        if let Err(error) = ended {
            // Whatever packet it was, it must not end the door for all others.
            tracing::error!(%error, "one of the UDP loops broke, and another one takes its place");
            loops.spawn(receive(Arc::clone(&door), 0, stop.clone()));
        }
    }
}

async fn receive(door: Arc<Door>, number: usize, stop: CancellationToken) {
    let mut packet = vec![0; MAX_QUERY_BYTES];
    // Each loop begins elsewhere, so that the loops don't give the same address first.
    let mut rotation = number;
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return,
            received = door.socket.recv_from(&mut packet) => received,
        };
        match received {
            Ok((length, from)) => {
                rotation = rotation.wrapping_add(1);
                let reply = packet.get(..length).and_then(|packet| door.answer(packet, from, rotation));
                door.send(reply, from).await;
            }
            Err(error) => {
                tracing::debug!(%error, "failed to receive a packet");
                sleep(PAUSE_AFTER_FAILURE).await;
            }
        }
    }
}

impl Door {
    fn answer(&self, packet: &[u8], from: SocketAddr, rotation: usize) -> Option<Reply> {
        let reply = answer::reply(&self.view.load(), packet, from, Transport::Udp, rotation);
        self.metrics.count(Transport::Udp, reply.as_ref().map(|reply| reply.rcode));
        reply
    }

    async fn send(&self, reply: Option<Reply>, to: SocketAddr) {
        let Some(reply) = reply else {
            return;
        };
        if let Err(error) = self.socket.send_to(&reply.bytes, to).await {
            tracing::debug!(%error, client = %to, "failed to send an answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{edge, question, view};

    #[tokio::test]
    async fn a_question_is_answered_and_counted_and_the_door_stops_when_told() {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        let view = Arc::new(ArcSwap::from_pointee(view(vec![edge("fra-1", "fra", "192.0.2.1")])));
        let metrics = Arc::new(Metrics::default());
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(socket, view, Arc::clone(&metrics), stop.clone()));
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();

        client.send_to(b"stump", address).await.unwrap();
        client.send_to(&question("www.example.test", 1), address).await.unwrap();
        let mut reply = [0; 512];
        let (length, _) = client.recv_from(&mut reply).await.unwrap();
        stop.cancel();
        serving.await.unwrap();

        assert!(reply[..length].ends_with(&[192, 0, 2, 1]));
        assert_eq!(metrics.queries()[0], ("udp", 2));
        assert_eq!((metrics.answers()[0], metrics.dropped()), (("noerror", 1), 1));
    }
}
