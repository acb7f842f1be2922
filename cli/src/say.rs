//! What is printed: results on stdout, everything else on stderr. A reader that went away ends nothing; a result that
//! can't be written is a failure.

use std::io::{ErrorKind, Write as _};

use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;

use crate::exit::Failure;

/// Prints a line of the result.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    raw(format!("{text}\n").as_bytes())
}

/// Prints bytes of the result as they are.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    written(out.write_all(bytes).and_then(|()| out.flush()))
}

/// Judges how writing a result went.
pub(crate) fn written(written: std::io::Result<()>) -> Result<(), Failure> {
    match written {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::failed(format!("failed to write the result: {error}"))),
    }
}

/// Prints a line beside the result.
pub(crate) fn note(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Prints something that may not be meant.
pub(crate) fn warning(text: impl std::fmt::Display) {
    note(format!("warning: {text}"));
}

/// Prints what went wrong; each line of it is a problem of its own.
pub(crate) fn problem(text: &str) {
    text.lines().for_each(|line| note(format!("error: {line}")));
}

/// Prints the result as JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<(), Failure> {
    line(serde_json::to_string_pretty(value).map_err(Failure::failed)?)
}

/// Prints rows under a head.
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> Result<(), Failure> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled).set_header(head);
    rows.into_iter().for_each(|row| {
        table.add_row(row);
    });
    table.to_string().lines().try_for_each(|text| line(text.trim_end()))
}

/// Returns a number of bytes as people read it.
pub(crate) fn bytes(count: u64) -> String {
    indicatif::BinaryBytes(count).to_string()
}

/// Returns a number of things as people read it: `1 edge`, `2 edges`.
pub(crate) fn count(count: usize, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}
