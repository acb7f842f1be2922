//! What comes in by the door: malformed bytes, slow and greedy clients, interim responses, tunnels (http.md 10, 26 to 33).

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use futures_util::future::join_all;
use harness::{Gate, PATIENCE, Reply, Town, Upstream, eventually};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Sends bytes and reads until the edge closes.
async fn say(edge: SocketAddr, bytes: &[u8]) -> Result<String> {
    let mut stream = TcpStream::connect(edge).await?;
    stream.write_all(bytes).await?;
    let mut heard = Vec::new();
    tokio::time::timeout(PATIENCE, stream.read_to_end(&mut heard)).await.context("the edge did not close")??;
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

fn statuses(heard: &str) -> Vec<u16> {
    heard.split("HTTP/1.1 ").skip(1).filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
}

/// Reads one head.
async fn head(stream: &mut TcpStream) -> Result<String> {
    let mut heard = Vec::new();
    while !heard.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.context("no head came")?;
        heard.push(byte?);
    }
    Ok(String::from_utf8_lossy(&heard).into_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_27_to_29_what_two_servers_could_read_in_two_ways_is_refused_and_goes_nowhere() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::fresh("a")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?.address();
    let host = "Host: api.test\r\n";
    let chunked = format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n");
    let cases: Vec<(String, u16)> = vec![
        // Line ends, request lines, fields.
        (format!("GET / HTTP/1.1\n{host}\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}\n"), 400),
        (format!("GET / HTTP/1.1\r\nX: a\rb\r\n{host}\r\n"), 400),
        (format!("GET  / HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET / HTTP/1.1 x\r\n{host}\r\n"), 400),
        (format!("GET /a b HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET\r\n{host}\r\n"), 400),
        (format!("GET / HTTP/2.0\r\n{host}\r\n"), 505),
        (format!("GET / HTTP/1.1\r\n{host}X : a\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host} folded\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}X: a\r\n\tb\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}no colon\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}X: a\0b\r\n\r\n"), 400),
        (format!("GET / HTTP/1.1\r\n{host}: a\r\n\r\n"), 400),
        // Authorities.
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\n{host}{host}\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: \r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a@api.test\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: api.test:0\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: api.test:99999\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: api.test/\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: api test\r\n\r\n".to_owned(), 400),
        (format!("GET https://api.test/ HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET http://a@api.test/ HTTP/1.1\r\n{host}\r\n"), 400),
        // Targets and methods.
        (format!("GET /a#b HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /%zz HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /%00 HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /a\\b HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET /\u{e4} HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET a HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("GET * HTTP/1.1\r\n{host}\r\n"), 400),
        (format!("CONNECT api.test:80 HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("TRACE / HTTP/1.1\r\n{host}\r\n"), 405),
        (format!("{} / HTTP/1.1\r\n{host}\r\n", "M".repeat(33)), 501),
        (format!("GET /{} HTTP/1.1\r\n{host}\r\n", "a".repeat(8192)), 414),
        (format!("GET / HTTP/1.1\r\n{host}X: {}\r\n\r\n", "a".repeat(8192)), 431),
        (format!("GET / HTTP/1.1\r\n{host}{}\r\n", "x: y\r\n".repeat(96)), 431),
        // Framing.
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1\r\nContent-Length: 1\r\n\r\na"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: +1\r\n\r\na"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 1, 1\r\n\r\na"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST / HTTP/1.0\r\n{host}Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400),
        (format!("POST / HTTP/1.1\r\n{host}Expect: else\r\nContent-Length: 1\r\n\r\na"), 417),
        (format!("{chunked}1\na\r\n0\r\n\r\n"), 400),
        (format!("{chunked}1\r\nab\r\n0\r\n\r\n"), 400),
        (format!("{chunked}x\r\n"), 400),
        (format!("{chunked}ffffffffffffffffff\r\n"), 400),
        (format!("{chunked}1;{}\r\na\r\n0\r\n\r\n", "a".repeat(5000)), 400),
        (format!("{chunked}0\r\nContent-Length: 1\r\n\r\n"), 400),
        (format!("{chunked}0\r\nX: {}\r\n\r\n", "a".repeat(9000)), 400),
        // A body that nobody wants is read all the same.
        (format!("GET / HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n1\na\r\n0\r\n\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: www.test\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n".to_owned(), 400),
    ];
    let mut wrong = Vec::new();
    for (bytes, status) in &cases {
        // Whatever came behind it is not answered.
        let heard = statuses(&say(edge, format!("{bytes}GET /behind HTTP/1.1\r\n{host}\r\n").as_bytes()).await?);
        if heard != [*status] {
            wrong.push(format!("{status} was expected, {heard:?} came: {:?}", bytes.chars().take(120).collect::<String>()));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(upstream.count("/behind"), 0);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_in_one_breath_are_answered_in_their_order() -> Result<()> {
    let upstream = Upstream::start(|seen| Reply::fresh(format!("<{}>", seen.target))).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?.address();
    let host = "Host: api.test\r\n";
    let bytes = format!(
        "\r\nGET /1 HTTP/1.1\r\n{host}\r\nPOST /2 HTTP/1.1\r\n{host}Content-Length: 3\r\n\r\nabcGET /3 HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\n\r\nHEAD /1 HTTP/1.1\r\n{host}\r\nGET /1 HTTP/1.1\r\n{host}Connection: close\r\n\r\nGET /5 HTTP/1.1\r\n{host}\r\n"
    );
    let heard = say(edge, bytes.as_bytes()).await?;
    assert_eq!(statuses(&heard), [200, 200, 200, 200, 200], "{heard}");
    let order: Vec<_> = heard.split('<').skip(1).filter_map(|rest| rest.split('>').next()).collect();
    assert_eq!(order, ["/1", "/2", "/3", "/1"], "{heard}");
    assert_eq!(upstream.count("/5"), 0);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_33_a_head_that_does_not_come_is_answered_with_408() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).on_edges("head_timeout = \"200ms\"").start().await?;
    let edge = town.visit("fra-1")?.address();
    assert_eq!(statuses(&say(edge, b"GET / HTTP/1.1\r\nHost: www").await?), [408]);
    assert_eq!(say(edge, b"").await?, "", "who says nothing is told nothing");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_33_where_all_seats_are_taken_the_next_is_told_so() -> Result<()> {
    let town = Town::plan().edges(&["fra-1"]).on_edges("max_connections = 2").start().await?;
    let edge = town.visit("fra-1")?.address();
    let mut seats = Vec::new();
    for _ in 0..2 {
        let mut seat = TcpStream::connect(edge).await?;
        seat.write_all(b"OPTIONS * HTTP/1.1\r\nHost: www.test\r\n\r\n").await?;
        head(&mut seat).await?;
        seats.push(seat);
    }
    let heard = say(edge, b"").await?;
    assert_eq!(statuses(&heard), [503]);
    assert!(heard.contains("retry-after: "), "{heard}");
    drop(seats);
    eventually("a seat to be free again", || async {
        let heard = say(edge, b"OPTIONS * HTTP/1.1\r\nHost: www.test\r\nConnection: close\r\n\r\n").await?;
        ensure!(statuses(&heard) == [204], "{heard}");
        Ok(())
    })
    .await?;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_expects_100_gets_it_when_its_body_is_wanted() -> Result<()> {
    let upstream = Upstream::start(|_| Reply::plain(200, "thanks")).await?;
    let town = Town::plan().edges(&["fra-1"]).on_routes("max_request_body = \"1 KiB\"").upstream(&upstream).start().await?;
    let mut stream = TcpStream::connect(town.visit("fra-1")?.address()).await?;
    stream.write_all(b"POST /a HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").await?;
    assert_eq!(head(&mut stream).await?, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").await?;
    assert!(head(&mut stream).await?.starts_with("HTTP/1.1 200 "));
    let mut stream = TcpStream::connect(town.visit("fra-1")?.address()).await?;
    stream.write_all(b"POST /b HTTP/1.1\r\nHost: api.test\r\nExpect: 100-continue\r\nContent-Length: 3000\r\n\r\n").await?;
    let refused = head(&mut stream).await?;
    assert!(refused.starts_with("HTTP/1.1 413 ") && refused.contains("connection: close"), "{refused}");
    assert_eq!(upstream.count("/b"), 0);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_10_early_hints_reach_all_who_wait_and_none_who_can_not_read_them() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    let gate = Gate::closed();
    let held = gate.clone();
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x\r\nX: 1\r\n\r\n").await?;
        held.passed().await;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nCache-Control: max-age=60\r\n\r\na").await?;
        anyhow::Ok(())
    });
    let town = Town::plan().edges(&["fra-1"]).upstream_at(upstream).start().await?;
    let edge = town.visit("fra-1")?.address();
    let ask = |version: &'static str| async move {
        let mut stream = TcpStream::connect(edge).await?;
        stream.write_all(format!("GET /a HTTP/{version}\r\nHost: api.test\r\n\r\n").as_bytes()).await?;
        anyhow::Ok(stream)
    };
    let mut leader = ask("1.1").await?;
    let hints = head(&mut leader).await?;
    assert!(hints.starts_with("HTTP/1.1 103 ") && hints.contains("link: </a.css>") && !hints.contains("connection"), "{hints}");
    let mut joiner = ask("1.1").await?;
    assert_eq!(head(&mut joiner).await?, hints);
    let mut old = ask("1.0").await?;
    eventually("two to share the fetch", || async {
        ensure!(town.metric("fra-1", "atoll_edge_collapsed_total").await? >= 2.0);
        Ok(())
    })
    .await?;
    gate.open();
    for stream in [&mut leader, &mut joiner, &mut old] {
        let answer = head(stream).await?;
        assert!(answer.contains(" 200 OK\r\n"), "{answer}");
    }
    let mut later = ask("1.1").await?;
    let answer = head(&mut later).await?;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("atoll; hit"), "interim responses are not stored: {answer}");
    serving.await??;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_websocket_is_carried_both_ways_where_the_route_allows_it() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let asked = head(&mut stream).await?;
        ensure!(asked.contains("upgrade: websocket") && asked.contains("sec-websocket-key: k"), "{asked}");
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: a\r\n\r\nhello ",
            )
            .await?;
        let mut buffer = [0; 4];
        stream.read_exact(&mut buffer).await?;
        stream.write_all(&buffer).await?;
        anyhow::Ok(())
    });
    let town = Town::plan().edges(&["fra-1"]).on_routes("upgrade = true").upstream_at(upstream).start().await?;
    let mut stream = TcpStream::connect(town.visit("fra-1")?.address()).await?;
    let ask = "GET /a HTTP/1.1\r\nHost: api.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n";
    stream.write_all(ask.as_bytes()).await?;
    let switched = head(&mut stream).await?;
    assert!(switched.starts_with("HTTP/1.1 101 ") && switched.contains("sec-websocket-accept: a"), "{switched}");
    stream.write_all(b"echo").await?;
    let mut heard = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard)).await.context("the tunnel did not end")??;
    assert_eq!(heard, "hello echo");
    serving.await??;
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_26_slow_readers_keep_nobody_waiting() -> Result<()> {
    const LENGTH: usize = 12 << 20;
    let upstream = Upstream::start(|_| Reply::fresh(vec![b'a'; LENGTH])).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?;
    let mut slow = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(edge.address()).await?;
        stream.write_all(b"GET /large HTTP/1.1\r\nHost: api.test\r\n\r\n").await?;
        head(&mut stream).await?;
        slow.push(stream);
    }
    let quick = edge.get("api.test", "/large").await?.with_status(200)?;
    assert_eq!(quick.body.len(), LENGTH);
    for mut stream in slow {
        let mut body = vec![0; LENGTH];
        tokio::time::timeout(PATIENCE, stream.read_exact(&mut body)).await.context("a slow reader got no more")??;
    }
    assert_eq!(upstream.count("/large"), 1);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_25_a_crowd_that_misses_makes_one_fetch() -> Result<()> {
    const CROWD: usize = 500;
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::fresh("for all").held(&held)).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let edge = town.visit("fra-1")?.address();
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(edge).await?;
        stream.write_all(b"GET /hot HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await?;
        crowd.push(stream);
    }
    eventually("all but one to share", || async {
        let collapsed = town.metric("fra-1", "atoll_edge_collapsed_total").await?;
        let upstream = town.metric("fra-1", "atoll_edge_upstream_requests_total").await?;
        ensure!(collapsed >= CROWD as f64 - 1.0, "{collapsed} so far, and {upstream} requests upstream");
        Ok(())
    })
    .await?;
    gate.open();
    let answers = crowd.into_iter().map(|mut stream| async move {
        let mut heard = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut heard)).await.context("no answer came")??;
        anyhow::Ok(heard)
    });
    for heard in join_all(answers).await {
        let heard = heard?;
        ensure!(heard.ends_with("for all"), "{heard}");
    }
    assert_eq!(upstream.count("/hot"), 1);
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_25_bytes_come_as_they_arrive() -> Result<()> {
    let gate = Gate::closed();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| Reply::fresh("first second").held_in_body(&held)).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let mut stream = TcpStream::connect(town.visit("fra-1")?.address()).await?;
    stream.write_all(b"GET /slow HTTP/1.1\r\nHost: api.test\r\n\r\n").await?;
    assert!(head(&mut stream).await?.starts_with("HTTP/1.1 200 "));
    let mut first = [0; 3];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut first)).await.context("bytes do not come as they arrive")??;
    gate.open();
    let mut rest = [0; 9];
    tokio::time::timeout(PATIENCE, stream.read_exact(&mut rest)).await.context("the rest did not come")??;
    assert_eq!([first.as_slice(), rest.as_slice()].concat(), b"first second");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_comes_before_all_of_the_request_takes_nothing_from_it() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        head(&mut stream).await?;
        stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
        let mut come = Vec::new();
        while !come.ends_with(b"0\r\n\r\n") {
            let byte = tokio::time::timeout(PATIENCE, stream.read_u8()).await.context("the body did not come")??;
            come.push(byte);
        }
        stream.write_all(b"2\r\nok\r\n0\r\n\r\n").await?;
        anyhow::Ok(String::from_utf8_lossy(&come).into_owned())
    });
    let town = Town::plan().edges(&["fra-1"]).upstream_at(upstream).start().await?;
    let mut stream = TcpStream::connect(town.visit("fra-1")?.address()).await?;
    stream.write_all(b"POST /a HTTP/1.1\r\nHost: api.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\naaa\r\n").await?;
    let answer = head(&mut stream).await?;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("connection: close"), "{answer}");
    stream.write_all(b"3\r\nbbb\r\n0\r\n\r\n").await?;
    let come = serving.await??;
    assert!(come.contains("aaa") && come.contains("bbb"), "{come:?}");
    let mut rest = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut rest)).await.context("the answer did not end")??;
    assert!(rest.contains("ok"), "{rest:?}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_http_1_0_is_sent_no_chunks() -> Result<()> {
    let upstream =
        Upstream::start(|_| Reply::verbatim("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let ask = b"GET /a HTTP/1.0\r\nHost: api.test\r\nConnection: keep-alive\r\n\r\n";
    let heard = say(town.visit("fra-1")?.address(), ask).await?;
    assert!(heard.starts_with("HTTP/1.0 200 ") && heard.ends_with("\r\n\r\nabc") && !heard.contains("chunked"), "{heard}");
    town.stop().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_nobody_asked_for_is_an_error() -> Result<()> {
    let upstream =
        Upstream::start(|_| Reply::verbatim("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")).await?;
    let town = Town::plan().edges(&["fra-1"]).upstream(&upstream).start().await?;
    let heard = say(town.visit("fra-1")?.address(), b"GET /a HTTP/1.1\r\nHost: api.test\r\nConnection: close\r\n\r\n").await?;
    assert_eq!(statuses(&heard), [502], "{heard}");
    town.stop().await;
    Ok(())
}
