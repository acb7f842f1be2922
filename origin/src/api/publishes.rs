//! Publishing: a manifest, what is missing of it, a commit, and an alias that moves.

use std::collections::HashSet;

use actix_web::{HttpRequest, HttpResponse, web};
use wire::{Alias, AliasAnswer, AliasMove, CommitAnswer, Digest, Fact, Grant, Manifest, PublishStarted, SiteName, VersionList, VersionRow};

use super::{MANIFEST_MOST, Shared, if_match_digest, name, read_whole};
use crate::auth;
use crate::core::{Core, Publish};
use crate::decide::{self, Moved};
use crate::fault::Fault;

/// Takes a manifest and answers with the blobs that the origin lacks.
#[utoipa::path(post, path = "/v1/sites/{site}/publishes", request_body = Manifest, params(("site" = String, Path)), responses((status = 200, body = PublishStarted)))]
pub(super) async fn begin(core: Shared, request: HttpRequest, path: web::Path<String>, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request)?;
    let site: SiteName = name(&path)?;
    caller.must(&Grant::Publish(Some(site.clone())))?;
    let manifest: Manifest = serde_json::from_slice(&read_whole(&core, &request, body, MANIFEST_MOST).await?).map_err(Fault::bad)?;
    let network = core.network();
    let settings = network.sites.get(&site).ok_or_else(|| decide::unknown_site(&network, &site))?;
    let manifest = decide::manifest(manifest, settings)?;
    let version = manifest.version();
    core.blobs.put(version, manifest.canonical().into()).await.map_err(|error| Fault::Storage(error.to_string()))?;
    let digests: HashSet<Digest> = manifest.files.iter().map(|file| file.digest).collect();
    let missing = missing(&core, digests);
    let id = core.begin_publish(Publish { site, version });
    Ok(HttpResponse::Ok().json(PublishStarted { id, version, missing }))
}

/// A condemned blob counts as missing: it is sent again rather than deleted under a publish.
fn missing(core: &Core, digests: HashSet<Digest>) -> Vec<Digest> {
    let condemned = {
        let state = core.journal.state();
        let condemned = state
            .control
            .as_ref()
            .map(|control| digests.iter().filter(|digest| control.condemned.contains_key(*digest)).copied().collect::<HashSet<_>>());
        condemned.unwrap_or_default()
    };
    let mut missing = core.blobs.missing(digests.into_iter().filter(|digest| !condemned.contains(digest)));
    missing.extend(condemned);
    missing.sort_unstable();
    missing
}

/// Checks every blob once more and makes the version servable.
#[utoipa::path(post, path = "/v1/sites/{site}/publishes/{id}/commit", params(("site" = String, Path), ("id" = String, Path)), responses((status = 200, body = CommitAnswer)))]
pub(super) async fn commit(core: Shared, request: HttpRequest, path: web::Path<(String, String)>) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request)?;
    let site: SiteName = name(&path.0)?;
    caller.must(&Grant::Publish(Some(site.clone())))?;
    let publish = core.publish(&site, &path.1)?;
    // No blob is deleted between the check and the event that needs it.
    let held = core.collecting.lock().await;
    let manifest = read_manifest(&core, publish.version).await?;
    let lifted = check_blobs(&core, publish.version, &manifest).await?;
    let recent = recent_manifests(&core, &site).await?;
    let rewritten = decide::rewritten(&manifest, &recent);
    let mut warnings: Vec<_> = rewritten
        .iter()
        .map(|path| format!("`{path}` has a hash in its name, but its bytes changed: it is not served as immutable"))
        .collect();
    warnings.extend(decide::case_twins(&manifest));
    let mut facts = Vec::new();
    if !lifted.is_empty() {
        facts.push(Fact::BlobsLifted { digests: lifted });
    }
    let files = manifest.files.len() as u64;
    facts.push(Fact::VersionPublished { site, version: publish.version, files, bytes: manifest.bytes(), rewritten });
    let position = core.append(&caller.name, facts, Vec::new()).await?;
    drop(held);
    for file in manifest.files.iter().filter(|file| file.is_compressible()) {
        core.variants.want(file.digest, file.size);
    }
    core.metrics.publishes.inc();
    Ok(HttpResponse::Ok().json(CommitAnswer { version: publish.version, position, warnings }))
}

async fn read_manifest(core: &Core, version: Digest) -> Result<Manifest, Fault> {
    let text = core.blobs.read_whole(version).await.map_err(|error| Fault::Storage(error.to_string()))?;
    serde_json::from_slice(&text).map_err(|error| Fault::Storage(format!("manifest {version}: {error}")))
}

/// Every blob must be there, have the size that the manifest says, and its bytes the digest. Returns
/// those that were condemned.
async fn check_blobs(core: &Core, version: Digest, manifest: &Manifest) -> Result<Vec<Digest>, Fault> {
    for file in &manifest.files {
        match core.blobs.get(&file.digest) {
            None => return Err(Fault::Conflict(format!("blob {} of `{}` was not sent", file.digest, file.path))),
            Some(known) if known.size != file.size => {
                let said =
                    format!("the manifest says that `{}` has {} bytes, but blob {} has {}", file.path, file.size, file.digest, known.size);
                return Err(Fault::Bad(said));
            }
            Some(_) => {}
        }
    }
    let digests: HashSet<Digest> = manifest.files.iter().map(|file| file.digest).chain([version]).collect();
    let condemned = core.journal.state().control.as_ref().map(|control| control.condemned.clone()).unwrap_or_default();
    let lifted = digests.iter().filter(|digest| condemned.contains_key(*digest)).copied().collect();
    core.blobs.check(digests).await.map_err(|error| Fault::Conflict(format!("{error}; send it again")))?;
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
        manifests.push(read_manifest(core, version).await?);
    }
    Ok(manifests)
}

/// Points an alias to a version, for the whole site at once.
#[utoipa::path(put, path = "/v1/sites/{site}/aliases/{alias}", request_body = AliasMove, params(("site" = String, Path), ("alias" = String, Path)), responses((status = 200, body = AliasAnswer)))]
pub(super) async fn move_alias(
    core: Shared,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    body: web::Json<AliasMove>,
) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request)?;
    let (site, alias): (SiteName, Alias) = (name(&path.0)?, name(&path.1)?);
    caller.must(&Grant::Publish(Some(site.clone())))?;
    let if_match = if_match_digest(request.headers())?;
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
    let caller = auth::caller(&core, &request)?;
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
