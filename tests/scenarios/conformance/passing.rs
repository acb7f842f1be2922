//! Rules 27 to 32: what reaches the upstream and in which form, what comes back, and what never gets stored.

use anyhow::Result;

use super::case::{Case, Step, case, get, send};
use super::script::{Script, answer, ok, verbatim};
use super::stage::tell_all;

const FRESH: &str = "Cache-Control: max-age=60";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_27_and_28_equal_keys_reach_the_upstream_as_the_same_bytes() -> Result<()> {
    tell_all([hosts(), equal(), apart(), impossible()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_30_what_strangers_claim_does_not_reach_the_upstream_and_all_else_does() -> Result<()> {
    tell_all([claims(), requests(), responses()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_32_what_does_not_keep_its_length_or_its_grammar_is_not_stored() -> Result<()> {
    tell_all([lengths(), broken()].concat()).await
}

fn hosts() -> Vec<Case> {
    const RFC: &str = "9110 4.2.3, 7.2; 9112 3.2.2";
    let told = |name: &str, again: Step| case(27, name, RFC, [get().reply(ok(FRESH)), again.cached().body_of(1)]);
    let believed = "X-Forwarded-Host: other.test\nX-Forwarded-Proto: https\nForwarded: host=other.test;proto=https";
    vec![
        told("a_host_in_capitals", get().host("API.TEST")),
        told("a_host_with_its_port", get().host("api.test:80")),
        told("a_host_with_another_port", get().host("api.test:8081")),
        told("a_whole_target", get().target("http://api.test{base}")),
        told("a_whole_target_beats_host", get().target("http://api.test{base}").host("other.test")),
        told("a_whole_target_in_capitals", get().target("HTTP://API.test{base}")),
        told("a_stranger_s_forwarded_host", get().with(believed)),
    ]
}

fn equal() -> Vec<Case> {
    let told = |name: &str, one: &str, other: &str, sent: &str| {
        let sent = format!("{{base}}{sent}");
        let first = get().at(one).reply(ok(FRESH)).asked().sees_target(&sent);
        let reverse = get().at(&format!("{other}{}", if other.contains('?') { "&r" } else { "?r" })).reply(ok(FRESH)).asked();
        let reverse = reverse.sees_target(&format!("{sent}{}", if sent.contains('?') { "&r" } else { "?r" }));
        case(28, name, "3986 6.2.2; 9110 4.2.3", [first, get().at(other).cached().body_of(1), reverse])
    };
    vec![
        told("an_escaped_tilde", "/~a", "/%7Ea", "/~a"),
        told("an_escaped_tilde_in_lower_case", "/%7ea", "/~a", "/~a"),
        told("an_escaped_letter", "/%61b", "/ab", "/ab"),
        told("an_escaped_digit", "/%31", "/1", "/1"),
        told("an_escaped_dash_dot_and_underscore", "/a%2D%2e%5Fb", "/a-._b", "/a-._b"),
        told("an_escaped_slash_in_lower_case", "/a%2fb", "/a%2Fb", "/a%2Fb"),
        told("an_escaped_umlaut_in_lower_case", "/%c3%a4", "/%C3%A4", "/%C3%A4"),
        told("an_escaped_space_in_a_query", "/a?b=%2fc", "/a?b=%2Fc", "/a?b=%2Fc"),
        told("an_escaped_tilde_in_a_query", "/a?b=%7ec", "/a?b=~c", "/a?b=~c"),
        told("a_dot_segment", "/./a", "/a", "/a"),
        told("a_dot_segment_at_the_end", "/a/.", "/a/", "/a/"),
        told("two_dots", "/x/../a", "/a", "/a"),
        told("two_dots_at_the_end", "/a/x/..", "/a/", "/a/"),
        told("an_escaped_dot_segment", "/%2e/a", "/a", "/a"),
        told("two_escaped_dots", "/x/%2E%2e/a", "/a", "/a"),
        told("dots_that_are_half_escaped", "/x/.%2e/a", "/a", "/a"),
        told("a_pipe", "/a|b", "/a%7Cb", "/a%7Cb"),
        told("braces", "/a{b}c", "/a%7Bb%7dc", "/a%7Bb%7Dc"),
        told("a_caret", "/a^b", "/a%5Eb", "/a%5Eb"),
        told("a_backtick", "/a`b", "/a%60b", "/a%60b"),
        told("a_double_quote", "/a\"b", "/a%22b", "/a%22b"),
        told("angle_brackets", "/a<b>c", "/a%3Cb%3ec", "/a%3Cb%3Ec"),
    ]
}

fn apart() -> Vec<Case> {
    let told = |name: &str, one: &str, other: &str| {
        let first = get().at(one).reply(ok(FRESH)).asked().sees_target(&format!("{{base}}{one}"));
        let second = get().at(other).reply(ok(FRESH)).asked().body_of(2).sees_target(&format!("{{base}}{other}"));
        case(28, name, "3986 6.2.2; 9111 2", [first, second, get().at(one).cached().body_of(1)])
    };
    vec![
        told("an_escaped_slash_is_no_slash", "/a/b", "/a%2Fb"),
        told("two_slashes_are_not_one", "/a/b", "/a//b"),
        told("a_slash_at_the_end", "/a", "/a/"),
        told("a_semicolon_stays", "/a", "/a;b"),
        told("an_escaped_semicolon_is_none", "/a;b", "/a%3Bb"),
        told("an_escaped_plus_is_none", "/a+b", "/a%2Bb"),
        told("an_escaped_question_mark_is_none", "/a?b", "/a%3Fb"),
        told("an_escaped_percent_sign_stays", "/a%257e", "/a~"),
        told("capitals_in_a_path", "/a", "/A"),
        told("a_query", "/a", "/a?b"),
        told("another_query", "/a?b=1", "/a?b=2"),
        told("a_query_in_another_order", "/a?b=1&c=2", "/a?c=2&b=1"),
        told("capitals_in_a_query", "/a?b", "/a?B"),
        told("an_escaped_ampersand", "/a?b&c", "/a?b%26c"),
        told("a_plus_in_a_query_is_no_space", "/a?b+c", "/a?b%20c"),
        told("a_parameter_twice", "/a?b=1", "/a?b=1&b=1"),
        told("a_slash_in_a_query", "/a?b/../c", "/a?c"),
    ]
}

fn impossible() -> Vec<Case> {
    let told = |name: &str, suffix: &str| case(28, name, "3986 2.1; 9112 3.2", [get().at(suffix).unasked().status(400)]);
    vec![
        told("an_escaped_nul", "/a%00b"),
        told("an_escape_of_other_letters", "/a%zzb"),
        told("an_escape_of_one_digit", "/a%4"),
        told("a_percent_sign_alone", "/a%"),
        told("a_bad_escape_in_a_query", "/a?b=%zz"),
        told("a_backslash", "/a\\b"),
        told("raw_eight_bit_bytes", "/ä"),
        told("a_fragment", "/a#b"),
        told("a_control_byte", "/a\u{1}b"),
    ]
}

fn claims() -> Vec<Case> {
    const RFC: &str = "9110 17.1; 7239 8.1";
    let names = [
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Original-Host",
        "X-Host",
        "X-HTTP-Host-Override",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X-Forwarded-Server",
        "X-Forwarded-Scheme",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Forwarded-SSL",
        "X-Real-IP",
        "True-Client-IP",
        "Proxy",
    ];
    let stripped = names.map(|name| {
        let step = get().with(format!("{name}: /admin\nX-Kept: 1")).reply(ok(FRESH)).sees("X-Kept: 1").sees_not(name);
        case(30, format!("{}_is_stripped", name.to_ascii_lowercase().replace('-', "_")), RFC, [step])
    });
    let replaced = |name: &str, line: &str, own: &str| case(30, name, RFC, [get().with(line).reply(ok(FRESH)).sees(own)]);
    let body = get().content("a=b").reply(ok(FRESH)).asked().sees_not("Content-Length").sees_not("Transfer-Encoding");
    let poisoned = [get().with("X-Forwarded-Host: evil.test\nX-Original-URL: /evil").reply(ok(FRESH)).asked(), get().cached().body_of(1)];
    let rows = vec![
        replaced("forwarded_for_is_our_own", "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 127.0.0.1"),
        replaced("forwarded_proto_is_our_own", "X-Forwarded-Proto: https", "X-Forwarded-Proto: http"),
        replaced("forwarded_host_is_our_own", "X-Forwarded-Host: evil.test", "X-Forwarded-Host: api.test"),
        replaced("forwarded_is_our_own", "Forwarded: for=192.0.2.1", "Forwarded: for=127.0.0.1;host=\"api.test\";proto=http"),
        case(30, "a_body_of_get_is_stripped", "9110 9.3.1", [body]),
        case(30, "what_is_stripped_poisons_nothing", RFC, poisoned),
    ];
    [stripped.to_vec(), rows].concat()
}

/// Transparency towards the upstream.
fn requests() -> Vec<Case> {
    const RFC: &str = "9110 7.6, 5.3";
    let arrives = |name: &str, line: &str| case(30, name, RFC, [get().with(line).reply(ok("")).sees(line)]);
    let gone = |name: &str, line: &str, field: &'static str| case(30, name, "9110 7.6.1", [get().with(line).reply(ok("")).sees_not(field)]);
    let twice = get().with("X-Twice: 1\nX-Twice: 2").reply(ok("")).sees("X-Twice: 1").sees("X-Twice: 2");
    let not_modified = get().with("If-None-Match: \"a\"").reply(answer(304, "ETag: \"a\"")).asked().status(304).has("ETag: \"a\"");
    let silent = [send("POST").content("a").reply(verbatim("")).asked_once().fails()];
    let put = [send("PUT").content("abc").reply(ok("")).sees_method("PUT").sees("Content-Length: 3").body_of(1)];
    vec![
        arrives("the_user_agent_arrives", "User-Agent: Visitor/1.0 (it's me)"),
        arrives("accept_arrives", "Accept: text/html, */*;q=0.1"),
        arrives("accept_encoding_arrives_as_it_was", "Accept-Encoding: GZIP;q=0.50,  br"),
        arrives("accept_language_arrives_as_it_was", "Accept-Language: de-DE,  en;q=0.5"),
        arrives("a_cookie_arrives", "Cookie: a=b; c=\"d\""),
        arrives("authorization_arrives", "Authorization: Basic YTpi"),
        arrives("an_unknown_field_arrives", "X-Unheard-Of: a, \"b, c\"; d=1"),
        arrives("an_empty_field_arrives", "X-Empty:"),
        arrives("cache_control_arrives", "Cache-Control: no-transform"),
        arrives("origin_arrives", "Origin: http://other.test"),
        arrives("referer_arrives", "Referer: http://other.test/a"),
        arrives("traceparent_arrives", "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        arrives("a_condition_on_a_miss_arrives", "If-None-Match: \"a\""),
        gone("a_listed_field_stays_here", "Connection: close, x-hop\nX-Hop: 1", "X-Hop"),
        gone("te_stays_here", "TE: trailers", "TE"),
        gone("keep_alive_stays_here", "Keep-Alive: timeout=5", "Keep-Alive"),
        gone("proxy_connection_stays_here", "Proxy-Connection: keep-alive", "Proxy-Connection"),
        gone("proxy_authorization_stays_here", "Proxy-Authorization: Basic YTpi", "Proxy-Authorization"),
        case(30, "both_lines_arrive", RFC, [twice]),
        case(30, "a_304_comes_back_to_who_asked_for_it", "9110 15.4.5", [not_modified]),
        case(30, "what_reached_the_upstream_is_not_sent_again", "9110 9.2.2", silent).alone(),
        case(30, "a_put_arrives", RFC, put),
    ]
}

/// Transparency towards the client.
fn responses() -> Vec<Case> {
    const RFC: &str = "9110 7.7, 15";
    let passes = |status: u16| {
        let step = get().reply(answer(status, "X-Kept: 1\nContent-Type: a/b")).status(status).body_of(1).has("X-Kept: 1");
        case(30, format!("status_{status}_passes"), RFC, [step.has("Content-Type: a/b")])
    };
    let comes = |name: &str, line: &str| case(30, name, RFC, [get().reply(ok(line)).has(line).body_of(1)]);
    let twice = get().reply(ok("Set-Cookie: a=b\nSet-Cookie: c=d; Path=/")).has("Set-Cookie: a=b").has("Set-Cookie: c=d; Path=/");
    let tags = get().reply(ok("Surrogate-Key: a\nCache-Tag: b")).lacks("surrogate-key").lacks("cache-tag");
    let statuses =
        [200, 201, 202, 203, 226, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 410, 418, 429, 451, 499, 500, 501, 503, 599, 999];
    let rows = vec![
        comes("date_comes_back", "Date: {date-100}"),
        comes("server_comes_back", "Server: Upstream/1.0"),
        comes("a_redirect_comes_back", "Location: http://other.test/a?b#c"),
        comes("content_encoding_comes_back", "Content-Encoding: unheard-of"),
        comes("no_store_comes_back", "Cache-Control: no-store,  x=\"y\""),
        comes("an_etag_comes_back", "ETag: W/\"a\""),
        comes("an_unknown_field_comes_back", "X-Unheard-Of: a, \"b, c\"; d=1"),
        comes("an_empty_field_comes_back", "X-Empty:"),
        comes("vary_comes_back", "Vary: *"),
        comes("allow_comes_back", "Allow: GET, HEAD"),
        case(30, "both_cookies_come_back", "6265 3", [twice]),
        case(30, "tags_do_not_come_back", RFC, [tags]),
        case(30, "an_empty_body_comes_back", RFC, [get().reply(ok("").body("")).status(200).body("")]),
        case(30, "a_204_comes_back", RFC, [get().reply(answer(204, "X-Kept: 1")).status(204).has("X-Kept: 1").body("")]),
        case(30, "a_body_in_chunks_comes_back", RFC, [get().reply(ok("").chunked()).status(200).body_of(1)]),
        case(30, "a_body_until_the_end_comes_back", RFC, [get().reply(ok("").open()).status(200).body_of(1)]),
    ];
    [statuses.map(passes).to_vec(), rows].concat()
}

fn lengths() -> Vec<Case> {
    const RFC: &str = "9112 6.3, 8; 9111 3.3";
    let never = |name: &str, first: Script| {
        let steps = [get().reply(first).asked(), get().reply(ok(FRESH)).asked().status(200).body_of(2)];
        case(32, name, RFC, steps).alone()
    };
    let told = |name: &str, first: Script| {
        let steps = [get().reply(first).fails(), get().reply(ok(FRESH)).asked().status(200).body_of(2)];
        case(32, name, RFC, steps).alone()
    };
    let stored = |name: &str, first: Script| case(32, name, RFC, [get().reply(first).body_of(1), get().cached().body_of(1)]);
    vec![
        told("a_body_that_is_too_short", ok(FRESH).announcing(100)),
        told("a_body_that_never_comes", ok(FRESH).body("").announcing(100)),
        told("a_body_in_chunks_that_is_cut", ok(FRESH).cut()),
        told("an_error_that_is_too_short", answer(404, FRESH).announcing(100)),
        never("a_body_that_is_too_long", ok(FRESH).announcing(3)),
        stored("a_body_of_its_length", ok(FRESH)),
        stored("a_body_in_chunks", ok(FRESH).chunked()),
        stored("a_body_until_the_end_of_the_connection", ok(FRESH).open()),
    ]
}

fn broken() -> Vec<Case> {
    let told = |name: &str, bytes: &'static str| {
        let steps = [get().reply(verbatim(bytes)).asked().fails(), get().reply(ok(FRESH)).asked().status(200).body_of(2)];
        case(32, name, "9112 2.2, 4, 6.3; 9110 5.5", steps).alone()
    };
    let junk = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: junk\r\n\r\na";
    let junk = [get().reply(verbatim(junk)).asked(), get().reply(ok(FRESH)).asked().status(200).body_of(2)];
    vec![
        told("no_answer", ""),
        told("half_a_head", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n"),
        told("a_status_that_is_none", "HTTP/1.1 abc OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na"),
        told("a_status_of_two_digits", "HTTP/1.1 20 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na"),
        told("another_protocol", "FTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\na"),
        told("two_lengths", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        told("a_length_that_is_none", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: a\r\n\r\na"),
        told("a_negative_length", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: -1\r\n\r\na"),
        told("a_nul_in_a_value", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A: a\0b\r\nContent-Length: 1\r\n\r\na"),
        told("a_space_in_a_name", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX A: a\r\nContent-Length: 1\r\n\r\na"),
        told("a_line_without_a_colon", "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nX-A\r\nContent-Length: 1\r\n\r\na"),
        told(
            "a_chunk_size_that_is_none",
            "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\nx\r\na\r\n0\r\n\r\n",
        ),
        case(32, "a_coding_that_nobody_knows", "9112 6.1, 7", junk).alone(),
    ]
}
