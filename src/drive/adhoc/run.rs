//! Carries out a request: sends the paths in one session, merges many parts, or deletes extras.

use super::plan::PlannedRequest;
use super::request::{AdhocAction, AdhocRequest};
use super::service::AdhocService;
use super::{merge, prune};
use crate::drive::deploy::Interrupt;
use crate::outcome::{Event, ExitStatus, Observer, Outcome, Purpose};
use crate::{Error, Result};

/// Carries out `request`, after other sessions of the same tree.
pub fn run(
    service: &AdhocService,
    request: &AdhocRequest,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    if !service.may_send() && request.action != AdhocAction::Check {
        return Err(Error::usage("this server can't send"));
    }

    let tree = service.tree(request.tree.as_ref(), &request.paths)?;
    let work = PlannedRequest::plan(service, tree, request)?;
    if request.lists && !request.recurse && !work.named.dirs.is_empty() {
        let text = "only the directories themselves are sent: -r includes their content";
        observer.event(&Event::Note(text.to_string()));
    }
    let _turn = service.queue().begin(&tree.name, interrupt)?;

    match request.action {
        AdhocAction::Prune => prune::run(&work, interrupt, observer),
        _ => send(&work, interrupt, observer),
    }
}

fn send(
    work: &PlannedRequest<'_>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let purpose = match (work.request.action, work.request.dry_run) {
        (AdhocAction::Check, _) => Purpose::Diff,
        (_, true) => Purpose::DryRun,
        (_, false) => Purpose::Deploy,
    };

    let outcome = work.session(
        work.options(purpose, &work.named.paths)?,
        interrupt,
        observer,
    )?;

    work.check_missing(&outcome)?;
    if purpose == Purpose::Deploy
        && outcome.exit == ExitStatus::Success
        && work.request.targets.is_empty()
        && !work.is_moved()
    {
        merge::run(work, interrupt);
    }

    Ok(outcome)
}
