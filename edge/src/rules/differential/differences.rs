//! Where http-cache-semantics and we read HTTP differently on purpose, and how to get from its reading to ours.

use http::Method;

use super::cases::{Case, Directive, Line};
use crate::rules::testing::THEN;

/// One deliberate difference.
pub(super) struct Difference {
    /// A short name for it.
    pub(super) name: &'static str,
    /// The rule of http.md that asks for ours.
    pub(super) rule: u8,
    /// What they do, and why we don't.
    pub(super) why: &'static str,
    /// How to get from theirs to ours.
    pub(super) step: Step,
}

/// A way from their reading to ours.
#[derive(Clone, Copy)]
pub(super) enum Step {
    /// Says in words that they understand what the message means to us.
    Reword(fn(&mut Case)),
    /// Tells, of a reworded message, that we don't store what they may store.
    Overrule(fn(&Case) -> bool),
}

/// All of them. The order matters: each one sees what those before it have reworded.
pub(super) static DIFFERENCES: [Difference; 16] = [
    Difference {
        name: "letters",
        rule: 7,
        why: "They know directives in lower case only; names are case-insensitive (RFC 9111, 5.2), and `No-Store` must hold.",
        step: Step::Reword(in_lower_case),
    },
    Difference {
        name: "quotes",
        rule: 1,
        why: "They split at commas within quoted strings, so that an extension's argument becomes a directive.",
        step: Step::Reword(without_extensions),
    },
    Difference {
        name: "digits",
        rule: 1,
        why: "They read `+5` and ` 5`, and skip a directive without argument; what is not digits is stale here (RFC 9111, 4.2.1).",
        step: Step::Reword(digits_only),
    },
    Difference {
        name: "saturation",
        rule: 1,
        why: "They read 2^32 as it is and what exceeds 64 bits as 0; both are 2^31 (RFC 9111, 1.2.2).",
        step: Step::Reword(saturated),
    },
    Difference {
        name: "twice",
        rule: 1,
        why: "Of two equal directives they take the first and add must-revalidate; the shorter time is never fresher than either.",
        step: Step::Reword(the_shorter_of_two),
    },
    Difference {
        name: "qualified",
        rule: 7,
        why: "They take no-cache=\"f\" and private=\"f\" for the whole response; only these fields are dropped on reuse here.",
        step: Step::Reword(without_qualified),
    },
    Difference {
        name: "proxy-revalidate",
        rule: 21,
        why: "They make such a response stale at once; it forbids staleness and does not shorten freshness (RFC 9111, 5.2.2.8).",
        step: Step::Reword(without_proxy_revalidate),
    },
    Difference {
        name: "must-understand",
        rule: 6,
        why: "They don't know it; it overrides no-store for a status that we understand and refuses any other (RFC 9111, 5.2.2.3).",
        step: Step::Reword(must_understand_spelled_out),
    },
    Difference {
        name: "statuses",
        rule: 6,
        why: "They store only statuses from a list of theirs; any final status with explicit freshness may be stored (RFC 9111, 3).",
        step: Step::Reword(with_a_known_status),
    },
    Difference {
        name: "dates",
        rule: 4,
        why: "They read dates of e-mail: other zones, but neither RFC 850 nor asctime, and the first of two lines (RFC 9110, 5.6.7).",
        step: Step::Reword(with_plain_dates),
    },
    Difference {
        name: "age",
        rule: 2,
        why: "They ignore an Age with a second member or beyond 64 bits; its first member counts, up to 2^31 (RFC 9111, 5.1).",
        step: Step::Reword(with_plain_age),
    },
    Difference {
        name: "apparent age",
        rule: 2,
        why: "They don't count the time between Date and receipt; the greater of it and Age is the age (RFC 9111, 4.2.3).",
        step: Step::Reword(with_apparent_age),
    },
    Difference {
        name: "methods",
        rule: 15,
        why: "They store answers to HEAD, and to any POST with explicit freshness; here a stored GET answers HEAD, and a POST needs \
              Content-Location (17).",
        step: Step::Overrule(is_no_get),
    },
    Difference {
        name: "star",
        rule: 11,
        why: "They see `*` in Vary only where it stands alone in the first line, and keep the response; it never matches here.",
        step: Step::Overrule(varies_by_everything),
    },
    Difference {
        name: "no lifetime",
        rule: 5,
        why: "They keep a response that names no lifetime and allows no guess, stale from the start; it is of no use here.",
        step: Step::Overrule(has_no_lifetime),
    },
    Difference {
        name: "guess for somebody",
        rule: 5,
        why: "They guess a lifetime even where the request said who asked; a guess is not good enough there.",
        step: Step::Overrule(is_a_guess_for_somebody),
    },
];

/// 2^31 seconds, where all times saturate.
const MOST: u64 = 1 << 31;

fn in_lower_case(case: &mut Case) {
    for directive in case.directives.iter_mut().chain(&mut case.asked) {
        directive.name.make_ascii_lowercase();
    }
}

fn without_extensions(case: &mut Case) {
    case.directives.retain(|one| !one.name.eq_ignore_ascii_case("ext"));
}

fn times(case: &mut Case) -> impl Iterator<Item = &mut Directive> {
    case.directives.iter_mut().filter(|one| matches!(one.name.as_str(), "max-age" | "s-maxage"))
}

fn unquoted(argument: &str) -> &str {
    argument.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(argument)
}

fn digits_only(case: &mut Case) {
    for directive in times(case) {
        let text = directive.argument.as_deref().map_or("", unquoted);
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        directive.argument = Some(if is_number { text.to_owned() } else { "0".to_owned() });
    }
}

fn saturated(case: &mut Case) {
    for directive in times(case) {
        let Some(text) = &directive.argument else { continue };
        // What does not fit 128 bits is not generated.
        if text.parse::<u128>().is_ok_and(|seconds| seconds > u128::from(MOST)) {
            directive.argument = Some(MOST.to_string());
        }
    }
}

fn the_shorter_of_two(case: &mut Case) {
    for name in ["max-age", "s-maxage"] {
        let written = |one: &Directive| (one.name == name).then(|| one.argument.as_deref()?.parse::<u128>().ok()).flatten();
        let Some(shortest) = case.directives.iter().filter_map(written).min() else { continue };
        case.directives.retain(|one| one.name != name);
        case.directives.push(Directive { name: name.to_owned(), argument: Some(shortest.to_string()) });
    }
}

fn without_qualified(case: &mut Case) {
    let is_whole_or_fields = |one: &Directive| matches!(one.name.as_str(), "no-cache" | "private");
    case.directives.retain(|one| !is_whole_or_fields(one) || !one.argument.as_deref().is_some_and(names_fields));
    // An argument that names no field is none.
    for directive in case.directives.iter_mut().filter(|one| is_whole_or_fields(one)) {
        directive.argument = None;
    }
}

fn names_fields(argument: &str) -> bool {
    let is_name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    unquoted(argument).split(',').map(str::trim).all(is_name)
}

fn without_proxy_revalidate(case: &mut Case) {
    case.directives.retain(|one| one.name != "proxy-revalidate");
}

fn must_understand_spelled_out(case: &mut Case) {
    if !case.directives.iter().any(|one| one.name == "must-understand") {
        return;
    }
    case.directives.retain(|one| one.name != "no-store");
    // These are the generated ones that no registry has.
    if matches!(case.status, 299 | 499 | 599) {
        case.directives.push(Directive { name: "no-store".to_owned(), argument: None });
    }
}

fn with_a_known_status(case: &mut Case) {
    // A 302 is known to them, and nothing about it may be guessed, as about the others.
    if matches!(case.status, 299 | 499 | 500 | 503 | 599) {
        case.status = 302;
    }
}

/// The one date of a field; two are none.
fn only(lines: &[Line]) -> Option<u64> {
    match lines {
        [line] => line.means,
        _ => None,
    }
}

fn with_plain_dates(case: &mut Case) {
    for lines in [&mut case.date, &mut case.last_modified] {
        *lines = only(lines).map(Line::plain_date).into_iter().collect();
    }
    if !case.expires.is_empty() {
        let expired = || Line { text: "0".to_owned(), means: None };
        case.expires = vec![only(&case.expires).map_or_else(expired, Line::plain_date)];
    }
}

fn age(seconds: u64) -> Line {
    Line { text: seconds.to_string(), means: Some(seconds) }
}

fn with_plain_age(case: &mut Case) {
    case.age = case.age.first().and_then(|line| line.means).map(age).into_iter().collect();
}

fn with_apparent_age(case: &mut Case) {
    let apparent = only(&case.date).map_or(0, |date| THEN.as_secs().saturating_sub(date));
    let told = case.age.first().and_then(|line| line.means).unwrap_or(0);
    if apparent > told {
        case.age = vec![age(apparent)];
    }
}

fn is_no_get(case: &Case) -> bool {
    case.method != Method::GET
}

fn varies_by_everything(case: &Case) -> bool {
    case.vary.iter().flat_map(|line| line.split(',')).any(|member| member.trim() == "*")
}

fn has(case: &Case, name: &str) -> bool {
    case.directives.iter().any(|one| one.name == name)
}

/// Neither is a lifetime named, nor is the response to be asked for on each use.
fn needs_a_guess(case: &Case) -> bool {
    !has(case, "max-age") && !has(case, "s-maxage") && case.expires.is_empty() && !has(case, "no-cache")
}

fn has_no_lifetime(case: &Case) -> bool {
    let made = only(&case.date).unwrap_or_else(|| THEN.as_secs());
    needs_a_guess(case) && only(&case.last_modified).is_none_or(|modified| modified >= made)
}

fn is_a_guess_for_somebody(case: &Case) -> bool {
    needs_a_guess(case) && (case.authorization || case.cookie)
}
