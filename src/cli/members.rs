//! `makuo members`: who is alive.

use std::path::Path;
use std::time::Duration;

use super::args::MembersArgs;
use super::network;
use crate::config::NetworkConfig;
use crate::drive::outcome::Member;
use crate::report::Report;
use crate::{Error, Result};

pub(super) fn run(args: &MembersArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.network, config)?;
    report.start("listening");
    let mut members = engine(&network, args.wait)?;
    members.sort_by(|a, b| a.host.cmp(&b.host).then(a.address.cmp(&b.address)));
    report.members(&members);
    Ok(0)
}

// ENGINE: to be filled in. Solicits, listens for `wait`, returns everyone who was heard.
fn engine(_network: &NetworkConfig, _wait: Duration) -> Result<Vec<Member>> {
    Err(Error::refused("members is not built yet"))
}
