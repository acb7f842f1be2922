//! Who may know whom: the arrows of the design, read from the manifests of this workspace.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Each package and the names of all that it depends on, whether to build, to run or to test.
fn dependencies() -> Result<BTreeMap<String, BTreeSet<String>>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let arguments = ["metadata", "--no-deps", "--format-version", "1", "--offline", "--manifest-path", manifest];
    let output = Command::new(cargo).args(arguments).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("there are no packages")?;
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let of = |package: &Value| -> BTreeSet<String> {
        package["dependencies"].as_array().map(|all| all.iter().map(name).collect()).unwrap_or_default()
    };
    Ok(packages.iter().map(|package| (name(package), of(package))).collect())
}

#[test]
fn rooms_know_only_whom_the_design_lets_them() -> Result<()> {
    let arrows: [(&str, &[&str]); 10] = [
        ("atoll-wire", &[]),
        ("atoll-trace", &[]),
        ("atoll-listen", &[]),
        ("atoll-config", &["atoll-wire"]),
        ("atoll-follow", &["atoll-wire", "atoll-trace"]),
        ("atoll-engine", &["atoll-wire", "atoll-config"]),
        ("atoll-origin", &["atoll-wire", "atoll-listen", "atoll-trace", "atoll-config", "atoll-engine"]),
        ("atoll-edge", &["atoll-wire", "atoll-listen", "atoll-trace", "atoll-config", "atoll-follow", "atoll-engine"]),
        ("atoll-dns", &["atoll-wire", "atoll-listen", "atoll-config", "atoll-follow"]),
        (
            "atoll",
            &[
                "atoll-wire",
                "atoll-trace",
                "atoll-listen",
                "atoll-config",
                "atoll-follow",
                "atoll-engine",
                "atoll-origin",
                "atoll-edge",
                "atoll-dns",
            ],
        ),
    ];

    let packages = dependencies()?;

    for (room, knows) in arrows {
        let all = packages.get(room).with_context(|| format!("there is no package {room}"))?;
        let ours: BTreeSet<&str> = all.iter().map(String::as_str).filter(|name| packages.contains_key(*name)).collect();
        let expected: BTreeSet<&str> = knows.iter().copied().collect();
        assert!(ours.is_subset(&expected), "{room} knows {ours:?}, and may know {expected:?}");
    }
    Ok(())
}

#[test]
fn what_crosses_between_rooms_needs_neither_a_socket_nor_a_runtime() -> Result<()> {
    const SHELLS: [&str; 9] =
        ["tokio", "tokio-util", "actix-web", "hyper", "hyper-util", "reqwest", "redb", "object_store", "hickory-server"];

    let packages = dependencies()?;

    for room in ["atoll-wire", "atoll-config"] {
        let all = packages.get(room).with_context(|| format!("there is no package {room}"))?;
        let found: Vec<_> = SHELLS.iter().filter(|shell| all.contains(**shell)).collect();
        assert!(found.is_empty(), "{room} knows {found:?}");
    }
    Ok(())
}
