//! The engines of a world: those that its plan asks for, started before the processes that use them.

use anyhow::{Context as _, Result};

use super::plan::{Plan, Shared};
use super::ways::Ways;
use crate::engines::{Keeps, RedisServer, Store};

/// The engines. Dropping them ends them.
#[derive(Debug, Default)]
pub(crate) struct Beside {
    pub(super) second_tier: Option<RedisServer>,
    pub(super) control: Option<RedisServer>,
    pub(super) store: Option<Store>,
}

impl Beside {
    /// Starts what a plan asks for.
    pub(super) async fn start(plan: &Plan, ways: &mut Ways) -> Result<Self> {
        let mut beside = Self::default();
        match plan.shared {
            Shared::Nothing => {}
            Shared::SecondTier => beside.second_tier = Some(RedisServer::start(ways.free()?, Keeps::Nothing).await?),
            Shared::Control | Shared::ControlAndStore => {
                beside.control = Some(RedisServer::start(ways.free()?, Keeps::Everything).await?);
            }
        }
        if plan.shared == Shared::ControlAndStore {
            beside.store = Some(Store::start(ways.free()?).await?);
        }
        Ok(beside)
    }

    /// Returns the Redis that two edges share.
    pub(crate) fn second_tier(&mut self) -> Result<&mut RedisServer> {
        self.second_tier.as_mut().context("there is no Redis between edges")
    }

    /// Returns the Redis under the origins.
    pub(crate) fn control(&mut self) -> Result<&mut RedisServer> {
        self.control.as_mut().context("there is no Redis under the origins")
    }

    /// Returns the store for blobs.
    pub(crate) fn store(&self) -> Result<&Store> {
        self.store.as_ref().context("there is no store")
    }
}
