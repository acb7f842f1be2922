//! What is laid on top of a file: the environment's variables, and the `KEY=VALUE` flags of the command line.

use toml::de::{DeTable, DeValue};

use crate::tree::{Spot, Table, Value, toml_value};
use crate::{Complaint, Complaints, Source, Tree};

impl Tree {
    /// Lays the environment's overrides on top: `ATOLL_DATA`, `ATOLL_DRAIN`, and `ATOLL_SECTION__NAME__KEY` for the
    /// rest, where `-` and `.` in names are written `_`.
    pub fn lay_environment(&mut self, variables: impl IntoIterator<Item = (String, String)>) {
        let mut variables: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with("ATOLL_")).collect();
        variables.sort();
        for (name, text) in variables {
            let path = &name["ATOLL_".len()..];
            if matches!(path, "DATA" | "DRAIN") || path.contains("__") {
                let parts: Vec<_> = path.split("__").map(str::to_ascii_lowercase).collect();
                set(&mut self.root, &parts, &all_from(&Source::Environment(name), loose_value(&text)));
            }
        }
    }

    /// Lays `KEY=VALUE` pairs of the command line on top; keys are written as in TOML, with dots and quotes.
    ///
    /// # Errors
    /// Returns every pair that can't be read.
    pub fn lay_flags<'a>(&mut self, pairs: impl IntoIterator<Item = &'a str>) -> Result<(), Complaints> {
        let mut complaints = Vec::new();
        for pair in pairs {
            match read_pair(pair) {
                Some((key, path, text)) => {
                    set(&mut self.root, &path, &all_from(&Source::Flag(format!("--set {key}")), loose_value(text)));
                }
                None => {
                    // What stands behind the `=` may be a secret.
                    let key = pair.split('=').next().unwrap_or_default();
                    let expected = "expected KEY=VALUE, with a key such as network.lease or zones.\"example.test\".ttl";
                    complaints.push(Complaint::syntax(Source::Flag(format!("--set {key}")), expected));
                }
            }
        }
        if complaints.is_empty() { Ok(()) } else { Err(Complaints::new(complaints)) }
    }
}

/// Finds the key, its names, and the value. The key ends at the first `=` before which there is one: a quoted name may
/// have a `=` in it.
fn read_pair(pair: &str) -> Option<(&str, Vec<String>, &str)> {
    pair.match_indices('=').find_map(|(at, _)| Some((pair[..at].trim(), names_of(&pair[..at])?, &pair[at + 1..])))
}

/// Reads a key by TOML's own grammar: names between dots, each bare or in quotes.
fn names_of(key: &str) -> Option<Vec<String>> {
    // A second line would be another key, or the head of a table.
    if key.contains(char::is_control) {
        return None;
    }
    let line = format!("{key} = true");
    let parsed = DeTable::parse(&line).ok()?;
    let mut names = Vec::new();
    let mut table = parsed.get_ref();
    loop {
        let (name, value) = table.iter().next()?;
        names.push(name.get_ref().to_string());
        let DeValue::Table(inner) = value.get_ref() else { return Some(names) };
        table = inner;
    }
}

/// A value without TOML's quotes: what reads as a TOML value is one, all else is text.
pub(crate) fn loose_value(text: &str) -> Value {
    toml_value(text).unwrap_or_else(|| Value::Text(text.to_owned()))
}

/// Everything below a value comes from where the value does.
fn all_from(source: &Source, value: Value) -> Spot {
    let value = match value {
        Value::List(items) => Value::List(items.into_iter().map(|item| all_from(source, item.value)).collect()),
        Value::Table(table) => Value::Table(table.into_iter().map(|(key, spot)| (key, all_from(source, spot.value))).collect()),
        alone => alone,
    };
    Spot { value, source: source.clone() }
}

/// Sets a value deep in the tree; parts match existing names with `-` and `.` written `_`.
fn set(table: &mut Table, path: &[String], spot: &Spot) {
    let Some((first, rest)) = path.split_first() else { return };
    let loosely = |name: &&String| name.to_ascii_lowercase().replace(['-', '.'], "_") == *first;
    let meant = if table.contains_key(first) { None } else { table.keys().find(loosely).cloned() };
    let key = meant.unwrap_or_else(|| first.clone());
    if rest.is_empty() {
        table.insert(key, spot.clone());
        return;
    }
    let inner = table.entry(key).or_insert_with(|| Spot { value: Value::Table(Table::new()), source: spot.source.clone() });
    if !matches!(inner.value, Value::Table(_)) {
        inner.value = Value::Table(Table::new());
    }
    if let Value::Table(inner) = &mut inner.value {
        set(inner, rest, spot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flags_key_is_read_as_toml_writes_it() {
        let cases: [(&str, &[&str], &str); 7] = [
            ("data=x", &["data"], "x"),
            ("network.lease=3s", &["network", "lease"], "3s"),
            ("zones.\"example.test\".ttl=77s", &["zones", "example.test", "ttl"], "77s"),
            ("zones.'example.test'.ttl = 77s", &["zones", "example.test", "ttl"], " 77s"),
            ("upstreams.u.host=a=b", &["upstreams", "u", "host"], "a=b"),
            ("a.\"b=c\"=d", &["a", "b=c"], "d"),
            ("edges.fra-1.memory=", &["edges", "fra-1", "memory"], ""),
        ];
        for (pair, path, text) in cases {
            let (_, names, value) = read_pair(pair).unwrap();
            assert_eq!((names.iter().map(String::as_str).collect::<Vec<_>>().as_slice(), value), (path, text), "{pair}");
        }
        for bad in ["", "data", "=x", ".a=x", "a..b=x", "a b=x", "[a]=x", "a\nb=x", "# a=x", "\"a=x"] {
            assert!(read_pair(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_there_as_it_is_typed_comes_before_one_that_only_looks_like_it() {
        let mut tree = Tree::from_toml("[regions.fra-1]\n[regions.fra_1]\n", std::path::Path::new("f")).unwrap();
        tree.lay_flags(["regions.fra_1.latitude=1.5"]).unwrap();
        let latitude = |name: &str| tree.network_json()["regions"][name]["latitude"].as_f64();
        assert_eq!((latitude("fra_1"), latitude("fra-1")), (Some(1.5), None));
    }

    #[test]
    fn a_complaint_about_an_item_of_a_flags_list_names_the_flag() {
        let flags = ["sites.a.hosts=[\"a.test\", \"b:1\"]"];
        let said = crate::Settings::from_text("", std::path::Path::new("f"), [], flags).unwrap_err().to_string();
        assert!(said.starts_with("--set sites.a.hosts: sites.a.hosts = \"b:1\": "), "{said}");
    }

    #[test]
    fn every_flag_that_can_not_be_read_is_named_without_its_value() {
        let said = Tree::default().lay_flags(["a b=secret", "data=x", "c"]).unwrap_err().to_string();
        assert!(said.contains("--set a b:") && said.contains("--set c:") && !said.contains("secret"), "{said}");
    }
}
