//! `makuo repo list`: the trees of a repository and their releases.

use std::path::Path;

use serde::Serialize;

use super::args::RepoListArgs;
use super::{network, sign, store};
use crate::Result;
use crate::drive::clock;
use crate::drive::repository::{ListedRelease, ListedTree, inventory};
use crate::keys::shown_time;
use crate::manifest::ReleaseMessage;
use crate::report::Report;
use crate::report::words;
use crate::units::shown_age;

/// A release for scripts.
#[derive(Serialize)]
struct ReleaseFields {
    tree: String,
    serial: u64,
    created: i64,
    key: Option<String>,
    entries: u64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<ReleaseMessage>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pinned: bool,
}

#[derive(Default, Serialize)]
struct ListFields {
    releases: Vec<ReleaseFields>,
    heads: Vec<ListedHead>,
    faults: Vec<FaultFields>,
}

/// The state of a tree's head for scripts.
#[derive(Serialize)]
struct ListedHead {
    tree: String,
    authorized: bool,
    stale: bool,
    valid_until: Option<i64>,
}

/// A tree that cannot be read, for scripts.
#[derive(Serialize)]
struct FaultFields {
    tree: String,
    error: String,
}

pub(super) fn list(args: &RepoListArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let url = store::url(&args.url)?;
    let store = store::open(&url, &args.store)?;
    let config = network::host_config(config)?;
    let keys = sign::authorized(args.keys.authorized_keys.as_deref(), &config)?;
    report.start(&format!("looking into {url}"));
    let trees = inventory(&store, args.tree.as_ref(), &keys)?;

    let mut lines = Vec::new();
    let mut fields = ListFields::default();
    for (tree, found) in trees {
        match found {
            Ok(found) => {
                lines.extend(tree_lines(&found));
                fields.releases.extend(release_fields(&found));
                fields.heads.push(ListedHead {
                    tree: tree.to_string(),
                    authorized: found.is_authorized,
                    stale: found.is_stale,
                    valid_until: found.valid_until.map(|until| until.0),
                });
            }
            Err(error) if args.tree.is_some() => return Err(error),
            Err(error) => {
                lines.push(format!("{tree}: {}", error.with_hint()));
                fields.faults.push(FaultFields {
                    tree: tree.to_string(),
                    error: error.to_string(),
                });
            }
        }
    }

    let text = if lines.is_empty() {
        "no tree".to_string()
    } else {
        lines.join("\n")
    };
    report.plain(&text, &fields);
    Ok(())
}

/// Lines about a tree, for people.
fn tree_lines(tree: &ListedTree) -> Vec<String> {
    let now = clock::wall_seconds();
    let mut lines: Vec<String> = tree
        .releases
        .iter()
        .map(|release| {
            let age = shown_age(now.0.abs_diff(release.created.0));
            let key = release.key.map_or("not signed".into(), |k| k.to_string());
            let pinned = if release.is_pinned { "  pinned" } else { "" };
            let message = release.message.as_ref().map(ToString::to_string);
            let line = format!(
                "{:<20} {age} ago  {:>10}  {:>12}  {key}{pinned}  {}",
                words::release(&tree.tree, Some(release.serial)),
                words::plural_count(release.entries, "entry", "entries"),
                release.bytes.to_string(),
                message.unwrap_or_default()
            );
            line.trim_end().to_string()
        })
        .collect();

    if !tree.is_authorized {
        lines.push(format!(
            "{}: the head is signed by {}, which is not authorized on this machine",
            tree.tree, tree.key
        ));
    }
    if let Some(until) = tree.valid_until {
        let state = if tree.is_stale {
            "stale since"
        } else {
            "valid until"
        };
        lines.push(format!(
            "{}: the head is {state} {}",
            tree.tree,
            shown_time(until)
        ));
    }
    lines
}

fn release_fields(tree: &ListedTree) -> Vec<ReleaseFields> {
    let fields = |release: &ListedRelease| ReleaseFields {
        tree: tree.tree.to_string(),
        serial: release.serial.0,
        created: release.created.0,
        key: release.key.map(|key| key.to_string()),
        entries: release.entries,
        bytes: release.bytes.0,
        message: release.message.clone(),
        pinned: release.is_pinned,
    };
    tree.releases.iter().map(fields).collect()
}
