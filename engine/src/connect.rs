//! From an address to a connection: who comes, by TLS or not, to one server or a cluster.

use std::time::Duration;

use config::{RedisAddress, RedisUrl, SecretError};
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisConnectionInfo,
    RedisFuture, RedisResult, TlsCertificates, Value,
};

/// How long a connection may take, beside what is asked on it.
const CONNECTING: Duration = Duration::from_secs(2);

/// Why an address is of no use.
#[derive(Debug, thiserror::Error)]
pub enum BadAddress {
    /// Its password or certificates can't be had.
    #[error("{key}: {error}")]
    Secret {
        /// The key of the configuration.
        key: String,
        /// Why.
        error: SecretError,
    },
    /// The certificates are none, for example.
    #[error("{key}: {why}")]
    Unusable {
        /// The key of the configuration.
        key: String,
        /// Why.
        why: String,
    },
}

/// The way to a Redis: everything but the connection.
#[derive(Debug)]
pub(crate) enum Way {
    One(Box<Client>),
    Many(Box<ClusterClient>),
}

/// A connection to one server, or to a cluster. Clones share it.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

impl Way {
    pub(crate) fn of(address: &RedisAddress) -> Result<Self, BadAddress> {
        let key = |name: &str| format!("{}.{name}", address.key);
        let secret = |name: &str, secret: &Option<config::SecretRef>| {
            secret.as_ref().map(config::SecretRef::read).transpose().map_err(|error| BadAddress::Secret { key: key(name), error })
        };
        let (password, ca) = (secret("password", &address.password)?, secret("ca", &address.ca)?);
        let unusable = |error: redis::RedisError| BadAddress::Unusable { key: address.key.clone(), why: error.to_string() };
        if address.urls.iter().any(|url| url.tls) {
            // The client takes what the process has agreed on; who came first has agreed on the same.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let infos = address.urls.iter().map(|url| info(url, address.user.as_deref(), password.as_deref()));
        let infos = infos.collect::<RedisResult<Vec<_>>>().map_err(unusable)?;
        let certificates = ca.map(|ca| TlsCertificates { client_tls: None, root_cert: Some(ca.into_bytes()) });
        if address.cluster {
            let builder = ClusterClient::builder(infos)
                .use_protocol(ProtocolVersion::RESP3)
                .retries(1)
                .tcp_settings(TcpSettings::default().set_nodelay(true))
                .connection_timeout(CONNECTING);
            let builder = if let Some(certificates) = certificates { builder.certs(certificates) } else { builder };
            return builder.build().map(|client| Self::Many(Box::new(client))).map_err(unusable);
        }
        let Some(info) = infos.into_iter().next() else {
            return Err(BadAddress::Unusable { key: address.key.clone(), why: "it names no server".to_owned() });
        };
        let client = if let Some(certificates) = certificates { Client::build_with_tls(info, certificates) } else { Client::open(info) };
        client.map(|client| Self::One(Box::new(client))).map_err(unusable)
    }

    /// Connects anew.
    pub(crate) async fn connect(&self) -> RedisResult<Connection> {
        match self {
            // Who asks has a deadline of its own.
            Self::One(client) => client.get_multiplexed_async_connection_with_config(&without_deadline()).await.map(Connection::One),
            Self::Many(client) => client.get_async_connection().await.map(Connection::Many),
        }
    }

    /// Connects to one server for reads that wait there for what is to come.
    pub(crate) async fn connect_alone(&self) -> RedisResult<Option<MultiplexedConnection>> {
        match self {
            Self::One(client) => client.get_multiplexed_async_connection_with_config(&without_deadline()).await.map(Some),
            Self::Many(_) => Ok(None),
        }
    }
}

fn without_deadline() -> AsyncConnectionConfig {
    AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECTING)).set_response_timeout(None)
}

fn info(url: &RedisUrl, user: Option<&str>, password: Option<&str>) -> RedisResult<ConnectionInfo> {
    let address = if url.tls {
        ConnectionAddr::TcpTls { host: url.host.clone(), port: url.port, insecure: false, tls_params: None }
    } else {
        ConnectionAddr::Tcp(url.host.clone(), url.port)
    };
    let mut settings = RedisConnectionInfo::default().set_protocol(ProtocolVersion::RESP3).set_db(i64::from(url.database));
    if let Some(user) = user {
        settings = settings.set_username(user);
    }
    if let Some(password) = password {
        settings = settings.set_password(password);
    }
    let info = address.into_connection_info()?;
    Ok(info.set_redis_settings(settings).set_tcp_settings(TcpSettings::default().set_nodelay(true)))
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::One(one) => one.req_packed_command(command),
            Self::Many(many) => many.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(&'a mut self, pipeline: &'a Pipeline, offset: usize, count: usize) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::One(one) => one.req_packed_commands(pipeline, offset, count),
            Self::Many(many) => many.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::One(one) => one.get_db(),
            Self::Many(many) => many.get_db(),
        }
    }
}
