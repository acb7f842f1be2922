//! The URL at which a published site can be seen.

use std::net::{IpAddr, SocketAddr};

use config::{Network, Settings};
use wire::{HostPattern, SiteName};

use crate::control::Control;
use crate::in_force;

/// Returns the URL of a site by the configuration in force, else by the file's. Ports are only in files, so the file
/// counts for them where it is of the same network.
pub(crate) async fn of_site(control: &Control, settings: &Settings, site: &SiteName) -> Option<String> {
    let in_force = in_force::network(control).await;
    let network = in_force.as_ref().unwrap_or(&settings.network);
    let is_of_this_network = network.name == settings.network.name;
    let edge = settings.edges.values().find_map(|edge| edge.listen.first()).filter(|_| is_of_this_network);
    url(network, &network.sites.get(site)?.hosts, edge.copied())
}

fn url(network: &Network, hosts: &[HostPattern], edge: Option<SocketAddr>) -> Option<String> {
    let own = hosts.iter().find_map(|host| if let HostPattern::Exact(host) = host { Some(host.to_string()) } else { None });
    let below = hosts.iter().find_map(|host| if let HostPattern::Below(host) = host { Some(format!("www.{host}")) } else { None });
    let any = || if hosts.contains(&HostPattern::Any) { edge.map(host_of).or_else(|| steered(network)) } else { None };
    let host = own.or_else(any).or(below)?;
    let port = edge.map(|edge| edge.port()).filter(|port| *port != 80).map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("http://{host}{port}/"))
}

/// Where a client of this machine finds an edge.
fn host_of(edge: SocketAddr) -> String {
    match edge.ip() {
        ip if ip.is_loopback() || ip.is_unspecified() => "localhost".to_owned(),
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

/// A name that DNS leads to an edge.
fn steered(network: &Network) -> Option<String> {
    network.zones.values().find_map(|zone| {
        let name = zone.steered.first()?;
        Some(if name == "@" { zone.name.clone() } else { format!("{name}.{}", zone.name) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sites_url_is_its_own_host_or_leads_to_an_edge() {
        let json =
            serde_json::json!({ "zones": { "example.test": { "nameservers": { "ns.example.test": "192.0.2.1" }, "steered": ["www"] } } });
        let network = Network::from_json(&json).unwrap();
        let cases: [(&[&str], Option<&str>, Option<&str>); 7] = [
            (&["*", "docs.test"], Some("127.0.0.1:8081"), Some("http://docs.test:8081/")),
            (&["docs.test"], None, Some("http://docs.test/")),
            (&["*.docs.test"], Some("127.0.0.1:80"), Some("http://www.docs.test/")),
            (&["*.docs.test", "*"], Some("0.0.0.0:8081"), Some("http://localhost:8081/")),
            (&["*"], Some("[2001:db8::1]:80"), Some("http://[2001:db8::1]/")),
            (&["*"], None, Some("http://www.example.test/")),
            (&[], None, None),
        ];
        for (hosts, edge, expected) in cases {
            let hosts: Vec<HostPattern> = hosts.iter().map(|host| host.parse().unwrap()).collect();
            assert_eq!(url(&network, &hosts, edge.map(|edge| edge.parse().unwrap())).as_deref(), expected, "{hosts:?}");
        }
    }
}
