//! The folder tier (L2) of assets: blobs and their coded forms as files, bounded in bytes.
//!
//! A file is written under another name and renamed once its digest was found right, so a kill
//! leaves nothing that could be taken for a blob. Each file is hashed once more before this process
//! serves it for the first time: what a power cut or a failing disk spoilt is a miss.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use wire::{Digest, Hasher};

/// Which bytes: a blob, as it is or in a content coding.
pub(crate) type AssetKey = (Digest, Option<&'static str>);

/// A file of the folder.
#[derive(Clone, Debug)]
pub(crate) struct AssetFile {
    pub(crate) path: Arc<Path>,
    /// The digest of the file's own bytes.
    pub(crate) digest: Digest,
    pub(crate) length: u64,
}

#[derive(Debug)]
struct Known {
    file: AssetFile,
    checked: bool,
    used: u64,
}

#[derive(Debug, Default)]
struct Index {
    files: HashMap<AssetKey, Known>,
    bytes: u64,
    /// Counts uses: the file with the lowest is the first to go.
    clock: u64,
}

/// The folder and what is in it.
#[derive(Debug)]
pub(crate) struct Folder {
    root: PathBuf,
    most: u64,
    index: Mutex<Index>,
}

/// The codings that a file's name may carry.
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

impl Folder {
    /// Opens the folder, which may take `most` bytes.
    pub(crate) fn open(root: &Path, most: u64) -> std::io::Result<Self> {
        std::fs::create_dir_all(root)?;
        let mut index = Index::default();
        for entry in std::fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            match read_name(&name.to_string_lossy()) {
                Some((key, digest)) => {
                    let length = entry.metadata()?.len();
                    let file = AssetFile { path: entry.path().into(), digest, length };
                    index.bytes += length;
                    index.files.insert(key, Known { file, checked: false, used: 0 });
                }
                // Left by a kill while it was written.
                None => std::fs::remove_file(entry.path())?,
            }
        }
        let folder = Self { root: root.to_owned(), most, index: Mutex::new(index) };
        folder.make_room();
        Ok(folder)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes that the folder takes.
    pub(crate) fn bytes(&self) -> u64 {
        self.lock().bytes
    }

    /// Tells whether there is a file for `key`; whether its bytes are right shows when it is read.
    pub(crate) fn holds(&self, key: &AssetKey) -> bool {
        self.lock().files.contains_key(key)
    }

    /// Returns the file for `key`, checked against its digest.
    pub(crate) async fn get(&self, key: AssetKey) -> Option<AssetFile> {
        let (file, checked) = {
            let mut index = self.lock();
            index.clock += 1;
            let now = index.clock;
            let known = index.files.get_mut(&key)?;
            known.used = now;
            (known.file.clone(), known.checked)
        };
        if checked {
            return Some(file);
        }
        let path = Arc::clone(&file.path);
        let digest = tokio::task::spawn_blocking(move || digest_of(&path)).await.ok()?.ok();
        if digest == Some(file.digest) {
            if let Some(known) = self.lock().files.get_mut(&key) {
                known.checked = true;
            }
            return Some(file);
        }
        tracing::warn!(path = %file.path.display(), "a cached file was spoilt; it is fetched again");
        self.remove(&key);
        None
    }

    /// Returns a path to write new bytes to, before [`Self::add`].
    pub(crate) fn staging(&self, key: AssetKey) -> PathBuf {
        static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let n = COUNT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        self.root.join(format!("{}.{n}.new", key.0))
    }

    /// Takes in a file whose bytes were found to have `digest`.
    pub(crate) fn add(&self, key: AssetKey, staged: &Path, digest: Digest, length: u64) -> std::io::Result<AssetFile> {
        let path = self.root.join(write_name(&key, &digest));
        std::fs::rename(staged, &path)?;
        let file = AssetFile { path: path.into(), digest, length };
        {
            let mut index = self.lock();
            index.clock += 1;
            let used = index.clock;
            let known = Known { file: file.clone(), checked: true, used };
            if let Some(old) = index.files.insert(key, known) {
                index.bytes -= old.file.length;
                if old.file.path != file.path {
                    let _ = std::fs::remove_file(&old.file.path);
                }
            }
            index.bytes += length;
        }
        self.make_room();
        Ok(file)
    }

    fn remove(&self, key: &AssetKey) {
        let mut index = self.lock();
        if let Some(known) = index.files.remove(key) {
            index.bytes -= known.file.length;
            let _ = std::fs::remove_file(&known.file.path);
        }
    }

    /// Deletes what was used least recently. Who reads such a file keeps it open until the end.
    fn make_room(&self) {
        let mut index = self.lock();
        if index.bytes <= self.most {
            return;
        }
        // A tenth at once, so that the order is not computed for every file.
        let goal = self.most - self.most / 10;
        let mut by_use: Vec<_> = index.files.iter().map(|(key, known)| (known.used, *key)).collect();
        by_use.sort_unstable();
        for (_, key) in by_use {
            if index.bytes <= goal {
                break;
            }
            if let Some(known) = index.files.remove(&key) {
                index.bytes -= known.file.length;
                let _ = std::fs::remove_file(&known.file.path);
            }
        }
    }
}

/// `DIGEST` or `DIGEST.CODING.DIGEST-OF-THE-CODED-BYTES`.
fn write_name((digest, coding): &AssetKey, coded: &Digest) -> String {
    coding.map_or_else(|| digest.to_string(), |coding| format!("{digest}.{coding}.{coded}"))
}

fn read_name(name: &str) -> Option<(AssetKey, Digest)> {
    let parts: Vec<_> = name.split('.').collect();
    match parts.as_slice() {
        [digest] => digest.parse().ok().map(|digest| ((digest, None), digest)),
        [digest, coding, coded] => {
            let coding = CODINGS.into_iter().find(|known| known == coding)?;
            Some(((digest.parse().ok()?, Some(coding)), coded.parse().ok()?))
        }
        _ => None,
    }
}

fn digest_of(path: &Path) -> std::io::Result<Digest> {
    use std::io::Read as _;
    let mut file = std::fs::File::open(path)?;
    let (mut hasher, mut buffer) = (Hasher::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hasher.finish()),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(folder: &Folder, bytes: &[u8]) -> AssetKey {
        let key = (Digest::of(bytes), None);
        let staged = folder.staging(key);
        std::fs::write(&staged, bytes).unwrap();
        folder.add(key, &staged, key.0, bytes.len() as u64).unwrap();
        key
    }

    #[tokio::test]
    async fn files_are_there_after_a_restart_and_spoilt_ones_are_a_miss() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path(), 1 << 20).unwrap();
        let (good, bad) = (put(&folder, b"good"), put(&folder, b"bad"));
        std::fs::write(root.path().join(bad.0.to_string()), b"b@d").unwrap();
        std::fs::write(root.path().join(format!("{}.7.new", good.0)), b"half").unwrap();
        let again = Folder::open(root.path(), 1 << 20).unwrap();
        assert_eq!(again.get(good).await.unwrap().length, 4);
        assert!(again.get(bad).await.is_none());
        assert_eq!(again.bytes(), 4);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn the_folder_stays_within_its_bound_and_keeps_what_is_used() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::open(root.path(), 1000).unwrap();
        let first = put(&folder, &[0; 300]);
        let second = put(&folder, &[1; 300]);
        folder.get(first).await.unwrap();
        put(&folder, &[2; 300]);
        put(&folder, &[3; 300]);
        assert!(folder.bytes() <= 1000);
        assert!(folder.get(first).await.is_some() && folder.get(second).await.is_none());
    }

    #[test]
    fn names_survive() {
        let key = (Digest::of(b"a"), Some("br"));
        let coded = Digest::of(b"b");
        assert_eq!(read_name(&write_name(&key, &coded)), Some((key, coded)));
        assert_eq!(read_name("x.new"), None);
    }
}
