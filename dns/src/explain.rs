//! Says why a client gets the answer it gets: the place found and by what, the regions in their order, and who was left out.

use std::net::IpAddr;

use serde::Serialize;
use wire::{LiveEdge, NodeName, RegionName};

use crate::{
    locate::{Located, Place, Whose, locate},
    name::Name,
    rank::{self, Family, Ranked, Standing},
    records::TYPE_A,
    subnet::Subnet,
    table::Entry,
    view::View,
    zone::{Found, Zone},
};

/// Why an address and a name get what they get.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Explanation {
    /// The name asked about.
    pub(crate) name: String,
    /// The client's address.
    pub(crate) address: IpAddr,
    /// What the zones say to the name.
    pub(crate) says: Says,
    /// Where the client is.
    pub(crate) place: PlaceFound,
    /// The length of the network around the client for which all of this is right.
    pub(crate) scope: u8,
    /// The regions, the first choice first.
    pub(crate) regions: Vec<RegionRank>,
    /// The edges that could not be chosen.
    pub(crate) left_out: Vec<LeftOut>,
    /// What is answered to A and to AAAA, before rotation; empty for a name that is not steered.
    pub(crate) answers: Vec<Answered>,
}

/// What the zones say to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Says {
    /// The nearest live region answers.
    Steered,
    /// Its answer is the same for every client.
    Fixed,
    /// It stands for another name; that one's explanation says more.
    Alias,
    /// No zone of this server holds such a name.
    NoSuchName,
    /// This text can't be a name in DNS.
    NotAName,
}

/// A client's place, and by what it was found.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub(crate) enum PlaceFound {
    /// The operator's table gave it to a region.
    Table {
        /// That region.
        region: RegionName,
    },
    /// The place file knows coordinates.
    Coordinates {
        /// Degrees north.
        latitude: f64,
        /// Degrees east.
        longitude: f64,
    },
    /// The place file knows a country, and distances are from its middle.
    Country {
        /// Its ISO 3166 code.
        code: String,
        /// Degrees north.
        latitude: f64,
        /// Degrees east.
        longitude: f64,
    },
    /// The address is private or reserved, and says nothing: a resolver's own would stand in.
    Bogon,
    /// Neither table nor place file know it.
    Nothing,
}

/// A region in the order for this client.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct RegionRank {
    /// The region.
    pub(crate) region: RegionName,
    /// How far it is; absent where the client's place is not known.
    pub(crate) distance_km: Option<f64>,
    /// How many of its edges are live.
    pub(crate) live_edges: usize,
}

/// An edge that was not chosen from, whatever the client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct LeftOut {
    /// The edge.
    pub(crate) edge: NodeName,
    /// Its region.
    pub(crate) region: RegionName,
    /// Why.
    pub(crate) because: Because,
}

/// Why an edge is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Because {
    /// It asked to be.
    Draining,
    /// It has no room; it serves only when nobody has.
    Full,
    /// The configuration has no such region.
    UnknownRegion,
}

/// What one record type gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Answered {
    /// `A` or `AAAA`.
    pub(crate) kind: &'static str,
    /// The region that answers.
    pub(crate) region: RegionName,
    /// Whether that region lives, is full, or is dead like all others.
    pub(crate) standing: &'static str,
    /// The addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Explains what a client at an address gets for a name, as if its resolver had told the whole address.
#[must_use]
pub(crate) fn explain(view: &View, address: IpAddr, name: &str) -> Explanation {
    let address = address.to_canonical();
    let subnet = Subnet::of_client(address);
    let located = locate(&view.network.table, view.places.as_deref(), Some(&subnet), address);
    let ranked = rank::rank(&view.network.regions, &located.place);
    let parsed = Name::from_text(name);
    let zone = parsed.as_ref().and_then(|name| view.zone_of(name));
    let says = match (&parsed, zone) {
        (None, _) => Says::NotAName,
        (_, None) => Says::NoSuchName,
        (Some(name), Some(zone)) => what_zone_says(zone, name),
    };
    let answers = match says {
        Says::Steered => answered(view, &ranked),
        _ => Vec::new(),
    };
    Explanation {
        name: name.to_owned(),
        address,
        says,
        scope: located.scope,
        place: place_found(view, address, located),
        regions: ranked.iter().map(|ranked| region_rank(view, ranked)).collect(),
        left_out: view.live.iter().filter_map(|edge| left_out(view, edge)).collect(),
        answers,
    }
}

fn what_zone_says(zone: &Zone, name: &Name) -> Says {
    match zone.find(name, TYPE_A) {
        Found::Steered(_) => Says::Steered,
        Found::Alias(..) => Says::Alias,
        Found::Records(_) | Found::NoData => Says::Fixed,
        Found::NxDomain => Says::NoSuchName,
    }
}

fn place_found(view: &View, address: IpAddr, located: Located) -> PlaceFound {
    let is_bogon = view.network.table.find(address).entry == Some(&Entry::Bogon);
    match located.place {
        Place::Listed(region) => PlaceFound::Table { region },
        Place::At { latitude, longitude } => PlaceFound::Coordinates { latitude, longitude },
        Place::Country { code, latitude, longitude } => PlaceFound::Country { code, latitude, longitude },
        Place::Unknown if is_bogon || located.whose == Whose::Resolver => PlaceFound::Bogon,
        Place::Unknown => PlaceFound::Nothing,
    }
}

fn region_rank(view: &View, ranked: &Ranked<'_>) -> RegionRank {
    RegionRank {
        region: ranked.region.clone(),
        distance_km: ranked.distance_km,
        live_edges: view.live.iter().filter(|edge| edge.region == *ranked.region).count(),
    }
}

fn left_out(view: &View, edge: &LiveEdge) -> Option<LeftOut> {
    let is_known = view.network.regions.iter().any(|centre| centre.name == edge.region);
    let because = if !is_known {
        Because::UnknownRegion
    } else if !rank::takes_clients(edge) {
        Because::Draining
    } else if !rank::has_room(edge) {
        Because::Full
    } else {
        return None;
    };
    Some(LeftOut { edge: edge.edge.clone(), region: edge.region.clone(), because })
}

fn answered(view: &View, ranked: &[Ranked<'_>]) -> Vec<Answered> {
    let choices = [("A", Family::V4), ("AAAA", Family::V6)].into_iter().filter_map(|(kind, family)| {
        let choice = rank::choose(ranked, &view.live, &view.last_known, family, 0)?;
        Some(Answered {
            kind,
            region: choice.region.clone(),
            standing: match choice.standing {
                Standing::Live => "live",
                Standing::Full => "full",
                Standing::LastKnown => "last_known",
            },
            addresses: choice.addresses,
        })
    });
    choices.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{edge, region, view};

    fn explained(live: Vec<LiveEdge>, address: &str, name: &str) -> Explanation {
        explain(&view(live), address.parse().unwrap(), name)
    }

    #[test]
    fn a_steered_name_tells_the_place_the_order_and_who_was_left_out() {
        let draining = LiveEdge { draining: true, ..edge("fra-1", "fra", "192.0.2.1") };
        let lost = edge("mars-1", "mars", "192.0.2.66");
        let iad = edge("iad-1", "iad", "198.51.100.1");

        let explanation = explained(vec![draining, iad, lost], "192.0.2.7", "www.example.test");

        assert_eq!(explanation.says, Says::Steered);
        assert_eq!((explanation.place, explanation.scope), (PlaceFound::Table { region: region("fra") }, 24));
        let order: Vec<&str> = explanation.regions.iter().map(|rank| rank.region.as_str()).collect();
        assert_eq!(order, ["fra", "iad", "sin"]);
        assert_eq!(explanation.regions[0].distance_km, Some(0.0));
        let reasons: Vec<Because> = explanation.left_out.iter().map(|left_out| left_out.because).collect();
        assert_eq!(reasons, [Because::Draining, Because::UnknownRegion]);
        assert_eq!(explanation.answers.len(), 1);
        assert_eq!((explanation.answers[0].region.as_str(), explanation.answers[0].standing), ("iad", "live"));
    }

    #[test]
    fn names_that_are_not_steered_say_what_they_are() {
        let cases = [
            ("ns1.example.test", Says::Fixed),
            ("alias.example.test", Says::Alias),
            ("no.example.test", Says::NoSuchName),
            ("example.com", Says::NoSuchName),
            ("a..b", Says::NotAName),
        ];
        for (name, says) in cases {
            let explanation = explained(Vec::new(), "8.8.8.8", name);

            assert_eq!((explanation.says, explanation.place), (says, PlaceFound::Nothing), "{name}");
        }
    }

    #[test]
    fn a_private_address_is_called_one() {
        assert_eq!(explained(Vec::new(), "10.1.2.3", "www.example.test").place, PlaceFound::Bogon);
    }

    #[test]
    fn an_explanation_can_be_written_as_json() {
        let json = serde_json::to_value(explained(Vec::new(), "192.0.2.7", "www.example.test")).unwrap();

        assert_eq!(json["place"], serde_json::json!({ "by": "table", "region": "fra" }));
        assert_eq!(json["says"], "steered");
    }
}
