//! `makuo log`: lists the releases known to the fleet.

use std::path::Path;

use super::args::LogArgs;
use super::{network, no_host_has, survey};
use crate::Result;
use crate::outcome::log_status;
use crate::report::Report;

pub(super) fn run(args: &LogArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.query.network, config)?;
    network::note_plain(&network, report);
    report.start("asking");
    let log = survey::releases(&network, config, &args.tree, args.query.wait)?;
    let log = survey::answered(log, report)?;
    if log.found.hosts.is_empty() && log.found.silent.is_empty() {
        report.strangers(&log.strangers);
        return Err(no_host_has(&args.tree));
    }

    report.log(&log);
    Ok(log_status(&log.found).code())
}
