//! Where a secret is: in an environment variable or a file, never in the configuration itself.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

/// What stands for the user and the password of a URL wherever one is printed.
pub(crate) const NO_PASSWORD: &str = "://•••@";

/// Masks the user and the password of every URL in a text.
pub(crate) fn without_passwords(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let masked = |word: &str| match (word.find("://"), word.rfind('@')) {
        // Up to the last `@`: a password may have one in it, or a slash.
        (Some(scheme), Some(at)) if scheme < at => format!("{}{NO_PASSWORD}{}", &word[..scheme], &word[at + 1..]),
        _ => word.to_owned(),
    };
    Cow::Owned(text.split_inclusive(char::is_whitespace).map(masked).collect())
}

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

    /// Returns the same with a file that stands in `folder`, where its path is relative.
    pub(crate) fn within(&self, folder: &Path) -> Self {
        match self {
            Self::Environment(name) => Self::Environment(name.clone()),
            Self::File(path) => Self::File(folder.join(path)),
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_url_is_left_in_a_text() {
        let cases = [
            ("redis://user:hunter2@h:6379", "redis://•••@h:6379"),
            ("redis://:hunt/er://2@x@h", "redis://•••@h"),
            ("see http://a@h/ and http://h/", "see http://•••@h/ and http://h/"),
            ("a@b.example", "a@b.example"),
            ("10 mail@x http://h", "10 mail@x http://h"),
        ];
        for (text, masked) in cases {
            assert_eq!(without_passwords(text), masked);
        }
    }
}
