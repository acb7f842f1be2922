//! Counting what a purge would take before it takes it.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use harness::{Answer, Control, Reply, Town, Upstream, Visitor, eventually};
use wire::{Counted, Mode, PlannedEdge, PurgePlan, PurgeRequest, QuestionAnswer, Wait};

const API: &str = "api.test";
const SITE: &str = "www.test";

/// One variant of a URL.
#[derive(Clone, Copy, Debug)]
struct Item {
    host: &'static str,
    path: &'static str,
    language: &'static str,
}

const fn item(host: &'static str, path: &'static str, language: &'static str) -> Item {
    Item { host, path, language }
}

const ITEMS: &[Item] = &[
    item(API, "/a/1", "en"),
    item(API, "/a/1", "de"),
    item(API, "/b/1", "en"),
    item(SITE, "/api/c", "en"),
    item(API, "/a/2", "en"),
    item(API, "/b/2?x=1", "de"),
    item(SITE, "/api/d", "en"),
];

impl Item {
    async fn ask(&self, edge: &Visitor) -> Result<Answer> {
        edge.send("GET", self.host, self.path, &[("accept-language", self.language)]).await?.with_status(200)
    }

    /// Asks until it is held.
    async fn keep(&self, edge: &Visitor) -> Result<()> {
        eventually(&format!("{self:?} to be held"), || async {
            let answer = self.ask(edge).await?;
            ensure!(answer.is_hit(), "{}", answer.cache_status());
            Ok(())
        })
        .await
    }
}

/// Replies that vary by language, are tagged by their first segment, and outlast every scenario.
async fn varied_upstream() -> Result<Upstream> {
    let script = |seen: &harness::Seen| {
        let tag = format!("t-{}", seen.target.split('/').nth(1).unwrap_or_default());
        let reply = Reply::plain(200, "held ".repeat(200)).with("Cache-Control", "max-age=600").with("ETag", "\"v1\"");
        match seen.header("range") {
            Some("bytes=0-3") => Reply::plain(206, "held")
                .with("Cache-Control", "max-age=600")
                .with("ETag", "\"v1\"")
                .with("Content-Range", "bytes 0-3/1000"),
            _ => reply.with("Vary", "Accept-Language").with("Surrogate-Key", &tag),
        }
    };
    Ok(Upstream::start(script).await?)
}

/// Asks what would be purged, and gives every edge that can answer the time to do so.
async fn dry_run(control: &Control, request: &PurgeRequest) -> Result<PurgePlan> {
    let request = PurgeRequest { dry_run: true, timeout_ms: Some(30_000), ..request.clone() };
    control.send_purge(&request).await?.with_status(200)?.json()
}

fn of<'a>(plan: &'a PurgePlan, edge: &str) -> Result<&'a PlannedEdge> {
    plan.edges.iter().find(|planned| planned.name.as_str() == edge).with_context(|| format!("there is no {edge} in {plan:?}"))
}

/// Returns what an edge said: URLs, and their variants.
fn counted(plan: &PurgePlan, edge: &str) -> Result<(Option<u64>, Option<u64>)> {
    of(plan, edge).map(|planned| (planned.urls, planned.entries))
}

fn one(text: &str) -> Vec<String> {
    vec![text.to_owned()]
}

fn all() -> PurgeRequest {
    PurgeRequest { all: true, ..PurgeRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dry_run_counts_at_each_edge_what_the_purge_then_takes_and_takes_nothing() -> Result<()> {
    let upstream = varied_upstream().await?;
    let town = Town::of_three(&upstream).await?;
    let control = town.control()?;
    let shares = [("fra-1", ITEMS), ("iad-1", &ITEMS[..4]), ("sin-1", &ITEMS[..0])];
    let cases: [(PurgeRequest, fn(&Item) -> bool); 5] = [
        (PurgeRequest { tags: one("t-a"), ..PurgeRequest::default() }, |item| item.path.starts_with("/a/")),
        (PurgeRequest { urls: one("https://API.test:8081/a/1"), ..PurgeRequest::default() }, |item| item.path == "/a/1"),
        (PurgeRequest { prefixes: one("api.test/b/"), ..PurgeRequest::default() }, |item| item.path.starts_with("/b/")),
        (PurgeRequest { sites: one("www"), ..PurgeRequest::default() }, |item| item.host == SITE),
        (all(), |_| true),
    ];
    for (request, is_meant) in cases {
        for (edge, share) in shares {
            for item in share {
                item.keep(&town.visit(edge)?).await?;
            }
        }
        let head = control.head().await?;

        let plan = dry_run(&control, &request).await?;

        assert_eq!(control.head().await?, head, "nothing was purged");
        assert!(!plan.scopes.is_empty() && plan.edges.len() == shares.len(), "{plan:?}");
        for (edge, share) in shares {
            for item in share {
                let answer = item.ask(&town.visit(edge)?).await?;
                assert!(answer.is_hit(), "{edge} lost {item:?}: {}", answer.cache_status());
            }
        }
        control.purge(&request).await?;
        assert_eq!(dry_run(&control, &request).await?.total, Counted::default(), "what is gone can't be purged again");
        let mut total = Counted::default();
        for ((edge, share), planned) in shares.into_iter().zip(&plan.edges) {
            let (visitor, mut gone) = (town.visit(edge)?, Vec::new());
            for item in share {
                if !item.ask(&visitor).await?.is_hit() {
                    gone.push(item);
                }
            }
            let urls: BTreeSet<_> = gone.iter().map(|item| (item.host, item.path)).collect();
            let (urls, entries) = (urls.len() as u64, gone.len() as u64);
            // Two scopes may share a slot of the purge table: then more is taken, and as much more was counted.
            let meant = share.iter().filter(|item| is_meant(item)).count();
            assert!(gone.len() >= meant, "{edge}: {request:?} took {gone:?}");
            assert_eq!((planned.name.as_str(), counted(&plan, edge)?), (edge, (Some(urls), Some(entries))), "{request:?}");
            let bytes = planned.bytes.context("it counted entries and no bytes")?;
            assert!(bytes >= entries * 1000 && (bytes > 0) == (entries > 0), "{edge}: {bytes} bytes");
            total = total.and(Counted { urls, entries, bytes });
        }
        assert_eq!(plan.total, total);
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn variants_and_parts_count_and_what_is_invalid_already_does_not() -> Result<()> {
    let upstream = varied_upstream().await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let (edge, control) = (town.visit("fra-1")?, town.control()?);
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(0), Some(0)), "it holds nothing");

    for language in ["en", "de", "fr"] {
        item(API, "/many", language).keep(&edge).await?;
    }
    let of_url = PurgeRequest { urls: one("api.test/many"), ..PurgeRequest::default() };
    assert_eq!(counted(&dry_run(&control, &of_url).await?, "fra-1")?, (Some(1), Some(3)));

    eventually("a part to be held", || async {
        let answer = edge.send("GET", API, "/part", &[("range", "bytes=0-3")]).await?.with_status(206)?;
        ensure!(answer.is_hit(), "{}", answer.cache_status());
        Ok(())
    })
    .await?;
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(2), Some(4)));

    control.purge(&all()).await?;
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(0), Some(0)), "it was purged");

    item(API, "/many", "en").keep(&edge).await?;
    control.purge(&PurgeRequest { mode: Mode::Soft, ..all() }).await?;
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(1), Some(1)), "what is stale may still be used");

    control.apply(&town.text().replace("upstream = \"api\"\n", "upstream = \"api\"\ncompress = false\n")).await?;
    control.complete(control.head().await?).await?;
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(0), Some(0)), "its route has other settings");

    item(API, "/many", "en").keep(&edge).await?;
    assert_eq!(counted(&dry_run(&control, &all()).await?, "fra-1")?, (Some(1), Some(1)));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_an_edge_that_is_cut_off_nothing_is_known_and_the_others_are_counted() -> Result<()> {
    let upstream = varied_upstream().await?;
    let mut town = Town::plan().edges(&["fra-1", "sin-1"]).upstream(&upstream).start().await?;
    let control = town.control()?;
    for edge in town.visitors()? {
        item(API, "/a/1", "en").keep(&edge).await?;
    }
    let by_default = PurgeRequest { dry_run: true, ..all() };
    let ask = || async { control.send_purge(&by_default).await?.with_status(200)?.json::<PurgePlan>() };

    town.cut("sin-1")?;
    let partly = eventually("one edge to be counted and the other not", || async {
        let plan = ask().await?;
        ensure!(of(&plan, "fra-1")?.entries.is_some() && of(&plan, "sin-1")?.entries.is_none(), "{plan:?}");
        Ok(plan)
    })
    .await?;

    let silent = of(&partly, "sin-1")?;
    assert_eq!((silent.region.as_str(), silent.urls, silent.bytes), ("sin", None, None));
    assert_eq!((counted(&partly, "fra-1")?, partly.total.entries), ((Some(1), Some(1)), 1));

    town.mend("sin-1")?;
    eventually("both edges to be counted", || async {
        let plan = ask().await?;
        ensure!(counted(&plan, "sin-1")? == (Some(1), Some(1)) && plan.total.entries == 2, "{plan:?}");
        Ok(())
    })
    .await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_purge_may_count_and_who_speaks_for_an_edge_answers_for_it_alone() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let (_, purger) = control.issue(&["purge:default"]).await?;
    let (_, reader) = control.issue(&["read"]).await?;
    let (_, other_edge) = control.issue(&["follow:edge/iad-1"]).await?;

    assert_eq!(counted(&dry_run(&purger, &all()).await?, "fra-1")?, (Some(0), Some(0)));
    reader.send_purge(&PurgeRequest { dry_run: true, ..all() }).await?.problem(403)?;
    let unasked = PurgeRequest { dry_run: true, wait: Wait::None, ..all() };
    let unasked: PurgePlan = control.send_purge(&unasked).await?.with_status(200)?.json()?;
    assert!(unasked.edges.is_empty() && unasked.scopes.len() == 1, "{unasked:?}");

    let answer = QuestionAnswer { follower: "fra-1".parse()?, counted: Counted::default() };
    for stranger in [&purger, &other_edge] {
        stranger.json("POST", "/v1/questions/1", &answer).await?.problem(403)?;
    }
    let late = control.json("POST", "/v1/questions/1", &answer).await?.problem(404)?;
    assert!(late.detail.contains("nobody waits"), "{late:?}");
    control.json("POST", "/v1/questions/one", &answer).await?.problem(400)?;
    town.stop().await;
    Ok(())
}
