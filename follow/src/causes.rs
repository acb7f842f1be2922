//! An error with all that led to it, in one line: the last cause is the one that helps.

use std::error::Error;

/// Returns an error's words and those of each of its causes, the deepest last.
#[must_use]
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        said = format!("{said}: {error}");
        cause = error.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("failed to connect")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_cause_of_a_failure_is_told_with_it() {
        assert_eq!(causes(&Outer(std::io::Error::other("connection refused"))), "failed to connect: connection refused");
    }
}
