//! Blobs in a bucket of an S3-compatible store: published, read back, and what becomes of it all while the store is ill.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use config::Settings;
use harness::{Answer, Control, Draft, Faults, HttpFault, S3};
use origin::{Origin, Running};
use serde_json::json;
use tempfile::TempDir;

/// An origin that stores blobs in a bucket.
struct Town {
    folder: TempDir,
    settings: Settings,
    running: Running,
}

impl Town {
    async fn start(store: &S3, endpoint: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let settings = settings(&folder, &store.line(endpoint))?;
        let running = Box::pin(Origin::new(settings.clone()).start()).await?;
        Ok(Self { folder, settings, running })
    }

    fn control(&self) -> Result<Control> {
        let token = std::fs::read_to_string(self.folder.path().join("data/admin.token"))?;
        Control::new(format!("http://{}", self.running.address()), &token)
    }

    async fn restart(self) -> Result<Self> {
        let Self { folder, settings, running } = self;
        Box::pin(running.stop()).await;
        let running = Box::pin(Origin::new(settings.clone()).start()).await?;
        Ok(Self { folder, settings, running })
    }
}

fn settings(folder: &TempDir, line: &str) -> Result<Settings> {
    let text = format!("data = \"data\"\n[origin]\nlisten = \"127.0.0.1:0\"\n{line}[sites.www]\nhosts = [\"*\"]\nmax_file = \"32 MiB\"\n");
    let file = folder.path().join("atoll.toml");
    std::fs::write(&file, &text)?;
    Ok(Settings::from_text(&text, &file, [], [])?)
}

/// Small files, which travel packed, and one that is stored in several parts.
fn draft(word: &str) -> Result<Draft> {
    let large: Vec<u8> = word.bytes().cycle().take(12 << 20).collect();
    let small = (0..40).map(|number| (format!("page-{number}.html"), format!("{word} {number}").into_bytes()));
    Draft::of(small.chain([("large.bin".to_owned(), large)]))
}

async fn publish(control: &Control, draft: &Draft) -> Result<Answer> {
    let started = control.begin("www", &draft.manifest).await?;
    control.upload(draft, &started.missing).await?;
    control.commit("www", &started.id).await
}

async fn all_is_there(control: &Control, draft: &Draft) -> Result<()> {
    for (digest, bytes) in &draft.blobs {
        let answer = control.get(&format!("/v1/blobs/{digest}")).await?.with_status(200)?;
        ensure!(answer.body == bytes.as_slice(), "blob {digest} has other bytes");
    }
    Ok(())
}

fn tells_no_key(said: &str) -> bool {
    !said.contains(S3::ACCESS_KEY) && !said.contains(S3::SECRET_KEY)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_is_published_into_a_bucket_and_is_there_after_a_restart() -> Result<()> {
    let store = S3::start().await?;
    let town = Town::start(&store, &store.endpoint()).await?;
    let draft = draft("one")?;

    publish(&town.control()?, &draft).await?.with_status(200)?;
    all_is_there(&town.control()?, &draft).await?;
    assert_eq!(store.keys().await?.len(), draft.blobs.len() + 1, "each blob once, and the manifest");
    let town = town.restart().await?;

    all_is_there(&town.control()?, &draft).await?;
    let again = town.control()?.begin("www", &draft.manifest).await?;
    assert!(again.missing.is_empty());
    assert_eq!(store.keys().await?.len(), draft.blobs.len() + 1);
    assert!(!town.folder.path().join("data/origin/blobs").exists());
    town.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_bucket_lost_or_spoiled_is_asked_for_again() -> Result<()> {
    let store = S3::start().await?;
    let town = Town::start(&store, &store.endpoint()).await?;
    let (control, draft) = (town.control()?, draft("one")?);
    let (lost, spoiled) = (draft.digest("page-1.html")?, draft.digest("page-2.html")?);
    let started = control.begin("www", &draft.manifest).await?;
    control.upload(&draft, &started.missing).await?;
    for key in store.keys().await? {
        if key.contains(&lost.to_string()) {
            store.delete(&key).await?;
        } else if key.contains(&spoiled.to_string()) {
            store.overwrite(&key, "rot").await?;
        }
    }

    let refused = control.commit("www", &started.id).await?.problem(409)?;
    assert!(refused.detail.contains(&lost.to_string()) || refused.detail.contains(&spoiled.to_string()), "{}", refused.detail);
    // Blobs are looked at side by side: the first that is wrong ends it.
    let mut rounds = 0;
    while control.commit("www", &started.id).await?.status == 409 {
        rounds += 1;
        ensure!(rounds <= 3, "it is never whole");
        let missing = control.begin("www", &draft.manifest).await?.missing;
        control.upload(&draft, &missing).await?;
    }

    all_is_there(&control, &draft).await?;
    town.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_fails_now_and_then_costs_time_and_one_that_fails_always_says_so() -> Result<()> {
    let store = S3::start().await?;
    let relay = Faults::before(store.address()).await?;
    let town = Town::start(&store, &relay.url()).await?;
    let control = town.control()?;

    relay.set(HttpFault::Fails { one_of: 25 });
    let first = draft("one")?;
    publish(&control, &first).await?.with_status(200)?;
    all_is_there(&control, &first).await?;

    relay.set(HttpFault::Fails { one_of: 1 });
    let second = draft("two")?;
    let begun = Instant::now();
    let refused = control.json("POST", "/v1/sites/www/publishes", &second.manifest).await?;
    assert_eq!(refused.header("retry-after"), "1");
    let refused = refused.problem(503)?;
    assert!(
        refused.detail.contains("500") && refused.detail.contains("InternalError") && tells_no_key(&refused.detail),
        "{}",
        refused.detail
    );
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let purged = control.json("POST", "/v1/purges", &json!({ "all": true, "wait": "none" })).await?;
    assert!(matches!(purged.status, 200 | 202), "purges need no blobs: {}", purged.text());

    relay.set(HttpFault::None);
    publish(&control, &second).await?.with_status(200)?;
    all_is_there(&control, &second).await?;
    town.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_keeps_silent_holds_up_no_start_and_no_purge() -> Result<()> {
    let store = S3::start().await?;
    let relay = Faults::before(store.address()).await?;
    relay.set(HttpFault::KeepsSilent);

    let begun = Instant::now();
    let town = Town::start(&store, &relay.url()).await?;
    assert!(begun.elapsed() < Duration::from_secs(25), "{:?}", begun.elapsed());
    let control = town.control()?;
    let purged = control.json("POST", "/v1/purges", &json!({ "all": true, "wait": "none" })).await?;
    assert!(matches!(purged.status, 200 | 202), "{}", purged.text());
    let draft = draft("one")?;
    let refused = control.json("POST", "/v1/sites/www/publishes", &draft.manifest).await?.problem(503)?;
    assert!(tells_no_key(&refused.detail), "{}", refused.detail);

    relay.set(HttpFault::Delays(Duration::from_millis(100)));
    publish(&control, &draft).await?.with_status(200)?;
    all_is_there(&control, &draft).await?;
    town.running.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_with_a_bucket_is_told_at_the_start_and_names_its_key() -> Result<()> {
    let store = S3::start().await?;
    let line = store.line(&store.endpoint());
    let cases = [
        (line.replace(S3::BUCKET, "another"), "there is no bucket `another`"),
        (line.replace(&store.endpoint(), "http://127.0.0.1:1"), "failed to list"),
        (line.replace("secret.key", "lost.key"), "origin.blobs.secret_key"),
    ];
    for (line, said) in cases {
        let folder = tempfile::tempdir()?;
        let failed = Box::pin(Origin::new(settings(&folder, &line)?).start()).await.err().context("it started")?;
        let told = format!("{failed:#}");
        assert!(told.contains("origin.blobs") && told.contains(said) && tells_no_key(&told), "{told}");
    }
    Ok(())
}
