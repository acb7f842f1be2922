//! Every "no" of the edge has a name, a status, and a sentence for the reader.

use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use wire::BadTarget;

use crate::message::{Body, Response};

/// Why a request is answered by the edge itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    /// Not one valid Host.
    #[error("the request needs exactly one valid Host")]
    BadHost,
    /// A target that can't be canonical.
    #[error("the target is not valid: {0}")]
    BadTarget(#[from] BadTarget),
    /// An absolute form of another scheme, or with userinfo.
    #[error("the target's scheme or authority is not for this server")]
    ForeignTarget,
    /// A target that is too long.
    #[error("the target is longer than {} bytes", crate::normalise::TARGET_MOST)]
    TargetTooLong,
    /// A field or a head that is too large.
    #[error("a header field, or all of them together, are too large")]
    HeadTooLarge,
    /// Bytes that are no request, or could be taken for two.
    #[error("the request is malformed: {0}")]
    Malformed(&'static str),
    /// A version of HTTP that is not spoken here.
    #[error("this server speaks HTTP/1.1")]
    UnknownVersion,
    /// An `Expect` other than `100-continue`.
    #[error("the expectation is not known")]
    ExpectationFailed,
    /// A head or a body that takes too long to come.
    #[error("the request took too long to come")]
    TooSlow,
    /// No room for another connection.
    #[error("there are too many connections; try again soon")]
    TooManyConnections,
    /// A method that is too long to be one.
    #[error("the method is not known")]
    UnknownMethod,
    /// A method that is not for this resource.
    #[error("the method is not allowed here")]
    MethodNotAllowed(&'static str),
    /// No site and no route for the host.
    #[error("no site or route answers for this host")]
    NoSuchHost,
    /// The site has no version yet.
    #[error("nothing has been published here yet")]
    NothingPublished,
    /// No such file.
    #[error("there is no such page")]
    NotFound,
    /// A reader names a position that is none.
    #[error("Atoll-Min-Position needs exactly one position as receipts and Atoll-Position tell them: EPOCH.SEQ.CHAIN")]
    BadPosition,
    /// A reader names a position that the journal has not come to.
    #[error("Atoll-Min-Position is beyond the journal's end")]
    BeyondJournal,
    /// The request came through this network before.
    #[error("the request went in a circle")]
    Loop,
    /// A body larger than the route allows.
    #[error("the body is larger than is allowed here")]
    BodyTooLarge,
    /// The lease ran out, and the route refuses then.
    #[error("this edge can't vouch for its cache at the moment; try again soon")]
    Fenced,
    /// The edge has not loaded its configuration yet.
    #[error("this edge is starting")]
    NotReady,
    /// `only-if-cached`, and nothing was.
    #[error("the response is not in the cache")]
    NotCached,
    /// The upstream could not be reached, or broke off.
    #[error("the upstream could not be reached")]
    UpstreamFailed,
    /// The upstream says itself that it can't answer.
    #[error("the upstream is in trouble")]
    UpstreamInTrouble,
    /// The upstream was too slow.
    #[error("the upstream took too long")]
    UpstreamTimedOut,
    /// The bytes of an asset can't be had at the moment.
    #[error("the file can't be had from the origin at the moment; try again soon")]
    AssetUnavailable,
}

impl Refusal {
    /// Returns the status of the answer.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::BadHost | Self::BadTarget(_) | Self::ForeignTarget | Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::BadPosition | Self::BeyondJournal => StatusCode::BAD_REQUEST,
            Self::UnknownVersion => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::ExpectationFailed => StatusCode::EXPECTATION_FAILED,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::TargetTooLong => StatusCode::URI_TOO_LONG,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownMethod => StatusCode::NOT_IMPLEMENTED,
            Self::MethodNotAllowed(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::NoSuchHost => StatusCode::MISDIRECTED_REQUEST,
            Self::NothingPublished | Self::NotFound => StatusCode::NOT_FOUND,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Fenced | Self::NotReady | Self::AssetUnavailable | Self::TooManyConnections => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamFailed | Self::UpstreamInTrouble => StatusCode::BAD_GATEWAY,
            Self::UpstreamTimedOut | Self::NotCached => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Returns the name that logs and metrics know it by.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::BadHost => "bad-host",
            Self::BadTarget(_) => "bad-target",
            Self::ForeignTarget => "foreign-target",
            Self::TargetTooLong => "target-too-long",
            Self::HeadTooLarge => "head-too-large",
            Self::Malformed(_) => "malformed",
            Self::UnknownVersion => "unknown-version",
            Self::ExpectationFailed => "expectation-failed",
            Self::TooSlow => "too-slow",
            Self::TooManyConnections => "too-many-connections",
            Self::UnknownMethod => "unknown-method",
            Self::MethodNotAllowed(_) => "method-not-allowed",
            Self::NoSuchHost => "no-such-host",
            Self::NothingPublished => "nothing-published",
            Self::NotFound => "not-found",
            Self::BadPosition => "bad-position",
            Self::BeyondJournal => "beyond-journal",
            Self::Loop => "loop",
            Self::BodyTooLarge => "body-too-large",
            Self::Fenced => "fenced",
            Self::NotReady => "not-ready",
            Self::NotCached => "only-if-cached",
            Self::UpstreamFailed => "upstream-failed",
            Self::UpstreamInTrouble => "upstream-in-trouble",
            Self::UpstreamTimedOut => "upstream-timed-out",
            Self::AssetUnavailable => "asset-unavailable",
        }
    }

    /// Returns the answer itself.
    pub(crate) fn respond(&self) -> Response {
        let mut response = Response::new(self.status());
        response.headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        response.headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Self::MethodNotAllowed(allowed) = self {
            response.headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if self.status() == StatusCode::SERVICE_UNAVAILABLE {
            response.headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response.body = Body::Whole(format!("{self}\n").into());
        response
    }
}
