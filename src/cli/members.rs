//! `makuo members`: lists the hosts that are alive.

use std::path::Path;

use super::args::MembersArgs;
use super::{network, survey};
use crate::Result;
use crate::daemon::query_roster;
use crate::drive;
use crate::report::Report;

pub(super) fn run(args: &MembersArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.network, config)?;
    network::note_plain(&network, report);
    report.start("listening");
    let look = || {
        survey::ask(
            &network,
            config,
            |links| drive::survey::members(links, args.wait),
            |socket| query_roster(socket, args.wait),
        )
    };

    if args.watch.watch {
        let last = survey::follow(look, report)?;
        report.looked(&last);
        return Ok(0);
    }

    let around = survey::answered(look()?, report)?;
    report.members(&around);
    Ok(0)
}
