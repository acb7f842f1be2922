//! How a request was answered: one value that `Cache-Status`, the access log, the metrics and
//! `explain` all report from.

use follow::Standing;
use http::StatusCode;

use crate::message::Response;
use crate::metrics::Answered;
use crate::refuse::Refusal;
use crate::rules::{CacheStatus, Forward};

/// An answer and how it came to be.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) response: Response,
    pub(crate) outcome: Outcome,
}

/// How an answer came to be.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    /// What answered: `site`, `route`, or the `edge` itself.
    pub(crate) kind: &'static str,
    /// In a word: hit, stale, miss, revalidated, pass, refused, ...
    pub(crate) result: &'static str,
    /// Where the bytes came from: `l1`, `l2`, `origin`, `upstream`, `none`.
    pub(crate) tier: &'static str,
    /// Why it was not simply a hit, or what was special about it.
    pub(crate) detail: Option<&'static str>,
    /// The member of `Cache-Status`.
    pub(crate) status: CacheStatus,
}

impl Outcome {
    /// Returns the labels that the metrics count it by.
    pub(crate) fn labels(&self) -> Answered {
        Answered { kind: self.kind, result: self.result, tier: self.tier, detail: self.detail.unwrap_or("none") }
    }

    /// An asset of a site.
    pub(crate) fn asset(tier: &'static str, fenced: bool) -> Self {
        let detail = if fenced { "fenced" } else { tier };
        if tier == "origin" {
            return Self {
                kind: "site",
                result: "miss",
                tier,
                detail: Some(detail),
                status: CacheStatus::forwarded(Forward::UriMiss).with_stored(true).with_detail(detail),
            };
        }
        Self { kind: "site", result: "hit", tier, detail: Some(detail), status: CacheStatus::hit().with_detail(detail) }
    }

    /// Something that the edge made up itself, such as a redirect or a refusal.
    pub(crate) fn made(kind: &'static str, result: &'static str, detail: &'static str) -> Self {
        Self { kind, result, tier: "none", detail: Some(detail), status: CacheStatus::made().with_detail(detail) }
    }

    /// A stored response that is served; `ttl` is how many seconds it stays fresh, negative where it is stale.
    pub(crate) fn stored(result: &'static str, ttl: i64, detail: Option<&'static str>) -> Self {
        let status = CacheStatus::hit().with_ttl(ttl);
        let status = if let Some(detail) = detail { status.with_detail(detail) } else { status };
        Self { kind: "route", result, tier: "l1", detail, status }
    }

    /// A response for which the upstream was asked.
    pub(crate) fn forwarded(
        result: &'static str,
        reason: Forward,
        answered: StatusCode,
        stored: bool,
        detail: Option<&'static str>,
    ) -> Self {
        let status = CacheStatus::forwarded(reason).with_status(answered).with_stored(stored);
        let status = if let Some(detail) = detail { status.with_detail(detail) } else { status };
        Self { kind: "route", result, tier: "upstream", detail, status }
    }

    /// The same, of an edge that stood so when it had read the request: one that was fenced says so, whatever else
    /// there is to say. Its lease may also have run out since, as the detail tells then.
    pub(crate) fn of_standing(mut self, standing: &Standing) -> Self {
        let is_fenced = !standing.holds() || self.detail == Some("fenced");
        self.status = self.status.with_fenced(is_fenced);
        self
    }

    /// The same, when the upstream was asked and had no answer.
    pub(crate) fn after(mut self, reason: Forward) -> Self {
        self.status = self.status.after(reason);
        self
    }

    /// The same, when another request's fetch was shared.
    pub(crate) fn collapsed(mut self) -> Self {
        self.status = self.status.with_collapsed(true);
        self
    }
}

impl Answer {
    /// The same, when what is served had just come from the second tier.
    pub(crate) fn of_second_tier(self) -> Self {
        Self { outcome: Outcome { tier: "l2", ..self.outcome }, ..self }
    }

    /// A refusal by the edge.
    pub(crate) fn refused(kind: &'static str, refusal: &Refusal) -> Self {
        Self { response: refusal.respond(), outcome: Outcome::made(kind, "refused", refusal.name()) }
    }
}
