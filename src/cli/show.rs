//! `makuo show`: the facts of a release, its entries, or the content of one of its files.

use std::path::Path;

use serde::Serialize;

use super::args::ShowArgs;
use super::kept::{KeptPlace, signing_key};
use super::release_facts::ReleaseFacts;
use super::release_ref::ReleaseRef;
use super::{network, no_host_has, survey};
use crate::drive::kept::KeptContent;
use crate::keys::shown_time;
use crate::manifest::{Entry, EntryKind};
use crate::outcome::ReleaseLog;
use crate::report::{Report, Settings, Verbosity};
use crate::units::{WallTime, printable};
use crate::{Error, Result};

/// An entry for scripts.
#[derive(Serialize)]
struct EntryFields<'a> {
    event: &'static str,
    path: String,
    kind: &'static str,
    mode: String,
    user: String,
    group: String,
    size: u64,
    mtime: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
}

pub(super) fn run(
    args: &ShowArgs,
    config: Option<&Path>,
    settings: Settings,
    report: &mut Report,
) -> Result<u8> {
    let wanted = ReleaseRef::parse(&args.release)?;
    let place = KeptPlace::resolve(&args.kept, config)?;
    if wanted.path.is_some() {
        return print_file(&place, &wanted, settings, report);
    }

    report.start(&format!("looking for {wanted}"));
    let lists = args.paths || settings.verbosity >= Verbosity::Verbose;
    let content = match lists {
        true => Some(place.open_content(&wanted, report)?),
        false => place.open(&wanted)?,
    };
    let facts = match &content {
        Some(content) => ReleaseFacts::of(content, signing_key(&content.stored).ok().as_ref()),
        None => from_fleet(args, &wanted, config, report)?,
    };

    report.lead(&facts.describe());
    if let Some(content) = content.filter(|_| lists) {
        list(&content, report)?;
    }
    report.plain("", &facts);
    Ok(0)
}

/// Writes a file of a release to standard output.
fn print_file(
    place: &KeptPlace,
    wanted: &ReleaseRef,
    settings: Settings,
    report: &mut Report,
) -> Result<u8> {
    if settings.json {
        return Err(
            Error::usage("--json has no place for the content of a file")
                .hint("without --json it goes to standard output as it is"),
        );
    }

    let mut content = place.open_content(wanted, report)?;
    let Some(path) = &wanted.path else {
        return Ok(0);
    };
    match content.write_file(path, &mut std::io::stdout().lock()) {
        // The reader wants no more.
        Err(e) if e.is_os(std::io::ErrorKind::BrokenPipe) => Ok(0),
        written => written.map(|()| 0),
    }
}

/// Lists the entries.
fn list(content: &KeptContent, report: &mut Report) -> Result<()> {
    for entry in content.entries() {
        let entry = entry?;
        let target = match &entry.kind {
            EntryKind::Symlink(target) => Some(printable(target)),
            EntryKind::Hardlink(first) => Some(first.to_string()),
            _ => None,
        };
        let name = |name: Option<&str>, number: u32| {
            name.map_or(number.to_string(), |name| printable(name.as_bytes()))
        };
        let fields = EntryFields {
            event: "entry",
            path: printable(entry.path.as_bytes()),
            kind: kind(&entry),
            mode: format!("{:04o}", entry.mode.bits()),
            user: name(entry.owner.user.as_deref(), entry.owner.uid),
            group: name(entry.owner.group.as_deref(), entry.owner.gid),
            size: entry.kind.size(),
            mtime: entry.mtime.secs,
            target: target.as_deref(),
        };
        report.row(&line(&fields), &fields);
    }

    Ok(())
}

/// "file     0644 root:root        512  2026-11-30 18:00 UTC  css/site.css"
fn line(entry: &EntryFields<'_>) -> String {
    let EntryFields {
        path,
        kind,
        mode,
        user,
        group,
        size,
        ..
    } = entry;
    let time = shown_time(WallTime(entry.mtime));
    let target = entry.target.map_or(String::new(), |to| format!(" -> {to}"));
    let owner = format!("{user}:{group}");
    format!("{kind:<8} {mode} {owner:<16} {size:>10}  {time}  {path}{target}")
}

fn kind(entry: &Entry) -> &'static str {
    match entry.kind {
        EntryKind::Directory => "dir",
        EntryKind::File(_) => "file",
        EntryKind::Symlink(_) => "symlink",
        EntryKind::Hardlink(_) => "hardlink",
        EntryKind::Fifo => "fifo",
        EntryKind::CharDevice(..) => "char",
        EntryKind::BlockDevice(..) => "block",
    }
}

/// Facts of a release by what the hosts tell.
fn from_fleet(
    args: &ShowArgs,
    wanted: &ReleaseRef,
    config: Option<&Path>,
    report: &mut Report,
) -> Result<ReleaseFacts> {
    let network = network::resolve(&args.query.network, config)?;
    network::note_plain(&network, report);
    let tree = &wanted.tree;
    let log = survey::releases(&network, config, tree, args.query.wait)?;
    let log = survey::answered(log, report)?.found;
    if log.hosts.is_empty() && log.silent.is_empty() {
        return Err(no_host_has(tree));
    }

    let serial = wanted.serial.or(log.newest());
    let mut found = log.releases.iter().filter(|r| Some(r.serial) == serial);
    match (found.next(), found.next()) {
        (Some(release), None) => Ok(ReleaseFacts::told(tree, release)),
        (Some(_), Some(_)) => Err(Error::refused(format!(
            "hosts keep different releases as {wanted}: `makuo log {tree}` lists them"
        ))),
        (None, _) => Err(not_kept(wanted, &log)),
    }
}

fn not_kept(wanted: &ReleaseRef, log: &ReleaseLog) -> Error {
    let kept: Vec<String> = log
        .releases
        .iter()
        .map(|release| format!("{}@{}", log.tree, release.serial))
        .collect();
    let hint = match kept.is_empty() {
        true => "the hosts that answer have no release of the tree".to_string(),
        false => format!("hosts keep {}", kept.join(", ")),
    };
    Error::refused(format!("no host that answers keeps {wanted} any more")).hint(hint)
}
