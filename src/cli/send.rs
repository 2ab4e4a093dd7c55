//! `makuo send` and `makuo sync`: ad hoc releases through the local daemon.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use super::args::AdhocArgs;
use super::{deploy, network};
use crate::Result;
use crate::drive::adhoc::{AdhocAction, AdhocRequest};
use crate::report::Report;

pub(super) fn run(
    args: &AdhocArgs,
    (delete, to): (bool, Option<&OsStr>),
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    deploy::check_targets(&args.select.targets)?;
    let socket = match &args.socket {
        Some(socket) => socket.clone(),
        None => network::host_config(config)?.socket,
    };

    report.start("sending");
    let request = AdhocRequest {
        to: to.map(|to| to.as_encoded_bytes().to_vec()),
        ..wish(args, delete)
    };
    let outcome = crate::daemon::request_files(&socket, &request, report)?;
    report.outcome(&outcome);

    Ok(outcome.exit.code())
}

fn wish(args: &AdhocArgs, delete: bool) -> AdhocRequest {
    AdhocRequest {
        tree: args.tree.clone(),
        paths: args.paths.iter().map(|p| p.clone().into_vec()).collect(),
        recurse: args.recursive,
        dry_run: args.preview.dry_run,
        targets: args.select.targets.clone(),
        message: args.about.message.clone(),
        excludes: args.exclude.clone(),
        max_delete: args.max_delete,
        checksum: args.reading.checksum,
        lists: true,
        ..AdhocRequest::new(if delete {
            AdhocAction::Sync
        } else {
            AdhocAction::Send
        })
    }
}
