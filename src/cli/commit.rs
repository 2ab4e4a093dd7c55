//! `makuo commit` and `makuo abort`: orders about a release that hosts keep staged.

use std::path::Path;

use super::args::{AbortArgs, CommitArgs};
use super::interrupt::handle_ctrl_c;
use super::staged_order::{OrderContext, StagedOrder, named_or_only};
use crate::Result;
use crate::drive::deploy::Interrupt;
use crate::outcome::Purpose;
use crate::report::Report;

pub(super) fn commit(args: &CommitArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let context = OrderContext::of(&args.order, config)?;
    let staged = StagedOrder::find(context, &args.release.tree, report, |_| {
        Ok(args.release.clone())
    })?;
    staged.note_in_place(report);
    let mut options = staged.options(Purpose::Deploy)?;
    options.spec.commit.require = args.require;
    options.spec.commit.batches.clone_from(&args.batches);
    options.spec.commit.on_failure = args.on_failure;
    options.recheck = args.recheck;
    let stop = Interrupt::default();
    handle_ctrl_c(stop.clone());
    let outcome = staged.run(options, &stop, report)?;
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}

pub(super) fn abort(args: &AbortArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let (tree, serial) = &args.release;
    let context = OrderContext::of(&args.order, config)?;
    let staged = StagedOrder::find(context, tree, report, |standings| {
        named_or_only(tree, *serial, standings)
    })?;
    staged.note_in_place(report);
    let options = staged.options(Purpose::Abort)?;
    let stop = Interrupt::default();
    handle_ctrl_c(stop.clone());
    let outcome = staged.run(options, &stop, report)?;
    report.outcome(&outcome);
    Ok(outcome.exit.code())
}
