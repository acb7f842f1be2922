//! A handle on a Redis: one multiplexed connection that comes back by itself, and a deadline on all that is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use config::RedisAddress;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::watch;

use crate::connect::{BadAddress, Connection, Way};
use crate::inspection::Inspection;
use crate::script::Script;
use crate::trouble::Trouble;

/// A handle on a Redis. Clones share its connection. It needs a tokio runtime to be used, not to be made.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    name: String,
    way: Way,
    patience: Duration,
    line: watch::Sender<Line>,
    connecting: AtomicBool,
    /// How many calls in a row got no answer in time.
    slow: AtomicU32,
}

/// Calls in a row without an answer in time after which the connection is taken for dead.
const SLOW: u32 = 2;

/// What there is of a connection.
#[derive(Clone, Default)]
struct Line {
    connection: Option<Connection>,
    /// The number of the last connection; the first one is 1.
    number: u64,
    /// How many attempts have ended.
    attempts: u64,
    /// Why the last attempt failed.
    trouble: Option<Trouble>,
}

impl Redis {
    /// Prepares to reach the Redis at `address`, waiting for each answer no longer than `patience`. It does not connect yet.
    ///
    /// # Errors
    /// Where a secret can't be had, or the address is of no use.
    pub fn open(address: &RedisAddress, patience: Duration) -> Result<Self, BadAddress> {
        let (name, way) = (address.to_string(), Way::of(address)?);
        Ok(Self(Arc::new(Inner {
            name,
            way,
            patience,
            line: watch::Sender::default(),
            connecting: AtomicBool::new(false),
            slow: AtomicU32::new(0),
        })))
    }

    /// Asks one command.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn call<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Trouble> {
        self.within(async |mut connection| command.query_async(&mut connection).await).await
    }

    /// Asks several commands at once.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn pipe<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Result<T, Trouble> {
        self.within(async |mut connection| pipeline.query_async(&mut connection).await).await
    }

    /// Runs a script, of which the server is sent the text where it does not know it.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn run<T: FromRedisValue>(&self, script: &Script, keys: &[&[u8]], arguments: &[&[u8]]) -> Result<T, Trouble> {
        self.within(async |mut connection| match script.by_digest(keys, arguments).query_async(&mut connection).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                script.by_text(keys, arguments).query_async(&mut connection).await
            }
            ran => ran,
        })
        .await
    }

    /// Returns the number of the connection in use, 0 before the first: whoever finds it changed may talk to another
    /// process, which knows less.
    #[must_use]
    pub fn connection(&self) -> u64 {
        self.0.line.borrow().number
    }

    /// Opens a connection of one's own, whose answers have no deadline: for reads that wait for what is to come.
    ///
    /// # Errors
    /// See [`Trouble`]; a cluster has no such connections.
    pub async fn own(&self) -> Result<MultiplexedConnection, Trouble> {
        match self.0.way.connect_alone().await {
            Ok(Some(connection)) => Ok(connection),
            Ok(None) => Err(Trouble::Denied("a cluster has no streams that one connection could wait for".to_owned())),
            Err(error) => Err(Trouble::of(error)),
        }
    }

    /// Asks it about itself.
    ///
    /// # Errors
    /// See [`Trouble`].
    pub async fn inspect(&self) -> Result<Inspection, Trouble> {
        let info: String = self.call(redis::cmd("INFO").arg("all")).await?;
        // A server that somebody else runs may keep its settings to itself.
        let mut ask = redis::cmd("CONFIG");
        // By name: among the others there are passwords.
        ask.arg("GET").arg(&["appendfsync", "no-appendfsync-on-rewrite", "min-replicas-to-write"]);
        let settings = self.ask_if_told::<Vec<(String, String)>>(&ask).await?;
        let user = self.ask_if_told::<BTreeMap<String, Value>>(redis::cmd("ACL").arg("GETUSER").arg("default")).await?;
        Ok(Inspection::read(&info, &settings.unwrap_or_default(), user.as_ref()))
    }

    async fn ask_if_told<T: FromRedisValue>(&self, ask: &Cmd) -> Result<Option<T>, Trouble> {
        match self.call(ask).await {
            Ok(told) => Ok(Some(told)),
            Err(Trouble::Refused(_) | Trouble::Denied(_)) => Ok(None),
            Err(trouble) => Err(trouble),
        }
    }

    async fn within<T>(&self, ask: impl AsyncFnOnce(Connection) -> Result<T, RedisError>) -> Result<T, Trouble> {
        let patience = self.0.patience;
        let mut number = 0;
        let asked = async {
            let (connection, its_number) = self.connected().await?;
            number = its_number;
            ask(connection).await.map_err(Trouble::of)
        };
        let answer = tokio::time::timeout(patience, asked).await.unwrap_or(Err(Trouble::Slow(patience)));
        match &answer {
            Err(Trouble::Away(_)) => self.let_go(number),
            // A host that is gone without a word looks like a slow one: after a while another connection is tried.
            Err(Trouble::Slow(_)) if self.0.slow.fetch_add(1, Ordering::AcqRel) + 1 >= SLOW => self.let_go(number),
            Err(Trouble::Slow(_)) => {}
            _ => self.0.slow.store(0, Ordering::Release),
        }
        answer
    }

    /// Returns the connection, and waits for one where there is none.
    async fn connected(&self) -> Result<(Connection, u64), Trouble> {
        let mut line = self.0.line.subscribe();
        let begun = {
            let line = line.borrow_and_update();
            if let Some(connection) = &line.connection {
                return Ok((connection.clone(), line.number));
            }
            line.attempts
        };
        self.connect();
        let ended = line.wait_for(|line| line.connection.is_some() || line.attempts > begun).await;
        let line = ended.map_err(|_| Trouble::Away("the handle is gone".to_owned()))?;
        match (&line.connection, &line.trouble) {
            (Some(connection), _) => Ok((connection.clone(), line.number)),
            (None, Some(trouble)) => Err(trouble.clone()),
            (None, None) => Err(Trouble::Away("the connection ended".to_owned())),
        }
    }

    /// Connects in the background, unless that is under way: a connection may take longer than a caller waits.
    fn connect(&self) {
        if self.0.connecting.swap(true, Ordering::AcqRel) {
            return;
        }
        let inner = Arc::clone(&self.0);
        tokio::spawn(async move {
            let connecting = Connecting(&inner);
            let connected = inner.way.connect().await.map_err(Trouble::of);
            drop(connecting);
            inner.line.send_modify(|line| {
                line.attempts += 1;
                match connected {
                    Ok(connection) => {
                        line.number += 1;
                        line.connection = Some(connection);
                        line.trouble = None;
                    }
                    Err(trouble) => line.trouble = Some(trouble),
                }
            });
        });
    }

    /// Lets go of the connection: the next call opens another one.
    pub fn reconnect(&self) {
        self.let_go(self.connection());
    }

    fn let_go(&self, number: u64) {
        self.0.slow.store(0, Ordering::Release);
        self.0.line.send_if_modified(|line| line.number == number && line.connection.take().is_some());
    }
}

/// However an attempt to connect ends, the next one may begin.
struct Connecting<'a>(&'a Inner);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.store(false, Ordering::Release);
    }
}

impl fmt::Display for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.name)
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.0.name).finish()
    }
}
