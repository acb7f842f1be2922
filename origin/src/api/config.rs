//! The network's configuration: replaced as a whole, every version kept, any restored.

use std::path::Path;

use actix_web::{HttpRequest, HttpResponse, web};
use wire::{ApplyAnswer, ConfigVersion, Fact, Grant};

use super::{BODY_MOST, Shared, if_match, read_whole};
use crate::auth;
use crate::core::Core;
use crate::fault::Fault;

/// Checks a configuration, TOML or JSON, and puts it in force everywhere. Sections of single nodes
/// are left aside. `If-Match` names the number that it replaces.
#[utoipa::path(put, path = "/v1/config", request_body(content = String, description = "the file, or its JSON"), responses((status = 200, body = ApplyAnswer), (status = 412, body = wire::Problem), (status = 422, body = wire::Problem)))]
pub(super) async fn put(core: Shared, request: HttpRequest, body: web::Payload) -> Result<HttpResponse, Fault> {
    let caller = auth::caller(&core, &request).await?;
    caller.must(&Grant::Config)?;
    let body = read_whole(&core, &caller, &request, body, BODY_MOST).await?;
    core.know_all().await?;
    let network = read(&request, &body)?;
    ::config::Network::from_json(&network).map_err(Fault::Complaints)?;
    let current = core.journal.state().config.clone();
    let number = current.as_ref().map_or(0, |version| version.number);
    if let Some(expected) = if_match(request.headers())?
        && expected != number.to_string()
    {
        return Err(Fault::Precondition(format!(
            "the configuration in force is number {number}, not {expected}; see `atoll config history`"
        )));
    }
    let unchanged = current.as_ref().is_some_and(|version| version.network == network);
    let answer = if unchanged {
        ApplyAnswer { number, changed: false }
    } else {
        let if_unchanged = vec![("config".to_owned(), current.map_or(0, |version| version.seq))];
        let appended = core.append(&caller.name, vec![Fact::ConfigChanged { number: number + 1, network }], if_unchanged).await;
        appended.map_err(|fault| match fault {
            Fault::Conflict(said) if request.headers().contains_key("if-match") => Fault::Precondition(said),
            fault => fault,
        })?;
        ApplyAnswer { number: number + 1, changed: true }
    };
    Ok(HttpResponse::Ok().insert_header(("ETag", format!("\"{}\"", answer.number))).json(answer))
}

fn read(request: &HttpRequest, body: &[u8]) -> Result<serde_json::Value, Fault> {
    let text = std::str::from_utf8(body).map_err(|_| Fault::bad("the configuration is not UTF-8"))?;
    let kind = request.headers().get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.starts_with("application/json") {
        let json: serde_json::Value = serde_json::from_str(text).map_err(Fault::bad)?;
        return Ok(::config::Tree::from_json(&json).only_network().network_json());
    }
    let tree = ::config::Tree::from_toml(text, Path::new("config")).map_err(Fault::Complaints)?;
    // The whole file is checked: a misspelt section of a node would otherwise pass unseen.
    ::config::Settings::check(&tree).map_err(Fault::Complaints)?;
    Ok(tree.network_json())
}

/// The configuration in force.
#[utoipa::path(get, path = "/v1/config", responses((status = 200, body = Object)))]
pub(super) async fn get(core: Shared, request: HttpRequest) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must(&Grant::Read)?;
    let current = core.journal.state().config.clone();
    answer(current.ok_or_else(|| Fault::NotFound("there is no configuration yet".to_owned()))?)
}

/// Any configuration that there was: a number, or `history` for all of them without their text.
#[utoipa::path(get, path = "/v1/config/{number}", params(("number" = String, Path)), responses((status = 200, body = Object)))]
pub(super) async fn get_number(core: Shared, request: HttpRequest, path: web::Path<String>) -> Result<HttpResponse, Fault> {
    auth::caller(&core, &request).await?.must(&Grant::Read)?;
    let configs = configs(&core);
    if path.as_str() == "history" {
        let rows: Vec<_> = configs
            .iter()
            .map(|version| serde_json::json!({ "number": version.number, "at": version.at, "actor": version.actor }))
            .collect();
        return Ok(HttpResponse::Ok().json(rows));
    }
    let found = configs.into_iter().find(|version| version.number.to_string() == *path);
    answer(found.ok_or_else(|| Fault::NotFound(format!("there is no configuration number {path}")))?)
}

fn configs(core: &Core) -> Vec<ConfigVersion> {
    core.journal.state().control.as_ref().map(|control| control.configs.clone()).unwrap_or_default()
}

fn answer(version: ConfigVersion) -> Result<HttpResponse, Fault> {
    Ok(HttpResponse::Ok().insert_header(("ETag", format!("\"{}\"", version.number))).json(version))
}
