//! Decides whether a stored response may be used now: pure, with the time and the standing of the
//! node as arguments. Every "no" has a name.

use std::sync::Arc;
use std::time::Duration;

use config::{Route, WhenFenced};
use follow::Standing;
use http::HeaderMap;

use super::entry::{Entry, Stored};
use crate::rules::Wishes;
use crate::validity::{InForce, Place, Validity, may_rely};

/// The moment at which a request was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// CLOCK_BOOTTIME.
    pub(crate) boot: Duration,
    pub(crate) standing: Standing,
    /// The history that this node followed then.
    pub(crate) generation: u64,
}

/// What is found for a request.
#[derive(Clone, Debug)]
pub(crate) enum Found {
    /// Serve it.
    Fresh(Arc<Entry>),
    /// Serve it, and fetch a fresh one meanwhile.
    StaleWhileRevalidate(Arc<Entry>, Why),
    /// Serve it, stale as it is: the client takes it so.
    Stale(Arc<Entry>),
    /// Ask the upstream whether it is still right. It may stand in for an error within its window.
    Revalidate(Arc<Entry>, Why),
    /// Fetch.
    Nothing(Why),
    /// The node is fenced and the route refuses then.
    Refuse,
}

/// Why a stored response is not simply served; the word of `Cache-Status`, log and metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Nothing is stored for the URL.
    Miss,
    /// Something is, but not for this request's selecting fields.
    VaryMiss,
    /// It was hard-purged.
    Purged,
    /// It was soft-purged.
    SoftPurged,
    /// The route's settings have changed.
    Settings,
    /// Its lifetime is over.
    Stale,
    /// Only some of it is.
    Partial,
    /// It is to be asked for again on each use.
    NoCache,
    /// The client wishes it newer.
    Wish,
    /// The lease ran out.
    Fenced,
    /// The reader has seen more of the journal than is in force here.
    Behind,
}

impl Why {
    /// Returns the reason's name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Miss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Purged => "purged",
            Self::SoftPurged => "soft-purged",
            Self::Settings => "settings",
            Self::Stale => "stale",
            Self::Partial => "partial",
            Self::NoCache => "no-cache",
            Self::Wish => "request",
            Self::Fenced => "fenced",
            Self::Behind => "behind",
        }
    }

    /// Tells whether what is stored may have been purged without a word of it here: then it stands in for no answer.
    pub(crate) fn is_doubt(self) -> bool {
        matches!(self, Self::Fenced | Self::Behind)
    }
}

/// Decides whether a route answers nothing at the moment: the node is fenced, and the route refuses then (P7).
pub(crate) fn refuses(route: &Route, standing: &Standing) -> bool {
    !standing.holds() && route.when_fenced == WhenFenced::Refuse
}

/// Finds what a request may be answered with. `in_force` is of one view, and no older than the moment.
pub(crate) fn find(
    stored: Option<&Stored>,
    route: &Route,
    in_force: InForce<'_>,
    place: Place<'_>,
    upstream_request: &HeaderMap,
    wishes: &Wishes,
    moment: &Moment,
) -> Found {
    if refuses(route, &moment.standing) {
        return Found::Refuse;
    }
    let Some(stored) = stored else { return Found::Nothing(Why::Miss) };
    let Some(entry) = stored.select(upstream_request) else { return Found::Nothing(Why::VaryMiss) };
    let validity = entry.head.provenance.validity(place, in_force, route.settings);
    match validity {
        Validity::Purged => return Found::Nothing(Why::Purged),
        Validity::OtherSettings => return Found::Nothing(Why::Settings),
        Validity::Valid | Validity::Stale => {}
    }
    if !may_rely(route.when_fenced, &moment.standing) {
        // Without a strong validator a fenced edge fetches in full (P4).
        return if entry.head.has_strong_etag() { Found::Revalidate(Arc::clone(entry), Why::Fenced) } else { Found::Nothing(Why::Fenced) };
    }
    by_freshness(entry, validity, wishes, moment.boot)
}

fn by_freshness(entry: &Arc<Entry>, validity: Validity, wishes: &Wishes, boot: Duration) -> Found {
    let terms = &entry.head.terms;
    let age = entry.head.age(boot);
    let why = match validity {
        Validity::Stale => Why::SoftPurged,
        _ if terms.no_cache => Why::NoCache,
        _ if age < terms.lifetime && wishes.refuse(age, terms.lifetime - age) => return Found::Revalidate(Arc::clone(entry), Why::Wish),
        _ if age < terms.lifetime => return Found::Fresh(Arc::clone(entry)),
        _ => Why::Stale,
    };
    if terms.no_cache {
        return Found::Revalidate(Arc::clone(entry), why);
    }
    let stale_for = stale_for(entry, boot);
    if why == Why::Stale && !terms.must_revalidate && wishes.take_stale(stale_for) {
        return Found::Stale(Arc::clone(entry));
    }
    if stale_for < terms.stale_while_revalidate && !wishes.refuse(age, Duration::MAX) {
        return Found::StaleWhileRevalidate(Arc::clone(entry), why);
    }
    Found::Revalidate(Arc::clone(entry), why)
}

/// How long its lifetime has been over.
fn stale_for(entry: &Entry, boot: Duration) -> Duration {
    entry.head.age(boot).saturating_sub(entry.head.terms.lifetime)
}

/// What an upstream failed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// It says itself that it can't answer: 500, 502, 503, 504.
    Status,
    /// It could not be reached, or did not answer in time.
    Silence,
}

/// Decides whether a stale response may stand in for an answer (RFC 5861, 4; RFC 9111, 4.2.4).
pub(crate) fn may_stand_in(entry: &Entry, trouble: Trouble, boot: Duration) -> bool {
    let terms = &entry.head.terms;
    let window = match trouble {
        Trouble::Status => terms.stale_if_error,
        Trouble::Silence => terms.disconnected.max(terms.stale_if_error),
    };
    stale_for(entry, boot) < window
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{StoreTerms, vary::Selection};
    use crate::validity::Provenance;
    use bytes::Bytes;
    use config::Network;
    use http::StatusCode;
    use wire::{Host, Mode, Owner, PurgeTable, Scope, Subject, Target};

    struct World {
        network: Network,
        purges: PurgeTable,
        host: Host,
        target: Target,
        wishes: Wishes,
    }

    impl World {
        fn new(when_fenced: serde_json::Value) -> Self {
            let network = Network::from_json(&serde_json::json!({
                "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
                "routes": { "r": { "hosts": ["*"], "upstream": "u", "when_fenced": when_fenced } },
            }))
            .unwrap();
            Self {
                network,
                purges: PurgeTable::new([0; 16]),
                host: "h".parse().unwrap(),
                target: "/a".parse().unwrap(),
                wishes: Wishes::default(),
            }
        }

        fn route(&self) -> &Route {
            self.network.routes.values().next().unwrap()
        }

        fn stored(&self, change: impl FnOnce(&mut Entry)) -> Stored {
            let tags = ["t".parse().unwrap()];
            let subject = Subject { owner: &Owner::default(), host: &self.host, sent: &self.target, keyed: None, tags: &tags };
            let terms = StoreTerms {
                lifetime: Duration::from_secs(10),
                initial_age: Duration::ZERO,
                must_revalidate: false,
                stale_while_revalidate: Duration::from_secs(5),
                stale_if_error: Duration::from_secs(60),
                disconnected: Duration::from_secs(90),
                no_cache: false,
                dropped_on_reuse: vec![],
            };
            let head = super::super::entry::Head {
                status: StatusCode::OK,
                headers: HeaderMap::new(),
                length: None,
                selection: Selection::default(),
                terms,
                tags: tags.clone().into(),
                provenance: Provenance { filled_at: 5, generation: 0, settings: self.route().settings, slots: self.purges.slots(&subject) },
                received_boot: Duration::from_secs(100),
                started_boot: Duration::from_secs(100),
            };
            let mut entry = Entry::whole(head, Bytes::new());
            change(&mut entry);
            Stored { variants: vec![Arc::new(entry)] }
        }

        fn find(&self, stored: &Stored, at: u64, fenced_for: Option<u64>) -> String {
            let standing = Standing { applied: 9, fenced_for: fenced_for.map(Duration::from_secs) };
            // The request came in another history than the one that is in force by now: that one counts.
            let moment = Moment { boot: Duration::from_secs(at), standing, generation: 7 };
            let in_force = InForce { purges: &self.purges, generation: 0 };
            let place = Place { host: &self.host, target: &self.target };
            match find(Some(stored), self.route(), in_force, place, &HeaderMap::new(), &self.wishes, &moment) {
                Found::Fresh(_) => "fresh".to_owned(),
                Found::StaleWhileRevalidate(_, why) => format!("serve, {}", why.as_str()),
                Found::Stale(_) => "serve, stale".to_owned(),
                Found::Revalidate(_, why) => format!("ask, {}", why.as_str()),
                Found::Nothing(why) => format!("fetch, {}", why.as_str()),
                Found::Refuse => "refuse".to_owned(),
            }
        }
    }

    #[test]
    fn an_entry_is_fresh_then_usable_then_asked_about() {
        let world = World::new("revalidate".into());
        let stored = world.stored(|_| {});
        assert_eq!(world.find(&stored, 109, None), "fresh");
        assert_eq!(world.find(&stored, 110, None), "serve, stale");
        assert_eq!(world.find(&stored, 114, None), "serve, stale");
        assert_eq!(world.find(&stored, 115, None), "ask, stale");
        let may = |trouble, at| may_stand_in(&stored.variants[0], trouble, Duration::from_secs(at));
        assert!(may(Trouble::Status, 169) && !may(Trouble::Status, 170));
        assert!(may(Trouble::Silence, 199) && !may(Trouble::Silence, 200));
    }

    #[test]
    fn rule_22_a_client_may_wish_it_newer_or_take_it_older() {
        let mut world = World::new("revalidate".into());
        let stored = world.stored(|_| {});
        world.wishes.max_stale = Some(Duration::from_secs(7));
        assert_eq!(world.find(&stored, 117, None), "serve, stale");
        assert_eq!(world.find(&stored, 118, None), "ask, stale");
        let strict = world.stored(|entry| entry.head.terms.must_revalidate = true);
        assert_eq!(world.find(&strict, 117, None), "ask, stale");
        world.wishes = Wishes { max_age: Some(Duration::from_secs(3)), ..Wishes::default() };
        assert_eq!(world.find(&stored, 103, None), "fresh");
        assert_eq!(world.find(&stored, 104, None), "ask, request");
    }

    #[test]
    fn a_purge_after_the_fill_takes_it_and_one_before_does_not() {
        let world = World::new("revalidate".into());
        let stored = world.stored(|_| {});
        world.purges.apply(5, &Owner::default(), Mode::Hard, &[Scope::Tag("t".parse().unwrap())]);
        assert_eq!(world.find(&stored, 100, None), "fresh");
        world.purges.apply(6, &Owner::default(), Mode::Soft, &[Scope::Tag("t".parse().unwrap())]);
        assert_eq!(world.find(&stored, 100, None), "serve, soft-purged");
        world.purges.apply(7, &Owner::default(), Mode::Hard, &[Scope::Tag("t".parse().unwrap())]);
        assert_eq!(world.find(&stored, 100, None), "fetch, purged");
    }

    #[test]
    fn an_entry_of_another_history_is_not_valid() {
        let world = World::new("revalidate".into());
        assert_eq!(world.find(&world.stored(|entry| entry.head.provenance.generation = 1), 100, None), "fetch, purged");
    }

    #[test]
    fn changed_settings_leave_old_entries_invalid() {
        let world = World::new("revalidate".into());
        assert_eq!(world.find(&world.stored(|entry| entry.head.provenance.settings ^= 1), 100, None), "fetch, settings");
    }

    #[test]
    fn p7_a_fenced_edge_does_what_the_route_says() {
        let strong = |world: &World| {
            world.stored(|entry| {
                entry.head.headers.insert("etag", "\"a\"".parse().unwrap());
            })
        };
        let weak = |world: &World| {
            world.stored(|entry| {
                entry.head.headers.insert("etag", "W/\"a\"".parse().unwrap());
            })
        };
        let world = World::new("revalidate".into());
        assert_eq!(world.find(&strong(&world), 100, Some(1)), "ask, fenced");
        assert_eq!(world.find(&weak(&world), 100, Some(1)), "fetch, fenced");
        let world = World::new("refuse".into());
        assert_eq!(world.find(&strong(&world), 100, Some(1)), "refuse");
        let standing = |fenced_for| Standing { applied: 9, fenced_for };
        assert!(refuses(world.route(), &standing(Some(Duration::ZERO))) && !refuses(world.route(), &standing(None)));
        let world = World::new(serde_json::json!({ "serve_for": "1m" }));
        assert_eq!(world.find(&weak(&world), 100, Some(59)), "fresh");
        assert_eq!(world.find(&weak(&world), 100, Some(60)), "fetch, fenced");
    }
}
