//! How one request is followed through Atoll's nodes and beyond them: W3C Trace Context in and out, and spans to a
//! collector by OTLP.
//!
//! A node that exports nothing makes no spans: [`stage!`] then costs the reading of one flag. What is exported, how much of it
//! and to where says the environment, by OpenTelemetry's own names (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`).

mod carry;
mod export;

#[doc(hidden)]
pub use tracing;

pub use carry::{adopt, carry};
pub use export::{ExportError, Exporter};

/// Of all that is logged and traced, what is a span of a trace.
pub const TARGET: &str = "atoll::trace";

/// Begins a span of a trace: a stage that a request goes through, with fields as [`tracing::span!`] takes them.
#[macro_export]
macro_rules! stage {
    ($name:expr $(, $($fields:tt)*)?) => {
        // Below every level that is logged: logs know nothing of them.
        $crate::tracing::trace_span!(target: "atoll::trace", $name $(, $($fields)*)?)
    };
}
