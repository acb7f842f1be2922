//! What the follower has applied: the network, the purge table, and which version each site shows.
//! The hot path reads one immutable [`View`]; the purge table inside it changes in place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use config::Network;
use follow::{Apply, NotUnderstood, Vitals};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use wire::{
    Alias, Class, ConfigVersion, Digest, Epoch, Event, Fact, FilePath, LiveEdge, PurgeTable, Question, SiteName, SiteState, State,
    Timestamp,
};

use crate::assets::{Change, Manifests, fetch_ahead};
use crate::gateway::{Asked, Responses};
use crate::metrics::Metrics;
use crate::validity::InForce;

/// How long applying a publish waits for its manifest and first blobs. A purge behind it must not wait longer.
const PREFETCH: Duration = Duration::from_millis(500);

/// Everything that is in force here.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) network: Arc<Network>,
    pub(crate) config: u64,
    pub(crate) purges: Arc<PurgeTable>,
    pub(crate) sites: HashMap<SiteName, SiteView>,
    /// Rises when all that was held had to be dropped: a fill from before may not be stored.
    pub(crate) generation: u64,
    /// The life of the journal that it is of.
    pub(crate) epoch: Epoch,
}

impl View {
    /// Returns what decides which entries are valid.
    pub(crate) fn in_force(&self) -> InForce<'_> {
        InForce { purges: &self.purges, generation: self.generation }
    }
}

/// Which versions a site shows.
#[derive(Clone, Debug)]
pub(crate) struct SiteView {
    /// What `production` points to.
    pub(crate) version: Digest,
    /// The seq that moved it there.
    pub(crate) seq: u64,
    /// Versions whose hashed files stay reachable, the most recently replaced first, each until when.
    pub(crate) recent: Vec<(Digest, Timestamp)>,
    /// Hashed paths whose bytes changed all the same.
    pub(crate) rewritten: HashSet<FilePath>,
}

impl SiteView {
    fn of(site: &SiteState, now: Timestamp) -> Option<Self> {
        let alias = site.aliases.get(&Alias::production())?;
        let recent = site.recent(&alias.version, now);
        let until = |version: &Digest| {
            let left = site.versions.get(version).map_or(0, |known| known.left_at.unwrap_or(known.published_at).as_millis());
            Timestamp::from_millis(left + u64::try_from(wire::KEPT_FOR.as_millis()).unwrap_or(0))
        };
        let rewritten = site.versions.get(&alias.version).map(|known| known.rewritten.iter().cloned().collect());
        Some(Self {
            version: alias.version,
            seq: alias.seq,
            recent: recent.iter().map(|version| (*version, until(version))).collect(),
            rewritten: rewritten.unwrap_or_default(),
        })
    }
}

/// The node's side of following: turns events into a new [`View`].
#[derive(Debug)]
pub(crate) struct Applied {
    view: ArcSwapOption<View>,
    manifests: Arc<Manifests>,
    responses: Arc<Responses>,
    metrics: Arc<Metrics>,
    /// Where what an origin asks waits for its answer.
    questions: mpsc::Sender<Asked>,
    draining: AtomicBool,
    generation: AtomicU64,
    /// What is still fetched ahead for the last switch. The next one ends it, and so does the end of this node.
    ahead: Mutex<Option<AbortOnDropHandle<()>>>,
}

impl Applied {
    pub(crate) fn new(manifests: Arc<Manifests>, responses: Arc<Responses>, metrics: Arc<Metrics>, questions: mpsc::Sender<Asked>) -> Self {
        Self {
            view: ArcSwapOption::empty(),
            manifests,
            responses,
            metrics,
            questions,
            draining: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            ahead: Mutex::default(),
        }
    }

    /// Returns what is in force, once something is.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// What `atoll status` shows.
    fn counts(&self) -> BTreeMap<String, u64> {
        let mut counts = self.metrics.counts();
        counts.insert("second_tier_up".to_owned(), u64::from(self.responses.second.used().up));
        counts
    }

    /// What is in force may name another second tier than before.
    fn adopt(&self) {
        if let Some(view) = self.view() {
            self.responses.second.adopt(&view.network);
        }
    }

    /// Asks the DNS to leave this edge out.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Tells whether the edge is leaving.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Gets the manifests of `versions`, and what readers of `changes` will ask for. Blobs that do not come
    /// in time come behind the switch; a manifest when somebody asks for it.
    async fn prefetch(&self, versions: Vec<Digest>, changes: Vec<Change>) {
        let all = futures_util::future::join_all(versions.into_iter().map(|version| self.manifests.get(version)));
        if changes.is_empty() {
            let _ = tokio::time::timeout(PREFETCH, all).await;
            return;
        }
        let mut ahead = AbortOnDropHandle::new(tokio::spawn(fetch_ahead(Arc::clone(&self.manifests), changes)));
        let _ = tokio::time::timeout(PREFETCH, futures_util::future::join(all, &mut ahead)).await;
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
    }
}

/// Returns what was published and what is shown from now on, each with what its site has shown so far.
fn changes(before: &HashMap<SiteName, SiteView>, after: &HashMap<SiteName, SiteView>, events: &[Event]) -> Vec<Change> {
    let change = |site: &SiteName, to: Digest| Change { to, from: before.get(site).map(|view| view.version) };
    let published = events.iter().filter_map(|event| match &event.fact {
        Fact::VersionPublished { site, version, .. } => Some(change(site, *version)),
        _ => None,
    });
    let shown = after.iter().map(|(site, view)| change(site, view.version));
    let mut seen = HashSet::new();
    published.chain(shown).filter(|change| change.from != Some(change.to) && seen.insert(change.to)).collect()
}

fn read_network(version: Option<&ConfigVersion>, seq: u64) -> Result<(Arc<Network>, u64), NotUnderstood> {
    let version = version.ok_or_else(|| NotUnderstood { seq, why: "there is no configuration".to_owned() })?;
    let network =
        Network::from_json(&version.network).map_err(|complaints| NotUnderstood { seq: version.seq, why: complaints.to_string() })?;
    Ok((Arc::new(network), version.number))
}

fn changes_view(event: &Event) -> bool {
    matches!(event.fact, Fact::VersionPublished { .. } | Fact::AliasMoved { .. } | Fact::VersionRetired { .. } | Fact::ConfigChanged { .. })
}

fn site_views(sites: &BTreeMap<SiteName, SiteState>) -> HashMap<SiteName, SiteView> {
    let now = Timestamp::now();
    sites.iter().filter_map(|(name, site)| Some((name.clone(), SiteView::of(site, now)?))).collect()
}

impl Apply for Applied {
    async fn load(&self, state: &State, drop_all: bool) -> Result<(), NotUnderstood> {
        let (network, config) = read_network(state.config.as_ref(), state.position.seq)?;
        let sites = site_views(&state.sites);
        // A node that starts has no readers yet.
        let changes = self.view().map(|view| changes(&view.sites, &sites, &[])).unwrap_or_default();
        self.prefetch(sites.values().map(|site| site.version).collect(), changes).await;
        if drop_all {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        let purges = Arc::new(state.purges.clone());
        let generation = self.generation.load(Ordering::Acquire);
        self.view.store(Some(Arc::new(View { network, config, purges, sites, generation, epoch: state.position.epoch })));
        if drop_all {
            self.responses.clear();
        }
        self.adopt();
        Ok(())
    }

    async fn apply(&self, state: &State, events: &[Event]) -> Result<(), NotUnderstood> {
        let Some(view) = self.view() else { return self.load(state, false).await };
        // Purges wait for nothing else.
        events.iter().for_each(|event| view.purges.hear(event));
        let now = Timestamp::now();
        for event in events.iter().filter(|event| event.fact.class() == Class::Purge) {
            self.metrics.purge_seconds.observe(now.since(event.at).as_secs_f64());
        }
        if events.iter().any(changes_view) {
            let (network, config) = if state.config.as_ref().is_some_and(|version| version.number == view.config) {
                (Arc::clone(&view.network), view.config)
            } else {
                read_network(state.config.as_ref(), state.position.seq)?
            };
            let sites = site_views(&state.sites);
            let published = events
                .iter()
                .filter_map(|event| if let Fact::VersionPublished { version, .. } = &event.fact { Some(*version) } else { None });
            let changes = changes(&view.sites, &sites, events);
            self.prefetch(published.chain(sites.values().map(|site| site.version)).collect(), changes).await;
            self.manifests.keep_only(sites.values().flat_map(|site| site.recent.iter().map(|(version, _)| *version).chain([site.version])));
            let purges = Arc::clone(&view.purges);
            self.view.store(Some(Arc::new(View { network, config, purges, sites, generation: view.generation, epoch: view.epoch })));
            self.adopt();
        }
        Ok(())
    }

    fn live(&self, _live: &[LiveEdge]) {}

    fn asked(&self, questions: Vec<Question>) {
        for question in questions {
            if let Err(error) = self.questions.try_send(Asked::now(question)) {
                tracing::debug!("a question stays without an answer: {error}");
            }
        }
    }

    fn vitals(&self) -> Vitals {
        Vitals { draining: self.is_draining(), load: 0.0, counts: self.counts() }
    }

    fn heartbeat(&self) -> Duration {
        self.view.load().as_ref().map_or(Duration::from_secs(1), |view| view.network.heartbeat)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn showing(rows: &[(&str, &str)]) -> HashMap<SiteName, SiteView> {
        let view = |version: &str| SiteView { version: digest(version), seq: 1, recent: Vec::new(), rewritten: HashSet::new() };
        rows.iter().map(|(site, version)| (site.parse().unwrap(), view(version))).collect()
    }

    fn published(site: &str, version: &str) -> Event {
        let fact = Fact::VersionPublished { site: site.parse().unwrap(), version: digest(version), files: 1, bytes: 1, rewritten: vec![] };
        Event { seq: 1, at: Timestamp::from_millis(0), actor: "test".to_owned(), fact }
    }

    #[test]
    fn what_is_published_or_shown_anew_is_fetched_ahead_once_beside_what_was_shown() {
        let change = |to: &str, from: Option<&str>| Change { to: digest(to), from: from.map(digest) };
        let before = showing(&[("www", "one"), ("docs", "same")]);

        let committed = changes(&before, &before, &[published("www", "two"), published("docs", "same"), published("new", "first")]);
        let moved = changes(&before, &showing(&[("www", "two"), ("docs", "same")]), &[published("www", "two")]);

        assert_eq!(committed, [change("two", Some("one")), change("first", None)]);
        assert_eq!(moved, [change("two", Some("one"))]);
        assert!(changes(&before, &before, &[]).is_empty());
    }
}
