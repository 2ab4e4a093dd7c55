//! One entry of a tree: what a path is, to whom it belongs and what it contains.

use std::borrow::Cow;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::TreePath;
use crate::block::BlockRef;

/// The most blocks that an entry lists itself; a larger file has [`Content::Lists`].
pub const MAX_DIRECT_BLOCKS: usize = 256;
/// The most list nodes that an entry names (files up to some 2 TiB).
pub const MAX_LISTS: usize = 16_384;
/// The longest target of a symbolic link, in bytes.
pub const MAX_TARGET: usize = 4095;
/// The most bytes of extended attributes of one entry, names and values together.
pub const MAX_XATTR_BYTES: usize = 64 << 10;
/// As [`MAX_XATTR_BYTES`] for the tree's own directory, whose attributes stand in the header.
pub const MAX_TOP_XATTR_BYTES: usize = 16 << 10;
/// The longest user or group name, in bytes.
pub const MAX_OWNER_NAME: usize = 255;

/// The number that stands for no user and no group: of an owner that only has a name, or that hosts shall not set.
pub const NO_ID: u32 = u32::MAX;

/// Permission bits, including set-user-id, set-group-id and sticky: `0o7777`. Others are refused when it is decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode)]
#[cbor(transparent)]
pub struct Mode(#[n(0)] u16);

impl<'b, C> Decode<'b, C> for Mode {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        match d.u16()? {
            bits if bits & !0o7777 == 0 => Ok(Self(bits)),
            _ => Err(minicbor::decode::Error::message(
                "a mode with more than permission bits",
            )),
        }
    }
}

impl Mode {
    /// The permission bits of `st_mode`; the file type is cut off.
    pub fn from_bits(st_mode: u32) -> Self {
        Self((st_mode & 0o7777) as u16)
    }

    /// The bits.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

/// A time of last modification, to the nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    #[n(0)]
    pub secs: i64,
    /// Nanoseconds within the second, below 10^9.
    #[n(1)]
    pub nanos: u32,
}

/// Who owns an entry: numbers always, names where the sender knew them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Owner {
    /// The user's number.
    #[n(0)]
    pub uid: u32,
    /// The group's number.
    #[n(1)]
    pub gid: u32,
    /// The user's name.
    #[n(2)]
    pub user: Option<Box<str>>,
    /// The group's name.
    #[n(3)]
    pub group: Option<Box<str>>,
}

/// One extended attribute (POSIX ACLs are `system.posix_acl_access` and `system.posix_acl_default`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Xattr {
    /// The attribute's full name.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Its value.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// The content of a file as blocks, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum Content {
    /// The blocks themselves: at most [`MAX_DIRECT_BLOCKS`].
    #[n(0)]
    Blocks(#[n(0)] Vec<BlockRef>),
    /// List nodes that hold the blocks.
    #[n(1)]
    Lists(#[n(0)] Vec<super::ListRef>),
}

impl Content {
    /// How many blocks the file has.
    pub fn block_count(&self) -> u64 {
        match self {
            Content::Blocks(blocks) => blocks.len() as u64,
            Content::Lists(lists) => lists
                .iter()
                .fold(0, |sum: u64, l| sum.saturating_add(l.blocks)),
        }
    }

    /// The same in pieces, each of which is read at once.
    pub fn pieces(&self) -> impl Iterator<Item = Cow<'_, Content>> {
        let (blocks, lists) = match self {
            Content::Blocks(_) => (Some(self), &[][..]),
            Content::Lists(lists) => (None, &lists[..]),
        };

        let lists = lists
            .iter()
            .map(|list| Cow::Owned(Content::Lists(vec![*list])));
        blocks.into_iter().map(Cow::Borrowed).chain(lists)
    }

    /// How many list nodes it has.
    pub fn list_count(&self) -> u64 {
        match self {
            Content::Blocks(_) => 0,
            Content::Lists(lists) => lists.len() as u64,
        }
    }

    /// The size that the blocks add up to.
    pub fn size(&self) -> u64 {
        match self {
            Content::Blocks(blocks) => blocks.iter().map(|b| u64::from(b.size)).sum(),
            Content::Lists(lists) => lists
                .iter()
                .fold(0, |sum: u64, l| sum.saturating_add(l.bytes)),
        }
    }
}

/// What a path is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum EntryKind {
    /// A directory.
    #[n(0)]
    Directory,
    /// A regular file.
    #[n(1)]
    File(#[n(0)] Content),
    /// A symbolic link to these bytes, whatever they name.
    #[n(2)]
    Symlink(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Another name of what is at this earlier path, which is no directory: a file, a symbolic link, a pipe, a device.
    #[n(3)]
    Hardlink(#[n(0)] TreePath),
    /// A named pipe.
    #[n(4)]
    Fifo,
    /// A character device by major and minor number.
    #[n(5)]
    CharDevice(#[n(0)] u32, #[n(1)] u32),
    /// A block device by major and minor number.
    #[n(6)]
    BlockDevice(#[n(0)] u32, #[n(1)] u32),
}

impl EntryKind {
    /// One letter as rsync and `ls` show kinds: `f d L h S D`.
    pub fn letter(&self) -> char {
        match self {
            EntryKind::Directory => 'd',
            EntryKind::File(_) => 'f',
            EntryKind::Symlink(_) => 'L',
            EntryKind::Hardlink(_) => 'h',
            EntryKind::Fifo => 'S',
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => 'D',
        }
    }

    /// The size of the content; 0 for all but files.
    pub fn size(&self) -> u64 {
        match self {
            EntryKind::File(content) => content.size(),
            _ => 0,
        }
    }
}

/// One path of a tree. A [`EntryKind::Hardlink`] repeats mode, owner, mtime and xattrs of the file that it names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits (0o777 for a symbolic link).
    pub mode: Mode,
    /// Its owner, shared by the many entries that have the same.
    pub owner: Arc<Owner>,
    /// Its time of last modification.
    pub mtime: Mtime,
    /// Its extended attributes, sorted by name; empty unless the release carries them.
    pub xattrs: Vec<Xattr>,
}

/// The tree's own directory. It has no path, so that no entry stands for it: the header carries it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Top {
    /// Its permission bits.
    #[n(0)]
    pub mode: Mode,
    /// Its owner.
    #[n(1)]
    pub owner: Owner,
    /// Its time of last modification.
    #[n(2)]
    pub mtime: Mtime,
    /// Its extended attributes, sorted by name; empty unless the release carries them.
    #[n(3)]
    pub xattrs: Vec<Xattr>,
}

impl Top {
    /// Checks what types cannot; the attributes have to leave room for the rest of a header.
    pub(super) fn check(&self) -> Result<(), String> {
        let too_long =
            |name: &Option<Box<str>>| name.as_ref().is_some_and(|n| n.len() > MAX_OWNER_NAME);
        if self.mtime.nanos >= 1_000_000_000 {
            return Err("the tree's directory has an mtime with more than 10^9 nanoseconds".into());
        }

        if too_long(&self.owner.user) || too_long(&self.owner.group) {
            return Err(format!(
                "the tree's directory has an owner of more than {MAX_OWNER_NAME} bytes"
            ));
        }

        if xattr_bytes(&self.xattrs) > MAX_TOP_XATTR_BYTES {
            return Err(format!(
                "the tree's directory has more than {MAX_TOP_XATTR_BYTES} bytes of extended attributes"
            ));
        }

        Ok(())
    }
}

fn xattr_bytes(xattrs: &[Xattr]) -> usize {
    xattrs.iter().map(|x| x.name.len() + x.value.len()).sum()
}

impl Entry {
    /// Checks what types cannot: sizes against the caps of this module.
    pub(super) fn check(&self) -> Result<(), String> {
        let refuse = |why: &str| Err(format!("{}: {why}", self.path));
        match &self.kind {
            EntryKind::File(Content::Blocks(blocks)) if blocks.len() > MAX_DIRECT_BLOCKS => {
                refuse("too many blocks")
            }
            EntryKind::File(Content::Lists(lists))
                if lists.is_empty() || lists.len() > MAX_LISTS =>
            {
                refuse("too many or no block lists")
            }
            EntryKind::File(Content::Lists(lists)) if lists.iter().any(|list| !list.is_legal()) => {
                refuse("a block list with a size that no list has")
            }
            EntryKind::File(Content::Blocks(blocks))
                if blocks
                    .iter()
                    .any(|b| b.size == 0 || b.size as usize > crate::block::chunk::MAX) =>
            {
                refuse("a block of an illegal size")
            }
            EntryKind::Symlink(target)
                if target.is_empty() || target.len() > MAX_TARGET || target.contains(&0) =>
            {
                refuse("an illegal link target")
            }
            EntryKind::Hardlink(first) if *first >= self.path => {
                refuse("a hard link to a later path")
            }
            _ if self.mtime.nanos >= 1_000_000_000 => {
                refuse("an mtime with more than 10^9 nanoseconds")
            }
            _ if xattr_bytes(&self.xattrs) > MAX_XATTR_BYTES => {
                refuse("too many extended attributes")
            }
            _ => Ok(()),
        }
    }
}
