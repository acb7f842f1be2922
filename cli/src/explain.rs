//! `atoll explain`: asks each edge's admin page why a URL is answered as it is.

use std::time::Duration;

use config::EdgeNode;
use futures_util::future::join_all;
use serde_json::Value;

use crate::args::Explain;
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::say;

/// How long an edge may think.
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `atoll explain`.
pub(crate) async fn run(context: &Context, arguments: Explain) -> Outcome {
    arguments.url.parse::<wire::UrlScope>().map_err(Failure::typed)?;
    let settings = context.settings()?;
    let edges: Vec<_> = settings.edges.values().filter(|edge| arguments.edge.as_ref().is_none_or(|name| &edge.name == name)).collect();
    if edges.is_empty() {
        let known: Vec<_> = settings.edges.keys().map(ToString::to_string).collect();
        return Err(Failure::typed(format!("there is no such edge in the file; there are: {}", known.join(", "))));
    }
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(PATIENCE).build().map_err(Failure::failed)?;
    let told = join_all(edges.into_iter().map(|edge| ask(&client, edge, &arguments.url))).await;
    if arguments.json {
        say::json(&told)?;
    } else {
        told.iter().try_for_each(print)?;
    }
    let any = told.iter().any(|told| told.get("error").is_none());
    if any { Ok(Done::Everywhere) } else { Err(Failure::failed("no edge could be asked")) }
}

async fn ask(client: &reqwest::Client, edge: &EdgeNode, url: &str) -> Value {
    let page = format!("http://{}/explain", edge.admin);
    let answer = async {
        let response = client.get(reqwest::Url::parse_with_params(&page, [("url", url)])?).send().await?.error_for_status()?;
        Ok::<_, anyhow::Error>(serde_json::from_str(&response.text().await?)?)
    };
    answer.await.unwrap_or_else(|error| serde_json::json!({ "edge": edge.name, "region": edge.region, "error": reason(&error, edge) }))
}

/// Why an edge could not be asked, in a few words.
fn reason(error: &anyhow::Error, edge: &EdgeNode) -> String {
    let admin = edge.admin;
    match error.downcast_ref::<reqwest::Error>() {
        Some(error) if error.is_timeout() => format!("no answer at {admin} within {} s", PATIENCE.as_secs()),
        Some(error) if error.is_connect() => format!("it is not there: nothing answers at {admin}"),
        Some(error) => match error.status() {
            Some(status) => format!("{admin} answered {status}"),
            None => format!("{admin} does not answer as an edge does"),
        },
        None => format!("{admin} does not answer as an edge does: {error}"),
    }
}

fn print(told: &Value) -> Result<(), Failure> {
    let text = |key: &str| told.get(key).map(plain).unwrap_or_default();
    say::line(format!("{} ({})", text("edge"), text("region")))?;
    let shown = |(key, value): &(&String, &Value)| !matches!(key.as_str(), "edge" | "region" | "variants") && !value.is_null();
    for (key, value) in told.as_object().into_iter().flatten().filter(shown) {
        let (label, value) = labelled(key, value);
        say::line(format!("  {label:18} {value}"))?;
    }
    for variant in told.get("variants").and_then(Value::as_array).into_iter().flatten() {
        say::line("  stored")?;
        for (key, value) in variant.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            let (label, value) = labelled(key, value);
            say::line(format!("    {label:24} {value}"))?;
        }
    }
    Ok(())
}

/// A field as people read it: what it is called, and its value with its unit.
fn labelled(key: &str, value: &Value) -> (String, String) {
    let value = plain(value);
    match (key, key.strip_suffix("_s")) {
        // The edge takes it as http, and drops the port.
        ("url", _) => ("url".to_owned(), format!("http://{value}")),
        ("by", _) => ("answered by".to_owned(), value),
        ("leased", _) => ("holds a lease".to_owned(), if value == "true" { "yes".to_owned() } else { "no".to_owned() }),
        ("applied", _) => ("applied up to".to_owned(), value),
        ("config", _) => ("configuration".to_owned(), value),
        ("moved_at_seq", _) => ("switched by event".to_owned(), value),
        ("filled_at", _) => ("filled after event".to_owned(), value),
        (_, Some(span)) => (span.replace('_', " "), format!("{value} s")),
        (_, None) => (key.replace('_', " "), value),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_field_is_labelled_as_people_read_it() {
        let cases = [
            ("url", json!("localhost/a"), ("url", "http://localhost/a")),
            ("leased", json!(true), ("holds a lease", "yes")),
            ("stale_if_error_s", json!(60), ("stale if error", "60 s")),
            ("next_request", json!("hit"), ("next request", "hit")),
            ("tags", json!(["a", "b"]), ("tags", "a, b")),
        ];
        for (key, value, (label, shown)) in cases {
            assert_eq!(labelled(key, &value), (label.to_owned(), shown.to_owned()));
        }
    }
}
