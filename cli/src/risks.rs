//! What `atoll check` says of a file that is right, and still risks something that its author may not have seen.

use std::net::IpAddr;
use std::time::Duration;

use config::Settings;

/// Returns what is risked, each with its key and the way out.
pub(crate) fn of(settings: &Settings) -> Vec<String> {
    let in_the_clear = settings
        .origin
        .urls
        .iter()
        .filter(|url| is_in_the_clear(url))
        .map(|url| format!("origin.url: whoever is on the way to {url} reads every token: set origin.tls, and say https://"));
    let believed =
        settings.edges.iter().filter(|(_, edge)| edge.trusted_proxies.iter().any(|network| network.prefix_len() == 0)).map(|(name, _)| {
            format!(
                "edges.{name}.trusted_proxies: every client is believed about who it is, and none is limited: name your proxies' networks"
            )
        });
    in_the_clear.chain(believed).chain(hasty(settings)).collect()
}

/// Tells whether `url` leads to another machine without TLS.
fn is_in_the_clear(url: &str) -> bool {
    let Some(authority) = url.strip_prefix("http://") else { return false };
    let Ok(host) = wire::Host::of_authority(authority.split('/').next().unwrap_or_default()) else { return false };
    let host = host.as_str();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    !address.map_or(host == "localhost", |address| address.is_loopback() || address.is_unspecified())
}

/// Who was given an edge's address by the DNS comes back to it for as long as that was to be kept.
fn hasty(settings: &Settings) -> Option<String> {
    let steered = settings.network.zones.values().filter(|zone| !zone.steered.is_empty());
    let longest = steered.max_by_key(|zone| zone.ttl)?;
    let has_gone = settings.drain < longest.ttl && settings.edges.values().any(|edge| !edge.answers.is_empty());
    let shown = |span: Duration| humantime::format_duration(span).to_string();
    has_gone.then(|| {
        format!(
            "drain: an edge that is stopped goes on for {}, and clients keep its address for {} (ttl of zone {}): for the rest they \
             find nobody there; make drain as long, or ttl as short",
            shown(settings.drain),
            shown(longest.ttl),
            longest.name
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn said(text: &str) -> Vec<String> {
        of(&Settings::from_text(text, Path::new("atoll.toml"), [], []).unwrap())
    }

    #[test]
    fn tokens_in_the_clear_are_remarked_on_where_they_leave_the_machine() {
        for (url, risks) in [
            ("http://127.0.0.1:7070", 0),
            ("http://[::1]:7070", 0),
            ("http://localhost:7070", 0),
            ("https://origin.test:7070", 0),
            ("http://origin.test:7070", 1),
            ("http://10.0.0.1:7070", 1),
        ] {
            assert_eq!(said(&format!("[origin]\nurl = \"{url}\"")).len(), risks, "{url}");
        }
    }

    #[test]
    fn who_believes_everybody_is_told() {
        let edge = |network: &str| {
            format!(
                "[regions.fra]\nlatitude = 1\nlongitude = 1\n[edges.fra-1]\nregion = \"fra\"\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\ntrusted_proxies = [\"{network}\"]"
            )
        };
        assert!(said(&edge("10.0.0.0/8")).is_empty());
        for all in ["0.0.0.0/0", "::/0"] {
            assert!(said(&edge(all)).iter().any(|risk| risk.starts_with("edges.fra-1.trusted_proxies: ")), "{all}");
        }
    }

    #[test]
    fn an_edge_that_goes_before_its_address_is_forgotten_is_remarked_on() {
        let text = |drain: &str, answers: &str| {
            format!(
                "drain = \"{drain}\"\n[regions.fra]\nlatitude = 1\nlongitude = 1\n[edges.fra-1]\nregion = \"fra\"\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\nanswers = [{answers}]\n\
                 [zones.\"example.test\"]\nttl = \"20s\"\nsteered = [\"www\"]\nnameservers = {{ \"ns1.example.test\" = [\"192.0.2.1\"] }}"
            )
        };
        assert!(said(&text("20s", "\"192.0.2.2\"")).is_empty());
        assert!(said(&text("5s", "")).is_empty(), "the DNS gives it to nobody");
        let risks = said(&text("5s", "\"192.0.2.2\""));
        assert!(risks.iter().any(|risk| risk.starts_with("drain: ") && risk.contains("20s")), "{risks:?}");
    }
}
