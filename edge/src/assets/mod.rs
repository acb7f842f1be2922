//! Static sites: which file a path means, and where its bytes come from.
//!
//! A site's alias names a version, its manifest maps the path to a digest, and the bytes of a digest
//! never change: they come from memory, else from the folder, else from the origin's blobs.

mod manifests;
mod resolve;
mod folder;
mod fetch;
mod serve;
mod ahead;

pub(crate) use ahead::{Change, fetch_ahead};
pub(crate) use fetch::{Assets, Source, slice};
pub(crate) use folder::{AssetKey, Folder};
pub(crate) use manifests::Manifests;
pub(crate) use resolve::{Resolved, resolve};
pub(crate) use serve::serve;
