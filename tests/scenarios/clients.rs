//! The official clients of Fastly and Cloudflare, as they are, pointed at Atoll: what they purge is gone everywhere, and what
//! is refused they understand.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Answer, Reply, Town, Upstream, python_with};
use serde_json::{Value, json};
use wire::Position;

const API: &str = "api.test";

/// Where the scripts are, and the versions of the clients that they import.
const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/clients");

/// What nothing purges but everything.
const BYSTANDERS: [(&str, &str); 3] = [(API, "/bystander-1"), (API, "/bystander-2"), (API, "/bystander-3")];

/// Returns a Python that has the clients.
fn install() -> Result<PathBuf> {
    python_with(&Path::new(SCRIPTS).join("requirements.txt"))
}

/// An official client with its settings.
struct Client {
    python: PathBuf,
    script: &'static str,
    url: String,
    settings: Vec<(&'static str, String)>,
}

impl Client {
    /// Makes calls, each a method with its arguments, and returns what each came to.
    async fn call(&self, calls: Value) -> Result<Vec<Value>> {
        let mut command = Command::new(&self.python);
        // Nothing of whoever runs the tests: neither a proxy nor a real account.
        command.arg("-I").arg(Path::new(SCRIPTS).join(self.script)).arg(&self.url).env_clear().envs(self.settings.clone());
        // A town runs on the same threads, and must not be held up.
        tokio::task::spawn_blocking(move || speak(command, &calls)).await?
    }
}

fn speak(mut command: Command, calls: &Value) -> Result<Vec<Value>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("there is no stdin")?.write_all(calls.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// An upstream whose replies are tagged with their path, in the fields of both CDNs.
async fn tagged_upstream() -> Result<Upstream> {
    let upstream = Upstream::start(|seen| {
        let tag = match seen.target.split('?').next().unwrap_or_default() {
            "/odd" => "topic/a?b",
            path => path.trim_start_matches('/'),
        };
        let reply = Reply::plain(200, format!("{} {}", seen.target, seen.number)).with("Surrogate-Key", tag).with("Cache-Tag", tag);
        reply.with("Cache-Control", "max-age=60, stale-while-revalidate=60")
    });
    Ok(upstream.await?)
}

/// Asks each edge until each page comes from its cache.
async fn warm(town: &Town, pages: &[(&str, &str)]) -> Result<()> {
    for edge in town.visitors()? {
        for (host, path) in pages {
            edge.hit(host, path).await?;
        }
    }
    Ok(())
}

/// Asks each edge once for each page, and returns the answers that came from a cache.
async fn hits(town: &Town, pages: &[(&str, &str)]) -> Result<Vec<Answer>> {
    let mut hits = Vec::new();
    for edge in town.visitors()? {
        for (host, path) in pages {
            hits.push(edge.get(host, path).await?.with_status(200)?);
        }
    }
    hits.retain(Answer::is_hit);
    Ok(hits)
}

/// Two scopes may share a slot of the purge table, which costs a miss; so of three bystanders two must stay.
async fn bystanders_stay(town: &Town) -> Result<()> {
    let stayed = hits(town, &BYSTANDERS).await?.len();
    ensure!(stayed >= 6, "{stayed} of 3 bystanders at 3 edges stayed");
    Ok(())
}

async fn soft_purged_stays_stale(town: &Town) -> Result<()> {
    for edge in town.visitors()? {
        let stale = edge.get(API, "/soft").await?.with_status(200)?;
        ensure!(stale.cache_status().contains("detail=soft-purged"), "{}", stale.cache_status());
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fastly_s_official_client_purges_every_edge() -> Result<()> {
    let python = tokio::task::spawn_blocking(install).await??;
    let town = Town::of_three(&tagged_upstream().await?).await?;
    let (_, purger) = town.control()?.issue(&["purge:default"]).await?;
    let settings = vec![("FASTLY_API_TOKEN", purger.token().to_owned())];
    let client = Client { python, script: "fastly_client.py", url: format!("http://{}", town.origin_address()?), settings };
    let pages = ["/key", "/odd", "/batch-1", "/batch-2", "/batch-3", "/url?a=%2Fb"].map(|path| (API, path));
    warm(&town, &pages).await?;
    warm(&town, &[(API, "/soft")]).await?;
    warm(&town, &BYSTANDERS).await?;

    let calls = json!([
        ["purge_tag", { "service_id": "default", "surrogate_key": "key" }],
        ["purge_tag", { "service_id": "default", "surrogate_key": "topic/a?b" }],
        ["bulk_purge_tag", { "service_id": "default", "surrogate_key": "batch-1 batch-2" }],
        ["bulk_purge_tag", { "service_id": "default", "purge_response": { "surrogate_keys": ["batch-3"] } }],
        ["purge_single_url", { "cached_url": "https://api.test/url?a=%2Fb" }],
        ["purge_tag", { "service_id": "default", "surrogate_key": "soft", "fastly_soft_purge": 1 }],
        ["purge_tag", { "service_id": "other", "surrogate_key": "key" }],
    ]);
    let said = client.call(calls).await?;

    for one in [0, 1, 4, 5] {
        assert_eq!(said[one]["status"], "ok", "{said:?}");
        assert!(said[one]["id"].as_str().is_some_and(|id| id.parse::<Position>().is_ok()), "{said:?}");
    }
    assert_eq!(said[2].as_object().map(|ids| ids.keys().cloned().collect::<Vec<_>>().join(" ")).as_deref(), Some("batch-1 batch-2"));
    assert!(said[3]["batch-3"].is_string(), "{said:?}");
    assert_eq!((&said[6]["raised"], &said[6]["status"]), (&json!("ForbiddenException"), &json!(403)), "{said:?}");
    assert!(said[6]["body"]["msg"].is_string() && said[6]["body"]["detail"].is_string(), "{said:?}");
    soft_purged_stays_stale(&town).await?;
    bystanders_stay(&town).await?;
    let left = hits(&town, &pages).await?;
    assert!(left.is_empty(), "{left:?}");

    warm(&town, &BYSTANDERS).await?;
    assert_eq!(client.call(json!([["purge_all", { "service_id": "default" }]])).await?, [json!({ "status": "ok" })]);
    let left = hits(&town, &BYSTANDERS).await?;
    assert!(left.is_empty(), "{left:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cloudflare_s_official_client_finds_its_zone_and_purges_every_edge() -> Result<()> {
    let python = tokio::task::spawn_blocking(install).await??;
    let town = Town::of_three(&tagged_upstream().await?).await?;
    let (_, purger) = town.control()?.issue(&["purge:default"]).await?;
    let url = format!("http://{}/client/v4", town.origin_address()?);
    let settings = vec![("CLOUDFLARE_API_TOKEN", purger.token().to_owned())];
    let client = Client { python: python.clone(), script: "cloudflare_client.py", url: url.clone(), settings };
    let pages = [(API, "/file-1"), (API, "/file-2?a=%2Fb"), (API, "/tag-1"), (API, "/tag-2"), (API, "/prefix/a"), ("www.test", "/api/a")];
    warm(&town, &pages).await?;
    warm(&town, &[(API, "/soft")]).await?;
    warm(&town, &BYSTANDERS).await?;

    let calls = json!([
        ["user.tokens.verify", {}],
        ["zones.list", { "name": API }],
        ["zones.get", { "zone_id": "default" }],
        ["cache.purge", { "zone_id": "default", "files": ["https://api.test/file-1"] }],
        ["cache.purge", { "zone_id": "default", "files": [{ "url": "http://api.test/file-2?a=%2Fb", "headers": { "Origin": "a" } }] }],
        ["cache.purge", { "zone_id": "default", "tags": ["tag-1", "tag-2"] }],
        ["cache.purge", { "zone_id": "default", "prefixes": ["api.test/prefix"] }],
        ["cache.purge", { "zone_id": "default", "hosts": ["www.test"] }],
        ["cache.invalidate", { "zone_id": "default", "tags": ["soft"] }],
        ["cache.purge", { "zone_id": "other", "purge_everything": true }],
    ]);
    let said = client.call(calls).await?;

    assert_eq!(said[0]["status"], "active", "{said:?}");
    assert_eq!((&said[1][0]["id"], &said[1][0]["name"], &said[1][1]), (&json!("default"), &json!(API), &Value::Null), "{said:?}");
    assert_eq!(said[2]["id"], "default", "{said:?}");
    for purge in &said[3..9] {
        assert!(purge["id"].as_str().is_some_and(|id| id.parse::<Position>().is_ok()), "{said:?}");
    }
    assert_eq!((&said[9]["raised"], &said[9]["body"]["errors"][0]["code"]), (&json!("PermissionDeniedError"), &json!(9109)), "{said:?}");
    soft_purged_stays_stale(&town).await?;
    bystanders_stay(&town).await?;
    let left = hits(&town, &pages).await?;
    assert!(left.is_empty(), "{left:?}");

    warm(&town, &BYSTANDERS).await?;
    let settings = vec![("CLOUDFLARE_EMAIL", "someone@example.com".to_owned()), ("CLOUDFLARE_API_KEY", purger.token().to_owned())];
    let older = Client { python, script: "cloudflare_client.py", url, settings };
    let said = older.call(json!([["cache.purge", { "zone_id": "default", "purge_everything": true }]])).await?;
    assert!(said[0]["id"].is_string(), "{said:?}");
    let left = hits(&town, &BYSTANDERS).await?;
    assert!(left.is_empty(), "{left:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_is_told_in_the_words_of_the_api_that_was_spoken_and_changes_nothing() -> Result<()> {
    let town = Town::plan().upstream(&tagged_upstream().await?).start().await?;
    let admin = town.control()?;
    let (_, purger) = admin.issue(&["purge:default"]).await?;
    let (nobody, stranger) = (admin.with_token(""), admin.with_token("atoll_00"));
    let head = admin.head().await?;

    let staging = ("fastly-purge-environment", "staging");
    for (who, path, field, body, status, part) in [
        (&nobody, "/service/default/purge/a", None, "", 401, "Bearer"),
        (&stranger, "/service/default/purge_all", None, "", 401, "unknown"),
        (&stranger, "/purge/api.test/a", None, "", 401, "unknown"),
        (&purger, "/service/other/purge/a", None, "", 403, "purge:other"),
        (&admin, "/service/nobody/purge/a", None, "", 404, "`nobody`"),
        (&admin, "/service/SU1Z0isxPaozGVKXdv0eY/purge_all", None, "", 404, "SU1Z0isxPaozGVKXdv0eY"),
        (&purger, "/service/default/purge", None, "", 400, "no surrogate keys"),
        (&purger, "/service/default/purge", None, "{", 400, "not JSON"),
        (&purger, "/service/default/purge/two%20words", None, "", 400, "two words"),
        (&purger, "/service/default/purge/a", Some(staging), "", 400, "staging"),
        (&purger, "/purge/ftp://api.test/", None, "", 400, "ftp"),
    ] {
        let refused = who.send("POST", path, field.as_slice(), body).await?.with_status(status)?;
        let told: Value = refused.json()?;
        assert!(told["msg"].is_string() && told["detail"].as_str().is_some_and(|detail| detail.contains(part)), "{path}: {told}");
        assert_eq!((refused.header("content-type"), refused.headers.contains_key("www-authenticate")), ("application/json", status == 401));
    }

    let purge = "/client/v4/zones/default/purge_cache";
    for (who, path, body, status, code, part) in [
        (&nobody, purge, "{}", 401, 10000, "Bearer"),
        (&stranger, purge, "{}", 401, 10000, "unknown"),
        (&purger, "/client/v4/zones/other/purge_cache", "{}", 403, 9109, "purge:other"),
        (&admin, "/client/v4/zones/023e105f4ecef8ad9ca31a8372d0c353/purge_cache", "{}", 404, 7003, "023e105f"),
        (&purger, "/client/v4/zones/default/settings", "{}", 404, 7000, "/settings"),
        (&purger, purge, "", 400, 6007, "not JSON"),
        (&purger, purge, "{}", 400, 1012, "nothing to purge"),
        (&purger, purge, r#"{"files":["/no-host"]}"#, 400, 1012, "/no-host"),
        (&purger, purge, r#"{"tags":["a"],"hosts":["a/b"]}"#, 400, 1012, "hosts[0]"),
    ] {
        let refused = who.send("POST", path, &[], body).await?.with_status(status)?;
        let told: Value = refused.json()?;
        let error = &told["errors"][0];
        assert_eq!((&told["success"], &told["result"], &error["code"]), (&json!(false), &Value::Null, &json!(code)), "{path}: {told}");
        assert!(error["message"].as_str().is_some_and(|said| said.contains(part)), "{path}: {told}");
    }

    assert_eq!(admin.head().await?, head);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn plugins_find_what_they_ask_for_and_their_keys_are_tokens() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).upstream(&tagged_upstream().await?).start().await?;
    let (_, purger) = town.control()?.issue(&["purge:default", "purge:gone"]).await?;
    let (bare, key) = (purger.with_token(""), purger.token());
    let (fastly, cloudflare) = ([("fastly-key", key)], [("x-auth-key", key), ("x-auth-email", "someone@example.com")]);

    let token: Value = bare.send("GET", "/tokens/self", &fastly, "").await?.with_status(200)?.json()?;
    assert_eq!((&token["scopes"], &token["services"]), (&json!(["purge_select", "purge_all"]), &json!(["default"])), "{token}");
    let service: Value = bare.send("GET", "/service/default", &fastly, "").await?.with_status(200)?.json()?;
    assert_eq!(service["name"], "default");
    for (query, expected) in [
        ("?name=www.test", json!(["www.test"])),
        ("?name=test&status=active&per_page=1", json!(["test"])),
        ("?name=elsewhere.example", json!([])),
        ("?name=www.test&page=2", json!([])),
        ("/?name=api.test", json!([API])),
        ("", json!(["www.test"])),
    ] {
        let page: Value = bare.send("GET", &format!("/client/v4/zones{query}"), &cloudflare, "").await?.with_status(200)?.json()?;
        let zones = page["result"].as_array().context("no zones")?;
        assert!(zones.iter().all(|zone| zone["id"] == "default"), "{page}");
        let names: Value = zones.iter().map(|zone| zone["name"].clone()).collect();
        assert_eq!((&names, &page["result_info"]["total_pages"]), (&expected, &json!(1)), "{query}: {page}");
    }

    town.visit("fra-1")?.hit(API, "/key").await?;
    let everything = r#"{"purge_everything":true}"#;
    let purged = bare.send("DELETE", "/client/v4/zones/default/purge_cache", &cloudflare, everything).await?.with_status(200)?;
    let told: Value = purged.json()?;
    assert_eq!((&told["success"], &told["errors"], &told["messages"]), (&json!(true), &json!([]), &json!([])), "{told}");
    assert!(purged.header("atoll-purge").starts_with("complete; seq="), "{:?}", purged.headers);
    assert!(!town.visit("fra-1")?.get(API, "/key").await?.is_hit());

    town.visit("fra-1")?.hit(API, "/key").await?;
    let purged = bare.send("POST", "/service/default/purge/key", &fastly, "").await?.with_status(200)?;
    let seq = purged.header("atoll-purge").strip_prefix("complete; seq=").with_context(|| format!("{:?}", purged.headers))?;
    assert!(!town.visit("fra-1")?.get(API, "/key").await?.is_hit());
    assert_eq!(town.control()?.complete(seq.parse()?).await?.position.to_string(), purged.json::<Value>()?["id"]);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_makes_a_purge_of_either_api_one_and_a_wrong_query_is_told_in_its_words() -> Result<()> {
    let town = Town::plan().upstream(&tagged_upstream().await?).start().await?;
    let control = town.control()?;
    let key = [("idempotency-key", "deploy-7")];
    for (path, body) in [
        ("/service/default/purge/key", ""),
        ("/service/default/purge", r#"{"surrogate_keys":["a","b"]}"#),
        ("/service/default/purge_all", ""),
        ("/purge/api.test/a", ""),
        ("/client/v4/zones/default/purge_cache", r#"{"tags":["c"]}"#),
        ("/client/v4/zones/default/invalidate_cache", r#"{"tags":["c"]}"#),
    ] {
        let (_, purger) = control.issue(&["purge:default"]).await?;
        let first = purger.send("POST", path, &key, body).await?.with_status(200)?;
        let head = control.head().await?;
        let second = purger.send("POST", path, &key, body).await?.with_status(200)?;
        assert_eq!((first.header("atoll-purge"), control.head().await?), (second.header("atoll-purge"), head), "{path}");
        assert_eq!(first.header("cache-control"), "no-store", "{path}");
        purger.send("POST", path, &[("idempotency-key", "two words")], body).await?.with_status(400)?;
        control.json("POST", "/v1/purges", &json!({ "tags": ["again"], "wait": "none" })).await?.with_status(200)?;
    }

    let told: Value = control.get("/client/v4/zones?name=a&name=b").await?.with_status(400)?.json()?;
    assert_eq!((&told["success"], &told["errors"][0]["code"]), (&json!(false), &json!(1012)), "{told}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_that_is_not_everywhere_within_seconds_is_accepted_and_says_so() -> Result<()> {
    let mut town = Town::plan().edges(&["fra-1", "sin-1"]).upstream(&tagged_upstream().await?).start().await?;
    let control = town.control()?;
    // Its lease runs on: until it ends nobody knows what that edge answers.
    town.cut("sin-1")?;

    let key = control.send("POST", "/service/default/purge/key", &[], "");
    let tag = control.send("POST", "/client/v4/zones/default/purge_cache", &[], r#"{"tags":["key"],"files":["elsewhere.example/"]}"#);
    let (key, tag) = tokio::try_join!(key, tag)?;

    for purged in [&key, &tag] {
        assert_eq!(purged.status, 200);
        assert!(purged.header("atoll-purge").starts_with("pending; seq="), "{:?}", purged.headers);
    }
    assert_eq!(key.json::<Value>()?["status"], "ok");
    let told: Value = tag.json()?;
    assert_eq!((&told["success"], &told["messages"][0]["code"], &told["messages"][1]["code"]), (&json!(true), &json!(2001), &json!(2003)));
    town.stop().await;
    Ok(())
}
