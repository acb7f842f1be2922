//! Where a command works: its configuration file, the origin that it calls, and the token that it shows.

use std::path::{Path, PathBuf};

use config::{LAPTOP, Settings};
use reqwest::Url;
use wire::Secret;

use crate::control::{Control, Token};
use crate::exit::Failure;

/// The file, the environment and the flags of one call.
#[derive(Debug)]
pub(crate) struct Context {
    file: Option<PathBuf>,
    flags: Vec<String>,
}

impl Context {
    pub(crate) fn new(file: Option<PathBuf>, flags: Vec<String>) -> Self {
        // A variable that is set to nothing names nothing.
        Self { file: file.filter(|file| !file.as_os_str().is_empty()), flags }
    }

    /// Returns the file's path, where one was named.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the `KEY=VALUE` flags.
    pub(crate) fn flags(&self) -> impl Iterator<Item = &str> {
        self.flags.iter().map(String::as_str)
    }

    /// Returns the file's path, or says that one is needed.
    pub(crate) fn needed_file(&self) -> Result<&Path, Failure> {
        self.file().ok_or_else(|| Failure::typed("a configuration file is needed: -c FILE"))
    }

    /// Reads and checks the file; without one the three regions that `atoll up` runs.
    pub(crate) fn settings(&self) -> Result<Settings, Failure> {
        let settings = match &self.file {
            Some(file) => Settings::load(file, std::env::vars(), self.flags()),
            None => Settings::from_text(LAPTOP, Path::new("built-in.toml"), std::env::vars(), self.flags()),
        };
        Ok(settings?)
    }

    /// Returns the files that a node reads: the configuration and what it points to, as it is written now.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let beside = self.settings().map(|settings| settings.files()).unwrap_or_default();
        self.file.iter().cloned().chain(beside).collect()
    }

    /// Returns a client of the control API: where the origin is, and with which token.
    pub(crate) fn control(&self) -> Result<Control, Failure> {
        let settings = self.settings()?;
        let urls = match std::env::var("ATOLL_ORIGIN") {
            Ok(url) if !url.is_empty() => vec![origin_url(&url)?],
            _ => settings.origin.urls.clone(),
        };
        let token = match std::env::var("ATOLL_TOKEN") {
            Ok(token) if !token.is_empty() => Token { secret: Secret::from_text(&token), found_in: "ATOLL_TOKEN".to_owned() },
            _ => read_token(&settings.data.join("admin.token"))?,
        };
        let ca = settings.origin.ca.as_ref().map(|ca| ca.read()).transpose();
        let ca = ca.map_err(|error| Failure::typed(format!("origin.ca: {error}")))?;
        Control::new(urls, token, ca.as_deref())
    }
}

/// Reads ATOLL_ORIGIN, and does not repeat it: there may be a password in it.
fn origin_url(text: &str) -> Result<String, Failure> {
    let is_base = |url: &Url| {
        let is_plain = url.username().is_empty() && url.password().is_none() && url.query().is_none() && url.fragment().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_plain
    };
    match Url::parse(text) {
        Ok(url) if is_base(&url) => Ok(text.trim_end_matches('/').to_owned()),
        _ => Err(Failure::typed("ATOLL_ORIGIN must be a URL such as http://127.0.0.1:7070")),
    }
}

fn read_token(path: &Path) -> Result<Token, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Token { secret: Secret::from_text(&text), found_in: path.display().to_string() }),
        Err(error) => Err(Failure::typed(format!(
            "there is no token: set ATOLL_TOKEN, or run this where the origin's {} can be read ({error})",
            path.display()
        ))),
    }
}

/// Returns what a follower shows its origin: ATOLL_FOLLOW_TOKEN, else `follow_token`, else `<data>/follow.token`.
pub(crate) fn follow_token(settings: &Settings) -> Result<Secret, Failure> {
    if let Ok(token) = std::env::var("ATOLL_FOLLOW_TOKEN")
        && !token.is_empty()
    {
        return Ok(Secret::from_text(&token));
    }
    if let Some(secret) = &settings.origin.follow_token {
        return secret.read().map(|text| Secret::from_text(&text)).map_err(|error| Failure::typed(format!("origin.follow_token: {error}")));
    }
    let path = settings.data.join("follow.token");
    let text = std::fs::read_to_string(&path).map_err(|error| {
        Failure::typed(format!(
            "there is no follower's token: set ATOLL_FOLLOW_TOKEN or origin.follow_token, or start the origin first ({}: {error})",
            path.display()
        ))
    })?;
    Ok(Secret::from_text(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_a_url_without_a_password() {
        for (good, url) in [("http://127.0.0.1:7070", "http://127.0.0.1:7070"), ("https://origin.test/", "https://origin.test")] {
            assert_eq!(origin_url(good).unwrap(), url);
        }
        for bad in ["127.0.0.1:7070", "origin.test", "redis://h", "http://", "http://u:hunter2@h", "http://h/?a"] {
            let Failure::Typed(said) = origin_url(bad).unwrap_err() else { panic!("{bad}") };
            assert!(!said.to_string().contains("hunter2"));
        }
    }
}
