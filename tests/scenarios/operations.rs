//! What whoever runs a fleet does to its nodes: tells them to end, to read their files again, asks how they are, and
//! lets a service manager look after them.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, ensure};
use harness::{
    Collector, Control, ExportedSpan, PATIENCE, Process, RedisOptions, RedisServer, Reply, Upstream, ask_over_udp, eventually, free_port,
    raw,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use wire::PurgeRequest;

const ATOLL: &str = env!("CARGO_BIN_EXE_atoll-node");

const NAME: &str = "www.example.test";

/// A file of one origin, two edges and a DNS node, in a folder of their own.
struct House {
    folder: tempfile::TempDir,
    origin: u16,
    edges: [(u16, u16); 2],
    dns: (u16, u16),
}

impl House {
    fn new(drain: &str) -> Result<Self> {
        let house = Self {
            folder: tempfile::tempdir()?,
            origin: free_port()?,
            edges: [(free_port()?, free_port()?), (free_port()?, free_port()?)],
            dns: (free_port()?, free_port()?),
        };
        house.write(&house.text(drain))?;
        Ok(house)
    }

    fn text(&self, drain: &str) -> String {
        let [(one, one_admin), (two, two_admin)] = self.edges;
        let (origin, (dns, dns_admin)) = (self.origin, self.dns);
        format!(
            "data = \"data\"\ndrain = \"{drain}\"\n[network]\nname = \"house\"\nlease = \"5s\"\nheartbeat = \"200ms\"\n\
             [origin]\nlisten = \"127.0.0.1:{origin}\"\nurl = \"http://127.0.0.1:{origin}\"\n\
             [regions.fra]\nlatitude = 50.11\nlongitude = 8.68\n\
             [edges.fra-1]\nregion = \"fra\"\nlisten = \"127.0.0.1:{one}\"\nadmin = \"127.0.0.1:{one_admin}\"\nmemory = \"32 MiB\"\n\
             answers = [\"192.0.2.1\"]\n\
             [edges.fra-2]\nregion = \"fra\"\nlisten = \"127.0.0.1:{two}\"\nadmin = \"127.0.0.1:{two_admin}\"\nmemory = \"32 MiB\"\n\
             answers = [\"192.0.2.2\"]\n\
             [dns.ns-1]\nlisten = \"127.0.0.1:{dns}\"\nadmin = \"127.0.0.1:{dns_admin}\"\n\
             [zones.\"example.test\"]\nnameservers = {{ \"ns1.example.test\" = [\"127.0.0.1\"] }}\nsteered = [\"www\"]\n\
             [sites.www]\nhosts = [\"*\"]\n"
        )
    }

    fn route_to(upstream: &Upstream) -> String {
        format!(
            "[upstreams.api]\nservers = [\"http://{}\"]\n[routes.api]\nhosts = [\"api.test\"]\nupstream = \"api\"\n",
            upstream.address()
        )
    }

    fn control(&self) -> Result<Control> {
        let token = fs::read_to_string(self.folder.path().join("data/admin.token"))?;
        Control::new(format!("http://127.0.0.1:{}", self.origin), &token)
    }

    fn write(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join("atoll.toml"), text)?)
    }

    /// Starts a node and waits until it is ready. What it says comes with every failure.
    async fn start(&self, node: &[&str], admin: u16) -> Result<Process> {
        let folder = self.folder.path().join(node.join("-"));
        fs::create_dir_all(&folder)?;
        let file = self.folder.path().join("atoll.toml");
        let process = Process::spawn(ATOLL, &[node, &["-c", &file.to_string_lossy()]].concat(), &folder)?;
        readiness(&process, admin, 200).await?;
        Ok(process)
    }

    async fn all(&self) -> Result<[Process; 4]> {
        let origin = self.start(&["origin"], self.origin).await?;
        let [(_, one), (_, two)] = self.edges;
        let edges = (self.start(&["edge", "fra-1"], one).await?, self.start(&["edge", "fra-2"], two).await?);
        let dns = self.start(&["dns", "ns-1"], self.dns.1).await?;
        Ok([origin, edges.0, edges.1, dns])
    }

    /// Waits until the DNS gives out these addresses.
    async fn resolves_to(&self, last: &[u8]) -> Result<()> {
        let expected: Vec<_> = last.iter().map(|last| Ipv4Addr::new(192, 0, 2, *last)).collect();
        eventually(&format!("the DNS to give out {expected:?}"), || async {
            let mut answer = ask_over_udp(here(self.dns.0), NAME, None).await?;
            answer.addresses.sort();
            ensure!(answer.addresses == expected, "{answer:?}");
            Ok(())
        })
        .await
    }

    fn health(&self, arguments: &[&str]) -> Result<(Option<i32>, String)> {
        let file = self.folder.path().join("atoll.toml");
        let ran = Command::new(ATOLL).arg("health").args(arguments).arg("-c").arg(file).env_remove("ATOLL_NODE").output()?;
        Ok((ran.status.code(), String::from_utf8_lossy(&ran.stdout).into_owned()))
    }
}

fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

async fn get(port: u16, path: &str) -> Result<String> {
    raw(here(port), format!("GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).await
}

/// Waits until /readyz has this status.
async fn readiness(process: &Process, admin: u16, status: u16) -> Result<String> {
    eventually(&format!("/readyz to be {status}"), || async {
        let answer = get(admin, "/readyz").await.with_context(|| process.said())?;
        ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}\n{}", process.said());
        Ok(answer)
    })
    .await
}

/// Waits until a node has said something.
async fn says(process: &Process, words: &str) -> Result<()> {
    eventually(&format!("{words:?}"), || async {
        let said = process.said();
        ensure!(said.contains(words), "{said}");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_that_is_told_to_end_leaves_the_dns_and_answers_until_it_has_drained() -> Result<()> {
    let house = House::new("1h")?;
    let [_origin, mut edge, _other, mut dns] = house.all().await?;
    let (port, admin) = house.edges[0];
    house.resolves_to(&[1, 2]).await?;
    let before = get(port, "/nothing").await?;
    assert!(before.starts_with("HTTP/1.1 404 ") && !before.contains("connection: close"), "{before}");

    edge.terminate()?;

    assert!(readiness(&edge, admin, 503).await?.contains("draining"));
    house.resolves_to(&[2]).await?;
    let draining = get(port, "/nothing").await?;
    assert!(draining.starts_with("HTTP/1.1 404 ") && draining.contains("connection: close"), "{draining}");
    let (code, said) = house.health(&["edge/fra-1", "edge/fra-2"])?;
    assert_eq!((code, said.as_str()), (Some(2), "edge/fra-1: draining\nedge/fra-2: ready\n"));
    edge.terminate()?;
    assert_eq!(edge.ended().await?.code(), Some(143), "the second time ends it at once");

    dns.terminate()?;
    assert!(readiness(&dns, house.dns.1, 503).await?.contains("draining"));
    house.resolves_to(&[2]).await?;
    dns.signal("INT")?;
    assert_eq!(dns.ended().await?.code(), Some(130));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_presses_ctrl_c_waits_for_no_drain_and_a_drained_node_ends_well() -> Result<()> {
    let house = House::new("1h")?;
    let [mut origin, mut edge, other, mut dns] = house.all().await?;
    edge.signal("INT")?;
    assert_eq!(edge.ended().await?.code(), Some(0));
    drop(other);
    dns.signal("INT")?;
    assert_eq!(dns.ended().await?.code(), Some(0));
    house.write(&house.text("10ms"))?;
    let mut edge = house.start(&["edge", "fra-1"], house.edges[0].1).await?;
    edge.terminate()?;
    assert_eq!(edge.ended().await?.code(), Some(0));
    origin.terminate()?;
    assert_eq!(origin.ended().await?.code(), Some(0), "an origin's followers know where else to go");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_reads_its_file_again_and_takes_in_all_of_it_or_nothing() -> Result<()> {
    let house = House::new("10ms")?;
    let [_origin, edge, _other, _dns] = house.all().await?;
    let text = house.text("10ms");
    house.resolves_to(&[1, 2]).await?;

    house.write(&text.replace("192.0.2.1\"", "192.0.2.7\""))?;
    edge.signal("HUP")?;
    says(&edge, "the configuration was read again and is in force").await?;
    house.resolves_to(&[2, 7]).await?;

    // Nobody tells it this time.
    house.write(&text.replace("192.0.2.1\"", "192.0.2.8\"").replace("32 MiB", "33 MiB"))?;
    says(&edge, "a restart is needed to change edges.fra-1.memory").await?;
    house.write(&text.replace("192.0.2.1\"", "192.0.2.8\"").replace("drain", "drian"))?;
    says(&edge, "drian = \"10ms\": unknown key").await?;
    house.resolves_to(&[2, 7]).await?;
    house.write(&text.replace("192.0.2.1\"", "192.0.2.8\""))?;
    house.resolves_to(&[2, 8]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_edge_goes_on_with_its_region_s_redis_when_that_has_another_password() -> Result<()> {
    let (house, mut server) = (House::new("10ms")?, RedisServer::start(RedisOptions::default().password("one")).await?);
    let upstream = Upstream::start(|_| Reply::fresh("42")).await?;
    let secret = house.folder.path().join("redis");
    fs::write(&secret, "one")?;
    let redis = format!("longitude = 8.68\nredis = {{ url = \"{}\", password = \"file:redis\" }}\n", server.url());
    house.write(&format!("{}{}", house.text("10ms").replace("longitude = 8.68\n", &redis), House::route_to(&upstream)))?;
    let _nodes = house.all().await?;
    let (edge, admin) = house.edges[0];
    // Whether the tier answers shows when it is asked.
    let is = |up: u8, of: &'static str| async move {
        let number = AtomicUsize::new(0);
        eventually(&format!("the second tier to be {up}"), || async {
            let n = number.fetch_add(1, Ordering::Relaxed);
            raw(here(edge), format!("GET /{of}/{n} HTTP/1.1\r\nHost: api.test\r\n\r\n").as_bytes()).await?;
            let metrics = get(admin, "/metrics").await?;
            ensure!(metrics.contains(&format!("\natoll_edge_second_tier_up {up}\n")), "{metrics}");
            Ok(())
        })
        .await
    };
    is(1, "before").await?;

    server.restart_with(RedisOptions::default().password("two")).await?;
    is(0, "meanwhile").await?;
    fs::write(&secret, "two")?;
    is(1, "behind").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_origin_shows_a_certificate_that_was_renewed_without_a_restart_and_tells_when_it_ends() -> Result<()> {
    let (folder, port) = (tempfile::tempdir()?, free_port()?);
    let (first, expired, second) = (Issuer::new(2035)?, Issuer::new(2020)?, Issuer::new(2036)?);
    first.write(folder.path())?;
    let text = format!(
        "[origin]\nlisten = \"127.0.0.1:{port}\"\nurl = \"https://localhost:{port}\"\nca = \"file:ca.pem\"\n\
         tls = {{ certificate = \"file:origin.pem\", key = \"file:origin.key\" }}\n\
         [regions.fra]\nlatitude = 50\nlongitude = 8\n"
    );
    fs::write(folder.path().join("atoll.toml"), text)?;
    let origin = Process::spawn(ATOLL, &["origin", "-c", "atoll.toml"], folder.path())?;
    let shows = |issuer: &Issuer| {
        let client =
            reqwest::Client::builder().no_proxy().tls_certs_only([reqwest::Certificate::from_pem(issuer.ca.as_bytes())?]).build()?;
        Ok::<_, anyhow::Error>(async move {
            let url = format!("https://localhost:{port}/metrics");
            eventually("the certificate", || async { Ok(client.get(&url).send().await?.error_for_status()?) }).await
        })
    };
    shows(&first)?.await.with_context(|| origin.said())?;
    let health = |folder: &Path| Command::new(ATOLL).args(["health", "-c", "atoll.toml"]).current_dir(folder).status();
    assert!(health(folder.path())?.success());

    fs::write(folder.path().join("origin.key"), "no key")?;
    origin.signal("HUP")?;
    says(&origin, "origin.tls.key is not a PEM key").await?;
    shows(&first)?.await?;
    expired.write(folder.path())?;
    origin.signal("HUP")?;
    says(&origin, "origin.tls.certificate has expired, at 2020-01-01T00:00:00").await?;
    shows(&first)?.await?;
    second.write(folder.path())?;
    let seen = shows(&second)?.await.with_context(|| origin.said())?;
    assert!(health(folder.path())?.success());
    let end = format!("atoll_origin_certificate_end_timestamp_seconds {}", rcgen::date_time_ymd(2036, 1, 1).unix_timestamp());
    let metrics = seen.text().await?;
    assert!(metrics.lines().any(|line| line == end), "{metrics}");
    Ok(())
}

/// Who issues certificates for an origin.
struct Issuer {
    ca: String,
    certificate: String,
    key: String,
}

impl Issuer {
    /// One whose certificates end when `year` begins.
    fn new(year: i32) -> Result<Self> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let key = KeyPair::generate()?;
        let mut certificate = CertificateParams::new(vec!["localhost".to_owned()])?;
        (certificate.not_before, certificate.not_after) = (rcgen::date_time_ymd(2019, 1, 1), rcgen::date_time_ymd(year, 1, 1));
        let certificate = certificate.signed_by(&key, &issuer)?;
        Ok(Self { ca: issuer.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        for (name, pem) in [("ca.pem", &self.ca), ("origin.pem", &self.certificate), ("origin.key", &self.key)] {
            fs::write(folder.join(name), pem)?;
        }
        Ok(())
    }
}

/// Waits until the service manager hears a word.
fn hears(manager: &UnixDatagram, word: &str) -> Result<String> {
    let (mut all, mut buffer) = (String::new(), vec![0; 4096]);
    loop {
        let length = manager.recv(&mut buffer).with_context(|| format!("{word} did not come; what came: {all}"))?;
        let told = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        if told.lines().any(|line| line == word) {
            return Ok(told);
        }
        all.push_str(&told);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_manager_hears_how_a_node_is_from_its_start_to_its_end() -> Result<()> {
    let house = House::new("10ms")?;
    let _origin = house.start(&["origin"], house.origin).await?;
    let socket = house.folder.path().join("notify");
    let manager = UnixDatagram::bind(&socket)?;
    manager.set_read_timeout(Some(PATIENCE))?;
    let notify = format!("NOTIFY_SOCKET={}", socket.display());
    let arguments = [&notify, "WATCHDOG_USEC=200000", ATOLL, "edge", "fra-1", "-c", "atoll.toml"];
    let mut edge = Process::spawn("env", &arguments, house.folder.path())?;

    hears(&manager, "READY=1")?;
    assert!(get(house.edges[0].0, "/").await?.starts_with("HTTP/1.1 "), "it serves when it says so");
    hears(&manager, "WATCHDOG=1")?;
    hears(&manager, "WATCHDOG=1")?;
    edge.signal("HUP")?;
    let reloading = hears(&manager, "RELOADING=1")?;
    assert!(reloading.contains("MONOTONIC_USEC="), "{reloading}");
    hears(&manager, "READY=1")?;
    edge.terminate()?;
    hears(&manager, "STOPPING=1")?;
    assert_eq!(edge.ended().await?.code(), Some(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_comes_while_an_edge_is_started_anew_waits_where_its_socket_is_kept_for_it() -> Result<()> {
    let house = House::new("10ms")?;
    let _origin = house.start(&["origin"], house.origin).await?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("servers/hand_over.py");
    let hand_over = |port: u16| {
        let (script, port) = (script.to_string_lossy().into_owned(), port.to_string());
        let arguments = [&script, "127.0.0.1", &port, ATOLL, "edge", "fra-1", "-c", "atoll.toml"];
        Process::spawn("python3", &arguments, house.folder.path())
    };
    let (port, admin) = house.edges[0];
    let manager = hand_over(port)?;
    readiness(&manager, admin, 200).await?;
    assert!(get(port, "/").await?.starts_with("HTTP/1.1 "));

    let pid = fs::read_to_string(house.folder.path().join("pid"))?;
    ensure!(Command::new("kill").args(["-TERM", &pid]).status()?.success());
    says(&manager, "ended with 0").await?;
    let waiting = tokio::spawn(get(port, "/"));
    fs::write(house.folder.path().join("again"), "")?;
    assert!(waiting.await??.starts_with("HTTP/1.1 "), "it was answered by the next one");
    drop(manager);

    let strange = hand_over(free_port()?)?;
    says(&strange, "where this node does not listen").await?;
    says(&strange, "ended with 1").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn health_tells_of_each_node_and_waits_where_it_is_asked_to() -> Result<()> {
    let house = House::new("10ms")?;
    let (code, said) = house.health(&["origin"])?;
    assert_eq!(code, Some(2));
    assert!(said.starts_with(&format!("origin: no answer at 127.0.0.1:{}: ", house.origin)), "{said}");
    let _nodes = house.all().await?;

    let (code, said) = house.health(&["--wait", "30s"])?;
    assert_eq!((code, said.as_str()), (Some(0), "origin: ready\nedge/fra-1: ready\nedge/fra-2: ready\ndns/ns-1: ready\n"));
    let (code, said) = house.health(&["dns/ns-1", "--live", "--json"])?;
    let told: serde_json::Value = serde_json::from_str(&said)?;
    assert_eq!((code, &told[0]["ready"], &told[0]["said"]), (Some(0), &true.into(), &"ok".into()));
    assert_eq!(house.health(&["edge/fra-9"])?.0, Some(1), "there is no such edge");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_followed_through_an_edge_to_its_upstream_and_a_purge_through_the_origin() -> Result<()> {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let (house, collector) = (House::new("10ms")?, Collector::start().await?);
    let upstream = Upstream::start(|_| Reply::fresh("42").with("surrogate-key", "answer")).await?;
    house.write(&format!("{}{}", house.text("10ms"), House::route_to(&upstream)))?;
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT={}", collector.url());
    let traced = |node: &[&str]| {
        let arguments = [&[endpoint.as_str(), "OTEL_BSP_SCHEDULE_DELAY=50", ATOLL], node, &["-c", "atoll.toml"]].concat();
        Process::spawn("env", &arguments, house.folder.path())
    };
    let origin = traced(&["origin"])?;
    readiness(&origin, house.origin, 200).await?;
    let edge = traced(&["edge", "fra-1"])?;
    readiness(&edge, house.edges[0].1, 200).await?;
    let carried = format!("00-{TRACE}-00f067aa0ba902b7-01");

    let request = format!("GET /answer HTTP/1.1\r\nHost: api.test\r\ntraceparent: {carried}\r\n\r\n");
    let answer = raw(here(house.edges[0].0), request.as_bytes()).await?;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let control = house.control()?;
    let headers = [("traceparent", carried.as_str()), ("content-type", "application/json")];
    control.send("POST", "/v1/purges", &headers, r#"{"tags":["answer"]}"#).await?.with_status(200)?;

    let wanted = ["look up l1", "look up l2", "fill", "fetch", "store l1", "store l2", "GET", "POST /v1/purges", "append"];
    let spans = eventually("the spans", || async {
        let spans = collector.spans(TRACE);
        let missing: Vec<_> = wanted.iter().filter(|name| named(&spans, name).is_err()).collect();
        ensure!(missing.is_empty(), "{missing:?} are missing of {spans:?}\n{}", edge.said());
        Ok(spans)
    })
    .await?;
    let (request, fill, fetch) = (named(&spans, "GET")?, named(&spans, "fill")?, named(&spans, "fetch")?);
    assert_eq!((request.parent.as_str(), request.service.as_str()), ("00f067aa0ba902b7", "atoll-edge"));
    assert_eq!(request.attribute("http.response.status_code"), Some("200"), "{request:?}");
    assert_eq!((request.attribute("http.route"), request.attribute("atoll.result")), (Some("api"), Some("miss")));
    assert_eq!((&fill.parent, &fetch.parent), (&request.id, &fill.id));
    for (name, parent) in [("look up l1", request), ("look up l2", fill), ("store l1", fill), ("store l2", fill)] {
        assert_eq!(named(&spans, name)?.parent, parent.id, "{name}");
    }
    let seen = upstream.seen("/answer").into_iter().next().context("the upstream was not asked")?;
    assert_eq!(seen.header("traceparent"), Some(format!("00-{TRACE}-{}-01", fetch.id).as_str()));
    let purge = named(&spans, "POST /v1/purges")?;
    assert_eq!((purge.parent.as_str(), purge.service.as_str()), ("00f067aa0ba902b7", "atoll-origin"));
    assert_eq!(named(&spans, "append")?.parent, purge.id);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_or_speaks_otherwise_is_told_of() -> Result<()> {
    let (house, port) = (House::new("10ms")?, free_port()?);
    let endpoint = format!("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:{port}");
    let origin = |more: &str| {
        let arguments = [endpoint.as_str(), "OTEL_BSP_SCHEDULE_DELAY=50", more, ATOLL, "origin", "-c", "atoll.toml"];
        Process::spawn("env", &arguments, house.folder.path())
    };
    let by_grpc = origin("OTEL_EXPORTER_OTLP_PROTOCOL=grpc")?;
    says(&by_grpc, "OTEL_EXPORTER_OTLP_PROTOCOL=grpc: traces are exported by http/protobuf alone").await?;
    let origin = origin("OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf")?;
    readiness(&origin, house.origin, 200).await?;

    says(&origin, "spans don't reach the collector").await?;
    let _collector = Collector::start_at(port).await?;
    // Each look is a call, whose span is sent.
    eventually("spans to arrive again", || async {
        readiness(&origin, house.origin, 200).await?;
        ensure!(origin.said().contains("spans reach the collector again"), "{}", origin.said());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn alerts_and_the_dashboard_name_what_nodes_count() -> Result<()> {
    let house = House::new("10ms")?;
    let upstream = Upstream::start(|_| Reply::fresh("42").with("surrogate-key", "answer")).await?;
    house.write(&format!("{}{}", house.text("10ms"), House::route_to(&upstream)))?;
    let nodes = house.all().await?;
    let edge = house.edges[0];
    // Some families show only once they counted something.
    for _ in 0..2 {
        raw(here(edge.0), b"GET /answer HTTP/1.1\r\nHost: api.test\r\n\r\n").await?;
    }
    let purge = PurgeRequest { tags: vec!["answer".to_owned()], ..PurgeRequest::default() };
    house.control()?.purge(&purge).await.with_context(|| nodes[0].said())?;
    raw(here(edge.0), b"GET /answer HTTP/1.1\r\nHost: api.test\r\n\r\n").await?;

    let client = reqwest::Client::builder().no_proxy().build()?;
    let mut check = Command::new("python3");
    check.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/monitoring/check.py"));
    for (name, port) in [("origin", house.origin), ("edge", edge.1), ("dns", house.dns.1)] {
        let page = house.folder.path().join(format!("{name}.metrics"));
        fs::write(&page, client.get(format!("http://127.0.0.1:{port}/metrics")).send().await?.error_for_status()?.bytes().await?)?;
        check.arg(page);
    }
    let checked = check.output()?;
    ensure!(checked.status.success(), "{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    Ok(())
}

/// Returns the span of a name, and of a tier where there are several.
fn named<'a>(spans: &'a [ExportedSpan], name: &str) -> Result<&'a ExportedSpan> {
    let is_named = |span: &&ExportedSpan| match span.attribute("atoll.tier") {
        Some(tier) if span.name != "GET" => format!("{} {tier}", span.name) == name,
        _ => span.name == name,
    };
    spans.iter().find(is_named).with_context(|| format!("no span is named {name}"))
}
