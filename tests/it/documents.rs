//! README and the guides: short enough, linked to each other, and every link leads somewhere.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

/// The most lines of README.md.
const MAX_README_LINES: usize = 200;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Returns the guides, sorted by name.
fn guides() -> Vec<PathBuf> {
    let dir = std::fs::read_dir(root().join("packaging/guide")).expect("readable");
    let mut found: Vec<PathBuf> = dir
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "md"))
        .collect();
    found.sort();
    found
}

#[test]
fn the_readme_is_short_and_names_every_guide() {
    let readme = text(&root().join("README.md"));
    let lines = readme.lines().count();
    assert!(lines <= MAX_README_LINES, "README.md has {lines} lines");
    for guide in guides() {
        let below = guide.strip_prefix(root()).expect("below the root");
        let link = format!("]({})", below.display());
        assert!(readme.contains(&link), "README.md has no link {link}");
    }
}

#[test]
fn every_link_leads_somewhere() {
    let mut documents = guides();
    for name in [
        "README.md",
        "CHANGELOG.md",
        ".github/CONTRIBUTING.md",
        ".github/SECURITY.md",
        "packaging/MIGRATION.md",
        "packaging/repository/README.md",
    ] {
        documents.push(root().join(name));
    }

    let mut dead = Vec::new();
    for document in &documents {
        for link in links(&text(document)) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => document.clone(),
                _ => document.parent().expect("a directory").join(file),
            };
            let leads = match anchor {
                "" => target.exists(),
                _ => target.is_file() && anchors(&text(&target)).iter().any(|a| a == anchor),
            };
            if !leads {
                dead.push(format!("{}: {link}", document.display()));
            }
        }
    }

    assert!(dead.is_empty(), "dead links:\n{}", dead.join("\n"));
}

/// The links of the guides lead to the same files where the packages install them.
#[test]
fn links_of_installed_guides_lead_somewhere() {
    let (rpm, deb): (Vec<_>, Vec<_>) = super::package::assets()
        .into_iter()
        .partition(|(_, dest)| dest.starts_with('/'));
    for package in [deb, rpm] {
        let installed: BTreeMap<PathBuf, PathBuf> = package
            .iter()
            .flat_map(|(source, dest)| expanded(source, dest))
            .collect();
        let guides = installed
            .iter()
            .filter(|(source, _)| source.starts_with("packaging/guide"))
            .filter(|(source, _)| source.extension().is_some_and(|end| end == "md"));
        let mut found = 0;
        for (source, dest) in guides {
            for link in links(&text(&root().join(source))) {
                let file = link.split('#').next().expect("a first part");
                let from =
                    |document: &Path| clean(&document.parent().expect("a directory").join(file));
                if file.is_empty() {
                    continue;
                }
                let target = installed.get(&from(source));
                let at = source.display();
                assert_eq!(target, Some(&from(dest)), "{at}: {link} is not installed");
                found += 1;
            }
        }
        assert!(found > 0, "no links");
    }
}

/// Returns source and destination of each file that an entry of a package's list installs.
fn expanded(source: &str, dest: &str) -> Vec<(PathBuf, PathBuf)> {
    let to = |source: &Path| match dest.ends_with('/') {
        true => Path::new(dest).join(source.file_name().expect("a name")),
        false => PathBuf::from(dest),
    };
    let Some((dir, end)) = source.split_once('*') else {
        return vec![(source.into(), to(Path::new(source)))];
    };

    let all = std::fs::read_dir(root().join(dir)).expect("readable");
    let names = all.map(|entry| entry.expect("readable").file_name());
    let names = names.filter(|name| name.to_string_lossy().ends_with(end));
    let files = names.map(|name| Path::new(dir).join(name));
    files.map(|file| (file.clone(), to(&file))).collect()
}

/// Resolves `..` in a path.
fn clean(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            part => clean.push(part),
        }
        clean
    })
}

/// Returns the links of a document to files and headings.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://"))
        .map(String::from)
        .collect()
}

/// Returns the anchors of a document's headings, as web pages of repositories make them.
fn anchors(text: &str) -> Vec<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    headings.map(anchor).collect()
}

#[test]
fn anchors_and_links_are_found() {
    assert_eq!(anchors("# A, b-c & d\ntext"), ["a-b-c--d"]);
    let found = links("[a](x.md#y) `[z]` [b](https://example.org) [c](#d)");
    assert_eq!(found, ["x.md#y", "#d"]);
}

#[test]
fn man_pages_have_no_warnings() {
    let pages = std::fs::read_dir(root().join("packaging/man")).expect("readable");
    let pages: Vec<PathBuf> = pages.map(|page| page.expect("readable").path()).collect();
    assert!(pages.len() > 30, "{pages:?}");
    let mut groff = Command::new("groff");
    groff.args(["-man", "-ww", "-z", "-Tutf8"]).args(&pages);
    match groff.output() {
        Ok(out) => {
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success() && said.is_empty(), "{said}");
        }
        Err(e) => crate::support::skipped(format!("no groff: {e}")),
    }
}
