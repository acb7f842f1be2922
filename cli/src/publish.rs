//! `atoll publish`: hash, send what is missing, commit, let the edges prefetch, move the alias.

use std::collections::HashSet;
use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use config::Settings;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use wire::{Alias, AliasAnswer, AliasMove, CommitAnswer, Digest, FollowerState, PublishStarted, ReceiptState, SiteName};

use crate::args::{Publish, Wait};
use crate::context::Context;
use crate::control::Control;
use crate::exit::{Done, Failure, Outcome};
use crate::scan::{Scanned, scan};
use crate::{address, say, send};

/// How long the edges get to prefetch before the alias moves; it moves all the same then.
const PREFETCH: Duration = Duration::from_secs(5);

/// What a publish came to.
#[derive(Debug, Serialize)]
pub(crate) struct Published {
    /// Where it can be seen; nothing for an alias that no edge serves.
    pub(crate) url: Option<String>,
    pub(crate) site: SiteName,
    pub(crate) version: Digest,
    pub(crate) alias: Alias,
    pub(crate) files: usize,
    pub(crate) bytes: u64,
    pub(crate) sent_files: usize,
    pub(crate) sent_bytes: u64,
    pub(crate) warnings: Vec<String>,
    /// Whether every edge has it, where somebody waited to know.
    pub(crate) everywhere: Option<bool>,
}

/// Runs `atoll publish`.
pub(crate) async fn run(context: &Context, arguments: Publish) -> Outcome {
    let (settings, control) = (context.settings()?, context.control()?);
    if arguments.dry_run {
        return dry_run(&control, &arguments).await;
    }
    let published = publish(&control, &settings, &arguments).await?;
    published.warnings.iter().for_each(say::warning);
    if arguments.json {
        say::json(&published)?;
    } else {
        say::note(published.summary());
        match &published.url {
            Some(url) => say::line(url)?,
            None => say::line(format!("{}@{}", published.site, published.version.short()))?,
        }
    }
    Ok(if published.everywhere == Some(false) { Done::NotEverywhere } else { Done::Everywhere })
}

impl Published {
    /// Returns what was published in a line.
    pub(crate) fn summary(&self) -> String {
        format!(
            "version {} of {}: {}, {}; sent {}, {}",
            self.version.short(),
            self.site,
            say::count(self.files, "file"),
            say::bytes(self.bytes),
            say::count(self.sent_files, "file"),
            say::bytes(self.sent_bytes)
        )
    }
}

async fn dry_run(control: &Control, arguments: &Publish) -> Outcome {
    let scanned = scan(&arguments.folder, &bar("hashing")).await?;
    // A publish that is begun and never committed shows nowhere.
    let started: PublishStarted = control.post(&format!("/v1/sites/{}/publishes", arguments.site), &scanned.manifest).await?;
    let (missing, bytes) = (started.missing.len(), sizes(&scanned, &started.missing));
    scanned.warnings.iter().for_each(say::warning);
    if arguments.json {
        let files = scanned.manifest.files.len();
        say::json(&serde_json::json!({
            "version": started.version, "files": files, "missing_files": missing, "missing_bytes": bytes, "warnings": scanned.warnings
        }))?;
    } else {
        say::line(format!("version {} would send {}, {}", started.version.short(), say::count(missing, "file"), say::bytes(bytes)))?;
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
    let sending = bar("sending");
    sending.set_length(sent_bytes);
    send::missing(control, &scanned, &started.missing, &sending).await?;
    sending.finish_and_clear();
    let committed: CommitAnswer = control.post(&format!("/v1/sites/{site}/publishes/{}/commit", started.id), &()).await?;
    if arguments.wait == Wait::All {
        control.wait_for(committed.position.seq, PREFETCH.min(arguments.timeout)).await?;
    }
    let to = AliasMove { version: committed.version, back: false };
    let moved: AliasAnswer = control.put(&format!("/v1/sites/{site}/aliases/{}", arguments.alias), &to, None).await?;
    let everywhere = match arguments.wait {
        Wait::All => Some(is_everywhere(control, moved.position.seq, arguments.timeout).await?),
        Wait::None => None,
    };
    let mut warnings = scanned.warnings;
    warnings.extend(committed.warnings.into_iter().filter(|warning| !warning.contains("by case alone")));
    let is_served = arguments.alias == Alias::production();
    let url = if is_served { address::of_site(control, settings, site).await } else { None };
    match &url {
        Some(_) => {}
        None if is_served => warnings.push(format!("no address of `{site}` is known: not by the file, nor by what the token may read")),
        None => warnings.push(format!("no address serves the alias `{}`: edges serve `{}`", arguments.alias, Alias::production())),
    }
    Ok(Published {
        url,
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
    let named = |state: FollowerState| {
        let followers = receipt.followers.iter().filter(move |follower| follower.state == state);
        followers.map(|follower| follower.name.to_string()).collect::<Vec<_>>().join(", ")
    };
    let (pending, fenced) = (named(FollowerState::Pending), named(FollowerState::Fenced));
    if pending.is_empty() && fenced.is_empty() {
        if receipt.state != ReceiptState::Complete {
            say::note("not certainly everywhere yet: leases from before a restart of the origin still run");
        }
        return Ok(receipt.state == ReceiptState::Complete);
    }
    if !pending.is_empty() {
        say::note(format!("not everywhere yet: within the time, nothing was heard of {pending}"));
    }
    if !fenced.is_empty() {
        say::note(format!(
            "not everywhere yet: {fenced} will switch when back; `atoll drain NAME` takes an edge out that will not come back"
        ));
    }
    Ok(false)
}

fn sizes(scanned: &Scanned, digests: &[Digest]) -> u64 {
    let wanted: HashSet<_> = digests.iter().collect();
    let mut seen = HashSet::new();
    scanned.manifest.files.iter().filter(|file| wanted.contains(&file.digest) && seen.insert(file.digest)).map(|file| file.size).sum()
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
