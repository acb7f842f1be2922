//! Log lines, on stderr: pretty for people, JSON for machines. Spans of traces go to a collector, where there is one.

use std::io::IsTerminal as _;

use trace::Exporter;
use tracing::Subscriber;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use crate::args::{Arguments, Command, LogFormat};
use crate::exit::Failure;

/// What a library says of its own starting and stopping, our nodes say better. A filter that names it comes later, and wins.
const QUIET: &str = "actix_server=warn";

/// Starts logging, and exporting what nodes do. Single nodes tell what they do; everything else tells what is wrong.
pub(crate) fn init(arguments: &Arguments) -> Result<Option<Exporter>, Failure> {
    let default = match arguments.command {
        Command::Origin(_) | Command::Edge { .. } | Command::Dns { .. } => "info",
        _ => "warn",
    };
    let filter = arguments.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(format!("{QUIET},{filter}")).map_err(|error| {
        Failure::typed(format!(
            "--log (ATOLL_LOG): `{filter}` is not understood: {error}; expected a filter such as `info` or `atoll_edge=debug`"
        ))
    })?;
    let exporter = exporter(&arguments.command)?;
    // A second subscriber, as in tests, is no reason to fail.
    let _ = match &exporter {
        // One filter for all: what it leaves out is decided once for each line of the program, not each time it is reached.
        None => tracing_subscriber::registry().with(filter).with(lines(arguments.log_format)).try_init(),
        Some(exporter) => {
            let lines = lines(arguments.log_format).with_filter(filter);
            tracing_subscriber::registry().with(lines).with(exporter.layer()).try_init()
        }
    };
    Ok(exporter)
}

fn lines<S: Subscriber + for<'span> LookupSpan<'span>>(format: LogFormat) -> Box<dyn Layer<S> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    match format {
        LogFormat::Pretty => lines.boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// What is exported is what nodes do.
fn exporter(command: &Command) -> Result<Option<Exporter>, Failure> {
    let (service, instance) = match command {
        Command::Up(_) => ("atoll", "up".to_owned()),
        Command::Origin(_) => ("atoll-origin", "origin".to_owned()),
        Command::Edge { name } => ("atoll-edge", name.to_string()),
        Command::Dns { name } => ("atoll-dns", name.to_string()),
        _ => return Ok(None),
    };
    Exporter::from_environment(service, instance).map_err(Failure::typed)
}
