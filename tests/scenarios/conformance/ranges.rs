//! Rules 19 and 20: parts of what is stored, and stored parts.

use anyhow::Result;

use super::case::{Case, case, get, send};
use super::script::{answer, letters, ok};
use super::stage::tell_all;

const WHOLE: &str = "Cache-Control: max-age=60\nETag: \"a\"\nLast-Modified: {date-3600}";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_19_ranges_are_answered_from_a_stored_whole() -> Result<()> {
    tell_all([satisfied(), refused(), on_condition()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_19_and_20_stored_parts_are_used_and_completed_and_lies_are_not_stored() -> Result<()> {
    tell_all([parts(), lies()].concat()).await
}

fn satisfied() -> Vec<Case> {
    let told = |name: &str, range: &str, (first, last): (usize, usize)| {
        let again = get().with(format!("Range: {range}")).cached().status(206).body(&letters(first, last));
        let again = again.has(&format!("Content-Range: bytes {first}-{last}/26")).has("ETag: \"a\"");
        case(19, name, "9110 14.1.2, 15.3.7; 9111 3.3", [get().reply(ok(WHOLE).body(letters(0, 25))), again])
    };
    vec![
        told("the_first_bytes", "bytes=0-4", (0, 4)),
        told("bytes_in_the_middle", "bytes=10-14", (10, 14)),
        told("one_byte", "bytes=0-0", (0, 0)),
        told("the_last_byte_by_its_place", "bytes=25-25", (25, 25)),
        told("from_a_place_on", "bytes=20-", (20, 25)),
        told("from_the_beginning_on", "bytes=0-", (0, 25)),
        told("all_bytes", "bytes=0-25", (0, 25)),
        told("the_last_bytes", "bytes=-3", (23, 25)),
        told("the_last_byte", "bytes=-1", (25, 25)),
        told("more_last_bytes_than_there_are", "bytes=-100", (0, 25)),
        told("beyond_the_end", "bytes=20-100", (20, 25)),
        told("far_beyond_the_end", "bytes=20-99999999999999999999", (20, 25)),
        told("leading_zeros", "bytes=005-0007", (5, 7)),
        told("the_unit_in_capitals", "BYTES=0-4", (0, 4)),
        told("the_only_range_of_two_that_is_there", "bytes=0-4, 100-200", (0, 4)),
        told("among_empty_members", "bytes=,0-4,,", (0, 4)),
    ]
}

fn refused() -> Vec<Case> {
    const RFC: &str = "9110 14.2, 15.5.17";
    let filled = || get().reply(ok(WHOLE).body(letters(0, 25)));
    let unsatisfied = |name: &str, range: &str| {
        let again = get().with(format!("Range: {range}")).cached().status(416).has("Content-Range: bytes */26");
        case(19, name, RFC, [filled(), again])
    };
    let ignored = |name: &str, lines: &str| {
        let again = get().with(lines).cached().status(200).body(&letters(0, 25)).lacks("content-range");
        case(19, name, RFC, [filled(), again])
    };
    let bounded = |name: &str, range: &str| {
        let again = get().with(format!("Range: {range}")).unasked().not_status(206);
        case(19, name, "9110 17.15", [filled(), again])
    };
    let several = |name: &str, range: &str, count: usize| {
        let again = get().with(format!("Range: {range}")).cached().status(206).lacks("content-range");
        let again = again.contains("content-type", "multipart/byteranges; boundary=").has("ETag: \"a\"");
        case(19, format!("{name}_in_{count}_parts"), "9110 14.6, 15.3.7.2", [filled(), again])
    };
    let many = (0..100).map(|_| "0-").collect::<Vec<_>>().join(",");
    let apart = (0..500).map(|at| format!("{}-{}", at * 2, at * 2)).collect::<Vec<_>>().join(",");
    let of_error = [
        get().reply(answer(404, "Cache-Control: max-age=60\nETag: \"a\"").body(letters(0, 25))),
        get().with("Range: bytes=0-4").cached().status(404).body(&letters(0, 25)),
    ];
    let not_modified = [filled(), get().with("Range: bytes=0-4\nIf-None-Match: \"a\"").cached().status(304)];
    vec![
        unsatisfied("from_behind_the_end", "bytes=26-"),
        unsatisfied("a_range_behind_the_end", "bytes=30-40"),
        unsatisfied("no_last_bytes", "bytes=-0"),
        unsatisfied("two_ranges_behind_the_end", "bytes=30-40, 50-60"),
        ignored("another_unit", "Range: lines=0-4"),
        ignored("no_unit", "Range: 0-4"),
        ignored("no_equals_sign", "Range: bytes 0-4"),
        ignored("the_end_before_the_beginning", "Range: bytes=5-2"),
        ignored("letters", "Range: bytes=a-b"),
        ignored("a_dash_alone", "Range: bytes=-"),
        ignored("no_range", "Range: bytes="),
        ignored("a_fraction", "Range: bytes=0.5-4"),
        ignored("a_sign", "Range: bytes=+0-4"),
        ignored("two_lines", "Range: bytes=0-4\nRange: bytes=0-4"),
        ignored("rubbish_beside_a_good_range", "Range: bytes=0-4, x"),
        bounded("two_ranges_that_overlap", "bytes=0-10, 5-15"),
        bounded("the_same_range_a_hundred_times", &format!("bytes={many}")),
        bounded("five_hundred_ranges", &format!("bytes={apart}")),
        several("ranges", "bytes=0-1, 4-5", 2),
        several("ranges_and_last_bytes", "bytes=0-1, 4-5, -2", 3),
        several("ranges_in_another_order", "bytes=10-11,0-1", 2),
        case(19, "a_range_of_an_error", "9110 14.2", of_error),
        case(19, "a_condition_comes_before_a_range", "9110 13.2.2", not_modified),
        case(19, "a_post_has_no_ranges", "9110 14.2", [send("POST").with("Range: bytes=0-4").reply(ok("")).asked().status(200).body_of(1)]),
    ]
}

fn on_condition() -> Vec<Case> {
    let told = |name: &str, lines: &str, condition: &str, is_part: bool| {
        let again = get().with(format!("Range: bytes=0-4\nIf-Range: {condition}")).cached();
        let again = if is_part { again.status(206).body(&letters(0, 4)) } else { again.status(200).body(&letters(0, 25)) };
        let first = get().reply(ok(&format!("Cache-Control: max-age=600\n{lines}")).body(letters(0, 25)));
        case(19, name, "9110 13.1.5", [first, again])
    };
    let both = "ETag: \"a\"\nLast-Modified: {date-3600}";
    let alone = [get().reply(ok(WHOLE).body(letters(0, 25))), get().with("If-Range: \"a\"").cached().status(200).body(&letters(0, 25))];
    vec![
        told("if_range_with_the_same_tag", both, "\"a\"", true),
        told("if_range_with_another_tag", both, "\"b\"", false),
        told("if_range_with_a_weak_tag", both, "W/\"a\"", false),
        told("if_range_with_a_weak_tag_for_a_weak_one", "ETag: W/\"a\"", "W/\"a\"", false),
        told("if_range_with_a_strong_tag_for_a_weak_one", "ETag: W/\"a\"", "\"a\"", false),
        told("if_range_with_the_same_date", "Last-Modified: {date-3600}", "{date-3600}", true),
        told("if_range_with_an_earlier_date", "Last-Modified: {date-3600}", "{date-3601}", false),
        told("if_range_with_a_later_date", "Last-Modified: {date-3600}", "{date-3599}", false),
        told(
            "if_range_with_a_date_that_is_not_strong",
            "Last-Modified: {date-3600}\nDate: {date-3600}\nAge: 0\nCache-Control: s-maxage=86400",
            "{date-3600}",
            false,
        ),
        told("if_range_with_rubbish", both, "rubbish", false),
        case(19, "if_range_without_a_range", "9110 13.1.5", alone),
    ]
}

fn parts() -> Vec<Case> {
    const RFC: &str = "9111 3.3, 3.4; 9110 15.3.7.3";
    let whole = || ok("Cache-Control: max-age=60\nETag: \"{id}\"").body(letters(0, 99)).heeding_ranges();
    let part = |first: usize, last: usize| {
        let asked = get().with(format!("Range: bytes={first}-{last}")).reply(whole()).status(206);
        asked.body(&letters(first, last)).has(&format!("Content-Range: bytes {first}-{last}/100"))
    };
    let all = || get().reply(whole()).status(200).body(&letters(0, 99)).lacks("content-range");
    let last = get().with("Range: bytes=-10").reply(whole()).status(206).body(&letters(90, 99));
    let beyond = get().with("Range: bytes=100-").reply(whole()).status(416);
    let tag = "If-Range: \"{id}\"\nRange: bytes=2-5";
    let conditional = get().with(tag).reply(whole()).cached().status(206).body(&letters(2, 5));
    vec![
        case(19, "a_part_is_passed_on", RFC, [part(0, 9)]),
        case(19, "a_stored_part_serves_itself", RFC, [part(0, 9), part(0, 9).cached()]),
        case(19, "a_stored_part_serves_what_lies_in_it", RFC, [part(0, 9), part(2, 5).cached()]),
        case(19, "a_stored_part_serves_its_last_byte", RFC, [part(10, 19), part(19, 19).cached()]),
        case(19, "a_stored_part_serves_on_its_tag", RFC, [part(0, 9), conditional]),
        case(19, "what_a_stored_part_lacks_is_fetched", RFC, [part(0, 9), part(5, 20)]),
        case(19, "a_part_elsewhere_is_fetched", RFC, [part(0, 9), part(50, 59)]),
        case(19, "last_bytes_are_fetched", RFC, [part(0, 9), last]),
        case(19, "a_stored_part_is_never_all", RFC, [part(0, 9), all()]),
        case(19, "a_stored_end_is_never_all", RFC, [part(90, 99), all()]),
        case(19, "two_parts_and_the_rest_are_all", RFC, [part(0, 9), part(50, 59), all()]),
        case(19, "what_was_completed_serves_parts", RFC, [part(0, 9), all(), part(40, 60).cached()]),
        case(19, "a_whole_that_came_after_a_part_is_stored", RFC, [part(0, 9), all(), all().cached()]),
        case(19, "a_range_that_is_not_there", "9110 15.5.17", [part(0, 9), beyond]),
        case(
            20,
            "a_range_that_is_missed_is_answered_with_its_part",
            "9110 14.2",
            [get().with("Range: bytes=0-9").reply(whole()).asked().status(206)],
        ),
    ]
}

fn lies() -> Vec<Case> {
    const RFC: &str = "9110 15.3.7; 9111 3.3";
    let told = |name: &str, content_range: &str, body: &str| {
        let lines = format!("Cache-Control: max-age=60\nETag: \"a\"\nContent-Range: {content_range}");
        let lie = || answer(206, &lines).body(body);
        let ask = || get().with("Range: bytes=0-9").reply(lie());
        case(19, name, RFC, [ask().asked(), ask().asked()])
    };
    let told_to_all = |name: &str, status: u16, lines: &str| {
        let first = get().with("Range: bytes=0-9").reply(answer(status, lines));
        let again = get().reply(ok("").body(letters(0, 99))).asked().status(200).body(&letters(0, 99));
        case(19, name, RFC, [first, again])
    };
    let other = "Cache-Control: max-age=60\nETag: \"a\"\nContent-Range: bytes 0-9/100";
    let partial = answer(206, other).body(letters(0, 9));
    let unasked = [get().reply(partial), get().reply(ok("").body(letters(0, 99))).asked().status(200).body(&letters(0, 99))];
    vec![
        told("a_part_that_is_too_short", "bytes 0-9/100", "abcde"),
        told("a_part_that_is_too_long", "bytes 0-9/100", "abcdefghijklmno"),
        told("a_part_that_ends_before_it_begins", "bytes 9-0/100", "abcdefghij"),
        told("a_part_beyond_its_whole", "bytes 0-9/5", "abcdefghij"),
        told("a_part_of_another_unit", "lines 0-9/100", "abcdefghij"),
        told("a_part_that_is_none", "rubbish", "abcdefghij"),
        told_to_all("a_416_is_not_for_who_wants_all", 416, "Cache-Control: max-age=60\nContent-Range: bytes */5"),
        told_to_all("a_206_without_content_range_is_not_for_who_wants_all", 206, "Cache-Control: max-age=60"),
        case(19, "a_206_that_nobody_asked_for_is_not_all", RFC, unasked),
    ]
}
