//! Upstreams that are down: what may be served stale is, and nobody waits for them more than once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Result, ensure};
use harness::{Reply, Town, Upstream, eventually};

const API: &str = "api.test";
const KEYS: usize = 40;

/// As many failures in a row are needed before an upstream is left alone.
const ACCIDENTS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_21_while_an_upstream_is_down_every_key_in_its_window_is_served_and_it_is_probed_once_a_second() -> Result<()> {
    let is_down = Arc::new(AtomicBool::new(false));
    let down = Arc::clone(&is_down);
    let upstream = Upstream::start(move |seen| {
        if down.load(Ordering::Acquire) {
            return Reply::plain(503, "down");
        }
        let lifetime = if seen.target.contains("strict") { "max-age=1, must-revalidate" } else { "max-age=1, stale-if-error=3600" };
        Reply::plain(200, seen.target.clone()).with("Cache-Control", lifetime).with("Age", "60").with("ETag", "\"a\"")
    });
    let upstream = upstream.await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;
    let keys: Vec<_> = (0..KEYS).map(|n| format!("/key/{n}")).collect();
    for key in keys.iter().map(String::as_str).chain(["/strict"]) {
        edge.get(API, key).await?.with_status(200)?;
    }
    let asked = || keys.iter().map(|key| upstream.count(key)).sum::<usize>();

    is_down.store(true, Ordering::Release);
    let (before, since) = (asked(), Instant::now());
    for _ in 0..3 {
        for key in &keys {
            let answer = edge.get(API, key).await?.with_status(200)?;
            assert_eq!(&answer.text(), key);
            assert!(answer.cache_status().contains("detail=stale-if-error"), "{}", answer.cache_status());
        }
    }
    let probes = asked() - before;
    let most = ACCIDENTS + 2 + usize::try_from(since.elapsed().as_secs())?;
    assert!(probes <= most, "asked {probes} times where {most} would have done");
    edge.get(API, "/strict").await?.with_status(503)?;

    is_down.store(false, Ordering::Release);
    eventually("the upstream to be found well again", || async {
        let answer = edge.get(API, "/key/0").await?;
        ensure!(!answer.cache_status().contains("stale-if-error"), "{}", answer.cache_status());
        Ok(())
    })
    .await?;
    town.stop().await;
    Ok(())
}
