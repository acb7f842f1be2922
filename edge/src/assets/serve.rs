//! Answers a request for a site: finds the file, negotiates its coding, and says how long it may be kept.

use std::sync::Arc;

use config::{Site, WhenFenced};
use follow::Standing;
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LOCATION, VARY};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use wire::{FileEntry, Manifest, Timestamp};

use super::fetch::Asset;
use super::resolve::{Resolved, nothing, resolve};
use crate::applied::SiteView;
use crate::edge::Edge;
use crate::message::Response;
use crate::normalise::Ask;
use crate::outcome::{Answer, Outcome};
use crate::refuse::Refusal;
use crate::represent::{self, Representation};
use crate::rules::conditional::Voice;
use crate::rules::negotiate::{self, Choice};

/// The codings that there may be, the best liked first.
const CODINGS: [&str; 3] = ["zstd", "br", "gzip"];

const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const REVALIDATED: &str = "public, max-age=0, must-revalidate";

/// A file to serve, and how.
struct Chosen {
    file: FileEntry,
    status: StatusCode,
    immutable: bool,
}

/// Answers a request for `site`.
pub(crate) async fn serve(edge: &Edge, ask: &Ask, site: &Site, view: Option<&SiteView>, standing: &Standing) -> Answer {
    match answer(edge, ask, site, view, standing).await {
        Ok(answer) => answer,
        Err(refusal) => Answer::refused("site", &refusal),
    }
}

async fn answer(edge: &Edge, ask: &Ask, site: &Site, view: Option<&SiteView>, standing: &Standing) -> Result<Answer, Refusal> {
    if ask.method != Method::GET && ask.method != Method::HEAD {
        return Err(Refusal::MethodNotAllowed("GET, HEAD"));
    }
    if !may_serve(site.when_fenced, standing) {
        return Err(Refusal::Fenced);
    }
    let view = view.ok_or(Refusal::NothingPublished)?;
    let path = ask.target.decoded_path().ok_or(Refusal::NotFound)?;
    let manifest = edge.manifests.get(view.version).await.map_err(|_| Refusal::AssetUnavailable)?;
    let chosen = match resolve(&manifest, &path) {
        Resolved::Folder => return Ok(redirect_into(ask)),
        Resolved::File(file) => Some(choose(file, StatusCode::OK, site, view)),
        Resolved::Nothing(page) => page.map(|page| choose(page, StatusCode::NOT_FOUND, site, view)),
        Resolved::Former(path) => former(edge, view, path.as_str(), site, &manifest).await,
    };
    let chosen = chosen.ok_or(Refusal::NotFound)?;
    let asset = edge.assets.get(chosen.file.digest, coding_for(ask, &chosen.file)).await.map_err(|_| Refusal::AssetUnavailable)?;
    let outcome = Outcome::asset(asset.tier, !standing.holds());
    Ok(Answer { response: respond(ask, &chosen, asset), outcome })
}

/// A site has no upstream that could be asked, so a fenced edge either goes on or refuses.
fn may_serve(when_fenced: WhenFenced, standing: &Standing) -> bool {
    match (standing.fenced_for, when_fenced) {
        (None, _) | (_, WhenFenced::Serve) => true,
        (Some(fenced_for), WhenFenced::ServeFor(span)) => fenced_for < span,
        (Some(_), WhenFenced::Revalidate | WhenFenced::Refuse) => false,
    }
}

fn choose(file: &FileEntry, status: StatusCode, site: &Site, view: &SiteView) -> Chosen {
    let hashed = file.path.has_hash() && !view.rewritten.contains(&file.path);
    let immutable = status == StatusCode::OK && (hashed || site.immutable.is_match(file.path.as_str()));
    Chosen { file: file.clone(), status, immutable }
}

/// A page of the version before may still ask for its own hashed files.
async fn former(edge: &Edge, view: &SiteView, path: &str, site: &Site, current: &Arc<Manifest>) -> Option<Chosen> {
    let now = Timestamp::now();
    for (version, until) in view.recent.iter().filter(|(_, until)| *until > now) {
        match edge.manifests.get(*version).await {
            Ok(manifest) => {
                if let Some(file) = manifest.get(path) {
                    return Some(choose(file, StatusCode::OK, site, view));
                }
            }
            Err(error) => tracing::warn!(%version, %until, "failed to look into a former version: {error}"),
        }
    }
    match nothing(current) {
        Resolved::Nothing(Some(page)) => Some(choose(page, StatusCode::NOT_FOUND, site, view)),
        _ => None,
    }
}

/// `/dir` leads to `/dir/`, its query kept. The path is canonical, so it can't lead to another host,
/// but for two slashes at its start.
fn redirect_into(ask: &Ask) -> Answer {
    let path = ask.target.path().trim_start_matches('/');
    let query = ask.target.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = Response::new(StatusCode::MOVED_PERMANENTLY);
    set(&mut response.headers, LOCATION, &format!("/{path}/{query}"));
    set(&mut response.headers, CACHE_CONTROL, REVALIDATED);
    Answer { response, outcome: Outcome::made("site", "redirect", "folder") }
}

fn coding_for(ask: &Ask, file: &FileEntry) -> Option<&'static str> {
    if !file.is_compressible() {
        return None;
    }
    match negotiate::choose(&ask.headers, &CODINGS) {
        Choice::Coding(coding) => Some(coding),
        Choice::Identity | Choice::NotAcceptable => None,
    }
}

fn respond(ask: &Ask, chosen: &Chosen, asset: Asset) -> Response {
    let mut headers = HeaderMap::new();
    set(&mut headers, CONTENT_TYPE, &chosen.file.media_type);
    set(&mut headers, CACHE_CONTROL, if chosen.immutable { IMMUTABLE } else { REVALIDATED });
    for (name, value) in &chosen.file.headers {
        if let Ok(name) = HeaderName::try_from(name.as_str()) {
            set(&mut headers, name, value);
        }
    }
    set(&mut headers, ETAG, &format!("\"{}\"", asset.digest));
    set(&mut headers, ACCEPT_RANGES, "bytes");
    if chosen.file.is_compressible() {
        set(&mut headers, VARY, "Accept-Encoding");
    }
    if let Some(coding) = asset.coding {
        set(&mut headers, CONTENT_ENCODING, coding);
    }
    let whole = Representation { status: chosen.status, headers, length: asset.length, source: asset.source };
    represent::answer(&ask.method, &ask.headers, whole, Voice::Origin, Timestamp::now())
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: &str) {
    if let Ok(value) = HeaderValue::from_str(text) {
        headers.insert(name, value);
    }
}
