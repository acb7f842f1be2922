//! Rules 16 to 18: what unsafe methods make invalid, and what a POST leaves behind.

use anyhow::Result;

use super::case::{Case, Step, case, get, send};
use super::script::{Script, answer, ok, verbatim};
use super::stage::tell_all;

/// A route whose invalidations stay here: what is stored after one is not asked for again when the journal has come round.
const HERE: (&str, &str) = ("here", "unsafe_invalidates = \"edge\"");

const FRESH: &str = "Cache-Control: max-age=3600";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_16_an_unsafe_method_invalidates_what_it_changed() -> Result<()> {
    tell_all([by_method(), by_field(), around()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_17_and_18_a_post_may_be_stored_and_groups_go_together() -> Result<()> {
    tell_all([posts(), groups()].concat()).await
}

fn stored() -> Step {
    get().reply(ok(FRESH))
}

fn by_method() -> Vec<Case> {
    let told = |method: &'static str, status: u16, is_gone: bool| {
        let change = send(method).reply(answer(status, "")).asked_once().sees_method(method).status(status);
        let again = get().reply(ok(FRESH));
        let again = if is_gone { again.asked().body_of(3) } else { again.cached().body_of(1) };
        let name = format!("{}_answered_{status}", method.to_ascii_lowercase());
        case(16, name, "9111 4.4", [stored(), change, again])
    };
    let methods = ["POST", "PUT", "DELETE", "PATCH", "UNHEARD-OF"];
    let well = methods.into_iter().flat_map(|method| [200, 204, 303].map(|status| told(method, status, true)));
    let more = [201, 202, 299, 301, 302, 307, 308, 399].map(|status| told("POST", status, true));
    let badly = methods.into_iter().flat_map(|method| [400, 500].map(|status| told(method, status, false)));
    let worse = [401, 403, 404, 405, 409, 412, 499, 502, 503, 599].map(|status| told("POST", status, false));
    let safe = told("OPTIONS", 200, false);
    well.chain(more).chain(badly).chain(worse).chain([safe]).collect()
}

fn by_field() -> Vec<Case> {
    let told = |name: &str, method: &'static str, reply: Script, is_gone: bool| {
        let other = get().at("/other").reply(ok(FRESH));
        let change = send(method).at("/form").reply(reply).asked();
        let again = get().at("/other").reply(ok(FRESH));
        let again = if is_gone { again.asked().body_of(3) } else { again.cached().body_of(1) };
        case(16, name, "9111 4.4", [other, change, again])
    };
    vec![
        told("location_by_its_path", "POST", answer(201, "Location: {base}/other"), true),
        told("location_as_a_whole", "POST", answer(201, "Location: http://api.test{base}/other"), true),
        told("location_with_the_host_in_capitals", "POST", answer(201, "Location: http://API.test{base}/other"), true),
        told("location_with_the_default_port", "POST", answer(201, "Location: http://api.test:80{base}/other"), true),
        told("location_without_a_scheme", "POST", answer(201, "Location: //api.test{base}/other"), true),
        told("location_beside_the_target", "POST", answer(201, "Location: other"), true),
        told("location_with_dots", "POST", answer(201, "Location: x/../other"), true),
        told("location_with_a_fragment", "POST", answer(201, "Location: {base}/other#part"), true),
        told("location_of_a_redirect", "POST", answer(303, "Location: {base}/other"), true),
        told("content_location_by_its_path", "POST", ok("Content-Location: {base}/other"), true),
        told("content_location_as_a_whole", "PUT", ok("Content-Location: http://api.test{base}/other"), true),
        told("content_location_beside_the_target", "PATCH", ok("Content-Location: other"), true),
        told("location_of_delete", "DELETE", ok("Location: {base}/other"), true),
        told("location_of_an_unknown_method", "UNHEARD-OF", ok("Location: {base}/other"), true),
        told("both_fields", "POST", ok("Location: {base}/x\nContent-Location: {base}/other"), true),
        told("neither_field", "POST", ok(""), false),
        told("location_at_another_host", "POST", answer(201, "Location: http://other.test{base}/other"), false),
        told("content_location_at_another_host", "POST", ok("Content-Location: http://other.test{base}/other"), false),
        told("location_with_another_scheme", "POST", answer(201, "Location: https://api.test{base}/other"), false),
        told("location_of_an_error", "POST", answer(400, "Location: {base}/other"), false),
        told("content_location_of_an_error", "POST", answer(500, "Content-Location: {base}/other"), false),
        told("location_of_get", "GET", ok("Location: {base}/other"), false),
        told("content_location_of_get", "GET", ok("Content-Location: {base}/other"), false),
        told("location_that_is_none", "POST", answer(201, "Location: http://"), false),
    ]
}

fn around() -> Vec<Case> {
    const RFC: &str = "9111 4.4";
    let varied = "Cache-Control: max-age=3600\nVary: X-A";
    let ask = |value: &str| get().with(format!("X-A: {value}")).reply(ok(varied));
    let variants = [ask("1"), ask("2"), send("POST").reply(ok("")), ask("1").asked().body_of(4), ask("2").asked().body_of(5)];
    let query = [get().at("?a=1").reply(ok(FRESH)), send("POST").reply(ok("")), get().at("?a=1").cached().body_of(1)];
    let its_query = [get().at("?a=1").reply(ok(FRESH)), send("POST").at("?a=1").reply(ok("")), get().at("?a=1").reply(ok(FRESH)).asked()];
    let below = [get().at("/x").reply(ok(FRESH)), send("DELETE").reply(ok("")), get().at("/x").cached().body_of(1)];
    let silent = [stored(), send("POST").reply(verbatim("")).asked_once().fails(), get().reply(ok(FRESH)).asked().body_of(3)];
    let broken = [stored(), send("PUT").reply(verbatim("HTTP/1.1 abc\r\n\r\n")).asked_once().fails(), get().reply(ok(FRESH)).asked()];
    let anew = [stored(), send("POST").reply(ok("")), get().reply(ok(FRESH)).asked(), get().cached().body_of(3)];
    let told = [stored(), send("POST").content("a=b").sees("Content-Length: 3").reply(ok("X-Kept: 1")).has("X-Kept: 1").body_of(2)];
    let put = [send("PUT").reply(answer(201, FRESH)).asked(), get().reply(ok(FRESH)).asked().body_of(2)];
    let delete = [send("DELETE").reply(ok(FRESH)).asked(), send("DELETE").reply(ok(FRESH)).asked().body_of(2)];
    vec![
        case(16, "all_variants_go", RFC, variants),
        case(16, "other_queries_stay", RFC, query),
        case(16, "the_query_of_the_target_counts", RFC, its_query),
        case(16, "what_lies_below_stays", RFC, below),
        case(16, "no_answer_may_have_changed_it", RFC, silent).alone(),
        case(16, "a_broken_answer_may_have_changed_it", RFC, broken).alone(),
        case(16, "what_is_stored_after_it_is_served", RFC, anew).on(HERE.0, HERE.1),
        case(16, "an_unsafe_method_is_told_to_the_upstream", "9110 9.3.3", told),
        case(16, "what_put_answers_is_not_stored", "9110 9.3.4", put),
        case(16, "what_delete_answers_is_not_stored", "9110 9.3.5", delete),
    ]
}

fn posts() -> Vec<Case> {
    const RFC: &str = "9110 9.3.3";
    let told = |name: &str, lines: &str, is_stored: bool| {
        let again = get().reply(ok("Cache-Control: no-store"));
        let again = if is_stored { again.cached().body_of(1) } else { again.asked().body_of(2) };
        case(17, name, RFC, [send("POST").reply(ok(lines)).asked(), again]).on(HERE.0, HERE.1)
    };
    let never = [send("POST").reply(ok(FRESH)).asked(), send("POST").reply(ok(FRESH)).asked().body_of(2)];
    let with = "Cache-Control: max-age=60\nContent-Location: {base}";
    let posted = [send("POST").reply(ok(with)).asked(), send("POST").reply(ok(with)).asked().body_of(2)];
    let replaced = [stored(), send("POST").reply(ok("Cache-Control: max-age=60\nContent-Location: {base}")), get().cached().body_of(2)];
    vec![
        told("content_location_is_the_target", "Cache-Control: max-age=60\nContent-Location: {base}", true),
        told("content_location_is_the_whole_target", "Cache-Control: max-age=60\nContent-Location: http://api.test{base}", true),
        told("content_location_with_expires", "Expires: {date+3600}\nContent-Location: {base}", true),
        told("content_location_is_another", "Cache-Control: max-age=60\nContent-Location: {base}/x", false),
        told("no_content_location", "Cache-Control: max-age=60", false),
        told("no_lifetime", "Content-Location: {base}", false),
        told("a_guessed_lifetime", "Last-Modified: {date-86400}\nContent-Location: {base}", false),
        told("no_store", "Cache-Control: no-store, max-age=60\nContent-Location: {base}", false),
        case(17, "a_post_is_never_answered_from_a_post", RFC, never),
        case(17, "a_post_is_never_answered_from_a_stored_post", RFC, posted),
        case(17, "a_post_takes_the_place_of_what_was_stored", RFC, replaced).on(HERE.0, HERE.1),
    ]
}

fn groups() -> Vec<Case> {
    const RFC: &str = "9875 2, 3";
    let told = |name: &str, groups: &str, change: Step, is_gone: bool| {
        let fill = |at: &str| get().at(at).reply(ok(&format!("{FRESH}\n{groups}")));
        let again = |at: &str, step| {
            let again = get().at(at).reply(ok(FRESH));
            if is_gone { again.asked() } else { again.cached().body_of(step) }
        };
        case(18, name, RFC, [fill("/a"), fill("/b"), change.at("/c").asked(), again("/a", 1), again("/b", 2)])
    };
    let grouped = "Cache-Groups: \"{id}\"";
    let post = |lines: &str| send("POST").reply(ok(lines));
    vec![
        told("a_group_goes_together", grouped, post("Cache-Group-Invalidation: \"{id}\""), true),
        told("one_of_several_groups_is_enough", "Cache-Groups: \"x-{id}\", \"{id}\"", post("Cache-Group-Invalidation: \"{id}\""), true),
        told("one_of_several_invalidations_is_enough", grouped, post("Cache-Group-Invalidation: \"x-{id}\", \"{id}\""), true),
        told("groups_in_two_lines", "Cache-Groups: \"x-{id}\"\nCache-Groups: \"{id}\"", post("Cache-Group-Invalidation: \"{id}\""), true),
        told("put_invalidates_groups", grouped, send("PUT").reply(answer(204, "Cache-Group-Invalidation: \"{id}\"")), true),
        told("parameters_mean_nothing", "Cache-Groups: \"{id}\";a=b", post("Cache-Group-Invalidation: \"{id}\";c"), true),
        told("another_group_stays", grouped, post("Cache-Group-Invalidation: \"x-{id}\""), false),
        told("a_group_that_only_begins_or_ends_alike_stays", grouped, post("Cache-Group-Invalidation: \"{id}X\", \"X{id}\""), false),
        told("a_group_without_quotes_is_none", grouped, post("Cache-Group-Invalidation: {id}"), false),
        told("a_broken_list_is_none", grouped, post("Cache-Group-Invalidation: \"{id}\", \"x"), false),
        told("get_invalidates_no_groups", grouped, get().reply(ok("Cache-Group-Invalidation: \"{id}\"")), false),
        told("groups_alone_invalidate_nothing", grouped, post(grouped), false),
    ]
}
