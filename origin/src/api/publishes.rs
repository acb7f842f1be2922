//! Publishing: a manifest, what is missing of it, a commit, and an alias that moves.

use std::collections::HashSet;

use actix_web::{HttpRequest, HttpResponse, web};
use wire::{
    Alias, AliasAnswer, AliasMove, CommitAnswer, Digest, Fact, Grant, Manifest, Position, PublishStarted, SiteName, VersionList, VersionRow,
};

use super::{MANIFEST_MOST, Shared, if_match_digest, name, read_json, read_whole};
use crate::auth;
use crate::blobs::{BlobError, Verdict};
use crate::core::Core;
use crate::decide::{self, Moved};
use crate::fault::Fault;
use crate::ticket;

/// How often a commit looks at its blobs: blobs are condemned every ten minutes at the most, a thousand in each event.
const ATTEMPTS: usize = 5;

/// Takes a manifest and answers with the blobs that the origin lacks.
#[utoipa::path(post, path = "/v1/sites/{site}/publishes", request_body = Manifest, params(("site" = String, Path)), responses((status = 200, body = PublishStarted)))]
pub(super) async fn begin(core: Shared, request: HttpRequest, path: web::Path<String>, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    core.know_all().await?;
    let site: SiteName = name(&path)?;
    caller.must(&Grant::Publish(Some(site.clone())))?;
    let manifest: Manifest =
        serde_json::from_slice(&read_whole(&core, &caller, &request, body, MANIFEST_MOST).await?).map_err(Fault::bad)?;
    let network = core.network();
    let settings = network.sites.get(&site).ok_or_else(|| decide::unknown_site(&network, &site))?;
    let manifest = decide::manifest(manifest, settings)?;
    let version = manifest.version();
    let verdict = Verdict::of(&core.journal.state());
    let digests: HashSet<Digest> = manifest.files.iter().map(|file| file.digest).collect();
    let mut missing = lacking(&core, digests, &verdict).await?;
    if !lacking(&core, HashSet::from([version]), &verdict).await?.is_empty() {
        core.blobs.put(version, manifest.canonical().into(), Some(verdict.mark)).await?;
    }
    missing.sort_unstable();
    let id = ticket::write(&site, &version, &seal_key(&core));
    Ok(HttpResponse::Ok().json(PublishStarted { id, version, missing }))
}

/// What the ids of publishes are sealed with.
fn seal_key(core: &Core) -> [u8; 16] {
    *core.journal.state().purges.key()
}

/// A condemned blob counts as missing: it is sent again rather than deleted under a publish.
async fn lacking(core: &Core, digests: HashSet<Digest>, verdict: &Verdict) -> Result<Vec<Digest>, Fault> {
    let live = core.blobs.live(digests.clone(), verdict).await?;
    let is_missing = |digest: &Digest| live.get(digest).is_none_or(|known| verdict.condemns(&known.name));
    Ok(digests.into_iter().filter(is_missing).collect())
}

/// Checks every blob once more and makes the version servable.
#[utoipa::path(post, path = "/v1/sites/{site}/publishes/{id}/commit", params(("site" = String, Path), ("id" = String, Path)), responses((status = 200, body = CommitAnswer)))]
pub(super) async fn commit(core: Shared, request: HttpRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    core.know_all().await?;
    let site: SiteName = name(&path.0)?;
    caller.must(&Grant::Publish(Some(site.clone())))?;
    // In a folder no blob is deleted between the check and the event that needs it; in a bucket that event is conditional.
    let held = if core.blobs.is_shared() { None } else { Some(core.collecting.lock().await) };
    let (version, manifest) = begun(&core, &site, &path.1).await?;
    let recent = recent_manifests(&core, &site).await?;
    let rewritten = decide::rewritten(&manifest, &recent);
    let mut warnings: Vec<_> = rewritten
        .iter()
        .map(|path| format!("`{path}` has a hash in its name, but its bytes changed: it is not served as immutable"))
        .collect();
    warnings.extend(decide::case_twins(&manifest));
    let files = manifest.files.len() as u64;
    let published = Fact::VersionPublished { site, version, files, bytes: manifest.bytes(), rewritten };
    let position = append_checked(&core, &caller.name, version, &manifest, published).await?;
    drop(held);
    for file in manifest.files.iter().filter(|file| file.is_compressible()) {
        core.variants.want(file.digest, file.size);
    }
    core.metrics.publishes.inc();
    Ok(HttpResponse::Ok().json(CommitAnswer { version, position, warnings }))
}

/// Appends that a version is there, when all its blobs are. Where some blobs were condemned meanwhile, all are looked at
/// once more: they may be among them.
async fn append_checked(core: &Core, actor: &str, version: Digest, manifest: &Manifest, published: Fact) -> Result<Position, Fault> {
    let mut attempt = 1;
    loop {
        let verdict = Verdict::of(&core.journal.state());
        let lifted = check_blobs(core, version, manifest, &verdict).await?;
        let mut facts = Vec::new();
        if !lifted.is_empty() {
            facts.push(Fact::BlobsLifted { digests: lifted });
        }
        facts.push(published.clone());
        match core.append(actor, facts, vec![verdict.mark.unmoved()]).await {
            Err(Fault::Conflict(_)) if attempt < ATTEMPTS => attempt += 1,
            appended => return appended,
        }
    }
}

/// Returns the version and the manifest of a publish that was begun, at this origin or another one.
async fn begun(core: &Core, site: &SiteName, id: &str) -> Result<(Digest, Manifest), Fault> {
    let unknown = || Fault::NotFound(format!("there is no publish `{id}` of site `{site}`; send the manifest again"));
    let version = ticket::read(id, site, &seal_key(core)).ok_or_else(unknown)?;
    // One that was abandoned for long was collected.
    core.blobs.find(version).await?.ok_or_else(unknown)?;
    Ok((version, read_manifest(core, version).await?))
}

async fn read_manifest(core: &Core, version: Digest) -> Result<Manifest, Fault> {
    let text = core.blobs.read_whole(version).await.map_err(|error| match error {
        BlobError::Away(..) => Fault::from(error),
        lost => Fault::Storage(format!("manifest {version}: {lost}")),
    })?;
    serde_json::from_slice(&text).map_err(|error| Fault::Storage(format!("manifest {version}: {error}")))
}

/// Every blob must be there, have the size that the manifest says, and its bytes the digest. Returns
/// those that were condemned.
async fn check_blobs(core: &Core, version: Digest, manifest: &Manifest, verdict: &Verdict) -> Result<Vec<Digest>, Fault> {
    let digests: HashSet<Digest> = manifest.files.iter().map(|file| file.digest).chain([version]).collect();
    let live = core.blobs.live(digests, verdict).await?;
    if !live.contains_key(&version) {
        return Err(Fault::Conflict(format!("the manifest {version} was deleted meanwhile; send it again")));
    }
    for file in &manifest.files {
        match live.get(&file.digest) {
            None => return Err(Fault::Conflict(format!("blob {} of `{}` was not sent", file.digest, file.path))),
            Some(known) if known.size != file.size => {
                let said =
                    format!("the manifest says that `{}` has {} bytes, but blob {} has {}", file.path, file.size, file.digest, known.size);
                return Err(Fault::Bad(said));
            }
            Some(_) => {}
        }
    }
    let lifted = live.values().filter(|known| verdict.condemns(&known.name)).map(|known| known.name.id()).collect();
    core.blobs.check(live.into_values()).await.map_err(|error| match error {
        BlobError::Away(..) => Fault::from(error),
        lost => Fault::Conflict(format!("{lost}; send it again")),
    })?;
    Ok(lifted)
}

/// The manifests whose hashed files may still be asked for.
async fn recent_manifests(core: &Core, site: &SiteName) -> Result<Vec<Manifest>, Fault> {
    let versions: Vec<Digest> = {
        let state = core.journal.state();
        let Some(site) = state.sites.get(site) else { return Ok(Vec::new()) };
        let pointed = site.aliases.values().map(|alias| alias.version);
        pointed.chain(site.recent(&Digest::of(b""), wire::Timestamp::now())).collect()
    };
    let mut manifests = Vec::new();
    for version in versions.into_iter().collect::<HashSet<_>>() {
        // What was lost, or is in a store that was left, is no reason not to publish anew.
        match core.blobs.find(version).await? {
            Some(_) => manifests.push(read_manifest(core, version).await?),
            None => {
                tracing::warn!(%site, %version, "the manifest of a version is gone: files with a hash in their name are not compared with its");
            }
        }
    }
    Ok(manifests)
}

/// Points an alias to a version, for the whole site at once.
#[utoipa::path(put, path = "/v1/sites/{site}/aliases/{alias}", request_body = AliasMove, params(("site" = String, Path), ("alias" = String, Path)), responses((status = 200, body = AliasAnswer)))]
pub(super) async fn move_alias(
    core: Shared,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Payload,
) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    let (site, alias): (SiteName, Alias) = (name(&path.0)?, name(&path.1)?);
    caller.must(&Grant::Publish(Some(site.clone())))?;
    let if_match = if_match_digest(request.headers())?;
    let body: AliasMove = read_json(&core, &caller, &request, body).await?;
    core.know_all().await?;
    let moved = decide::move_alias(&core.journal.state(), &site, &alias, &body, if_match.as_ref())?;
    let (previous, position) = match moved {
        Moved::Already => (Some(body.version), core.journal.head()),
        Moved::By { fact, if_unchanged, previous } => {
            let appended = core.append(&caller.name, vec![*fact], if_unchanged).await;
            // Whoever named what it must replace is told that this no longer holds.
            let position = appended.map_err(|fault| match fault {
                Fault::Conflict(said) if if_match.is_some() => Fault::Precondition(said),
                fault => fault,
            })?;
            (previous, position)
        }
    };
    Ok(HttpResponse::Ok().insert_header(("ETag", format!("\"{}\"", body.version))).json(AliasAnswer {
        version: body.version,
        previous,
        position,
    }))
}

/// Lists the versions of a site, the newest first.
#[utoipa::path(get, path = "/v1/sites/{site}/versions", params(("site" = String, Path)), responses((status = 200, body = VersionList)))]
pub(super) async fn versions(core: Shared, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    let site: SiteName = name(&path)?;
    caller.must(&Grant::Publish(Some(site.clone()))).or_else(|_| caller.must(&Grant::Read))?;
    let network = core.network();
    let state = core.journal.state();
    let Some(known) = state.sites.get(&site) else {
        if network.sites.contains_key(&site) {
            return Ok(HttpResponse::Ok().json(VersionList { site, versions: Vec::new(), aliases: Default::default() }));
        }
        return Err(decide::unknown_site(&network, &site));
    };
    let row = |(version, about): (&Digest, &wire::VersionState)| VersionRow {
        version: *version,
        published_at: about.published_at,
        files: about.files,
        bytes: about.bytes,
        aliases: known.aliases.iter().filter(|(_, alias)| alias.version == *version).map(|(name, _)| name.clone()).collect(),
    };
    let mut versions: Vec<_> = known.versions.iter().map(row).collect();
    versions.sort_by_key(|row| (std::cmp::Reverse(row.published_at), row.version));
    Ok(HttpResponse::Ok().json(VersionList { site, versions, aliases: known.aliases.clone() }))
}
