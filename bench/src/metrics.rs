//! What an edge's page of metrics says at a moment.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::{Context as _, Result};

use crate::town::client;

/// A page.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// Reads the page of the edge that tells at `admin` how it is.
    pub(crate) async fn read(admin: SocketAddr) -> Result<Self> {
        let answer = client()?.get(format!("http://{admin}/metrics")).send().await?.error_for_status()?;
        Ok(Self(answer.text().await?))
    }

    /// Returns what has this name and no labels.
    pub(crate) fn value(&self, name: &str) -> Result<u64> {
        let value = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
        value.with_context(|| format!("there is no metric {name}"))
    }

    /// Returns what has this name, by the value of its only label; what never happened is missing.
    pub(crate) fn by_label(&self, name: &str) -> BTreeMap<String, u64> {
        let counted = self.0.lines().filter_map(|line| {
            let (label, count) = line.strip_prefix(name)?.strip_prefix('{')?.split_once("\"} ")?;
            Some((label.split_once("=\"")?.1.to_owned(), count.parse().ok()?))
        });
        counted.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_begins_another_is_told_apart() {
        let text = "# TYPE a counter\na_b 7\na_total 2\na{result=\"x\"} 3\na{result=\"left-alone\"} 4\nab{result=\"x\"} 5\n";
        let page = Metrics(text.to_owned());
        assert_eq!(page.value("a_total").unwrap(), 2);
        assert!(page.value("a").is_err() && page.value("b").is_err());
        assert_eq!(page.by_label("a"), BTreeMap::from([("left-alone".to_owned(), 4), ("x".to_owned(), 3)]));
    }
}
