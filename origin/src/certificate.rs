//! The certificate that the control API shows, which may be renewed while the origin runs.

use std::sync::Arc;

use anyhow::{Context as _, Result, bail};
use arc_swap::ArcSwap;
use config::TlsFiles;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use wire::Timestamp;
use x509_parser::parse_x509_certificate;

/// A certificate chain and its key, as they were read last. Connections that are open keep what they were shown.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<Shown>);

#[derive(Debug)]
struct Shown(ArcSwap<Pair>);

/// A chain with its key.
#[derive(Debug)]
struct Pair {
    key: Arc<CertifiedKey>,
    /// When its own certificate ends, in seconds since 1970. Of those behind it in the chain clients may leave one out.
    until: i64,
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.load().key))
    }
}

impl Certificate {
    /// Reads both files. One that has expired is shown all the same: it may be the clock that is wrong.
    ///
    /// # Errors
    /// Where one can't be had, is not PEM, or they don't fit.
    pub(crate) fn read(files: &TlsFiles, now: Timestamp) -> Result<Self> {
        let pair = read(files)?;
        if let Err(expired) = pair.check(now) {
            tracing::error!("{expired:#}: neither followers nor the command line trust it");
        }
        Ok(Self(Arc::new(Shown(ArcSwap::from_pointee(pair)))))
    }

    /// Reads both files again, and shows what is in them from now on.
    ///
    /// # Errors
    /// As [`Certificate::read`], and where it is another one and has expired; then all stays as it was.
    pub(crate) fn renew(&self, files: &TlsFiles, now: Timestamp) -> Result<()> {
        let pair = read(files)?;
        if pair.key.cert != self.0.0.load().key.cert {
            pair.check(now)?;
        }
        self.0.0.store(Arc::new(pair));
        Ok(())
    }

    /// Returns when it ends, in seconds since 1970.
    pub(crate) fn until(&self) -> i64 {
        self.0.0.load().until
    }

    /// Returns what a listener needs to show it.
    ///
    /// # Errors
    /// Where there is no version of TLS to speak.
    pub(crate) fn tls(&self) -> Result<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(Arc::new(default_provider())).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_cert_resolver(Arc::clone(&self.0) as Arc<dyn ResolvesServerCert>))
    }
}

impl Pair {
    fn check(&self, now: Timestamp) -> Result<()> {
        if i64::try_from(now.as_secs()).unwrap_or(i64::MAX) < self.until {
            return Ok(());
        }
        let ended = Timestamp::from_millis(u64::try_from(self.until).unwrap_or(0) * 1000);
        bail!("origin.tls.certificate has expired, at {ended}")
    }
}

fn read(files: &TlsFiles) -> Result<Pair> {
    let certificate = files.certificate.read().context("failed to get origin.tls.certificate")?;
    let key = files.key.read().context("failed to get origin.tls.key")?;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("origin.tls.certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("origin.tls.key is not a PEM key")?;
    let own = chain.first().context("origin.tls.certificate has no certificate")?;
    let until = end_of(own).context("origin.tls.certificate is no X.509 certificate")?;
    let key = CertifiedKey::from_der(chain, key, &default_provider()).context("origin.tls: the certificate and the key don't fit")?;
    Ok(Pair { key: Arc::new(key), until })
}

/// Returns when a certificate ends (RFC 5280, 4.1.2.5).
fn end_of(certificate: &CertificateDer<'_>) -> Result<i64> {
    let (_, parsed) = parse_x509_certificate(certificate)?;
    Ok(parsed.validity().not_after.timestamp())
}
