//! A sender's source: a scanned tree as the manifest of a release, and its blocks by ordinal.
//!
//! The manifest's nodes are kept in an unnamed temporary file; the blocks of files stay where they are and are read,
//! and verified, when they are asked for. It must not know who asks, nor what is signed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use nix::unistd::{Group, User};

use super::index::Index;
use super::numbered::Numbered;
use super::root::Root;
use super::scan::Scanned;
use crate::block::{BlockHash, BlockRef};
use crate::id::Ordinal;
use crate::manifest::build::{Builder, NodeSink};
use crate::manifest::read::{Manifest, NodeSource, ReadError};
use crate::manifest::{Content, Entry, EntryKind, Mode, Mtime, NodeRef, Owner, Top, TreePath};
use crate::{Error, Kind, Result};

/// The number of an owner that stands for none: `chown` takes it for "leave as it is".
pub use crate::manifest::entry::NO_ID;

/// What a release says of users or groups.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum OwnerPolicy {
    /// What the source has.
    #[default]
    Preserve,
    /// Nothing: entries carry [`NO_ID`], and the release's rules must say that hosts set none.
    Ignore,
    /// This name for every entry, or this number when it is one and no name. The number beside a name that this
    /// machine does not know is [`NO_ID`].
    Fixed(Box<str>),
}

/// What a release says differently from its source.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Users.
    pub user: OwnerPolicy,
    /// Groups.
    pub group: OwnerPolicy,
    /// Permission bits of all regular files.
    pub file_mode: Option<Mode>,
    /// Permission bits of all directories.
    pub dir_mode: Option<Mode>,
    /// Times of modification are left out: hosts do not set them, and they must not make one release differ from
    /// another.
    pub without_mtime: bool,
}

/// Why a block cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file is not what was scanned: gone, replaced or written to.
    #[error("{0} has changed since it was scanned")]
    Changed(TreePath),
    /// The file, or the spool of nodes, cannot be read.
    #[error("cannot read {0}: {1}")]
    Io(String, io::Error),
    /// Neither the live tree nor what is kept of older releases has it.
    #[error("a part of {0} is not here any more: it is neither in the tree nor kept")]
    NotKept(TreePath),
    /// This machine has no data of the release at all.
    #[error("this machine has no data of the release")]
    NoData,
    /// The release has no such block, or the spool is damaged.
    #[error(transparent)]
    Manifest(#[from] ReadError),
}

/// Where a sender gets the nodes and blocks of a release from, by ordinal.
pub trait Blocks {
    /// Appends the bytes of the block `ordinal` to `out`; after an error it is as it was.
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError>;
}

impl Blocks for Source {
    fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        Source::read(self, ordinal, out)
    }
}

/// The source of one who has nothing of the release.
#[derive(Debug)]
pub struct Nothing;

impl Blocks for Nothing {
    fn read(&mut self, _: Ordinal, _: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        Err(SourceError::NoData)
    }
}

/// The manifest of a scanned tree, and its blocks.
#[derive(Debug)]
pub struct Source {
    root: Arc<Root>,
    numbered: Numbered<Nodes>,
    spool: Nodes,
    /// The tree's own directory.
    directory: Top,
    /// A file whose inode did not change since then is as it was scanned.
    settled: Option<SystemTime>,
}

/// What a filesystem's clock may be behind the system's: it ticks some hundred times a second.
const TICK: Duration = Duration::from_millis(20);

impl Source {
    /// The release of what was scanned under `root`, changed as `policy` says.
    pub fn build(root: Arc<Root>, scanned: &Scanned, policy: &Policy) -> Result<Self> {
        let failed = |e: io::Error| Error::new(Kind::Io, "cannot build the manifest").because(e);
        let mut spool = Spool::new().map_err(failed)?;
        let mut builder = Builder::default();
        let mut rewrite = Rewrite::new(policy)?;
        for found in scanned.index.entries() {
            let entry = found.map_err(failed)?.entry;
            keep_lists(&entry, &scanned.index, &mut spool)?;
            builder.push(rewrite.entry(entry), &mut spool).map_err(failed)?;
        }
        let top = builder.finish(&mut spool).map_err(failed)?;
        let spool = Nodes(Arc::new(spool));
        let numbered =
            Numbered::new(top, spool.clone()).map_err(|e| Error::new(Kind::Io, "the manifest is broken").because(e))?;
        let directory = rewrite.top(&scanned.top);
        Ok(Self { root, numbered, spool, directory, settled: None })
    }

    /// The root of the manifest: what is signed.
    pub fn top(&self) -> NodeRef {
        *self.numbered.manifest.root()
    }

    /// The tree's own directory, changed as the policy says: what the header carries of it.
    pub fn directory(&self) -> &Top {
        &self.directory
    }

    /// The manifest, for whoever reads entries.
    pub fn manifest(&self) -> &Manifest<Nodes> {
        &self.numbered.manifest
    }

    /// The name and size of the block `ordinal`.
    pub fn block(&mut self, ordinal: Ordinal) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.numbered.node_ref(ordinal) {
            return Ok(node);
        }
        let at = self.numbered.run(ordinal)?;
        let run = &self.numbered.runs[at];
        Ok(run.blocks[run.index_of(ordinal)])
    }

    /// The size in bytes of the block `ordinal`.
    pub fn size_of(&mut self, ordinal: Ordinal) -> Result<u32, SourceError> {
        self.block(ordinal).map(|b| b.size)
    }

    /// Trusts files whose inode did not change since the scan began at `scanned`: what is read of them is not hashed
    /// again. Every host does that anyway.
    pub fn trust_unchanged(&mut self, scanned: SystemTime) {
        self.settled = scanned.checked_sub(TICK);
    }

    /// Appends the bytes of the block `ordinal` to `out`, verified where the file may have changed; after an error it is
    /// as it was.
    pub fn read(&mut self, ordinal: Ordinal, out: &mut Vec<u8>) -> Result<BlockRef, SourceError> {
        if let Some(node) = self.numbered.node_ref(ordinal) {
            let bytes = self.spool.node(&node.hash)?;
            out.extend_from_slice(&bytes);
            return Ok(node);
        }
        let at = self.numbered.run(ordinal)?;
        let index = self.numbered.runs[at].index_of(ordinal);
        let file = self.open(at)?;
        let run = &self.numbered.runs[at];
        let (block, offset) = (run.blocks[index], run.offsets[index]);
        let before = out.len();
        out.resize(before + block.size as usize, 0);
        let bytes = &mut out[before..];
        let failed = match file.read_exact_at(bytes, offset) {
            Ok(()) if is_settled(&file, self.settled) || block.matches(bytes) => return Ok(block),
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => SourceError::Io(run.path.to_string(), e),
            _ => SourceError::Changed(run.path.clone()),
        };
        out.truncate(before);
        Err(failed)
    }

    /// The file of a run, opened when it is read for the first time.
    fn open(&mut self, at: usize) -> Result<Arc<File>, SourceError> {
        let run = &mut self.numbered.runs[at];
        if let Some(file) = &run.file {
            return Ok(Arc::clone(file));
        }
        let changed = [rustix::io::Errno::NOENT, rustix::io::Errno::NOTDIR, rustix::io::Errno::LOOP];
        let file = self.root.open_file(&run.path).map_err(|e| {
            let gone = changed.iter().any(|c| e.raw_os_error() == Some(c.raw_os_error()));
            if gone || e.kind() == io::ErrorKind::InvalidInput {
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

/// Whether the inode of `file` is as it was at `since`: every write, rename and link changes its time of change.
fn is_settled(file: &File, since: Option<SystemTime>) -> bool {
    let Some(since) = since.and_then(|t| t.duration_since(SystemTime::UNIX_EPOCH).ok()) else { return false };
    let limit = (since.as_secs() as i64, i64::from(since.subsec_nanos()));
    rustix::fs::fstat(file).is_ok_and(|stat| (stat.st_ctime, stat.st_ctime_nsec as i64) < limit)
}

impl NodeSource for Source {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        self.spool.node(hash)
    }
}

/// Takes the list nodes of a large file from the index.
fn keep_lists(entry: &Entry, index: &Index, spool: &mut Spool) -> Result<()> {
    let EntryKind::File(Content::Lists(lists)) = &entry.kind else { return Ok(()) };
    for list in lists {
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Error::new(Kind::Io, format!("cannot take the blocks of {} from the index", entry.path)).because(e)
        };
        let bytes = index.node(&list.block.hash).map_err(|e| failed(e.into()))?;
        spool.put(list.block, bytes.to_vec()).map_err(|e| failed(e.into()))?;
    }
    Ok(())
}

/// The nodes of one release by name, in an unnamed temporary file.
#[derive(Debug)]
struct Spool {
    file: File,
    end: u64,
    places: HashMap<BlockHash, (u64, u32)>,
}

/// The nodes of one release; copies share them.
#[derive(Debug, Clone)]
pub struct Nodes(Arc<Spool>);

impl Spool {
    fn new() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, end: 0, places: HashMap::new() })
    }
}

impl NodeSink for Spool {
    type Error = io::Error;

    fn put(&mut self, block: BlockRef, bytes: Vec<u8>) -> io::Result<()> {
        if !self.places.contains_key(&block.hash) {
            self.file.write_all_at(&bytes, self.end)?;
            self.places.insert(block.hash, (self.end, block.size));
            self.end += bytes.len() as u64;
        }
        Ok(())
    }
}

impl NodeSource for Nodes {
    fn node(&self, hash: &BlockHash) -> Result<Arc<[u8]>, ReadError> {
        let &(offset, size) = self.0.places.get(hash).ok_or(ReadError::Missing(*hash))?;
        let mut bytes = vec![0; size as usize];
        self.0.file.read_exact_at(&mut bytes, offset).map_err(|e| ReadError::Io(*hash, e))?;
        Ok(bytes.into())
    }
}

/// A policy with its names looked up, and the owners that it made so far.
struct Rewrite<'a> {
    policy: &'a Policy,
    user: Wanted,
    group: Wanted,
    owners: HashMap<Arc<Owner>, Arc<Owner>>,
}

/// A number and name for every entry, or each its own.
type Wanted = Option<(u32, Option<Box<str>>)>;

impl<'a> Rewrite<'a> {
    fn new(policy: &'a Policy) -> Result<Self> {
        let user = wanted("user", &policy.user, |n| Ok(User::from_name(n)?.map(|u| u.uid.as_raw())))?;
        let group = wanted("group", &policy.group, |n| Ok(Group::from_name(n)?.map(|g| g.gid.as_raw())))?;
        Ok(Self { policy, user, group, owners: HashMap::new() })
    }

    fn entry(&mut self, mut entry: Entry) -> Entry {
        entry.owner = self.owner(&entry.owner);
        let mode = match entry.kind {
            EntryKind::File(_) | EntryKind::Hardlink(_) => self.policy.file_mode,
            EntryKind::Directory => self.policy.dir_mode,
            _ => None,
        };
        entry.mode = mode.unwrap_or(entry.mode);
        if self.policy.without_mtime {
            entry.mtime = Mtime::default();
        }
        entry
    }

    fn top(&mut self, had: &Top) -> Top {
        let owner = self.owner(&Arc::new(had.owner.clone()));
        Top {
            mode: self.policy.dir_mode.unwrap_or(had.mode),
            owner: Owner::clone(&owner),
            mtime: if self.policy.without_mtime { Mtime::default() } else { had.mtime },
            xattrs: had.xattrs.clone(),
        }
    }

    fn owner(&mut self, had: &Arc<Owner>) -> Arc<Owner> {
        if let Some(known) = self.owners.get(had) {
            return Arc::clone(known);
        }
        let (uid, user) = self.user.clone().unwrap_or_else(|| (had.uid, had.user.clone()));
        let (gid, group) = self.group.clone().unwrap_or_else(|| (had.gid, had.group.clone()));
        let new = Arc::new(Owner { uid, gid, user, group });
        self.owners.insert(Arc::clone(had), Arc::clone(&new));
        new
    }
}

fn wanted(what: &str, policy: &OwnerPolicy, look_up: impl FnOnce(&str) -> nix::Result<Option<u32>>) -> Result<Wanted> {
    match policy {
        OwnerPolicy::Preserve => Ok(None),
        OwnerPolicy::Ignore => Ok(Some((NO_ID, None))),
        OwnerPolicy::Fixed(name) => {
            let known = look_up(name).map_err(|e| {
                let shown = crate::units::printable(name.as_bytes());
                Error::new(Kind::Io, format!("cannot look up the {what} {shown}")).because(io::Error::from(e))
            })?;
            Ok(Some(match (known, name.parse()) {
                (Some(id), _) => (id, Some(name.clone())),
                (None, Ok(number)) if number != NO_ID => (number, None),
                (None, _) => (NO_ID, Some(name.clone())),
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::scan::{ScanOptions, scan};

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

        fn source(&self, policy: &Policy) -> Source {
            let options = ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
            let scanned = scan(&self.root, &options, None, &self.dir.path().join("index")).unwrap();
            Source::build(Arc::clone(&self.root), &scanned, policy).unwrap()
        }
    }

    fn noise(words: usize, seed: u64) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(seed);
        std::iter::repeat_with(|| rng.u64(..)).take(words).flat_map(u64::to_le_bytes).collect()
    }

    /// Every ordinal of the release, in order or backwards: whole, verified, and of the size that was told.
    fn read_all(source: &mut Source, backwards: bool) -> HashMap<u64, Vec<u8>> {
        let top = source.top();
        let all = 0..top.nodes + top.blocks;
        let order: Vec<u64> = if backwards { all.rev().collect() } else { all.collect() };
        let mut out = Vec::new();
        let mut found = HashMap::new();
        for n in order {
            let size = source.size_of(Ordinal(n)).unwrap();
            out.clear();
            let block = source.read(Ordinal(n), &mut out).unwrap();
            assert!(block.matches(&out) && size as usize == out.len(), "ordinal {n}");
            found.insert(n, out.clone());
        }
        found
    }

    #[test]
    fn every_ordinal_is_read_as_it_is_in_the_tree() {
        let large = noise(3 << 20, 1);
        let mut files = vec![("a/empty", Vec::new()), ("big", large.clone()), ("z", b"last".to_vec())];
        let many: Vec<String> = (0..300).map(|i| format!("many/{i}")).collect();
        files.extend(many.iter().map(|p| (p.as_str(), p.as_bytes().to_vec())));
        let f = Fixture::new(&files);
        let mut source = f.source(&Policy::default());
        let found = read_all(&mut source, false);
        assert_eq!(found, read_all(&mut source, true));
        let top = source.top();
        assert!(top.nodes > 2, "the large file has lists");
        for n in 0..top.nodes {
            assert_eq!(source.block(Ordinal(n)).unwrap(), source.manifest().node_at(Ordinal(n)).unwrap());
        }
        let mut seen = 0;
        for located in source.manifest().entries() {
            let crate::manifest::read::Located { entry, first } = located.unwrap();
            let EntryKind::File(content) = &entry.kind else { continue };
            let blocks = (first.0..first.0 + content.block_count()).map(|n| found[&n].as_slice());
            let bytes = blocks.collect::<Vec<_>>().concat();
            assert!(bytes == std::fs::read(f.root.shown(&entry.path)).unwrap(), "{}", entry.path);
            seen += 1;
        }
        assert_eq!(seen, files.len());
        assert!(source.read(Ordinal(top.nodes + top.blocks), &mut Vec::new()).is_err());
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
            let named = matches!(&refused, Err(SourceError::Changed(p)) if p.as_bytes() == b"d/file");
            assert!(named && out == b"what was sent before", "{change}: {refused:?}");
        }
    }

    #[test]
    fn equal_trees_have_equal_roots_whatever_the_policy_leaves_out() {
        let policy = Policy {
            user: OwnerPolicy::Fixed("no-such-user-here".into()),
            group: OwnerPolicy::Ignore,
            file_mode: Some(Mode::from_bits(0o644)),
            dir_mode: Some(Mode::from_bits(0o755)),
            without_mtime: true,
        };
        let make = || Fixture::new(&[("d/file", b"text".to_vec())]).source(&policy);
        let (one, two) = (make(), make());
        assert_eq!(one.top(), two.top());
        let entries: Vec<_> = one.manifest().entries().map(|l| l.unwrap().entry).collect();
        assert_eq!(entries.iter().map(|e| e.mode.bits()).collect::<Vec<_>>(), [0o755, 0o644]);
        assert_eq!(one.directory(), two.directory());
        assert_eq!((one.directory().mode.bits(), one.directory().mtime), (0o755, Mtime::default()));
        let expected = Owner { uid: NO_ID, gid: NO_ID, user: Some("no-such-user-here".into()), group: None };
        assert!(entries.iter().all(|e| *e.owner == expected));
        assert_eq!(one.directory().owner, expected);
    }

    #[test]
    fn a_fixed_owner_is_a_name_before_it_is_a_number() {
        let policy = |name: &str| Policy { user: OwnerPolicy::Fixed(name.into()), ..Policy::default() };
        let user = |name: &str| Rewrite::new(&policy(name)).unwrap().user;
        assert_eq!(user("root"), Some((0, Some("root".into()))));
        assert_eq!(user("4000000"), Some((4_000_000, None)));
    }

    #[test]
    fn an_empty_tree_has_a_manifest() {
        let f = Fixture::new(&[("x", Vec::new())]);
        std::fs::remove_file(f.root.path().join("x")).unwrap();
        let mut source = f.source(&Policy::default());
        assert_eq!((source.top().nodes, source.top().blocks, source.top().entries), (1, 0, 0));
        assert_eq!(read_all(&mut source, false).len(), 1);
    }

    #[test]
    fn a_file_that_changed_after_the_scan_is_not_trusted() {
        let fixture = Fixture::new(&[("file", noise(100, 1)), ("other", noise(100, 2))]);
        let mut source = fixture.source(&Policy::default());
        let nodes = source.top().nodes;
        // As if the scan had begun long after the files were written, and one of them changed since.
        source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        let mut out = Vec::new();
        source.read(Ordinal(nodes), &mut out).unwrap();
        std::fs::write(fixture.root.path().join("other"), noise(100, 3)).unwrap();
        source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
        assert!(matches!(source.read(Ordinal(nodes + 1), &mut out), Err(SourceError::Changed(_))));
        assert_eq!(out, noise(100, 1));
    }
}
