//! `atoll health`: asks nodes on this machine whether they are ready; for health checks of containers, and for scripts.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use config::Settings;
use futures_util::future::join_all;
use reqwest::{Certificate, Client, Url};
use serde::Serialize;
use tokio::time::Instant;

use crate::args::{Health, NodeId};
use crate::context::Context;
use crate::control::causes;
use crate::exit::{Done, Failure, Outcome};
use crate::say;

/// How long a node may think: whoever checks its health gives up soon after.
const PATIENCE: Duration = Duration::from_secs(3);

/// How often it is asked while it is waited for.
const EVERY: Duration = Duration::from_millis(100);

/// What a node said.
#[derive(Debug, Serialize)]
struct Told {
    node: String,
    at: String,
    ready: bool,
    said: String,
}

/// Where a node is asked.
#[derive(Debug, PartialEq, Eq)]
struct Asked {
    /// Its page's URL; the name in it is what its certificate is for.
    url: Url,
    /// Where that name is.
    at: SocketAddr,
}

/// Runs `atoll health`.
pub(crate) async fn run(context: &Context, arguments: Health) -> Outcome {
    let settings = context.settings()?;
    let nodes = if arguments.nodes.is_empty() { all(&settings) } else { arguments.nodes };
    let page = if arguments.live { "livez" } else { "readyz" };
    let asked: Vec<_> = nodes.into_iter().map(|node| Ok((where_is(&settings, &node, page)?, node))).collect::<Result<_, Failure>>()?;
    let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose();
    let ca = ca.map_err(|error| Failure::typed(format!("origin.ca: {error}")))?;
    let until = Instant::now() + arguments.wait.unwrap_or_default();
    let told = loop {
        let told = join_all(asked.iter().map(|(places, node)| ask(places, node, ca.as_deref()))).await;
        if told.iter().all(|told| told.ready) || Instant::now() >= until {
            break told;
        }
        tokio::time::sleep(EVERY).await;
    };
    if arguments.json {
        say::json(&told)?;
    } else {
        told.iter().try_for_each(|told| say::line(format!("{}: {}", told.node, told.said)))?;
    }
    match told.iter().filter(|told| !told.ready).count() {
        0 => Ok(Done::Everywhere),
        few => Err(Failure::failed(format!("{} of {} not {}", few, told.len(), if arguments.live { "alive" } else { "ready" }))),
    }
}

/// Every node of the file.
fn all(settings: &Settings) -> Vec<NodeId> {
    let edges = settings.edges.keys().cloned().map(NodeId::Edge);
    [NodeId::Origin].into_iter().chain(edges).chain(settings.dns.keys().cloned().map(NodeId::Dns)).collect()
}

/// Returns where a node of the file tells how it is. An origin that speaks TLS has the name of one of `origin.url`.
fn where_is(settings: &Settings, node: &NodeId, page: &str) -> Result<Vec<Asked>, Failure> {
    let unknown = || Failure::typed(format!("there is no {node} in the file"));
    let admin = match node {
        NodeId::Origin if settings.origin.tls.is_some() => {
            let at = here(settings.origin.listen);
            return settings.origin.urls.iter().map(|url| asked(&format!("{url}/{page}"), at)).collect();
        }
        NodeId::Origin => settings.origin.listen,
        NodeId::Edge(name) => settings.edges.get(name).ok_or_else(unknown)?.admin,
        NodeId::Dns(name) => settings.dns.get(name).ok_or_else(unknown)?.admin,
    };
    let at = here(admin);
    Ok(vec![asked(&format!("http://{at}/{page}"), at)?])
}

fn asked(url: &str, at: SocketAddr) -> Result<Asked, Failure> {
    let mut url = Url::parse(url).map_err(Failure::failed)?;
    // The listener may be published under another port.
    let _ = url.set_port(Some(at.port()));
    Ok(Asked { url, at })
}

/// A listener on every address is asked on this machine's own.
fn here(listen: SocketAddr) -> SocketAddr {
    let address = match listen.ip() {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    };
    SocketAddr::new(address, listen.port())
}

/// Asks at the first place that answers.
async fn ask(places: &[Asked], node: &NodeId, ca: Option<&str>) -> Told {
    let mut said = "it is not there".to_owned();
    for place in places {
        match ask_at(place, ca).await {
            Ok((ready, text)) => return Told { node: node.to_string(), at: place.at.to_string(), ready, said: text },
            Err(error) => said = format!("no answer at {}: {error}", place.at),
        }
    }
    let at = places.first().map(|place| place.at.to_string()).unwrap_or_default();
    Told { node: node.to_string(), at, ready: false, said }
}

async fn ask_at(place: &Asked, ca: Option<&str>) -> Result<(bool, String), String> {
    let builder = Client::builder().no_proxy().timeout(PATIENCE);
    let builder = place.url.domain().iter().fold(builder, |builder, name| builder.resolve(name, place.at));
    let trusted = ca.map_or_else(|| Ok(Vec::new()), |pem| Certificate::from_pem_bundle(pem.as_bytes()));
    let builder = match (trusted.map_err(|error| causes(&error))?, place.url.scheme()) {
        // What the system trusts.
        (trusted, "https") if trusted.is_empty() => builder,
        (trusted, _) => builder.tls_certs_only(trusted),
    };
    let client = builder.build().map_err(|error| causes(&error))?;
    let answer = client.get(place.url.clone()).send().await.map_err(|error| causes(&error.without_url()))?;
    let ready = answer.status().is_success();
    let text = answer.text().await.map_err(|error| causes(&error.without_url()))?;
    Ok((ready, text.trim().chars().take(300).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn nodes_are_asked_on_this_machine_and_an_origin_by_the_names_of_its_certificate() {
        let text = r#"
            [origin]
            listen = "0.0.0.0:7070"
            url = ["https://origin-1.test:443", "https://10.0.0.2:7070"]
            tls = { certificate = "file:a", key = "file:b" }
            [regions.fra]
            latitude = 1
            longitude = 1
            [edges.fra-1]
            region = "fra"
            listen = "0.0.0.0:80"
            admin = "[::]:9080"
        "#;
        let settings = Settings::from_text(text, Path::new("atoll.toml"), [], []).unwrap();
        let places = |node: &str| {
            let places = where_is(&settings, &node.parse().unwrap(), "readyz").unwrap();
            places.into_iter().map(|place| format!("{} at {}", place.url, place.at)).collect::<Vec<_>>()
        };

        assert_eq!(all(&settings), [NodeId::Origin, NodeId::Edge("fra-1".parse().unwrap())]);
        let at = "127.0.0.1:7070";
        assert_eq!(
            places("origin"),
            [format!("https://origin-1.test:7070/readyz at {at}"), format!("https://10.0.0.2:7070/readyz at {at}")]
        );
        assert_eq!(places("edge/fra-1"), ["http://[::1]:9080/readyz at [::1]:9080"]);
        assert!(where_is(&settings, &"dns/ns-1".parse().unwrap(), "readyz").is_err());
        assert!("fra-1".parse::<NodeId>().is_err() && "edge/".parse::<NodeId>().is_err());
    }
}
