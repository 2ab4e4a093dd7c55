//! What the state of a tree says: its releases and marks, read by whoever may, without the tree's lock.
//!
//! Writing is [`super::dir`]'s alone. What is read here may be old by the time that it is used.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::error::{Error, Result};
use crate::id::{Serial, TreeName};
use crate::manifest::header::MAX_HEADER_BYTES;
use crate::manifest::path::RESERVED;
use crate::manifest::{Release, ReleaseId, TreePath};
use crate::tree::fs::dir::names_in;
use crate::tree::fs::root::Root;

/// The journal of a commit that is on its way.
pub const FORWARD: &str = "journal";
/// The journal of a commit that is being undone.
pub const BACKWARD: &str = "journal.undo";
/// The directory beside a tree that holds the state of the trees there, or inside a tree that is a mount point.
pub const BESIDE: &str = RESERVED;
/// The file that is there as long as the index is doubted.
pub(crate) const INDEX_DOUBT: &str = "doubt";
/// The longest signature that is kept, in bytes.
pub const MAX_SIGNATURE: usize = 16 << 10;
/// The directory of tombstones in a state directory.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// The most bytes of a small state file: a header with its signature, or an order with the hosts that it names.
const MAX_SMALL: u64 = (MAX_HEADER_BYTES + MAX_SIGNATURE + 1024) as u64;

/// The bytes of most of them, which are read in one go.
const USUAL: usize = 1 << 10;

/// The small files of one tree's state, found from a handle of its directory.
#[derive(Debug, Clone)]
pub struct StateReader {
    root: Arc<Root>,
}

/// A release as a host keeps it.
#[derive(Debug, Clone)]
pub struct StoredRelease {
    /// The header with its exact bytes.
    pub release: Release,
    /// The signature over them.
    pub signature: Vec<u8>,
}

/// A release by number and identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// The number.
    #[n(0)]
    pub serial: Serial,
    /// The identity.
    #[n(1)]
    pub id: ReleaseId,
}

impl Mark {
    /// The mark of a release.
    pub fn of(release: &Release) -> Self {
        Self {
            serial: release.header().serial,
            id: release.id(),
        }
    }
}

/// One commit of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct CommitMark {
    /// The release.
    #[n(0)]
    pub release: Mark,
    /// How many commits this tree had, with this one.
    #[n(1)]
    pub number: u64,
}

impl StateReader {
    /// Those in the state directory `root`.
    pub(crate) fn at(root: Root) -> Self {
        Self {
            root: Arc::new(root),
        }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Those of the tree `name` at `tree`, where a daemon with this `state_dir` keeps them; `None` when there are none.
    pub fn find(name: &TreeName, tree: &Path, state_dir: Option<&Path>) -> Result<Option<Self>> {
        let failed = |e: io::Error| Error::io("cannot look at", tree, e);
        let real = match std::fs::canonicalize(tree) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            real => real.map_err(failed)?,
        };

        let device = std::fs::metadata(&real).map_err(failed)?.dev();
        let beside = real.parent().map(|parent| parent.join(BESIDE));
        let places = state_dir
            .map(Path::to_path_buf)
            .into_iter()
            .chain(beside)
            .chain([real.join(BESIDE)]);

        for path in places.map(|dir| dir.join(name.as_str())) {
            match std::fs::metadata(path.join("releases")) {
                Ok(found) if found.dev() == device => {
                    let root = Root::open(&path).map_err(|e| Error::io("cannot open", &path, e))?;
                    return Ok(Some(Self::at(root)));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::io("cannot read", &path, e).hint(
                        "only the daemon's user can read the state of a tree: run this as that user, or as root",
                    ));
                }
                _ => {}
            }
        }

        Ok(None)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// The highest release ever accepted here.
    pub fn highest(&self) -> Result<Option<Mark>> {
        Ok(self.read_mark("serial")?.map(|(mark, _)| mark))
    }

    /// The newest release that the tree was the source of: it has what that release says without having been made so.
    pub fn sent(&self) -> Result<Option<Mark>> {
        Ok(self.read_mark("source")?.map(|(mark, _)| mark))
    }

    /// The release that the tree was last made.
    pub fn current(&self) -> Result<Option<Mark>> {
        Ok(self.last_commit()?.map(|commit| commit.release))
    }

    /// The last commit, with its number: one release may be committed several times.
    pub(crate) fn last_commit(&self) -> Result<Option<CommitMark>> {
        let found = self.read_mark("current")?;
        Ok(found.map(|(release, number)| CommitMark { release, number }))
    }

    /// The release with this number, when it is kept.
    pub fn stored(&self, serial: Serial) -> Result<Option<StoredRelease>> {
        let name = format!("releases/{serial}");
        let Some(bytes) = self.read(&name)? else {
            return Ok(None);
        };

        let broken = |why: String| {
            Error::new(
                crate::Kind::Io,
                format!("{}: {why}", self.path().join(&name).display()),
            )
        };

        let (header, signature): (ByteVec, ByteVec) =
            minicbor::decode(&bytes).map_err(|e| broken(e.to_string()))?;
        let release = Release::from_bytes(&header).map_err(|e| broken(e.to_string()))?;

        Ok(Some(StoredRelease {
            release,
            signature: signature.into(),
        }))
    }

    /// What was kept of the order to commit the release with this number: whoever shows it to others may put it there.
    pub fn grant(&self, serial: Serial) -> Result<Option<Vec<u8>>> {
        self.read(&grant_name(serial))
    }

    /// The numbers of the releases that are kept, rising.
    pub fn serials(&self) -> Result<Vec<Serial>> {
        let dir = self
            .root
            .dir(Some(&inside("releases")))
            .and_then(|dir| names_in(dir.as_fd()));
        let names = dir.map_err(|e| Error::io("cannot list", self.path().join("releases"), e))?;
        let mut found: Vec<Serial> = names
            .iter()
            .filter_map(|n| n.to_str().ok()?.parse().ok().map(Serial))
            .collect();
        found.sort();

        Ok(found)
    }

    /// The bytes of the small file `name`, when there is one.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path().join(name);
        let file = match self.root.open_file(&inside(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot open", &path, e)),
        };

        let mut bytes = Vec::with_capacity(USUAL);
        file.take(MAX_SMALL)
            .read_to_end(&mut bytes)
            .map_err(|e| Error::io("cannot read", &path, e))?;

        Ok(Some(bytes))
    }

    pub(crate) fn read_mark(&self, name: &str) -> Result<Option<(Mark, u64)>> {
        let Some(bytes) = self.read(name)? else {
            return Ok(None);
        };

        let parse = || {
            let text = std::str::from_utf8(&bytes).ok()?.strip_suffix('\n')?;
            let mut words = text.split(' ');
            let serial = Serial(words.next()?.parse().ok()?);
            let id = ReleaseId(crate::block::BlockHash::from_hex(words.next()?)?);
            let number = words.next()?.parse().ok()?;
            Some((Mark { serial, id }, number))
        };

        parse().map(Some).ok_or_else(|| {
            let path = self.path().join(name);
            Error::new(crate::Kind::Io, format!("{} is damaged", path.display())).hint(
                "restore it from a backup; removing it makes this host accept older releases again",
            )
        })
    }
}

/// Where the order to commit a release is kept.
pub(crate) fn grant_name(serial: Serial) -> String {
    format!("releases/{serial}.order")
}

/// The name of a state file below its directory.
pub(crate) fn inside(name: &str) -> TreePath {
    TreePath::new(name.as_bytes()).expect("names of state files are legal paths")
}

/// Where the journal of a commit that can be taken back is kept.
pub(crate) fn kept_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}")
}

/// Where it is kept while what the commit replaced is put away.
pub(crate) fn done_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}.done")
}
