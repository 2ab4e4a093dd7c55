//! `makuo demo`: three hosts on this machine's loopback, one real deploy, and what to try next.

use super::args::DemoArgs;
use crate::report::Report;
use crate::{Error, Result};

pub(super) fn run(_args: &DemoArgs, report: &mut Report) -> Result<u8> {
    engine(report)
}

// ENGINE: to be filled in. Returns the exit code of the deploy.
fn engine(_report: &mut Report) -> Result<u8> {
    Err(Error::refused("the demo is not built yet"))
}
