//! The configuration as people wrote it: a tree of values, each with where it came from.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::secret::without_passwords;
use crate::{Complaint, Complaints};

/// Where a value came from. Later sources win: defaults < file < environment < flags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Nobody set it.
    Default,
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
    },
    /// A file as a whole.
    WholeFile(PathBuf),
    /// The network's configuration in the journal, or a request's body.
    Network,
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, without its value: that may be a secret.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::WholeFile(path) => write!(f, "{}", path.display()),
            Self::Network => f.write_str("network"),
            Self::Environment(name) => write!(f, "${name}"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A value with its source.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) value: Value,
    pub(crate) source: Source,
}

/// A value as TOML and JSON have it.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
    List(Vec<Spot>),
    Table(Table),
}

pub(crate) type Table = BTreeMap<String, Spot>;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(&quoted(&without_passwords(text))),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::List(items) => {
                let items: Vec<_> = items.iter().map(|item| item.value.to_string()).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Self::Table(table) => {
                let fields: Vec<_> = table.iter().map(|(key, spot)| format!("{} = {}", key_text(key), spot.value)).collect();
                write!(f, "{{ {} }}", fields.join(", "))
            }
        }
    }
}

/// Writes a text as TOML does; JSON's escapes are among TOML's.
fn quoted(text: &str) -> String {
    Json::from(text).to_string()
}

/// Writes one name of a key as TOML does: in quotes unless it is bare, so that what is printed can be typed.
pub(crate) fn key_text(name: &str) -> Cow<'_, str> {
    let is_bare = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
    if is_bare { Cow::Borrowed(name) } else { Cow::Owned(quoted(name)) }
}

/// The sections that belong to the network as a whole and live in the journal.
const NETWORK_SECTIONS: [&str; 6] = ["network", "regions", "zones", "sites", "upstreams", "routes"];

/// A whole configuration as it was written.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    pub(crate) root: Table,
    /// The folder that relative paths begin at.
    pub(crate) folder: PathBuf,
}

impl Tree {
    /// Reads a TOML text that stood in `file`.
    ///
    /// # Errors
    /// Returns every syntax error with its line.
    pub fn from_toml(text: &str, file: &Path) -> Result<Self, Complaints> {
        let (table, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            return Err(Complaints::new(errors.iter().map(|error| {
                let line = error.span().map_or(1, |span| line_of(text, span.start));
                Complaint::syntax(Source::File { path: file.to_owned(), line }, error.message())
            })));
        }
        let reader = TomlReader { text, file };
        let folder = file.parent().map(Path::to_owned).unwrap_or_default();
        Ok(Self { root: reader.table(table.get_ref())?, folder })
    }

    /// Takes the network's configuration as the journal keeps it.
    #[must_use]
    pub fn from_json(json: &Json) -> Self {
        match from_json(json).value {
            Value::Table(root) => Self { root, folder: PathBuf::new() },
            _ => Self::default(),
        }
    }

    /// Returns the network's sections as the journal keeps them.
    #[must_use]
    pub fn network_json(&self) -> Json {
        let sections = NETWORK_SECTIONS.iter().filter_map(|name| Some(((*name).to_owned(), to_json(&self.root.get(*name)?.value))));
        Json::Object(sections.collect())
    }

    /// Drops the sections that belong to single nodes.
    #[must_use]
    pub fn only_network(mut self) -> Self {
        self.root.retain(|name, _| NETWORK_SECTIONS.contains(&name.as_str()));
        self
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|&byte| byte == b'\n').count() + 1
}

struct TomlReader<'a> {
    text: &'a str,
    file: &'a Path,
}

impl TomlReader<'_> {
    fn source(&self, offset: usize) -> Source {
        Source::File { path: self.file.to_owned(), line: line_of(self.text, offset) }
    }

    fn table(&self, table: &DeTable<'_>) -> Result<Table, Complaints> {
        table.iter().map(|(key, value)| Ok((key.get_ref().to_string(), self.spot(value, key.span().start)?))).collect()
    }

    fn spot(&self, value: &Spanned<DeValue<'_>>, at: usize) -> Result<Spot, Complaints> {
        let source = self.source(at);
        let refuse = |what: &str| Err(Complaints::new([Complaint::syntax(source.clone(), what)]));
        let value = match value.get_ref() {
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
                Ok(number) => Value::Integer(number),
                Err(_) => return refuse("a number that does not fit 64 bits"),
            },
            DeValue::Float(number) => match number.as_str().parse() {
                Ok(number) => Value::Float(number),
                Err(_) => return refuse("a number that can't be read"),
            },
            DeValue::Boolean(truth) => Value::Bool(*truth),
            DeValue::Datetime(_) => return refuse("a date, where none is expected"),
            DeValue::Array(items) => Value::List(items.iter().map(|item| self.spot(item, item.span().start)).collect::<Result<_, _>>()?),
            DeValue::Table(table) => Value::Table(self.table(table)?),
        };
        Ok(Spot { value, source })
    }
}

fn from_json(json: &Json) -> Spot {
    let value = match json {
        Json::Null => Value::Text("null".to_owned()),
        Json::Bool(truth) => Value::Bool(*truth),
        Json::Number(number) => number.as_i64().map_or_else(|| Value::Float(number.as_f64().unwrap_or(f64::NAN)), Value::Integer),
        Json::String(text) => Value::Text(text.clone()),
        Json::Array(items) => Value::List(items.iter().map(from_json).collect()),
        Json::Object(fields) => Value::Table(fields.iter().map(|(key, value)| (key.clone(), from_json(value))).collect()),
    };
    Spot { value, source: Source::Network }
}

pub(crate) fn to_json(value: &Value) -> Json {
    match value {
        Value::Text(text) => text.as_str().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::List(items) => items.iter().map(|item| to_json(&item.value)).collect(),
        Value::Table(table) => Json::Object(table.iter().map(|(key, spot)| (key.clone(), to_json(&spot.value))).collect()),
    }
}

/// Reads a text that is one TOML value.
pub(crate) fn toml_value(text: &str) -> Option<Value> {
    let line = format!("x = {text}");
    let table = DeTable::parse(&line).ok()?;
    let reader = TomlReader { text: &line, file: Path::new("") };
    reader.table(table.get_ref()).ok()?.remove("x").map(|spot| spot.value)
}
