//! A folder of blobs, synced before anybody is told.

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// Opens the folder, and sweeps what an interrupted upload left.
pub(super) fn open(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    std::fs::create_dir_all(folder)?;
    sweep_staging(folder)?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)))
}

/// object_store writes to `name#N` first and does not list those; after a kill they would stay for ever.
fn sweep_staging(folder: &Path) -> std::io::Result<()> {
    for shard in std::fs::read_dir(folder)? {
        let shard = shard?;
        if !shard.file_type()?.is_dir() {
            continue;
        }
        for file in std::fs::read_dir(shard.path())? {
            let file = file?;
            if file.file_name().to_string_lossy().contains('#') {
                std::fs::remove_file(file.path())?;
            }
        }
    }
    Ok(())
}
