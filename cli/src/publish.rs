//! `atoll publish`: hash, send what is missing, commit, let the edges prefetch, move the alias.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use config::Settings;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Body, Method};
use serde::Serialize;
use wire::{
    Alias, AliasAnswer, AliasMove, CommitAnswer, Digest, HostPattern, MAX_PACKED, PACK_TYPE, PublishStarted, ReceiptState, SiteName, pack,
};

use crate::args::{Publish, Wait};
use crate::context::Context;
use crate::control::Control;
use crate::exit::{Done, Failure, Outcome};
use crate::say;
use crate::scan::{Scanned, scan};

/// Bodies under way at a time.
const SIDE_BY_SIDE: usize = 4;

/// Bytes of small files in one body.
const PACK: u64 = 4 << 20;

/// How often a body is sent before we give up.
const TRIES: usize = 3;

/// How long the edges get to prefetch before the alias moves; it moves all the same then.
const PREFETCH: Duration = Duration::from_secs(5);

/// What a publish came to.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    pub(crate) url: String,
    pub(crate) site: SiteName,
    pub(crate) version: Digest,
    pub(crate) alias: Alias,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) sent_files: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) warnings: Vec<String>,
    pub(crate) everywhere: bool,
}

/// Runs `atoll publish`.
pub(crate) async fn run(context: &Context, arguments: Publish) -> Outcome {
    let (settings, control) = (context.settings()?, context.control()?);
    if arguments.dry_run {
        return dry_run(&control, &arguments).await;
    }
    let published = publish(&control, &settings, &arguments).await?;
    for warning in &published.warnings {
        say::note(format!("warning: {warning}"));
    }
    if arguments.json {
        say::json(&published);
    } else {
        say::note(format!(
            "version {} of {}: {} files, {}; sent {} files, {}",
            published.version.short(),
            published.site,
            published.files,
            say::bytes(published.bytes),
            published.sent_files,
            say::bytes(published.sent_bytes)
        ));
        say::line(&published.url);
    }
    Ok(if published.everywhere { Done::Everywhere } else { Done::NotEverywhere })
}

async fn dry_run(control: &Control, arguments: &Publish) -> Outcome {
    let scanned = scan(&arguments.folder, &bar("hashing")).await?;
    // A publish that is begun and never committed shows nowhere.
    let started: PublishStarted = control.post(&format!("/v1/sites/{}/publishes", arguments.site), &scanned.manifest).await?;
    let bytes = sizes(&scanned, &started.missing);
    if arguments.json {
        say::json(
            &serde_json::json!({ "version": started.version, "files": scanned.manifest.files.len(), "missing_files": started.missing.len(), "missing_bytes": bytes }),
        );
    } else {
        say::line(format!("version {} would send {} files, {}", started.version.short(), started.missing.len(), say::bytes(bytes)));
    }
    Ok(Done::Everywhere)
}

/// Publishes a folder; used by `atoll up --site` too.
pub(crate) async fn publish(control: &Control, settings: &Settings, arguments: &Publish) -> Result<Published, Failure> {
    let hashing = bar("hashing");
    let scanned = scan(&arguments.folder, &hashing).await?;
    hashing.finish_and_clear();
    let site = &arguments.site;
    let started: PublishStarted = control.post(&format!("/v1/sites/{site}/publishes"), &scanned.manifest).await?;
    let sent_bytes = sizes(&scanned, &started.missing);
    send(control, &scanned, &started.missing, sent_bytes).await?;
    let committed: CommitAnswer = control.post(&format!("/v1/sites/{site}/publishes/{}/commit", started.id), &()).await?;
    if arguments.wait == Wait::All {
        control.wait_for(committed.position.seq, PREFETCH.min(arguments.timeout)).await?;
    }
    let to = AliasMove { version: committed.version, back: false };
    let moved: AliasAnswer = control.put(&format!("/v1/sites/{site}/aliases/{}", arguments.alias), &to, None).await?;
    let everywhere = arguments.wait == Wait::None || is_everywhere(control, moved.position.seq, arguments.timeout).await?;
    let mut warnings = scanned.warnings;
    warnings.extend(committed.warnings.into_iter().filter(|warning| !warning.contains("by case alone")));
    Ok(Published {
        url: url_of(settings, site, &committed.version),
        site: site.clone(),
        version: committed.version,
        alias: arguments.alias.clone(),
        files: scanned.manifest.files.len(),
        bytes: scanned.manifest.bytes(),
        sent_files: started.missing.len(),
        sent_bytes,
        warnings,
        everywhere,
    })
}

/// Waits until every edge has the event, and says who has not.
pub(crate) async fn is_everywhere(control: &Control, seq: u64, timeout: Duration) -> Result<bool, Failure> {
    let receipt = control.wait_for(seq, timeout).await?;
    // A fenced edge goes on serving a site by default, so complete is not yet everywhere.
    let applied = receipt.followers.iter().all(|follower| follower.state == wire::FollowerState::Applied);
    if applied && receipt.state == ReceiptState::Complete {
        return Ok(true);
    }
    let late: Vec<_> = receipt
        .followers
        .iter()
        .filter(|follower| follower.state != wire::FollowerState::Applied)
        .map(|follower| follower.name.to_string())
        .collect();
    say::note(format!("not everywhere yet: {} will switch when it is back", late.join(", ")));
    Ok(false)
}

fn sizes(scanned: &Scanned, digests: &[Digest]) -> u64 {
    let wanted: HashSet<_> = digests.iter().collect();
    let mut seen = HashSet::new();
    scanned.manifest.files.iter().filter(|file| wanted.contains(&file.digest) && seen.insert(file.digest)).map(|file| file.size).sum()
}

/// One body on its way: many small files, or one large one.
#[derive(Clone, Debug)]
enum Parcel {
    Pack(Vec<(Digest, PathBuf)>),
    Single(Digest, PathBuf),
}

async fn send(control: &Control, scanned: &Scanned, missing: &[Digest], bytes: u64) -> Result<(), Failure> {
    let progress = bar("sending");
    progress.set_length(bytes);
    let parcels = parcels(scanned, missing)?;
    let sent = stream::iter(parcels.into_iter().map(Ok)).try_for_each_concurrent(SIDE_BY_SIDE, |(parcel, size)| {
        let progress = progress.clone();
        async move {
            send_parcel(control, &parcel).await?;
            progress.inc(size);
            Ok::<_, Failure>(())
        }
    });
    sent.await?;
    progress.finish_and_clear();
    Ok(())
}

fn parcels(scanned: &Scanned, missing: &[Digest]) -> Result<Vec<(Parcel, u64)>, Failure> {
    let (mut parcels, mut small, mut small_bytes) = (Vec::new(), Vec::new(), 0);
    for digest in missing {
        let source = scanned
            .sources
            .get(digest)
            .ok_or_else(|| Failure::failed(format!("the origin asks for a blob {digest} that is not in the folder")))?;
        let size = source.metadata().with_context(|| format!("failed to read {}", source.display()))?.len();
        if size > MAX_PACKED as u64 {
            parcels.push((Parcel::Single(*digest, source.clone()), size));
            continue;
        }
        small.push((*digest, source.clone()));
        small_bytes += size;
        if small_bytes >= PACK {
            parcels.push((Parcel::Pack(std::mem::take(&mut small)), std::mem::take(&mut small_bytes)));
        }
    }
    if !small.is_empty() {
        parcels.push((Parcel::Pack(small), small_bytes));
    }
    Ok(parcels)
}

async fn send_parcel(control: &Control, parcel: &Parcel) -> Result<(), Failure> {
    let mut tries = 0;
    loop {
        tries += 1;
        let sent = match parcel {
            Parcel::Pack(files) => {
                let body = read_pack(files.clone()).await?;
                control.upload(Method::POST, "/v1/blobs", PACK_TYPE, || Body::from(body.clone())).await
            }
            Parcel::Single(digest, source) => {
                let path = format!("/v1/blobs/{digest}");
                let make = || Body::wrap_stream(read_file(source.clone()));
                control.upload(Method::PUT, &path, "application/octet-stream", make).await
            }
        };
        match sent {
            Err(Failure::Failed(error)) if tries < TRIES => tracing::warn!("sending failed, trying again: {error:#}"),
            sent => return sent,
        }
    }
}

async fn read_pack(files: Vec<(Digest, PathBuf)>) -> Result<bytes::Bytes, Failure> {
    let read = tokio::task::spawn_blocking(move || -> anyhow::Result<bytes::Bytes> {
        let mut body = Vec::new();
        for (digest, source) in &files {
            let bytes = std::fs::read(source).with_context(|| format!("failed to read {}", source.display()))?;
            pack(&mut body, digest, &bytes);
        }
        Ok(body.into())
    });
    Ok(read.await.map_err(Failure::failed)??)
}

fn read_file(path: PathBuf) -> impl futures_util::Stream<Item = std::io::Result<bytes::Bytes>> + Send + 'static {
    stream::once(tokio::fs::File::open(path)).flat_map(|opened| match opened {
        Ok(file) => tokio_util::io::ReaderStream::with_capacity(file, 256 << 10).left_stream(),
        Err(error) => stream::once(async { Err(error) }).right_stream(),
    })
}

/// A bar on a terminal; off it nothing, since the lines that matter are printed anyway.
fn bar(what: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style =
        ProgressStyle::with_template("{msg:8} {wide_bar} {bytes}/{total_bytes} {eta}").unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style).with_message(what)
}

/// Returns the URL at which a version can be seen: the site's first own host, or an edge of the file.
fn url_of(settings: &Settings, site: &SiteName, version: &Digest) -> String {
    let port = settings.edges.values().find_map(|edge| edge.listen.first()).map_or(80, std::net::SocketAddr::port);
    let port = if port == 80 { String::new() } else { format!(":{port}") };
    let hosts = settings.network.sites.get(site).map(|site| site.hosts.as_slice()).unwrap_or_default();
    let own = hosts.iter().find_map(|host| if let HostPattern::Exact(host) = host { Some(host.as_str()) } else { None });
    match (own, hosts.is_empty()) {
        (Some(host), _) => format!("http://{host}{port}/"),
        (None, false) => format!("http://localhost{port}/"),
        // The file does not know the site; the network does.
        (None, true) => format!("{site}@{}", version.short()),
    }
}

/// Returns what `atoll up --site` publishes.
pub(crate) fn of_up(folder: &Path, site: SiteName) -> Publish {
    Publish {
        folder: folder.to_owned(),
        site,
        alias: Alias::production(),
        dry_run: false,
        wait: Wait::All,
        timeout: Duration::from_secs(30),
        json: false,
    }
}
