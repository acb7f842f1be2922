//! Who may speak with whom: TLS between origin, followers and the command line.

use std::process::Command;

use anyhow::{Result, ensure};
use config::Settings;
use edge::Edge;
use harness::eventually;
use origin::Origin;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use wire::Secret;

/// A certificate authority of our own and a certificate for `localhost`, as PEM files in `folder`.
fn write_certificates(folder: &std::path::Path) -> Result<()> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new(vec!["localhost".to_owned()])?.signed_by(&key, &authority)?;
    std::fs::write(folder.join("ca.pem"), authority.pem())?;
    std::fs::write(folder.join("origin.pem"), certificate.pem())?;
    std::fs::write(folder.join("origin.key"), key.serialize_pem())?;
    Ok(())
}

fn text(url: &str) -> String {
    format!(
        "data = \"data\"\n[network]\nlease = \"2s\"\nheartbeat = \"200ms\"\n[origin]\nlisten = \"127.0.0.1:0\"\nurl = \"{url}\"\n\
         ca = \"file:ca.pem\"\ntls = {{ certificate = \"file:origin.pem\", key = \"file:origin.key\" }}\n\
         [regions.fra]\nlatitude = 1\nlongitude = 1\n\
         [edges.fra-1]\nregion = \"fra\"\nlisten = \"127.0.0.1:0\"\nadmin = \"127.0.0.1:0\"\n[sites.www]\nhosts = [\"www.test\"]\n"
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_and_the_command_line_verify_the_origins_certificate() -> Result<()> {
    let folder = tempfile::tempdir()?;
    write_certificates(folder.path())?;
    let file = folder.path().join("atoll.toml");
    let settings = Settings::from_text(&text("https://localhost"), &file, [], [])?;
    let origin = Origin::new(settings.clone()).start().await?;
    let port = origin.address().port();
    let token = Secret::from_text(&std::fs::read_to_string(folder.path().join("data/follow.token"))?);
    let name = "fra-1".parse()?;

    let edge = Edge::new(settings.clone(), &name, token.clone())?.with_origins(vec![format!("https://localhost:{port}")]).start().await?;
    eventually("the edge to have a snapshot over TLS", || async {
        ensure!(edge.is_ready(), "not ready");
        Ok(())
    })
    .await?;
    std::fs::write(&file, text(&format!("https://localhost:{port}")))?;
    let status = |url: String| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_atoll-node"));
        command.arg("-c").arg(&file).arg("status").env("ATOLL_ORIGIN", url).output()
    };
    let trusted = status(format!("https://localhost:{port}"))?;
    let by_another_name = status(format!("https://127.0.0.1:{port}"))?;
    let plain = status(format!("http://localhost:{port}"))?;

    assert!(trusted.status.success(), "{}", String::from_utf8_lossy(&trusted.stderr));
    assert!(String::from_utf8_lossy(&trusted.stdout).contains("fra-1"));
    assert_eq!(by_another_name.status.code(), Some(2), "the certificate is for localhost");
    assert_eq!(plain.status.code(), Some(2), "there is no plain listener beside it");
    edge.stop().await;
    origin.stop().await;
    Ok(())
}
