//! What the follower has applied: the network, the purge table, and which version each site shows.
//! The hot path reads one immutable [`View`]; the purge table inside it changes in place.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use config::Network;
use follow::{Apply, NotUnderstood, Vitals};
use wire::{Alias, Class, ConfigVersion, Digest, Event, Fact, FilePath, LiveEdge, PurgeTable, SiteName, SiteState, State, Timestamp};

use crate::assets::Manifests;
use crate::gateway::Responses;
use crate::metrics::Metrics;

/// How long applying a publish waits for its manifest. A purge behind it must not wait longer.
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
    draining: AtomicBool,
    generation: AtomicU64,
}

impl Applied {
    pub(crate) fn new(manifests: Arc<Manifests>, responses: Arc<Responses>, metrics: Arc<Metrics>) -> Self {
        Self {
            view: ArcSwapOption::empty(),
            manifests,
            responses,
            metrics,
            draining: AtomicBool::new(false),
            generation: AtomicU64::new(0),
        }
    }

    /// Returns what is in force, once something is.
    pub(crate) fn view(&self) -> Option<Arc<View>> {
        self.view.load_full()
    }

    /// Asks the DNS to leave this edge out.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Tells whether the edge is leaving.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// What does not come in time is fetched when somebody asks for it.
    async fn prefetch(&self, versions: Vec<Digest>) {
        let all = futures_util::future::join_all(versions.into_iter().map(|version| self.manifests.get(version)));
        let _ = tokio::time::timeout(PREFETCH, all).await;
    }
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
        self.prefetch(sites.values().map(|site| site.version).collect()).await;
        if drop_all {
            self.generation.fetch_add(1, Ordering::AcqRel);
        }
        let purges = Arc::new(state.purges.clone());
        let generation = self.generation.load(Ordering::Acquire);
        self.view.store(Some(Arc::new(View { network, config, purges, sites, generation })));
        if drop_all {
            self.responses.clear();
        }
        Ok(())
    }

    async fn apply(&self, state: &State, events: &[Event]) -> Result<(), NotUnderstood> {
        let Some(view) = self.view() else { return self.load(state, false).await };
        // Purges wait for nothing else.
        for event in events {
            match &event.fact {
                Fact::Purged { owner, mode, scopes } => view.purges.apply(event.seq, owner, *mode, scopes),
                Fact::Unknown { class: Class::Purge, .. } => {
                    let all = [wire::Scope::Unknown(serde_json::Value::Null)];
                    view.purges.apply(event.seq, &wire::Owner::default(), wire::Mode::Hard, &all);
                }
                _ => {}
            }
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
            self.prefetch(published.chain(sites.values().map(|site| site.version)).collect()).await;
            self.manifests.keep_only(sites.values().flat_map(|site| site.recent.iter().map(|(version, _)| *version).chain([site.version])));
            let purges = Arc::clone(&view.purges);
            self.view.store(Some(Arc::new(View { network, config, purges, sites, generation: view.generation })));
        }
        Ok(())
    }

    fn live(&self, _live: &[LiveEdge]) {}

    fn vitals(&self) -> Vitals {
        Vitals { draining: self.is_draining(), load: 0.0, counts: self.metrics.counts() }
    }

    fn heartbeat(&self) -> Duration {
        self.view.load().as_ref().map_or(Duration::from_secs(1), |view| view.network.heartbeat)
    }
}
