//! Starts an origin and stops it: bind first, report the real address, finish what is in hand.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use actix_web::middleware::from_fn;
use actix_web::{App, HttpServer, web};
use anyhow::{Context as _, Result, bail};
use config::{BlobStore, JournalEngine, Settings};
use listen::Sockets;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use wire::{Fact, Timestamp};

use crate::blobs::{Blobs, Verdict};
use crate::certificate::Certificate;
use crate::core::{Core, Own};
use crate::engines::Engines;
use crate::fault::Fault;
use crate::variants::Variants;
use crate::{again, api, auth, collect};

/// How long calls in hand may take when the origin stops.
const GRACE_S: u64 = 10;

/// An origin that is about to start.
#[derive(Debug)]
pub struct Origin {
    settings: Settings,
    new_epoch: bool,
    sockets: Sockets,
}

/// An origin that runs. Dropping it does not stop it; [`Running::stop`] does.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    admin_token: PathBuf,
    core: Arc<Core>,
    certificate: Option<Certificate>,
    server: actix_web::dev::ServerHandle,
    tasks: Vec<JoinHandle<()>>,
}

impl Origin {
    /// Prepares an origin with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, new_epoch: false, sockets: Sockets::default() }
    }

    /// Makes the journal begin a new life: after a backup of it was restored.
    #[must_use]
    pub fn with_new_epoch(mut self) -> Self {
        self.new_epoch = true;
        self
    }

    /// Serves on a socket that was handed over, where it is bound to its address.
    #[must_use]
    pub fn with_sockets(mut self, sockets: Sockets) -> Self {
        self.sockets = sockets;
        self
    }

    /// Opens journal and blobs, binds, and serves.
    ///
    /// # Errors
    /// Where a file can't be opened, a secret can't be had, or the address is taken.
    pub async fn start(mut self) -> Result<Running> {
        let settings = self.settings;
        let listener = self
            .sockets
            .listen(settings.origin.listen)
            .with_context(|| format!("failed to listen on {} (origin.listen)", settings.origin.listen))?;
        let address = listener.local_addr()?;
        let folder = settings.data.join("origin");
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        let certificate = settings.origin.tls.as_ref().map(|files| Certificate::read(files, Timestamp::now())).transpose()?;
        let own = Own::read(&settings.origin).context("failed to get origin.follow_token")?;
        let stop = CancellationToken::new();
        let Engines { journal, leases, sole, custody, mut tasks } = Engines::open(&settings, &folder, self.new_epoch, &stop).await?;
        let blobs = Arc::new(open_blobs(&settings, &folder).await?);
        let variants = Variants::open(&folder.join("variants")).context("failed to open the variants")?;
        variants.start(&blobs, &tokio::runtime::Handle::current())?;
        let core = Arc::new(Core::new(settings, (journal, leases, custody), blobs, variants, own, stop));
        if let Some(certificate) = &certificate {
            core.metrics.certificate_ends(certificate.until());
        }
        first_facts(&core).await?;
        let server = serve(&core, listener, certificate.as_ref().map(Certificate::tls).transpose()?)?;
        let handle = server.handle();
        tasks.extend([
            tokio::spawn(async move {
                if let Err(error) = server.await {
                    tracing::error!(%error, "the origin's listener ended");
                }
            }),
            tokio::spawn(collect::run(Arc::clone(&core), sole)),
            tokio::spawn(again::run(Arc::clone(&core))),
        ]);
        if core.blobs.is_shared() {
            tokio::spawn(learn_blobs(Arc::clone(&core)));
        }
        let admin_token = core.settings.data.join("admin.token");
        tracing::info!(%address, head = core.journal.head().seq, "origin ready on {address}");
        Ok(Running { address, admin_token, core, certificate, server: handle, tasks })
    }
}

async fn open_blobs(settings: &Settings, folder: &Path) -> Result<Blobs> {
    match &settings.origin.blobs {
        BlobStore::Folder => Blobs::open(&folder.join("blobs")).await.context("failed to open the blobs"),
        BlobStore::SharedFolder(folder) => Blobs::in_shared_folder(folder),
        BlobStore::Bucket(bucket) => Blobs::in_bucket(bucket).await,
    }
}

/// Lists what is in a bucket, which may take minutes; until then, and where that fails, each blob is asked for by itself.
async fn learn_blobs(core: Arc<Core>) {
    let verdict = Verdict::of(&core.journal.state());
    tokio::select! {
        () = core.stop.cancelled() => {}
        learnt = core.blobs.learn(Some(&verdict)) => {
            if let Err(error) = learnt {
                tracing::warn!(%error, "failed to list the bucket of origin.blobs; its blobs are asked for one by one");
            }
        }
    }
}

/// How often the first facts are decided anew since another origin was faster: it has written them then.
const FIRST_ATTEMPTS: usize = 5;

/// An empty journal takes its own file's configuration, and gets its first tokens; a lost token file is
/// written anew. Of several origins that start at once on an empty journal one does it.
async fn first_facts(core: &Core) -> Result<()> {
    for _ in 0..FIRST_ATTEMPTS {
        let (facts, if_unchanged) = missing_facts(core)?;
        if facts.is_empty() {
            return Ok(());
        }
        match core.append("origin", facts, if_unchanged).await {
            Ok(_) => return Ok(()),
            Err(Fault::Conflict(_)) => core.journal.catch_up().await?,
            Err(fault) => anyhow::bail!("{fault}"),
        }
    }
    anyhow::bail!("the journal changes faster than this origin can begin with it")
}

type Conditions = Vec<(String, u64)>;

fn missing_facts(core: &Core) -> Result<(Vec<Fact>, Conditions)> {
    let (has_config, tokens, tokens_at) = {
        let state = core.journal.state();
        let control = state.control.as_ref();
        let tokens = control.map(|control| control.tokens.clone()).unwrap_or_default();
        (state.config.is_some(), tokens, control.map_or(0, |control| control.head_of("tokens")))
    };
    let (mut facts, mut if_unchanged) = (Vec::new(), Vec::new());
    if !has_config {
        facts.push(Fact::ConfigChanged { number: 1, network: core.settings.network_json.clone() });
        if_unchanged.push(("config".to_owned(), 0));
    }
    let data = &core.settings.data;
    let others = matches!(core.settings.origin.journal, JournalEngine::Redis { .. });
    let has_follow_token = core.own().follow_token.is_some();
    let issued = if tokens.is_empty() { auth::first_tokens(data) } else { auth::lost_tokens(data, &tokens, has_follow_token, others) };
    let issued = issued.with_context(|| format!("failed to write the tokens' files in {}", data.display()))?;
    if !issued.is_empty() {
        if_unchanged.push(("tokens".to_owned(), tokens_at));
    }
    facts.extend(issued);
    Ok((facts, if_unchanged))
}

/// Takes CUBIC for the connections of a listener, which is what most systems take by themselves. BBR holds each one back to
/// four packets for 200 ms every ten seconds (PROBE_RTT, draft-ietf-ccwg-bbr): at 10,000 scopes a second and 75 ms one way
/// that delays the slowest hundredth of all purges by 400 ms. Where the system has no CUBIC, its own choice stays.
fn keep_the_pace(listener: &TcpListener) {
    if let Err(error) = rustix::net::sockopt::set_tcp_congestion(listener, "cubic") {
        tracing::debug!("the feeds use the system's congestion control: {error}");
    }
}

fn serve(core: &Arc<Core>, listener: TcpListener, tls: Option<rustls::ServerConfig>) -> Result<actix_web::dev::Server> {
    let data = web::Data::from(Arc::clone(core));
    keep_the_pace(&listener);
    let server = HttpServer::new(move || App::new().app_data(data.clone()).wrap(from_fn(api::observed)).configure(api::mount))
        .workers(2)
        // A blob's head and body are two writes: held back, the second would wait for the peer's delayed ACK.
        .tcp_nodelay(true)
        .shutdown_timeout(GRACE_S)
        .disable_signals();
    let server = match tls {
        None => server.listen(listener)?,
        Some(tls) => server.listen_rustls_0_23(listener, tls)?,
    };
    Ok(server.run())
}

impl Running {
    /// Returns the address that the control API listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the file that holds the admin's token.
    #[must_use]
    pub fn admin_token(&self) -> &PathBuf {
        &self.admin_token
    }

    /// Tells whether all that has to run until it is stopped does; else something panicked, and it can't go on as it is.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.core.journal.is_written() && !self.tasks.iter().any(JoinHandle::is_finished)
    }

    /// Takes in what may be changed while it runs, of a configuration that was read anew: all of it or nothing. What is
    /// the network's stays as the journal has it.
    ///
    /// # Errors
    /// Where something can't be read, or needs a restart to be changed.
    pub fn reload(&self, settings: &Settings) -> Result<()> {
        let fixed = self.core.settings.origin.needs_restart(&settings.origin);
        if !fixed.is_empty() {
            bail!("a restart is needed to change {}", fixed.join(", "));
        }
        let own = Own::read(&settings.origin).context("failed to get origin.follow_token")?;
        if let (Some(certificate), Some(files)) = (&self.certificate, &settings.origin.tls) {
            certificate.renew(files, Timestamp::now())?;
            self.core.metrics.certificate_ends(certificate.until());
        }
        self.core.set_own(own);
        Ok(())
    }

    /// Stops taking calls, ends the feeds, finishes what is in hand.
    pub async fn stop(self) {
        self.core.stop.cancel();
        self.core.variants.stop();
        let stopped = tokio::time::timeout(Duration::from_secs(GRACE_S + 1), self.server.stop(true)).await;
        if stopped.is_err() {
            tracing::warn!("calls in hand were cut off");
        }
        for task in self.tasks {
            let _ = task.await;
        }
        // Last, so that whoever starts another origin on these files finds them free.
        self.core.journal.close().await;
    }
}
