//! Whether files have changed: the configuration and what it points to. They are looked at now and then, which works for
//! files that are replaced, for links that are moved and for volumes that tell nobody, as those of a ConfigMap.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::time::Instant;

/// How often they are looked at.
const EVERY: Duration = Duration::from_secs(2);

/// What tells one state of a file from another: where it is, how long, and when it was written. None where there is none.
type Mark = Option<(u64, u64, i64, i64)>;

/// Files that are looked at.
#[derive(Debug)]
pub(crate) struct Changes {
    files: Vec<PathBuf>,
    /// As they were when they were read.
    read: Vec<Mark>,
    /// As they were when they were looked at last.
    last: Vec<Mark>,
    /// When they are looked at next.
    at: Instant,
}

impl Changes {
    /// Begins with the files as they are.
    pub(crate) fn of(files: Vec<PathBuf>) -> Self {
        let read = marks(&files);
        Self { last: read.clone(), files, read, at: Instant::now() + EVERY }
    }

    /// Waits until a file has changed. Whoever stops to wait, and waits again, loses no time by that.
    pub(crate) async fn next(&mut self) {
        loop {
            tokio::time::sleep_until(self.at).await;
            self.at = Instant::now() + EVERY;
            if self.look() {
                return;
            }
        }
    }

    /// Tells whether a file has changed and nobody is writing any more: it was the same twice in a row.
    fn look(&mut self) -> bool {
        let now = marks(&self.files);
        let is_settled = now != self.read && now == self.last;
        self.last = now;
        if is_settled {
            self.read.clone_from(&self.last);
        }
        is_settled
    }
}

fn marks(files: &[PathBuf]) -> Vec<Mark> {
    let mark = |path: &PathBuf| fs::metadata(path).ok().map(|file| (file.ino(), file.len(), file.mtime(), file.mtime_nsec()));
    files.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_told_once_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("atoll.toml");
        fs::write(&file, "a").unwrap();
        let mut changes = Changes::of(vec![file.clone(), folder.path().join("none")]);

        assert!(!changes.look(), "nothing has changed");
        fs::write(&file, "other").unwrap();
        assert!(!changes.look(), "it may be written still");
        assert!(changes.look());
        assert!(!changes.look(), "it was told");
        fs::remove_file(&file).unwrap();
        assert!(!changes.look());
        assert!(changes.look(), "what is gone has changed");
    }
}
