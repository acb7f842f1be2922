//! A site is published while an origin is killed, or while the store for its blobs fails or is slow: each publish succeeds
//! or says why not, none is ever seen in halves, and purges are untouched by any of it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::outcome::Outcome;
use super::pages::{Ended, Site, look_at, read_pages};
use super::stage::Stage;
use super::{Name, PAUSE, READERS, Settings, audit};
use crate::chance::Chance;
use crate::engines::Fault;

/// Readers of pages at each edge.
const PAGE_READERS: usize = 2;

/// No answer of a cache takes longer: the store is none of its business.
const MOST: Duration = Duration::from_secs(1);

/// Within which time after the start of a publish an origin is killed.
const WITHIN_MS: u64 = 600;

/// What is done to those who take a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The origin that it was sent to is killed.
    OriginKilled,
    /// The store answers 500, now and then and then always.
    StoreFails,
    /// The store takes its time.
    StoreSlow,
}

pub(super) async fn run(settings: &Settings, drill: Name, harm: Harm) -> Result<Outcome> {
    let mut stage = Stage::set(settings, drill).await?;
    let site = Site::of(&stage.world)?;
    let mut tally = Tally::default();
    tally.must(site.publish().await?, "before any harm");
    stage.read(READERS, PAUSE);
    stage.purge(settings.calls());
    for edge in 0..stage.world.edges.len() {
        for number in 0..PAGE_READERS {
            let seed = u64::try_from(edge * PAGE_READERS + number)?;
            stage.also(read_pages(Arc::clone(&site), Arc::clone(&stage.scene), edge, seed));
        }
    }
    let begun = Instant::now();
    match harm {
        Harm::OriginKilled => kill_origins(settings, &mut stage, &site, &mut tally).await?,
        Harm::StoreFails => fail_store(settings, &stage, &site, &mut tally).await?,
        Harm::StoreSlow => slow_store(settings, &stage, &site, &mut tally).await?,
    }
    let took = begun.elapsed();
    tally.must(site.publish().await?, "after all harm");
    stage.world.wait_until_all_follow().await?;
    stage.end_load().await?;
    judge(&mut stage, &site, harm).await?;
    stage.complaints.extend(tally.wrong);
    stage.notes.push(format!("{} publishes within {took:.1?}: {} succeeded, {} failed and said why", tally.all, tally.done, tally.failed));
    stage.notes.extend(tally.said.into_iter().map(|said| format!("one said: {said}")));
    stage.close().await
}

/// Of two origins the one is killed again and again to which publishes are sent first.
async fn kill_origins(settings: &Settings, stage: &mut Stage, site: &Site, tally: &mut Tally) -> Result<()> {
    let mut chance = Chance::new(7);
    for _ in 0..settings.pick(8, 3) {
        let after = Duration::from_millis(chance.below(WITHIN_MS));
        let origin = stage.world.origin(0)?;
        let kill = async {
            tokio::time::sleep(after).await;
            origin.kill()
        };
        let (ended, killed) = tokio::join!(site.publish(), kill);
        killed?;
        tally.may(ended?);
        tally.must(site.publish().await?, "while the other origin was alone");
        stage.world.start_origin(0).await?;
        stage.world.wait_until_all_follow().await?;
    }
    Ok(())
}

async fn fail_store(settings: &Settings, stage: &Stage, site: &Site, tally: &mut Tally) -> Result<()> {
    let store = stage.world.beside.store()?;
    for one_of in settings.pick(vec![20, 8, 4, 3, 2], vec![8, 3]) {
        store.set(Fault::Fails(one_of));
        tally.may(site.publish().await?);
    }
    store.set(Fault::Fails(1));
    tally.must_not(site.publish().await?, "with a store that always fails");
    store.set(Fault::None);
    tally.note_harm(store.harmed());
    Ok(())
}

async fn slow_store(settings: &Settings, stage: &Stage, site: &Site, tally: &mut Tally) -> Result<()> {
    let store = stage.world.beside.store()?;
    for delay_ms in settings.pick(vec![50, 200, 1000, 3000], vec![50, 300]) {
        store.set(Fault::Delays(Duration::from_millis(delay_ms)));
        tally.may(site.publish().await?);
    }
    store.set(Fault::None);
    tally.note_harm(store.harmed());
    Ok(())
}

async fn judge(stage: &mut Stage, site: &Site, harm: Harm) -> Result<()> {
    let (versions, wrong) = look_at(site, &stage.scene, &stage.world.control).await?;
    stage.complaints.extend(wrong);
    let pages = site.pages.reads();
    if pages.faults > 0 {
        stage.complaints.push(format!("{} pages were older than they must be: {}", pages.faults, pages.examples.join("; ")));
    }
    if pages.binding == 0 {
        stage.complaints.push("no page was read behind a publish: nothing was checked".to_owned());
    }
    stage.complaints.extend(audit::of_answers(&stage.scene.record.reads(), None, MOST));
    let refused = stage.scene.record.refusals();
    if harm != Harm::OriginKilled && refused > 0 {
        stage.complaints.push(format!("{refused} purges were refused, which need no store"));
    }
    stage.notes.push(format!(
        "{} pages read, {} of them behind a promise, {} failed; {versions} versions are listed, each was looked at as a whole",
        pages.all, pages.binding, pages.failed
    ));
    Ok(())
}

/// What became of the publishes.
#[derive(Debug, Default)]
struct Tally {
    all: u64,
    done: u64,
    failed: u64,
    /// The first that a failure said.
    said: Option<String>,
    wrong: Vec<String>,
}

impl Tally {
    /// A publish may fail, if it says why.
    fn may(&mut self, ended: Ended) {
        self.all += 1;
        match ended {
            Ended::Everywhere | Ended::NotEverywhere => self.done += 1,
            Ended::Failed(said) => {
                self.failed += 1;
                if !is_clear(&said) {
                    self.wrong.push(format!("a publish failed and did not say clearly why: {said}"));
                }
                self.said.get_or_insert(said);
            }
        }
    }

    /// A publish must be everywhere.
    fn must(&mut self, ended: Ended, when: &str) {
        if ended != Ended::Everywhere {
            self.wrong.push(format!("a publish {when} is not everywhere: {ended:?}"));
        }
        self.may(ended);
    }

    /// A publish can't have succeeded.
    fn must_not(&mut self, ended: Ended, when: &str) {
        if !matches!(ended, Ended::Failed(_)) {
            self.wrong.push(format!("a publish {when} says that it was done"));
        }
        self.may(ended);
    }

    fn note_harm(&mut self, harmed: u64) {
        if harmed == 0 {
            self.wrong.push("no call to the store was harmed: nothing was checked".to_owned());
        }
    }
}

/// Whether a failure is one that a command reports, with a reason behind it.
fn is_clear(said: &str) -> bool {
    said.strip_prefix("exit code Some(2): ").is_some_and(|reason| !reason.is_empty() && !reason.contains("panicked"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publish_that_failed_without_a_word_or_succeeded_where_it_could_not_is_named() {
        let failed = |said: &str| Ended::Failed(said.to_owned());
        let wrong = |ended: Ended| {
            let mut tally = Tally::default();
            tally.may(ended);
            tally.wrong.len()
        };
        assert_eq!((wrong(Ended::Everywhere), wrong(failed("exit code Some(2): 503: the store is away"))), (0, 0));
        for said in ["exit code Some(2): ", "exit code Some(101): thread panicked", "exit code None: killed"] {
            assert_eq!(wrong(failed(said)), 1, "{said}");
        }
        let mut tally = Tally::default();
        tally.must_not(Ended::NotEverywhere, "");
        tally.must(Ended::NotEverywhere, "");
        tally.note_harm(0);
        assert_eq!(tally.wrong.len(), 3);
    }
}
