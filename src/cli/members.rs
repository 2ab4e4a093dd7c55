//! `makuo members`: lists the hosts that are alive.

use std::path::Path;

use super::args::MembersArgs;
use super::network;
use crate::Result;
use crate::report::Report;

pub(super) fn run(args: &MembersArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.network, config)?;
    network::note_plain(&network, report);
    report.start("listening");
    let around = crate::drive::survey::members(network::open(&network)?, args.wait)?;
    report.members(&around);
    Ok(0)
}
