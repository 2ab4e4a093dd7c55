//! Commits a staged release: the journal, then its steps, in place, by renames.
//!
//! Order: directories are created, items get their names, extras leave (deepest first),
//! replacements of directories follow, then metadata, directories, the tree's root last. A file and
//! its successor are exchanged by one rename, so a reader finds the old or the new file, always
//! whole. A step that fails leads to an undo of everything.

use std::fmt;
use std::os::fd::AsFd;

use rustix::fs::renameat;

use super::aside::ASIDE;
use super::executor::{Runner, Try};
use super::journal::Journal;
use super::next_tree::NextTree;
use super::written_index::is_worth;
use super::{steps, swap};
use crate::diff::{Change, Plan, Shape};
use crate::error::{Error, IoResultExt as _, Result};
use crate::manifest::Release;
use crate::packed::Packed;
use crate::sync::locked;
use crate::tree::prepare::items::StagedItem;
use crate::tree::state::reader::{CommitMark, FORWARD, MAX_KEPT_SIGNATURE, Mark, kept_journal};
use crate::tree::state::worktree::Worktree;
use crate::units::ByteSize;

/// Work of a commit, in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitReport {
    /// New files, links, pipes and devices.
    pub files_written: u64,
    /// New directories.
    pub directories_made: u64,
    /// Paths with new metadata only.
    pub metadata_changed: u64,
    /// Deleted paths.
    pub deleted: u64,
    /// Bytes of the new files.
    pub bytes_written: u64,
}

impl CommitReport {
    /// Numbers for a commit of `plan`.
    pub(crate) fn of(plan: &Plan) -> Self {
        let mut directories = 0;
        let mut files = 0;
        for change in plan.changes.iter().filter(Change::makes_anew) {
            match change.shape() {
                Shape::Directory => directories += 1,
                _ => files += 1,
            }
        }

        Self {
            files_written: files,
            directories_made: directories,
            metadata_changed: plan.summary.metadata,
            deleted: plan.summary.deleted,
            bytes_written: plan.summary.write_bytes,
        }
    }
}

impl fmt::Display for CommitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "files written {} ({}), directories made {}, metadata changed {}, paths deleted {}",
            self.files_written,
            ByteSize(self.bytes_written),
            self.directories_made,
            self.metadata_changed,
            self.deleted
        )
    }
}

/// A complete and durable release beside the tree.
pub(crate) struct StagedRelease<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) items: &'a [StagedItem],
    /// First free slot number.
    pub(crate) next_slot: u64,
    /// Next tree, in the layout `swap`.
    pub(crate) next: Option<NextTree>,
}

/// Writes the journal of a commit. From then on a crash does not stop the commit: [`complete`]
/// finishes it.
pub(crate) fn begin(
    tree: &Worktree,
    mut staged: StagedRelease<'_>,
    release: &Release,
    signature: &[u8],
) -> Result<Journal> {
    let mark = Mark::of(release);
    if signature.len() > MAX_KEPT_SIGNATURE {
        return Err(Error::refused(format!(
            "a signature of {} bytes",
            signature.len()
        )));
    }

    let (steps, dirs, exchange) = match &mut staged.next {
        None => {
            locked(&tree.chains).begin(is_worth(staged.plan));
            let (steps, dirs) = steps::build(tree, staged.plan, staged.items, staged.next_slot)?;
            (steps, dirs, None)
        }
        Some(next) => {
            if next.refresh(tree, staged.plan)? {
                rustix::fs::syncfs(tree.state.handle())
                    .context("cannot sync", tree.state.path())?;
            }
            (
                Packed::default(),
                next.dirs.clone(),
                Some(next.journaled(tree)?),
            )
        }
    };

    let previous = tree.state.last_commit()?;
    let commit = CommitMark {
        release: mark,
        number: previous.map_or(0, |p| p.number) + 1,
    };

    let header = release.bytes().to_vec();
    let signature = signature.to_vec();
    let journal = Journal {
        commit,
        previous,
        steps,
        dirs,
        header,
        signature,
        swap: exchange,
    };

    tree.crash.point()?;
    tree.state.accept(release)?;
    tree.crash.point()?;
    tree.nodes().sync()?;
    tree.crash.point()?;
    let undo = tree.state.fresh_undo(mark.serial)?;

    if let Some(next) = &staged.next {
        tree.crash.point()?;
        next.names
            .append(undo.as_fd())
            .context("cannot note names in", tree.state.path())?;
        tree.crash.point()?;
        let moved = renameat(tree.state.handle(), c"next", &undo, ASIDE)
            .and_then(|()| rustix::fs::fsync(&undo))
            .and_then(|()| rustix::fs::fsync(tree.state.handle()));
        moved.map_err(|e| Error::io("cannot move", tree.state.next_path(), e))?;
    }

    tree.crash.point()?;
    if let Err(e) = journal.write(&tree.state) {
        // A partial journal may exist, and a failed commit must not be continued.
        tree.state.remove(FORWARD)?;
        return Err(e);
    }

    Ok(journal)
}

/// Completes a journaled commit from any point. An error leaves the journal in place.
pub(crate) fn complete(tree: &Worktree, journal: &Journal, attempt: Try) -> Result<()> {
    if tree.state.last_commit()? != Some(journal.commit) {
        match &journal.swap {
            Some(exchange) => swap::forward(tree, journal, exchange)?,
            None => take_steps(tree, journal, attempt)?,
        }
        if let Some(twin) = journal.twin() {
            tree.crash.point()?;
            tree.state.set_aside(twin)?;
        }
        tree.crash.point()?;
        tree.state
            .store(journal.serial(), &journal.header, &journal.signature)?;
        tree.crash.point()?;
        tree.state.set_last_commit(Some(journal.commit))?;
    }

    // From here on the tree is the release. The journal is kept with the undo directory.
    tree.crash.point()?;
    tree.state.rename(FORWARD, &kept_journal(journal.serial()))
}

fn take_steps(tree: &Worktree, journal: &Journal, attempt: Try) -> Result<()> {
    let mut runner = Runner::new(tree, journal)?;
    runner.attempt = attempt;
    runner.loosen(journal)?;
    runner.disinherit(journal)?;
    for step in &journal.steps {
        runner.forward(&step)?;
    }

    for dir in journal.dirs.iter().rev() {
        if let Some(new) = &dir.new {
            runner.set_dir(dir.path.as_ref(), new)?;
        }
    }

    runner.sync(journal)
}
