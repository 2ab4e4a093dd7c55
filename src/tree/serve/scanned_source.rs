//! A scanned tree as the source of a release: its manifest, and its blocks by ordinal.
//!
//! The manifest's nodes are those of the index; blocks stay in their files, and are read and
//! verified on demand.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::ordinals::OrdinalReader;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{NodeRef, Top, TreePath};
use crate::tree::fs::errors::is_gone;
use crate::tree::fs::root::Root;
use crate::tree::index::Index;
use crate::tree::scan::Scanned;
use crate::{Error, Kind, Result};

/// Reason why a block cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file changed since the scan: gone, replaced or written.
    #[error("{0} has changed since it was scanned")]
    Changed(TreePath),
    /// The file, or the spool of nodes, cannot be read.
    #[error("cannot read {0}: {1}")]
    Io(String, io::Error),
    /// Neither the live tree nor the kept content of older releases has the block.
    #[error("a part of {0} is not here any more: it is neither in the tree nor kept")]
    NotKept(TreePath),
    /// This machine has no data of the release at all.
    #[error("this machine has no data of the release")]
    NoData,
    /// The release has no such block, or the spool is damaged.
    #[error(transparent)]
    Manifest(#[from] ReadError),
}

/// Nodes and blocks of a release for a sender, by ordinal.
pub trait Blocks {
    /// Appends the bytes of the block `ordinal` to `out`; leaves `out` unchanged on error.
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError>;
}

impl Blocks for ScannedSource {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        ScannedSource::read(self, ordinal, out)
    }
}

/// A source without any data.
#[derive(Debug)]
pub struct Nothing;

impl Blocks for Nothing {
    fn read(&mut self, _: Ordinal, _: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        Err(SourceError::NoData)
    }
}

/// Manifest and blocks of a scanned tree.
#[derive(Debug)]
pub struct ScannedSource {
    root: Arc<Root>,
    ordinals: OrdinalReader<Arc<Index>>,
    /// Holds the nodes of the manifest.
    index: Arc<Index>,
    /// Root directory of the tree.
    directory: Top,
    /// Files whose inode is unchanged since this time are as scanned.
    settled: Option<SystemTime>,
}

/// Largest lag of a filesystem clock behind the system's: it ticks some hundred times a second.
const CLOCK_TICK: Duration = Duration::from_millis(20);

impl ScannedSource {
    /// Creates the source for a scan of `root`.
    pub fn new(root: Arc<Root>, scanned: &Scanned) -> Result<Self> {
        let index = Arc::clone(&scanned.index);
        let ordinals = OrdinalReader::new(index.root(), Arc::clone(&index))
            .map_err(|e| Error::new(Kind::Io, "the manifest is broken").because(e))?;
        Ok(Self {
            root,
            ordinals,
            index,
            directory: scanned.top.clone(),
            settled: None,
        })
    }

    /// Root of the manifest, which is signed.
    pub fn top(&self) -> NodeRef {
        *self.ordinals.manifest.root()
    }

    /// Root directory of the tree, as in the header.
    pub fn directory(&self) -> &Top {
        &self.directory
    }

    /// The manifest, for readers of entries.
    pub fn manifest(&self) -> &Manifest<Arc<Index>> {
        &self.ordinals.manifest
    }

    /// Hash and size of the block `ordinal`.
    pub fn block(&mut self, ordinal: Ordinal) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.ordinals.node_ref(ordinal) {
            return Ok(node);
        }
        let at = self.ordinals.run(ordinal)?;
        let run = &self.ordinals.runs[at];
        Ok(run.blocks[run.index_of(ordinal)])
    }

    /// Size in bytes of the block `ordinal`.
    pub fn size_of(&mut self, ordinal: Ordinal) -> Result<u32, SourceError> {
        self.block(ordinal).map(|b| b.size)
    }

    /// Trusts files whose inode is unchanged since the scan began at `scanned`: their bytes are not
    /// hashed again. Every host does so anyway.
    pub fn trust_unchanged(&mut self, scanned: SystemTime) {
        self.settled = scanned.checked_sub(CLOCK_TICK);
    }

    /// Appends the bytes of the block `ordinal` to `out`, verified if the file may have changed;
    /// leaves `out` unchanged on error.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.ordinals.node_ref(ordinal) {
            let bytes = self.index.node(&node.hash)?;
            out.extend_from_slice(&bytes);
            return Ok(node);
        }

        let at = self.ordinals.run(ordinal)?;
        let index = self.ordinals.runs[at].index_of(ordinal);
        let file = self.open(at)?;
        let run = &self.ordinals.runs[at];
        let block = run.blocks[index];
        let offset = run.offsets[index];
        let before = out.len();
        out.resize(before + block.size as usize, 0);

        let bytes = &mut out[before..];
        let failed = match file.read_exact_at(bytes, offset) {
            Ok(()) if is_settled(&file, self.settled) || block.matches(bytes) => return Ok(block),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => {
                SourceError::Io(run.path.to_string(), e)
            }
            _ => SourceError::Changed(run.path.clone()),
        };

        out.truncate(before);
        Err(failed)
    }

    /// Opens the file of a run at the first read.
    fn open(&mut self, at: usize) -> Result<Arc<File>, SourceError> {
        let run = &mut self.ordinals.runs[at];
        if let Some(file) = &run.file {
            return Ok(Arc::clone(file));
        }

        let file = self.root.open_file(&run.path).map_err(|e| {
            if is_gone(&e) || e.kind() == io::ErrorKind::InvalidInput {
                SourceError::Changed(run.path.clone())
            } else {
                SourceError::Io(run.path.to_string(), e)
            }
        })?;

        let file = Arc::new(file);
        run.file = Some(Arc::clone(&file));
        Ok(file)
    }
}

/// Returns whether the inode of `file` is unchanged since `since`: every write, rename and link
/// changes its ctime.
fn is_settled(file: &File, since: Option<SystemTime>) -> bool {
    let Some(since) = since.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()) else {
        return false;
    };
    let limit = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
    rustix::fs::fstat(file).is_ok_and(|stat| (stat.st_ctime, stat.st_ctime_nsec as i64) < limit)
}

impl NodeSource for ScannedSource {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.index.node(hash)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::manifest::entry::NO_ID;
    use crate::manifest::{EntryKind, Mode, Mtime, Owner};
    use crate::tree::scan::{OwnerMapping, Policy, ScanOptions, scan};

    struct Fixture {
        dir: tempfile::TempDir,
        root: Arc<Root>,
    }

    impl Fixture {
        fn new(files: &[(&str, Vec<u8>)]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let top = dir.path().join("tree");
            for (path, bytes) in files {
                std::fs::create_dir_all(top.join(path).parent().unwrap()).unwrap();
                std::fs::write(top.join(path), bytes).unwrap();
            }

            let root = Arc::new(Root::open(top).unwrap());
            Self { dir, root }
        }

        fn source(&self, policy: &Policy) -> ScannedSource {
            let mut options =
                ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
            options.entries.policy = policy.clone();
            let scanned = scan(&self.root, &options, None, &self.dir.path().join("index")).unwrap();
            ScannedSource::new(Arc::clone(&self.root), &scanned).unwrap()
        }
    }

    fn noise(words: usize, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| rng.u64(..))
            .take(words)
            .flat_map(u64::to_le_bytes)
            .collect()
    }

    /// Reads every ordinal of the release, in order or backwards: whole, verified and of the
    /// promised size.
    fn read_all(source: &mut ScannedSource, backwards: bool) -> HashMap<u64, Vec<u8>> {
        let top = source.top();
        let all = 0..top.nodes + top.blocks;
        let order: Vec<u64> = if backwards {
            all.rev().collect()
        } else {
            all.collect()
        };

        let mut out = Vec::new();
        let mut found = HashMap::new();
        for n in order {
            let size = source.size_of(Ordinal(n)).unwrap();
            out.clear();
            let block = source.read(Ordinal(n), &mut out).unwrap();
            assert!(
                block.matches(&out) && size as usize == out.len(),
                "ordinal {n}"
            );
            found.insert(n, out.clone());
        }

        found
    }

    #[test]
    fn every_ordinal_is_read_as_it_is_in_the_tree() {
        let large = noise(3 << 20, 1);
        let mut files = vec![
            ("a/empty", Vec::new()),
            ("big", large.clone()),
            ("z", b"last".to_vec()),
        ];

        let many: Vec<String> = (0..300).map(|i| format!("many/{i}")).collect();
        files.extend(many.iter().map(|p| (p.as_str(), p.as_bytes().to_vec())));
        let f = Fixture::new(&files);
        let mut source = f.source(&Policy::default());
        let found = read_all(&mut source, false);
        assert_eq!(found, read_all(&mut source, true));
        let top = source.top();

        assert!(top.nodes > 2, "the large file has lists");
        for n in 0..top.nodes {
            assert_eq!(
                source.block(Ordinal(n)).unwrap(),
                source.manifest().node_at(Ordinal(n)).unwrap()
            );
        }

        let mut seen = 0;
        for located in source.manifest().entries() {
            let crate::manifest::read::Located { entry, first } = located.unwrap();
            let EntryKind::File(content) = &entry.kind else {
                continue;
            };
            let blocks = (first.0..first.0 + content.block_count()).map(|n| found[&n].as_slice());
            let bytes = blocks.collect::<Vec<_>>().concat();
            assert!(
                bytes == std::fs::read(f.root.shown(&entry.path)).unwrap(),
                "{}",
                entry.path
            );
            seen += 1;
        }

        assert_eq!(seen, files.len());
        assert!(
            source
                .read(Ordinal(top.nodes + top.blocks), &mut Vec::new())
                .is_err()
        );
    }

    #[test]
    fn a_file_that_changed_since_the_scan_is_named_and_never_sent() {
        for change in 0..4 {
            let f = Fixture::new(&[("d/file", b"as it was".to_vec())]);
            let mut source = f.source(&Policy::default());
            let at = f.root.path().join("d/file");
            match change {
                0 => std::fs::write(&at, b"as it is!").unwrap(),
                1 => std::fs::write(&at, b"short").unwrap(),
                2 => std::fs::remove_file(&at).unwrap(),
                _ => {
                    std::fs::rename(&at, at.with_file_name("moved")).unwrap();
                    std::os::unix::fs::symlink("moved", &at).unwrap();
                }
            }
            let mut out = b"what was sent before".to_vec();
            let first = Ordinal(source.top().nodes);
            let refused = source.read(first, &mut out);
            let named =
                matches!(&refused, Err(SourceError::Changed(p)) if p.as_bytes() == b"d/file");
            assert!(
                named && out == b"what was sent before",
                "{change}: {refused:?}"
            );
        }
    }

    #[test]
    fn equal_trees_have_equal_roots_whatever_the_policy_leaves_out() {
        let policy = Policy {
            user: OwnerMapping::Fixed("no-such-user-here".into()),
            group: OwnerMapping::Ignore,
            file_mode: Some(Mode::from_bits(0o644)),
            dir_mode: Some(Mode::from_bits(0o755)),
            without_mtime: true,
        };

        let make = || Fixture::new(&[("d/file", b"text".to_vec())]).source(&policy);
        let one = make();
        let two = make();
        assert_eq!(one.top(), two.top());
        let entries: Vec<_> = one.manifest().entries().map(|l| l.unwrap().entry).collect();
        assert_eq!(
            entries.iter().map(|e| e.mode.bits()).collect::<Vec<_>>(),
            [0o755, 0o644]
        );

        assert_eq!(one.directory(), two.directory());
        assert_eq!(
            (one.directory().mode.bits(), one.directory().mtime),
            (0o755, Mtime::default())
        );
        let expected = Owner {
            uid: NO_ID,
            gid: NO_ID,
            user: Some("no-such-user-here".into()),
            group: None,
        };

        assert!(entries.iter().all(|e| *e.owner == expected));
        assert_eq!(one.directory().owner, expected);
    }

    #[test]
    fn an_empty_tree_has_a_manifest() {
        let f = Fixture::new(&[("x", Vec::new())]);
        std::fs::remove_file(f.root.path().join("x")).unwrap();
        let mut source = f.source(&Policy::default());
        assert_eq!(
            (
                source.top().nodes,
                source.top().blocks,
                source.top().entries
            ),
            (1, 0, 0)
        );

        assert_eq!(read_all(&mut source, false).len(), 1);
    }

    #[test]
    fn a_file_that_changed_after_the_scan_is_not_trusted() {
        let fixture = Fixture::new(&[("file", noise(100, 1)), ("other", noise(100, 2))]);
        let mut source = fixture.source(&Policy::default());
        let nodes = source.top().nodes;

        // As if the scan began long after the last write, with one file changed since.
        source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        let mut out = Vec::new();
        source.read(Ordinal(nodes), &mut out).unwrap();
        std::fs::write(fixture.root.path().join("other"), noise(100, 3)).unwrap();
        source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert!(matches!(
            source.read(Ordinal(nodes + 1), &mut out),
            Err(SourceError::Changed(_))
        ));

        assert_eq!(out, noise(100, 1));
    }
}
