//! Carries a websocket between a client and an upstream, on routes that allow it (RFC 6455; RFC 9110, 7.8).

use std::io;
use std::sync::Arc;

use futures_util::StreamExt as _;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderMap, HeaderValue};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use crate::door::{Exchange, Incoming};

const BUFFER: usize = 16 << 10;

/// Adds what asks the upstream to switch; it is about each connection and so was taken off before.
pub(crate) fn ask_for_it(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// Tells the client that the upstream switched, and carries bytes both ways until both sides are done.
pub(crate) async fn run(exchange: &Arc<Exchange>, mut headers: HeaderMap, upstream: Upgraded) {
    ask_for_it(&mut headers);
    exchange.switch(&headers);
    let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
    let up = carry_up(Incoming::of(exchange), to_upstream);
    let down = carry_down(from_upstream, exchange);
    // When the upstream is done there is nothing left to carry; when the client is, answers may still come.
    tokio::pin!(up, down);
    tokio::select! {
        carried = &mut up => {
            if carried.is_ok() {
                let _ = down.await;
            }
        }
        _ = &mut down => {}
    }
}

async fn carry_up(mut client: Incoming, mut upstream: WriteHalf<TokioIo<Upgraded>>) -> io::Result<()> {
    while let Some(bytes) = client.next().await {
        upstream.write_all(&bytes?).await?;
        upstream.flush().await?;
    }
    upstream.shutdown().await
}

async fn carry_down(mut upstream: ReadHalf<TokioIo<Upgraded>>, client: &Exchange) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = upstream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        client.write(buffer.get(..read).unwrap_or_default()).await;
    }
}
