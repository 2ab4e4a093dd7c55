//! Record of the files that a commit wrote, for the next scan: the host verified their content and
//! need not read it again.
//!
//! It is an index of these files only, beside the tree's own. The next scan takes contents from
//! both and removes it. A file counts as written by the commit if size and mtime are as set, and if
//! its ctime is from our last operation ([`crate::tree::fs::ctime_chains`]): only the kernel sets a
//! ctime.

use std::io;

use crate::block::BlockHash;
use crate::diff::Plan;
use crate::manifest::build::NodeSink;
use crate::manifest::read::NodeSource;
use crate::manifest::{Content, EntryKind, Mtime};
use crate::sync::locked;
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::stat::{FileStat, Version};
use crate::tree::index::{IndexEntry, IndexWriter, Origin};
use crate::tree::state::worktree::Worktree;

/// Bytes below which reading again is as fast.
const MIN_NOTED_BYTES: u64 = 1 << 20;
/// Seconds, more than the coarsest rounding of times by a filesystem.
const MAX_ROUNDING_SECS: i64 = 3;

impl Worktree {
    /// Records the files that the finished commit of `plan` wrote. Files that cannot be recorded
    /// are read again.
    pub fn note_written(&self, plan: &Plan) {
        if let Err(e) = if is_worth(plan) {
            write(self, plan)
        } else {
            Ok(())
        } {
            tracing::debug!(
                "tree {}: what was written is read again by the next scan: {e}",
                self.name()
            );
        }
    }
}

/// Returns whether the writes of `plan` are worth recording.
pub(crate) fn is_worth(plan: &Plan) -> bool {
    plan.sets_mtime && plan.summary.write_bytes >= MIN_NOTED_BYTES
}

fn write(tree: &Worktree, plan: &Plan) -> io::Result<()> {
    let root = tree.root();
    let chains = locked(&tree.chains);

    // Taken from the clock that stamps the files.
    let now = FileStat::of(tempfile::tempfile_in(tree.state().here())?)?.ctime;
    let mut writer = IndexWriter::create(&tree.written_path(), root.id())?;
    let mut dirs = DirCursor::default();

    for change in plan.changes.iter().filter(|c| c.makes_anew()) {
        let Some(entry) = change.want.as_ref().map(|want| &want.entry) else {
            continue;
        };
        let EntryKind::File(content) = &entry.kind else {
            continue;
        };
        let (dir, name) = dirs.parent(&root, &entry.path)?;
        let Ok(stat) = FileStat::at(dir, &name) else {
            continue;
        };
        // A write in the tick of the commit would have the same time.
        let settled = stat.mtime.secs < now.secs - 1;
        let is_ours = chains.last(stat.id.ino) == Some(stat.ctime);
        if !settled || !is_ours || stat.mtime != entry.mtime || stat.size != content.size() {
            continue;
        }
        if let Content::Lists(lists) = content {
            for list in lists {
                let bytes = tree
                    .nodes()
                    .node(&list.block.hash)
                    .map_err(io::Error::other)?;
                writer.put(list.block, bytes.to_vec())?;
            }
        }
        writer.push(IndexEntry {
            entry: entry.clone(),
            version: stat.version(),
        })?;
    }

    // The mtime is older already, so the ctime needs no second look.
    let started = Mtime {
        secs: now.secs + MAX_ROUNDING_SECS,
        nanos: now.nanos,
    };

    let origin = Origin {
        started,
        options: BlockHash([0; 32]),
        top: Version::NONE,
        owners: Vec::new(),
        patterns: Vec::new(),
        ignore_files: Vec::new(),
        skipped: Vec::new(),
        mounts: Vec::new(),
    };

    writer.finish(origin).map(drop)
}
