//! `makuo deploy`: from its arguments to a session, or to the first batch of a commit with pauses.

use std::path::Path;

use super::args::DeployArgs;
use super::{deploy, promote, store};
use crate::drive::deploy::source::Unmounted;
use crate::outcome::Purpose;
use crate::report::Report;
use crate::{Error, Result};

pub(super) fn run(args: &DeployArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    let purpose = match (args.preview.dry_run, args.stage) {
        (true, _) => Purpose::DryRun,
        (false, true) => Purpose::Stage,
        (false, false) => Purpose::Deploy,
    };

    let mut options = deploy::resolve(&args.session, purpose, config)?;
    options.recheck = args.recheck;
    options.message.clone_from(&args.about.message);
    options.wait = args.wait.unwrap_or_default();
    options.cosigners.clone_from(&args.cosign.keys);
    options.lists = report.lists_paths();
    // The header carries it, so it is signed with the release.
    options.spec.delete.max = args.allow_deletes.unwrap_or(options.spec.delete.max);
    if args.yes_unmounted {
        options.unmounted = Unmounted::Accept;
    }

    let is_paused = options.spec.commit.pause && purpose == Purpose::Deploy;
    match &args.to {
        None if is_paused => promote::deploy(&mut options, report),
        None => deploy::session(&options, report),
        Some(_) if is_paused => Err(Error::usage(
            "commit.pause: a release with batches to come cannot be published yet",
        )
        .hint("deploy it without --to; hosts of a repository take a release all at once")),
        Some(to) => {
            let store = store::options(args.ca_file.as_deref());
            deploy::session_to(&options, to, &store, report)
        }
    }
}
