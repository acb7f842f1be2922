//! A region's shared tier: it may forget, and it may come back with what it held long ago.

use std::collections::BTreeMap;

use edge::cores::{Shared, may_share};
use follow::Standing;

use crate::chance::Chance;
use crate::truth::Body;

/// An entry as the shared tier holds it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedEntry {
    pub(crate) shared: Shared,
    pub(crate) settings: u64,
    pub(crate) body: Body,
    /// What makes it one of a kind.
    pub(crate) id: u64,
}

/// A shared tier, and a copy of it from some time ago.
#[derive(Debug, Default)]
pub(crate) struct SharedTier {
    held: BTreeMap<usize, SharedEntry>,
    copy: BTreeMap<usize, SharedEntry>,
}

impl SharedTier {
    pub(crate) fn read(&self, key: usize) -> Option<SharedEntry> {
        self.held.get(&key).copied()
    }

    /// Takes in an entry by the rule, and says what is wrong where it should not have.
    pub(crate) fn write(&mut self, key: usize, entry: SharedEntry, writer: &Standing) -> Result<bool, String> {
        let known = self.held.get(&key).map(|known| known.shared);
        if !may_share(writer, known.as_ref(), &entry.shared) {
            return Ok(false);
        }
        self.held.insert(key, entry);
        if !writer.holds() {
            return Err("P5: a fenced edge wrote to the shared tier".to_owned());
        }
        match known {
            Some(known) if known.epoch == entry.shared.epoch && known.filled_at > entry.shared.filled_at => {
                Err("P5: a write to the shared tier replaced what was filled later".to_owned())
            }
            _ => Ok(true),
        }
    }

    pub(crate) fn remove(&mut self, key: usize) {
        self.held.remove(&key);
    }

    pub(crate) fn lose_some(&mut self, chance: &mut Chance) {
        self.held.retain(|_, _| chance.of_thousand(500));
    }

    pub(crate) fn back_up(&mut self) {
        self.copy = self.held.clone();
    }

    pub(crate) fn restore(&mut self) {
        self.held = self.copy.clone();
    }
}
