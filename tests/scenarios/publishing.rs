//! Publishing a site: what is served, what is sent, how versions change, and what is refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Draft, Town, Visitor, raw};
use serde_json::json;
use wire::{CommitAnswer, Digest, Manifest, pack};

const HOST: &str = "www.test";
const IMMUTABLE: &str = "public, max-age=31536000, immutable";
const REVALIDATED: &str = "public, max-age=0, must-revalidate";

/// A page that is large enough to be worth compressing.
fn page(title: &str) -> String {
    format!("<!doctype html><title>{title}</title><p>{}</p>\n", "an islet of the lagoon ".repeat(60))
}

async fn town() -> Result<Town> {
    Town::plan().edges(&["fra-1", "iad-1", "sin-1"]).start().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_site_is_served_from_every_edge() -> Result<()> {
    let town = town().await?;
    let draft = Draft::of([
        ("index.html", page("home")),
        ("about.html", page("about")),
        ("docs/index.html", page("docs")),
        ("404.html", page("lost")),
        ("assets/app.3b1f9a07.js", "console.log('app');".to_owned()),
        ("logo.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>".to_owned()),
        ("data.json", "{}".to_owned()),
    ])?;

    let published = town.control()?.publish("www", &draft).await?;

    assert_eq!(published.sent.len(), 7);
    assert_eq!(published.receipt.followers.len(), 3);
    for edge in town.visitors()? {
        let cases = [
            ("/", 200, page("home"), "text/html; charset=utf-8", REVALIDATED),
            ("/index.html", 200, page("home"), "text/html; charset=utf-8", REVALIDATED),
            ("/about", 200, page("about"), "text/html; charset=utf-8", REVALIDATED),
            ("/docs/?from=nav", 200, page("docs"), "text/html; charset=utf-8", REVALIDATED),
            ("/nowhere", 404, page("lost"), "text/html; charset=utf-8", REVALIDATED),
            ("/assets/app.3b1f9a07.js", 200, "console.log('app');".to_owned(), "text/javascript; charset=utf-8", IMMUTABLE),
            ("/logo.svg", 200, "<svg xmlns='http://www.w3.org/2000/svg'/>".to_owned(), "image/svg+xml", REVALIDATED),
            ("/data.json", 200, "{}".to_owned(), "application/json", REVALIDATED),
        ];
        for (path, status, body, media_type, kept) in cases {
            let answer = edge.get(HOST, path).await?.with_status(status)?;
            assert_eq!(answer.text(), body, "{path}");
            assert_eq!((answer.header("content-type"), answer.header("cache-control")), (media_type, kept), "{path}");
            assert_eq!(answer.header("etag"), format!("\"{}\"", Digest::of(body.as_bytes())), "{path}");
        }
        let folder = edge.get(HOST, "/docs?a=b").await?.with_status(301)?;
        assert_eq!(folder.header("location"), "/docs/?a=b");
        let head = edge.send("HEAD", HOST, "/", &[]).await?.with_status(200)?;
        assert_eq!((head.header("content-length"), head.body.len()), (page("home").len().to_string().as_str(), 0));
        edge.send("POST", HOST, "/", &[]).await?.with_status(405)?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_names_what_it_has_or_wants_gets_no_more_than_that() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let text = "0123456789".repeat(100);
    town.control()?.publish("www", &Draft::of([("index.html", page("home")), ("digits.txt", text.clone())])?).await?;
    let edge = town.visit("fra-1")?;
    let etag = edge.get(HOST, "/digits.txt").await?.header("etag").to_owned();

    let unchanged = edge.send("GET", HOST, "/digits.txt", &[("if-none-match", etag.as_str())]).await?.with_status(304)?;
    assert_eq!((unchanged.body.len(), unchanged.header("etag")), (0, etag.as_str()));
    edge.send("GET", HOST, "/digits.txt", &[("if-none-match", "\"other\"")]).await?.with_status(200)?;

    let part = edge.send("GET", HOST, "/digits.txt", &[("range", "bytes=10-13")]).await?.with_status(206)?;
    assert_eq!((part.text().as_str(), part.header("content-range")), ("0123", "bytes 10-13/1000"));
    let last = edge.send("GET", HOST, "/digits.txt", &[("range", "bytes=-3")]).await?.with_status(206)?;
    assert_eq!(last.text(), "789");
    let parts = edge.send("GET", HOST, "/digits.txt", &[("range", "bytes=0-1,5-6")]).await?.with_status(206)?;
    assert!(parts.header("content-type").starts_with("multipart/byteranges; boundary="), "{:?}", parts.headers);
    for (range, bytes) in [("bytes 0-1/1000", "\r\n\r\n01\r\n"), ("bytes 5-6/1000", "\r\n\r\n56\r\n")] {
        assert!(parts.text().contains(range) && parts.text().contains(bytes), "{}", parts.text());
    }
    let beyond = edge.send("GET", HOST, "/digits.txt", &[("range", "bytes=1000-")]).await?.with_status(416)?;
    assert_eq!(beyond.header("content-range"), "bytes */1000");
    let stale_range = [("range", "bytes=0-1"), ("if-range", "\"other\"")];
    edge.send("GET", HOST, "/digits.txt", &stale_range).await?.with_status(200)?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_text_is_compressed_for_who_takes_it_and_each_form_has_its_own_etag() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    town.control()?.publish("www", &Draft::of([("index.html", page("home").into_bytes()), ("photo.png", vec![7; 4000])])?).await?;
    let edge = town.visit("fra-1")?;

    let plain = edge.get(HOST, "/").await?.with_status(200)?;
    assert_eq!((plain.header("content-encoding"), plain.header("vary")), ("", "Accept-Encoding"));
    let mut etags = vec![plain.header("etag").to_owned()];
    for (accepted, coding, magic) in
        [("gzip", "gzip", &b"\x1f\x8b"[..]), ("gzip;q=0.5, zstd", "zstd", &b"\x28\xb5\x2f\xfd"[..]), ("br;q=1, gzip;q=0.1", "br", &b""[..])]
    {
        let coded = edge.send("GET", HOST, "/", &[("accept-encoding", accepted)]).await?.with_status(200)?;
        assert_eq!((coded.header("content-encoding"), coded.header("vary")), (coding, "Accept-Encoding"), "{accepted}");
        assert!(coded.body.starts_with(magic) && coded.body.len() < plain.body.len(), "{accepted}");
        assert_eq!(coded.header("etag"), format!("\"{}\"", Digest::of(&coded.body)), "{accepted}");
        etags.push(coded.header("etag").to_owned());
    }
    etags.sort();
    etags.dedup();
    assert_eq!(etags.len(), 4);

    let refused = edge.send("GET", HOST, "/", &[("accept-encoding", "gzip;q=0, br;q=0, zstd;q=0")]).await?;
    assert_eq!(refused.header("content-encoding"), "");
    let photo = edge.send("GET", HOST, "/photo.png", &[("accept-encoding", "gzip, br, zstd")]).await?;
    assert_eq!((photo.header("content-encoding"), photo.header("vary"), photo.body.len()), ("", "", 4000));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_larger_than_memory_wants_comes_whole_and_in_parts() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let large: Vec<u8> = (0..1_500_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    town.control()?.publish("www", &Draft::of([("film.bin", large.clone())])?).await?;
    let edge = town.visit("fra-1")?;

    for _ in 0..2 {
        let part = edge.send("GET", HOST, "/film.bin", &[("range", "bytes=1400000-1400009")]).await?.with_status(206)?;
        let whole = edge.get(HOST, "/film.bin").await?.with_status(200)?;

        assert_eq!(Some(&part.body[..]), large.get(1_400_000..1_400_010));
        assert_eq!((Digest::of(&whole.body), whole.body.len()), (Digest::of(&large), large.len()));
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn republishing_sends_only_what_changed() -> Result<()> {
    let town = town().await?;
    let control = town.control()?;
    let first = Draft::of([("index.html", page("one")), ("same.txt", "same".to_owned()), ("large.bin", "x".repeat(100_000))])?;
    control.publish("www", &first).await?;

    let second = Draft::of([("index.html", page("two")), ("same.txt", "same".to_owned()), ("large.bin", "x".repeat(100_000))])?;
    let published = control.publish("www", &second).await?;
    assert_eq!(published.sent, [second.digest("index.html")?]);
    for edge in town.visitors()? {
        assert_eq!(edge.get(HOST, "/").await?.text(), page("two"));
    }

    let again = control.publish("www", &second).await?;
    assert!(again.sent.is_empty() && again.version == published.version, "{again:?}");
    town.stop().await;
    Ok(())
}

/// Version `n` of a site whose every file tells its version, and whose page names a file of its own.
fn numbered(n: u64) -> Result<Draft> {
    Draft::of([("index.html".to_owned(), numbered_page(n)), ("style.css".to_owned(), numbered_page(n)), (code_path(n), code(n))])
}

fn numbered_page(n: u64) -> String {
    format!("{n} is the version\n{}", page(&n.to_string()))
}

fn code(n: u64) -> String {
    format!("console.log({n});")
}

fn code_path(n: u64) -> String {
    format!("app.{}.js", Digest::of(code(n).as_bytes()).short())
}

/// Reads pages with their files until told to stop. What it saw must be whole, of one version each, and never go back.
async fn read_pages(edge: Visitor, stop: Arc<AtomicBool>) -> Result<(u64, u64)> {
    let (mut newest, mut pages) = (0, 0);
    while !stop.load(Ordering::Acquire) {
        for path in ["/", "/style.css"] {
            let text = edge.get(HOST, path).await?.with_status(200)?.text();
            let version: u64 = text.split(' ').next().unwrap_or_default().parse().with_context(|| text.clone())?;
            ensure!(text == numbered_page(version), "{path} is no version's: {text}");
            ensure!(version >= newest, "{path} is of version {version} after one of {newest}");
            newest = version;
            let asset = edge.get(HOST, &format!("/{}", code_path(version))).await?.with_status(200)?;
            ensure!(asset.text() == code(version), "the page of version {version} got {}", asset.text());
        }
        pages += 1;
    }
    Ok((pages, newest))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switching_versions_under_load_never_shows_a_mixed_page() -> Result<()> {
    let town = town().await?;
    let control = town.control()?;
    control.publish("www", &numbered(1)?).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let edges = town.visitors()?;
    let readers: Vec<_> = edges.iter().chain(&edges).map(|edge| tokio::spawn(read_pages(edge.clone(), Arc::clone(&stop)))).collect();

    let publishing = async {
        for n in 2..=12 {
            control.publish("www", &numbered(n)?).await?;
            for edge in &edges {
                ensure!(edge.get(HOST, "/").await?.text() == numbered_page(n), "an edge shows another version than {n}");
            }
        }
        anyhow::Ok(())
    };
    let published = publishing.await;
    stop.store(true, Ordering::Release);

    for reader in join_all(readers).await {
        let (pages, newest) = reader??;
        assert!(pages > 0 && newest <= 12, "{pages} pages, the newest of version {newest}");
    }
    town.stop().await;
    published
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rollback_is_at_once_everywhere_and_a_second_one_goes_further_back() -> Result<()> {
    let town = town().await?;
    let control = town.control()?;
    let mut versions = Vec::new();
    for n in 1..=3 {
        versions.push(control.publish("www", &numbered(n)?).await?.version);
    }

    for n in [2, 1] {
        let back = control.rollback("www").await?;
        assert_eq!(Some(&back), versions.get(n - 1));
        for edge in town.visitors()? {
            assert_eq!(edge.get(HOST, "/").await?.text(), numbered_page(n as u64));
        }
    }
    assert!(control.rollback("www").await.is_err(), "there is nothing before the first version");

    control.publish("www", &numbered(3)?).await?;
    assert_eq!(Some(&control.rollback("www").await?), versions.first(), "rollbacks themselves don't count");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_file_of_the_former_version_stays_reachable_and_a_plain_one_does_not() -> Result<()> {
    let town = town().await?;
    let control = town.control()?;
    control.publish("www", &Draft::of([("app.3b1f9a07.js", "old"), ("plain.js", "old"), ("index.html", "1")])?).await?;

    control.publish("www", &Draft::of([("app.77c0ffee.js", "new"), ("index.html", "2")])?).await?;

    for edge in town.visitors()? {
        let former = edge.get(HOST, "/app.3b1f9a07.js").await?.with_status(200)?;
        assert_eq!((former.text().as_str(), former.header("cache-control")), ("old", IMMUTABLE));
        edge.get(HOST, "/plain.js").await?.with_status(404)?;
        edge.get(HOST, "/app.00000000.js").await?.with_status(404)?;
    }
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hashed_path_that_gets_other_bytes_warns_and_is_not_immutable() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    control.publish("www", &Draft::of([("app.3b1f9a07.js", "one")])?).await?;

    let published = control.publish("www", &Draft::of([("app.3b1f9a07.js", "two"), ("Read.txt", "a"), ("read.txt", "b")])?).await?;

    let warned = |part: &str| published.warnings.iter().any(|warning| warning.contains(part));
    assert!(warned("app.3b1f9a07.js") && warned("Read.txt"), "{:?}", published.warnings);
    let answer = town.visit("fra-1")?.get(HOST, "/app.3b1f9a07.js").await?;
    assert_eq!((answer.text().as_str(), answer.header("cache-control")), ("two", REVALIDATED));
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_publish_leaves_nothing_visible() -> Result<()> {
    let town = town().await?;
    let control = town.control()?;
    let draft = Draft::of([("index.html", page("never")), ("a.txt", "a".to_owned())])?;
    let head = control.head().await?;

    let started = control.begin("www", &draft.manifest).await?;
    control.upload(&draft, &started.missing).await?;

    for edge in town.visitors()? {
        edge.get(HOST, "/").await?.with_status(404)?;
    }
    assert!(control.versions("www").await?.versions.is_empty());
    control.point("www", "production", started.version, false).await?.problem(404)?;
    assert_eq!(control.head().await?, head);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_resumed_publish_sends_only_what_is_missing() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    let control = town.control()?;
    let draft = Draft::of([("a.txt", "a"), ("b.txt", "b"), ("c.txt", "c")])?;
    let first = control.begin("www", &draft.manifest).await?;
    assert_eq!(first.missing.len(), 3);
    control.upload(&draft, &[draft.digest("b.txt")?]).await?;

    let resumed = control.publish("www", &draft).await?;

    let mut expected = vec![draft.digest("a.txt")?, draft.digest("c.txt")?];
    expected.sort_unstable();
    assert_eq!(resumed.sent, expected);
    assert_eq!(town.visit("fra-1")?.get(HOST, "/b.txt").await?.text(), "b");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_digest_is_refused_and_changes_nothing() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let draft = Draft::of([("a.txt", "right")])?;
    let digest = draft.digest("a.txt")?;
    let started = control.begin("www", &draft.manifest).await?;
    let head = control.head().await?;

    let alone = control.put_blob(&digest, b"wrong").await?.problem(400)?;
    assert!(alone.detail.contains(&digest.to_string()), "{alone:?}");
    let mut packed = Vec::new();
    pack(&mut packed, &digest, b"wrong");
    control.put_pack(packed.clone()).await?.problem(400)?;
    packed.truncate(20);
    control.put_pack(packed).await?.problem(400)?;

    assert_eq!(control.begin("www", &draft.manifest).await?.missing, [digest]);
    control.commit("www", &started.id).await?.problem(409)?;
    assert_eq!(control.head().await?, head);
    control.publish("www", &draft).await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_manifest_that_lies_about_a_size_is_refused_at_commit() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let honest = Draft::of([("a.txt", "abc")])?;
    let mut files = honest.manifest.files.clone();
    files.iter_mut().for_each(|file| file.size += 1);
    let liar = Draft { manifest: Manifest::new(files)?, ..honest };
    let started = control.begin("www", &liar.manifest).await?;
    control.upload(&liar, &started.missing).await?;
    let head = control.head().await?;

    let problem = control.commit("www", &started.id).await?.problem(400)?;

    assert!(problem.detail.contains("a.txt") && problem.detail.contains('4') && problem.detail.contains('3'), "{problem:?}");
    assert_eq!(control.head().await?, head);
    assert!(control.versions("www").await?.versions.is_empty());
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_not_be_meant_is_refused_with_a_problem_and_changes_nothing() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let draft = Draft::of([("a.txt", "a")])?;
    let digest = draft.digest("a.txt")?;
    let head = control.head().await?;

    let unknown = control.json("POST", "/v1/sites/wwww/publishes", &draft.manifest).await?.problem(404)?;
    assert!(unknown.detail.contains("there are: www"), "it names the sites that there are: {unknown:?}");
    control.point("www", "production", digest, false).await?.problem(404)?;
    control.point("www", "Production", digest, false).await?.problem(400)?;
    control.commit("www", "p999").await?.problem(404)?;
    let file = |path: &str, size: u64| json!({ "files": [{ "path": path, "digest": digest, "size": size, "media_type": "text/plain" }] });
    for path in ["../a.txt", "a/../../b", "/etc/passwd", "a//b", "a\\b", "", "a\u{0}b", "."] {
        control.json("POST", "/v1/sites/www/publishes", &file(path, 1)).await?.problem(400)?;
    }
    control.json("POST", "/v1/sites/www/publishes", &json!({ "files": [] })).await?.problem(400)?;
    let large = control.json("POST", "/v1/sites/www/publishes", &file("a.txt", (2 << 20) + 1)).await?.problem(413)?;
    assert!(large.detail.contains("a.txt"), "{large:?}");
    // Exactly one byte too many: the origin must have read all of it before it can know.
    let bytes = vec![0; (2 << 20) + 1];
    control.put_blob(&Digest::of(&bytes), &bytes).await?.problem(413)?;
    control.send("PUT", "/v1/blobs/abc", &[], "a").await?.problem(400)?;
    control.get("/v1/nowhere").await?.problem(404)?;

    assert_eq!(control.head().await?, head);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alias_that_was_moved_by_somebody_else_is_not_moved_back() -> Result<()> {
    let town = Town::plan().start().await?;
    let control = town.control()?;
    let one = control.publish("www", &numbered(1)?).await?.version;
    let two = control.publish("www", &numbered(2)?).await?.version;
    let path = "/v1/sites/www/aliases/production";
    let to_one = json!({ "version": one }).to_string();

    let expected = format!("\"{one}\"");
    control.send("PUT", path, &[("if-match", expected.as_str())], to_one.clone()).await?.problem(412)?;
    let expected = format!("\"{two}\"");
    control.send("PUT", path, &[("if-match", expected.as_str())], to_one).await?.with_status(200)?;

    let started = control.begin("www", &numbered(3)?.manifest).await?;
    control.upload(&numbered(3)?, &started.missing).await?;
    let committed: CommitAnswer = control.commit("www", &started.id).await?.with_status(200)?.json()?;
    control.point("www", "preview", committed.version, false).await?.with_status(200)?;
    let list = control.versions("www").await?;
    assert_eq!((list.versions.len(), list.aliases.len()), (3, 2), "another alias moves by itself");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_no_site_answers_or_that_climbs_gets_its_own_status() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).start().await?;
    town.control()?.publish("www", &Draft::of([("index.html", "home"), ("docs/index.html", "docs")])?).await?;
    let edge = town.visit("fra-1")?;

    edge.get("elsewhere.test", "/").await?.with_status(421)?;
    for (request, status) in [
        ("GET /../../etc/passwd HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n", "404"),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n", "404"),
        ("GET /a/.. HTTP/1.1\r\nHost: WWW.test:80\r\nConnection: close\r\n\r\n", "200"),
        ("GET /docs/index.html HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n", "200"),
        ("GET /docs%2Findex.html HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n", "404"),
        ("GET /%zz HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nHost: u@www.test\r\nConnection: close\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "400"),
    ] {
        let answer = raw(edge.address(), request.as_bytes()).await?;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{request}\n{answer}");
    }
    town.stop().await;
    Ok(())
}
