//! The second tier (L2): responses outside of this process, in the Redis that a region's edges share, or in a folder of
//! this edge alone. It may forget anything, and may come back with what it held long ago: whether what it gives may be
//! used is decided by who asks ([`crate::validity`]), never here.

mod name;
pub(crate) mod portable;
mod redis;
mod folder;

#[cfg(test)]
mod suite;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

pub(crate) use folder::{FOLDER_PATIENCE, Folder};
pub(crate) use name::{UrlName, Variant};
pub(crate) use portable::{Portable, Unusable};
pub(crate) use redis::{CLAIM, REDIS_PATIENCE, RedisTier};

/// A place for responses outside of this process.
#[derive(Debug)]
pub(crate) enum Tier {
    Redis(Box<RedisTier>),
    Folder(Folder),
}

/// What is asked of a tier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Look<'a> {
    pub(crate) url: &'a UrlName,
    pub(crate) variant: &'a Variant,
    /// What was written no later than this is known already, and of no use.
    pub(crate) known: Option<Stamp>,
    /// Who asks, where it would fetch the response if there is none: then it is told when somebody else does already.
    pub(crate) claim: Option<&'a Claim>,
}

/// When something was written, by the tier's own clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

/// Who fetches a response for all edges of a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claim(pub(crate) String);

/// What a tier holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// Something was written for this variant: at `as_of` (CLOCK_BOOTTIME) no more than `since` had passed since then.
    Value { bytes: Bytes, since: Duration, as_of: Duration, stamp: Stamp },
    /// Responses of this URL are told apart by these fields, and not by those that were asked for.
    Varies(String),
    /// Nothing.
    Nothing,
    /// Nothing, and whoever asks is the one who fetches it for all.
    Claimed,
    /// Nothing yet: another edge fetches it.
    Busy,
    /// Something that no Atoll wrote.
    Foreign,
}

/// What is to be written.
#[derive(Clone, Debug)]
pub(crate) struct Write {
    pub(crate) url: UrlName,
    pub(crate) variant: Variant,
    pub(crate) rank: Rank,
    pub(crate) bytes: Bytes,
    /// For how long it may be of use.
    pub(crate) ttl: Duration,
    /// When its age was taken (CLOCK_BOOTTIME).
    pub(crate) as_of: Duration,
    /// How long before that its fetch had started.
    pub(crate) started_ago: Duration,
    pub(crate) claim: Option<Claim>,
}

/// What decides which of two entries stays: of one epoch the one that was filled later (P5), and of one position the one
/// whose fetch started later (RFC 9111, 4: the most recent one is used).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rank {
    pub(crate) epoch: [u8; 8],
    pub(crate) filled_at: u64,
}

/// What became of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is there.
    Stored,
    /// What was there had been filled later.
    Older,
    /// It is larger than what this tier takes.
    TooLarge,
}

/// Why a tier was of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failed {
    /// It failed too often, and is left alone for a while: nothing was asked.
    LeftAlone,
    /// It failed, and this is how.
    As(&'static str),
}

impl Failed {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::LeftAlone => "left-alone",
            Self::As(how) => how,
        }
    }
}

impl Tier {
    /// Says hello, so that a connection is there before somebody waits for it, and a mistake is told at once.
    pub(crate) async fn greet(&self) {
        if let Self::Redis(redis) = self {
            redis.greet().await;
        }
    }

    /// Looks something up.
    pub(crate) async fn look(&self, look: Look<'_>) -> Result<Held, Failed> {
        match self {
            Self::Redis(redis) => redis.look(look).await,
            Self::Folder(folder) => folder.look(look).await,
        }
    }

    /// Writes something, unless what is there was filled later; a claim that comes with it is given up.
    pub(crate) async fn write(&self, write: Write) -> Result<Written, Failed> {
        match self {
            Self::Redis(redis) => redis.write(write).await,
            Self::Folder(folder) => folder.write(write).await,
        }
    }

    /// Forgets a URL.
    pub(crate) async fn remove(&self, url: &UrlName) -> Result<(), Failed> {
        match self {
            Self::Redis(redis) => redis.remove(url).await,
            Self::Folder(folder) => folder.remove(url).await,
        }
    }

    /// Gives up a claim without having written anything. For as long as `pass_for` nobody is to wait for whoever fetches
    /// it: what comes for this URL can't be shared.
    pub(crate) async fn give_up(&self, url: &UrlName, variant: &Variant, claim: &Claim, pass_for: Option<Duration>) -> Result<(), Failed> {
        match self {
            Self::Redis(redis) => redis.give_up(url, variant, claim, pass_for).await,
            Self::Folder(_) => Ok(()),
        }
    }

    /// Goes on with a claim; tells whether it is still there.
    pub(crate) async fn renew(&self, url: &UrlName, variant: &Variant, claim: &Claim) -> Result<bool, Failed> {
        match self {
            Self::Redis(redis) => redis.renew(url, variant, claim).await,
            Self::Folder(_) => Ok(false),
        }
    }

    /// Returns how many bytes it takes as one value at the most.
    pub(crate) fn most_bytes(&self) -> u64 {
        match self {
            Self::Redis(redis) => redis.most_bytes(),
            Self::Folder(folder) => folder.most_bytes(),
        }
    }

    /// Tells whether several edges share it, so that one may fetch for all.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(self, Self::Redis(_))
    }

    /// Tells whether it answers, as far as is known.
    pub(crate) fn is_up(&self) -> bool {
        match self {
            Self::Redis(redis) => redis.is_up(),
            Self::Folder(folder) => folder.is_up(),
        }
    }

    /// Returns the bytes that it takes of this machine's disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        match self {
            Self::Redis(_) => 0,
            Self::Folder(folder) => folder.bytes(),
        }
    }
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Redis(redis) => redis.fmt(f),
            Self::Folder(_) => f.write_str("a folder"),
        }
    }
}
