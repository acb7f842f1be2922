//! A folder of blobs, synced before anybody is told: an origin's own, or one that origins share.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use object_store::ObjectStore;
use object_store::local::LocalFileSystem;

/// No upload takes so long. What others send at the moment is not to be swept away.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// Opens a folder that nobody else writes to, and sweeps what an interrupted upload left.
pub(super) fn open(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    std::fs::create_dir_all(folder)?;
    sweep_staging(folder, Duration::ZERO)?;
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)))
}

/// Opens a folder that origins share, and sweeps what uploads left that were interrupted long ago.
pub(super) fn open_shared(folder: &Path) -> Result<Arc<dyn ObjectStore>> {
    // It is mounted, not made: a folder in its place would be this machine's own.
    let opened = std::fs::metadata(folder).and_then(|_| sweep_staging(folder, ABANDONED));
    opened.with_context(|| format!("origin.blobs: failed to open {}", folder.display()))?;
    // Each blob has a folder of its own there, which goes with its last copy.
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true).with_automatic_cleanup(true)))
}

/// object_store writes to `name#N` first and does not list those; after a kill they would stay for ever.
fn sweep_staging(folder: &Path, older: Duration) -> std::io::Result<()> {
    let now = SystemTime::now();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sweep_staging(&entry.path(), older)?;
        } else if entry.file_name().to_string_lossy().contains('#') {
            let written = entry.metadata()?.modified()?;
            if now.duration_since(written).unwrap_or_default() >= older {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_upload_left_is_swept_in_an_own_folder_at_once_and_in_a_shared_one_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = folder.path().join("ab/abcd");
        std::fs::create_dir_all(&shelf).unwrap();
        let (new, old, blob) = (shelf.join("1#1"), shelf.join("2#1"), shelf.join("3"));
        for file in [&new, &old, &blob] {
            std::fs::write(file, "x").unwrap();
        }
        let long_ago = SystemTime::now() - ABANDONED * 2;
        std::fs::File::options().write(true).open(&old).unwrap().set_modified(long_ago).unwrap();

        open_shared(folder.path()).unwrap();
        assert_eq!((new.exists(), old.exists(), blob.exists()), (true, false, true));
        open(folder.path()).unwrap();
        assert_eq!((new.exists(), blob.exists()), (false, true));

        let said = open_shared(&folder.path().join("not-mounted")).unwrap_err().to_string();
        assert!(said.contains("origin.blobs") && said.contains("not-mounted"), "{said}");
    }
}
