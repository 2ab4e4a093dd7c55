//! The state of a tree for readers without its lock: releases and marks.
//!
//! Only [`super::dir`] writes. Values may be outdated by the time of their use.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode};

use crate::error::{Error, IoResultExt as _, Result};
use crate::id::{Serial, TreeName};
use crate::manifest::header::MAX_HEADER_BYTES;
use crate::manifest::path::RESERVED;
use crate::manifest::{Release, ReleaseId, TreePath};
use crate::tree::fs::dir::names_in;
use crate::tree::fs::root::Root;
use crate::units::WallTime;

/// Journal of a commit in progress.
pub const FORWARD: &str = "journal";
/// Journal of an undo in progress.
pub const BACKWARD: &str = "journal.undo";
/// Directory for the states of trees: beside the trees, or inside a tree that is a mount point.
pub const BESIDE: &str = RESERVED;
/// File that exists while the index is in doubt.
pub(crate) const INDEX_DOUBT: &str = "doubt";
/// Longest stored signature, in bytes.
pub const MAX_KEPT_SIGNATURE: usize = 16 << 10;
/// Directory of tombstones in a state directory.
pub(crate) const TOMBSTONES: &str = "tombstones";
/// Most bytes of a small state file: a header with its signature, or an order with the hosts that
/// it names.
const MAX_FILE_BYTES: u64 = (MAX_HEADER_BYTES + MAX_KEPT_SIGNATURE + 1024) as u64;

/// Usual size of a small file in bytes, read by one call.
const USUAL_BYTES: usize = 1 << 10;

/// Small files of one tree's state, by the handle of its directory.
#[derive(Debug, Clone)]
pub struct StateReader {
    root: Arc<Root>,
}

/// A stored release.
#[derive(Debug, Clone)]
pub struct StoredRelease {
    /// Header with its exact bytes.
    pub release: Release,
    /// Signature over the header.
    pub signature: Vec<u8>,
}

/// A release by serial and identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Mark {
    /// Serial.
    #[n(0)]
    pub serial: Serial,
    /// Identity.
    #[n(1)]
    pub id: ReleaseId,
}

impl Mark {
    /// Mark of a release.
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
    /// Number of commits of this tree, including this one.
    #[n(1)]
    pub number: u64,
}

impl StateReader {
    /// Reader of the state directory `root`.
    pub(crate) fn at(root: Root) -> Self {
        Self {
            root: Arc::new(root),
        }
    }

    /// The directory.
    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    /// Finds the state of the tree `name` at `tree`, where a daemon with this `state_dir` keeps it.
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
                    let root = Root::open(&path).context("cannot open", &path)?;
                    return Ok(Some(Self::at(root)));
                }
                Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                    return Err(Error::io("cannot read", &path, e).hint(
                        "only the daemon's user can read the state of a tree: run this as that \
                         user, or as root",
                    ));
                }
                _ => {}
            }
        }

        Ok(None)
    }

    /// Path of the state directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Highest release ever accepted here.
    pub fn highest(&self) -> Result<Option<Mark>> {
        Ok(self.read_mark("serial")?.map(|(mark, _)| mark))
    }

    /// Newest release with this tree as its source: the tree has the content of this release
    /// without a commit.
    pub fn sent(&self) -> Result<Option<Mark>> {
        Ok(self.read_mark("source")?.map(|(mark, _)| mark))
    }

    /// Release of the last commit.
    pub fn current(&self) -> Result<Option<Mark>> {
        Ok(self.last_commit()?.map(|commit| commit.release))
    }

    /// Last commit with its number: one release may be committed several times.
    pub(crate) fn last_commit(&self) -> Result<Option<CommitMark>> {
        let found = self.read_mark("current")?;
        Ok(found.map(|(release, number)| CommitMark { release, number }))
    }

    /// Time of the last commit, by the clock of the file system.
    pub fn committed_at(&self) -> Option<WallTime> {
        let file = self.root.open_file(&inside("current")).ok()?;
        Some(WallTime(file.metadata().ok()?.mtime()))
    }

    /// Stored release with this serial, if any.
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

    /// Stored commit order of the release with this serial. Unverified: any member that passed it
    /// on may have written it.
    pub fn grant(&self, serial: Serial) -> Result<Option<Vec<u8>>> {
        self.read(&grant_name(serial))
    }

    /// Serials of the stored releases, rising.
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

    /// Bytes of the small file `name`, if present.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path().join(name);
        let file = match self.root.open_file(&inside(name)) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("cannot open", &path, e)),
        };

        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        file.take(MAX_FILE_BYTES)
            .read_to_end(&mut bytes)
            .context("cannot read", &path)?;

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

/// File name of a release's commit order.
pub(crate) fn grant_name(serial: Serial) -> String {
    format!("releases/{serial}.order")
}

/// Name of a state file below its directory.
pub(crate) fn inside(name: &str) -> TreePath {
    TreePath::new(name.as_bytes()).expect("names of state files are legal paths")
}

/// File name of the journal of a commit that can be reverted.
pub(crate) fn kept_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}")
}

/// File name of the same journal while replaced content is archived.
pub(crate) fn done_journal(serial: Serial) -> String {
    format!("undo/{serial}/{FORWARD}.done")
}
