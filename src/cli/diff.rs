//! `makuo diff`: a deploy that ends after the comparison; or the differences of two releases.

use std::ffi::OsStr;
use std::path::Path;

use serde::Serialize;

use super::args::DiffArgs;
use super::deploy;
use super::kept::KeptPlace;
use super::release_ref::ReleaseRef;
use crate::drive::kept::changes;
use crate::outcome::{DriftGroup, ExitStatus, Purpose};
use crate::report::Report;
use crate::{Error, Result};

/// Counts of a comparison of two releases, for scripts.
#[derive(Serialize)]
struct DiffFields {
    tree: String,
    from: u64,
    to: u64,
    changed: u64,
    new: u64,
    deleted: u64,
}

pub(super) fn run(args: &DiffArgs, config: Option<&Path>, report: &mut Report) -> Result<u8> {
    match &args.other {
        Some(other) => releases(args, other, config, report),
        None => {
            let options = deploy::resolve(&args.session, Purpose::Diff, config)?;
            deploy::session(&options, report)
        }
    }
}

/// Lists what the release `other` changes.
fn releases(
    args: &DiffArgs,
    other: &OsStr,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<u8> {
    let from = ReleaseRef::parse(args.session.spec.as_os_str())?;
    let to = ReleaseRef::parse(other)?;
    if from.tree != to.tree || from.path.is_some() || to.path.is_some() {
        return Err(Error::usage(format!("{from} and {to} cannot be compared"))
            .hint("name two releases of one tree, as in `makuo diff www@16 www@17`"));
    }

    report.start(&format!("comparing {from} with {to}"));
    let place = KeptPlace::resolve(&args.kept, config)?;
    let (old, new) = (
        place.open_content(&from, report)?,
        place.open_content(&to, report)?,
    );
    let lines = changes(&old, &new)?;
    let group = DriftGroup::new(Vec::new(), lines);
    let (old, new) = (old.release(), new.release());
    let text = format!("{old} to {new}: {}", counts(&group));

    report.lead(&text);
    group.lines.iter().for_each(|line| report.change(line));
    let fields = DiffFields {
        tree: from.tree.to_string(),
        from: old.header().serial.0,
        to: new.header().serial.0,
        changed: group.changed,
        new: group.missing,
        deleted: group.extra,
    };
    let exit = match group.is_empty() {
        true => ExitStatus::Success,
        false => ExitStatus::Drift,
    };
    report.checked("", &fields, exit.code());
    Ok(exit.code())
}

/// "3 changed, 1 new, 2 deleted"
fn counts(group: &DriftGroup) -> String {
    let parts = [
        (group.changed, "changed"),
        (group.missing, "new"),
        (group.extra, "deleted"),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{} {word}", count))
        .collect();
    match said.is_empty() {
        true => "no difference".to_string(),
        false => said.join(", "),
    }
}
