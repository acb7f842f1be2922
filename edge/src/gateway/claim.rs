//! What this edge fetches for all edges of its region. As long as its fill runs the claim is renewed, so that an edge which
//! dies holds nobody up for long; and when the fill has ended, well or not, nobody waits any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::tier::{CLAIM, Claim, Tier, UrlName, Variant};

/// How long others wait for a body whose head has come: it may be endless.
const BODY: Duration = Duration::from_millis(500);

/// For how long nobody waits for who fetches what could not be shared.
const PASS_FOR: Duration = Duration::from_secs(2);

/// A claim that may be given.
#[derive(Debug)]
pub(crate) struct Claimed {
    url: UrlName,
    variant: Variant,
    claim: Claim,
    /// Where it was given. Dropped with the last who holds it, which ends the renewing.
    held: Option<watch::Sender<State>>,
}

/// How far the fill is that it is held for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// The upstream has not answered.
    #[default]
    Asked,
    /// It has, and the body comes.
    Answered,
    /// What comes can't be shared, or takes too long.
    Useless,
    /// A value was written.
    Settled,
}

impl Claimed {
    /// Names a claim anew; none where there is no randomness.
    pub(crate) fn new(url: UrlName, variant: Variant) -> Option<Self> {
        let mut bytes = [0; 8];
        getrandom::fill(&mut bytes).ok()?;
        let claim = Claim(format!("{:016x}", u64::from_be_bytes(bytes)));
        Some(Self { url, variant, claim, held: None })
    }

    pub(crate) fn claim(&self) -> &Claim {
        &self.claim
    }

    /// It was given, or may have been: it is renewed until it is dropped, and given up then.
    pub(crate) fn hold(mut self, tier: Arc<Tier>) -> Arc<Self> {
        let (held, state) = watch::channel(State::Asked);
        let (url, variant, claim) = (self.url, self.variant.clone(), self.claim.clone());
        tokio::spawn(renew(tier, url, variant, claim, state));
        self.held = Some(held);
        Arc::new(self)
    }

    /// The upstream has answered with what may be stored.
    pub(crate) fn is_answered(&self) {
        self.tell(State::Answered);
    }

    /// What comes can't be shared.
    pub(crate) fn is_useless(&self) {
        self.tell(State::Useless);
    }

    /// A value was written, and the claim given up with it.
    pub(crate) fn is_settled(&self) {
        self.tell(State::Settled);
    }

    fn tell(&self, state: State) {
        if let Some(held) = &self.held {
            held.send_replace(state);
        }
    }
}

/// Renews a claim until whoever holds it lets go, or what it waits for is not worth waiting for.
async fn renew(tier: Arc<Tier>, url: UrlName, variant: Variant, claim: Claim, mut state: watch::Receiver<State>) {
    let mut patience: Option<Instant> = None;
    loop {
        let next = Instant::now() + CLAIM / 3;
        let until = patience.map_or(next, |patience| patience.min(next));
        let changed = timeout_at(until, state.changed()).await;
        let now = *state.borrow_and_update();
        match (changed, now) {
            (_, State::Settled) => return,
            (Ok(Err(_)), _) | (_, State::Useless) => break,
            (Ok(Ok(())), State::Answered) => patience = Some(Instant::now() + BODY),
            (Err(_), _) if patience.is_some_and(|patience| Instant::now() >= patience) => break,
            // One that is gone can't be renewed: whoever asks next claims anew.
            (Err(_), _) => {
                let _ = tier.renew(&url, &variant, &claim).await;
            }
            (Ok(Ok(())), State::Asked) => {}
        }
    }
    // Where that fails, it ends by itself.
    let _ = tier.give_up(&url, &variant, &claim, Some(PASS_FOR)).await;
}
