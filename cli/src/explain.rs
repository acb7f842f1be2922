//! `atoll explain`: asks each edge's admin page why a URL is answered as it is.

use std::time::Duration;

use config::EdgeNode;
use serde_json::Value;

use crate::args::Explain;
use crate::context::Context;
use crate::exit::{Done, Failure, Outcome};
use crate::say;

/// Runs `atoll explain`.
pub(crate) async fn run(context: &Context, arguments: Explain) -> Outcome {
    arguments.url.parse::<wire::UrlScope>().map_err(Failure::typed)?;
    let settings = context.settings()?;
    let edges: Vec<_> = settings.edges.values().filter(|edge| arguments.edge.as_ref().is_none_or(|name| &edge.name == name)).collect();
    if edges.is_empty() {
        let known: Vec<_> = settings.edges.keys().map(ToString::to_string).collect();
        return Err(Failure::typed(format!("there is no such edge in the file; there are: {}", known.join(", "))));
    }
    let client =
        reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(Duration::from_secs(10)).build().map_err(Failure::failed)?;
    let mut told = Vec::new();
    for edge in edges {
        told.push(ask(&client, edge, &arguments.url).await);
    }
    if arguments.json {
        say::json(&told);
    } else {
        told.iter().for_each(print);
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
    answer.await.unwrap_or_else(|error| serde_json::json!({ "edge": edge.name, "region": edge.region, "error": format!("{error:#}") }))
}

fn print(told: &Value) {
    let text = |key: &str| told.get(key).map(plain).unwrap_or_default();
    say::line(format!("{} ({})", text("edge"), text("region")));
    let Some(fields) = told.as_object() else { return };
    for (key, value) in fields.iter().filter(|(key, value)| !matches!(key.as_str(), "edge" | "region" | "variants") && !value.is_null()) {
        say::line(format!("  {:14} {}", key.replace('_', " "), plain(value)));
    }
    for variant in told.get("variants").and_then(Value::as_array).into_iter().flatten() {
        say::line("  stored");
        for (key, value) in variant.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            say::line(format!("    {:24} {}", key.replace('_', " "), plain(value)));
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}
