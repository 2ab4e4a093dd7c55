//! `makuo diff`: a deploy that ends after the comparison.

use std::path::Path;

use super::args::DiffArgs;
use super::deploy;
use crate::Result;
use crate::outcome::Purpose;
use crate::report::Report;

pub(super) fn run(args: &DiffArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    deploy::session(
        &deploy::resolve(&args.session, Purpose::Diff, config)?,
        report,
    )
}
