//! Cloudflare's purge API, so that what purges Cloudflare purges Atoll once it is pointed here. A zone is an owner: its id is
//! the owner's name, and it is found by any host of the owner's sites and routes.
//!
//! Where Cloudflare has a well-known number for an error it is ours too; else the number is the HTTP status.

use std::cmp::Reverse;
use std::fmt;

use actix_web::error::QueryPayloadError;
use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
use config::Network;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use wire::{Host, HostPattern, Mode, Owner, PurgeRequest, Receipt, ReceiptState};

use super::{PURGE_MOST, Shared, dialect, read_whole};
use crate::auth;
use crate::fault::Fault;

/// The field that older clients send a key in, beside an e-mail address that means nothing here.
const KEY: &str = "x-auth-key";

/// "Malformed JSON in request body".
const MALFORMED: u16 = 6007;

/// "Request must contain one of purge_everything, files, tags, hosts or prefixes", and whatever else is wrong with one.
const BAD_REQUEST: u16 = 1012;

/// "No route for that URI".
const NO_ROUTE: u16 = 7000;

/// A message that an edge has not applied the purge yet.
const PENDING: u16 = 2001;

/// A message that routes let fenced edges go on serving what was purged.
const PARTIAL: u16 = 2002;

/// A message about what was asked for, such as a URL that nobody answers for.
const NOTE: u16 = 2003;

/// Mounts the calls.
pub(super) fn mount(app: &mut web::ServiceConfig) {
    let bad_query = |error: QueryPayloadError, _: &HttpRequest| Refusal::from(Fault::bad(&error)).into();
    app.service(
        web::scope("/client/v4")
            .app_data(web::QueryConfig::default().error_handler(bad_query))
            .route("/zones/{zone}/purge_cache", web::post().to(purge))
            // What the API had first, and plugins still send.
            .route("/zones/{zone}/purge_cache", web::delete().to(purge))
            .route("/zones/{zone}/invalidate_cache", web::post().to(invalidate))
            .route("/zones/{zone}", web::get().to(zone))
            .route("/zones", web::get().to(zones))
            .route("/zones/", web::get().to(zones))
            .route("/user/tokens/verify", web::get().to(verify))
            .default_service(web::to(nothing)),
    );
}

/// A fault as Cloudflare would tell it.
#[derive(Debug)]
pub(super) struct Refusal {
    code: u16,
    fault: Fault,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        let code = match fault.status_code() {
            StatusCode::BAD_REQUEST => BAD_REQUEST,
            // "Authentication error".
            StatusCode::UNAUTHORIZED => 10000,
            // "Unauthorized to access requested resource".
            StatusCode::FORBIDDEN => 9109,
            // "Could not route to it, perhaps your object identifier is invalid?"
            StatusCode::NOT_FOUND => 7003,
            // "Please wait and consider throttling your request speed".
            StatusCode::TOO_MANY_REQUESTS => 971,
            other => other.as_u16(),
        };
        Self { code, fault }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.fault, f)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        self.fault.status_code()
    }

    fn error_response(&self) -> HttpResponse {
        let errors = [message(self.code, &self.fault.to_string())];
        dialect::refuse(&self.fault, &json!({ "success": false, "errors": errors, "messages": [], "result": null }))
    }
}

/// Purges as Cloudflare does: `zone` is an owner, and the body names `files`, `tags`, `prefixes`, `hosts` or
/// `purge_everything`, here also several at once. The token comes as a bearer or in `X-Auth-Key`. The answer waits three
/// seconds at the most; `Atoll-Purge` and `messages` say how far the purge is.
#[utoipa::path(post, path = "/client/v4/zones/{zone}/purge_cache", request_body(content = Object), params(("zone" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn purge(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Refusal> {
    answer(core, request, body, Mode::Hard).await
}

/// Makes stale what `purge_cache` takes away: a soft purge.
#[utoipa::path(post, path = "/client/v4/zones/{zone}/invalidate_cache", request_body(content = Object), params(("zone" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn invalidate(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Refusal> {
    answer(core, request, body, Mode::Soft).await
}

async fn answer(core: Shared, request: HttpRequest, body: web::Payload, mode: Mode) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let owner = dialect::owner(&caller, &core.network(), dialect::part(&request, "zone"))?;
    let asked = read(&read_whole(&core, &caller, &request, body, PURGE_MOST).await?, owner, mode)?;
    let receipt = dialect::purge(&core, &caller, &request, asked).await?;
    let result = json!({ "id": receipt.position.to_string() });
    Ok(dialect::accepted(&receipt).json(envelope(&result, &messages(&receipt))))
}

/// What a lookup of zones says; all else, such as an order, means nothing for the few that there are.
#[derive(Debug, Deserialize)]
pub(super) struct Lookup {
    name: Option<String>,
    page: Option<String>,
}

/// Finds the zone of a host or of a domain above one; without a name, all that the token may purge.
#[utoipa::path(get, path = "/client/v4/zones", params(("name" = Option<String>, Query), ("page" = Option<String>, Query)), responses((status = 200, body = Object)))]
pub(super) async fn zones(core: Shared, request: HttpRequest, query: web::Query<Lookup>) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let network = core.network();
    let owners = dialect::owners(&caller, &network);
    // There is one page: clients ask for the next until one is empty.
    let is_first = query.page.as_deref().is_none_or(|page| page == "1");
    let zones: Vec<Value> = match query.name.as_deref() {
        _ if !is_first => Vec::new(),
        None => owners.iter().map(|owner| about(owner, name_of(&network, owner))).collect(),
        Some(name) => {
            let at = owners_at(&network, name).into_iter();
            at.filter(|owner| owners.contains(*owner)).map(|owner| about(owner, name)).collect()
        }
    };
    let count = zones.len();
    let info = json!({ "page": 1, "per_page": count.max(50), "count": count, "total_count": count, "total_pages": 1 });
    let mut body = envelope(&zones.into(), &[]);
    body["result_info"] = info;
    Ok(HttpResponse::Ok().json(body))
}

/// Tells that there is such an owner.
#[utoipa::path(get, path = "/client/v4/zones/{zone}", params(("zone" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn zone(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let network = core.network();
    let owner = dialect::owner(&caller, &network, dialect::part(&request, "zone"))?;
    Ok(HttpResponse::Ok().json(envelope(&about(&owner, name_of(&network, &owner)), &[])))
}

/// Tells that the token is known.
#[utoipa::path(get, path = "/client/v4/user/tokens/verify", responses((status = 200, body = Object)))]
pub(super) async fn verify(core: Shared, request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let caller = auth::caller_by(&core, &request, KEY).await?;
    let result = json!({ "id": caller.id.unwrap_or(caller.name), "status": "active" });
    Ok(HttpResponse::Ok().json(envelope(&result, &[message(10000, "This API Token is valid and active")])))
}

async fn nothing(request: HttpRequest) -> Result<HttpResponse, Refusal> {
    let said = format!("of this API there is no {} {}, only what purging needs; see /v1/openapi.json", request.method(), request.path());
    Err(Refusal { code: NO_ROUTE, fault: Fault::NotFound(said) })
}

fn envelope(result: &Value, messages: &[Value]) -> Value {
    json!({ "success": true, "errors": [], "messages": messages, "result": result })
}

fn message(code: u16, said: &str) -> Value {
    json!({ "code": code, "message": said })
}

/// Says what the client should know beside that the purge was accepted.
fn messages(receipt: &Receipt) -> Vec<Value> {
    let at = receipt.position;
    let state = match receipt.state {
        ReceiptState::Complete => None,
        ReceiptState::Pending => {
            Some(message(PENDING, &format!("accepted; not every edge has applied it yet, GET /v1/purges/{at} tells when they have")))
        }
        ReceiptState::Partial => {
            let routes = receipt.may_serve.join(", ");
            Some(message(PARTIAL, &format!("in force, but edges that are cut off may go on serving it by `when_fenced` of: {routes}")))
        }
    };
    state.into_iter().chain(receipt.notes.iter().map(|note| message(NOTE, note))).collect()
}

/// What a body may have. A member that means nothing here is refused: to leave it out could leave something cached.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Asked {
    purge_everything: Option<bool>,
    files: Option<List<File>>,
    tags: Option<List<String>>,
    prefixes: Option<List<String>>,
    hosts: Option<List<String>>,
}

/// A list that is not read beyond what one purge may have.
#[derive(Debug)]
struct List<T>(Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        wire::at_most_a_purge(deserializer).map(Self)
    }
}

/// A URL, alone or with the headers of one variant: a purge takes every variant.
#[derive(Debug)]
struct File(String);

impl<'de> Deserialize<'de> for File {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = File;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, or an object with a `url`")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<File, E> {
                Ok(File(url.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<File, A::Error> {
                let mut url = None;
                while let Some(name) = members.next_key::<String>()? {
                    if name == "url" {
                        url = Some(members.next_value()?);
                    } else {
                        members.next_value::<IgnoredAny>()?;
                    }
                }
                url.map(File).ok_or_else(|| A::Error::missing_field("url"))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Reads what a body asks to purge.
fn read(body: &[u8], owner: Owner, mode: Mode) -> Result<PurgeRequest, Refusal> {
    let malformed = |said: String| Refusal { code: MALFORMED, fault: Fault::unreadable(said) };
    if body.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(malformed("the body is not a JSON object".to_owned()));
    }
    let unreadable = |error: serde_json::Error| {
        if error.is_data() { Refusal::from(Fault::unreadable(error)) } else { malformed(format!("the body is not JSON: {error}")) }
    };
    let asked: Asked = serde_json::from_slice(body).map_err(unreadable)?;
    let hosts = asked.hosts.map(|hosts| hosts.0).unwrap_or_default().into_iter().enumerate();
    let hosts = hosts.map(|(at, text)| host(&text).map_err(|said| Fault::bad(format!("hosts[{at}]: {said}"))));
    let mut prefixes: Vec<String> = asked.prefixes.map(|prefixes| prefixes.0).unwrap_or_default().into_iter().map(prefix).collect();
    prefixes.extend(hosts.collect::<Result<Vec<_>, _>>()?);
    let asked = PurgeRequest {
        owner,
        mode,
        urls: asked.files.map(|files| files.0).unwrap_or_default().into_iter().map(|file| file.0).collect(),
        tags: asked.tags.map(|tags| tags.0).unwrap_or_default(),
        prefixes,
        all: asked.purge_everything.unwrap_or_default(),
        ..PurgeRequest::default()
    };
    if !asked.all && asked.urls.is_empty() && asked.tags.is_empty() && asked.prefixes.is_empty() {
        return Err(Fault::bad("nothing to purge: give purge_everything, files, tags, prefixes or hosts").into());
    }
    Ok(asked)
}

/// A beginning of URLs; theirs may be a host alone.
fn prefix(text: String) -> String {
    let rest = text.split_once("://").map_or(text.as_str(), |(_, rest)| rest);
    if rest.contains(['/', '?']) { text } else { format!("{text}/") }
}

/// All URLs of a host are those that begin with its slash.
fn host(text: &str) -> Result<String, String> {
    let host = Host::of_authority(text).map_err(|error| error.to_string())?;
    Ok(format!("{host}/"))
}

/// What is true of an owner as a zone.
fn about(owner: &Owner, name: &str) -> Value {
    json!({ "id": owner, "name": name, "status": "active", "paused": false, "development_mode": 0 })
}

/// Returns the first host of an owner, or its own name where it has only patterns.
fn name_of<'a>(network: &'a Network, owner: &'a Owner) -> &'a str {
    let exact = |(of, host): (&Owner, &'a HostPattern)| match host {
        HostPattern::Exact(host) if of == owner => Some(host.as_str()),
        _ => None,
    };
    dialect::hosts(network).find_map(exact).unwrap_or(owner.as_str())
}

/// Returns the owners of this host or of hosts below it, the most specific first: a domain is looked up by its own name where
/// its sites are at `www`.
fn owners_at<'a>(network: &'a Network, name: &str) -> Vec<&'a Owner> {
    let Ok(name) = name.parse::<Host>() else { return Vec::new() };
    let below = HostPattern::Below(name.clone());
    let mut found: Vec<_> = dialect::hosts(network)
        .filter(|(_, host)| match host {
            HostPattern::Exact(host) => *host == name || below.matches(host),
            HostPattern::Below(suffix) => *suffix == name || below.matches(suffix) || host.matches(&name),
            HostPattern::Any => true,
        })
        .collect();
    found.sort_by_key(|(_, host)| Reverse(host.specificity()));
    let mut owners: Vec<&Owner> = Vec::new();
    for (owner, _) in found {
        if !owners.contains(&owner) {
            owners.push(owner);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(body: &str) -> Result<PurgeRequest, Refusal> {
        read(body.as_bytes(), Owner::default(), Mode::Hard)
    }

    #[test]
    fn a_body_names_files_tags_prefixes_hosts_or_everything() {
        let strings = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let none: &[&str] = &[];
        for (body, urls, tags, prefixes, all) in [
            (r#"{"purge_everything":true}"#, none, none, none, true),
            (r#"{"files":["https://a/b"],"tags":null}"#, &["https://a/b"], &[], &[], false),
            (r#"{"files":[{"url":"https://a/b","headers":{"Origin":"https://c"}},"a/d"]}"#, &["https://a/b", "a/d"], &[], &[], false),
            (r#"{"tags":["t","u"],"purge_everything":false}"#, &[], &["t", "u"], &[], false),
            (r#"{"prefixes":["a/b","https://a","a/"]}"#, &[], &[], &["a/b", "https://a/", "a/"], false),
            (r#" {"hosts":["A.test","b:80"],"prefixes":["c/d"]}"#, &[], &[], &["c/d", "a.test/", "b/"], false),
            (r#"{"tags":["t"],"files":["a/b"],"hosts":["c"]}"#, &["a/b"], &["t"], &["c/"], false),
        ] {
            let (urls, tags, prefixes) = (strings(urls), strings(tags), strings(prefixes));
            assert_eq!(asked(body).unwrap(), PurgeRequest { urls, tags, prefixes, all, ..PurgeRequest::default() }, "{body}");
        }
    }

    #[test]
    fn a_body_that_is_wrong_is_refused_by_name_and_number() {
        // It is not read to its end.
        let too_long = format!(r#"{{"files":["a/"{}"#, r#","a/""#.repeat(1000));
        for (body, code, part) in [
            ("", MALFORMED, "not JSON"),
            ("{", MALFORMED, "not JSON"),
            ("[]", MALFORMED, "not a JSON object"),
            ("{}", BAD_REQUEST, "nothing to purge"),
            (r#"{"files":[],"tags":null}"#, BAD_REQUEST, "nothing to purge"),
            (r#"{"purge_everything":false}"#, BAD_REQUEST, "nothing to purge"),
            (r#"{"purge_everything":"yes"}"#, BAD_REQUEST, "expected a boolean"),
            (r#"{"files":"https://a/"}"#, BAD_REQUEST, "expected a list"),
            (r#"{"files":["a/",{"headers":{}}]}"#, BAD_REQUEST, "missing field `url`"),
            (r#"{"files":["a/",7]}"#, BAD_REQUEST, "expected a URL"),
            (r#"{"tags":[1]}"#, BAD_REQUEST, "expected a string"),
            (too_long.as_str(), BAD_REQUEST, "more than the 1000"),
            (r#"{"hosts":["a","b/c"]}"#, BAD_REQUEST, "hosts[1]: `b/c` is not a host"),
            (r#"{"tags":["t"],"hostnames":["a"]}"#, BAD_REQUEST, "unknown field `hostnames`, expected one of `purge_everything`"),
        ] {
            let refusal = asked(body).unwrap_err();
            assert!(refusal.code == code && refusal.to_string().contains(part), "{body}: {refusal:?}");
            assert_eq!(refusal.status_code(), StatusCode::BAD_REQUEST);
        }
    }

    #[test]
    fn what_is_not_complete_is_in_the_messages() {
        let receipt = |state: &str, may_serve: &[&str], notes: &[&str]| -> Receipt {
            let at = wire::Position::start(wire::Epoch::from_bytes([1; 8]));
            let receipt = json!({ "position": at, "seq": 7, "state": state, "may_serve": may_serve, "followers": [], "notes": notes });
            serde_json::from_value(receipt).unwrap()
        };
        let said = |receipt: Receipt| {
            let messages = messages(&receipt);
            messages.iter().map(|message| format!("{} {}", message["code"], message["message"])).collect::<Vec<_>>()
        };
        assert_eq!(said(receipt("complete", &[], &[])), Vec::<String>::new());
        assert!(said(receipt("pending", &[], &[]))[0].contains("/v1/purges/0101010101010101.0."));
        let partial = said(receipt("partial", &["api", "shop"], &["nobody answers"]));
        assert!(partial[0].starts_with("2002 ") && partial[0].contains("api, shop"), "{partial:?}");
        assert_eq!(partial[1], "2003 \"nobody answers\"");
    }

    #[test]
    fn a_zone_is_found_by_its_hosts_and_by_the_domain_above_them() {
        let network = Network::from_json(&json!({
            "sites": {
                "www": { "hosts": ["www.shop.test", "shop.example"], "owner": "shop" },
                "rest": { "hosts": ["*"] },
                "blogs": { "hosts": ["*.blogs.test"], "owner": "press" },
            },
        }))
        .unwrap();
        for (name, expected) in [
            ("shop.test", "shop default"),
            ("WWW.shop.test", "shop default"),
            ("hop.test", "default"),
            ("a.blogs.test", "press default"),
            ("blogs.test", "press default"),
            ("not a host", ""),
        ] {
            let owners: Vec<_> = owners_at(&network, name).into_iter().map(Owner::as_str).collect();
            assert_eq!(owners.join(" "), expected, "{name}");
        }
        for (owner, name) in [("shop", "www.shop.test"), ("press", "press"), ("default", "default")] {
            assert_eq!(name_of(&network, &owner.parse().unwrap()), name);
        }
    }
}
