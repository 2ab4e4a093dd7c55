//! Parses the tables `[[tree]]` into [`TreeConfig`]s.

use std::ops::Range;

use super::fields::{absolute, small};
use super::*;
use crate::spec::document::{Document, Field, Section};
use crate::units::{parse_duration, printable_path};

/// Largest number of trees on a host.
const MAX_TREES: usize = 1000;
/// Largest number of releases to keep.
const MAX_KEEP: i64 = 10_000;
/// Largest number of signatures that a host may require; a release has no more.
const MAX_REQUIRED_SIGNATURES: i64 = 4;
/// Shortest interval between two checks for drift.
const MIN_REPAIR: Duration = Duration::from_secs(1);
/// Largest number of windows of a tree.
const MAX_WINDOWS: usize = 64;

/// Trees with their positions in the file.
pub(super) type PlacedTrees = Vec<(TreeConfig, Range<usize>)>;

pub(super) fn trees(document: &Document, top: &mut Section) -> Result<PlacedTrees> {
    let Some(field) = top.take("tree") else {
        return Ok(Vec::new());
    };

    if !field.is_tables() {
        return Err(
            field.wrong("write each tree as a table of its own: [[tree]], then name and path")
        );
    }

    let too_many = field.wrong(format!("more than {MAX_TREES} trees"));
    let mut trees: PlacedTrees = Vec::new();
    for item in field.list("a list of tables")? {
        if trees.len() == MAX_TREES {
            return Err(too_many);
        }
        let span = item.span();
        let tree = read_tree(item.section()?)?;
        if let Some(clash) = trees.iter().find_map(|(other, _)| clash(other, &tree)) {
            return Err(document.wrong(span, &clash));
        }
        trees.push((tree, span));
    }

    Ok(trees)
}

/// Reason why two trees cannot be on one host.
fn clash(old: &TreeConfig, new: &TreeConfig) -> Option<String> {
    let name = &new.name;
    let path = printable_path(&new.path);
    let old_path = printable_path(&old.path);

    if old.name == *name {
        Some(format!("there are two trees {name}"))
    } else if old.path == new.path {
        Some(format!(
            "the trees {} and {name} are the same directory {path}",
            old.name
        ))
    } else if new.path.starts_with(&old.path) {
        Some(format!(
            "the tree {name} ({path}) is inside the tree {} ({})",
            old.name, old_path
        ))
    } else if old.path.starts_with(&new.path) {
        Some(format!(
            "the tree {} ({}) is inside the tree {name} ({path})",
            old.name, old_path
        ))
    } else {
        None
    }
}

fn read_tree(mut section: Section) -> Result<TreeConfig> {
    let name = section.take("name").map(|f| f.parse()).transpose()?;
    let path = section
        .take("path")
        .map(|f| read_tree_path(&f))
        .transpose()?;
    let patterns = section
        .take("protect")
        .map(crate::spec::patterns)
        .transpose()?
        .unwrap_or_default();

    let protect = PathFilter::at_top(&patterns);
    let max_delete = section
        .take("max_delete")
        .map(|f| f.parse_number_or_text())
        .transpose()?;
    let keep = small(
        &mut section,
        "keep",
        0..=MAX_KEEP,
        "a number of releases from 0 to 10000",
    )?;

    let require_signatures = section
        .take("require_signatures")
        .map_or(Ok(1), |f| read_signatures(&f))?;
    let max_age = section.take("max_age").map(|f| read_age(&f)).transpose()?;
    let repair = section
        .take("repair")
        .map(|f| read_interval(&f))
        .transpose()?;
    let hooks = super::hooks::hooks(&mut section)?;
    let flag = |section: &mut Section, key: &str, usual: bool| {
        section.take(key).map_or(Ok(usual), |f| f.bool())
    };

    let catch_up = section
        .take("catch_up")
        .map_or(Ok(CatchUp::default()), |f| read_catch_up(&f))?;
    let repository = read_repository(&mut section, name.as_ref(), catch_up)?;
    let swap = section.take("swap").map(|f| f.bool()).transpose()?;
    let devices = flag(&mut section, "devices", false)?;
    let follow_links = flag(&mut section, "follow_links", false)?;
    let window = section.take("window").map(read_window).transpose()?;
    let missing = |key: &str| {
        section
            .wrong(&format!("a [[tree]] without `{key}`"))
            .hint("a tree needs name and path")
    };

    let no_name = missing("name");
    let no_path = missing("path");
    section.finish()?;
    Ok(TreeConfig {
        name: name.ok_or(no_name)?,
        path: path.ok_or(no_path)?,
        protect,
        protect_patterns: patterns,
        max_delete,
        keep: keep.unwrap_or(DEFAULT_KEEP),
        max_age,
        require_signatures,
        catch_up,
        repair,
        repository,
        hooks,
        swap,
        devices,
        follow_links,
        window,
    })
}

fn read_signatures(field: &Field) -> Result<u8> {
    let wanted = format!("a number of signatures from 1 to {MAX_REQUIRED_SIGNATURES}");
    let number = field.number(1..=MAX_REQUIRED_SIGNATURES, &wanted)?;
    Ok(u8::try_from(number).unwrap_or(u8::MAX))
}

/// One window or a list.
fn read_window(field: Field) -> Result<CommitWindow> {
    if field.is_text() {
        return CommitWindow::of([field.text()?]).map_err(|why| field.wrong(why));
    }

    let empty = field.wrong("name a time, or leave it out");
    let many = field.wrong("too many windows");
    let list = field.list("a window, as \"Mon-Fri 02:00-04:00\", or a list of them")?;
    if list.is_empty() {
        return Err(empty);
    }
    if list.len() > MAX_WINDOWS {
        return Err(many);
    }

    // One by one first, so that an error names its place.
    let mut texts = Vec::new();
    for item in &list {
        let text = item.text()?;
        CommitWindow::of([text]).map_err(|why| item.wrong(why))?;
        texts.push(text);
    }
    CommitWindow::of(texts).map_err(|_| many)
}

/// Repository of a tree. The daemon, which knows the stores, checks the URL.
fn read_repository(
    section: &mut Section,
    tree: Option<&TreeName>,
    catch_up: CatchUp,
) -> Result<Option<TreeRepository>> {
    let poll = section.take("poll");
    let ca_file = section.take("repository_ca");
    let interval = poll.as_ref().map(read_interval).transpose()?;
    let Some(field) = section.take("repository") else {
        let unused = |field: Field| field.wrong("it belongs to a repository, and there is none");
        return poll
            .or(ca_file)
            .map_or(Ok(None), |field| Err(unused(field)));
    };

    let url = field.text()?.to_string();
    if catch_up == CatchUp::Off {
        return Err(field.wrong("a tree takes releases only without catch_up = false"));
    }
    let tree = tree.map_or("", TreeName::as_str);
    Ok(Some(TreeRepository {
        url,
        ca_file: ca_file.as_ref().map(absolute).transpose()?,
        place: field.wrong(format_args!("tree {tree}")).to_string(),
        poll: interval.unwrap_or(DEFAULT_POLL),
    }))
}

fn read_catch_up(field: &Field) -> Result<CatchUp> {
    match field.is_text() {
        true if field.text()? == "anyone" => Ok(CatchUp::Anyone),
        true => Err(field.wrong("write true, false or \"anyone\"")),
        false => Ok(if field.bool()? {
            CatchUp::Group
        } else {
            CatchUp::Off
        }),
    }
}

/// Interval of checks, long enough not to dominate the host's work.
fn read_interval(field: &Field) -> Result<Duration> {
    let interval = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if interval < MIN_REPAIR {
        return Err(field.wrong("write at least \"1s\", or leave it out"));
    }
    Ok(interval)
}

/// Age in whole seconds, the resolution of a release's creation time.
fn read_age(field: &Field) -> Result<Duration> {
    let age = parse_duration(field.text()?).map_err(|e| field.wrong(e))?;
    if age < Duration::from_secs(1) {
        return Err(field.wrong("every release is older than that; write an age such as \"30d\""));
    }
    Ok(Duration::from_secs(age.as_secs()))
}

fn read_tree_path(field: &Field) -> Result<PathBuf> {
    let path = absolute(field)?;
    if path.parent().is_none() {
        return Err(field.wrong("the whole filesystem cannot be a tree; write a directory below /"));
    }
    Ok(path)
}
