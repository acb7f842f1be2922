//! Work that one origin does at a time: a lease on it, and a number that only rises, by which whatever the work changes can
//! refuse an origin that was paused and does not know that another one does its work by now.

use std::sync::Arc;
use std::time::Duration;

use engine::{Redis, Script, Trouble};

use crate::clock::boottime;

/// Who may do which work. Without a shared engine there is one origin, and it may do all.
#[derive(Clone, Debug)]
pub(crate) struct Sole(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    redis: Redis,
    network: String,
    /// The random name of this life of this origin.
    holder: String,
    take: Script,
    let_go: Script,
}

/// A piece of work that this origin may do for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    fence: u64,
    /// Until when, by this origin's own clock; `None` for as long as it runs.
    until: Option<Duration>,
}

impl Held {
    /// Decides about an answer: the lease counts from before it was asked for, so that it ends here first.
    fn since(asked_at: Duration, span: Duration, fence: u64) -> Self {
        Self { fence, until: Some(asked_at.saturating_add(span)) }
    }

    /// Tells whether it is held at `now`. It may end right after: what the work changes must check the number.
    pub(crate) fn is_held(&self, now: Duration) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Returns the number that rises with each holder.
    pub(crate) fn fence(&self) -> u64 {
        self.fence
    }
}

impl Sole {
    /// There is no other origin.
    pub(crate) fn alone() -> Self {
        Self(None)
    }

    /// Any number of origins share a Redis.
    pub(crate) fn shared(redis: Redis, network: &str) -> Self {
        let holder = holder();
        let (take, let_go) = (Script::new(include_str!("scripts/take.lua")), Script::new(include_str!("scripts/let_go.lua")));
        Self(Some(Arc::new(Shared { redis, network: network.to_owned(), holder, take, let_go })))
    }

    /// Takes on a piece of work for `span`, or goes on with it; `None` where another origin does it.
    pub(crate) async fn take(&self, work: &str, span: Duration) -> Result<Option<Held>, Trouble> {
        let Some(shared) = &self.0 else { return Ok(Some(Held { fence: 0, until: None })) };
        let asked_at = boottime();
        let ([holder, fence], ms) = (shared.keys(work), span.as_millis().to_string());
        let arguments = [shared.holder.as_bytes(), ms.as_bytes()];
        let taken: String = shared.redis.run(&shared.take, &[holder.as_bytes(), fence.as_bytes()], &arguments).await?;
        Ok(taken.parse().ok().map(|fence| Held::since(asked_at, span, fence)))
    }

    /// Lets another origin do it, unless one does already.
    pub(crate) async fn let_go(&self, work: &str) -> Result<(), Trouble> {
        let Some(shared) = &self.0 else { return Ok(()) };
        let [holder, _] = shared.keys(work);
        let _: u64 = shared.redis.run(&shared.let_go, &[holder.as_bytes()], &[shared.holder.as_bytes()]).await?;
        Ok(())
    }
}

impl Shared {
    fn keys(&self, work: &str) -> [String; 2] {
        let key = format!("{{{}}}:atoll-lease:{work}", self.network);
        [key.clone(), format!("{key}:fence")]
    }
}

fn holder() -> String {
    let mut bytes = [0; 16];
    #[expect(clippy::expect_used, reason = "a system without randomness can't run an origin")]
    getrandom::fill(&mut bytes).expect("the system has randomness");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(s: u64) -> Duration {
        Duration::from_secs(s)
    }

    #[test]
    fn work_is_held_from_before_it_was_asked_for_and_ends_by_itself() {
        let held = Held::since(s(100), s(30), 7);
        assert_eq!((held.is_held(s(129)), held.is_held(s(130)), held.fence()), (true, false, 7));
    }

    #[tokio::test]
    async fn an_origin_alone_may_do_all_for_ever() {
        let held = Sole::alone().take("snapshots", s(1)).await.unwrap().unwrap();
        assert!(held.is_held(Duration::MAX));
    }
}
