//! Decides once what a request asks for: one host, one canonical target, one method. No later stage
//! looks at raw input (RFC 9110, 7.1 and 7.2; RFC 9112, 3.2).

use http::{HeaderMap, Method};
use wire::{Host, Target};

use crate::refuse::Refusal;

/// The longest target.
pub(crate) const TARGET_MOST: usize = 8 << 10;

/// The longest field, and the longest head.
const FIELD_MOST: usize = 8 << 10;
pub(crate) const HEAD_MOST: usize = 16 << 10;

/// The longest method.
pub(crate) const METHOD_MOST: usize = 32;

/// A request, normalised.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) method: Method,
    pub(crate) host: Host,
    /// Host and port as they came: what the request's URI has to its client.
    pub(crate) authority: String,
    pub(crate) target: Target,
    pub(crate) headers: HeaderMap,
}

/// What a request turns out to be.
#[derive(Debug)]
pub(crate) enum Normalised {
    /// Something to answer for.
    Ask(Ask),
    /// `OPTIONS *`, which asks about the server itself.
    OptionsOfServer,
}

/// Reads method, target and fields as a door handed them over.
pub(crate) fn normalise(method: &Method, target: &str, headers: HeaderMap) -> Result<Normalised, Refusal> {
    check_sizes(method, target, &headers)?;
    match method.as_str() {
        "CONNECT" | "TRACE" => return Err(Refusal::MethodNotAllowed("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")),
        "OPTIONS" if target == "*" => {
            one_host(&headers)?;
            return Ok(Normalised::OptionsOfServer);
        }
        _ => {}
    }
    let field = one_host(&headers)?;
    let (authority, target) = match absolute(target)? {
        // An absolute target beats Host (RFC 9112, 3.2.2).
        Some((authority, rest)) => (authority.to_owned(), rest),
        None => (field.to_owned(), target.to_owned()),
    };
    let host = Host::of_authority(&authority).map_err(|_| Refusal::BadHost)?;
    Ok(Normalised::Ask(Ask { method: method.clone(), host, authority, target: target.parse()?, headers }))
}

fn check_sizes(method: &Method, target: &str, headers: &HeaderMap) -> Result<(), Refusal> {
    if method.as_str().len() > METHOD_MOST {
        return Err(Refusal::UnknownMethod);
    }
    if target.len() > TARGET_MOST {
        return Err(Refusal::TargetTooLong);
    }
    let mut head = method.as_str().len() + target.len();
    for (name, value) in headers {
        let field = name.as_str().len() + value.len() + 4;
        if field > FIELD_MOST {
            return Err(Refusal::HeadTooLarge);
        }
        head += field;
    }
    if head > HEAD_MOST { Err(Refusal::HeadTooLarge) } else { Ok(()) }
}

fn one_host(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut hosts = headers.get_all(http::header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return Err(Refusal::BadHost) };
    let host = host.to_str().map_err(|_| Refusal::BadHost)?;
    Host::of_authority(host).map_err(|_| Refusal::BadHost)?;
    Ok(host)
}

/// Takes an absolute-form target apart; `None` for the origin form.
fn absolute(target: &str) -> Result<Option<(&str, String)>, Refusal> {
    if target.starts_with('/') {
        return Ok(None);
    }
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::BadTarget(wire::BadTarget::NoSlash))?;
    if !scheme.eq_ignore_ascii_case("http") {
        return Err(Refusal::ForeignTarget);
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    if authority.is_empty() || authority.contains('@') {
        return Err(Refusal::ForeignTarget);
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok(Some((authority, path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(hosts: &[&str]) -> HeaderMap {
        hosts.iter().map(|host| (http::header::HOST, host.parse().unwrap())).collect()
    }

    fn ask(target: &str, hosts: &[&str]) -> Result<String, Refusal> {
        match normalise(&Method::GET, target, headers(hosts))? {
            Normalised::Ask(ask) => Ok(format!("{}{}", ask.host, ask.target)),
            Normalised::OptionsOfServer => Ok("*".to_owned()),
        }
    }

    #[test]
    fn rule_27_one_authority_and_an_absolute_target_beats_host() {
        assert_eq!(ask("/a/../b", &["H.test:80"]).unwrap(), "h.test/b");
        assert_eq!(ask("http://X.test/a?b", &["h.test"]).unwrap(), "x.test/a?b");
        assert_eq!(ask("HTTP://x.test?b", &["h.test"]).unwrap(), "x.test/?b");
        for hosts in [&[][..], &["a", "b"], &["a b"], &["u@h"], &["h/"], &["h:0"], &[""]] {
            assert_eq!(ask("/", hosts), Err(Refusal::BadHost), "{hosts:?}");
        }
    }

    #[test]
    fn rule_27_userinfo_and_foreign_schemes_are_refused() {
        for target in ["https://h/", "ftp://h/", "http://u@h/", "http:///a"] {
            assert_eq!(ask(target, &["h"]), Err(Refusal::ForeignTarget), "{target}");
        }
        assert!(matches!(ask("*", &["h"]), Err(Refusal::BadTarget(_))));
        assert!(matches!(ask("h:80", &["h"]), Err(Refusal::BadTarget(_))));
        assert!(matches!(ask("/a#b", &["h"]), Err(Refusal::BadTarget(_))));
    }

    #[test]
    fn rule_29_sizes_and_methods_have_their_own_statuses() {
        let method = |name: &str| Method::from_bytes(name.as_bytes()).unwrap();
        let status =
            |method: &Method, target: &str, headers| normalise(method, target, headers).map_err(|refusal| refusal.status().as_u16()).err();
        assert_eq!(status(&method(&"M".repeat(33)), "/", headers(&["h"])), Some(501));
        assert_eq!(status(&Method::GET, &format!("/{}", "a".repeat(8192)), headers(&["h"])), Some(414));
        assert_eq!(status(&Method::TRACE, "/", headers(&["h"])), Some(405));
        assert_eq!(status(&Method::CONNECT, "h:80", headers(&["h"])), Some(405));
        let mut large = headers(&["h"]);
        large.insert("x", "v".repeat(8190).parse().unwrap());
        assert_eq!(status(&Method::GET, "/", large), Some(431));
        let mut many = headers(&["h"]);
        for n in 0..17 {
            many.insert(http::HeaderName::try_from(format!("x-{n}")).unwrap(), "v".repeat(1000).parse().unwrap());
        }
        assert_eq!(status(&Method::GET, "/", many), Some(431));
    }
}
