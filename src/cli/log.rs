//! `makuo log`: lists the releases known to the fleet.

use std::path::Path;

use super::args::LogArgs;
use super::{network, no_host_has};
use crate::Result;
use crate::report::Report;

pub(super) fn run(args: &LogArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.query.network, config)?;
    network::note_plain(&network, report);
    report.start("asking");
    let log = crate::drive::survey::log(network::open(&network)?, &args.tree, args.query.wait)?;
    if log.hosts.is_empty() && log.silent.is_empty() {
        return Err(no_host_has(&args.tree));
    }

    report.log(&log);
    Ok(0)
}
