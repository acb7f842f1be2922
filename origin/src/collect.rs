//! Collects what nobody needs any more: versions beyond a site's limit are retired, and blobs that
//! no version needs are deleted in two steps, condemned by an event first and deleted after a grace.
//!
//! A copy that is condemned and a commit that relies on it can't both be: each is appended on the condition that the other
//! was not (the streams of blobs and of versions). So whoever collects needs no lock that other origins see; several that
//! collect at once do the same work twice, and no harm.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use wire::{Digest, Fact, Manifest, State, Timestamp, VERSIONS};

use crate::blobs::{BlobError, Name, Stored, Verdict};
use crate::core::Core;
use crate::decide;
use crate::fault::Fault;
use crate::sole::Sole;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(600);

/// How long a blob stays that no version needs: a publish that sends it may still be under way.
const UNUSED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long a condemned blob stays: an edge may be fetching it for a version that was just retired.
const GRACE: Duration = Duration::from_secs(3600);

/// Digests in one event.
const IN_ONE_EVENT: usize = 1000;

/// Blobs that are condemned in one round, in one append of about a megabyte. The next round takes more.
const IN_ONE_ROUND: usize = 15 * IN_ONE_EVENT;

/// How often a round decides what to condemn: versions are published meanwhile.
const ATTEMPTS: usize = 5;

/// What only one origin does at a time, and how long it stays with that origin when nothing is heard of it.
const WORK: &str = "blobs";
const STAYS_FOR: Duration = Duration::from_secs(2 * 600 + 60);

/// Collects every now and then until the origin stops.
pub(crate) async fn run(core: Arc<Core>, sole: Sole) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.tick().await;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if let Err(fault) = core.tidy().await {
            tracing::warn!(%fault, "failed to store who follows; trying again later");
        }
        forget(&core);
        // Several that collect at once would be slow, not wrong; so its number is shown to nobody.
        let is_ours = sole.take(WORK, STAYS_FOR).await.is_ok_and(|held| held.is_some());
        if is_ours && let Err(fault) = collect(&core, Timestamp::now()).await {
            tracing::warn!(%fault, "failed to collect unused blobs; trying again later");
        }
    }
}

/// Forgets what whoever collects has condemned: this happens within its grace, on every origin.
fn forget(core: &Core) {
    let verdict = Verdict::of(&core.journal.state());
    for digest in core.blobs.forget_condemned(&verdict) {
        core.variants.delete(&digest);
    }
}

/// Does one round of all steps.
pub(crate) async fn collect(core: &Core, now: Timestamp) -> Result<(), Fault> {
    retire(core, now).await?;
    // In a folder no commit needs a blob between the look at what is needed and the end of the round.
    let _held = if core.blobs.is_shared() { None } else { Some(core.collecting.lock().await) };
    // Before what is there is listed: what was deleted by then, and is off this list, is off the listing too.
    let before = Verdict::of(&core.journal.state());
    let stored = core.blobs.stored().await?;
    let mut needed = Needed::default();
    condemn(core, &mut needed, &stored, &before, now).await?;
    // By what was condemned before this round, so that nothing is condemned and deleted in one.
    delete(core, &needed, &stored, &before, now).await
}

async fn retire(core: &Core, now: Timestamp) -> Result<(), Fault> {
    let network = core.network();
    let rounds: Vec<_> = {
        let state = core.journal.state();
        let sites = state.sites.iter().filter_map(|(name, site)| Some((name, site, network.sites.get(name)?)));
        sites
            .map(|(name, site, settings)| {
                let old = decide::retirable(site, settings.keep_versions, now);
                let facts: Vec<_> = old.into_iter().map(|version| Fact::VersionRetired { site: name.clone(), version }).collect();
                // An alias that moves meanwhile may come to point to one of them.
                let aliases: Vec<_> = site.aliases.iter().map(|(alias, at)| (format!("alias:{name}/{alias}"), at.seq)).collect();
                (facts, aliases)
            })
            .collect()
    };
    for (facts, aliases) in rounds.into_iter().filter(|(facts, _)| !facts.is_empty()) {
        core.append("origin", facts, aliases).await?;
    }
    Ok(())
}

/// Every blob that a version needs, its manifest included.
#[derive(Debug, Default)]
struct Needed {
    read: BTreeSet<Digest>,
    blobs: HashSet<Digest>,
}

impl Needed {
    /// Reads the manifests of the versions that are new to it.
    async fn catch_up(&mut self, core: &Core, versions: BTreeSet<Digest>) -> Result<(), Fault> {
        for version in versions {
            if self.read.contains(&version) {
                continue;
            }
            let text = core.blobs.read_whole(version).await.map_err(unreadable)?;
            let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| Fault::Storage(error.to_string()))?;
            self.blobs.insert(version);
            self.blobs.extend(manifest.files.into_iter().map(|file| file.digest));
            self.read.insert(version);
        }
        Ok(())
    }
}

/// A manifest that is lost is no fault of whoever asks.
fn unreadable(error: BlobError) -> Fault {
    match error {
        BlobError::Away(..) => Fault::from(error),
        lost => Fault::Storage(lost.to_string()),
    }
}

async fn condemn(core: &Core, needed: &mut Needed, stored: &[Stored], before: &Verdict, now: Timestamp) -> Result<(), Fault> {
    let mut attempt = 1;
    loop {
        let (versions, published) = versions(&core.journal.state());
        needed.catch_up(core, versions).await?;
        let unused = unused(stored, &needed.blobs, before, now);
        if unused.is_empty() {
            return Ok(());
        }
        let facts = unused.chunks(IN_ONE_EVENT).map(|digests| Fact::BlobsCondemned { digests: digests.to_vec() }).collect();
        match core.append("origin", facts, vec![published, before.mark.unmoved()]).await {
            Ok(_) => return Ok(()),
            // Where somebody else condemned or deleted meanwhile, only another round knows what is there.
            Err(Fault::Conflict(_)) if Verdict::of(&core.journal.state()).mark != before.mark => return Ok(()),
            Err(Fault::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
            Err(fault) => return Err(fault),
        }
    }
}

/// Returns all versions, and the condition that none was published since.
fn versions(state: &State) -> (BTreeSet<Digest>, (String, u64)) {
    let published = state.control.as_ref().map_or(0, |control| control.head_of(VERSIONS));
    (state.manifests(), (VERSIONS.to_owned(), published))
}

/// Decides which copies are to be condemned: of a blob that is needed all but the newest, and of any other blob all; once
/// they are old enough. One that is condemned already is none to be kept.
fn unused(stored: &[Stored], needed: &HashSet<Digest>, verdict: &Verdict, now: Timestamp) -> Vec<Digest> {
    let left: Vec<_> = stored.iter().filter(|copy| !verdict.condemns(&copy.name)).collect();
    let mut kept: HashMap<Digest, (Timestamp, Name)> = HashMap::new();
    for copy in left.iter().filter(|copy| needed.contains(&copy.name.digest)) {
        let this = (copy.stored_at, copy.name);
        let newest = kept.entry(copy.name.digest).or_insert(this);
        *newest = this.max(*newest);
    }
    let is_kept = |copy: &Stored| kept.get(&copy.name.digest).is_some_and(|(_, name)| *name == copy.name);
    let old = left.into_iter().filter(|copy| !is_kept(copy) && now.since(copy.stored_at) >= UNUSED_FOR);
    old.map(|copy| copy.name.id()).take(IN_ONE_ROUND).collect()
}

/// Deletes what was condemned long enough ago, and in a folder is still not needed: there a commit lifts it.
async fn delete(core: &Core, needed: &Needed, stored: &[Stored], before: &Verdict, now: Timestamp) -> Result<(), Fault> {
    let names: BTreeMap<Digest, Name> = stored.iter().map(|copy| (copy.name.id(), copy.name)).collect();
    let is_needed = |id: &Digest| !core.blobs.is_shared() && needed.blobs.contains(id);
    let due = before.condemned().iter().filter(|(id, at)| now.since(**at) >= GRACE && !is_needed(id));
    let due: Vec<_> = due.map(|(id, _)| *id).collect();
    for digests in due.chunks(IN_ONE_EVENT) {
        // What is not there any more was deleted in a round that did not come to its end.
        let gone: Vec<_> = digests.iter().filter_map(|id| names.get(id)).copied().collect();
        core.blobs.delete(gone.clone()).await?;
        gone.iter().for_each(|name| core.variants.delete(&name.digest));
        core.append("origin", vec![Fact::BlobsDeleted { digests: digests.to_vec() }], Vec::new()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Blobs;
    use crate::blobs::suite::Home;
    use crate::custody::Custody;
    use crate::journal::Journal;
    use crate::lease_book::Leases;
    use crate::variants::Variants;
    use config::Settings;
    use tempfile::TempDir;
    use tokio_util::sync::CancellationToken;
    use wire::{Alias, FileEntry, SiteName};

    const HOUR: u64 = 3_600_000;

    /// An origin over a folder, and one over a bucket.
    async fn each() -> [(TempDir, Core); 2] {
        let (folder, bucket) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let in_folder = core(folder.path(), Blobs::open(&folder.path().join("blobs")).await.unwrap()).await;
        let in_bucket = core(bucket.path(), Home::bucket().open().await).await;
        [(folder, in_folder), (bucket, in_bucket)]
    }

    async fn core(folder: &std::path::Path, blobs: Blobs) -> Core {
        let settings =
            Settings::from_text("[sites.www]\nhosts = [\"*\"]\nkeep_versions = 1\n", &folder.join("atoll.toml"), [], []).unwrap();
        let journal = Journal::open(folder, false).unwrap();
        let variants = Variants::open(&folder.join("variants")).unwrap();
        let kept = (journal.clone(), Leases::embedded(journal), Custody::own());
        let core = Core::new(settings, kept, Arc::new(blobs), variants, crate::core::Own::default(), CancellationToken::new());
        let network = core.settings.network_json.clone();
        core.append("test", vec![Fact::ConfigChanged { number: 1, network }], Vec::new()).await.unwrap();
        core
    }

    fn is_condemned(core: &Core, digest: &Digest) -> bool {
        Verdict::of(&core.journal.state()).condemns(&core.blobs.get(digest).unwrap().name)
    }

    fn nothing_is_condemned(core: &Core) -> bool {
        Verdict::of(&core.journal.state()).condemned().is_empty()
    }

    async fn store(core: &Core, text: &'static str) -> Digest {
        let (digest, mark) = (Digest::of(text.as_bytes()), Verdict::of(&core.journal.state()).mark);
        core.blobs.put(digest, text.into(), Some(mark)).await.unwrap();
        digest
    }

    /// Publishes a version with one file, and returns the digests of its manifest and its file.
    async fn publish(core: &Core, text: &'static str) -> (Digest, Digest) {
        let digest = store(core, text).await;
        let path = "index.html".parse().unwrap();
        let file = FileEntry { path, digest, size: text.len() as u64, media_type: "text/html".to_owned(), headers: Default::default() };
        let manifest = Manifest::new(vec![file]).unwrap();
        let version = manifest.version();
        let mark = Verdict::of(&core.journal.state()).mark;
        core.blobs.put(version, manifest.canonical().into(), Some(mark)).await.unwrap();
        let site: SiteName = "www".parse().unwrap();
        let published = Fact::VersionPublished { site: site.clone(), version, files: 1, bytes: manifest.bytes(), rewritten: vec![] };
        let moved = Fact::AliasMoved { site, alias: Alias::production(), version, back: false };
        core.append("test", vec![published, moved], Vec::new()).await.unwrap();
        (version, digest)
    }

    fn after(hours: u64) -> Timestamp {
        Timestamp::from_millis(Timestamp::now().as_millis() + hours * HOUR)
    }

    #[tokio::test]
    async fn blobs_of_an_abandoned_publish_are_condemned_after_a_day_and_deleted_after_the_grace() {
        for (_folder, core) in each().await {
            let (_, needed) = publish(&core, "needed").await;
            let abandoned = store(&core, "abandoned").await;

            collect(&core, after(23)).await.unwrap();
            assert!(nothing_is_condemned(&core), "a publish may still be under way");
            collect(&core, after(25)).await.unwrap();
            assert!(is_condemned(&core, &abandoned), "{:?}", core.blobs);
            assert!(core.blobs.read_whole(abandoned).await.is_ok(), "condemned is not deleted");
            collect(&core, after(27)).await.unwrap();

            assert!(core.blobs.read_whole(abandoned).await.is_err() && core.blobs.read_whole(needed).await.is_ok());
            assert!(nothing_is_condemned(&core));
        }
    }

    #[tokio::test]
    async fn versions_beyond_the_limit_are_retired_but_never_what_is_shown_or_one_step_back() {
        for (_folder, core) in each().await {
            let mut versions = Vec::new();
            for text in ["one", "two", "three"] {
                versions.push(publish(&core, text).await.0);
            }

            collect(&core, after(25)).await.unwrap();

            let state = core.journal.state();
            let left: HashSet<Digest> = state.sites.values().flat_map(|site| site.versions.keys().copied()).collect();
            assert_eq!(left, HashSet::from([versions[1], versions[2]]));
        }
    }

    #[tokio::test]
    async fn a_condemned_blob_that_a_version_needs_again_is_not_lost() {
        for (_folder, core) in each().await {
            let digest = store(&core, "again").await;
            collect(&core, after(25)).await.unwrap();
            publish(&core, "again").await;

            collect(&core, after(48)).await.unwrap();

            assert_eq!(core.blobs.read_whole(digest).await.unwrap(), "again");
        }
    }

    #[tokio::test]
    async fn of_a_version_and_what_condemns_its_blobs_only_the_first_is_appended() {
        for (_folder, core) in each().await {
            let digests = vec![store(&core, "unused").await];
            let before = Verdict::of(&core.journal.state());
            let (_, unpublished) = versions(&core.journal.state());
            let condemned = || vec![Fact::BlobsCondemned { digests: digests.clone() }];

            publish(&core, "published meanwhile").await;
            let late = core.append("test", condemned(), vec![unpublished, before.mark.unmoved()]).await;
            assert!(matches!(late, Err(Fault::Conflict(_))));

            let (_, unpublished) = versions(&core.journal.state());
            core.append("test", condemned(), vec![unpublished, before.mark.unmoved()]).await.unwrap();
            let (site, version) = ("www".parse().unwrap(), Digest::of(b"version"));
            let published = Fact::VersionPublished { site, version, files: 0, bytes: 0, rewritten: vec![] };
            let late = core.append("test", vec![published], vec![before.mark.unmoved()]).await;
            assert!(matches!(late, Err(Fault::Conflict(_))));
        }
    }

    #[test]
    fn of_a_needed_blob_the_newest_copy_stays_that_is_not_condemned() {
        let (needed, other) = (Digest::of(b"needed"), Digest::of(b"other"));
        let copy = |digest, number, hours| Stored {
            name: Name::numbered(digest, number),
            size: 1,
            stored_at: Timestamp::from_millis(hours * HOUR),
        };
        let (old, new, newest) = (copy(needed, 1, 1), copy(needed, 2, 2), copy(needed, 3, 3));
        let (unused_old, unused_new) = (copy(other, 1, 1), copy(other, 2, 30));
        let verdict = Verdict::at(7, [newest.name.id()]);
        let now = Timestamp::from_millis(31 * HOUR);

        let found = unused(&[new, newest, unused_new, old, unused_old], &HashSet::from([needed]), &verdict, now);

        assert_eq!(found, [old.name.id(), unused_old.name.id()]);
    }
}
