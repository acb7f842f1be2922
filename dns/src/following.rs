//! What a DNS node does with what it follows: zones and regions from the configuration, the live set
//! from the heartbeat. Each change puts a new view in place; answers never wait.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use config::Network;
use follow::{Apply, NotUnderstood, Vitals};
use tokio::sync::watch;
use wire::{Event, Fact, LiveEdge, State};

use crate::locate::Places;
use crate::metrics::Metrics;
use crate::view::View;

/// The node's side of following.
#[derive(Debug)]
pub(crate) struct Steering {
    view: Arc<ArcSwap<View>>,
    /// One change of the view at a time.
    changing: Mutex<()>,
    heartbeat_ms: AtomicU64,
    config: AtomicU64,
    heard: watch::Sender<bool>,
    metrics: Arc<Metrics>,
}

impl Steering {
    pub(crate) fn new(view: Arc<ArcSwap<View>>, metrics: Arc<Metrics>) -> Self {
        Self {
            view,
            changing: Mutex::new(()),
            heartbeat_ms: AtomicU64::new(1000),
            config: AtomicU64::new(0),
            heard: watch::Sender::new(false),
            metrics,
        }
    }

    /// Returns the number of the configuration in force; 0 before there is one.
    pub(crate) fn config(&self) -> u64 {
        self.config.load(Ordering::Acquire)
    }

    /// Tells whether an origin has told which edges live.
    pub(crate) fn has_heard(&self) -> bool {
        *self.heard.borrow()
    }

    /// Waits until an origin has told which edges live.
    pub(crate) async fn has_heard_who_lives(&self) {
        // It does not end before this.
        let _ = self.heard.subscribe().wait_for(|heard| *heard).await;
    }

    /// Gives clients their places by another database from now on.
    pub(crate) fn set_places(&self, places: Option<Arc<Places>>) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load().with_places(places);
        self.view.store(Arc::new(view));
    }

    fn configure(&self, state: &State) -> Result<(), NotUnderstood> {
        let seq = state.position.seq;
        let version = state.config.as_ref().ok_or_else(|| NotUnderstood { seq, why: "there is no configuration".to_owned() })?;
        let not_understood = |why: String| NotUnderstood { seq: version.seq, why };
        let network = Network::from_json(&version.network).map_err(|complaints| not_understood(complaints.to_string()))?;
        let serial = u32::try_from(version.number).unwrap_or(u32::MAX);
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load().with_network(&network, serial).map_err(|error| not_understood(error.to_string()))?;
        self.view.store(Arc::new(view));
        self.heartbeat_ms.store(u64::try_from(network.heartbeat.as_millis()).unwrap_or(1000), Ordering::Release);
        self.config.store(version.number, Ordering::Release);
        Ok(())
    }
}

impl Apply for Steering {
    async fn load(&self, state: &State, _drop_all: bool) -> Result<(), NotUnderstood> {
        self.configure(state)
    }

    async fn apply(&self, state: &State, events: &[Event]) -> Result<(), NotUnderstood> {
        if events.iter().any(|event| matches!(event.fact, Fact::ConfigChanged { .. })) { self.configure(state) } else { Ok(()) }
    }

    fn live(&self, live: &[LiveEdge]) {
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let view = self.view.load();
        if view.live != live {
            self.view.store(Arc::new(view.with_live(live.to_vec())));
        }
        self.heard.send_replace(true);
    }

    fn vitals(&self) -> Vitals {
        let counts = self.metrics.queries().into_iter().map(|(transport, count)| (format!("queries_{transport}"), count)).collect();
        Vitals { counts, ..Vitals::default() }
    }

    fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.load(Ordering::Acquire))
    }
}
