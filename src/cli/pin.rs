//! `makuo pin` and `makuo unpin`: a release that this host or a repository keeps, whatever comes
//! later.

use std::path::Path;

use serde::Serialize;

use super::args::{HeadSignArgs, PinArgs};
use super::release_ref::ReleaseRef;
use super::{kept, network, repo_head, store};
use crate::drive::repository;
use crate::id::{Serial, TreeName};
use crate::report::Report;
use crate::repository::head::{HeadValidity, PinChange};
use crate::store::Store;
use crate::{Error, Result};

/// Result for scripts.
#[derive(Serialize)]
struct PinFields {
    tree: String,
    serial: u64,
    pinned: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    repository: Option<String>,
}

impl PinFields {
    fn of(tree: &TreeName, serial: Serial, pinned: bool) -> Self {
        Self {
            tree: tree.to_string(),
            serial: serial.0,
            pinned,
            repository: None,
        }
    }
}

pub(super) fn run(
    args: &PinArgs,
    pins: bool,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    let wanted = ReleaseRef::parse(&args.release)?;
    let (tree, serial) = match (&wanted.tree, wanted.serial, &wanted.path) {
        (tree, Some(serial), None) => (tree, serial),
        _ => {
            let what = "a pin needs the number of a release";
            return Err(Error::usage(what).hint("write TREE@N, such as www@17"));
        }
    };

    if let Some(url) = &args.repository {
        return in_repository(args, url, (tree, serial, pins), config, report);
    }

    let config = network::host_config(config)?;
    let state = kept::local_state(tree, &config)?;
    let (_, records) = state.ok_or_else(|| {
        Error::refused(format!("this machine has no releases of a tree {tree}"))
            .hint("a pin holds on one host: run this on the host that is to keep the release")
    })?;

    let text = if pins {
        if records.stored(serial)?.is_none() {
            return Err(kept::not_kept(&wanted, &records)?);
        }
        records.pin(serial)?;
        format!(
            "{wanted} is pinned: this host keeps it, and all that later releases replace, until \
             `makuo unpin {wanted}`"
        )
    } else if records.unpin(serial)? {
        format!("{wanted} is not pinned any more: it goes with the releases of its age")
    } else {
        return Err(Error::refused(format!("{wanted} is not pinned here"))
            .hint(format!("`makuo log {tree}` shows pins")));
    };

    let fields = PinFields::of(tree, serial, pins);
    report.plain(&text, &fields);
    Ok(0)
}

/// Pins a release in a repository, or ends its pin.
fn in_repository(
    args: &PinArgs,
    url: &str,
    (tree, serial, pins): (&TreeName, Serial, bool),
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    let url = store::url(url)?;
    let store = Store::open(&url, &store::options(args.ca_file.as_deref()))?;
    let sign = HeadSignArgs {
        key: args.key.clone(),
        authorized_keys: args.authorized_keys.clone(),
    };
    let options = repo_head::options(&sign, &url, HeadValidity::AsBefore, config)?;
    report.start(&format!("{tree}: signing its head in {url}"));
    let change = match pins {
        true => PinChange::Pin(serial),
        false => PinChange::Unpin(serial),
    };
    repository::pin(&store, tree, change, &options, report)?;

    let text = match pins {
        true => format!("{tree}@{serial} is pinned: {url} keeps it until its unpin"),
        false => format!(
            "{tree}@{serial} is not pinned any more in {url}: it goes with the releases of its age"
        ),
    };
    let fields = PinFields {
        repository: Some(url.to_string()),
        ..PinFields::of(tree, serial, pins)
    };
    report.plain(&text, &fields);
    Ok(0)
}
