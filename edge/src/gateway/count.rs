//! How much of what is stored a purge would take: counted beside the hit path, only when an origin asks, one question
//! at a time.

use std::sync::Arc;
use std::time::Duration;

use config::Rule;
use follow::boottime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use wire::{Counted, PurgeProbe, Question, QuestionAnswer};

use super::entry::Entry;
use super::key::CacheKey;
use crate::applied::View;
use crate::edge::Edge;
use crate::memory::{HeldKey, Memory};
use crate::validity::Validity;

/// Questions that wait for the one that is being answered. Beyond it the origin goes on without an answer.
pub(crate) const QUESTIONS: usize = 16;

/// How long after it was heard a question is still answered. Nobody waits for its answer as long as that, and going over
/// all that is stored is work.
const AWAITED: Duration = Duration::from_secs(60);

/// How long an origin may take to hear an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// A question that waits for its answer.
#[derive(Debug)]
pub(crate) struct Asked {
    question: Question,
    /// CLOCK_BOOTTIME at which it was heard.
    heard: Duration,
}

impl Asked {
    pub(crate) fn now(question: Question) -> Self {
        Self { question, heard: boottime() }
    }

    /// Tells whether anybody may still wait for its answer.
    fn is_awaited(&self, now: Duration) -> bool {
        now.saturating_sub(self.heard) < AWAITED
    }
}

/// Answers what is asked until it is stopped, one question at a time; those are left out for which nobody waits any more.
pub(crate) async fn answer_questions(edge: Arc<Edge>, mut asked: mpsc::Receiver<Asked>, stop: CancellationToken) {
    let answering = async {
        while let Some(asked) = asked.recv().await {
            if asked.is_awaited(boottime()) {
                answer(&edge, asked.question).await;
            }
        }
    };
    tokio::select! {
        () = answering => {}
        () = stop.cancelled() => {}
    }
}

async fn answer(edge: &Edge, question: Question) {
    let Some(view) = edge.applied.view() else { return };
    let (memory, id) = (Arc::clone(&edge.memory), question.id);
    let Ok(counted) = tokio::task::spawn_blocking(move || count(&memory, &view, &question)).await else { return };
    let answer = QuestionAnswer { follower: edge.node().name.clone(), counted };
    let sent = edge.origins.send(|client, url| client.post(format!("{url}/v1/questions/{id}")).timeout(PATIENCE).json(&answer)).await;
    if let Err(error) = sent {
        // Who asked goes on without it.
        tracing::debug!(id, "failed to answer a question: {error}");
    }
}

/// Goes over all that is stored. Nobody who reads or stores waits for it.
fn count(memory: &Memory, view: &View, question: &Question) -> Counted {
    let probe = view.purges.probe(&question.owner, &question.scopes);
    let mut all = Counted::default();
    for (key, stored) in memory.responses() {
        let HeldKey::Response(key) = key.as_ref() else { continue };
        let taken = stored.variants.iter().filter(|entry| is_taken(entry, key, view, &probe));
        let of_url = taken.fold(Counted::default(), |sum, entry| sum.and(Counted { urls: 0, entries: 1, bytes: entry.weight() as u64 }));
        all = all.and(Counted { urls: u64::from(of_url.entries > 0), ..of_url });
    }
    all
}

/// Tells whether a purge would take an entry that could be used until then.
fn is_taken(entry: &Entry, key: &CacheKey, view: &View, probe: &PurgeProbe) -> bool {
    let provenance = &entry.head.provenance;
    let may_be_used = || match view.network.rule_for(&key.host, key.target.path()) {
        Some(Rule::Route(route)) => {
            matches!(provenance.validity(key.place(), view.in_force(), route.settings), Validity::Valid | Validity::Stale)
        }
        Some(Rule::Site(_)) | None => false,
    };
    probe.takes(&provenance.slots, &key.host, &key.target) && may_be_used()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_counted_for_who_waits_no_more() {
        let question = Question { id: 1, owner: wire::Owner::default(), scopes: Vec::new() };
        let asked = Asked { question, heard: Duration::from_secs(100) };
        assert!(asked.is_awaited(Duration::from_secs(100)) && asked.is_awaited(Duration::from_millis(159_999)));
        assert!(!asked.is_awaited(Duration::from_secs(160)));
    }
}
