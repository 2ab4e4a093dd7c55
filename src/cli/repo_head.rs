//! `makuo repo renew` and `makuo repo rollback`: new heads without the source.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::{HeadSignArgs, RepoRenewArgs, RepoRollbackArgs};
use super::{deploy, network, publish, sign, store};
use crate::Result;
use crate::drive::deploy::ReleaseKeys;
use crate::drive::repository::{self, HeadMemory, HeadOptions, RenewedHead, restore, trees_of};
use crate::outcome::{Event, Observer};
use crate::report::Report;
use crate::report::words;
use crate::repository::head::HeadValidity;
use crate::store::StoreUrl;

/// A head for scripts.
#[derive(Serialize)]
struct HeadFields {
    tree: String,
    serial: u64,
    valid_until: Option<i64>,
}

#[derive(Serialize)]
struct RenewFields {
    heads: Vec<HeadFields>,
}

pub(super) fn renew(
    args: &RepoRenewArgs,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<()> {
    let url = store::url(&args.url)?;
    let store = store::open(&url, &args.store)?;
    let valid_for = args.valid_for.unwrap_or_default();
    let options = options(&args.sign, &url, valid_for, config)?;
    report.start(&format!("signing heads in {url}"));
    let trees = match args.trees.as_slice() {
        [] => trees_of(&store)?,
        trees => trees.to_vec(),
    };

    // One tree that fails is no reason to let the others become stale.
    let mut renewed = Vec::new();
    let mut failed = Vec::new();
    for tree in &trees {
        match repository::renew(&store, tree, &options, report) {
            Ok(head) => renewed.push(head),
            Err(e) => failed.push((tree, e)),
        }
    }

    if let Some((_, first)) = failed.pop() {
        for head in &renewed {
            report.event(&Event::Note(line(head)));
        }
        for (_, e) in &failed {
            report.event(&Event::Note(e.with_hint()));
        }
        return Err(first);
    }

    let lines: Vec<String> = renewed.iter().map(line).collect();
    let heads = renewed.iter().map(|head| HeadFields {
        tree: head.tree.to_string(),
        serial: head.serial.0,
        valid_until: head.valid_until.map(|until| until.0),
    });
    let fields = RenewFields {
        heads: heads.collect(),
    };
    report.plain(&lines.join("\n"), &fields);
    Ok(())
}

/// "www@18: its head is valid until 2026-12-07 09:00 UTC"
fn line(head: &RenewedHead) -> String {
    let release = words::release(&head.tree, Some(head.serial));
    let before = if head.was_stale { "; it was stale" } else { "" };
    format!(
        "{release}: {}{before}",
        publish::shown_head(head.valid_until)
    )
}

#[derive(Serialize)]
struct RollbackFields {
    tree: String,
    serial: u64,
    rollback_to: u64,
    repository: String,
    valid_until: Option<i64>,
    bytes_sent: u64,
}

pub(super) fn rollback(
    args: &RepoRollbackArgs,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<()> {
    let url = store::url(&args.url)?;
    let store = store::open(&url, &args.store)?;
    let mut options = options(&args.sign, &url, HeadValidity::AsBefore, config)?;
    if !args.cosign.keys.is_empty() {
        let key = sign::key_file(args.sign.key.as_deref(), None)?;
        options.keys.signer = sign::cosigned(&key, &args.cosign.keys)?;
    }
    options.message.clone_from(&args.about.message);
    report.start(&format!("{}: going back in {url}", args.tree));
    let keep = args.history.keep.map(usize::from);
    let done = restore(&store, &args.tree, args.to, keep, &options, report)?;

    let shown = |serial| words::release(&args.tree, Some(serial));
    let release = &done.published.release;
    let text = format!(
        "{release} published to {url}: back from {} to {}",
        shown(done.from),
        shown(done.to)
    );
    let fields = RollbackFields {
        tree: args.tree.to_string(),
        serial: release.header().serial.0,
        rollback_to: done.to.0,
        repository: url.to_string(),
        valid_until: done.published.stored.valid_until.map(|until| until.0),
        bytes_sent: done.published.stored.stored,
    };
    report.plain(&text, &fields);
    Ok(())
}

pub(super) fn options(
    args: &HeadSignArgs,
    url: &StoreUrl,
    valid_for: HeadValidity,
    config: Option<&Path>,
) -> Result<HeadOptions> {
    let config = network::host_config(config)?;
    let key = sign::key_file(args.key.as_deref(), None)?;
    let authorized = sign::authorized(args.authorized_keys.as_deref(), &config)?;
    let cache = deploy::cache_dir();
    Ok(HeadOptions {
        valid_for,
        message: None,
        keys: ReleaseKeys {
            signer: sign::signer(&key)?,
            authorized: Some(Arc::new(authorized)),
        },
        name: network::host_name()?,
        memory: HeadMemory::new(cache.as_deref(), url),
        cache,
    })
}
