//! Rules 1 to 6: for how long a response is fresh, and how old it is.

use anyhow::Result;

use super::case::{Case, case, get, not_reused, reused};
use super::script::{answer, ok};
use super::stage::tell_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_01_to_03_lifetimes_and_ages_are_read_as_they_are_meant() -> Result<()> {
    tell_all([explicit(), ages(), what_age_says()].concat()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_04_expires_is_read_strictly_and_counted_from_date() -> Result<()> {
    tell_all(expires()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_05_a_lifetime_is_guessed_only_where_it_may_be() -> Result<()> {
    tell_all(guessed()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rule_06_every_final_status_with_explicit_freshness_is_stored() -> Result<()> {
    tell_all(statuses()).await
}

fn explicit() -> Vec<Case> {
    let fresh = reused(
        1,
        "9111 4.2.1, 5.2.2",
        &[
            ("max_age", "Cache-Control: max-age=60"),
            ("s_maxage", "Cache-Control: s-maxage=60"),
            ("s_maxage_beats_a_max_age_of_0", "Cache-Control: max-age=0, s-maxage=60"),
            ("s_maxage_beats_max_age_in_any_order", "Cache-Control: s-maxage=60, max-age=0"),
            ("s_maxage_in_a_line_of_its_own_beats_max_age", "Cache-Control: max-age=0\nCache-Control: s-maxage=60"),
            ("s_maxage_beats_expires", "Cache-Control: s-maxage=60\nExpires: {date-60}"),
            ("max_age_beats_expires", "Cache-Control: max-age=60\nExpires: {date-60}"),
            ("max_age_beats_an_invalid_expires", "Cache-Control: max-age=60\nExpires: 0"),
            ("max_age_in_capitals", "Cache-Control: MAX-AGE=60"),
            ("max_age_in_mixed_case", "Cache-Control: mAx-AgE=60"),
            ("s_maxage_in_capitals", "Cache-Control: max-age=0, S-MAXAGE=60"),
            ("the_field_name_in_lower_case", "cache-control: max-age=60"),
            ("the_field_name_in_capitals", "CACHE-CONTROL: max-age=60"),
            ("leading_zeros", "Cache-Control: max-age=0060"),
            ("many_leading_zeros", "Cache-Control: max-age=000000000000000000000000000060"),
            ("a_value_of_2_to_31", "Cache-Control: max-age=2147483648"),
            ("a_value_just_over_2_to_31", "Cache-Control: max-age=2147483649"),
            ("a_value_just_under_2_to_32", "Cache-Control: max-age=4294967295"),
            ("a_value_over_2_to_32", "Cache-Control: max-age=4294967297"),
            ("a_value_over_2_to_63", "Cache-Control: max-age=9223372036854775808"),
            ("a_value_over_2_to_64", "Cache-Control: max-age=99999999999999999999999999"),
            ("an_s_maxage_over_2_to_64", "Cache-Control: max-age=0, s-maxage=99999999999999999999999999"),
            ("a_value_in_double_quotes", "Cache-Control: max-age=\"60\""),
            ("after_another_directive", "Cache-Control: public, max-age=60"),
            ("before_another_directive", "Cache-Control: max-age=60, public"),
            ("without_a_space_behind_the_comma", "Cache-Control: public,max-age=60"),
            ("with_spaces_before_the_comma", "Cache-Control: max-age=60   ,   public"),
            ("with_a_tab_behind_the_comma", "Cache-Control: public,\tmax-age=60"),
            ("among_empty_members", "Cache-Control: , ,max-age=60,, "),
            ("in_the_second_line", "Cache-Control: public\nCache-Control: max-age=60"),
            ("in_the_first_line", "Cache-Control: max-age=60\nCache-Control: public"),
            ("beside_an_empty_line", "Cache-Control: \nCache-Control: max-age=60"),
            ("beside_an_unknown_directive", "Cache-Control: max-age=60, unheard-of"),
            ("beside_an_unknown_directive_with_a_value", "Cache-Control: unheard-of=1, max-age=60"),
            ("beside_a_quoted_max_age_of_0", "Cache-Control: max-age=60, ext=\"max-age=0\""),
            ("behind_a_quoted_no_store", "Cache-Control: ext=\"no-store\", max-age=60"),
            ("behind_a_quoted_list", "Cache-Control: ext=\"a, no-store, max-age=0\", max-age=60"),
            ("behind_an_escaped_quote", "Cache-Control: ext=\"a\\\", no-store, \", max-age=60"),
            ("single_quotes_do_not_quote", "Cache-Control: ext='a, max-age=60, b'"),
            ("a_name_that_ends_alike_is_another", "Cache-Control: x-max-age=0, max-age=60"),
            ("a_name_that_begins_alike_is_another", "Cache-Control: max-age-ext=0, max-age=60"),
            ("immutable_needs_nothing_more", "Cache-Control: max-age=60, immutable"),
            ("pragma_of_a_response_means_nothing", "Cache-Control: max-age=60\nPragma: no-cache"),
        ],
    );
    let stale = not_reused(
        1,
        "9111 4.2.1, 5.2, 1.2.2",
        &[
            ("max_age_of_0", "Cache-Control: max-age=0"),
            ("s_maxage_of_0_beats_max_age", "Cache-Control: max-age=60, s-maxage=0"),
            ("max_age_of_0_beats_expires", "Cache-Control: max-age=0\nExpires: {date+3600}"),
            ("s_maxage_of_0_beats_expires", "Cache-Control: s-maxage=0\nExpires: {date+3600}"),
            ("a_negative_value", "Cache-Control: max-age=-60"),
            ("a_negative_value_beside_expires", "Cache-Control: max-age=-1\nExpires: {date+3600}"),
            ("a_negative_s_maxage_beside_max_age", "Cache-Control: max-age=60, s-maxage=-1"),
            ("a_sign", "Cache-Control: max-age=+60"),
            ("a_fraction", "Cache-Control: max-age=60.5"),
            ("a_fraction_below_1", "Cache-Control: max-age=0.9"),
            ("an_exponent", "Cache-Control: max-age=6e1"),
            ("hexadecimal_digits", "Cache-Control: max-age=0x3c"),
            ("letters_alone", "Cache-Control: max-age=abc"),
            ("letters_behind_the_digits", "Cache-Control: max-age=60s"),
            ("letters_before_the_digits", "Cache-Control: max-age=a60"),
            ("no_value", "Cache-Control: max-age="),
            ("no_value_and_no_equals_sign", "Cache-Control: max-age\nExpires: {date+3600}"),
            ("a_value_in_single_quotes", "Cache-Control: max-age='60'"),
            ("quoted_rubbish", "Cache-Control: max-age=\"a\""),
            ("rubbish_beside_expires", "Cache-Control: max-age=a\nExpires: {date+3600}"),
            ("rubbish_in_s_maxage_beside_max_age", "Cache-Control: s-maxage=a, max-age=60"),
            ("two_values_of_which_the_first_is_0", "Cache-Control: max-age=0, max-age=60"),
            ("two_lines_of_which_the_first_is_0", "Cache-Control: max-age=0\nCache-Control: max-age=60"),
            ("a_quoted_max_age_is_none", "Cache-Control: ext=\"max-age=60\""),
            ("a_quoted_list_names_none", "Cache-Control: ext=\"a, max-age=60, b\""),
            ("an_unknown_directive_is_none", "Cache-Control: x-max-age=60"),
            ("another_field_is_none", "X-Cache-Control: max-age=60"),
            ("public_alone_names_none", "Cache-Control: public"),
            ("immutable_alone_names_none", "Cache-Control: immutable"),
            ("nothing_names_none", "ETag: \"a\""),
        ],
    );
    [fresh, stale].concat()
}

fn ages() -> Vec<Case> {
    let fresh = reused(
        2,
        "9111 4.2.3, 5.1",
        &[
            ("an_age_below_the_lifetime", "Cache-Control: max-age=60\nAge: 30"),
            ("an_age_of_0", "Cache-Control: max-age=60\nAge: 0"),
            ("an_age_with_leading_zeros", "Cache-Control: max-age=60\nAge: 0030"),
            ("an_age_below_s_maxage", "Cache-Control: s-maxage=3600, max-age=10\nAge: 1800"),
            ("an_age_of_letters_is_ignored", "Cache-Control: max-age=60\nAge: abc"),
            ("an_empty_age_is_ignored", "Cache-Control: max-age=60\nAge: "),
            ("a_negative_age_is_ignored", "Cache-Control: max-age=60\nAge: -7200"),
            ("an_age_with_a_sign_is_ignored", "Cache-Control: max-age=60\nAge: +7200"),
            ("an_age_with_a_fraction_is_ignored", "Cache-Control: max-age=60\nAge: 7200.0"),
            ("an_age_with_a_unit_is_ignored", "Cache-Control: max-age=60\nAge: 7200s"),
            ("a_quoted_age_is_ignored", "Cache-Control: max-age=60\nAge: \"7200\""),
            ("an_age_with_a_parameter_is_ignored", "Cache-Control: max-age=60\nAge: 7200;a=b"),
            ("the_first_age_of_a_list_counts", "Cache-Control: max-age=60\nAge: 0, 7200"),
            ("a_list_that_begins_with_rubbish_is_ignored", "Cache-Control: max-age=60\nAge: abc, 7200"),
            ("the_first_line_of_age_counts", "Cache-Control: max-age=60\nAge: 0\nAge: 7200"),
            ("a_date_below_the_lifetime_ago", "Cache-Control: max-age=60\nDate: {date-30}"),
            ("a_date_to_come_makes_nothing_older", "Cache-Control: max-age=60\nDate: {date+7200}"),
            ("an_age_below_what_expires_leaves", "Expires: {date+3600}\nAge: 1800"),
        ],
    );
    let stale = not_reused(
        2,
        "9111 4.2.3, 5.1",
        &[
            ("an_age_of_the_lifetime", "Cache-Control: max-age=60\nAge: 60"),
            ("an_age_above_the_lifetime", "Cache-Control: max-age=60\nAge: 7200"),
            ("an_age_above_s_maxage", "Cache-Control: s-maxage=60, max-age=7200\nAge: 3600"),
            ("an_age_above_what_expires_leaves", "Expires: {date+60}\nAge: 120"),
            ("an_age_over_2_to_31", "Cache-Control: max-age=3600\nAge: 2147483649"),
            ("an_age_over_2_to_32", "Cache-Control: max-age=3600\nAge: 4294967297"),
            ("an_age_over_2_to_64", "Cache-Control: max-age=3600\nAge: 18446744073709551617"),
            ("the_first_age_of_a_list_makes_it_stale", "Cache-Control: max-age=60\nAge: 7200, 0"),
            ("the_first_line_of_age_makes_it_stale", "Cache-Control: max-age=60\nAge: 7200\nAge: 0"),
            ("a_date_above_the_lifetime_ago", "Cache-Control: max-age=60\nDate: {date-120}"),
            ("the_date_counts_where_it_is_older_than_age", "Cache-Control: max-age=60\nAge: 10\nDate: {date-120}"),
            ("age_counts_where_it_is_older_than_the_date", "Cache-Control: max-age=60\nAge: 120\nDate: {date-10}"),
            ("age_counts_with_a_date_to_come", "Cache-Control: max-age=60\nAge: 120\nDate: {date+3600}"),
            ("age_in_lower_case", "Cache-Control: max-age=60\nage: 7200"),
        ],
    );
    [fresh, stale].concat()
}

fn what_age_says() -> Vec<Case> {
    let told =
        |name: &str, lines: &str, least| case(3, name, "9111 4, 5.1", [get().reply(ok(lines)), get().cached().age(least, least + 20)]);
    let kept = |name: &str, lines: &str, kept: &str| {
        let first = get().reply(ok(lines)).has(kept);
        case(3, name, "9111 4.2.1, 9110 6.6.1", [first, get().cached().has(kept)])
    };
    vec![
        told("a_response_without_age_begins_at_0", "Cache-Control: max-age=60", 0),
        told("a_received_age_goes_on", "Cache-Control: max-age=3600\nAge: 1000", 1000),
        told("a_date_ago_is_age", "Cache-Control: max-age=3600\nDate: {date-500}", 500),
        told("the_older_of_the_two_is_told", "Cache-Control: max-age=3600\nAge: 100\nDate: {date-500}", 500),
        told("an_age_that_is_none_is_not_told", "Cache-Control: max-age=3600\nAge: abc", 0),
        told("the_first_of_two_ages_goes_on", "Cache-Control: max-age=3600\nAge: 50, 900", 50),
        kept("date_stays", "Cache-Control: max-age=3600\nDate: {date-100}", "Date: {date-100}"),
        kept("a_date_to_come_stays", "Cache-Control: max-age=3600\nDate: {date+100}", "Date: {date+100}"),
        kept("expires_stays", "Expires: {date+3600}", "Expires: {date+3600}"),
        kept("an_invalid_expires_stays", "Cache-Control: max-age=3600\nExpires: 0", "Expires: 0"),
        kept("cache_control_stays", "Cache-Control: max-age=3600,  x-ext=\"a\"", "Cache-Control: max-age=3600,  x-ext=\"a\""),
    ]
}

fn expires() -> Vec<Case> {
    let fresh = reused(
        4,
        "9111 5.3, 9110 5.6.7",
        &[
            ("an_imf_fixdate", "Expires: {date+3600}"),
            ("an_rfc_850_date", "Expires: {rfc850+3600}"),
            ("an_asctime_date", "Expires: {asctime+3600}"),
            ("far_ahead", "Expires: Tue, 05 Nov 2097 08:49:37 GMT"),
            ("at_the_end_of_years", "Expires: Fri, 31 Dec 9999 23:59:59 GMT"),
            ("in_lower_case", "Expires: tue, 05 nov 2097 08:49:37 gmt"),
            ("in_capitals", "Expires: TUE, 05 NOV 2097 08:49:37 GMT"),
            ("in_mixed_case", "Expires: tUe, 05 nOv 2097 08:49:37 GmT"),
            ("a_leap_day", "Expires: Sat, 29 Feb 2096 08:49:37 GMT"),
            ("asctime_with_a_day_of_two_digits", "Expires: Fri Nov 15 08:49:37 2097"),
            ("asctime_with_a_padded_day", "Expires: Tue Nov  5 08:49:37 2097"),
            ("a_date_that_is_none_counts_as_now", "Date: yesterday\nExpires: {date+3600}"),
            ("without_a_date_it_counts_from_now", "!Date\nExpires: {date+3600}"),
            ("it_counts_from_its_own_date", "Date: {date-30}\nExpires: {date+30}"),
            ("it_counts_from_a_date_to_come", "Date: {date+3600}\nExpires: {date+3700}"),
            ("two_digits_of_a_year_just_within_50_years", "Expires: {rfc850+1570000000}"),
            ("max_age_decides_beside_two_lines", "Cache-Control: max-age=60\nExpires: {date+3600}\nExpires: {date+3600}"),
        ],
    );
    let stale = not_reused(
        4,
        "9111 5.3, 9110 5.6.7",
        &[
            ("in_the_past", "Expires: {date-3600}"),
            ("now", "Expires: {date+0}"),
            ("an_rfc_850_date_in_the_past", "Expires: {rfc850-3600}"),
            ("an_asctime_date_in_the_past", "Expires: {asctime-3600}"),
            ("before_its_own_date", "Date: {date+3600}\nExpires: {date+1800}"),
            ("a_lifetime_that_is_over", "Date: {date-3600}\nExpires: {date-10}"),
            ("two_digits_of_a_year_beyond_50_years", "Expires: {rfc850+1610000000}"),
            ("two_digits_of_1994", "Expires: Sunday, 06-Nov-94 08:49:37 GMT"),
            ("zero", "Expires: 0"),
            ("minus_one", "Expires: -1"),
            ("an_empty_value", "Expires: "),
            ("a_word", "Expires: never"),
            ("seconds", "Expires: 4033716577"),
            ("iso_8601", "Expires: 2097-11-05T08:49:37Z"),
            ("utc_in_place_of_gmt", "Expires: Tue, 05 Nov 2097 08:49:37 UTC"),
            ("a_numeric_zone", "Expires: Tue, 05 Nov 2097 08:49:37 +0000"),
            ("another_zone", "Expires: Tue, 05 Nov 2097 08:49:37 EST"),
            ("no_zone", "Expires: Tue, 05 Nov 2097 08:49:37"),
            ("no_weekday", "Expires: 05 Nov 2097 08:49:37 GMT"),
            ("no_comma", "Expires: Tue 05 Nov 2097 08:49:37 GMT"),
            ("no_space_behind_the_comma", "Expires: Tue,05 Nov 2097 08:49:37 GMT"),
            ("two_spaces_behind_the_comma", "Expires: Tue,  05 Nov 2097 08:49:37 GMT"),
            ("two_spaces_behind_the_day", "Expires: Tue, 05  Nov 2097 08:49:37 GMT"),
            ("two_spaces_before_the_time", "Expires: Tue, 05 Nov 2097  08:49:37 GMT"),
            ("two_spaces_before_gmt", "Expires: Tue, 05 Nov 2097 08:49:37  GMT"),
            ("a_day_of_one_digit", "Expires: Tue, 5 Nov 2097 08:49:37 GMT"),
            ("a_day_padded_with_a_space", "Expires: Tue,  5 Nov 2097 08:49:37 GMT"),
            ("an_hour_of_one_digit", "Expires: Tue, 05 Nov 2097 8:49:37 GMT"),
            ("no_seconds", "Expires: Tue, 05 Nov 2097 08:49 GMT"),
            ("dots_in_the_time", "Expires: Tue, 05 Nov 2097 08.49.37 GMT"),
            ("dashes_with_a_short_weekday", "Expires: Tue, 05-Nov-2097 08:49:37 GMT"),
            ("dashes_and_two_digits_with_a_short_weekday", "Expires: Tue, 05-Nov-40 08:49:37 GMT"),
            ("a_long_weekday", "Expires: Tuesday, 05 Nov 2097 08:49:37 GMT"),
            ("a_long_weekday_and_four_digits", "Expires: Tuesday, 05-Nov-2097 08:49:37 GMT"),
            ("a_long_month", "Expires: Tue, 05 November 2097 08:49:37 GMT"),
            ("a_month_that_is_none", "Expires: Tue, 05 Foo 2097 08:49:37 GMT"),
            ("a_weekday_that_is_none", "Expires: Foo, 05 Nov 2097 08:49:37 GMT"),
            ("a_year_of_two_digits", "Expires: Tue, 05 Nov 40 08:49:37 GMT"),
            ("a_year_of_five_digits", "Expires: Tue, 05 Nov 20970 08:49:37 GMT"),
            ("the_day_0", "Expires: Tue, 00 Nov 2097 08:49:37 GMT"),
            ("the_31st_of_november", "Expires: Tue, 31 Nov 2097 08:49:37 GMT"),
            ("a_leap_day_of_no_leap_year", "Expires: Tue, 29 Feb 2097 08:49:37 GMT"),
            ("the_hour_24", "Expires: Tue, 05 Nov 2097 24:00:00 GMT"),
            ("the_minute_60", "Expires: Tue, 05 Nov 2097 08:60:00 GMT"),
            ("the_second_61", "Expires: Tue, 05 Nov 2097 08:49:61 GMT"),
            ("something_behind_it", "Expires: Tue, 05 Nov 2097 08:49:37 GMT; a"),
            ("in_quotes", "Expires: \"Tue, 05 Nov 2097 08:49:37 GMT\""),
            ("asctime_with_an_unpadded_day", "Expires: Tue Nov 5 08:49:37 2097"),
            ("asctime_with_a_zone", "Expires: Tue Nov  5 08:49:37 2097 GMT"),
            ("two_lines_that_agree", "Expires: {date+3600}\nExpires: {date+3600}"),
            ("two_lines_of_which_one_is_past", "Expires: {date+3600}\nExpires: {date-3600}"),
            ("a_list_in_one_line", "Expires: {date+3600}, {date+3600}"),
        ],
    );
    [fresh, stale].concat()
}

fn guessed() -> Vec<Case> {
    const RFC: &str = "9111 4.2.2, 9110 15.1";
    const DAY: &str = "Last-Modified: {date-86400}";
    let with_status = |status: u16, lines: &str, is_kept: bool| {
        let name = format!("status_{status}{}{}", if lines == DAY { "" } else { "_public" }, if is_kept { "" } else { "_not" });
        let again = if is_kept { get().cached().status(status) } else { get().asked() };
        case(5, name, RFC, [get().reply(answer(status, lines)), again])
    };
    let public = "Cache-Control: public\nLast-Modified: {date-86400}";
    let known = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].map(|status| with_status(status, DAY, true));
    let unknown = [201, 202, 299, 302, 303, 307, 400, 401, 403, 406, 409, 429, 499, 500, 502, 503, 504, 599];
    let unknown = unknown.map(|status| with_status(status, DAY, false));
    let public = [201, 202, 299, 302, 307, 403, 500, 599].map(|status| with_status(status, public, true));
    let told = |name: &str, request: &str, lines: &str| {
        case(5, name, RFC, [get().with(request).reply(ok(lines)), get().with(request).asked().body_of(2)])
    };
    let personal = vec![
        told("nothing_is_guessed_for_a_request_with_cookie", "Cookie: a=b", DAY),
        told("nothing_is_guessed_for_a_request_with_authorization", "Authorization: Basic YTpi", DAY),
        told("nor_where_it_is_public_and_authorized", "Authorization: Basic YTpi", "Cache-Control: public\nLast-Modified: {date-86400}"),
        case(
            5,
            "a_request_with_cookie_may_have_an_explicit_lifetime",
            "9111 3",
            [get().with("Cookie: a=b").reply(ok("Cache-Control: max-age=60")), get().with("Cookie: a=b").cached()],
        ),
    ];
    let fresh = reused(
        5,
        RFC,
        &[
            ("last_modified_as_rfc_850", "Last-Modified: {rfc850-86400}"),
            ("last_modified_as_asctime", "Last-Modified: {asctime-86400}"),
            ("counted_from_date", "Date: {date-100}\nLast-Modified: {date-86400}"),
            ("an_age_below_a_tenth", "Last-Modified: {date-86400}\nAge: 8000"),
            ("beside_an_etag", "Last-Modified: {date-86400}\nETag: \"a\""),
        ],
    );
    let stale = not_reused(
        5,
        RFC,
        &[
            ("without_last_modified", "X-Nothing: 1"),
            ("an_etag_alone", "ETag: \"a\""),
            ("public_without_last_modified", "Cache-Control: public"),
            ("last_modified_is_date", "Last-Modified: {date+0}"),
            ("last_modified_is_to_come", "Last-Modified: {date+3600}"),
            ("last_modified_is_no_date", "Last-Modified: yesterday"),
            ("last_modified_is_0", "Last-Modified: 0"),
            ("last_modified_in_two_lines", "Last-Modified: {date-86400}\nLast-Modified: {date-86400}"),
            ("an_age_above_a_tenth", "Last-Modified: {date-86400}\nAge: 9000"),
            ("a_date_more_than_a_tenth_ago", "Date: {date-100}\nLast-Modified: {date-600}"),
            ("expires_in_the_past_is_no_reason_to_guess", "Last-Modified: {date-86400}\nExpires: 0"),
            ("a_max_age_of_0_is_no_reason_to_guess", "Last-Modified: {date-86400}\nCache-Control: max-age=0"),
        ],
    );
    [known.to_vec(), unknown.to_vec(), public.to_vec(), personal, fresh, stale].concat()
}

fn statuses() -> Vec<Case> {
    let stored = |status: u16| {
        let first = get().reply(answer(status, "Cache-Control: max-age=60\nX-Kept: 1")).status(status);
        case(6, format!("status_{status}"), "9111 3", [first, get().cached().status(status).has("X-Kept: 1")])
    };
    let all = [
        200, 201, 202, 203, 204, 207, 226, 299, 300, 301, 302, 303, 307, 308, 400, 401, 402, 403, 404, 405, 406, 408, 409, 410, 411, 412,
        413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511, 599,
    ];
    let by_expires = |status: u16| {
        let first = get().reply(answer(status, "Expires: {date+3600}")).status(status);
        case(6, format!("status_{status}_with_expires"), "9111 3", [first, get().cached().status(status).body_of(1)])
    };
    let must_understand = |name: &str, status: u16, directives: &str, is_kept: bool| {
        let first = get().reply(answer(status, &format!("Cache-Control: {directives}"))).status(status);
        let again = if is_kept { get().cached().status(status) } else { get().asked() };
        case(6, name, "9111 5.2.2.3", [first, again])
    };
    let understood = vec![
        must_understand("a_known_status_beats_no_store", 200, "max-age=60, no-store, must-understand", true),
        must_understand("in_any_order", 200, "must-understand, no-store, max-age=60", true),
        must_understand("in_any_case", 200, "MUST-UNDERSTAND, No-Store, max-age=60", true),
        must_understand("a_known_404_beats_no_store", 404, "max-age=60, no-store, must-understand", true),
        must_understand("a_known_status_without_no_store", 200, "max-age=60, must-understand", true),
        must_understand("an_unknown_2xx_is_not_stored", 299, "max-age=60, must-understand", false),
        must_understand("an_unknown_4xx_is_not_stored", 499, "max-age=60, must-understand", false),
        must_understand("an_unknown_5xx_is_not_stored", 599, "max-age=60, must-understand", false),
        must_understand("an_unknown_status_with_no_store_is_not_stored", 599, "max-age=60, no-store, must-understand", false),
        must_understand("it_does_not_beat_private", 200, "max-age=60, private, must-understand", false),
    ];
    let stale = [200, 299, 404, 503].map(|status| {
        let steps = [get().reply(answer(status, "Cache-Control: max-age=0")), get().asked().body_of(2)];
        case(6, format!("status_{status}_without_a_lifetime"), "9111 4.2", steps)
    });
    [all.map(stored).to_vec(), [299, 403, 500, 599].map(by_expires).to_vec(), understood, stale.to_vec()].concat()
}
