//! The certificate that the control API shows, which may be renewed while the origin runs.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use arc_swap::ArcSwap;
use config::TlsFiles;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

/// A certificate chain and its key, as they were read last. Connections that are open keep what they were shown.
#[derive(Clone, Debug)]
pub(crate) struct Certificate(Arc<Shown>);

#[derive(Debug)]
struct Shown(ArcSwap<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.load_full())
    }
}

impl Certificate {
    /// Reads both files.
    ///
    /// # Errors
    /// Where one can't be had, is not PEM, or they don't fit.
    pub(crate) fn read(files: &TlsFiles) -> Result<Self> {
        Ok(Self(Arc::new(Shown(ArcSwap::from_pointee(read(files)?)))))
    }

    /// Reads both files again, and shows what is in them from now on.
    ///
    /// # Errors
    /// As [`Certificate::read`]; then all stays as it was.
    pub(crate) fn renew(&self, files: &TlsFiles) -> Result<()> {
        self.0.0.store(Arc::new(read(files)?));
        Ok(())
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

fn read(files: &TlsFiles) -> Result<CertifiedKey> {
    let certificate = files.certificate.read().context("failed to get origin.tls.certificate")?;
    let key = files.key.read().context("failed to get origin.tls.key")?;
    let chain = CertificateDer::pem_slice_iter(certificate.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .context("origin.tls.certificate is not PEM")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).context("origin.tls.key is not a PEM key")?;
    CertifiedKey::from_der(chain, key, &default_provider()).context("origin.tls: the certificate and the key don't fit")
}
