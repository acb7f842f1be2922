//! What a whole reading of a configuration found: every complaint, and every value for `atoll config show`.

use std::cell::RefCell;

use crate::{Complaint, Complaints, Source};

/// One line of `atoll config show`.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The key with its sections, as TOML writes it.
    pub key: String,
    /// The value as TOML writes it, secrets masked.
    pub value: String,
    /// The same in JSON.
    pub json: serde_json::Value,
    /// Where it came from.
    pub source: Source,
}

/// What a whole reading found.
#[derive(Debug, Default)]
pub(crate) struct Report {
    complaints: RefCell<Vec<Complaint>>,
    shown: RefCell<Vec<Shown>>,
}

impl Report {
    pub(crate) fn complain(&self, complaint: Complaint) {
        self.complaints.borrow_mut().push(complaint);
    }

    pub(crate) fn show(&self, shown: Shown) {
        self.shown.borrow_mut().push(shown);
    }

    pub(crate) fn finish(self) -> Result<Vec<Shown>, Complaints> {
        let mut complaints = self.complaints.into_inner();
        complaints.sort_by_key(Complaint::line);
        if complaints.is_empty() { Ok(self.shown.into_inner()) } else { Err(Complaints::new(complaints)) }
    }
}
