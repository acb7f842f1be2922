//! Reads one table of the tree key by key: every getter says what it expects, so that what was never
//! asked for is an unknown key, and what was asked for is what `config show` prints.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;

use crate::choice::{self, Choice};
use crate::overlay::loose_value;
use crate::report::{Report, Shown};
use crate::tree::{Spot, Table, Value, key_text, to_json};
use crate::{ByteSize, Complaint, SecretRef, Source, Tree};

/// A value as a complaint repeats it: a table would hide what is wrong with one line of it.
fn brief(value: &Value) -> Option<String> {
    let has_table = |items: &[Spot]| items.iter().any(|item| matches!(item.value, Value::Table(_)));
    match value {
        Value::Table(_) => None,
        Value::List(items) if has_table(items) => None,
        value => Some(value.to_string()),
    }
}

/// One table that is being read. Dropping it complains about the keys that nobody asked for.
pub(crate) struct Section<'a> {
    table: &'a Table,
    path: String,
    source: Source,
    folder: &'a Path,
    asked: RefCell<Vec<&'static str>>,
    /// Whether names of keys are free, as in `[regions]`.
    free: RefCell<bool>,
    report: &'a Report,
}

impl<'a> Section<'a> {
    pub(crate) fn root(tree: &'a Tree, report: &'a Report) -> Self {
        Self::over(&tree.root, String::new(), Source::Default, &tree.folder, report)
    }

    fn over(table: &'a Table, path: String, source: Source, folder: &'a Path, report: &'a Report) -> Self {
        Self { table, path, source, folder, asked: RefCell::default(), free: RefCell::new(false), report }
    }

    pub(crate) fn key(&self, name: &str) -> String {
        let name = key_text(name);
        if self.path.is_empty() { name.into_owned() } else { format!("{}.{name}", self.path) }
    }

    fn ask(&self, name: &'static str) -> Option<&'a Spot> {
        self.asked.borrow_mut().push(name);
        self.table.get(name)
    }

    fn show(&self, name: &str, value: &Value, source: Source) {
        self.report.show(Shown { key: self.key(name), value: value.to_string(), json: to_json(value), source });
    }

    /// Complains about the value of `name`.
    pub(crate) fn complain(&self, name: &str, expected: impl Into<String>) {
        let spot = self.table.get(name);
        let source = spot.map_or_else(|| self.source.clone(), |spot| spot.source.clone());
        let value = spot.and_then(|spot| brief(&spot.value));
        self.report.complain(Complaint::new(source, &self.key(name), value, expected));
    }

    /// Complains about a name that should be one of `known`.
    pub(crate) fn complain_unknown<'n>(&self, name: &str, given: &str, what: &str, known: impl IntoIterator<Item = &'n str>) {
        let source = self.table.get(name).map_or_else(|| self.source.clone(), |spot| spot.source.clone());
        let value = Some(Value::Text(given.to_owned()).to_string());
        let complaint = Complaint::new(source, &self.key(name), value, format!("there is no such {what}"));
        self.report.complain(complaint.with_nearest(given, known));
    }

    fn one<T>(&self, name: &'static str, expected: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let spot = self.ask(name)?;
        let value = read(&spot.value);
        match value {
            Some(_) => self.show(name, &spot.value, spot.source.clone()),
            None => self.complain(name, format!("expected {expected}")),
        }
        value
    }

    /// `shown` is the default as TOML writes it.
    fn or_default<T>(&self, name: &'static str, value: Option<T>, default: T, shown: &str) -> T {
        value.unwrap_or_else(|| {
            if !self.table.contains_key(name) {
                self.show(name, &loose_value(shown), Source::Default);
            }
            default
        })
    }

    /// A text that must parse.
    pub(crate) fn parsed<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<T> {
        self.one(name, expected, |value| match value {
            Value::Text(text) => text.parse().ok(),
            _ => None,
        })
    }

    pub(crate) fn parsed_or<T: FromStr + Display>(&self, name: &'static str, expected: &str, default: T) -> T {
        let value = self.parsed(name, expected);
        let shown = Value::Text(default.to_string()).to_string();
        self.or_default(name, value, default, &shown)
    }

    /// A text that must parse, and must be there.
    pub(crate) fn required<T: FromStr>(&self, name: &'static str, expected: &str) -> Option<T> {
        let value = self.parsed(name, expected);
        if !self.table.contains_key(name) {
            self.complain(name, format!("is missing; expected {expected}"));
        }
        value
    }

    pub(crate) fn duration_or(&self, name: &'static str, default: Duration) -> Duration {
        let value = self.duration(name);
        self.or_default(name, value, default, &format!("\"{}\"", humantime::format_duration(default)))
    }

    /// A span of time that may be none at all: "0s".
    pub(crate) fn pause_or(&self, name: &'static str, default: Duration) -> Duration {
        let value = self.one(name, "a span of time such as \"5s\", or \"0s\" for none", |value| match value {
            Value::Text(text) => humantime::parse_duration(text).ok(),
            _ => None,
        });
        self.or_default(name, value, default, &format!("\"{}\"", humantime::format_duration(default)))
    }

    /// A span of time that has no default.
    pub(crate) fn duration(&self, name: &'static str) -> Option<Duration> {
        self.one(name, SPAN, span)
    }

    pub(crate) fn bytes_or(&self, name: &'static str, default: ByteSize) -> ByteSize {
        self.parsed_or(name, "a size such as \"256 MiB\"", default)
    }

    /// A size within bounds.
    pub(crate) fn bytes_within(&self, name: &'static str, default: ByteSize, bounds: &RangeInclusive<ByteSize>) -> ByteSize {
        let expected = format!("a size from \"{}\" to \"{}\"", bounds.start(), bounds.end());
        let value = self.one(name, &expected, |value| match value {
            Value::Text(text) => text.parse::<ByteSize>().ok().filter(|size| bounds.contains(size)),
            _ => None,
        });
        self.or_default(name, value, default, &format!("\"{default}\""))
    }

    pub(crate) fn bool_or(&self, name: &'static str, default: bool) -> bool {
        let value = self.one(name, "true or false", |value| if let Value::Bool(truth) = value { Some(*truth) } else { None });
        self.or_default(name, value, default, &default.to_string())
    }

    pub(crate) fn count_or(&self, name: &'static str, default: u64) -> u64 {
        let value = self.one(name, "a whole number above 0", |value| match value {
            Value::Integer(number) => u64::try_from(*number).ok().filter(|number| *number > 0),
            _ => None,
        });
        self.or_default(name, value, default, &default.to_string())
    }

    /// A whole number within bounds.
    pub(crate) fn count_within(&self, name: &'static str, default: u64, bounds: &RangeInclusive<u64>) -> u64 {
        let expected = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        let value = self.one(name, &expected, |value| match value {
            Value::Integer(number) => u64::try_from(*number).ok().filter(|number| bounds.contains(number)),
            _ => None,
        });
        self.or_default(name, value, default, &default.to_string())
    }

    /// A number within bounds that must be there.
    pub(crate) fn required_number(&self, name: &'static str, least: f64, most: f64) -> Option<f64> {
        let expected = format!("a number from {least} to {most}");
        let value = self.one(name, &expected, |value| {
            let number = match value {
                #[expect(clippy::cast_precision_loss, reason = "degrees are small")]
                Value::Integer(number) => *number as f64,
                Value::Float(number) => *number,
                _ => return None,
            };
            (least..=most).contains(&number).then_some(number)
        });
        if !self.table.contains_key(name) {
            self.complain(name, format!("is missing; expected {expected}"));
        }
        value
    }

    /// A text or a list of texts, each of which must parse.
    pub(crate) fn list<T: FromStr>(&self, name: &'static str, expected: &str) -> Vec<T> {
        let Some(spot) = self.ask(name) else { return Vec::new() };
        let mut read = Vec::new();
        for item in items(spot) {
            match &item.value {
                Value::Text(text) if text.parse::<T>().is_ok() => read.extend(text.parse::<T>().ok()),
                wrong => {
                    let complaint =
                        Complaint::new(item.source.clone(), &self.key(name), Some(wrong.to_string()), format!("expected {expected}"));
                    self.report.complain(complaint);
                }
            }
        }
        self.show(name, &spot.value, spot.source.clone());
        read
    }

    /// A list of networks. Bits behind a prefix are more likely a mistake in the prefix than meant.
    pub(crate) fn networks(&self, name: &'static str, expected: &str) -> Vec<IpNet> {
        for item in self.table.get(name).map(items).unwrap_or_default() {
            let network = if let Value::Text(text) = &item.value { text.parse::<IpNet>().ok() } else { None };
            if let Some(meant) = network.map(|network| network.trunc()).filter(|meant| Some(*meant) != network) {
                let value = Some(item.value.to_string());
                let complaint = Complaint::new(item.source.clone(), &self.key(name), value, "expected no bits behind the prefix");
                self.report.complain(complaint.with_meant(meant.to_string()));
            }
        }
        self.list(name, expected)
    }

    /// A list that must have at least one item.
    pub(crate) fn required_list<T: FromStr>(&self, name: &'static str, expected: &str) -> Vec<T> {
        match self.table.get(name).map(|spot| &spot.value) {
            None => self.complain(name, format!("is missing; expected {expected}, or a list of them")),
            Some(Value::List(items)) if items.is_empty() => self.complain(name, "expected at least one"),
            Some(_) => {}
        }
        self.list(name, expected)
    }

    /// A pointer to a secret; an inline secret is refused without being repeated.
    pub(crate) fn secret(&self, name: &'static str) -> Option<SecretRef> {
        let spot = self.ask(name)?;
        let read = match &spot.value {
            Value::Text(text) => SecretRef::parse(text, self.folder),
            _ => None,
        };
        match &read {
            Some(_) => self.report.show(Shown {
                key: self.key(name),
                value: format!("{} •••", spot.value),
                json: to_json(&spot.value),
                source: spot.source.clone(),
            }),
            None => {
                let expected = "expected env:NAME or file:PATH; a secret does not stand in the file itself";
                self.report.complain(Complaint::new(spot.source.clone(), &self.key(name), Some("•••".to_owned()), expected));
            }
        }
        read
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.table.contains_key(name)
    }

    pub(crate) fn is_table(&self, name: &str) -> bool {
        matches!(self.table.get(name), Some(Spot { value: Value::Table(_), .. }))
    }

    /// Tells whether a value is this word.
    pub(crate) fn says(&self, name: &str, word: &str) -> bool {
        matches!(self.table.get(name), Some(Spot { value: Value::Text(text), .. }) if text == word)
    }

    /// A path, relative to the file's folder.
    pub(crate) fn file_path(&self, name: &'static str) -> Option<PathBuf> {
        self.parsed::<String>(name, "a path").map(|path| self.folder.join(path))
    }

    /// A table that may be missing.
    pub(crate) fn table(&self, name: &'static str) -> Option<Self> {
        let spot = self.ask(name)?;
        match &spot.value {
            Value::Table(table) => Some(Self::over(table, self.key(name), spot.source.clone(), self.folder, self.report)),
            _ => {
                self.complain(name, "expected a table");
                None
            }
        }
    }

    /// A table whose keys are names, each with a table. What stands below a bad name is read all the same, by a name
    /// that it could have had, so that its own complaints come with the name's.
    pub(crate) fn tables<N: FromStr<Err: Display> + Ord>(&self, name: &'static str) -> Vec<(N, Self)> {
        let Some(outer) = self.table(name) else { return Vec::new() };
        outer.free.replace(true);
        let mut sections = Vec::new();
        for (key, spot) in outer.table {
            let parsed = key.parse::<N>().or_else(|error| {
                self.report.complain(Complaint::new(spot.source.clone(), &outer.key(key), None, error.to_string()));
                mended(key).parse::<N>()
            });
            match (parsed, &spot.value) {
                (Ok(parsed), Value::Table(table)) => {
                    sections.push((parsed, Self::over(table, outer.key(key), spot.source.clone(), self.folder, self.report)));
                }
                (Err(_), Value::Table(_)) => {}
                (_, _) => outer.complain(key, "expected a table"),
            }
        }
        sections
    }

    /// A list of tables.
    pub(crate) fn table_list(&self, name: &'static str) -> Vec<Self> {
        let Some(spot) = self.ask(name) else { return Vec::new() };
        let Value::List(items) = &spot.value else {
            self.complain(name, "expected a list of tables");
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (i, item) in items.iter().enumerate() {
            let key = format!("{}[{i}]", self.key(name));
            match &item.value {
                Value::Table(table) => sections.push(Self::over(table, key, item.source.clone(), self.folder, self.report)),
                wrong => self.report.complain(Complaint::new(item.source.clone(), &key, Some(wrong.to_string()), "expected a table")),
            }
        }
        sections
    }

    /// A table with free names and texts, each a list that must parse.
    pub(crate) fn named_lists<T: FromStr>(&self, name: &'static str, expected: &str) -> Vec<(String, Vec<T>)> {
        let Some(outer) = self.table(name) else { return Vec::new() };
        outer.free.replace(true);
        let mut rows = Vec::new();
        for (key, spot) in outer.table {
            let mut read = Vec::new();
            for item in items(spot) {
                match &item.value {
                    Value::Text(text) if text.parse::<T>().is_ok() => read.extend(text.parse::<T>().ok()),
                    _ => outer.complain(key, format!("expected {expected}")),
                }
            }
            outer.show(key, &spot.value, spot.source.clone());
            rows.push((key.clone(), read));
        }
        rows
    }

    /// A table whose keys must parse, each with a span of time.
    pub(crate) fn spans<K: FromStr>(&self, name: &'static str, expected: &str) -> Vec<(K, Duration)> {
        let Some(outer) = self.table(name) else { return Vec::new() };
        outer.free.replace(true);
        let mut rows = Vec::new();
        for (key, spot) in outer.table {
            match (key.parse::<K>().ok(), span(&spot.value)) {
                (Some(parsed), Some(span)) => rows.push((parsed, span)),
                (None, _) => outer.complain(key, format!("expected {expected}")),
                (Some(_), None) => outer.complain(key, format!("expected {SPAN}")),
            }
            outer.show(key, &spot.value, spot.source.clone());
        }
        rows
    }

    /// A text of a few words, or a table with one key: the words are tried first.
    pub(crate) fn either<T>(
        &self,
        name: &'static str,
        expected: &str,
        default: T,
        shown: &str,
        read: impl FnOnce(&Choice<'_>) -> Option<T>,
    ) -> T {
        let value = self.one(name, expected, |value| choice::read(value, read));
        self.or_default(name, value, default, shown)
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if *self.free.borrow() {
            return;
        }
        let asked = self.asked.borrow();
        for (key, spot) in self.table {
            if !asked.contains(&key.as_str()) {
                let complaint = Complaint::new(spot.source.clone(), &self.key(key), brief(&spot.value), "unknown key");
                self.report.complain(complaint.with_nearest(key, asked.iter().copied()));
            }
        }
    }
}

/// The items of a list; anything else is alone in one.
fn items(spot: &Spot) -> &[Spot] {
    if let Value::List(items) = &spot.value { items } else { std::slice::from_ref(spot) }
}

/// The allowed name that is next to one that is not.
fn mended(name: &str) -> String {
    let allowed = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c) { c } else { '-' };
    let mended: String = name.to_ascii_lowercase().chars().map(allowed).take(63).collect();
    mended.trim_start_matches(['-', '_', '.']).to_owned()
}

const SPAN: &str = "a span of time such as \"5s\" or \"250ms\"";

fn span(value: &Value) -> Option<Duration> {
    match value {
        Value::Text(text) => humantime::parse_duration(text).ok().filter(|span| !span.is_zero()),
        _ => None,
    }
}
