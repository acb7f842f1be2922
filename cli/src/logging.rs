//! Log lines, on stderr: pretty for people, JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, LogFormat};
use crate::exit::Failure;

/// What a library says of its own starting and stopping, our nodes say better. A filter that names it comes later, and wins.
const QUIET: &str = "actix_server=warn";

/// Starts logging. Single nodes tell what they do; everything else tells what is wrong.
pub(crate) fn init(arguments: &Arguments) -> Result<(), Failure> {
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
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second subscriber, as in tests, is no reason to fail.
    let _ = match arguments.log_format {
        LogFormat::Pretty => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
    Ok(())
}
