//! The codings of one stored body: each made once, when somebody first wants it, never per hit.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use wire::Digest;

use super::compress::{self, Coding};

/// A body in a coding, and the digest of its bytes.
#[derive(Debug)]
pub(crate) struct CodedBody {
    pub(crate) coding: Coding,
    pub(crate) digest: Digest,
    pub(crate) bytes: Bytes,
}

/// What is known of a body in one coding.
#[derive(Clone, Debug)]
pub(crate) enum Coded {
    /// Nobody has made it yet.
    Unmade,
    /// It would not be smaller.
    Useless,
    Made(Arc<CodedBody>),
}

/// One body in its codings.
#[derive(Debug, Default)]
pub(crate) struct Codings([OnceLock<Option<Arc<CodedBody>>>; 3]);

impl Codings {
    fn cell(&self, coding: Coding) -> &OnceLock<Option<Arc<CodedBody>>> {
        let [zstd, br, gzip] = &self.0;
        match coding {
            Coding::Zstd => zstd,
            Coding::Br => br,
            Coding::Gzip => gzip,
        }
    }

    /// Returns the body in this coding, as far as it has been made.
    pub(crate) fn get(&self, coding: Coding) -> Coded {
        match self.cell(coding).get() {
            None => Coded::Unmade,
            Some(None) => Coded::Useless,
            Some(Some(body)) => Coded::Made(Arc::clone(body)),
        }
    }

    /// Makes it, unless somebody does already. This takes a processor for a while.
    pub(crate) fn make(&self, coding: Coding, plain: &Bytes) {
        self.cell(coding).get_or_init(|| {
            compress::compress(coding, plain).map(|bytes| Arc::new(CodedBody { coding, digest: Digest::of(&bytes), bytes }))
        });
    }

    /// Returns all that were made.
    pub(crate) fn made(&self) -> impl Iterator<Item = &Arc<CodedBody>> {
        self.0.iter().filter_map(|cell| cell.get()?.as_ref())
    }

    /// Returns the bytes that they take.
    pub(crate) fn weight(&self) -> usize {
        self.made().map(|body| body.bytes.len() + 256).sum()
    }
}
