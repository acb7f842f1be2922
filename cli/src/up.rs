//! `atoll up`: every node of the file in one process, through the same `start` that single nodes use.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use actix_web::dev::ServerHandle;
use anyhow::{Context as _, anyhow};
use config::Settings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use wire::{ApplyAnswer, ConfigVersion, Secret, SiteName};

use crate::args::Up;
use crate::context::{Context, follow_token};
use crate::control::{Control, Token};
use crate::exit::{Failure, Outcome};
use crate::nodes::{Node, Signals, make_folder};
use crate::{demo, publish, say};

/// How long the nodes may take to load their first snapshot.
const READY: Duration = Duration::from_secs(20);

/// Everything that runs.
struct Town {
    settings: Settings,
    control: Control,
    origin: origin::Running,
    edges: Vec<edge::Running>,
    dns: Vec<dns::Running>,
    demo: Option<Demo>,
}

/// The demo upstream that runs along.
struct Demo {
    address: SocketAddr,
    server: ServerHandle,
}

/// Runs `atoll up`.
pub(crate) async fn run(context: &Context, arguments: Up) -> Outcome {
    let signals = Signals::listen(context)?;
    let settings = context.settings()?;
    let site = arguments.site.as_ref().map(|folder| site_to_publish(&settings, folder)).transpose()?;
    make_folder(&settings.data)?;
    let demo = match context.file() {
        None => start_demo(&settings)?,
        Some(_) => None,
    };
    let origin = origin::Origin::new(settings.clone()).start().await?;
    let control = control_of(&settings, &origin)?;
    let mut town = Town { settings: settings.clone(), control: control.clone(), origin, edges: Vec::new(), dns: Vec::new(), demo };
    let begun = begin(&mut town, &settings, &control, arguments.site.as_deref().zip(site)).await;
    if let Err(failure) = begun {
        town.stop().await;
        return Err(failure);
    }
    signals.attend(town, context).await
}

async fn begin(town: &mut Town, settings: &Settings, control: &Control, site: Option<(&Path, SiteName)>) -> Result<(), Failure> {
    apply_file(settings, control).await?;
    start_followers(town, settings).await?;
    let published = match site {
        None => None,
        Some((folder, site)) => Some(publish::publish(control, settings, &publish::of_up(folder, site)).await?),
    };
    if let Some(published) = &published {
        published.warnings.iter().for_each(say::warning);
        say::note(published.summary());
    }
    print(town, settings, published.as_ref())
}

/// `--site DIR` is for the only site of the file, or for the one named `www`.
fn site_to_publish(settings: &Settings, folder: &Path) -> Result<SiteName, Failure> {
    if !folder.is_dir() {
        return Err(Failure::typed(format!("--site {}: there is no such folder", folder.display())));
    }
    let names: Vec<_> = settings.network.sites.keys().collect();
    match names.as_slice() {
        [only] => Ok((*only).clone()),
        names => names.iter().find(|name| name.as_str() == "www").map(|name| (*name).clone()).ok_or_else(|| {
            Failure::typed(
                "--site: the file has several sites and none is called `www`; start without it, then `atoll publish DIR --site NAME`",
            )
        }),
    }
}

fn start_demo(settings: &Settings) -> Result<Option<Demo>, Failure> {
    let server =
        settings.network.upstreams.values().find(|upstream| upstream.name.as_str() == "demo").and_then(|upstream| upstream.servers.first());
    let Some(address) = server.and_then(|server| server.strip_prefix("http://")?.parse::<SocketAddr>().ok()) else { return Ok(None) };
    Ok(Some(Demo { address, server: demo::start(address)? }))
}

/// The origin of this process is called at the address that it really has.
fn control_of(settings: &Settings, origin: &origin::Running) -> Result<Control, Failure> {
    let token =
        std::fs::read_to_string(origin.admin_token()).with_context(|| format!("failed to read {}", origin.admin_token().display()))?;
    let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose().map_err(Failure::typed)?;
    let token = Token { secret: Secret::from_text(&token), found_in: origin.admin_token().display().to_string() };
    Control::new(urls(settings, origin), token, ca.as_deref())
}

fn urls(settings: &Settings, origin: &origin::Running) -> Vec<String> {
    // A certificate is for a name, so TLS goes by the file's URLs.
    if settings.origin.tls.is_some() { settings.origin.urls.clone() } else { vec![format!("http://{}", origin.address())] }
}

/// The configuration that `atoll up` put in force last.
#[derive(Debug, Deserialize, Serialize)]
struct LastApplied {
    number: u64,
    network: Value,
}

/// Applies the file when it differs from what was applied last, and refuses when somebody else has
/// changed the network's configuration since.
async fn apply_file(settings: &Settings, control: &Control) -> Result<(), Failure> {
    let path = settings.data.join("applied.json");
    let current: ConfigVersion = control.get("/v1/config").await?;
    let number = if current.network == settings.network_json {
        current.number
    } else {
        let last = std::fs::read(&path).ok().and_then(|text| serde_json::from_slice::<LastApplied>(&text).ok());
        let mine = last.as_ref().is_some_and(|last| last.number == current.number);
        let unchanged = last.is_some_and(|last| last.network == settings.network_json);
        match (mine, unchanged) {
            // The file is as it was: what somebody else made of the network since stays.
            (false, true) => return Ok(()),
            (false, false) => return Err(changed_by_somebody_else(&current)),
            (true, _) => {
                let answer: ApplyAnswer = control.put("/v1/config", &settings.network_json, Some(&current.number.to_string())).await?;
                answer.number
            }
        }
    };
    let applied = LastApplied { number, network: settings.network_json.clone() };
    let text = serde_json::to_vec(&applied).context("failed to write down what was applied")?;
    std::fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
    Ok(())
}

fn changed_by_somebody_else(current: &ConfigVersion) -> Failure {
    Failure::failed(format!(
        "the network's configuration was changed by `{}` at {} (number {}), and the file differs from it: start the origin alone (`atoll origin -c FILE`) \
         and take over the file with `atoll apply -c FILE`, or see `atoll config history`",
        current.actor, current.at, current.number
    ))
}

async fn start_followers(town: &mut Town, settings: &Settings) -> Result<(), Failure> {
    let token = follow_token(settings)?;
    let urls = urls(settings, &town.origin);
    for name in settings.edges.keys() {
        let edge = edge::Edge::new(settings.clone(), name, token.clone())?.with_origins(urls.clone());
        town.edges.push(edge.start().await?);
    }
    for name in settings.dns.keys() {
        let dns = dns::Dns::new(settings.clone(), name, token.clone())?.with_origins(urls.clone());
        town.dns.push(dns.start().await?);
    }
    let begun = Instant::now();
    while !town.is_ready() {
        if begun.elapsed() > READY {
            return Err(anyhow!("some node has not loaded its snapshot after {READY:?}; see the log").into());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

impl Town {
    fn is_ready(&self) -> bool {
        self.edges.iter().all(edge::Running::is_ready) && self.dns.iter().all(dns::Running::is_ready)
    }
}

impl Node for Town {
    /// Its nodes are those of the start; each takes in its own part, and the journal the network's.
    async fn reload(&mut self, settings: &Settings) -> Result<(), Failure> {
        let fixed = self.settings.needs_restart(settings);
        if !fixed.is_empty() {
            return Err(Failure::typed(format!("a restart is needed to change {}", fixed.join(", "))));
        }
        let (token, urls) = (follow_token(settings)?, urls(settings, &self.origin));
        apply_file(settings, &self.control).await?;
        self.origin.reload(settings)?;
        for edge in &self.edges {
            edge.reload(settings, urls.clone(), token.clone())?;
        }
        for node in &self.dns {
            node.reload(settings, urls.clone(), token.clone())?;
        }
        self.settings = settings.clone();
        Ok(())
    }

    fn is_whole(&self) -> bool {
        self.origin.is_whole() && self.edges.iter().all(edge::Running::is_whole) && self.dns.iter().all(dns::Running::is_whole)
    }

    /// Nobody is left who could be sent elsewhere.
    fn drain(&mut self) -> Duration {
        Duration::ZERO
    }

    /// Downstream rooms stop before upstream ones.
    async fn stop(self) {
        for node in self.dns {
            node.stop().await;
        }
        for node in self.edges {
            node.stop().await;
        }
        self.origin.stop().await;
        if let Some(demo) = self.demo {
            demo.server.stop(false).await;
        }
    }
}

fn print(town: &Town, settings: &Settings, published: Option<&publish::Published>) -> Result<(), Failure> {
    say::table(["NODE", "NAME", "REGION", "AT", "ADMIN"], rows(town, settings))?;
    say::line(format!("\nfiles in {}", settings.data.display()))?;
    say::line("\ntry next, from another terminal in this folder:")?;
    let hints = hints(town, settings, published);
    let width = hints.iter().filter(|(_, why)| !why.is_empty()).map(|(command, _)| command.len()).max().unwrap_or(0);
    hints.iter().try_for_each(|(command, why)| match why.as_str() {
        "" => say::line(format!("  {command}")),
        why => say::line(format!("  {command:width$}  # {why}")),
    })?;
    match published.and_then(|published| published.url.as_ref()) {
        Some(url) => say::line(format!("\n{url}")),
        None => Ok(()),
    }
}

/// A row for each of what runs: what it is, its name, its region, where it is, where it tells about itself.
fn rows(town: &Town, settings: &Settings) -> Vec<[String; 5]> {
    let row =
        |node: &str, name: &str, region: &str, at: String, admin: String| [node.to_owned(), name.to_owned(), region.to_owned(), at, admin];
    let mut rows = vec![row("origin", "", "", urls(settings, &town.origin).join(" "), String::new())];
    for edge in &town.edges {
        let region = settings.edges.get(edge.name()).map(|edge| edge.region.as_str()).unwrap_or_default();
        let addresses: Vec<_> = edge.addresses().iter().map(|address| format!("http://{address}")).collect();
        rows.push(row("edge", edge.name().as_str(), region, addresses.join(" "), format!("http://{}", edge.admin())));
    }
    for dns in &town.dns {
        let addresses: Vec<_> = dns.addresses().iter().map(ToString::to_string).collect();
        rows.push(row("dns", dns.name().as_str(), "", addresses.join(" "), format!("http://{}", dns.admin())));
    }
    rows.extend(town.demo.iter().map(|demo| row("upstream", "demo", "", format!("http://{}", demo.address), String::new())));
    rows
}

/// Commands to try, each with what it shows.
fn hints(town: &Town, settings: &Settings, published: Option<&publish::Published>) -> Vec<(String, String)> {
    let url = town
        .edges
        .first()
        .and_then(|edge| edge.addresses().first())
        .map(|address| format!("http://localhost:{}", address.port()))
        .unwrap_or_default();
    let hint = |command: String, why: &str| (command, why.to_owned());
    let mut hints = match (published, settings.network.sites.keys().next()) {
        (Some(published), _) => vec![
            hint(format!("atoll publish DIR2 --site {}", published.site), "the next version, everywhere at once ..."),
            hint(format!("atoll rollback --site {}", published.site), "... and back"),
        ],
        (None, Some(site)) => vec![hint(format!("atoll publish DIR --site {site}"), "a folder as a site, everywhere at once")],
        (None, None) => Vec::new(),
    };
    hints.push(hint(format!("curl -i {url}/"), ""));
    if town.demo.is_some() {
        hints.push(hint(format!("curl -i {url}/api/products/42"), "a miss, then a hit, with Age and Cache-Status"));
        hints.push(hint(format!("curl -X POST {url}/api/raise"), "the product changes ..."));
        hints.push(hint("atoll purge --tag product-42".to_owned(), "... and every edge fetches it anew"));
    }
    hints.push(hint(format!("atoll explain {url}/"), "why it is answered as it is, at each edge"));
    hints.push(hint("atoll status".to_owned(), ""));
    hints.extend(digs(town, settings));
    hints
}

/// One question per region, as one of its own clients would ask it.
fn digs(town: &Town, settings: &Settings) -> Vec<(String, String)> {
    let server = town.dns.first().and_then(|dns| dns.addresses().first());
    let zone = settings.network.zones.values().next();
    let (Some(server), Some(zone)) = (server, zone) else { return Vec::new() };
    let name = match zone.steered.iter().find(|name| *name != "@") {
        Some(name) => format!("{name}.{}", zone.name),
        None => zone.name.clone(),
    };
    let regions = settings.network.regions.values().filter_map(|region| Some((region, region.clients.first()?)));
    regions
        .map(|(region, clients)| {
            let command = format!("dig @{} -p {} {name} A +short +subnet={clients}", server.ip(), server.port());
            (command, format!("a client of {}", region.name))
        })
        .collect()
}
