//! The cookies of a request: which of them go upstream, and what one of them says (RFC 6265, 4.2.1 and 5.4).

use config::{CookieName, CookiePolicy};
use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};

/// Returns a cookie's value; the first one counts, as it does for most servers.
pub(crate) fn value<'a>(request: &'a HeaderMap, name: &CookieName) -> Option<&'a [u8]> {
    pairs(request).find(|(known, _)| *known == name.as_str().as_bytes()).map(|(_, value)| value)
}

/// Leaves the cookies that the route lets through.
pub(crate) fn filter(request: &mut HeaderMap, policy: &CookiePolicy) {
    if *policy == CookiePolicy::Pass || !request.contains_key(COOKIE) {
        return;
    }
    let passes = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|name| policy.passes(name));
    let kept: Vec<_> = pairs(request).filter(|(name, _)| passes(name)).map(|(name, value)| [name, b"=", value].concat()).collect();
    match HeaderValue::from_bytes(&kept.join(b"; ".as_slice())) {
        Ok(line) if !line.is_empty() => {
            request.insert(COOKIE, line);
        }
        _ => {
            request.remove(COOKIE);
        }
    }
}

fn pairs(request: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    let members = request.get_all(COOKIE).iter().flat_map(|line| line.as_bytes().split(|&byte| byte == b';'));
    members.filter_map(|member| {
        let member = member.trim_ascii();
        let equals = member.iter().position(|&byte| byte == b'=')?;
        Some((member.get(..equals)?, member.get(equals + 1..)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::testing::headers;

    #[test]
    fn a_cookie_is_found_in_any_line() {
        let request = headers(&[("cookie", "a=1; b=2=3"), ("cookie", "c; a=4")]);
        let value = |name: &str| value(&request, &name.parse().unwrap());
        assert_eq!((value("a"), value("b"), value("c")), (Some(b"1".as_slice()), Some(b"2=3".as_slice()), None));
    }

    #[test]
    fn rule_30_only_the_cookies_that_the_route_lets_through_go_on() {
        let filtered = |policy: &CookiePolicy| {
            let mut request = headers(&[("cookie", "a=1; b=2"), ("cookie", "c=3")]);
            filter(&mut request, policy);
            request.get_all("cookie").iter().map(|line| line.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(filtered(&CookiePolicy::Pass), ["a=1; b=2", "c=3"]);
        assert_eq!(filtered(&CookiePolicy::Keep(vec!["c".parse().unwrap(), "a".parse().unwrap()])), ["a=1; c=3"]);
        assert!(filtered(&CookiePolicy::Keep(vec!["x".parse().unwrap()])).is_empty() && filtered(&CookiePolicy::Strip).is_empty());
    }
}
