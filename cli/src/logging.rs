//! Log lines, on stderr: pretty for people, JSON for machines.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use crate::args::{Arguments, Command, LogFormat};

/// Starts logging. Single nodes tell what they do; everything else tells what is wrong.
pub(crate) fn init(arguments: &Arguments) {
    let default = match arguments.command {
        Command::Origin(_) | Command::Edge { .. } | Command::Dns { .. } => "info,actix_server=warn",
        _ => "warn",
    };
    let filter = arguments.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|error| {
        crate::say::note(format!("the log filter `{filter}` is not understood ({error}); using `{default}`"));
        EnvFilter::new(default)
    });
    let subscriber =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal());
    // A second subscriber, as in tests, is no reason to fail.
    let _ = match arguments.log_format {
        LogFormat::Pretty => subscriber.try_init(),
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
    };
}
