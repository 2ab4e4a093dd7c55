//! Sources and licences of dependencies. The policy is in .cargo/deny.toml, which
//! `cargo deny check` enforces as well, along with network access and advisories.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// The registry's name in Cargo.lock.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn toml(name: &str) -> toml::Table {
    let text = std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
    text.parse().unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Returns the licences allowed by .cargo/deny.toml.
fn allowed() -> BTreeSet<String> {
    let list = toml(".cargo/deny.toml")["licenses"]["allow"]
        .as_array()
        .expect("a list")
        .clone();
    list.iter()
        .map(|one| one.as_str().expect("text").to_string())
        .collect()
}

#[test]
fn everything_comes_from_the_registry_with_its_checksum() {
    for lock in ["Cargo.lock", "tests/fuzz/Cargo.lock"] {
        let lock = toml(lock);
        let packages = lock["package"].as_array().expect("a list");
        assert!(packages.len() > 50, "the packages were not found");
        for package in packages {
            let name = package["name"].as_str().expect("text");
            match package.get("source").and_then(|s| s.as_str()) {
                None => assert!(
                    ["makuo", "makuo-fuzz", "makuo-parts"].contains(&name),
                    "{name} comes from a directory"
                ),
                Some(source) => {
                    assert_eq!(source, REGISTRY, "{name}");
                    assert!(package.get("checksum").is_some(), "{name} has no checksum");
                }
            }
        }
    }
}

#[test]
fn no_dependency_takes_any_version() {
    let manifest = toml("Cargo.toml");
    for kind in ["dependencies", "dev-dependencies"] {
        for (name, wish) in manifest[kind].as_table().expect("a table") {
            let version = wish
                .as_str()
                .or_else(|| wish.get("version").and_then(|v| v.as_str()))
                .unwrap_or("*");
            assert!(!version.contains('*'), "{kind}: {name} = {version:?}");
            assert!(
                wish.get("git").is_none() && wish.get("path").is_none(),
                "{kind}: {name} is not of the registry"
            );
        }
    }
}

#[test]
fn every_licence_is_allowed() {
    let host = env!("CARGO_MANIFEST_DIR");
    let cargo = |args: &[&str]| {
        Command::new(env!("CARGO"))
            .args(args)
            .current_dir(host)
            .output()
            .expect("cargo runs")
    };

    let version = String::from_utf8(cargo(&["-vV"]).stdout).expect("text");
    let platform = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .expect("a platform");
    let args = [
        "metadata",
        "--offline",
        "--locked",
        "--format-version",
        "1",
        "--filter-platform",
        platform,
    ];

    let told = cargo(&args);
    if !told.status.success() {
        // Dependencies of other platforms need not be fetched; those of this platform were just
        // built.
        let why = String::from_utf8_lossy(&told.stderr).into_owned();
        eprintln!("skipped: {why}");
        assert!(why.contains("--offline"), "{why}");
        return;
    }

    let told: Value = serde_json::from_slice(&told.stdout).expect("JSON");
    let (packages, allowed) = (told["packages"].as_array().expect("a list"), allowed());
    assert!(packages.len() > 50, "the packages were not found");
    let wrong = packages
        .iter()
        .filter(|p| !is_allowed(p["license"].as_str().unwrap_or_default(), &allowed));
    let wrong: Vec<String> = wrong
        .map(|p| format!("{} {}: {}", p["name"], p["version"], p["license"]))
        .collect();

    assert!(
        wrong.is_empty(),
        "not allowed by .cargo/deny.toml:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn expressions_of_licences_are_understood() {
    let allowed = BTreeSet::from(["MIT", "ISC"].map(String::from));
    for fine in [
        "MIT",
        "MIT OR GPL-3.0",
        "GPL-3.0/MIT",
        "MIT AND ISC",
        "(GPL-3.0 OR MIT) AND ISC",
        "(MIT)",
    ] {
        assert!(is_allowed(fine, &allowed), "{fine}");
    }

    for wrong in [
        "",
        "GPL-3.0",
        "MIT AND GPL-3.0",
        "GPL-3.0 OR (MIT AND X)",
        "MIT WITH Y",
        "MITX",
        "(MIT",
        "MIT ISC",
    ] {
        assert!(!is_allowed(wrong, &allowed), "{wrong}");
    }
}

/// Returns true if an SPDX expression (or the older `A/B`) permits an allowed licence.
fn is_allowed(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression
        .replace('(', " ( ")
        .replace(')', " ) ")
        .replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    either(&mut rest, allowed) == Some(true) && rest.is_empty()
}

/// Returns `None` for an invalid expression.
fn either(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut fine = both(rest, allowed)?;
    while let Some(after) = rest.strip_prefix(&["OR"]) {
        *rest = after;
        fine |= both(rest, allowed)?;
    }
    Some(fine)
}

fn both(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let mut fine = one(rest, allowed)?;
    while let Some(after) = rest.strip_prefix(&["AND"]) {
        *rest = after;
        fine &= one(rest, allowed)?;
    }
    Some(fine)
}

fn one(rest: &mut &[&str], allowed: &BTreeSet<String>) -> Option<bool> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    if *first == "(" {
        let fine = either(rest, allowed)?;
        *rest = rest.strip_prefix(&[")"])?;
        return Some(fine);
    }

    // An exception makes a different licence.
    if let [with, exception, after @ ..] = *rest
        && *with == "WITH"
    {
        *rest = after;
        return Some(allowed.contains(&format!("{first} WITH {exception}")));
    }

    Some(allowed.contains(*first))
}
