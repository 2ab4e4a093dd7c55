//! `makuo repo`: what is in a repository, whether it is whole, what nobody needs, and a copy.
//! [`super::repo_head`] has the actions on heads.

use std::path::Path;
use std::sync::Arc;

use serde::Serialize;

use super::args::{
    RepoAction, RepoArgs, RepoCheckArgs, RepoCopyArgs, RepoGcArgs, StoreArgs, TreeKeysArgs,
};
use super::{deploy, network, repo_head, repo_list, sign, store};
use crate::drive::repository::{HeadKeys, HeadMemory, check, collect, copy};
use crate::keys::AuthorizedKeys;
use crate::report::Report;
use crate::report::words;
use crate::repository::gc::{GcRewrite, GcSetup};
use crate::store::{Store, StoreUrl};
use crate::units::{ByteSize, shown_duration};
use crate::{Error, Result};

pub(super) fn run(args: &RepoArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    match &args.action {
        RepoAction::List(args) => repo_list::list(args, config, report),
        RepoAction::Check(args) => check_all(args, config, report),
        RepoAction::Gc(args) => gc(args, config, report),
        RepoAction::Copy(args) => copy_to(args, config, report),
        RepoAction::Renew(args) => repo_head::renew(args, config, report),
        RepoAction::Rollback(args) => repo_head::rollback(args, config, report),
    }
    .map(|()| 0)
}

#[derive(Serialize)]
struct CheckFields {
    packs: u64,
    bytes: u64,
    live: u64,
}

fn check_all(args: &RepoCheckArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let (url, store, authorized) = opened(&args.url, &args.store, &args.keys, config)?;
    let keys = HeadKeys {
        authorized: Arc::new(authorized),
        signer: None,
        memory: memory(&url),
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
    later: u64,
    rewritten: u64,
}

fn gc(args: &RepoGcArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let (url, store, authorized) = opened(&args.url, &args.store, &args.keys, config)?;
    let key = args.key.as_deref();
    let key = key.map(|key| sign::key_file(Some(key), None)).transpose()?;
    let signer = key.map(|key| sign::signer(&key)).transpose()?;

    let rewrites = signer.is_some().then(|| GcRewrite {
        keep: args.keep.map(usize::from),
    });
    let keys = HeadKeys {
        authorized: Arc::new(authorized),
        signer,
        memory: memory(&url),
    };
    let setup = GcSetup {
        grace: Some(args.grace.as_secs()),
        no_trees: args.no_trees,
        rewrites,
        seed: 0,
    };

    report.start(&format!("collecting what nobody needs in {url}"));
    let done = collect(&store, setup, &keys)?;
    let mut text = format!(
        "{} deleted of {}; releases refer to {}",
        ByteSize(done.deleted),
        ByteSize(done.before),
        ByteSize(done.live)
    );
    if done.later > 0 {
        let later = ByteSize(done.later);
        let grace = shown_duration(args.grace);
        text += &format!("; {later} more can go when it is {grace} old");
    }
    let fields = GcFields {
        before: done.before,
        live: done.live,
        deleted: done.deleted,
        later: done.later,
        rewritten: done.rewritten,
    };
    report.plain(&text, &fields);
    Ok(())
}

/// Opens a repository; returns the keys of its trees as well.
fn opened(
    url: &str,
    options: &StoreArgs,
    keys: &TreeKeysArgs,
    config: Option<&Path>,
) -> Result<(StoreUrl, Store, AuthorizedKeys)> {
    let url = store::url(url)?;
    let store = store::open(&url, options)?;
    let config = network::host_config(config)?;
    let authorized = sign::authorized(keys.authorized_keys.as_deref(), &config)?;
    Ok((url, store, authorized))
}

/// What this machine knows of the heads of a repository.
fn memory(url: &StoreUrl) -> HeadMemory {
    HeadMemory::new(deploy::cache_dir().as_deref(), url)
}

#[derive(Serialize)]
struct CopyFields {
    objects: u64,
    copied: u64,
    bytes_sent: u64,
}

fn copy_to(args: &RepoCopyArgs, config: Option<&Path>, report: &mut Report) -> Result<()> {
    let (from, to) = (store::url(&args.from)?, store::url(&args.to)?);
    if from == to {
        return Err(Error::usage("a repository cannot be copied to itself"));
    }

    let given = args.authorized_keys.as_deref();
    let config = network::host_config(config)?;
    let keys = given.map(|file| sign::authorized(Some(file), &config));
    let keys = keys.transpose()?;
    let source = store::open(&from, &args.store)?;
    let target = store::open(&to, &args.store)?;
    report.start(&format!("copying {from} to {to}"));
    let done = copy(&source, &target, keys.as_ref(), report)?;
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
