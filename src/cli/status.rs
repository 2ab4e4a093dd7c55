//! `makuo status`: where every host stands.

use std::path::Path;

use super::args::StatusArgs;
use super::{network, nobody_has};
use crate::Result;
use crate::report::Report;

pub(super) fn run(args: &StatusArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.network, config)?;
    network::tell(&network, report);
    report.start("asking");
    let standings =
        crate::drive::log::status(network::open(&network)?, args.tree.as_ref(), args.wait)?;
    if let (Some(tree), true) = (&args.tree, standings.is_empty()) {
        return Err(nobody_has(tree));
    }

    report.status(&standings);
    Ok(0)
}
