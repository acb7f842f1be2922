//! What a route's own policy changes, and what it leaves to the rules.

use anyhow::Result;

use super::case::{Case, Step, case, get};
use super::script::{answer, letters, ok};
use super::stage::tell_all;

const FRESH: &str = "Cache-Control: max-age=60";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_05_to_31_a_route_s_policy_means_what_it_says() -> Result<()> {
    tell_all([lifetimes(), cookies(), errors(), keys(), fields()].concat()).await
}

/// A first answer with these lines, and the same request again.
fn told(rule: u8, name: &str, status: u16, lines: &str, is_kept: bool) -> Case {
    let again = if is_kept { get().cached().status(status) } else { get().asked() };
    case(rule, name, "9111 4.2, 3", [get().reply(answer(status, lines)), again])
}

fn lifetimes() -> Vec<Case> {
    let default = |case: Case| case.on("default", "default_lifetime = \"60s\"");
    let most = |case: Case| case.on("most", "max_lifetime = \"10s\"");
    let by_status = |case: Case| case.on("by-status", "status_lifetimes = { \"404\" = \"60s\", \"5xx\" = \"60s\" }");
    let windows = |case: Case| case.on("windows", "stale_while_revalidate = \"1h\"\nstale_if_error = \"1h\"");
    let stale = "Cache-Control: max-age=10\nAge: 20";
    let strict = "Cache-Control: max-age=10, must-revalidate\nAge: 20\nETag: \"a\"";
    let behind = [get().reply(ok(stale)), get().reply(ok(FRESH)).body_of(1), get().after(2).cached().body_of(2)];
    let forbidden = [get().reply(ok(strict)), get().reply(ok(FRESH)).asked().body_of(2)];
    vec![
        default(told(5, "a_default_lifetime", 200, "", true)),
        default(told(5, "a_default_lifetime_of_a_404", 404, "", true)),
        default(told(5, "a_default_lifetime_is_not_for_every_status", 503, "", false)),
        default(told(5, "a_default_lifetime_does_not_beat_max_age", 200, "Cache-Control: max-age=0", false)),
        default(told(5, "a_default_lifetime_does_not_beat_no_store", 200, "Cache-Control: no-store", false)),
        default(told(5, "a_default_lifetime_does_not_beat_expires", 200, "Expires: 0", false)),
        most(told(1, "a_lifetime_that_is_capped", 200, "Cache-Control: max-age=3600\nAge: 20", false)),
        most(told(1, "a_lifetime_that_is_capped_but_not_over", 200, "Cache-Control: max-age=3600", true)),
        most(told(1, "a_targeted_lifetime_that_is_capped", 200, "CDN-Cache-Control: max-age=3600\nAge: 20", false)),
        most(told(5, "a_guessed_lifetime_that_is_capped", 200, "Last-Modified: {date-864000}\nAge: 20", false)),
        by_status(told(6, "a_status_with_a_lifetime", 404, "", true)),
        by_status(told(6, "a_status_of_a_class_with_a_lifetime", 503, "", true)),
        by_status(told(6, "a_status_without_a_lifetime", 200, "", false)),
        by_status(told(6, "a_status_s_lifetime_does_not_beat_its_own", 404, "Cache-Control: max-age=0", false)),
        windows(case(21, "a_window_of_the_route", "5861 3", behind)),
        windows(case(21, "a_window_of_the_route_does_not_beat_must_revalidate", "9111 5.2.2.2", forbidden)),
    ]
}

fn cookies() -> Vec<Case> {
    const RFC: &str = "9111 7.3";
    let plain = "Cache-Control: max-age=60\nSet-Cookie: a=b";
    let shared = "Cache-Control: public, max-age=60\nSet-Cookie: a=b";
    let ways = |name: &str, lines: &str, expected: fn(Step) -> Step| case(8, name, RFC, [get().reply(ok(lines)), expected(get())]);
    let kept = |step: Step| step.cached().has("Set-Cookie: a=b");
    let stripped = |step: Step| step.cached().lacks("set-cookie");
    let store = |case: Case| case.on("store", "set_cookie = \"store\"");
    let strip = |case: Case| case.on("strip", "set_cookie = \"strip\"");
    let refuse = |case: Case| case.on("refuse", "set_cookie = \"refuse\"");
    vec![
        store(ways("a_cookie_is_stored", plain, kept)),
        store(ways("a_shared_cookie_is_stored", shared, kept)),
        strip(ways("a_cookie_is_stripped", plain, stripped)),
        strip(ways("a_shared_cookie_is_stripped", shared, stripped)),
        refuse(ways("a_cookie_is_refused", plain, Step::asked)),
        refuse(ways("a_shared_cookie_is_refused", shared, Step::asked)),
        refuse(ways("no_cookie_is_not_refused", FRESH, Step::cached)),
    ]
}

fn errors() -> Vec<Case> {
    const ROUTE: (&str, &str) = ("no-errors", "cache_request_errors = false");
    let refused = [400, 405, 413, 414, 431, 501].map(|status| told(31, &format!("status_{status}_is_not_kept"), status, FRESH, false));
    let kept = [200, 301, 403, 404, 410, 500, 503].map(|status| told(31, &format!("status_{status}_is_kept"), status, FRESH, true));
    let all = refused.into_iter().chain(kept).map(|case| case.on(ROUTE.0, ROUTE.1));
    let large = [get().reply(ok(FRESH).body(letters(0, 1999))), get().asked()];
    let small = [get().reply(ok(FRESH).body(letters(0, 99))), get().cached().body(&letters(0, 99))];
    let rows = [
        case(25, "what_is_too_large_is_not_stored", "9111 3", large).on("small", "max_object = \"1 KiB\""),
        case(25, "what_is_small_enough_is_stored", "9111 3", small).on("small", "max_object = \"1 KiB\""),
    ];
    all.chain(rows).collect()
}

fn keys() -> Vec<Case> {
    const RFC: &str = "9111 2; 3986 6.2.2";
    let told = |name: &str, one: Step, other: Step, is_same: bool| {
        let again = other.reply(ok(FRESH));
        let again = if is_same { again.cached().body_of(1) } else { again.asked().body_of(2) };
        case(28, name, RFC, [one.reply(ok(FRESH)).asked(), again])
    };
    let none = |case: Case| case.on("query-none", "query = \"none\"");
    let keep = |case: Case| case.on("query-keep", "query = { keep = [\"a\"] }");
    let drop = |case: Case| case.on("query-drop", "query = { drop = [\"utm_*\"] }");
    let sort = |case: Case| case.on("query-sort", "sort_query = true");
    let by_field = |case: Case| case.on("by-field", "key_headers = [\"x-tenant\"]");
    let by_cookie = |case: Case| case.on("by-cookie", "key_cookies = [\"lang\"]");
    let at = |suffix: &str| get().at(suffix);
    let with = |line: &str| get().with(line);
    vec![
        none(told("no_query_counts", at("?a=1"), at("?a=2"), true)),
        none(told("no_query_reaches_the_upstream", at("?a=1").sees_target("{base}"), at(""), true)),
        keep(told("a_parameter_that_counts", at("?a=1"), at("?a=2"), false)),
        keep(told("a_parameter_that_does_not_count", at("?a=1&b=1"), at("?b=2&a=1"), true)),
        keep(told("what_counts_reaches_the_upstream", at("?b=1&a=1&c").sees_target("{base}?a=1"), at("?a=1"), true)),
        drop(told("a_parameter_that_is_dropped", at("?a=1&utm_id=1"), at("?utm_id=2&a=1"), true)),
        drop(told("a_parameter_that_is_not_dropped", at("?a=1&utm_id=1"), at("?a=2&utm_id=1"), false)),
        sort(told("parameters_in_another_order", at("?b=1&a=2").sees_target("{base}?a=2&b=1"), at("?a=2&b=1"), true)),
        sort(told("other_parameters", at("?b=1&a=2"), at("?b=2&a=1"), false)),
        by_field(told("an_equal_field_that_counts", with("X-Tenant: a"), with("X-Tenant: a"), true)),
        by_field(told("another_field_that_counts", with("X-Tenant: a"), with("X-Tenant: b"), false)),
        by_field(told("an_absent_field_that_counts", with("X-Tenant: a"), with(""), false)),
        by_cookie(told("an_equal_cookie_that_counts", with("Cookie: lang=de; id=1"), with("Cookie: id=2; lang=de"), true)),
        by_cookie(told("another_cookie_that_counts", with("Cookie: lang=de"), with("Cookie: lang=en"), false)),
        by_cookie(told("an_absent_cookie_that_counts", with("Cookie: lang=de"), with("Cookie: id=1"), false)),
    ]
}

fn fields() -> Vec<Case> {
    const RFC: &str = "9110 7.7, 17.1";
    let told = |name: &str, step: Step| case(30, name, RFC, [step.reply(ok(FRESH)).asked()]);
    vec![
        told("a_field_that_the_route_strips", get().with("X-Debug: 1\nX-Kept: 1").sees_not("X-Debug").sees("X-Kept: 1"))
            .on("strip-field", "strip_request_headers = [\"x-debug\"]"),
        told("a_field_that_the_route_passes", get().with("X-Original-URL: /a").sees("X-Original-URL: /a"))
            .on("pass-field", "pass_request_headers = [\"x-original-url\"]"),
        told("cookies_that_the_route_strips", get().with("Cookie: a=b").sees_not("Cookie")).on("no-cookies", "cookies = \"strip\""),
        told("a_cookie_that_the_route_keeps", get().with("Cookie: a=b; c=d").sees("Cookie: c=d"))
            .on("one-cookie", "cookies = { keep = [\"c\"] }"),
        case(
            8,
            "tags_that_the_route_keeps",
            RFC,
            [
                get().reply(ok("Cache-Control: max-age=60\nSurrogate-Key: a")).has("Surrogate-Key: a"),
                get().cached().has("Surrogate-Key: a"),
            ],
        )
        .on("tags", "keep_tags = true"),
    ]
}
