//! `makuo pin` and `makuo unpin`: a release that this host keeps, whatever comes later.

use std::path::Path;

use serde::Serialize;

use super::args::PinArgs;
use super::release_ref::ReleaseRef;
use super::{kept, network};
use crate::report::Report;
use crate::{Error, Result};

/// Result for scripts.
#[derive(Serialize)]
struct PinFields {
    tree: String,
    serial: u64,
    pinned: bool,
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

    let fields = PinFields {
        tree: tree.to_string(),
        serial: serial.0,
        pinned: pins,
    };
    report.plain(&text, &fields);
    Ok(0)
}
