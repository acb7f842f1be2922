//! What the house is built of: `deny.toml` names the licences that are accepted and the versions that are
//! not, and every crate of the lock file keeps to it.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use semver::{Version, VersionReq};
use serde::Deserialize;

#[derive(Deserialize)]
struct Deny {
    licenses: Licences,
    bans: Bans,
}

#[derive(Deserialize)]
struct Licences {
    allow: BTreeSet<String>,
}

#[derive(Deserialize)]
struct Bans {
    deny: Vec<Ban>,
}

#[derive(Deserialize)]
struct Ban {
    name: String,
    version: Option<VersionReq>,
}

/// A crate that is really built.
struct Package {
    name: String,
    version: Version,
    licence: String,
}

fn deny() -> Result<Deny> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deny.toml"))?;
    Ok(toml::from_str(&text)?)
}

/// Every crate that is built for the platform that we run on, tests included; `cargo metadata` would
/// also tell those whose features are off.
fn packages() -> Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let arguments = ["tree", "--workspace", "--locked", "--prefix", "none", "--format", "{p}|{l}", "--manifest-path", manifest];
    let output = Command::new(cargo).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: BTreeSet<_> = std::str::from_utf8(&output.stdout)?.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let read = |line: &String| {
        let (package, licence) = line.split_once('|').with_context(|| line.clone())?;
        let mut words = package.split(' ');
        let name = words.next().unwrap_or_default().to_owned();
        let version = words.next().and_then(|version| version.strip_prefix('v')).with_context(|| line.clone())?.parse()?;
        // A crate that was named before is marked with a star.
        Ok(Package { name, version, licence: licence.trim_end_matches(" (*)").to_owned() })
    };
    lines.iter().map(read).collect()
}

#[test]
fn every_crate_has_an_accepted_licence() -> Result<()> {
    let allowed = deny()?.licenses.allow;

    let mut refused = Vec::new();
    for package in packages()? {
        let text = &package.licence;
        let licence = spdx::Expression::parse_mode(text, spdx::ParseMode::LAX)?;
        if !licence.evaluate(|needed| allowed.contains(&needed.to_string())) {
            refused.push(format!("{} {}: {text}", package.name, package.version));
        }
    }

    assert!(refused.is_empty(), "licences that are not in deny.toml:\n{}", refused.join("\n"));
    Ok(())
}

#[test]
fn no_crate_has_a_banned_version() -> Result<()> {
    let bans = deny()?.bans.deny;

    let mut found = Vec::new();
    for package in packages()? {
        let is_banned =
            |ban: &Ban| ban.name == package.name && ban.version.as_ref().is_none_or(|versions| versions.matches(&package.version));
        if bans.iter().any(is_banned) {
            found.push(format!("{} {}", package.name, package.version));
        }
    }

    assert!(found.is_empty(), "banned in deny.toml: {}", found.join(", "));
    Ok(())
}

#[test]
fn every_crate_comes_from_this_house_or_the_registry() -> Result<()> {
    #[derive(Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(Deserialize)]
    struct Locked {
        name: String,
        source: Option<String>,
    }

    let lock: Lock = toml::from_str(&std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock"))?)?;

    let is_strange = |source: &String| !source.starts_with("registry+") && !source.starts_with("sparse+");
    let strangers: Vec<_> =
        lock.package.into_iter().filter(|package| package.source.as_ref().is_some_and(is_strange)).map(|package| package.name).collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    Ok(())
}
