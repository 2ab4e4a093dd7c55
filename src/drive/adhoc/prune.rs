//! Deletes extra paths on the hosts and changes nothing else.

use super::plan::PlannedRequest;
use crate::Result;
use crate::drive::deploy::{DeployOptions, Interrupt};
use crate::manifest::TreePath;
use crate::manifest::header::MAX_PATTERNS;
use crate::outcome::{DriftGroup, DriftKind, HostState, Observer, Outcome, Purpose};
use crate::units::ByteSize;

/// Largest number of bytes of the paths in one scope.
const MAX_SCOPE: usize = 32 << 10;

/// Deletes extra paths and changes nothing else.
///
/// A dry run finds the extra paths, which become the scope of an empty release. Hosts with the
/// same extra paths share a session.
pub(super) fn run(
    work: &PlannedRequest<'_>,
    interrupt: &Interrupt,
    observer: &mut dyn Observer,
) -> Result<Outcome> {
    let mut found = work.session(
        work.options(Purpose::DryRun, &work.named.paths)?,
        interrupt,
        observer,
    )?;

    for group in &mut found.drift {
        group.lines.retain(|line| line.what == DriftKind::Extra);
        (group.changed, group.missing) = (0, 0);
    }

    found.drift.retain(|group| !group.is_empty());
    work.check_missing(&found)?;
    if work.request.dry_run || found.exit.code() != 0 {
        return Ok(found);
    }

    // A host without extra paths is as requested.
    for host in &mut found.hosts {
        host.state = if host.state == HostState::Diffed {
            HostState::Unchanged
        } else {
            host.state
        };
    }

    found.purpose = Purpose::Deploy;
    for group in found.drift.clone() {
        for scope in scopes(&group) {
            let done = work.session(pruning(work, &group, &scope)?, interrupt, observer)?;
            add(&mut found, done);
        }
    }

    let error = found.error.take();
    let mut found = found.settle();
    found.error = error;

    Ok(found)
}

fn pruning(
    work: &PlannedRequest<'_>,
    group: &DriftGroup,
    scope: &[TreePath],
) -> Result<DeployOptions> {
    let mut options = work.options(Purpose::Deploy, scope)?;
    if group.hosts.len() <= MAX_PATTERNS {
        options.spec.targets.hosts = group
            .hosts
            .iter()
            .map(|host| host.name.to_string())
            .collect();
        options.only = Vec::new();
    }

    options.part.listed = false;
    options.lists = false;
    Ok(options)
}

/// Adds the result of a later session to its hosts.
fn add(found: &mut Outcome, done: Outcome) {
    for host in done.hosts {
        match found
            .hosts
            .iter_mut()
            .find(|known| known.named() == host.named())
        {
            // A failure is not overwritten.
            Some(known) if known.state.is_trouble() => {}
            Some(known) => {
                let deleted = known.files_deleted;
                let written = known.files_written;
                *known = host;
                known.files_deleted += deleted;
                known.files_written += written;
            }
            None => found.hosts.push(host),
        }
    }

    found.serial = done.serial.or(found.serial);
    found.bytes_sent = ByteSize(found.bytes_sent.0.saturating_add(done.bytes_sent.0));
    found.took += done.took;

    found.error = found.error.take().or(done.error);
}

/// The topmost extra paths, in lists short enough for a header.
fn scopes(group: &DriftGroup) -> Vec<Vec<TreePath>> {
    let mut scopes: Vec<Vec<TreePath>> = Vec::new();
    let (mut bytes, mut last): (usize, Option<TreePath>) = (0, None);
    for line in &group.lines {
        let Ok(path) = TreePath::new(line.path.as_slice()) else {
            continue;
        };
        if last.as_ref().is_some_and(|last| path.is_within(last)) {
            continue;
        }
        bytes += path.as_bytes().len() + 8;
        match scopes.last_mut() {
            Some(scope) if scope.len() < MAX_PATTERNS && bytes <= MAX_SCOPE => {
                scope.push(path.clone())
            }
            _ => {
                bytes = path.as_bytes().len() + 8;
                scopes.push(vec![path.clone()]);
            }
        }
        last = Some(path);
    }

    scopes
}
