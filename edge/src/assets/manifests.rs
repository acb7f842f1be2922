//! The manifests of the versions that are shown, each loaded once and shared by all requests.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;
use wire::{Digest, Manifest};

use super::fetch::{Assets, FetchError};

/// Loads and keeps manifests.
#[derive(Debug)]
pub(crate) struct Manifests {
    pub(super) assets: Arc<Assets>,
    cells: Mutex<HashMap<Digest, Arc<OnceCell<Arc<Manifest>>>>>,
}

impl Manifests {
    pub(crate) fn new(assets: Arc<Assets>) -> Self {
        Self { assets, cells: Mutex::default() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Arc<Manifest>>>>> {
        self.cells.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a version's manifest; who comes while it is being loaded waits for the same.
    pub(crate) async fn get(&self, version: Digest) -> Result<Arc<Manifest>, FetchError> {
        let cell = Arc::clone(self.lock().entry(version).or_default());
        cell.get_or_try_init(|| self.load(version)).await.cloned()
    }

    async fn load(&self, version: Digest) -> Result<Arc<Manifest>, FetchError> {
        let bytes = self.assets.read_whole(version).await?;
        serde_json::from_slice(&bytes).map(Arc::new).map_err(|error| FetchError::Origin(format!("manifest {version}: {error}")))
    }

    /// Forgets the manifests of versions that nobody can ask for any more.
    pub(crate) fn keep_only(&self, versions: impl IntoIterator<Item = Digest>) {
        let kept: HashSet<_> = versions.into_iter().collect();
        // A prefetch that is under way holds its cell itself.
        self.lock().retain(|version, cell| kept.contains(version) || !cell.initialized());
    }
}
