//! `makuo repo`: what is in a repository, whether it is whole, what nobody needs, and a copy.
//! [`super::repo_head`] has the actions on heads.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::{RepoAction, RepoArgs, RepoCheckArgs, RepoCopyArgs, RepoGcArgs, RepoListArgs};
use super::{network, publish, repo_head, sign};
use crate::drive::clock;
use crate::drive::repository::{HeadKeys, ListedTree, check, collect, copy, inventory};
use crate::keys::{self, shown_time};
use crate::report::Report;
use crate::report::words;
use crate::repository::gc::{GcRewrite, GcSetup};
use crate::units::{ByteSize, shown_age};
use crate::{Error, Result};

pub(super) fn run(args: &RepoArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    match &args.action {
        RepoAction::List(args) => list(args, config, report),
        RepoAction::Check(args) => check_all(args, config, report),
        RepoAction::Gc(args) => gc(args, config, report),
        RepoAction::Copy(args) => copy_to(args, report),
        RepoAction::Renew(args) => repo_head::renew(args, config, report),
        RepoAction::Rollback(args) => repo_head::rollback(args, config, report),
    }
    .map(|()| 0)
}

/// A release for scripts.
#[derive(Serialize)]
struct ReleaseFields {
    tree: String,
    serial: u64,
    created: i64,
    key: Option<String>,
    entries: u64,
    bytes: u64,
}

#[derive(Serialize)]
struct ListFields {
    releases: Vec<ReleaseFields>,
    heads: Vec<ListedHead>,
}

/// The state of a tree's head for scripts.
#[derive(Serialize)]
struct ListedHead {
    tree: String,
    authorized: bool,
    stale: bool,
    valid_until: Option<i64>,
}

fn list(args: &RepoListArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let url = publish::url(&args.url)?;
    let store = publish::open(&url, &args.store)?;
    let config = network::host_config(config)?;
    let keys = sign::authorized(args.authorized_keys.as_deref(), &config)?;
    report.start(&format!("looking into {url}"));
    let trees = inventory(&store, args.tree.as_ref(), &keys)?;

    let lines: Vec<String> = trees.iter().flat_map(tree_lines).collect();
    let releases = trees.iter().flat_map(release_fields).collect();
    let text = if lines.is_empty() {
        "no tree".to_string()
    } else {
        lines.join("\n")
    };
    let heads = trees.iter().map(|tree| ListedHead {
        tree: tree.tree.to_string(),
        authorized: tree.is_authorized,
        stale: tree.is_stale,
        valid_until: tree.valid_until.map(|until| until.0),
    });
    let heads = heads.collect();
    report.plain(&text, &ListFields { releases, heads });
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
            format!(
                "{:<20} {age} ago  {:>10}  {:>12}  {key}",
                words::release(&tree.tree, Some(release.serial)),
                words::plural_count(release.entries, "entry", "entries"),
                release.bytes.to_string(),
            )
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
    let fields = |release: &crate::drive::repository::ListedRelease| ReleaseFields {
        tree: tree.tree.to_string(),
        serial: release.serial.0,
        created: release.created.0,
        key: release.key.map(|key| key.to_string()),
        entries: release.entries,
        bytes: release.bytes.0,
    };
    tree.releases.iter().map(fields).collect()
}

#[derive(Serialize)]
struct CheckFields {
    packs: u64,
    bytes: u64,
    live: u64,
}

fn check_all(args: &RepoCheckArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let url = publish::url(&args.url)?;
    let store = publish::open(&url, &args.store)?;
    let config = network::host_config(config)?;
    let authorized = sign::authorized(args.authorized_keys.as_deref(), &config)?;
    let keys = HeadKeys {
        authorized: Arc::new(authorized),
        signer: None,
    };

    report.start(&format!("hashing what is in {url}"));
    let found = check(&store, &keys, report)?;
    let text = format!(
        "{} whole, {}; releases refer to {}",
        words::count(found.packs, "pack"),
        ByteSize(found.bytes),
        ByteSize(found.live)
    );
    let fields = CheckFields {
        packs: found.packs,
        bytes: found.bytes,
        live: found.live,
    };
    report.plain(&text, &fields);
    Ok(())
}

#[derive(Serialize)]
struct GcFields {
    before: u64,
    live: u64,
    deleted: u64,
    rewritten: u64,
}

fn gc(args: &RepoGcArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let url = publish::url(&args.url)?;
    let store = publish::open(&url, &args.store)?;
    let config = network::host_config(config)?;
    let authorized = sign::authorized(args.authorized_keys.as_deref(), &config)?;
    let key = args.key.as_deref();
    let key = key.map(|key| sign::key_file(Some(key), None)).transpose()?;
    let signer = key.map(|key| keys::open_signer(&key)).transpose()?;

    let rewrites = signer.is_some().then(|| GcRewrite {
        keep: usize::from(args.keep),
        valid_for: args.valid_for.unwrap_or_default(),
    });
    let keys = HeadKeys {
        authorized: Arc::new(authorized),
        signer: signer.map(Arc::from),
    };
    let setup = GcSetup {
        grace: args.grace.as_secs(),
        rewrites,
        seed: 0,
    };

    report.start(&format!("collecting what nobody needs in {url}"));
    let done = collect(&store, setup, &keys)?;
    let text = format!(
        "{} deleted of {}; releases refer to {}",
        ByteSize(done.deleted),
        ByteSize(done.before),
        ByteSize(done.live)
    );
    let fields = GcFields {
        before: done.before,
        live: done.live,
        deleted: done.deleted,
        rewritten: done.rewritten,
    };
    report.plain(&text, &fields);
    Ok(())
}

#[derive(Serialize)]
struct CopyFields {
    objects: u64,
    copied: u64,
    bytes_sent: u64,
}

fn copy_to(args: &RepoCopyArgs, report: &mut Report) -> Result<()> {
    let (from, to) = (publish::url(&args.from)?, publish::url(&args.to)?);
    if from == to {
        return Err(Error::usage("a repository cannot be copied to itself"));
    }

    let source = publish::open(&from, &args.store)?;
    let target = publish::open(&to, &args.store)?;
    report.start(&format!("copying {from} to {to}"));
    let done = copy(&source, &target, report)?;
    let text = format!(
        "{} of {} copied to {to}: {}",
        done.copied,
        words::count(done.objects, "object"),
        ByteSize(done.bytes)
    );
    let fields = CopyFields {
        objects: done.objects,
        copied: done.copied,
        bytes_sent: done.bytes,
    };
    report.plain(&text, &fields);
    Ok(())
}
