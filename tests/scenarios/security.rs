//! Who may speak with whom: TLS between origin, followers and the command line.

use std::process::Command;

use anyhow::{Result, ensure};
use config::Settings;
use edge::Edge;
use harness::{PATIENCE, Town, eventually, raw};
use origin::Origin;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_refused_before_its_body_is_read_and_is_counted() -> Result<()> {
    let town = Town::plan().start().await?;
    let calls = ["POST /v1/ack", "POST /v1/questions/1", "POST /v1/tokens", "PUT /v1/config", "PUT /v1/sites/www/aliases/production"];
    let bodies = ["POST /v1/purges", "POST /v1/sites/www/publishes", "POST /v1/blobs", "POST /service/default/purge"];

    for call in calls.iter().chain(&bodies) {
        for token in ["", "Authorization: Bearer atoll_0000\r\n"] {
            let request = format!("{call} HTTP/1.1\r\nHost: origin.test\r\n{token}Content-Length: 1000\r\n\r\n");
            let answer = raw(town.origin_address()?, request.as_bytes()).await?;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{call}: {answer}");
        }
    }

    let metrics = town.control()?.get("/metrics").await?.text();
    let expected = format!("atoll_origin_responses_total{{status=\"401\"}} {}", 2 * (calls.len() + bodies.len()));
    assert!(metrics.lines().any(|line| line == expected), "{metrics}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_feed_ends_when_its_token_is_revoked() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let (id, spy) = control.issue(&["follow:edge/spy"]).await?;
    let feed = format!("/v1/feed?role=edge&after={}", control.status().await?.position);

    let feed = tokio::spawn(async move { spy.get(&feed).await });
    eventually("the feed to be open", || async {
        let metrics = control.get("/metrics").await?.text();
        ensure!(metrics.lines().any(|line| line == "atoll_origin_feeds 1"), "{metrics}");
        Ok(())
    })
    .await?;
    control.send("DELETE", &format!("/v1/tokens/{id}"), &[], "").await?.with_status(204)?;

    // An answer is there when its last byte is.
    let seen = tokio::time::timeout(PATIENCE, feed).await???.with_status(200)?;
    assert!(!seen.text().contains(&id), "it saw the event that ended it: {}", seen.text());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_is_revoked_while_its_call_comes_in_does_nothing() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let (id, thief) = control.issue(&["admin"]).await?;
    let body = r#"{"can":["admin"]}"#;
    let mut connection = TcpStream::connect(town.origin_address()?).await?;
    let (first, rest) = body.split_at(5);
    let head = format!(
        "POST /v1/tokens HTTP/1.1\r\nHost: origin.test\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\r\n{first}",
        thief.token(),
        body.len()
    );
    connection.write_all(head.as_bytes()).await?;
    // Whether it was let in by then or is asked for its token behind this: it is revoked.
    control.send("DELETE", &format!("/v1/tokens/{id}"), &[], "").await?.with_status(204)?;
    let before = control.head().await?;

    connection.write_all(rest.as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let read = tokio::time::timeout(PATIENCE, connection.read(&mut answer)).await??;

    let answer = String::from_utf8_lossy(answer.get(..read).unwrap_or_default()).into_owned();
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert_eq!(control.head().await?, before, "nothing was issued");
    town.stop().await;
    Ok(())
}
