//! A cluster of three Redis servers without replicas.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;

use super::{RedisOptions, RedisServer};
use crate::eventually;

/// The slots of each server.
const SLOTS: [(&str, &str); 3] = [("0", "5460"), ("5461", "10922"), ("10923", "16383")];

/// A cluster, killed when it is dropped.
#[derive(Debug)]
pub struct RedisCluster {
    servers: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts three servers and waits until each knows the others and who has which slot.
    ///
    /// # Errors
    /// Where a server does not come up, or they do not come together.
    pub async fn start(options: RedisOptions) -> Result<Self> {
        let options = options.clustered();
        let servers = try_join_all(SLOTS.map(|_| RedisServer::start(options.clone()))).await?;
        let cluster = Self { servers };
        for ((number, server), (first, last)) in (1..).zip(&cluster.servers).zip(SLOTS) {
            server.command(&["CLUSTER", "SET-CONFIG-EPOCH", &format!("{number}")]).await?;
            server.command(&["CLUSTER", "ADDSLOTSRANGE", first, last]).await?;
        }
        cluster.introduce().await?;
        eventually("the cluster to come together", || cluster.is_whole()).await?;
        Ok(cluster)
    }

    /// Returns where its servers listen.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(RedisServer::address).collect()
    }

    /// Returns its servers, in the order of their slots.
    #[must_use]
    pub fn servers(&self) -> &[RedisServer] {
        &self.servers
    }

    /// Returns a server to be killed or restarted.
    ///
    /// # Errors
    /// Where there is none of this number.
    pub fn server(&mut self, number: usize) -> Result<&mut RedisServer> {
        self.servers.get_mut(number).with_context(|| format!("there is no server {number}"))
    }

    async fn introduce(&self) -> Result<()> {
        let (first, others) = self.servers.split_first().context("the cluster is empty")?;
        for other in others {
            let (port, bus) = (other.address().port().to_string(), other.ports.bus.context("the server has no bus")?.to_string());
            first.command(&["CLUSTER", "MEET", "127.0.0.1", &port, &bus]).await?;
        }
        Ok(())
    }

    async fn is_whole(&self) -> Result<()> {
        for server in &self.servers {
            let said = server.command(&["CLUSTER", "INFO"]).await?;
            for sign in ["cluster_state:ok", "cluster_known_nodes:3", "cluster_size:3"] {
                ensure!(said.contains(sign), "{} says {said}", server.address());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_cluster_of_three_sends_who_asks_for_a_key_to_the_server_that_has_it() -> Result<()> {
        let cluster = RedisCluster::start(RedisOptions::default()).await?;

        let mut sent_on = 0;
        for server in cluster.servers() {
            match server.command(&["GET", "a"]).await {
                Ok(value) => assert_eq!(value, ""),
                Err(error) => sent_on += usize::from(error.to_string().starts_with("MOVED 15495 ")),
            }
        }

        assert_eq!(sent_on, 2);
        Ok(())
    }
}
