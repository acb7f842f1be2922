//! Why the control API says no, and how it says it: one place maps a fault to a status and a problem.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde_json::Value;
use wire::{LOST, Problem};

use crate::journal::AppendError;

/// What went wrong, and whose fault it is.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The request can't be meant.
    Bad(String),
    /// No token.
    Unauthorised,
    /// A token that nobody knows (any more).
    UnknownToken,
    /// The token may not do that.
    Forbidden(String),
    /// There is no such thing.
    NotFound(String),
    /// Somebody else was faster, or what is there does not allow it.
    Conflict(String),
    /// Something would break that the caller did not speak of; it says the way out.
    StillNeeded(String),
    /// A page that is only looked at.
    OnlyRead(String),
    /// A position that needs a snapshot.
    NeedsSnapshot(String),
    /// A position that this journal should have and has not: it lost its end, or was replaced by an older copy. An ack
    /// that says so begins a new epoch, whose snapshot is needed then.
    LostHistory(String),
    /// `If-Match` did not.
    Precondition(String),
    /// What was announced did not come in time.
    Late(String),
    /// Over a limit.
    TooLarge(String),
    /// The configuration has complaints.
    Complaints(config::Complaints),
    /// The key stands for another request.
    Reused(String),
    /// It was done, and what came of it is no longer known.
    Gone(String),
    /// More than the token may do in the time; how long it has to wait.
    TooFast(String, Duration),
    /// There is no room for more of it; in how long there may be.
    Full(String, Duration),
    /// The disk is full, or storage fails otherwise; nothing was kept.
    Storage(String),
    /// What this origin stores on elsewhere does not answer, or fails; nothing was kept.
    Away(String),
    /// What this origin stores on elsewhere took it, or maybe not: it may still come into force.
    Unsure(String),
    /// The origin is stopping.
    Stopping,
}

impl Fault {
    /// Wraps what a parser said.
    pub(crate) fn bad(said: impl fmt::Display) -> Self {
        Self::Bad(said.to_string())
    }

    /// Wraps what a parser said of a body. It may repeat what it was given, which may be megabytes.
    pub(crate) fn unreadable(said: impl fmt::Display) -> Self {
        let said = said.to_string();
        match said.char_indices().nth(400) {
            None => Self::Bad(said),
            // What is wrong with it stands at both ends.
            Some((at, _)) => {
                let end: Vec<char> = said.chars().rev().take(200).collect();
                Self::Bad(format!("{}... {}", &said[..at], end.into_iter().rev().collect::<String>()))
            }
        }
    }

    /// Returns what kind of fault it is, in a few words.
    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::Bad(_) => "The request is wrong",
            Self::Unauthorised => "A token is needed",
            Self::UnknownToken => "The token is not known",
            Self::Forbidden(_) => "The token does not allow this",
            Self::NotFound(_) => "There is no such thing",
            Self::Conflict(_) => "It was changed in the meantime",
            Self::StillNeeded(_) => "It is still needed",
            Self::OnlyRead(_) => "The method is not allowed here",
            Self::NeedsSnapshot(_) | Self::LostHistory(_) => "A snapshot is needed",
            Self::Precondition(_) => "The precondition does not hold",
            Self::Late(_) => "It came too slowly",
            Self::TooLarge(_) => "It is too large",
            Self::Complaints(_) => "The configuration is wrong",
            Self::Reused(_) => "The key was used for something else",
            Self::Gone(_) => "It is no longer known",
            Self::TooFast(..) => "Too much at once",
            Self::Full(..) => "There is no room for more",
            Self::Storage(_) => "It could not be stored",
            Self::Away(_) => "What it is stored on does not answer",
            Self::Unsure(_) => "It may have been stored",
            Self::Stopping => "The origin is stopping",
        }
    }

    fn more(&self) -> BTreeMap<String, Value> {
        match self {
            Self::NeedsSnapshot(_) => BTreeMap::from([("snapshot".to_owned(), "/v1/snapshot".into())]),
            Self::LostHistory(_) => BTreeMap::from([("snapshot".to_owned(), "/v1/snapshot".into()), (LOST.to_owned(), true.into())]),
            Self::Complaints(complaints) => {
                let lines = complaints.as_slice().iter().map(|complaint| Value::from(complaint.to_string())).collect();
                BTreeMap::from([("complaints".to_owned(), lines)])
            }
            _ => BTreeMap::new(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unauthorised => f.write_str("send `Authorization: Bearer TOKEN` with a token of this network"),
            Self::UnknownToken => f.write_str(
                "the token that was sent is unknown to this origin or was revoked; `atoll token create` issues another, \
                 and the origin's own folder holds one in admin.token",
            ),
            Self::Stopping => f.write_str("try another origin, or again in a moment"),
            Self::Complaints(complaints) => write!(f, "{complaints}"),
            Self::Bad(said)
            | Self::Forbidden(said)
            | Self::NotFound(said)
            | Self::Conflict(said)
            | Self::StillNeeded(said)
            | Self::OnlyRead(said)
            | Self::NeedsSnapshot(said)
            | Self::LostHistory(said)
            | Self::Precondition(said)
            | Self::Late(said)
            | Self::TooLarge(said)
            | Self::Reused(said)
            | Self::Gone(said)
            | Self::Storage(said)
            | Self::Away(said)
            | Self::Unsure(said) => f.write_str(said),
            Self::TooFast(said, wait) | Self::Full(said, wait) => write!(f, "{said}; try again in {} s", whole_seconds(*wait)),
        }
    }
}

/// Returns the seconds after which it is worth trying again, as Retry-After says it (RFC 9110, 10.2.3).
fn whole_seconds(wait: Duration) -> u64 {
    (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1)
}

impl From<AppendError> for Fault {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::Conflict { .. } | AppendError::NotEmpty => Self::Conflict(error.to_string()),
            AppendError::Storage(_) => Self::Storage(error.to_string()),
            AppendError::Away(_) => Self::Away(error.to_string()),
            AppendError::Unknown(_) | AppendError::Unreplicated => Self::Unsure(error.to_string()),
            AppendError::Stopped => Self::Stopping,
        }
    }
}

impl ResponseError for Fault {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Bad(_) => StatusCode::BAD_REQUEST,
            Self::Unauthorised | Self::UnknownToken => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Conflict(_) | Self::StillNeeded(_) | Self::NeedsSnapshot(_) | Self::LostHistory(_) => StatusCode::CONFLICT,
            Self::OnlyRead(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Precondition(_) => StatusCode::PRECONDITION_FAILED,
            Self::Late(_) => StatusCode::REQUEST_TIMEOUT,
            Self::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Complaints(_) | Self::Reused(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Gone(_) => StatusCode::GONE,
            Self::TooFast(..) => StatusCode::TOO_MANY_REQUESTS,
            Self::Storage(_) => StatusCode::INSUFFICIENT_STORAGE,
            Self::Full(..) | Self::Away(_) | Self::Unsure(_) | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let status = self.status_code();
        let problem = Problem {
            kind: "about:blank".to_owned(),
            title: self.title().to_owned(),
            status: status.as_u16(),
            detail: self.to_string(),
            more: self.more(),
        };
        let mut response = HttpResponse::build(status);
        let way_out = match self {
            Self::Unauthorised | Self::UnknownToken => Some(("WWW-Authenticate", "Bearer".to_owned())),
            Self::OnlyRead(_) => Some(("Allow", "GET, HEAD".to_owned())),
            Self::TooFast(_, wait) | Self::Full(_, wait) => Some(("Retry-After", whole_seconds(*wait).to_string())),
            Self::Stopping | Self::Away(_) | Self::Unsure(_) => Some(("Retry-After", "1".to_owned())),
            _ => None,
        };
        if let Some(field) = way_out {
            response.insert_header(field);
        }
        // What a command line or a person reads of it must not depend on how the body was sent.
        response.content_type("application/problem+json").body(serde_json::to_vec(&problem).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_to_wait_is_told_for_how_long_and_never_less_than_a_second() {
        for (wait_ms, seconds) in [(0, "1"), (1, "1"), (1000, "1"), (1001, "2"), (95_100, "96")] {
            let wait = Duration::from_millis(wait_ms);
            for (fault, status) in [(Fault::TooFast("no".to_owned(), wait), 429), (Fault::Full("no".to_owned(), wait), 503)] {
                let response = fault.error_response();
                assert_eq!(response.status().as_u16(), status);
                assert_eq!(response.headers().get("retry-after").unwrap(), seconds, "{wait_ms}");
                assert_eq!(fault.to_string(), format!("no; try again in {seconds} s"));
            }
        }
    }

    #[test]
    fn who_meets_an_origin_that_stops_is_told_to_come_again() {
        let response = Fault::Stopping.error_response();
        assert_eq!((response.status().as_u16(), response.headers().get("retry-after").unwrap().as_bytes()), (503, &b"1"[..]));
    }

    #[test]
    fn what_a_parser_repeats_of_a_body_is_cut_and_what_it_expected_stays() {
        assert_eq!(Fault::unreadable("expected a list").to_string(), "expected a list");
        let said = Fault::unreadable(format!("unknown field `{}`, expected `tags`", "\u{e9}".repeat(1 << 20))).to_string();
        assert!(said.len() < 2000 && said.starts_with("unknown field") && said.ends_with("expected `tags`"), "{}", said.len());
    }
}
