//! Fastly's purge API, so that what purges Fastly purges Atoll once it is pointed here. A service is an owner.
//!
//! Their official clients leave a key and a URL in a path unescaped, so both are read from the target as it was sent.

use std::collections::BTreeMap;
use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use config::{Network, Rule};
use serde::Deserialize;
use serde_json::json;
use wire::{Grant, Mode, Owner, PurgeRequest, Receipt, UrlScope};

use super::{PURGE_MOST, Shared, dialect, name, read_whole};
use crate::auth::{self, Caller};
use crate::core::Core;
use crate::fault::Fault;

/// The field that Fastly's clients send a token in.
const KEY: &str = "fastly-key";

/// Its presence makes a purge soft; its value means nothing.
const SOFT: &str = "fastly-soft-purge";

/// Which of a service's environments is meant.
const ENVIRONMENT: &str = "fastly-purge-environment";

/// Mounts the calls.
pub(super) fn mount(app: &mut web::ServiceConfig) {
    app.route("/service/{id}/purge/{key}*", web::post().to(purge_key))
        .route("/service/{id}/purge", web::post().to(purge_keys))
        .route("/service/{id}/purge_all", web::post().to(purge_all))
        .route("/purge/{url}*", web::post().to(purge_url))
        .route("/service/{id}", web::get().to(service))
        .route("/tokens/self", web::get().to(token));
}

/// A fault as Fastly would tell it.
#[derive(Debug)]
pub(super) struct Refusal(Fault);

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.0.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        dialect::refuse(&self.0, &json!({ "msg": self.0.title(), "detail": self.0.to_string() }))
    }
}

/// Purges what carries a surrogate key, as Fastly does: `id` is an owner, the token comes in `Fastly-Key` or as a bearer, and
/// `Fastly-Soft-Purge` makes it soft. The answer waits three seconds at the most; `Atoll-Purge` says how far the purge is.
#[utoipa::path(post, path = "/service/{id}/purge/{key}", params(("id" = String, Path), ("key" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn purge_key(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let (caller, owner) = who(&core, &request).await?;
    let tags = vec![key(target(&request))?];
    let asked = PurgeRequest { owner, tags, mode: mode(request.headers()), ..PurgeRequest::default() };
    Ok(say(&dialect::purge(&core, &caller, &request, asked).await?))
}

/// Purges what carries any of several surrogate keys, in `Surrogate-Key` or in the body's `surrogate_keys`; answers with the
/// purge's id for each.
#[utoipa::path(post, path = "/service/{id}/purge", request_body(content = Object), params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn purge_keys(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Refusal> {
    let (caller, owner) = who(&core, &request).await?;
    let tags = keys(request.headers(), &read_whole(&core, &caller, &request, body, PURGE_MOST).await?)?;
    let asked = PurgeRequest { owner, tags: tags.clone(), mode: mode(request.headers()), ..PurgeRequest::default() };
    let receipt = dialect::purge(&core, &caller, &request, asked).await?;
    let ids: BTreeMap<_, _> = tags.into_iter().map(|tag| (tag, id(&receipt))).collect();
    Ok(dialect::accepted(&receipt).json(ids))
}

/// Purges all that an owner has; never softly, as with Fastly.
#[utoipa::path(post, path = "/service/{id}/purge_all", params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn purge_all(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let (caller, owner) = who(&core, &request).await?;
    let asked = PurgeRequest { owner, all: true, ..PurgeRequest::default() };
    let receipt = dialect::purge(&core, &caller, &request, asked).await?;
    Ok(dialect::accepted(&receipt).json(json!({ "status": "ok" })))
}

/// Purges one URL, for the owner of its site or route.
#[utoipa::path(post, path = "/purge/{url}", params(("url" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn purge_url(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let url = url(target(&request))?;
    let owner = owner_of(&core.network(), &url)?;
    caller.must(&Grant::Purge(Some(owner.clone())))?;
    let asked = PurgeRequest { owner, urls: vec![url], mode: mode(request.headers()), ..PurgeRequest::default() };
    Ok(say(&dialect::purge(&core, &caller, &request, asked).await?))
}

/// Tells that there is such an owner, which plugins ask before they purge.
#[utoipa::path(get, path = "/service/{id}", params(("id" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn service(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let (_, owner) = who(&core, &request).await?;
    Ok(HttpResponse::Ok().json(json!({ "id": owner, "name": owner })))
}

/// Tells what the token may purge, which plugins ask before they purge.
#[utoipa::path(get, path = "/tokens/self", responses((status = 200, body = Object)))]
pub(super) async fn token(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let services = dialect::owners(&caller, &core.network());
    let scopes: &[&str] = if services.is_empty() { &[] } else { &["purge_select", "purge_all"] };
    Ok(HttpResponse::Ok().json(json!({ "id": caller.id, "name": caller.name, "scopes": scopes, "services": services })))
}

/// Finds out who calls, and which owner the service in the path is.
async fn who(core: &Core, request: &HttpRequest) -> Result<(Caller, Owner), Fault> {
    let caller = auth::caller_by(core, request, KEY).await?;
    refuse_staging(request.headers())?;
    let owner = dialect::owner(&caller, &core.network(), dialect::part(request, "id"))?;
    Ok((caller, owner))
}

fn say(receipt: &Receipt) -> HttpResponse {
    dialect::accepted(receipt).json(json!({ "status": "ok", "id": id(receipt) }))
}

/// What a purge is called: its place in the journal.
fn id(receipt: &Receipt) -> String {
    receipt.position.to_string()
}

fn target(request: &HttpRequest) -> &str {
    request.uri().path_and_query().map_or("", |target| target.as_str())
}

fn mode(headers: &HeaderMap) -> Mode {
    if headers.contains_key(SOFT) { Mode::Soft } else { Mode::Hard }
}

/// There is one environment here, and to purge that when another is meant would be too much.
fn refuse_staging(headers: &HeaderMap) -> Result<(), Fault> {
    match headers.get(ENVIRONMENT).map(|value| value.to_str().unwrap_or("?")) {
        None | Some("production") => Ok(()),
        Some(other) => Err(Fault::bad(format!("{ENVIRONMENT}: there is no environment `{other}` here, only production"))),
    }
}

/// Reads the key at the end of `/service/ID/purge/KEY`; a slash or a question mark is part of it.
fn key(target: &str) -> Result<String, Fault> {
    unescaped(target.splitn(5, '/').nth(4).unwrap_or_default())
}

/// Reads the URL at the end of `/purge/URL`. Some clients send it escaped, as one part of the path: no host has a percent sign.
fn url(target: &str) -> Result<String, Fault> {
    let url = target.strip_prefix("/purge/").unwrap_or_default();
    let is_escaped = url.split(['/', '?']).next().is_some_and(|first| first.contains('%'));
    match url.split_once('?') {
        _ if !is_escaped => Ok(url.to_owned()),
        None => unescaped(url),
        Some((path, query)) => Ok(format!("{}?{query}", unescaped(path)?)),
    }
}

/// Takes percent-escapes out of a part of a path.
fn unescaped(text: &str) -> Result<String, Fault> {
    fn digit(byte: u8) -> Option<u8> {
        char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        let escaped = |high: Option<u8>, low: Option<u8>| Some((digit(high?)? << 4) | digit(low?)?);
        let byte = if byte == b'%' { escaped(rest.next(), rest.next()) } else { Some(byte) };
        bytes.push(byte.ok_or_else(|| Fault::bad(format!("`{text}` has a percent sign without two hex digits behind it")))?);
    }
    String::from_utf8(bytes).map_err(|_| Fault::bad(format!("`{text}` is not UTF-8")))
}

/// The body of a batch; what else it has means nothing.
#[derive(Debug, Deserialize)]
struct Batch {
    #[serde(default, deserialize_with = "wire::at_most_a_purge")]
    surrogate_keys: Vec<String>,
}

/// Reads the keys of a batch from the field, from the body, or from both.
fn keys(headers: &HeaderMap, body: &[u8]) -> Result<Vec<String>, Fault> {
    let mut keys = Vec::new();
    for line in headers.get_all("surrogate-key") {
        let line = line.to_str().map_err(|_| Fault::bad("Surrogate-Key: a key is not visible ASCII"))?;
        keys.extend(line.split_ascii_whitespace().map(str::to_owned));
    }
    if !body.trim_ascii().is_empty() {
        let unreadable = |error: serde_json::Error| {
            let what = if error.is_data() { "surrogate_keys" } else { "the body is not JSON" };
            Fault::unreadable(format!("{what}: {error}"))
        };
        let batch: Batch = serde_json::from_slice(body).map_err(unreadable)?;
        keys.extend(batch.surrogate_keys);
    }
    if keys.is_empty() {
        return Err(Fault::bad("no surrogate keys: they come in the field Surrogate-Key, or in the body's `surrogate_keys`"));
    }
    Ok(keys)
}

/// Returns whose a URL is; what nobody answers for is nobody's, and purged in the name of the default owner.
fn owner_of(network: &Network, url: &str) -> Result<Owner, Fault> {
    let url: UrlScope = name(url)?;
    Ok(match network.rule_for(&url.host, url.target.path()) {
        Some(Rule::Site(site)) => site.owner.clone(),
        Some(Rule::Route(route)) => route.owner.clone(),
        None => Owner::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::{HeaderName, HeaderValue};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for &(name, value) in fields {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_key_is_all_that_stands_behind_the_service() {
        for (target, expected) in [
            ("/service/shop/purge/product-42", "product-42"),
            ("/service/shop/purge/topic/a?b=c", "topic/a?b=c"),
            ("/service/shop/purge/topic%2Fa%20b%3f", "topic/a b?"),
            ("/service/shop/purge/purge/", "purge/"),
            ("/service/shop/purge/", ""),
        ] {
            assert_eq!(key(target).unwrap(), expected, "{target}");
        }
        for bad in ["/service/shop/purge/100%", "/service/shop/purge/%zz", "/service/shop/purge/%C3"] {
            let fault = key(bad).unwrap_err();
            assert!(matches!(&fault, Fault::Bad(said) if said.contains(bad.trim_start_matches("/service/shop/purge/"))), "{fault}");
        }
    }

    #[test]
    fn a_url_is_read_as_it_was_sent_or_from_one_escaped_part() {
        for (target, expected) in [
            ("/purge/www.test/a%2Fb?c=%20d", "www.test/a%2Fb?c=%20d"),
            ("/purge/https://www.test:8080/a/b", "https://www.test:8080/a/b"),
            ("/purge/www.test%2Fa%252Fb%3Fc", "www.test/a%2Fb?c"),
            ("/purge/https%3A%2F%2Fwww.test%2Fa?c=%26", "https://www.test/a?c=%26"),
            ("/purge/www.test?c", "www.test?c"),
            ("/purge/", ""),
        ] {
            assert_eq!(url(target).unwrap(), expected, "{target}");
        }
        assert!(matches!(url("/purge/www.test%2"), Err(Fault::Bad(said)) if said.contains("www.test%2")));
    }

    #[test]
    fn keys_come_from_the_field_and_the_body() {
        let none = headers(&[]);
        let two_lines = headers(&[("surrogate-key", " a  b\tc"), ("surrogate-key", "d")]);
        for (headers, body, expected) in [
            (&two_lines, "", "a b c d"),
            (&two_lines, " \r\n", "a b c d"),
            (&two_lines, r#"{"surrogate_keys":["e"]}"#, "a b c d e"),
            (&two_lines, r#"{"status":"","id":""}"#, "a b c d"),
            (&none, r#"{"surrogate_keys":["e","f"]}"#, "e f"),
        ] {
            assert_eq!(keys(headers, body.as_bytes()).unwrap().join(" "), expected, "{body}");
        }
        // It is not read to its end.
        let too_long = format!(r#"{{"surrogate_keys":["a"{}"#, r#","a""#.repeat(1000));
        for (body, part) in [
            ("", "no surrogate keys"),
            ("{}", "no surrogate keys"),
            (r#"{"surrogate_keys":[]}"#, "no surrogate keys"),
            (r#"{"surrogate_keys":"a"}"#, "surrogate_keys"),
            (r#"{"surrogate_keys":[1]}"#, "surrogate_keys"),
            ("a b", "not JSON"),
            (too_long.as_str(), "more than the 1000"),
        ] {
            let fault = keys(&none, body.as_bytes()).unwrap_err();
            assert!(matches!(&fault, Fault::Bad(said) if said.contains(part)), "{body}: {fault}");
        }
    }

    #[test]
    fn a_purge_is_soft_where_the_field_is_there_and_staging_is_not_here() {
        assert_eq!(mode(&headers(&[])), Mode::Hard);
        assert_eq!(mode(&headers(&[("fastly-soft-purge", "1")])), Mode::Soft);
        assert!(refuse_staging(&headers(&[("fastly-purge-environment", "production")])).is_ok());
        let staging = refuse_staging(&headers(&[("fastly-purge-environment", "staging")]));
        assert!(matches!(staging, Err(Fault::Bad(said)) if said.contains("`staging`")));
    }

    #[test]
    fn a_url_belongs_to_whoever_has_its_site_or_route() {
        let network = Network::from_json(&json!({
            "sites": { "www": { "hosts": ["www.test"], "owner": "press" } },
            "upstreams": { "u": { "servers": ["http://127.0.0.1:1"] } },
            "routes": { "api": { "hosts": ["www.test"], "path": "/api/*", "upstream": "u", "owner": "shop" } },
        }))
        .unwrap();
        for (url, owner) in [("https://WWW.test/api/x", "shop"), ("www.test/", "press"), ("elsewhere.test/", "default")] {
            assert_eq!(owner_of(&network, url).unwrap().as_str(), owner, "{url}");
        }
        assert!(matches!(owner_of(&network, "ftp://www.test/"), Err(Fault::Bad(said)) if said.contains("ftp")));
    }
}
