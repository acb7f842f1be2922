//! Ranks the regions for a place by great-circle distance, and chooses the addresses of the first that can serve.

use std::{collections::BTreeMap, net::IpAddr};

use wire::{LiveEdge, RegionName};

use crate::locate::Place;

/// An answer holds no more addresses than that: clients try two or three, and a UDP reply stays small.
const MAX_ADDRESSES: usize = 4;

/// The load at which an edge counts as full.
const FULL: f64 = 1.0;

const EARTH_RADIUS_KM: f64 = 6371.0;

/// A region and where it is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Centre {
    pub(crate) name: RegionName,
    pub(crate) latitude: f64,
    pub(crate) longitude: f64,
}

/// A region in its turn, with its distance where that is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Ranked<'v> {
    pub(crate) region: &'v RegionName,
    pub(crate) distance_km: Option<f64>,
}

/// Orders the regions for a place, nearest first; equals and all of an unknown place go by name, so that every node agrees.
pub(crate) fn rank<'v>(regions: &'v [Centre], place: &Place) -> Vec<Ranked<'v>> {
    let (listed, origin) = match place {
        Place::Listed(name) => {
            let centre = regions.iter().find(|centre| centre.name == *name);
            (Some(name), centre.map(|centre| (centre.latitude, centre.longitude)))
        }
        Place::At { latitude, longitude } | Place::Country { latitude, longitude, .. } => (None, Some((*latitude, *longitude))),
        Place::Unknown => (None, None),
    };
    let mut ranked: Vec<Ranked<'v>> = regions
        .iter()
        .map(|centre| Ranked {
            region: &centre.name,
            distance_km: origin.map(|origin| distance_km(origin, (centre.latitude, centre.longitude))),
        })
        .collect();
    ranked.sort_by(|one, other| {
        // What the table says holds also where another region stands in the same place.
        let is_other = |ranked: &Ranked<'_>| Some(ranked.region) != listed;
        let distance = |ranked: &Ranked<'_>| ranked.distance_km.unwrap_or(f64::MAX);
        is_other(one).cmp(&is_other(other)).then(distance(one).total_cmp(&distance(other))).then(one.region.cmp(other.region))
    });
    ranked
}

/// Returns the length of the shortest way over the globe (haversine), places given in degrees.
fn distance_km(one: (f64, f64), other: (f64, f64)) -> f64 {
    let (one_latitude, other_latitude) = (one.0.to_radians(), other.0.to_radians());
    let half_latitude = (other_latitude - one_latitude) / 2.0;
    let half_longitude = (other.1 - one.1).to_radians() / 2.0;
    let chord = half_latitude.sin().powi(2) + one_latitude.cos() * other_latitude.cos() * half_longitude.sin().powi(2);
    // Rounding may lift it a hair above 1 for antipodes, where asin has no value.
    2.0 * EARTH_RADIUS_KM * chord.clamp(0.0, 1.0).sqrt().asin()
}

/// The kind of address that a question asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    pub(crate) fn includes(self, address: &IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// How a chosen region stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It has live edges with room.
    Live,
    /// Every region is full, so that the nearest serves.
    Full,
    /// None is alive anywhere: these were its addresses when it last was. A wrong answer beats none.
    LastKnown,
}

/// The region that was chosen, and its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice<'v> {
    pub(crate) region: &'v RegionName,
    pub(crate) standing: Standing,
    pub(crate) addresses: Vec<IpAddr>,
}

/// The addresses that each region last had, for when nothing lives.
pub(crate) type LastKnown = BTreeMap<RegionName, Vec<IpAddr>>;

/// Chooses the first region that has addresses of a family: with room, else alive, else as last known. A region
/// without addresses of that family counts as one without live edges, so that no name exists for some clients only.
pub(crate) fn choose<'v>(
    ranked: &[Ranked<'v>],
    live: &[LiveEdge],
    last_known: &LastKnown,
    family: Family,
    rotation: usize,
) -> Option<Choice<'v>> {
    for standing in [Standing::Live, Standing::Full, Standing::LastKnown] {
        for &Ranked { region, .. } in ranked {
            let mut addresses = match standing {
                Standing::Live => of_edges(live, region, has_room),
                Standing::Full => of_edges(live, region, takes_clients),
                Standing::LastKnown => last_known.get(region).cloned().unwrap_or_default(),
            };
            addresses.retain(|address| family.includes(address));
            if !addresses.is_empty() {
                let addresses = pick(addresses, rotation);
                return Some(Choice { region, standing, addresses });
            }
        }
    }
    None
}

/// Says whether an edge may be answered at all.
pub(crate) fn takes_clients(edge: &LiveEdge) -> bool {
    !edge.draining
}

/// Says whether an edge is neither draining nor full.
pub(crate) fn has_room(edge: &LiveEdge) -> bool {
    takes_clients(edge) && edge.load < FULL
}

fn of_edges(live: &[LiveEdge], region: &RegionName, fit: fn(&LiveEdge) -> bool) -> Vec<IpAddr> {
    live.iter().filter(|edge| edge.region == *region && fit(edge)).flat_map(|edge| edge.answers.iter().copied()).collect()
}

/// Takes at most four, beginning elsewhere each time, so that the first address, which most clients take, changes.
fn pick(mut addresses: Vec<IpAddr>, rotation: usize) -> Vec<IpAddr> {
    addresses.sort_unstable();
    addresses.dedup();
    let start = rotation.checked_rem(addresses.len()).unwrap_or(0);
    addresses.rotate_left(start);
    addresses.truncate(MAX_ADDRESSES);
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{centres, edge, region};

    fn names(ranked: &[Ranked<'_>]) -> Vec<String> {
        ranked.iter().map(|ranked| ranked.region.to_string()).collect()
    }

    /// Asks for the region of a client that the table gives to fra: then come iad and sin.
    fn chosen(live: &[LiveEdge], family: Family) -> Option<(String, Standing)> {
        let centres = centres();
        let ranked = rank(&centres, &Place::Listed(region("fra")));
        let last_known = LastKnown::from([(region("iad"), vec!["198.51.100.9".parse().unwrap()])]);
        choose(&ranked, live, &last_known, family, 0).map(|choice| (choice.region.to_string(), choice.standing))
    }

    #[test]
    fn distances_are_those_on_a_globe() {
        let cases = [
            ((50.11, 8.68), (38.95, -77.45), 6_540.0),
            ((1.35, 103.99), (50.11, 8.68), 10_270.0),
            ((10.0, 179.0), (10.0, -179.0), 219.0),
            ((90.0, 0.0), (-90.0, 77.0), 20_015.0),
            ((5.0, 5.0), (5.0, 5.0), 0.0),
        ];
        for (one, other, expected) in cases {
            let distance = distance_km(one, other);
            assert!((distance - expected).abs() < 60.0, "{one:?} to {other:?}: {distance}");
        }
    }

    #[test]
    fn the_listed_region_comes_first_and_then_the_nearest_to_it() {
        let centres = centres();
        let cases = [
            (Place::Listed(region("iad")), ["iad", "fra", "sin"]),
            (Place::Listed(region("sin")), ["sin", "fra", "iad"]),
            (Place::At { latitude: 35.7, longitude: 139.8 }, ["sin", "fra", "iad"]),
            (Place::At { latitude: 40.0, longitude: -100.0 }, ["iad", "fra", "sin"]),
            (Place::Unknown, ["fra", "iad", "sin"]),
        ];
        for (place, expected) in cases {
            assert_eq!(names(&rank(&centres, &place)), expected, "{place:?}");
        }
    }

    #[test]
    fn the_listed_region_comes_first_beside_another_in_the_same_place() {
        let mut centres = centres();
        centres.push(Centre { name: region("abc"), ..centres[0].clone() });

        assert_eq!(names(&rank(&centres, &Place::Listed(region("fra"))))[..2], ["fra", "abc"]);
    }

    #[test]
    fn a_region_serves_until_it_drains_is_full_or_is_dead() {
        let fra = edge("fra-1", "fra", "192.0.2.1");
        let iad = edge("iad-1", "iad", "198.51.100.1");
        let sin = edge("sin-1", "sin", "203.0.113.1 2001:db8::1");
        let draining = LiveEdge { draining: true, ..fra.clone() };
        let full = LiveEdge { load: 1.0, ..fra.clone() };
        let full_iad = LiveEdge { load: 1.0, ..iad.clone() };
        let drained_iad = LiveEdge { draining: true, ..iad.clone() };
        let cases = [
            ("all live", vec![fra.clone(), iad.clone(), sin.clone()], "fra", Standing::Live),
            ("draining", vec![draining.clone(), iad.clone(), sin.clone()], "iad", Standing::Live),
            ("dead", vec![iad.clone(), sin.clone()], "iad", Standing::Live),
            ("full", vec![full.clone(), iad.clone()], "iad", Standing::Live),
            ("two dead", vec![sin.clone()], "sin", Standing::Live),
            ("all full", vec![full, full_iad], "fra", Standing::Full),
            ("all draining", vec![draining, drained_iad], "iad", Standing::LastKnown),
            ("all dead", vec![], "iad", Standing::LastKnown),
        ];
        for (what, live, name, standing) in cases {
            assert_eq!(chosen(&live, Family::V4), Some((name.to_owned(), standing)), "{what}");
        }
        assert_eq!(chosen(&[fra, sin], Family::V6), Some(("sin".to_owned(), Standing::Live)));
        assert_eq!(chosen(&[iad], Family::V6), None);
    }

    #[test]
    fn at_most_four_addresses_are_given_and_they_rotate() {
        let addresses: Vec<IpAddr> = (0..6).map(|last| IpAddr::from([192, 0, 2, last])).collect();

        for rotation in 0..12 {
            let picked = pick(addresses.clone(), rotation);

            assert_eq!(picked.len(), 4);
            assert_eq!(picked[0], addresses[rotation % 6]);
        }
        assert_eq!(pick(vec![addresses[0], addresses[0]], usize::MAX), addresses[..1]);
    }
}
