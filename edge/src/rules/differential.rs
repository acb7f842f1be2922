//! Our rules beside those of the crate http-cache-semantics: for thousands of responses both decide whether they may be
//! stored, and for how long they are fresh.
//!
//! Where the two read HTTP differently, and we mean to, [`differences`] holds an entry that says so: it rewords the
//! message for them, or overrules them. With all entries in force the verdicts must be equal, to the second; and each
//! entry must be needed by at least one response, so that the list can't outlive its reasons.
//!
//! Left out, for they are no rules of HTTP but choices of a route: Set-Cookie, and what is kept without any validator
//! (every response here has an ETag).

mod cases;
mod differences;

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use http::{Request, Response, StatusCode};
use http_cache_semantics::{CacheOptions, CachePolicy};

use self::cases::{Case, Chance};
use self::differences::{DIFFERENCES, Difference, Step};
use super::testing::{THEN, after};
use super::{Directives, Policy, RequestFacts, storable};

/// Any number; `ATOLL_SEED` in the environment replaces it.
const SEED: u64 = 9111;

/// Enough for each difference to be needed dozens of times.
const CASES: usize = 6000;

/// What comes of a response, `later` seconds after it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    NotStored,
    Stored { fresh_for_s: u64 },
}

fn ours(case: &Case) -> Verdict {
    let request = RequestFacts {
        method: case.method.clone(),
        has_authorization: case.authorization,
        has_cookie: case.cookie,
        no_store: Directives::of(&case.request_headers()).no_store,
        has_range: false,
        has_conditions: false,
        describes_target: false,
        sent_at: THEN,
    };
    let status = StatusCode::from_u16(case.status).unwrap();
    let Ok(terms) = storable::decide(&request, status, &case.response_headers(), &Policy::default(), THEN) else {
        return Verdict::NotStored;
    };
    let age = terms.initial_age + Duration::from_secs(case.later);
    let fresh_for = if terms.no_cache { Duration::ZERO } else { terms.lifetime.saturating_sub(age) };
    Verdict::Stored { fresh_for_s: fresh_for.as_secs() }
}

fn theirs(case: &Case) -> Verdict {
    let mut request = Request::new(());
    *request.method_mut() = case.method.clone();
    *request.headers_mut() = case.request_headers();
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(case.status).unwrap();
    *response.headers_mut() = case.response_headers();
    // A guess for `immutable` is an option of theirs, and not on by any rule.
    let options = CacheOptions { shared: true, cache_heuristic: 0.1, immutable_min_time_to_live: Duration::ZERO, ignore_cargo_cult: false };
    let policy = CachePolicy::new_options(&request, &response, SystemTime::from(THEN), options);
    if !policy.is_storable() {
        return Verdict::NotStored;
    }
    Verdict::Stored { fresh_for_s: policy.time_to_live(SystemTime::from(after(case.later))).as_secs() }
}

/// Their verdict, with every difference in force but the one that is left out.
fn bridged(case: &Case, left_out: Option<&Difference>) -> Verdict {
    let in_force = || DIFFERENCES.iter().filter(move |one| left_out.is_none_or(|out| out.name != one.name));
    let mut seen = case.clone();
    for difference in in_force() {
        if let Step::Reword(reword) = difference.step {
            reword(&mut seen);
        }
    }
    let is_overruled = in_force().any(|one| matches!(one.step, Step::Overrule(refuses) if refuses(&seen)));
    if is_overruled { Verdict::NotStored } else { theirs(&seen) }
}

fn seed() -> u64 {
    std::env::var("ATOLL_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(SEED)
}

#[test]
fn the_rules_agree_with_http_cache_semantics_but_for_the_known_differences() {
    let seed = seed();
    let mut chance = Chance::new(seed);
    let mut needed = BTreeSet::new();
    for number in 0..CASES {
        let case = Case::any(&mut chance);
        let (ours, theirs) = (ours(&case), bridged(&case, None));
        assert_eq!(ours, theirs, "ATOLL_SEED={seed}, case {number}: ours is left, theirs right\n{case:#?}");
        for difference in &DIFFERENCES {
            if !needed.contains(difference.name) && bridged(&case, Some(difference)) != ours {
                needed.insert(difference.name);
            }
        }
    }
    let idle = DIFFERENCES.iter().filter(|one| !needed.contains(one.name));
    let idle: Vec<_> = idle.map(|one| format!("{} (rule {}): {}", one.name, one.rule, one.why)).collect();
    assert!(idle.is_empty(), "ATOLL_SEED={seed}: no response needs these differences any more: {idle:#?}");
}

#[test]
fn plain_responses_need_no_difference_at_all() {
    let mut chance = Chance::new(seed());
    let mut fresh = 0;
    for number in 0..1000 {
        let case = Case::plain(&mut chance);
        assert_eq!(ours(&case), theirs(&case), "ATOLL_SEED={}, case {number}: ours is left, theirs right\n{case:#?}", seed());
        fresh += usize::from(matches!(ours(&case), Verdict::Stored { fresh_for_s: 1.. }));
    }
    assert!(fresh > 100, "only {fresh} of a thousand responses were fresh: the cases say little");
}

#[test]
fn every_difference_names_a_rule_and_its_reason() {
    for Difference { name, rule, why, .. } in &DIFFERENCES {
        assert!((1..=33).contains(rule) && why.ends_with('.'), "{name}");
    }
    let names: BTreeSet<_> = DIFFERENCES.iter().map(|one| one.name).collect();
    assert_eq!(names.len(), DIFFERENCES.len());
}
