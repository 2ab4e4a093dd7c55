//! `makuo status`: lists the release and state of every host.

use std::path::Path;

use super::args::StatusArgs;
use super::{network, no_host_has};
use crate::Result;
use crate::report::Report;

pub(super) fn run(args: &StatusArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.query.network, config)?;
    network::note_plain(&network, report);
    report.start("asking");
    let standings = crate::drive::survey::status(
        network::open(&network)?,
        args.tree.as_ref(),
        args.query.wait,
    )?;
    if let (Some(tree), true) = (&args.tree, standings.is_empty()) {
        return Err(no_host_has(tree));
    }

    report.status(&standings);
    Ok(0)
}
