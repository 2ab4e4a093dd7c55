//! `makuo status`: lists the release and state of every host.

use std::path::Path;

use super::args::StatusArgs;
use super::{network, no_host_has, survey};
use crate::daemon::query_survey;
use crate::drive;
use crate::outcome::{Standing, Survey, standings_status};
use crate::report::Report;
use crate::{Error, Result};

pub(super) fn run(args: &StatusArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let network = network::resolve(&args.query.network, config)?;
    network::note_plain(&network, report);
    report.start("asking");
    let (tree, wait) = (args.tree.as_ref(), args.query.wait);
    let look = || {
        survey::ask(
            &network,
            config,
            |links| drive::survey::status(links, tree, wait),
            |socket| {
                let answers = query_survey(socket, None, wait)?;
                Ok(answers.map(|hosts| drive::survey::standings(tree, &hosts)))
            },
        )
    };

    if args.watch.watch {
        let last = survey::follow(look, report)?;
        report.looked(&last);
        return Ok(standings_status(&last.found).code());
    }

    let standings = with_tree(args, survey::answered(look()?, report)?, report)?;
    report.status(&standings);
    Ok(standings_status(&standings.found).code())
}

/// The survey, or an error if the hosts that answered have no such tree.
fn with_tree(
    args: &StatusArgs,
    standings: Survey<Vec<Standing>>,
    report: &mut Report,
) -> Result<Survey<Vec<Standing>>> {
    if !standings.found.is_empty() {
        return Ok(standings);
    }

    report.strangers(&standings.strangers);
    Err(match &args.tree {
        Some(tree) => no_host_has(tree),
        None => Error::refused("no host that answers has a tree")
            .hint("hosts get one by a [[tree]] in their configuration; see `makuo members`"),
    })
}
