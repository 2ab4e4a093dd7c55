//! Attributes that new entries take from their directory: default ACL, the group of a set-group-id
//! directory, label, project and flags ([`crate::tree::fs::project_flags`]).
//!
//! Files are staged beside the tree and renamed, so the kernel takes all of these from the wrong
//! directory. This module reads them from the right one: once per directory, and from the plan for
//! directories that the release creates.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::rc::Rc;

use rustix::fs::FileType;

use crate::diff::{Action, Change, Plan, Shape};
use crate::manifest::{Mode, TreePath, Xattr};
use crate::tree::fs::dir_cursor::DirCursor;
use crate::tree::fs::errors::is_absent;
use crate::tree::fs::handover::{is_foreign, is_grant};
use crate::tree::fs::metadata::handle_of;
use crate::tree::fs::project_flags::ProjectFlags;
use crate::tree::fs::root::Root;
use crate::tree::fs::stat::FileStat;
use crate::tree::fs::xattrs::{ACL, CAPABILITY, DEFAULT_ACL, LABEL, XattrReader};

/// Attributes that describe the content; the kernel removes the first when a file is written.
const OF_CONTENT: [&[u8]; 3] = [CAPABILITY, b"security.ima", b"security.evm"];

const SET_GROUP_ID: u32 = 0o2000;

const SET_ID: u32 = 0o6000;

/// Attributes that one directory gives.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Inherited {
    acl: Option<Vec<u8>>,
    label: Option<Vec<u8>>,
    gid: Option<u32>,
    /// User who may have created the access list.
    giver: u32,
    /// Project for quotas, and flags; `None` on a filesystem without them.
    marks: Option<ProjectFlags>,
    /// Whether the kernel passes the group on to new directories during the commit, although the
    /// final mode has no set-group-id.
    is_passing: bool,
}

impl Inherited {
    /// Project and flags that the directory gives.
    pub(crate) fn marks(&self) -> Option<ProjectFlags> {
        self.marks
    }

    /// Attributes for the entry that `change` creates. An access list of a user's own would let him
    /// write to a file that runs as another user.
    pub(crate) fn xattrs(&self, change: &Change) -> Vec<Xattr> {
        let shape = change.shape();
        let named = |name: &[u8], value: &Option<Vec<u8>>| {
            value.as_ref().map(|value| Xattr {
                name: name.to_vec(),
                value: value.clone(),
            })
        };

        let runs_as_another =
            shape == Shape::File && wanted_mode(change).is_some_and(|m| m.bits() & SET_ID != 0);
        let gives = !runs_as_another || !is_foreign(self.giver, Some(owner_of(change)));
        let acl = (gives && shape != Shape::Symlink)
            .then(|| named(ACL, &self.acl))
            .flatten();
        let default = (gives && shape == Shape::Directory)
            .then(|| named(DEFAULT_ACL, &self.acl))
            .flatten();

        acl.into_iter()
            .chain(default)
            .chain(named(LABEL, &self.label))
            .collect()
    }
}

/// Directories of a tree as they will be after a plan.
pub(crate) struct Inheritance<'a> {
    root: &'a Root,
    plan: &'a Plan,
    known: HashMap<Option<TreePath>, Rc<Inherited>>,
    reader: XattrReader,
    /// Directories of replaced files.
    dirs: DirCursor,
}

impl<'a> Inheritance<'a> {
    pub(crate) fn new(root: &'a Root, plan: &'a Plan) -> Self {
        Self {
            root,
            plan,
            known: HashMap::new(),
            reader: XattrReader::default(),
            dirs: DirCursor::default(),
        }
    }

    /// Returns whether the tree's filesystem supports attributes.
    pub(crate) fn has_attributes(&mut self) -> io::Result<bool> {
        self.reader.is_supported(self.root.as_fd())
    }

    /// Attributes that the directory `dir` gives.
    pub(crate) fn of(&mut self, dir: Option<&TreePath>) -> io::Result<Rc<Inherited>> {
        // Up to the nearest known or existing directory, and down again: a path may have thousands
        // of components.
        let mut made = Vec::new();
        let mut at = dir.cloned();
        let mut given = loop {
            if let Some(known) = self.known.get(&at) {
                break Rc::clone(known);
            }
            let change = at.as_ref().and_then(|path| self.change(path));
            match change {
                Some(change) if change.makes_anew() => {
                    let above = at.as_ref().and_then(TreePath::parent);
                    made.push(change);
                    at = above;
                }
                change => {
                    let found = Rc::new(self.existing(at.as_ref(), change.as_ref())?);
                    self.known.insert(at, Rc::clone(&found));
                    break found;
                }
            }
        };

        while let Some(change) = made.pop() {
            given = Rc::new(self.made(&change, &given));
            self.known.insert(Some(change.path), Rc::clone(&given));
        }

        Ok(given)
    }

    /// Group for the entry that `change` creates, if the release leaves it to the host.
    pub(crate) fn group(&mut self, change: &Change) -> io::Result<Option<u32>> {
        let parent = self.of(change.path.parent().as_ref())?;
        let own = || nix::unistd::getegid().as_raw();
        // The kernel passes set-group-id on through directories whose final mode has none.
        let is_dir = change.shape() == Shape::Directory;
        Ok(parent
            .gid
            .or_else(|| (is_dir && parent.is_passing).then(own)))
    }

    /// Returns whether the replaced entry at `path` has this shape.
    pub(crate) fn is_kind(&self, path: &TreePath, shape: Shape) -> io::Result<bool> {
        let wanted = match shape {
            Shape::File => FileType::RegularFile,
            Shape::Symlink => FileType::Symlink,
            Shape::Fifo => FileType::Fifo,
            Shape::Hardlink | Shape::Device | Shape::Directory => return Ok(true),
        };

        match self.root.stat(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
            now => Ok(FileType::from_raw_mode(now?.st_mode) == wanted),
        }
    }

    /// Attributes that the successor of a replaced entry keeps. Rights granted by another user are
    /// not kept: as for a new file, the directory gives them.
    pub(crate) fn kept(&mut self, change: &Change) -> io::Result<Vec<Xattr>> {
        let (parent, name) = self.dirs.parent(self.root, &change.path)?;
        let handle = handle_of(parent, &name)?;
        let mut kept = kept_of(&mut self.reader, handle.as_fd(), self.plan.sets_xattrs)?;
        if is_foreign(FileStat::of(&handle)?.uid, Some(owner_of(change))) {
            kept.retain(|xattr| !is_grant(&xattr.name));
            kept.extend(self.of(change.path.parent().as_ref())?.xattrs(change));
        }

        Ok(kept)
    }

    /// Project and flags of the file at `path`, if any.
    pub(crate) fn marks_of(&self, path: &TreePath) -> Option<ProjectFlags> {
        self.root
            .open_file(path)
            .ok()
            .and_then(|file| ProjectFlags::of(file.as_fd()))
    }

    /// Change of the directory at `path` in the plan, if any.
    fn change(&self, path: &TreePath) -> Option<Change> {
        let change = Change::clone(&self.plan.changes.get(self.plan.changes.find(path)?));
        let is_dir = change.want.is_some() && change.shape() == Shape::Directory;
        (is_dir
            && matches!(
                change.action,
                Action::Create | Action::Replace | Action::Meta
            ))
        .then_some(change)
    }

    fn existing(
        &mut self,
        dir: Option<&TreePath>,
        change: Option<&Change>,
    ) -> io::Result<Inherited> {
        let handle = match self.root.handle_of(dir.map_or(b"", |d| d.as_bytes())) {
            Err(e) if is_absent(&e) => {
                return Ok(Inherited::default());
            }
            handle => handle?,
        };

        let now = FileStat::of(&handle)?;
        let top = self.plan.top.as_ref().filter(|_| dir.is_none());
        let mode = change
            .and_then(wanted_mode)
            .or(top.map(|t| t.want.mode))
            .unwrap_or(now.mode);
        let owner = change.map(|c| c.owner).or(top.map(|t| t.owner));

        let gid = owner.and_then(|o| o.gid).unwrap_or(now.gid);

        let uid = owner.and_then(|o| o.uid).unwrap_or(now.uid);
        let is_taken = is_foreign(now.uid, Some(uid));

        let is_passing = set_group(now.mode, gid).is_some();

        // In a directory that this user cannot open, only its owner creates entries.
        let opened = self.root.dir(dir).ok();
        let marks = opened
            .and_then(|opened| ProjectFlags::of(opened.as_fd()))
            .map(ProjectFlags::given);
        let gid = set_group(mode, gid);
        let mut given = Inherited {
            gid,
            giver: uid,
            marks,
            is_passing,
            ..Inherited::default()
        };

        for xattr in self.reader.given(handle.as_fd())? {
            match xattr.name.as_slice() {
                LABEL => given.label = Some(xattr.value),
                _ => given.acl = Some(xattr.value).filter(|_| !self.plan.sets_xattrs && !is_taken),
            }
        }

        Ok(given)
    }

    fn made(&self, change: &Change, parent: &Inherited) -> Inherited {
        let gid = change
            .owner
            .gid
            .or(parent.gid)
            .unwrap_or_else(|| nix::unistd::getegid().as_raw());
        let mode = wanted_mode(change).unwrap_or(Mode::from_bits(0));
        Inherited {
            gid: set_group(mode, gid),
            is_passing: true,
            ..parent.clone()
        }
    }
}

/// Attributes of an inode that its successor with other content keeps: everything outside of the
/// release, except for attributes that describe the content.
fn kept_of(
    reader: &mut XattrReader,
    handle: BorrowedFd<'_>,
    governed: bool,
) -> io::Result<Vec<Xattr>> {
    let mut all = match governed {
        true => Vec::new(),
        false => reader.through(handle)?,
    };
    all.retain(|x| !OF_CONTENT.contains(&x.name.as_slice()));
    all.extend(reader.label(handle, governed)?);
    Ok(all)
}

fn owner_of(change: &Change) -> u32 {
    change
        .owner
        .uid
        .unwrap_or_else(|| nix::unistd::geteuid().as_raw())
}

fn wanted_mode(change: &Change) -> Option<Mode> {
    change.want.as_ref().map(|want| want.entry.mode)
}

fn set_group(mode: Mode, gid: u32) -> Option<u32> {
    (mode.bits() & SET_GROUP_ID != 0).then_some(gid)
}
