//! The longest lease that may still run (L6), in a file of its own beside the journal: a journal that is restored from a
//! backup must not bring back a shorter one.

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The file's name.
const NAME: &str = "longest_lease_ms";

/// The file beside the journal in a folder.
#[derive(Debug)]
pub(crate) struct LongestLease {
    folder: PathBuf,
}

impl LongestLease {
    /// Returns the file in `folder`, there or not.
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Reads it; `None` where there is none.
    pub(crate) fn read(&self) -> Result<Option<Duration>> {
        match std::fs::read_to_string(self.folder.join(NAME)) {
            Ok(text) => {
                let ms = text.trim().parse::<u64>().map_err(|error| Error::new(ErrorKind::InvalidData, format!("{NAME}: {error}")))?;
                Ok(Some(Duration::from_millis(ms)))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes it, durably and as a whole: when this returns, it survives a power cut.
    pub(crate) fn write(&self, lease: Duration) -> Result<()> {
        let fresh = self.folder.join(format!("{NAME}.new"));
        let mut file = File::create(&fresh)?;
        writeln!(file, "{}", lease.as_millis())?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(&fresh, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()
    }

    /// Writes it, unless what is there is as long.
    pub(crate) fn raise(&self, lease: Duration) -> Result<()> {
        if self.read()?.is_some_and(|known| known >= lease) { Ok(()) } else { self.write(lease) }
    }

    /// Begins it for a journal that is being founded: nobody had a lease, unless the file of a journal that was lost
    /// says so.
    pub(super) fn found(&self) -> Result<()> {
        // One that can't be read stays as it is: it is not known what it said.
        if matches!(self.read(), Ok(None)) { self.write(Duration::ZERO) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_was_written_and_what_is_no_number_is_no_zero() {
        let folder = tempfile::tempdir().unwrap();
        let longest = LongestLease::new(folder.path());
        assert_eq!(longest.read().unwrap(), None);
        longest.found().unwrap();
        assert_eq!(longest.read().unwrap(), Some(Duration::ZERO));
        longest.write(Duration::from_millis(2500)).unwrap();
        longest.found().unwrap();
        assert_eq!(longest.read().unwrap(), Some(Duration::from_millis(2500)), "founding leaves what is known");
        for damaged in ["", "2 s", "-1"] {
            std::fs::write(folder.path().join(NAME), damaged).unwrap();
            longest.found().unwrap();
            assert!(longest.read().is_err(), "{damaged}");
        }
    }
}
