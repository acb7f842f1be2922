//! Why a URL is answered as it is: what the next request for it would get here, and from what.

use std::sync::Arc;

use config::{Rule, WhenFenced};
use follow::boottime;
use http::{HeaderMap, Method};
use serde::Serialize;
use wire::{Matched, UrlScope};

use crate::assets::{Resolved, resolve};
use crate::edge::Edge;
use crate::gateway::{CacheKey, Client, Content, Entry, Found, Moment, Scheme, find, upstream_headers};
use crate::normalise::Ask;
use crate::rules::Wishes;

/// What one edge says of one URL.
#[derive(Debug, Serialize)]
pub(crate) struct Explanation {
    edge: String,
    region: String,
    /// The host and target that rules and keys are made of.
    url: String,
    /// Whether the lease holds, and how far the edge has come.
    leased: bool,
    applied: u64,
    config: u64,
    #[serde(flatten)]
    answered_by: AnsweredBy,
}

#[derive(Debug, Serialize)]
#[serde(tag = "by", rename_all = "lowercase")]
enum AnsweredBy {
    Nothing {
        why: &'static str,
    },
    Site {
        site: String,
        version: Option<String>,
        leads_to: String,
        digest: Option<String>,
        moved_at_seq: Option<u64>,
    },
    Route {
        route: String,
        upstream: String,
        key: String,
        second_tier: String,
        next_request: String,
        when_fenced: String,
        variants: Vec<Variant>,
    },
}

/// One stored variant.
#[derive(Debug, Serialize)]
struct Variant {
    status: u16,
    /// The request fields that pick it, as they were.
    selected_by: Vec<String>,
    /// The length of the whole body, where it is known, and whether all of it is here.
    length: Option<u64>,
    is_whole: bool,
    /// What it takes in memory.
    bytes: usize,
    codings: Vec<&'static str>,
    etag: Option<String>,
    age_s: u64,
    lifetime_s: u64,
    fresh_for_s: i64,
    stale_while_revalidate_s: u64,
    stale_if_error_s: u64,
    disconnected_s: u64,
    tags: Vec<String>,
    filled_at: u64,
    tier: &'static str,
    purged_by: Option<String>,
    settings_changed: bool,
}

/// Explains a URL; the scheme is taken as http.
pub(crate) async fn explain(edge: &Arc<Edge>, url: &UrlScope) -> Explanation {
    let standing = edge.lease.standing();
    let answered_by = match edge.applied.view() {
        None => AnsweredBy::Nothing { why: "this edge has not loaded its configuration yet" },
        Some(view) => match view.network.rule_for(&url.host, url.target.path()) {
            None => AnsweredBy::Nothing { why: "no site or route answers for this host: 421" },
            Some(Rule::Site(site)) => by_site(edge, url, site, view.sites.get(&site.name)).await,
            Some(Rule::Route(route)) => by_route(edge, url, &view, route),
        },
    };
    let config = edge.applied.view().map_or(0, |view| view.config);
    Explanation {
        edge: edge.node().name.to_string(),
        region: edge.node().region.to_string(),
        url: url.to_string(),
        leased: standing.holds(),
        applied: standing.applied,
        config,
        answered_by,
    }
}

async fn by_site(edge: &Edge, url: &UrlScope, site: &config::Site, view: Option<&crate::applied::SiteView>) -> AnsweredBy {
    let mut answer = ("nothing has been published yet: 404".to_owned(), None);
    if let Some(view) = view {
        answer = match (edge.manifests.get(view.version).await, url.target.decoded_path()) {
            (Ok(manifest), Some(path)) => match resolve(&manifest, &path) {
                Resolved::File(file) => {
                    (format!("{} ({} bytes, {})", file.path, file.size, file.media_type), Some(file.digest.to_string()))
                }
                Resolved::Folder => (format!("a redirect to {path}/"), None),
                Resolved::Former(path) => (format!("{path}, if a version of the last 24 hours has it, else 404"), None),
                Resolved::Nothing(page) => (format!("404, with {}", page.map_or("no page of its own", |page| page.path.as_str())), None),
            },
            (Err(error), _) => (format!("503: its manifest can't be had: {error}"), None),
            (_, None) => ("404: the path is not text".to_owned(), None),
        };
    }
    let (leads_to, digest) = answer;
    AnsweredBy::Site {
        site: site.name.to_string(),
        version: view.map(|view| view.version.to_string()),
        leads_to,
        digest,
        moved_at_seq: view.map(|view| view.seq),
    }
}

fn by_route(edge: &Edge, url: &UrlScope, view: &crate::applied::View, route: &config::Route) -> AnsweredBy {
    let key = CacheKey { scheme: Scheme::Http, host: url.host.clone(), target: route.keyed(&url.target) };
    let stored = edge.responses.stored(&key);
    let moment = Moment { boot: boottime(), standing: edge.lease.standing(), generation: view.generation };
    let ask = Ask {
        method: Method::GET,
        host: url.host.clone(),
        authority: url.host.to_string(),
        target: url.target.clone(),
        headers: HeaderMap::new(),
    };
    let plain = Client { scheme: Scheme::Http, addresses: vec![] };
    let headers =
        view.network.upstreams.get(&route.upstream).map(|upstream| upstream_headers(&ask, &plain, route, upstream)).unwrap_or_default();
    let found = find(stored.as_deref(), route, view.in_force(), key.place(), &headers, &Wishes::default(), &moment);
    let next_request = match &found {
        Found::Fresh(_) => "hit".to_owned(),
        Found::Stale(_) => "stale".to_owned(),
        Found::StaleWhileRevalidate(_, why) => format!("stale ({}), with a refresh in the background", why.as_str()),
        Found::Revalidate(_, why) => format!("revalidated ({})", why.as_str()),
        Found::Nothing(why) => format!("miss ({})", why.as_str()),
        Found::Refuse => "503 (fenced)".to_owned(),
    };
    let variants = stored.iter().flat_map(|stored| &stored.variants).map(|entry| variant(entry, view, route, &key, &moment)).collect();
    AnsweredBy::Route {
        route: route.name.to_string(),
        upstream: route.upstream.to_string(),
        key: key.to_string(),
        second_tier: edge.responses.second.describe(),
        next_request,
        when_fenced: match route.when_fenced {
            WhenFenced::Revalidate => "revalidate".to_owned(),
            WhenFenced::Refuse => "refuse".to_owned(),
            WhenFenced::Serve => "serve".to_owned(),
            WhenFenced::ServeFor(span) => format!("serve for {span:?}"),
        },
        variants,
    }
}

fn variant(entry: &Entry, view: &crate::applied::View, route: &config::Route, key: &CacheKey, moment: &Moment) -> Variant {
    let head = &entry.head;
    let age_s = head.age(moment.boot).as_secs();
    let lifetime_s = head.terms.lifetime.as_secs();
    let said =
        |value: &Option<Vec<u8>>| value.as_ref().map_or_else(|| "(absent)".to_owned(), |value| String::from_utf8_lossy(value).into_owned());
    let fields = head.selection.fields.iter().map(|(name, value)| format!("{name}: {}", said(value)));
    let cookies = head.selection.cookies.iter().map(|(name, value)| format!("cookie {name}: {}", said(value)));
    Variant {
        status: head.status.as_u16(),
        selected_by: fields.chain(cookies).collect(),
        length: entry.length(),
        is_whole: matches!(entry.content, Content::Whole(_)),
        bytes: entry.weight(),
        codings: entry.codings.made().map(|coded| coded.coding.as_str()).collect(),
        etag: head.etag().map(str::to_owned),
        age_s,
        lifetime_s,
        fresh_for_s: i64::try_from(lifetime_s).unwrap_or(i64::MAX) - i64::try_from(age_s).unwrap_or(i64::MAX),
        stale_while_revalidate_s: head.terms.stale_while_revalidate.as_secs(),
        stale_if_error_s: head.terms.stale_if_error.as_secs(),
        disconnected_s: head.terms.disconnected.as_secs(),
        tags: head.tags.iter().map(ToString::to_string).collect(),
        filled_at: head.provenance.filled_at,
        tier: "l1",
        purged_by: match head.provenance.matched(key.place(), view.in_force()) {
            Matched::Nothing => None,
            Matched::Soft(seq) => Some(format!("soft purge {seq}")),
            Matched::Hard(seq) => Some(format!("hard purge {seq}")),
        },
        settings_changed: head.provenance.settings != route.settings,
    }
}
