//! Rules 7 to 11: what may be stored, which fields are kept, and which requests a stored response is for.

use anyhow::Result;

use super::case::{Case, case, get, not_reused, reused};
use super::script::{answer, ok};
use super::stage::tell_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_07_no_store_private_and_no_cache_are_heeded() -> Result<()> {
    tell_all(forbidden()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_08_every_field_is_kept_but_those_of_one_connection() -> Result<()> {
    tell_all([dropped(), kept(), cookies()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_09_and_10_authorized_and_interim_responses_are_not_shared() -> Result<()> {
    tell_all([authorized(), interim()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_11_a_stored_response_is_for_requests_that_select_it() -> Result<()> {
    tell_all([stars(), selected(), kept_apart()].concat()).await
}

fn forbidden() -> Vec<Case> {
    let never = not_reused(
        7,
        "9111 5.2.2.5, 5.2.2.7",
        &[
            ("no_store", "Cache-Control: no-store"),
            ("no_store_and_max_age", "Cache-Control: no-store, max-age=60"),
            ("max_age_and_no_store", "Cache-Control: max-age=60, no-store"),
            ("no_store_in_capitals", "Cache-Control: NO-STORE, max-age=60"),
            ("no_store_in_mixed_case", "Cache-Control: No-StorE, max-age=60"),
            ("no_store_and_expires", "Cache-Control: no-store\nExpires: {date+3600}"),
            ("no_store_and_last_modified", "Cache-Control: no-store\nLast-Modified: {date-86400}"),
            ("no_store_in_the_second_line", "Cache-Control: max-age=60\nCache-Control: no-store"),
            ("no_store_and_public", "Cache-Control: public, no-store, max-age=60"),
            ("no_store_among_empty_members", "Cache-Control: ,,no-store,,max-age=60"),
            ("private", "Cache-Control: private, max-age=60"),
            ("private_in_capitals", "Cache-Control: PRIVATE, max-age=60"),
            ("private_and_s_maxage", "Cache-Control: private, s-maxage=60"),
            ("private_and_public", "Cache-Control: public, private, max-age=60"),
            ("private_in_the_second_line", "Cache-Control: max-age=60\nCache-Control: private"),
            ("private_and_expires", "Cache-Control: private\nExpires: {date+3600}"),
            ("private_behind_a_quote_that_never_closes", "Cache-Control: max-age=60, ext=\"a, private"),
        ],
    );
    let asked_again = |name: &str, lines: &str, condition: &str| {
        let again = get().reply(answer(304, lines)).validated(condition).status(200).body_of(1);
        case(7, name, "9111 5.2.2.4", [get().reply(ok(lines)), again])
    };
    let tagged = "If-None-Match: \"a\"";
    let validated = vec![
        asked_again("no_cache_is_stored_and_validated", "Cache-Control: no-cache\nETag: \"a\"", tagged),
        asked_again("no_cache_and_max_age", "Cache-Control: no-cache, max-age=60\nETag: \"a\"", tagged),
        asked_again("no_cache_in_capitals", "Cache-Control: max-age=60, NO-CACHE\nETag: \"a\"", tagged),
        asked_again("no_cache_in_mixed_case", "Cache-Control: max-age=60, nO-cAcHe\nETag: \"a\"", tagged),
        asked_again("no_cache_and_s_maxage", "Cache-Control: no-cache, s-maxage=60\nETag: \"a\"", tagged),
        asked_again("no_cache_and_expires", "Cache-Control: no-cache\nExpires: {date+3600}\nETag: \"a\"", tagged),
        asked_again("no_cache_and_public", "Cache-Control: public, no-cache, max-age=60\nETag: \"a\"", tagged),
        asked_again("no_cache_in_the_second_line", "Cache-Control: max-age=60\nCache-Control: no-cache\nETag: \"a\"", tagged),
        asked_again(
            "no_cache_is_validated_by_its_date",
            "Cache-Control: no-cache, max-age=60\nLast-Modified: {date-3600}",
            "If-Modified-Since: {date-3600}",
        ),
    ];
    let qualified = |name: &str, directive: &str| {
        let lines = format!("Cache-Control: max-age=60, {directive}\nX-Own: 1\nX-All: 2");
        let steps = [get().reply(ok(&lines)).has("X-All: 2"), get().cached().has("X-All: 2").lacks("X-Own").body_of(1)];
        case(7, name, "9111 5.2.2.4, 5.2.2.7", steps)
    };
    let partly = vec![
        qualified("no_cache_of_a_field", "no-cache=\"x-own\""),
        qualified("private_of_a_field", "private=\"x-own\""),
        qualified("no_cache_of_a_field_in_capitals", "NO-CACHE=\"X-OWN\""),
        qualified("private_of_a_field_in_capitals", "Private=\"X-OWN\""),
        qualified("no_cache_of_several_fields", "no-cache=\"x-other, x-own\""),
        qualified("private_of_several_fields", "private=\"x-own,x-other\""),
        qualified("no_cache_of_a_field_and_private_of_another", "no-cache=\"x-other\", private=\"x-own\""),
    ];
    [never, validated, partly].concat()
}

fn dropped() -> Vec<Case> {
    let gone = |name: &str, line: &str, field: &'static str| {
        let lines = format!("Cache-Control: max-age=60\n{line}\nX-Kept: 1");
        let steps = [get().reply(ok(&lines)).lacks(field), get().cached().lacks(field).has("X-Kept: 1").body_of(1)];
        case(8, name, "9111 3.1, 9110 7.6.1", steps)
    };
    vec![
        gone("keep_alive_goes", "Keep-Alive: timeout=5", "keep-alive"),
        gone("te_goes", "TE: trailers", "te"),
        gone("upgrade_goes", "Upgrade: x/1", "upgrade"),
        gone("proxy_connection_goes", "Proxy-Connection: close", "proxy-connection"),
        gone("proxy_authenticate_goes", "Proxy-Authenticate: Basic", "proxy-authenticate"),
        gone("proxy_authorization_goes", "Proxy-Authorization: Basic YTpi", "proxy-authorization"),
        gone("proxy_authentication_info_goes", "Proxy-Authentication-Info: a=b", "proxy-authentication-info"),
        gone("a_listed_field_goes", "Connection: close, x-hop\nX-Hop: 1", "x-hop"),
        gone("a_listed_field_goes_in_any_case", "Connection: close, X-HOP\nx-hop: 1", "x-hop"),
        gone("a_field_listed_in_the_second_line_goes", "Connection: close\nConnection: x-hop\nX-Hop: 1", "x-hop"),
        gone("a_field_listed_among_others_goes", "Connection: x-a,x-hop ,, close\nX-Hop: 1", "x-hop"),
        gone("all_lines_of_a_listed_field_go", "Connection: close, x-hop\nX-Hop: 1\nX-Hop: 2", "x-hop"),
        gone("a_listed_etag_goes", "Connection: close, etag\nETag: \"a\"", "etag"),
        gone("surrogate_keys_go", "Surrogate-Key: a b", "surrogate-key"),
        gone("cache_tags_go", "Cache-Tag: a, b", "cache-tag"),
        gone("xkey_goes", "xkey: a", "xkey"),
        gone("edge_cache_tags_go", "Edge-Cache-Tag: a", "edge-cache-tag"),
    ]
}

fn kept() -> Vec<Case> {
    let stays = |line: &str| {
        let (field, _) = line.split_once(':').unwrap_or_default();
        let lines = format!("Cache-Control: max-age=60\n{line}");
        let steps = [get().reply(ok(&lines)).has(line), get().cached().has(line)];
        case(8, format!("{}_stays", field.to_ascii_lowercase().replace('-', "_")), "9111 3.1, 9110 5.1", steps)
    };
    let lines = [
        "X-Unheard-Of: 1",
        "Content-Unheard-Of: a;b=\"c, d\"",
        "Proxy-Unheard-Of: 1",
        "Content-Type: application/x-thing; a=b",
        "Content-Language: de",
        "Content-Disposition: attachment; filename=\"a b.txt\"",
        "Content-Encoding: unheard-of",
        "Content-Security-Policy: default-src 'self'",
        "Content-Location: /elsewhere",
        "Link: </a.css>; rel=preload",
        "Strict-Transport-Security: max-age=0",
        "Access-Control-Allow-Origin: *",
        "Server: Upstream/1.0 (it's me)",
        "ETag: \"a\"",
        "Last-Modified: {date-3600}",
        "Accept-Ranges: none",
        "Location: /x",
        "Retry-After: 5",
        "Pragma: no-cache",
        "Warning: 110 - \"stale\"",
        "Vary: X-Nothing",
        "Alt-Svc: clear",
        "Refresh: 5",
        "WWW-Authenticate: Basic realm=\"a\"",
        "Allow: GET",
        "X-Empty:",
        "X-Punctuation: a, \"b, c\"; d=1 (e)",
        "CDN-Loop: other",
        "P3P: a",
    ];
    let mut cases = Vec::from(lines.map(stays));
    let twice = "Cache-Control: max-age=60\nX-Twice: 1\nX-Twice: 2, 3";
    let steps = [get().reply(ok(twice)), get().cached().has("X-Twice: 1").has("X-Twice: 2, 3")];
    cases.push(case(8, "both_lines_of_a_field_stay", "9110 5.2", steps));
    let steps = [get().reply(ok("Cache-Control: max-age=60").chunked()), get().cached().body_of(1).lacks("transfer-encoding")];
    cases.push(case(8, "a_body_in_chunks_is_kept_without_them", "9111 3.1, 9112 7.1", steps));
    cases
}

fn cookies() -> Vec<Case> {
    let rfc = "9111 7.3";
    let shared = reused(
        8,
        rfc,
        &[
            ("set_cookie_with_public", "Cache-Control: public, max-age=60\nSet-Cookie: a=b"),
            ("set_cookie_with_s_maxage", "Cache-Control: s-maxage=60\nSet-Cookie: a=b"),
            ("set_cookie_with_a_targeted_field", "CDN-Cache-Control: max-age=60\nSet-Cookie: a=b"),
        ],
    );
    let own = not_reused(
        8,
        rfc,
        &[
            ("set_cookie_with_max_age", "Cache-Control: max-age=60\nSet-Cookie: a=b"),
            ("set_cookie_with_expires", "Expires: {date+3600}\nSet-Cookie: a=b"),
            ("set_cookie_with_a_guess", "Last-Modified: {date-86400}\nSet-Cookie: a=b"),
            ("set_cookie_with_must_revalidate", "Cache-Control: max-age=60, must-revalidate\nSet-Cookie: a=b"),
        ],
    );
    let with_both = "Cache-Control: public, max-age=60\nSet-Cookie: a=b\nSet-Cookie: c=d";
    let both = [get().reply(ok(with_both)), get().cached().has("Set-Cookie: a=b").has("Set-Cookie: c=d")];
    let with_own = "Cache-Control: max-age=60, no-cache=\"set-cookie\"\nSet-Cookie: a=b";
    let first = [get().reply(ok(with_own)).has("Set-Cookie: a=b"), get().cached().lacks("set-cookie")];
    let rows = vec![
        case(8, "both_cookies_of_a_shared_response_stay", rfc, both),
        case(8, "a_cookie_that_is_kept_back_is_for_the_first_alone", "9111 5.2.2.4", first),
    ];
    [shared, own, rows].concat()
}

fn authorized() -> Vec<Case> {
    const BASIC: &str = "Authorization: Basic YTpi";
    let told = |name: &str, lines: &str, is_shared: bool| {
        let again = get().with(BASIC);
        let again = if is_shared { again.cached().body_of(1) } else { again.asked().body_of(2) };
        case(9, name, "9111 3.5", [get().with(BASIC).reply(ok(lines)), again])
    };
    let for_others = |name: &str, lines: &str, is_shared: bool| {
        let again = if is_shared { get().cached().body_of(1) } else { get().asked().body_of(2) };
        case(9, name, "9111 3.5", [get().with(BASIC).reply(ok(lines)).sees(BASIC), again])
    };
    vec![
        told("max_age_is_no_leave", "Cache-Control: max-age=60", false),
        told("expires_is_no_leave", "Expires: {date+3600}", false),
        told("proxy_revalidate_is_no_leave", "Cache-Control: max-age=60, proxy-revalidate", false),
        told("immutable_is_no_leave", "Cache-Control: max-age=60, immutable", false),
        told("stale_windows_are_no_leave", "Cache-Control: max-age=60, stale-while-revalidate=60, stale-if-error=60", false),
        told("a_quoted_public_is_no_leave", "Cache-Control: max-age=60, ext=\"public\"", false),
        told("public_is_leave", "Cache-Control: max-age=60, public", true),
        told("public_in_capitals_is_leave", "Cache-Control: max-age=60, PUBLIC", true),
        told("public_and_expires_is_leave", "Cache-Control: public\nExpires: {date+3600}", true),
        told("must_revalidate_is_leave", "Cache-Control: max-age=60, must-revalidate", true),
        told("must_revalidate_in_mixed_case_is_leave", "Cache-Control: max-age=60, Must-Revalidate", true),
        told("s_maxage_is_leave", "Cache-Control: s-maxage=60", true),
        told("private_takes_leave_back", "Cache-Control: max-age=60, public, private", false),
        for_others("others_do_not_get_what_was_authorized", "Cache-Control: max-age=60", false),
        for_others("others_get_what_is_public", "Cache-Control: max-age=60, public", true),
        for_others("others_get_what_has_s_maxage", "Cache-Control: s-maxage=60", true),
    ]
}

fn interim() -> Vec<Case> {
    const RFC: &str = "9110 15.2, 8297 2";
    let hints = "103 Early Hints\nLink: </a.css>; rel=preload";
    let stored = ok("Cache-Control: max-age=60");
    let plain = |interim| [get().reply(stored.clone().after(interim)).status(200).body_of(1), get().cached().status(200).lacks("link")];
    vec![
        case(10, "hints_come_first", RFC, [get().reply(stored.clone().after(hints)).interim(103).status(200).body_of(1)]),
        case(10, "processing_comes_first", "2518 10.1", [get().reply(stored.clone().after("102 Processing")).interim(102).status(200)]),
        case(10, "hints_are_not_stored", RFC, plain(hints)),
        case(10, "processing_is_not_stored", RFC, plain("102 Processing")),
        case(10, "an_unknown_interim_answer_is_not_stored", RFC, plain("199 Unheard-Of\nLink: </b>")),
        case(10, "hints_with_a_lifetime_are_not_stored", RFC, plain("103 Early Hints\nCache-Control: max-age=60\nLink: </a>")),
    ]
}

fn stars() -> Vec<Case> {
    not_reused(
        11,
        "9111 4.1, 9110 12.5.5",
        &[
            ("a_star", "Cache-Control: max-age=60\nVary: *"),
            ("a_star_and_a_name", "Cache-Control: max-age=60\nVary: *, X-A"),
            ("a_name_and_a_star", "Cache-Control: max-age=60\nVary: X-A, *"),
            ("a_star_without_spaces", "Cache-Control: max-age=60\nVary: X-A,*,X-B"),
            ("a_star_among_empty_members", "Cache-Control: max-age=60\nVary: , ,*,"),
            ("a_star_between_spaces", "Cache-Control: max-age=60\nVary: X-A ,  * "),
            ("a_star_in_the_second_line", "Cache-Control: max-age=60\nVary: X-A\nVary: *"),
            ("a_star_in_the_first_line", "Cache-Control: max-age=60\nVary: *\nVary: X-A"),
            ("a_star_behind_an_empty_line", "Cache-Control: max-age=60\nVary:\nVary: *"),
            ("a_star_twice", "Cache-Control: max-age=60\nVary: *, *"),
            ("a_star_with_public", "Cache-Control: public, max-age=60\nVary: *"),
        ],
    )
}

fn selected() -> Vec<Case> {
    let told = |name: &str, vary: &str, (one, other): (&str, &str), is_same: bool| {
        let lines = format!("Cache-Control: max-age=60\n{vary}");
        let again = get().with(other).reply(ok(&lines));
        let again = if is_same { again.cached().body_of(1) } else { again.asked().body_of(2) };
        case(11, name, "9111 4.1", [get().with(one).reply(ok(&lines)), again])
    };
    let coding = "Vary: Accept-Encoding";
    let language = "Vary: Accept-Language";
    vec![
        told("an_equal_value", "Vary: X-A", ("X-A: 1", "X-A: 1"), true),
        told("another_value", "Vary: X-A", ("X-A: 1", "X-A: 2"), false),
        told("a_value_in_another_case", "Vary: X-A", ("X-A: a", "X-A: A"), false),
        told("absent_twice", "Vary: X-A", ("", ""), true),
        told("absent_then_present", "Vary: X-A", ("", "X-A: 1"), false),
        told("present_then_absent", "Vary: X-A", ("X-A: 1", ""), false),
        told("a_field_that_is_not_named", "Vary: X-A", ("X-A: 1\nX-B: 1", "X-A: 1\nX-B: 2"), true),
        told("a_name_in_another_case", "Vary: x-a", ("X-A: 1", "x-A: 1"), true),
        told("a_name_in_another_case_and_another_value", "vary: X-a", ("X-A: 1", "X-A: 2"), false),
        told("an_empty_vary", "Vary: ", ("X-A: 1", "X-A: 2"), true),
        told("vary_among_empty_members", "Vary: ,, X-A ,", ("X-A: 1", "X-A: 2"), false),
        told("two_names_that_fit", "Vary: X-A, X-B", ("X-A: 1\nX-B: 2", "X-A: 1\nX-B: 2"), true),
        told("two_names_whatever_the_order", "Vary: X-A, X-B", ("X-A: 1\nX-B: 2", "X-B: 2\nX-A: 1"), true),
        told("two_names_of_which_the_first_does_not_fit", "Vary: X-A, X-B", ("X-A: 1\nX-B: 2", "X-A: 0\nX-B: 2"), false),
        told("two_names_of_which_the_second_does_not_fit", "Vary: X-A, X-B", ("X-A: 1\nX-B: 2", "X-A: 1\nX-B: 0"), false),
        told("two_names_of_which_one_is_absent", "Vary: X-A, X-B", ("X-A: 1", "X-A: 1\nX-B: 0"), false),
        told("two_names_with_one_absent_twice", "Vary: X-A, X-B", ("X-A: 1", "X-A: 1"), true),
        told("two_lines_that_fit", "Vary: X-A\nVary: X-B", ("X-A: 1\nX-B: 2", "X-A: 1\nX-B: 2"), true),
        told("two_lines_of_which_the_second_does_not_fit", "Vary: X-A\nVary: X-B", ("X-A: 1\nX-B: 2", "X-A: 1\nX-B: 0"), false),
        told("two_lines_of_which_the_first_does_not_fit", "Vary: X-A\nVary: X-B", ("X-A: 1\nX-B: 2", "X-A: 0\nX-B: 2"), false),
        told("three_names", "Vary: X-A, X-B, X-C", ("X-A: 1\nX-B: 2\nX-C: 3", "X-A: 1\nX-B: 2\nX-C: 0"), false),
        told("the_user_agent", "Vary: User-Agent", ("User-Agent: a", "User-Agent: b"), false),
        told("a_cookie", "Vary: Cookie", ("Cookie: a=1", "Cookie: a=2"), false),
        told("an_equal_cookie", "Vary: Cookie", ("Cookie: a=1", "Cookie: a=1"), true),
        told("another_first_line", "Vary: X-A", ("X-A: 1\nX-A: 2", "X-A: 0\nX-A: 2"), false),
        told("another_second_line", "Vary: X-A", ("X-A: 1\nX-A: 2", "X-A: 1\nX-A: 0"), false),
        told("equal_codings", coding, ("Accept-Encoding: gzip", "Accept-Encoding: gzip"), true),
        told("other_codings", coding, ("Accept-Encoding: gzip", "Accept-Encoding: br"), false),
        told("fewer_codings", coding, ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip"), false),
        told("a_refused_coding", coding, ("Accept-Encoding: gzip", "Accept-Encoding: gzip;q=0"), false),
        told("codings_in_another_order", coding, ("Accept-Encoding: gzip, br", "Accept-Encoding: br, gzip"), true),
        told("codings_in_another_case", coding, ("Accept-Encoding: gzip", "Accept-Encoding: GZip"), true),
        told("codings_with_other_spaces", coding, ("Accept-Encoding: gzip,br", "Accept-Encoding: gzip ,  br"), true),
        told("a_coding_with_a_spaced_weight", coding, ("Accept-Encoding: gzip;q=0.5", "Accept-Encoding: gzip; q=0.5"), true),
        told("a_coding_with_a_weight_of_1", coding, ("Accept-Encoding: gzip", "Accept-Encoding: gzip;q=1.0"), true),
        told("codings_in_two_lines", coding, ("Accept-Encoding: gzip, br", "Accept-Encoding: gzip\nAccept-Encoding: br"), true),
        told("equal_languages", language, ("Accept-Language: de", "Accept-Language: de"), true),
        told("other_languages", language, ("Accept-Language: de", "Accept-Language: en"), false),
        told("languages_in_another_case", language, ("Accept-Language: en-US", "Accept-Language: EN-us"), true),
        told("weighted_languages_in_another_order", language, ("Accept-Language: de, en;q=0.5", "Accept-Language: en;q=0.5,de"), true),
        told("languages_with_other_weights", language, ("Accept-Language: de, en;q=0.5", "Accept-Language: de;q=0.5, en"), false),
        told("languages_with_other_spaces", language, ("Accept-Language: de,en;q=0.5", "Accept-Language: de , en ;q=0.5"), true),
    ]
}

fn kept_apart() -> Vec<Case> {
    const RFC: &str = "9111 4.1";
    let lines = "Cache-Control: max-age=60\nVary: X-A";
    let ask = |value: &str| get().with(format!("X-A: {value}"));
    let fill = |value: &str| ask(value).reply(ok(lines)).asked();
    let two = [fill("1"), fill("2"), ask("1").cached().body_of(1), ask("2").cached().body_of(2)];
    let values = ["1", "2", "3", "4", "5", "6"];
    let filled = values.into_iter().map(fill);
    let again = (1..).zip(values).map(|(step, value)| ask(value).cached().body_of(step));
    let many: Vec<_> = filled.chain(again).collect();
    let own = [get()
        .with("Accept-Encoding: GZIP , br")
        .reply(ok("Cache-Control: max-age=60\nVary: Accept-Encoding"))
        .sees("Accept-Encoding: GZIP , br")];
    let absent = [get().reply(ok(lines)), fill("1"), get().cached().body_of(1), ask("1").cached().body_of(2)];
    let old = "Cache-Control: max-age=0\nETag: \"{id}\"\nVary: X-A";
    let selected =
        [ask("1").reply(ok(old)), ask("1").reply(answer(304, old)).validated("If-None-Match: \"{id}\"").sees("X-A: 1").body_of(1)];
    vec![
        case(11, "two_variants_are_kept", RFC, two),
        case(11, "six_variants_are_kept", RFC, many),
        case(11, "a_variant_of_absence_is_kept", RFC, absent),
        case(11, "an_upstream_gets_the_client_s_own_field", "9110 12.5.3", own),
        case(11, "a_variant_is_validated_with_what_selected_it", "9111 4.3.1", selected),
    ]
}
