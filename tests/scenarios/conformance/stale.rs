//! Rule 21: what may be served although its lifetime is over, for how long, and what forbids it.

use anyhow::Result;

use super::case::{Case, case, get};
use super::script::{answer, ok, verbatim};
use super::stage::tell_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_21_stale_while_revalidate_serves_at_once_and_refreshes_behind() -> Result<()> {
    tell_all(while_revalidating()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_21_stale_if_error_and_silence() -> Result<()> {
    tell_all([on_errors(), on_silence()].concat()).await
}

fn while_revalidating() -> Vec<Case> {
    const RFC: &str = "5861 3";
    let next = "Cache-Control: max-age=60";
    let served = |name: &str, lines: &str| {
        let stale = get().reply(ok(next)).status(200).body_of(1).contains("cache-status", "atoll; hit");
        let fresh = get().after(2).cached().body_of(2);
        case(21, name, RFC, [get().reply(ok(lines)), stale, fresh])
    };
    let not_served = |name: &str, lines: &str| {
        case(21, name, "5861 3; 9111 5.2.2", [get().reply(ok(lines)), get().reply(ok(next)).asked().status(200).body_of(2)])
    };
    let lines = "Cache-Control: max-age=10, stale-while-revalidate=3600\nAge: 20\nETag: \"a\"";
    let renewal = answer(304, "Cache-Control: max-age=600\nAge: 0\nETag: \"a\"");
    let renewed = [get().reply(ok(lines)), get().reply(renewal).body_of(1), get().after(2).cached().body_of(1).age(0, 19)];
    let failing = [
        get().reply(ok(lines)),
        get().reply(answer(500, "")).status(200).body_of(1),
        get().after(2).reply(ok(next)).status(200).body_of(1),
    ];
    let aged = [get().reply(ok(lines)), get().reply(ok(next)).age(20, 40).contains("cache-status", "ttl=-").body_of(1)];
    vec![
        served("within_its_window", "Cache-Control: max-age=10, stale-while-revalidate=3600\nAge: 20"),
        served("in_capitals", "Cache-Control: max-age=10, STALE-WHILE-REVALIDATE=3600\nAge: 20"),
        served("with_a_lifetime_of_0", "Cache-Control: max-age=0, stale-while-revalidate=3600"),
        served("with_s_maxage", "Cache-Control: s-maxage=10, stale-while-revalidate=3600\nAge: 20"),
        served("with_a_window_over_2_to_64", "Cache-Control: max-age=10, stale-while-revalidate=99999999999999999999\nAge: 20"),
        served("with_expires", "Expires: {date-10}\nCache-Control: stale-while-revalidate=3600"),
        served("by_a_targeted_field", "CDN-Cache-Control: max-age=10, stale-while-revalidate=3600\nAge: 20"),
        not_served("past_its_window", "Cache-Control: max-age=10, stale-while-revalidate=60\nAge: 90"),
        not_served("at_the_end_of_its_window", "Cache-Control: max-age=10, stale-while-revalidate=60\nAge: 70"),
        not_served("a_window_of_0", "Cache-Control: max-age=10, stale-while-revalidate=0\nAge: 20"),
        not_served("a_negative_window", "Cache-Control: max-age=10, stale-while-revalidate=-1\nAge: 20"),
        not_served("a_window_that_is_none", "Cache-Control: max-age=10, stale-while-revalidate=a\nAge: 20"),
        not_served("a_window_without_a_value", "Cache-Control: max-age=10, stale-while-revalidate\nAge: 20"),
        not_served("a_quoted_window", "Cache-Control: max-age=10, ext=\"stale-while-revalidate=3600\"\nAge: 20"),
        not_served("must_revalidate_forbids_it", "Cache-Control: max-age=10, must-revalidate, stale-while-revalidate=3600\nAge: 20"),
        not_served("proxy_revalidate_forbids_it", "Cache-Control: max-age=10, proxy-revalidate, stale-while-revalidate=3600\nAge: 20"),
        not_served("no_cache_forbids_it", "Cache-Control: no-cache, max-age=10, stale-while-revalidate=3600\nAge: 20"),
        not_served("without_a_window_it_is_not_served", "Cache-Control: max-age=10\nAge: 20"),
        not_served("a_window_for_errors_is_none", "Cache-Control: max-age=10, stale-if-error=3600\nAge: 20"),
        not_served(
            "a_targeted_field_takes_the_window_away",
            "CDN-Cache-Control: max-age=10\nCache-Control: max-age=10, stale-while-revalidate=3600\nAge: 20",
        ),
        case(21, "a_304_renews_it_behind", RFC, renewed),
        case(21, "a_refresh_that_fails_leaves_it", RFC, failing).alone(),
        case(21, "a_stale_answer_says_how_old_it_is", "9111 5.1, 9211 2.4", aged),
    ]
}

/// A window for errors, and a response that is stale in it.
const WINDOW: &str = "Cache-Control: max-age=10, stale-if-error=3600\nAge: 20";

fn on_errors() -> Vec<Case> {
    const RFC: &str = "5861 4";
    let failing = |status: u16, is_served: bool| {
        let again = get().reply(answer(status, "")).asked();
        let again = if is_served { again.status(200).body_of(1) } else { again.status(status).body_of(2) };
        let word = if is_served { "is_stood_in_for" } else { "goes_through" };
        case(21, format!("status_{status}_{word}"), RFC, [get().reply(ok(WINDOW)), again]).alone()
    };
    let told = |name: &str, lines: &str, is_served: bool| {
        let again = get().reply(answer(503, "")).asked();
        let again = if is_served { again.status(200).body_of(1).age(10, 40) } else { again.status(503).body_of(2) };
        case(21, name, "5861 4; 9111 4.2.4, 5.2.2", [get().reply(ok(lines)), again]).alone()
    };
    let served = [500, 502, 503, 504].map(|status| failing(status, true));
    let passed = [400, 403, 404, 410, 429, 501, 505, 599].map(|status| failing(status, false));
    let rows = vec![
        told("an_error_in_the_window_in_capitals", "Cache-Control: max-age=10, STALE-IF-ERROR=3600\nAge: 20", true),
        told("an_error_with_s_maxage", "Cache-Control: s-maxage=10, stale-if-error=3600\nAge: 20", true),
        told("an_error_by_a_targeted_field", "CDN-Cache-Control: max-age=10, stale-if-error=3600\nAge: 20", true),
        told("an_error_past_the_window", "Cache-Control: max-age=10, stale-if-error=60\nAge: 90", false),
        told("an_error_with_a_window_of_0", "Cache-Control: max-age=10, stale-if-error=0\nAge: 20", false),
        told("an_error_with_a_window_that_is_none", "Cache-Control: max-age=10, stale-if-error=a\nAge: 20", false),
        told("an_error_without_a_window", "Cache-Control: max-age=10\nAge: 20", false),
        told("an_error_with_must_revalidate", "Cache-Control: max-age=10, must-revalidate, stale-if-error=3600\nAge: 20", false),
        told("an_error_with_proxy_revalidate", "Cache-Control: max-age=10, proxy-revalidate, stale-if-error=3600\nAge: 20", false),
        told("an_error_with_no_cache", "Cache-Control: no-cache, max-age=10, stale-if-error=3600\nAge: 20\nETag: \"a\"", false),
    ];
    [served.to_vec(), passed.to_vec(), rows].concat()
}

fn on_silence() -> Vec<Case> {
    const RFC: &str = "9111 4.2.4, 5.2.2";
    let told = |name: &str, lines: &str, is_served: bool| {
        let again = get().reply(verbatim("")).asked();
        let again = if is_served { again.status(200).body_of(1) } else { again.fails() };
        case(21, name, RFC, [get().reply(ok(lines)), again]).alone()
    };
    let broken = [get().reply(ok(WINDOW)), get().reply(verbatim("HTTP/1.1 abc\r\n\r\n")).asked().status(200).body_of(1)];
    vec![
        told("silence_in_the_window", WINDOW, true),
        told("silence_without_a_window", "Cache-Control: max-age=10\nAge: 20", true),
        told("silence_after_expires", "Expires: {date-10}\nDate: {date-20}", true),
        told("silence_with_s_maxage_and_a_window", "Cache-Control: s-maxage=10, stale-if-error=3600\nAge: 20", true),
        told("silence_with_s_maxage", "Cache-Control: s-maxage=10\nAge: 20\nETag: \"a\"", false),
        told("silence_with_must_revalidate", "Cache-Control: max-age=10, must-revalidate\nAge: 20\nETag: \"a\"", false),
        told("silence_with_proxy_revalidate", "Cache-Control: max-age=10, proxy-revalidate\nAge: 20\nETag: \"a\"", false),
        told("silence_with_no_cache", "Cache-Control: max-age=10, no-cache\nAge: 20\nETag: \"a\"", false),
        told(
            "silence_with_must_revalidate_and_a_window",
            "Cache-Control: max-age=10, must-revalidate, stale-if-error=3600\nAge: 20\nETag: \"a\"",
            false,
        ),
        case(21, "rubbish_in_the_window", RFC, broken).alone(),
    ]
}
