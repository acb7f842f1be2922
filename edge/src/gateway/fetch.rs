//! Runs a fill: one fetch, its response judged by its head, its bytes handed to all who wait, and an
//! entry stored where nothing that happened meanwhile forbids it (P4, P8).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use http::{HeaderMap, Method, StatusCode};
use tokio::sync::oneshot;
use tracing::Instrument as _;
use wire::Tag;

use super::compress::{self, may_compress};
use super::entry::{Content, Entry, Head};
use super::fill_table::Begun;
use super::fills::{Fill, Progress};
use super::flow::Flow;
use super::job::{Job, Start, date_it};
use super::key::CacheKey;
use super::lookup::Trouble;
use super::parts;
use super::second::{Brought, bring};
use super::slices;
use super::upstream::{Answer, Call, is_trouble};
use crate::edge::Edge;
use crate::message::ByteStream;
use crate::refuse::Refusal;
use crate::rules::{NotStored, fields, update};
use crate::validity::{Proof, Said, may_renew, renewed_at};

/// A body up to this size is compressed before it is stored, so that the first hit has it: it takes a few
/// milliseconds. A larger one is compressed behind it.
const CODED_AT_ONCE: usize = 256 << 10;

/// What the request that leads a fill gets of it.
pub(crate) enum Led {
    /// A response that flows, for this request alone or for others too.
    Flow(Arc<Head>, ByteStream),
    /// What was stored is right, and whether it is stored still.
    Entry(Arc<Entry>, bool),
    /// The second tier had it: it is in the memory tier now.
    Stored,
    /// A response that is not stored.
    Direct(Answer, NotStored),
    /// No response came.
    Failed(Refusal),
}

/// Ends a fill however its task ends.
struct Ending {
    edge: Arc<Edge>,
    key: CacheKey,
    fill: Arc<Fill>,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.edge.responses.fills.end(&self.key, &self.fill);
    }
}

/// Starts a fill; it goes on when whoever asked for it leaves.
pub(crate) fn start(edge: &Arc<Edge>, job: Job, fill: Arc<Fill>, before: Option<Arc<Fill>>) -> oneshot::Receiver<Led> {
    let (lead, led) = oneshot::channel();
    let ending = Ending { edge: Arc::clone(edge), key: job.key.clone(), fill: Arc::clone(&fill) };
    let (edge, runtime) = (Arc::clone(edge), edge.runtime.clone());
    let run = async move {
        let ending = ending;
        edge.responses.fills.wait_for_turn(before).await;
        Run { edge: &edge, job, fill: &fill }.run(lead).await;
        drop(ending);
    };
    runtime.spawn(run.instrument(trace::stage!("fill")));
    led
}

struct Run<'a> {
    edge: &'a Arc<Edge>,
    job: Job,
    fill: &'a Arc<Fill>,
}

impl Run<'_> {
    async fn run(mut self, lead: oneshot::Sender<Led>) {
        match bring(self.edge, &mut self.job).await {
            Brought::Fresh | Brought::Elsewhere => {
                self.fill.say(Progress::Stored);
                self.tell(lead, Led::Stored);
                return;
            }
            // What the second tier has is no older than what there was.
            Brought::Old(entry) => self.job.entry = Some(entry),
            Brought::Nothing => {}
        }
        let Some(start) = Start::now(self.edge, &self.job.key) else {
            self.fail(Refusal::NotReady, lead);
            return;
        };
        let begun = Begun { filled_at: start.filled_at, tombstone: start.tombstone };
        self.edge.responses.fills.begin(&self.job.key, self.fill, begun);
        // Validators and bodies of a hard-purged entry are never used again.
        self.job.entry = self.job.entry.take().filter(|entry| !self.job.is_purged(&start.view, &entry.head));
        if let Some(entry) = self.job.entry.take_if(|entry| matches!(entry.content, Content::Parts(_)))
            && let Some(missing) = parts::missing_of_whole(&entry)
            && let Some(whole) = parts::complete(self.edge, &self.job, &entry, missing).await
        {
            let whole = Arc::new(whole);
            // Parts are joined by a strong ETag alone.
            self.fill.say(Progress::Entry(Arc::clone(&whole), Proof::Strong));
            self.tell(lead, Led::Entry(whole, true));
            return;
        }
        let answer = match self.send(self.job.entry.as_deref()).await {
            Ok(answer) => answer,
            Err(refusal) => return self.fail(refusal, lead),
        };
        match self.job.entry.clone() {
            Some(entry) if answer.status == StatusCode::NOT_MODIFIED && entry.head.has_validator() => {
                self.not_modified(&start, &entry, answer, lead).await;
            }
            Some(entry) if is_trouble(answer.status) && self.job.may_stand_in(self.edge, &entry, Trouble::Status) => {
                self.fail(Refusal::UpstreamInTrouble, lead);
            }
            _ => self.response(&start, answer, lead).await,
        }
    }

    async fn send(&self, entry: Option<&Entry>) -> Result<Answer, Refusal> {
        let mut headers = self.job.headers.clone();
        if let Some(entry) = entry {
            fields::drop_own_conditions(&mut headers);
            // Every validator that there is goes along (RFC 9111, 4.3.1).
            if let Some(etag) = entry.head.headers.get(ETAG) {
                headers.insert(IF_NONE_MATCH, etag.clone());
            }
            if let Some(modified) = entry.head.headers.get(LAST_MODIFIED) {
                headers.insert(IF_MODIFIED_SINCE, modified.clone());
            }
        }
        slices::ask_for_first(&self.job.route, &mut headers);
        let answer = self.call(headers).await?;
        slices::join(self.edge, &self.job, answer).await
    }

    async fn call(&self, headers: HeaderMap) -> Result<Answer, Refusal> {
        self.edge.metrics.upstream_requests.inc();
        let fill = Arc::clone(self.fill);
        let inform = Box::new(move |status, headers: &HeaderMap| fill.inform(status, &fields::interim(headers)));
        let retries = self.job.route.retry;
        let call = Call { method: Method::GET, target: &self.job.key.target, headers, body: None, inform, may_switch: false, retries };
        self.edge.responses.upstreams.send(&self.job.upstream, call).await
    }

    fn fail(&self, refusal: Refusal, lead: oneshot::Sender<Led>) {
        self.fill.say(Progress::Failed(refusal.clone()));
        // Nobody may wait any more.
        self.tell(lead, Led::Failed(refusal));
    }

    /// A 304 renews the very entry that it was asked for, unless that was purged meanwhile.
    async fn not_modified(self, start: &Start, entry: &Entry, answer: Answer, lead: oneshot::Sender<Led>) {
        let now_view = self.edge.applied.view().unwrap_or_else(|| Arc::clone(&start.view));
        let other_tag = answer.headers.get(ETAG).is_some_and(|etag| entry.head.headers.get(ETAG) != Some(etag));
        if other_tag || !may_renew(&entry.head.provenance, self.job.key.place(), now_view.in_force()) {
            return self.fetch_whole(start, lead).await;
        }
        let mut received = answer.headers.clone();
        date_it(&mut received);
        let received = update::by_304(&entry.head.headers, &received);
        match renewed(self.edge, &self.job, start, entry, Said::NotModified, answer.headers) {
            Ok(renewed) => {
                let renewed = Arc::new(renewed);
                self.job.store(self.edge, start, &renewed, Some(entry));
                self.fill.say(Progress::Entry(Arc::clone(&renewed), Proof::by_304(entry.head.has_strong_etag())));
                self.tell(lead, Led::Entry(renewed, true));
            }
            Err(reason) => {
                // It says now that it must not be stored: this request alone gets it, and as it is now.
                if reason.is_of_response() {
                    self.edge.responses.invalidate(&self.job.key);
                }
                self.fill.say(Progress::NotShared);
                let mut head = entry.head.clone();
                head.headers = received;
                self.tell(lead, Led::Entry(Arc::new(entry.with_head(head)), false));
            }
        }
    }

    async fn fetch_whole(mut self, start: &Start, lead: oneshot::Sender<Led>) {
        self.job.entry = None;
        match self.send(None).await {
            Ok(answer) => self.response(start, answer, lead).await,
            Err(refusal) => self.fail(refusal, lead),
        }
    }

    /// Ends the fill, before whoever leads it has all of what it brought: what that client asks next is not for this fill.
    fn end(&self) {
        self.edge.responses.fills.end(&self.job.key, self.fill);
    }

    /// Tells the leading request what came of it.
    fn tell(&self, lead: oneshot::Sender<Led>, led: Led) {
        self.end();
        let _ = lead.send(led);
    }

    async fn response(self, start: &Start, mut answer: Answer, lead: oneshot::Sender<Led>) {
        if !fields::is_framed_soundly(&answer.headers) {
            return self.direct(answer, NotStored::Framing, lead);
        }
        let mut headers = answer.headers.clone();
        fields::drop_hop_by_hop(&mut headers);
        date_it(&mut headers);
        let request = self.job.facts(Method::GET, false, start);
        let head = match self.job.judge(self.edge, start, &request, (answer.status, headers), answer.length) {
            Ok(head) => head,
            Err(reason) => return self.direct(answer, reason, lead),
        };
        let most = usize::try_from(self.job.route.max_object.0).unwrap_or(usize::MAX);
        if answer.length.is_some_and(|length| length > most as u64) {
            return self.direct(answer, NotStored::TooLarge, lead);
        }
        if answer.status == StatusCode::PARTIAL_CONTENT && parts::extent(&head).is_none() {
            return self.direct(answer, NotStored::Range, lead);
        }
        if let Some(claim) = &self.job.claim {
            claim.is_answered();
        }
        let head = Arc::new(head);
        self.edge.responses.share_again(&self.job.key);
        let flow = Arc::new(Flow::new(most, &self.edge.responses.flowing));
        let shared = head.terms.is_fresh_on_arrival() && head.status != StatusCode::PARTIAL_CONTENT;
        self.fill.say(if shared { Progress::Shared(Arc::clone(&head), Arc::clone(&flow)) } else { Progress::NotShared });
        // The leader reads from the start on, however fast the upstream is.
        if let Some(body) = flow.read() {
            let _ = lead.send(Led::Flow(Arc::clone(&head), body));
        }
        let excess = answer.excess();
        let Some(last) = self.pump(&mut answer, &flow).await else { return flow.finish(false) };
        // Who has the last byte finds the response stored.
        if !excess.is_there()
            && let Some(body) = flow.whole(&last)
        {
            self.keep(start, &head, body).await;
        }
        self.end();
        let _ = flow.push(last, || {}).await;
        flow.finish(true);
    }

    /// Stores a response whose body is whole.
    async fn keep(&self, start: &Start, head: &Head, body: Bytes) {
        if head.status == StatusCode::PARTIAL_CONTENT {
            return parts::keep(self.edge, &self.job, start, head, body);
        }
        let entry = Arc::new(Entry::whole(head.clone(), body));
        let length = entry.length().unwrap_or_default();
        let coding = compress::coding_for(&self.job.headers)
            .filter(|_| may_compress(head.status, &head.headers, Some(length), self.job.route.compress));
        let at_once = usize::try_from(length).is_ok_and(|length| length <= CODED_AT_ONCE);
        if let Some(coding) = coding.filter(|_| at_once) {
            self.edge.responses.code(&self.job.key, &entry, coding).await;
        }
        self.job.store(self.edge, start, &entry, None);
    }

    /// The key becomes hit-for-miss, so that nobody queues for what can't be shared.
    fn direct(self, answer: Answer, reason: NotStored, lead: oneshot::Sender<Led>) {
        if let Some(claim) = &self.job.claim {
            claim.is_useless();
        }
        if reason.is_of_response() {
            self.edge.responses.pass_for_a_while(&self.job.key);
        }
        self.fill.say(Progress::NotShared);
        self.tell(lead, Led::Direct(answer, reason));
    }

    /// Hands the bytes on, but for the last ones. Returns these where all that were announced came.
    async fn pump(&self, answer: &mut Answer, flow: &Flow) -> Option<Bytes> {
        let mut came = 0;
        let mut held_back = Bytes::new();
        while let Some(chunk) = answer.body.next().await {
            let chunk = chunk.ok()?;
            came += chunk.len() as u64;
            let is_last = answer.length == Some(came);
            let ready = std::mem::replace(&mut held_back, if is_last { chunk.clone() } else { Bytes::new() });
            for bytes in [Some(ready), (!is_last).then_some(chunk)].into_iter().flatten().filter(|bytes| !bytes.is_empty()) {
                let pushed = flow.push(bytes, || {
                    // Too large to be stored: nobody joins from here on, and nobody waits for its slowest reader.
                    self.edge.responses.pass_for_a_while(&self.job.key);
                    self.edge.responses.fills.end(&self.job.key, self.fill);
                });
                pushed.await.ok()?;
            }
        }
        answer.length.is_none_or(|length| length == came).then_some(held_back)
    }
}

/// Returns an entry with the fields that a 304 for it, or a 200 to HEAD, brought (RFC 9111, 4.3.4 and 4.3.5).
/// It counts as fetched at `start` where the upstream said that the body is right at that position (P4).
pub(crate) fn renewed(
    edge: &Edge,
    job: &Job,
    start: &Start,
    entry: &Entry,
    said: Said,
    mut received: HeaderMap,
) -> Result<Entry, NotStored> {
    let start = &Start { filled_at: renewed_at(said, entry.head.provenance.filled_at, start.filled_at), ..start.clone() };
    date_it(&mut received);
    let mut headers = update::by_304(&entry.head.headers, &received);
    // Of the body that is stored, whose framing no longer matters.
    headers.remove(CONTENT_LENGTH);
    let request = job.facts(Method::GET, false, start);
    let mut head = job.judge(edge, start, &request, (entry.head.status, headers), entry.head.length)?;
    head.tags = union(&entry.head.tags, &head.tags);
    head.provenance.slots = job.slots(&start.view, &head.tags);
    if said == Said::Head {
        head.started_boot = entry.head.started_boot;
    }
    Ok(entry.with_head(head))
}

pub(crate) fn union(old: &[Tag], new: &[Tag]) -> Arc<[Tag]> {
    let mut tags: Vec<_> = old.iter().chain(new).cloned().collect();
    tags.sort_unstable();
    tags.dedup();
    tags.into()
}
