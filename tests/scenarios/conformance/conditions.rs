//! Rules 12 to 15: conditions of clients, conditions of our own, what a 304 changes, and HEAD.

use anyhow::Result;

use super::case::{Case, Step, case, get, send};
use super::script::{answer, ok};
use super::stage::tell_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_12_if_none_match_is_answered_from_the_cache() -> Result<()> {
    tell_all(by_tag()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_13_if_modified_since_is_answered_from_the_cache() -> Result<()> {
    tell_all(by_date()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_14_what_is_stale_is_validated_and_updated() -> Result<()> {
    tell_all([validated(), updated(), changed()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_15_head_is_answered_from_get_and_keeps_it_right() -> Result<()> {
    tell_all(heads()).await
}

fn by_tag() -> Vec<Case> {
    let told = |name: &str, tag: &str, request: &str, status: u16| {
        let stored = ok(&format!("Cache-Control: max-age=60\nETag: {tag}\nLast-Modified: {{date-3600}}"));
        let again = get().with(request).cached().status(status);
        let again = if status == 304 { again.body("") } else { again.body_of(1) };
        case(12, name, "9110 13.1.2, 13.2.2; 9111 4.3.2", [get().reply(stored), again])
    };
    let carried = |line: &str| {
        let (field, _) = line.split_once(':').unwrap_or_default();
        let stored = ok(&format!("Cache-Control: max-age=60\nETag: \"a\"\nDate: {{date-5}}\n{line}"));
        let again = get().with("If-None-Match: \"a\"").cached().status(304).has(line).has("ETag: \"a\"").has("Date: {date-5}");
        let name = format!("a_304_carries_{}", field.to_ascii_lowercase().replace('-', "_"));
        case(12, name, "9110 15.4.5", [get().reply(stored), again])
    };
    let of_error = [
        get().reply(answer(404, "Cache-Control: max-age=60\nETag: \"a\"")),
        get().with("If-None-Match: \"a\"").cached().status(404).body_of(1),
    ];
    let untagged = |name: &str, request: &str, status: u16| {
        let steps = [get().reply(ok("Cache-Control: max-age=60")), get().with(request).cached().status(status)];
        case(12, name, "9110 13.1.2", steps)
    };
    let cases = vec![
        told("the_same_tag", "\"a\"", "If-None-Match: \"a\"", 304),
        told("another_tag", "\"a\"", "If-None-Match: \"b\"", 200),
        told("a_tag_in_another_case", "\"a\"", "If-None-Match: \"A\"", 200),
        told("a_longer_tag", "\"a\"", "If-None-Match: \"aa\"", 200),
        told("a_shorter_tag", "\"aa\"", "If-None-Match: \"a\"", 200),
        told("a_weak_tag_for_a_strong_one", "\"a\"", "If-None-Match: W/\"a\"", 304),
        told("a_strong_tag_for_a_weak_one", "W/\"a\"", "If-None-Match: \"a\"", 304),
        told("a_weak_tag_for_a_weak_one", "W/\"a\"", "If-None-Match: W/\"a\"", 304),
        told("another_weak_tag", "W/\"a\"", "If-None-Match: W/\"b\"", 200),
        told("a_tag_at_the_end_of_a_list", "\"a\"", "If-None-Match: \"x\", \"y\", \"a\"", 304),
        told("a_tag_at_the_beginning_of_a_list", "\"a\"", "If-None-Match: \"a\", \"x\"", 304),
        told("a_tag_in_a_list_without_spaces", "\"a\"", "If-None-Match: \"x\",\"a\",\"y\"", 304),
        told("a_weak_tag_in_a_list", "\"a\"", "If-None-Match: \"x\", W/\"a\"", 304),
        told("a_tag_among_empty_members", "\"a\"", "If-None-Match: , \"x\",, \"a\" ,", 304),
        told("a_list_without_it", "\"a\"", "If-None-Match: \"x\", \"y\"", 200),
        told("a_tag_in_the_second_line", "\"a\"", "If-None-Match: \"x\"\nIf-None-Match: \"a\"", 304),
        told("a_star", "\"a\"", "If-None-Match: *", 304),
        told("a_tag_between_spaces", "\"a\"", "If-None-Match:    \"a\"  ", 304),
        told("a_tag_with_a_comma", "\"a,b\"", "If-None-Match: \"x\", \"a,b\"", 304),
        told("half_of_a_tag_with_a_comma", "\"a,b\"", "If-None-Match: \"a\", \"b\"", 200),
        told("a_tag_with_a_backslash", "\"a\\\"", "If-None-Match: \"a\\\"", 304),
        told("an_empty_tag", "\"\"", "If-None-Match: \"\"", 304),
        told("a_tag_that_looks_like_a_star", "\"a\"", "If-None-Match: \"*\"", 200),
        told("another_tag_beats_a_date_that_fits", "\"a\"", "If-None-Match: \"b\"\nIf-Modified-Since: {date-3600}", 200),
        told("the_same_tag_beats_a_date_that_does_not_fit", "\"a\"", "If-None-Match: \"a\"\nIf-Modified-Since: {date-7200}", 304),
        told("the_order_of_the_fields_is_nothing", "\"a\"", "If-Modified-Since: {date-3600}\nIf-None-Match: \"b\"", 200),
        untagged("a_star_for_what_has_no_tag", "If-None-Match: *", 304),
        untagged("a_tag_for_what_has_none", "If-None-Match: \"a\"", 200),
        case(12, "a_tag_for_an_error_means_nothing", "9110 13.2.1", of_error),
    ];
    let lines = ["Vary: X-A", "Expires: {date+3600}", "Content-Location: /x"];
    [cases, lines.map(carried).to_vec(), vec![carried_control()]].concat()
}

fn carried_control() -> Case {
    let stored = ok("Cache-Control: max-age=60, public\nETag: \"a\"");
    let again = get().with("If-None-Match: \"a\"").cached().status(304).has("Cache-Control: max-age=60, public");
    case(12, "a_304_carries_cache_control", "9110 15.4.5", [get().reply(stored), again])
}

fn by_date() -> Vec<Case> {
    let told = |name: &str, stored: &str, request: &str, status: u16| {
        let stored = ok(&format!("Cache-Control: max-age=600\n{stored}"));
        let again = get().with(request).cached().status(status);
        let again = if status == 304 { again.body("") } else { again.body_of(1) };
        case(13, name, "9110 13.1.3; 9111 4.3.2", [get().reply(stored), again])
    };
    let modified = "Last-Modified: {date-3600}";
    let dated = "Date: {date-100}";
    vec![
        told("the_same_second", modified, "If-Modified-Since: {date-3600}", 304),
        told("a_second_later", modified, "If-Modified-Since: {date-3599}", 304),
        told("a_second_earlier", modified, "If-Modified-Since: {date-3601}", 200),
        told("now", modified, "If-Modified-Since: {date+0}", 304),
        told("as_rfc_850", modified, "If-Modified-Since: {rfc850-3600}", 304),
        told("as_rfc_850_and_earlier", modified, "If-Modified-Since: {rfc850-3601}", 200),
        told("as_asctime", modified, "If-Modified-Since: {asctime-3600}", 304),
        told("as_asctime_and_earlier", modified, "If-Modified-Since: {asctime-3601}", 200),
        told("last_modified_as_rfc_850", "Last-Modified: {rfc850-3600}", "If-Modified-Since: {date-3600}", 304),
        told("last_modified_as_asctime", "Last-Modified: {asctime-3600}", "If-Modified-Since: {date-3600}", 304),
        told("in_lower_case", modified, "If-Modified-Since: tue, 05 nov 2097 08:49:37 gmt", 304),
        told("a_word", modified, "If-Modified-Since: yesterday", 200),
        told("nothing", modified, "If-Modified-Since: ", 200),
        told("seconds", modified, "If-Modified-Since: 4033716577", 200),
        told("utc_in_place_of_gmt", modified, "If-Modified-Since: Tue, 05 Nov 2097 08:49:37 UTC", 200),
        told("two_lines", modified, "If-Modified-Since: {date-3600}\nIf-Modified-Since: {date-3600}", 200),
        told("without_last_modified_date_counts", dated, "If-Modified-Since: {date-100}", 304),
        told("without_last_modified_and_later_than_date", dated, "If-Modified-Since: {date-50}", 304),
        told("without_last_modified_and_earlier_than_date", dated, "If-Modified-Since: {date-101}", 200),
    ]
}

/// A stored response that is stale, and a 304 that it is still right.
fn revalidated(name: &str, lines: &str, expected: fn(Step) -> Step) -> Case {
    let again = expected(get().reply(answer(304, lines)).asked()).status(200).body_of(1);
    case(14, name, "9111 4.3.1", [get().reply(ok(lines)), again])
}

fn validated() -> Vec<Case> {
    vec![
        revalidated("a_tag_goes_upstream", "Cache-Control: max-age=0\nETag: \"a\"", |step| step.validated("If-None-Match: \"a\"")),
        revalidated("a_weak_tag_goes_upstream", "Cache-Control: max-age=0\nETag: W/\"a\"", |step| step.validated("If-None-Match: W/\"a\"")),
        revalidated("an_odd_tag_goes_upstream", "Cache-Control: max-age=0\nETag: \"a,b\\\"", |step| {
            step.validated("If-None-Match: \"a,b\\\"")
        }),
        revalidated("a_date_goes_upstream", "Cache-Control: max-age=0\nLast-Modified: {date-3600}", |step| {
            step.validated("If-Modified-Since: {date-3600}")
        }),
        revalidated("both_go_upstream", "Cache-Control: max-age=0\nETag: \"a\"\nLast-Modified: {date-3600}", |step| {
            step.validated("If-None-Match: \"a\"").validated("If-Modified-Since: {date-3600}")
        }),
        revalidated("what_grew_old_is_validated", "Cache-Control: max-age=60\nAge: 90\nETag: \"a\"", |step| {
            step.validated("If-None-Match: \"a\"")
        }),
        revalidated("what_expired_is_validated", "Expires: {date-60}\nETag: \"a\"", |step| step.validated("If-None-Match: \"a\"")),
        revalidated("must_revalidate_is_validated", "Cache-Control: max-age=0, must-revalidate\nETag: \"a\"", |step| {
            step.validated("If-None-Match: \"a\"")
        }),
    ]
}

/// A stored response that is stale, a 304 that renews it, and what is served after.
fn renewed(name: &str, lines: &str, renewal: &str, body: usize, expected: fn(Step) -> Step) -> Case {
    let first = get().reply(ok(&format!("Cache-Control: max-age=60\nAge: 90\nETag: \"a\"\n{lines}")));
    let second = get().reply(answer(304, &format!("ETag: \"a\"\n{renewal}"))).validated("If-None-Match: \"a\"");
    let second = expected(second.status(200).body_of(body));
    let third = expected(get().reply(ok("ETag: \"never\"")).cached().status(200).body_of(body));
    case(14, name, "9111 3.2, 4.3.4", [first, second, third])
}

fn updated() -> Vec<Case> {
    const FRESH: &str = "Cache-Control: max-age=600\nAge: 0";
    let with = |more: &str| format!("{FRESH}\n{more}");
    vec![
        renewed("a_304_starts_freshness_anew", "", FRESH, 1, |step| step.age(0, 20)),
        renewed("a_304_that_names_no_lifetime_starts_the_old_one_anew", "", "X-New: 1", 1, |step| step.age(0, 20)),
        renewed("a_304_s_cache_control_takes_the_place", "", FRESH, 1, |step| step.has("Cache-Control: max-age=600")),
        renewed("a_304_s_fields_take_the_place", "X-Field: 1", &with("X-Field: 2"), 1, |step| step.has("X-Field: 2")),
        renewed("a_304_s_field_takes_the_place_of_two_lines", "X-Field: 1\nX-Field: 2", &with("X-Field: 3"), 1, |step| {
            step.has("X-Field: 3").contains_not("x-field", "1")
        }),
        renewed("a_304_s_new_fields_are_added", "", &with("X-New: 1"), 1, |step| step.has("X-New: 1")),
        renewed("absent_fields_stay", "X-Old: 1\nContent-Type: a/b", FRESH, 1, |step| step.has("X-Old: 1").has("Content-Type: a/b")),
        renewed("a_304_s_content_type_takes_the_place", "Content-Type: a/b", &with("Content-Type: c/d"), 1, |step| {
            step.has("Content-Type: c/d")
        }),
        renewed(
            "a_304_s_security_policy_takes_the_place",
            "Content-Security-Policy: default-src a.test",
            &with("Content-Security-Policy: default-src b.test"),
            1,
            |step| step.has("Content-Security-Policy: default-src b.test"),
        ),
        renewed("a_304_s_last_modified_takes_the_place", "Last-Modified: {date-7200}", &with("Last-Modified: {date-3600}"), 1, |step| {
            step.has("Last-Modified: {date-3600}")
        }),
        renewed("a_304_s_expires_takes_the_place", "Expires: {date-100}", &with("Expires: {date+100}"), 1, |step| {
            step.has("Expires: {date+100}")
        }),
        renewed("a_304_s_date_takes_the_place", "Date: {date-100}", &with("Date: {date-1}"), 1, |step| step.has("Date: {date-1}")),
        renewed("a_304_s_length_is_not_the_body_s", "", &with("Content-Length: 9999"), 1, |step| step.has("Content-Length: 6")),
        renewed("a_304_s_content_encoding_is_not_the_body_s", "Content-Encoding: x-a", &with("Content-Encoding: x-b"), 1, |step| {
            step.has("Content-Encoding: x-a")
        }),
        renewed("a_304_s_content_range_is_not_the_body_s", "", &with("Content-Range: bytes 0-1/2"), 1, |step| step.lacks("content-range")),
        renewed(
            "a_304_s_fields_of_its_connection_are_not_kept",
            "",
            &with("Connection: close, x-hop\nX-Hop: 1\nKeep-Alive: a"),
            1,
            |step| step.lacks("x-hop").lacks("keep-alive"),
        ),
    ]
}

fn changed() -> Vec<Case> {
    const RFC: &str = "9111 4.3.3";
    let stale = "Cache-Control: max-age=0\nETag: \"a\"\nX-Old: 1";
    let fresh = "Cache-Control: max-age=60\nETag: \"b\"";
    let first = || get().reply(ok(stale));
    let new = get().reply(ok(fresh)).validated("If-None-Match: \"a\"").body_of(2).lacks("x-old");
    let other = [first(), new, get().cached().body_of(2).has("ETag: \"b\"").lacks("x-old")];
    let gone =
        [first(), get().reply(answer(404, "Cache-Control: max-age=60")).status(404).body_of(2), get().cached().status(404).body_of(2)];
    let forbidden = [
        get().reply(ok("Cache-Control: max-age=60\nAge: 90\nETag: \"a\"")),
        get().reply(answer(304, "Cache-Control: no-store\nETag: \"a\"")).validated("If-None-Match: \"a\"").status(200).body_of(1),
        get().reply(ok("Cache-Control: max-age=60")).asked().body_of(3),
    ];
    let own = |name: &str, condition: &str, status: u16| {
        let renewal = answer(304, "Cache-Control: max-age=60\nETag: \"a\"");
        let again = get().with(condition).reply(renewal).validated("If-None-Match: \"a\"").status(status);
        case(14, name, "9111 4.3.1, 4.3.2", [first(), again])
    };
    let bare = "Cache-Control: max-age=10, stale-if-error=3600\nAge: 20";
    vec![
        case(14, "changed_content_takes_the_place", RFC, other),
        case(14, "content_that_is_gone_is_gone", RFC, gone),
        case(14, "a_304_may_forbid_to_store", "9111 4.3.4", forbidden),
        own("a_client_s_other_tag_is_answered_by_us", "If-None-Match: \"z\"", 200),
        own("a_client_s_same_tag_is_answered_by_us", "If-None-Match: \"a\"", 304),
        case(14, "without_a_validator_there_is_no_condition", "9111 4.3.1", [get().reply(ok(bare)), get().unconditional().body_of(2)]),
    ]
}

fn heads() -> Vec<Case> {
    const RFC: &str = "9111 4.3.5, 9110 9.3.2";
    let fresh = "Cache-Control: max-age=60\nETag: \"a\"\nX-Kept: 1";
    let stored = || get().reply(ok(fresh));
    let head = || send("HEAD");
    let length = head().cached().status(200).has("Content-Length: 6").has("X-Kept: 1").has("ETag: \"a\"").body("");
    let conditional = head().with("If-None-Match: \"a\"").cached().status(304);
    let ranged = head().with("Range: bytes=0-1").cached().status(200).has("Content-Length: 6");
    let missed = [head().reply(ok(fresh)).asked().sees_method("HEAD").has("Content-Length: 6").body("")];
    let unstored = [head().reply(ok(fresh)).asked(), get().reply(ok(fresh)).asked().body_of(2)];
    let of_error = [get().reply(answer(404, fresh)), head().cached().status(404).has("Content-Length: 6")];
    let stale = "Cache-Control: max-age=0\nETag: \"a\"\nX-Field: 1";
    let other = "Cache-Control: max-age=60\nETag: \"b\"\nX-Field: 2";
    let invalidating = [
        get().reply(ok(stale)),
        head().reply(ok(other)).asked().has("ETag: \"b\""),
        get().reply(ok(other)).has("ETag: \"b\"").has("X-Field: 2"),
    ];
    let newer = "Cache-Control: max-age=60\nETag: \"a\"\nX-Field: 2";
    let updating = [
        get().reply(ok(stale)),
        head().reply(ok(newer).body("step 1")).asked().has("X-Field: 2"),
        get().reply(ok(newer)).cached().body_of(1).has("X-Field: 2"),
    ];
    let chunked = [get().reply(ok(fresh).chunked()), head().cached().status(200).body("")];
    vec![
        case(15, "head_is_answered_from_get", RFC, [stored(), length]),
        case(15, "head_is_answered_on_its_condition", RFC, [stored(), conditional]),
        case(15, "head_has_no_ranges", "9110 14.2", [stored(), ranged]),
        case(15, "head_that_is_missed_goes_upstream_as_head", RFC, missed),
        case(15, "head_is_nothing_for_get", RFC, unstored),
        case(15, "head_is_answered_from_a_stored_error", RFC, of_error),
        case(15, "head_with_another_tag_invalidates", RFC, invalidating),
        case(15, "head_with_the_same_tag_updates", RFC, updating),
        case(15, "head_is_answered_from_what_came_in_chunks", RFC, chunked),
    ]
}
