//! How a command ends: an outcome, its exit code, and what is said about a failure.

use std::process::ExitCode;

use crate::say;

/// A command that did what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Everywhere. Exit code 0.
    Everywhere,
    /// Accepted, but not everywhere within the time. Exit code 3.
    NotEverywhere,
    /// Stopped at once by a second signal, with the exit code that shells know for it.
    CutShort(u8),
}

/// A command that did not.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What was typed is wrong. Exit code 1.
    Typed(anyhow::Error),
    /// It failed. Exit code 2.
    Failed(anyhow::Error),
}

/// How a command ended.
pub(crate) type Outcome = Result<Done, Failure>;

impl Failure {
    /// What was typed is wrong: says how.
    pub(crate) fn typed(said: impl std::fmt::Display) -> Self {
        Self::Typed(anyhow::anyhow!("{said}"))
    }

    /// It failed: says how.
    pub(crate) fn failed(said: impl std::fmt::Display) -> Self {
        Self::Failed(anyhow::anyhow!("{said}"))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<config::Complaints> for Failure {
    fn from(complaints: config::Complaints) -> Self {
        Self::Typed(complaints.into())
    }
}

/// Says what went wrong, and returns the exit code.
pub(crate) fn report(outcome: Outcome) -> ExitCode {
    match outcome {
        Ok(Done::Everywhere) => ExitCode::SUCCESS,
        Ok(Done::NotEverywhere) => ExitCode::from(3),
        Ok(Done::CutShort(code)) => ExitCode::from(code),
        Err(Failure::Typed(error)) => {
            say::problem(&format!("{error:#}"));
            ExitCode::from(1)
        }
        Err(Failure::Failed(error)) => {
            say::problem(&format!("{error:#}"));
            ExitCode::from(2)
        }
    }
}
