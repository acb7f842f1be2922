//! Hears of other origins' events as they are appended, on a connection of its own, and hands them to the writer. What is
//! lost on the way the writer looks for.

use std::sync::Arc;
use std::time::Duration;

use engine::redis::aio::MultiplexedConnection;
use engine::redis::{self, ParsingError, RedisResult, Value};
use tokio::sync::mpsc;
use wire::Epoch;

use super::super::shown::Shown;
use super::said::{self, Entry};
use super::shelf::Shelf;

/// How long Redis waits before it says that nothing happened.
const WAIT: Duration = Duration::from_secs(1);

/// When a connection counts as dead that does not even say that.
const SILENCE: Duration = Duration::from_secs(3);

/// After how long another connection is tried.
const RETRY: Duration = Duration::from_millis(200);

/// Events in one answer: each may have a megabyte.
const PAGE: usize = 64;

/// What happened.
#[derive(Debug)]
pub(super) enum News {
    /// A connection was made: whoever answers on it may be another process.
    Connected,
    /// It ended.
    Away,
    Events(Vec<Entry>),
    /// Replicas have all up to this event of this life.
    Durable(Epoch, u64),
}

/// Runs until nobody listens any more.
pub(super) async fn run(shelf: Arc<Shelf>, shown: Arc<Shown>, tell: mpsc::Sender<News>) {
    while !tell.is_closed() {
        if let Ok(connection) = shelf.redis().own().await {
            let Err(ended) = listen(connection, &shelf, &shown, &tell).await;
            tracing::debug!(%ended, "the connection to the journal's news ended");
            let _ = tell.send(News::Away).await;
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = tell.closed() => return,
        }
    }
}

/// Why listening ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("nobody listens")]
    Unheard,
    #[error("nothing was said")]
    Silent,
    #[error("{0}")]
    Redis(#[from] redis::RedisError),
    #[error("{0}")]
    Unreadable(#[from] ParsingError),
}

async fn listen(
    mut connection: MultiplexedConnection,
    shelf: &Shelf,
    shown: &Shown,
    tell: &mpsc::Sender<News>,
) -> Result<std::convert::Infallible, Ended> {
    send(tell, News::Connected).await?;
    let mut seen = [shown.head().seq; 2];
    loop {
        let read = async { read(&mut connection, shelf, seen).await };
        let heard = tokio::select! {
            heard = tokio::time::timeout(SILENCE, read) => heard.map_err(|_| Ended::Silent)??,
            () = tell.closed() => return Err(Ended::Unheard),
        };
        if heard.is_empty() {
            // Another life may have begun at an earlier event.
            seen = [shown.head().seq; 2];
        }
        for news in heard {
            match &news {
                News::Events(entries) => seen[0] = entries.last().map_or(seen[0], |last| last.seq),
                News::Durable(_, seq) => seen[1] = *seq,
                News::Connected | News::Away => {}
            }
            send(tell, news).await?;
        }
    }
}

async fn send(tell: &mpsc::Sender<News>, news: News) -> Result<(), Ended> {
    tell.send(news).await.map_err(|_| Ended::Unheard)
}

async fn read(connection: &mut MultiplexedConnection, shelf: &Shelf, seen: [u64; 2]) -> Result<Vec<News>, Ended> {
    let wait_ms = u64::try_from(WAIT.as_millis()).unwrap_or(u64::MAX);
    let [events, durable] = shelf.streams();
    let answer: RedisResult<Value> = redis::cmd("XREAD")
        .arg("COUNT")
        .arg(PAGE)
        .arg("BLOCK")
        .arg(wait_ms)
        .arg("STREAMS")
        .arg(events)
        .arg(durable)
        .arg(format!("{}-0", seen[0]))
        .arg(format!("{}-0", seen[1]))
        .query_async(connection)
        .await;
    let mut news = Vec::new();
    for (name, entries) in streams(answer?)? {
        if name == events {
            news.push(News::Events(entries.into_iter().map(event).collect::<Result<_, _>>()?));
        } else if let Some(last) = entries.into_iter().last() {
            news.push(mark(last)?);
        }
    }
    Ok(news)
}

/// RESP3 answers with a map, RESP2 with a list of pairs; both with nothing when nothing came.
fn streams(answer: Value) -> Result<Vec<(String, Vec<Value>)>, ParsingError> {
    let list = |entries: Value| match entries {
        Value::Array(entries) => Ok(entries),
        _ => Err(ParsingError::from("a stream's entries are a list")),
    };
    let pair = |name: Value, entries: Value| Ok((said::text(name)?, list(entries)?));
    match answer {
        Value::Nil => Ok(Vec::new()),
        Value::Map(streams) => streams.into_iter().map(|(name, entries)| pair(name, entries)).collect(),
        Value::Array(streams) => {
            let read = |stream| said::array(stream).and_then(|[name, entries]| pair(name, entries));
            streams.into_iter().map(read).collect()
        }
        _ => Err(ParsingError::from("news come by stream")),
    }
}

fn event(entry: Value) -> Result<Entry, ParsingError> {
    let [id, fields] = said::array(entry)?;
    let [_, epoch, _, chain, _, json] = said::array(fields)?;
    Entry::of(&said::text(id)?, &said::text(epoch)?, &said::text(chain)?, said::text(json)?)
}

fn mark(entry: Value) -> Result<News, ParsingError> {
    let [id, fields] = said::array(entry)?;
    let [_, epoch] = said::array(fields)?;
    Ok(News::Durable(said::parsed(&said::text(epoch)?)?, said::seq_of(&said::text(id)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::Chain;

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn news_are_read_as_either_protocol_has_them() {
        let (epoch, chain) = ("0101010101010101", Chain::START.to_string());
        let fields = Value::Array(["p", epoch, "c", &chain, "e", "{}"].into_iter().map(bulk).collect());
        let entries = Value::Array(vec![Value::Array(vec![bulk("7-0"), fields])]);
        let map = Value::Map(vec![(bulk("k"), entries.clone())]);
        let list = Value::Array(vec![Value::Array(vec![bulk("k"), entries])]);
        for answer in [map, list] {
            let (name, entries) = streams(answer).unwrap().remove(0);
            assert_eq!((name.as_str(), event(entries[0].clone()).unwrap().seq), ("k", 7));
        }
        assert!(streams(Value::Nil).unwrap().is_empty() && streams(bulk("x")).is_err());
        let fields = Value::Array(["p", epoch].into_iter().map(bulk).collect());
        assert!(matches!(mark(Value::Array(vec![bulk("9-0"), fields])).unwrap(), News::Durable(_, 9)));
    }
}
