//! A value of a few words, some of which come with texts of their own.

use std::str::FromStr;

use crate::tree::Value;

/// A word, or a word with a text or a list of them: `"refuse"`, `{ serve_for = "1h" }`, `{ keep = ["a", "b"] }`.
pub(crate) enum Choice<'a> {
    Word(&'a str),
    With(&'a str, &'a [&'a str]),
}

/// Shows `decide` what was chosen; `None` where the value has another shape.
pub(crate) fn read<T>(value: &Value, decide: impl FnOnce(&Choice<'_>) -> Option<T>) -> Option<T> {
    match value {
        Value::Text(word) => decide(&Choice::Word(word)),
        Value::Table(table) if table.len() == 1 => {
            let (word, spot) = table.iter().next()?;
            let texts = texts(&spot.value)?;
            decide(&Choice::With(word, &texts))
        }
        _ => None,
    }
}

fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::List(items) => items.iter().map(|item| text(&item.value)).collect(),
        alone => Some(vec![text(alone)?]),
    }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::Text(text) = value { Some(text.as_str()) } else { None }
}

/// Reads the texts that came with a word: at least one, each of which must parse.
pub(crate) fn all_parsed<T: FromStr>(texts: &[&str]) -> Option<Vec<T>> {
    let all: Vec<T> = texts.iter().map(|text| text.parse().ok()).collect::<Option<_>>()?;
    (!all.is_empty()).then_some(all)
}
