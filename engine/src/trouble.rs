//! Why a call to a Redis came to nothing.

use std::error::Error as _;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Why a call to a Redis came to nothing.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// It can't be reached, or the connection ended. Whether it did what it was asked to is not known.
    #[error("it can't be reached: {0}")]
    Away(String),
    /// It did not answer in time. Whether it did what it was asked to is not known.
    #[error("it did not answer within {0:?}")]
    Slow(Duration),
    /// It lets nobody in who comes like this: user, password or certificate are wrong.
    #[error("{0}")]
    Denied(String),
    /// It answered that it won't.
    #[error("it refused: {0}")]
    Refused(RedisError),
}

impl Trouble {
    /// Tells what an error of the client means.
    pub(crate) fn of(error: RedisError) -> Self {
        if is_denial(&error) {
            return Self::Denied(error.to_string());
        }
        match error.kind() {
            ErrorKind::Server(_) | ErrorKind::Extension | ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Self::Refused(error),
            ErrorKind::RESP3NotSupported => Self::Denied("it is older than Redis 6 and does not speak RESP3".to_owned()),
            _ => Self::Away(error.to_string()),
        }
    }

    /// Tells whether another try may succeed without anybody mending the configuration.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::Away(_) | Self::Slow(_))
    }

    /// Returns it as one word, for a metric.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Away(_) => "away",
            Self::Slow(_) => "slow",
            Self::Denied(_) => "denied",
            Self::Refused(_) => "refused",
        }
    }
}

fn is_denial(error: &RedisError) -> bool {
    let says = matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"));
    let is_kind = matches!(
        error.kind(),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig | ErrorKind::Server(ServerErrorKind::NoPerm)
    );
    says || is_kind || is_of_tls(error)
}

/// A server whose certificate is not trusted, or is another's.
fn is_of_tls(error: &RedisError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if error.is::<rustls::Error>() || inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        cause = error.source();
    }
    false
}
