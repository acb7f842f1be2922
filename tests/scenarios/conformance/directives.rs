//! Rules 22 to 24: what requests may ask for, which field decides, and what the edge says about it.

use anyhow::Result;

use super::case::{Case, Step, case, get, not_reused, reused, send};
use super::script::{answer, ok};
use super::stage::tell_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_22_directives_of_requests() -> Result<()> {
    tell_all([always(), where_the_route_says_so()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_23_a_targeted_field_decides_alone_where_it_is_well_formed() -> Result<()> {
    tell_all(targeted()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_24_cache_status_says_what_happened() -> Result<()> {
    tell_all(told()).await
}

fn always() -> Vec<Case> {
    let stale = "Cache-Control: max-age=10\nAge: 20";
    let only = "Cache-Control: only-if-cached";
    let found = [get().reply(ok("Cache-Control: max-age=60")), get().with(only).cached().body_of(1)];
    let stale_only = [get().reply(ok("Cache-Control: max-age=10\nAge: 20\nETag: \"a\"")), get().with(only).unasked().status(504)];
    let not_kept = |name: &str, request: &str| {
        let first = get().with(request).reply(ok("Cache-Control: max-age=60")).asked();
        case(22, name, "9111 5.2.1.5", [first, get().asked().body_of(2)])
    };
    let taken = |name: &str, request: &str, lines: &str, is_taken: bool| {
        let again = get().with(format!("Cache-Control: {request}"));
        let again = if is_taken { again.cached().body_of(1).age(20, 40) } else { again.asked().body_of(2) };
        case(22, name, "9111 5.2.1.2, 4.2.4", [get().reply(ok(lines)), again])
    };
    let unheeded = |name: &str, request: &str, lines: &str| {
        case(22, name, "9111 5.2.1", [get().reply(ok(lines)), get().with(request).cached().body_of(1)])
    };
    let fresh = "Cache-Control: max-age=60";
    vec![
        case(22, "only_if_cached_is_missed", "9111 5.2.1.7", [get().with(only).unasked().status(504)]),
        case(22, "only_if_cached_in_capitals", "9111 5.2.1.7", [get().with("Cache-Control: ONLY-IF-CACHED").unasked().status(504)]),
        case(22, "only_if_cached_among_others", "9111 5.2.1.7", [get().with("Cache-Control: x=1, only-if-cached").unasked().status(504)]),
        case(22, "only_if_cached_of_head", "9111 5.2.1.7", [send("HEAD").with(only).unasked().status(504)]),
        case(22, "only_if_cached_is_found", "9111 5.2.1.7", found),
        case(22, "only_if_cached_is_stale", "9111 5.2.1.7", stale_only),
        not_kept("no_store_of_a_request", "Cache-Control: no-store"),
        not_kept("no_store_of_a_request_in_capitals", "Cache-Control: NO-STORE"),
        not_kept("no_store_of_a_request_in_the_second_line", "Cache-Control: x=1\nCache-Control: no-store"),
        taken("max_stale_takes_what_is_stale", "max-stale", stale, true),
        taken("max_stale_in_capitals", "MAX-STALE", stale, true),
        taken("max_stale_takes_what_is_less_stale", "max-stale=100", stale, true),
        taken("max_stale_does_not_take_what_is_more_stale", "max-stale=5", stale, false),
        taken("max_stale_of_0_takes_nothing", "max-stale=0", stale, false),
        taken("a_max_stale_that_is_none_takes_nothing", "max-stale=a", stale, false),
        taken(
            "max_stale_gives_way_to_must_revalidate",
            "max-stale",
            "Cache-Control: max-age=10, must-revalidate\nAge: 20\nETag: \"a\"",
            false,
        ),
        taken(
            "max_stale_gives_way_to_proxy_revalidate",
            "max-stale",
            "Cache-Control: max-age=10, proxy-revalidate\nAge: 20\nETag: \"a\"",
            false,
        ),
        taken("max_stale_gives_way_to_s_maxage", "max-stale", "Cache-Control: s-maxage=10\nAge: 20\nETag: \"a\"", false),
        taken("max_stale_gives_way_to_no_cache", "max-stale", "Cache-Control: no-cache, max-age=10\nAge: 20\nETag: \"a\"", false),
        unheeded("no_cache_of_a_stranger", "Cache-Control: no-cache", fresh),
        unheeded("max_age_of_a_stranger", "Cache-Control: max-age=0", fresh),
        unheeded("max_age_of_a_stranger_for_what_is_older", "Cache-Control: max-age=10", "Cache-Control: max-age=60\nAge: 30"),
        unheeded("min_fresh_of_a_stranger", "Cache-Control: min-fresh=3600", fresh),
        unheeded("pragma_of_a_stranger", "Pragma: no-cache", fresh),
        unheeded("what_reload_sends", "Cache-Control: no-cache\nPragma: no-cache", fresh),
    ]
}

fn where_the_route_says_so() -> Vec<Case> {
    const ROUTE: (&str, &str) = ("honour", "honour_request_directives = true");
    let told = |name: &str, request: &str, lines: &str, is_hit: bool| {
        let again = get().with(request);
        let again = if is_hit { again.cached().body_of(1) } else { again.asked().body_of(2) };
        case(22, name, "9111 5.2.1, 5.4", [get().reply(ok(lines)), again]).on(ROUTE.0, ROUTE.1)
    };
    let fresh = "Cache-Control: max-age=60";
    let older = "Cache-Control: max-age=3600\nAge: 1800";
    let tagged = "Cache-Control: max-age=60\nETag: \"a\"";
    let validated = [
        get().reply(ok(tagged)),
        get().with("Cache-Control: no-cache").reply(answer(304, tagged)).validated("If-None-Match: \"a\"").status(200).body_of(1),
    ];
    let renewed = [get().reply(ok(fresh)), get().with("Cache-Control: no-cache").reply(ok(fresh)).asked(), get().cached().body_of(2)];
    vec![
        told("honoured_no_cache", "Cache-Control: no-cache", fresh, false),
        told("honoured_no_cache_in_capitals", "Cache-Control: NO-CACHE", fresh, false),
        told("honoured_pragma", "Pragma: no-cache", fresh, false),
        told("honoured_max_age_of_0", "Cache-Control: max-age=0", older, false),
        told("honoured_max_age_below_its_age", "Cache-Control: max-age=60", older, false),
        told("honoured_max_age_above_its_age", "Cache-Control: max-age=2400", older, true),
        told("honoured_min_fresh_that_is_left", "Cache-Control: min-fresh=900", older, true),
        told("honoured_min_fresh_that_is_not_left", "Cache-Control: min-fresh=2700", older, false),
        told("honoured_max_age_and_max_stale", "Cache-Control: max-age=2400, max-stale=1", older, true),
        told("honoured_unknown_directives", "Cache-Control: unheard-of, x=\"no-cache\"", fresh, true),
        case(22, "honoured_no_cache_is_validated", "9111 5.2.1.4", validated).on(ROUTE.0, ROUTE.1),
        case(22, "what_honoured_no_cache_fetched_is_stored", "9111 5.2.1.4", renewed).on(ROUTE.0, ROUTE.1),
    ]
}

fn targeted() -> Vec<Case> {
    let fresh = reused(
        23,
        "9213 2.1, 2.2, 3.1",
        &[
            ("it_names_a_lifetime_alone", "CDN-Cache-Control: max-age=60"),
            ("it_beats_a_max_age_of_0", "CDN-Cache-Control: max-age=60\nCache-Control: max-age=0"),
            ("it_beats_s_maxage", "CDN-Cache-Control: max-age=60\nCache-Control: s-maxage=0"),
            ("it_beats_no_store", "CDN-Cache-Control: max-age=60\nCache-Control: no-store"),
            ("it_beats_private", "CDN-Cache-Control: max-age=60\nCache-Control: private"),
            ("it_beats_no_cache", "CDN-Cache-Control: max-age=60\nCache-Control: no-cache"),
            ("it_beats_expires", "CDN-Cache-Control: max-age=60\nExpires: 0"),
            ("it_beats_all_of_them", "CDN-Cache-Control: max-age=60\nCache-Control: no-store, private, no-cache, max-age=0\nExpires: 0"),
            ("it_may_come_second", "Cache-Control: no-store\nCDN-Cache-Control: max-age=60"),
            ("its_name_in_lower_case", "cdn-cache-control: max-age=60\nCache-Control: no-store"),
            ("its_parameters_mean_nothing", "CDN-Cache-Control: max-age=60;a=b;c\nCache-Control: no-store"),
            ("its_unknown_members_mean_nothing", "CDN-Cache-Control: a=b, max-age=60, c, d=\"e\", f=?0, g=(1 2)\nCache-Control: no-store"),
            ("its_second_line_counts", "CDN-Cache-Control: public\nCDN-Cache-Control: max-age=60\nCache-Control: no-store"),
            ("its_last_value_counts", "CDN-Cache-Control: max-age=0, max-age=60\nCache-Control: no-store"),
            ("its_leading_zeros_mean_nothing", "CDN-Cache-Control: max-age=0060\nCache-Control: no-store"),
            ("its_integer_of_15_digits", "CDN-Cache-Control: max-age=999999999999999\nCache-Control: no-store"),
            ("its_spaces_around_commas", "CDN-Cache-Control:  public  ,\tmax-age=60 \nCache-Control: no-store"),
            ("its_age_is_below", "CDN-Cache-Control: max-age=60\nAge: 30"),
            ("its_false_no_store", "CDN-Cache-Control: max-age=60, no-store=?0"),
            ("its_true_public", "CDN-Cache-Control: max-age=60, public=?1"),
            ("its_no_store_in_a_string", "CDN-Cache-Control: max-age=60, a=\"no-store\""),
            ("it_is_ignored_when_empty", "CDN-Cache-Control: \nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_comma_at_its_end", "CDN-Cache-Control: no-store,\nCache-Control: max-age=60"),
            ("it_is_ignored_with_an_empty_member", "CDN-Cache-Control: no-store,,max-age=0\nCache-Control: max-age=60"),
            ("it_is_ignored_in_capitals", "CDN-Cache-Control: NO-STORE\nCache-Control: max-age=60"),
            ("it_is_ignored_as_rubbish", "CDN-Cache-Control: no-store, &&&\nCache-Control: max-age=60"),
            ("it_is_ignored_with_spaces_around_equals", "CDN-Cache-Control: max-age = 0\nCache-Control: max-age=60"),
            ("it_is_ignored_without_a_value", "CDN-Cache-Control: no-store, max-age=\nCache-Control: max-age=60"),
            ("it_is_ignored_with_single_quotes", "CDN-Cache-Control: no-store, max-age='0'\nCache-Control: max-age=60"),
            ("it_is_ignored_with_an_open_string", "CDN-Cache-Control: no-store, a=\"b\nCache-Control: max-age=60"),
            ("it_is_ignored_with_16_digits", "CDN-Cache-Control: no-store, max-age=1234567890123456\nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_string", "CDN-Cache-Control: max-age=\"0\"\nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_decimal", "CDN-Cache-Control: max-age=0.0\nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_token", "CDN-Cache-Control: max-age=a\nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_boolean", "CDN-Cache-Control: max-age, no-store\nCache-Control: max-age=60"),
            ("it_is_ignored_with_a_number_for_no_store", "CDN-Cache-Control: no-store=1\nCache-Control: max-age=60"),
            ("our_own_beats_it", "Atoll-CDN-Cache-Control: max-age=60\nCDN-Cache-Control: no-store"),
            ("our_own_beats_cache_control", "Atoll-CDN-Cache-Control: max-age=60\nCache-Control: no-store"),
            ("our_own_is_ignored_as_rubbish", "Atoll-CDN-Cache-Control: &\nCDN-Cache-Control: max-age=60"),
            ("our_own_is_ignored_when_empty", "Atoll-CDN-Cache-Control: \nCDN-Cache-Control: max-age=60"),
            ("both_are_ignored_as_rubbish", "Atoll-CDN-Cache-Control: &\nCDN-Cache-Control: &\nCache-Control: max-age=60"),
            ("surrogate_control", "Surrogate-Control: max-age=60\nCache-Control: no-store"),
            ("it_beats_surrogate_control", "CDN-Cache-Control: max-age=60\nSurrogate-Control: no-store"),
            ("surrogate_control_is_ignored_as_rubbish", "Surrogate-Control: &\nCache-Control: max-age=60"),
            ("another_cdn_s_field_means_nothing", "Other-CDN-Cache-Control: no-store\nCache-Control: max-age=60"),
        ],
    );
    let stale = not_reused(
        23,
        "9213 2.1, 2.2, 3.1",
        &[
            ("its_max_age_of_0_beats_max_age", "CDN-Cache-Control: max-age=0\nCache-Control: max-age=60"),
            ("its_max_age_of_0_beats_s_maxage", "CDN-Cache-Control: max-age=0\nCache-Control: s-maxage=60"),
            ("its_max_age_of_0_beats_expires", "CDN-Cache-Control: max-age=0\nExpires: {date+3600}"),
            ("its_no_store_beats_max_age", "CDN-Cache-Control: no-store\nCache-Control: max-age=60"),
            ("its_private_beats_public", "CDN-Cache-Control: private\nCache-Control: public, max-age=60"),
            ("its_no_cache_beats_max_age", "CDN-Cache-Control: no-cache\nCache-Control: max-age=60"),
            ("its_no_store_beats_its_max_age", "CDN-Cache-Control: max-age=60, no-store"),
            ("its_true_no_store", "CDN-Cache-Control: max-age=60, no-store=?1"),
            ("its_last_value_of_0_counts", "CDN-Cache-Control: max-age=60, max-age=0"),
            ("its_no_store_in_the_second_line", "CDN-Cache-Control: max-age=60\nCDN-Cache-Control: no-store"),
            ("its_no_store_with_parameters", "CDN-Cache-Control: max-age=60, no-store;a=b"),
            ("its_age_is_above", "CDN-Cache-Control: max-age=60\nAge: 90"),
            ("its_lifetime_is_shorter", "CDN-Cache-Control: max-age=60\nCache-Control: max-age=3600\nAge: 90"),
            ("it_names_no_lifetime_and_expires_is_ignored", "CDN-Cache-Control: public\nExpires: {date+3600}"),
            ("it_names_no_lifetime_and_max_age_is_ignored", "CDN-Cache-Control: public\nCache-Control: max-age=60"),
            ("as_rubbish_it_leaves_no_store", "CDN-Cache-Control: max-age=60,\nCache-Control: no-store"),
            ("with_a_string_it_leaves_no_store", "CDN-Cache-Control: max-age=\"60\"\nCache-Control: no-store"),
            ("with_a_decimal_it_leaves_no_store", "CDN-Cache-Control: max-age=60.0\nCache-Control: no-store"),
            ("in_capitals_it_leaves_no_store", "CDN-Cache-Control: MAX-AGE=60\nCache-Control: no-store"),
            ("when_empty_it_leaves_no_store", "CDN-Cache-Control:\nCache-Control: no-store"),
            ("our_own_no_store_beats_it", "Atoll-CDN-Cache-Control: no-store\nCDN-Cache-Control: max-age=60"),
            ("our_own_max_age_of_0_beats_it", "Atoll-CDN-Cache-Control: max-age=0\nCDN-Cache-Control: max-age=60"),
            ("surrogate_control_no_store", "Surrogate-Control: no-store\nCache-Control: max-age=60"),
            ("its_no_store_beats_surrogate_control", "CDN-Cache-Control: no-store\nSurrogate-Control: max-age=60"),
        ],
    );
    let shown =
        "CDN-Cache-Control: max-age=60\nSurrogate-Control: max-age=60\nAtoll-CDN-Cache-Control: max-age=60\nCache-Control: max-age=5";
    let public = |step: Step| step.has("CDN-Cache-Control: max-age=60").has("Cache-Control: max-age=5").lacks("surrogate-control");
    let tagged = "CDN-Cache-Control: no-cache, max-age=60\nETag: \"a\"";
    let validated = [get().reply(ok(tagged)), get().reply(answer(304, tagged)).validated("If-None-Match: \"a\"").body_of(1)];
    let rows = vec![
        case(23, "clients_see_what_is_theirs", "9213 2.2", [public(get().reply(ok(shown))), public(get().cached())]),
        case(23, "its_no_cache_is_validated", "9213 2.2", validated),
    ];
    [fresh, stale, rows].concat()
}

fn told() -> Vec<Case> {
    const STATUS: &str = "cache-status";
    const FRESH: &str = "Cache-Control: max-age=60";
    let stored = || get().reply(ok(FRESH));
    let missed = stored().contains(STATUS, "atoll; fwd=uri-miss").contains(STATUS, "fwd-status=200").contains(STATUS, "; stored");
    let hit = get().cached().contains(STATUS, "atoll; hit").contains(STATUS, "ttl=").contains_not(STATUS, "fwd");
    let unstored = get().reply(ok("Cache-Control: no-store")).contains(STATUS, "fwd=uri-miss").contains_not(STATUS, "; stored");
    let missing = get().reply(answer(404, "")).contains(STATUS, "fwd-status=404");
    let varied = "Cache-Control: max-age=60\nVary: X-A";
    let other = get().with("X-A: 2").reply(ok(varied)).contains(STATUS, "fwd=vary-miss");
    let stale = "Cache-Control: max-age=10\nAge: 20\nETag: \"a\"";
    let replaced = get().reply(ok(FRESH)).contains(STATUS, "fwd=stale").contains(STATUS, "fwd-status=200");
    let renewed = get().reply(answer(304, "ETag: \"a\"")).contains(STATUS, "fwd=stale").contains(STATUS, "fwd-status=304");
    let posted = send("POST").reply(ok("")).contains(STATUS, "fwd=method").contains_not(STATUS, "; hit");
    let chained = "Cache-Control: max-age=60\nCache-Status: inner; hit; ttl=5";
    let first = get().reply(ok(chained)).contains(STATUS, "inner; hit; ttl=5").contains(STATUS, "atoll; fwd=uri-miss");
    let second = get().cached().contains(STATUS, "inner; hit; ttl=5").contains(STATUS, "atoll; hit");
    let ours = get().with("Cache-Control: only-if-cached").status(504).contains(STATUS, "atoll").contains_not(STATUS, "fwd");
    vec![
        case(24, "a_miss_that_is_stored", "9211 2.2, 2.3, 2.5", [missed]),
        case(24, "a_hit", "9211 2.1, 2.4", [stored(), hit]),
        case(24, "a_miss_that_is_not_stored", "9211 2.5", [unstored]),
        case(24, "a_miss_that_is_an_error", "9211 2.3", [missing]),
        case(24, "a_variant_that_is_missed", "9211 2.2", [get().with("X-A: 1").reply(ok(varied)), other]),
        case(24, "a_stale_response_that_is_replaced", "9211 2.2", [get().reply(ok(stale)), replaced]),
        case(24, "a_stale_response_that_is_renewed", "9211 2.3", [get().reply(ok(stale)), renewed]),
        case(24, "another_method", "9211 2.2", [posted]),
        case(24, "the_members_of_caches_before_us_stay", "9211 2", [first, second]),
        case(24, "an_answer_of_our_own", "9211 2", [ours]),
    ]
}
