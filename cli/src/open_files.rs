//! Files that may be open: each connection is one, and what a shell allows by default are few.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Asks for as many as the system lets this process have.
pub(crate) fn raise() {
    let limits = getrlimit(Resource::Nofile);
    if limits.current < limits.maximum
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limits.maximum, maximum: limits.maximum })
    {
        tracing::warn!(%error, "failed to raise the number of files that may be open; connections beyond it will wait");
    }
}
