//! Collects what nobody needs any more: versions beyond a site's limit are retired, and blobs that
//! no version needs are deleted in two steps, condemned by an event first and deleted after a grace.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use wire::{Digest, Fact, Manifest, Timestamp};

use crate::core::Core;
use crate::decide;
use crate::fault::Fault;

/// How often it looks.
const EVERY: Duration = Duration::from_secs(600);

/// How long a blob stays that no version needs: a publish that sends it may still be under way.
const UNUSED_FOR: Duration = Duration::from_secs(24 * 3600);

/// How long a condemned blob stays: an edge may be fetching it for a version that was just retired.
const GRACE: Duration = Duration::from_secs(3600);

/// Digests in one event.
const IN_ONE_EVENT: usize = 1000;

/// Collects every now and then until the origin stops.
pub(crate) async fn run(core: Arc<Core>) {
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
        if let Err(fault) = collect(&core, Timestamp::now()).await {
            tracing::warn!(%fault, "failed to collect unused blobs; trying again later");
        }
    }
}

/// Does one round of all steps.
pub(crate) async fn collect(core: &Core, now: Timestamp) -> Result<(), Fault> {
    retire(core, now).await?;
    // No commit needs a blob between the look at what is needed and the end of the round.
    let _held = core.collecting.lock().await;
    let needed = needed(core).await?;
    // In this order, so that nothing is condemned and deleted in one round.
    delete(core, &needed, now).await?;
    condemn(core, &needed, now).await
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

/// Returns every blob that a version needs, its manifest included.
async fn needed(core: &Core) -> Result<HashSet<Digest>, Fault> {
    let versions = core.journal.state().manifests();
    let mut needed = HashSet::new();
    for version in versions {
        let text = core.blobs.read_whole(version).await.map_err(|error| Fault::Storage(error.to_string()))?;
        let manifest: Manifest = serde_json::from_slice(&text).map_err(|error| Fault::Storage(error.to_string()))?;
        needed.insert(version);
        needed.extend(manifest.files.into_iter().map(|file| file.digest));
    }
    Ok(needed)
}

async fn condemn(core: &Core, needed: &HashSet<Digest>, now: Timestamp) -> Result<(), Fault> {
    let already = core.journal.state().control.as_ref().map(|control| control.condemned.clone()).unwrap_or_default();
    let unused: Vec<_> = core
        .blobs
        .all()
        .into_iter()
        .filter(|(digest, known)| !needed.contains(digest) && !already.contains_key(digest) && now.since(known.stored_at) >= UNUSED_FOR)
        .map(|(digest, _)| digest)
        .collect();
    for digests in unused.chunks(IN_ONE_EVENT) {
        core.append("origin", vec![Fact::BlobsCondemned { digests: digests.to_vec() }], Vec::new()).await?;
    }
    Ok(())
}

/// Deletes what was condemned long enough ago and is still not needed.
async fn delete(core: &Core, needed: &HashSet<Digest>, now: Timestamp) -> Result<(), Fault> {
    let condemned = core.journal.state().control.as_ref().map(|control| control.condemned.clone()).unwrap_or_default();
    let due = condemned.into_iter().filter(|(digest, at)| now.since(*at) >= GRACE && !needed.contains(digest));
    let due: Vec<_> = due.map(|(digest, _)| digest).collect();
    for digests in due.chunks(IN_ONE_EVENT) {
        for digest in digests {
            core.blobs.delete(*digest).await.map_err(|error| Fault::Storage(error.to_string()))?;
            core.variants.delete(digest);
        }
        core.append("origin", vec![Fact::BlobsDeleted { digests: digests.to_vec() }], Vec::new()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::Blobs;
    use crate::journal::Journal;
    use crate::variants::Variants;
    use config::Settings;
    use wire::{Alias, FileEntry, SiteName};

    const HOUR: u64 = 3_600_000;

    async fn core(folder: &std::path::Path) -> Core {
        let settings =
            Settings::from_text("[sites.www]\nhosts = [\"*\"]\nkeep_versions = 1\n", &folder.join("atoll.toml"), [], []).unwrap();
        let journal = Journal::open(folder, false).unwrap();
        let blobs = Arc::new(Blobs::open(&folder.join("blobs")).await.unwrap());
        let variants = Variants::open(&folder.join("variants")).unwrap();
        let core = Core::new(settings, journal, blobs, variants, None);
        let network = core.settings.network_json.clone();
        core.append("test", vec![Fact::ConfigChanged { number: 1, network }], Vec::new()).await.unwrap();
        core
    }

    /// Publishes a version with one file, and returns the digests of its manifest and its file.
    async fn publish(core: &Core, text: &'static str) -> (Digest, Digest) {
        let digest = Digest::of(text.as_bytes());
        let path = "index.html".parse().unwrap();
        let file = FileEntry { path, digest, size: text.len() as u64, media_type: "text/html".to_owned(), headers: Default::default() };
        let manifest = Manifest::new(vec![file]).unwrap();
        let version = manifest.version();
        core.blobs.put(digest, text.into()).await.unwrap();
        core.blobs.put(version, manifest.canonical().into()).await.unwrap();
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
        let folder = tempfile::tempdir().unwrap();
        let core = core(folder.path()).await;
        let (_, needed) = publish(&core, "needed").await;
        let abandoned = Digest::of(b"abandoned");
        core.blobs.put(abandoned, "abandoned".into()).await.unwrap();

        collect(&core, after(23)).await.unwrap();
        assert!(core.journal.state().control.as_ref().unwrap().condemned.is_empty(), "a publish may still be under way");
        collect(&core, after(25)).await.unwrap();
        assert!(core.journal.state().control.as_ref().unwrap().condemned.contains_key(&abandoned));
        assert!(core.blobs.get(&abandoned).is_some(), "condemned is not deleted");
        collect(&core, after(27)).await.unwrap();

        assert!(core.blobs.get(&abandoned).is_none() && core.blobs.get(&needed).is_some());
        assert!(core.journal.state().control.as_ref().unwrap().condemned.is_empty());
    }

    #[tokio::test]
    async fn versions_beyond_the_limit_are_retired_but_never_what_is_shown_or_one_step_back() {
        let folder = tempfile::tempdir().unwrap();
        let core = core(folder.path()).await;
        let mut versions = Vec::new();
        for text in ["one", "two", "three"] {
            versions.push(publish(&core, text).await.0);
        }

        collect(&core, after(25)).await.unwrap();

        let state = core.journal.state();
        let left: HashSet<Digest> = state.sites.values().flat_map(|site| site.versions.keys().copied()).collect();
        assert_eq!(left, HashSet::from([versions[1], versions[2]]));
    }

    #[tokio::test]
    async fn a_condemned_blob_that_a_version_needs_again_is_not_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let core = core(folder.path()).await;
        let digest = Digest::of(b"again");
        core.blobs.put(digest, "again".into()).await.unwrap();
        collect(&core, after(25)).await.unwrap();
        publish(&core, "again").await;

        collect(&core, after(48)).await.unwrap();

        assert!(core.blobs.get(&digest).is_some());
    }
}
