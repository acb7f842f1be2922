//! Where a secret is: in an environment variable or a file, never in the configuration itself.

use std::fmt;
use std::path::{Path, PathBuf};

/// A pointer to a secret, resolved on the node that needs it.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// `env:NAME`
    Environment(String),
    /// `file:PATH`
    File(PathBuf),
}

/// Why a secret could not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The variable is not set.
    #[error("the environment variable {0} is not set")]
    NotSet(String),
    /// The file could not be read.
    #[error("failed to read the secret in {path}: {error}")]
    NotRead {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
}

impl SecretRef {
    pub(crate) fn parse(text: &str, folder: &Path) -> Option<Self> {
        if let Some(name) = text.strip_prefix("env:").filter(|name| !name.is_empty()) {
            return Some(Self::Environment(name.to_owned()));
        }
        text.strip_prefix("file:").filter(|path| !path.is_empty()).map(|path| Self::File(folder.join(path)))
    }

    /// Fetches the secret as text, without white space around it.
    ///
    /// # Errors
    /// See [`SecretError`].
    pub fn read(&self) -> Result<String, SecretError> {
        match self {
            Self::Environment(name) => {
                std::env::var(name).map(|text| text.trim().to_owned()).map_err(|_| SecretError::NotSet(name.clone()))
            }
            Self::File(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| SecretError::NotRead { path: path.clone(), error })?;
                Ok(text.trim().to_owned())
            }
        }
    }
}

impl fmt::Debug for SecretRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment(name) => write!(f, "env:{name}"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}
