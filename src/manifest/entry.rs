//! Entries of a tree: the kind, owner, metadata and content of one path.

use std::borrow::Cow;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::TreePath;
use crate::block::BlockRef;

/// Largest number of blocks listed in an entry; a larger file has [`Content::Lists`].
pub const MAX_DIRECT_BLOCKS: usize = 256;
/// Largest number of list nodes named by an entry (files up to about 2 TiB).
pub const MAX_LISTS: usize = 16_384;
/// Longest target of a symbolic link, in bytes.
pub const MAX_TARGET: usize = 4095;
/// Largest size of one entry's extended attributes in bytes, names and values together.
pub const MAX_XATTR_BYTES: usize = 64 << 10;
/// Same as [`MAX_XATTR_BYTES`] for the root directory, which is part of the header.
pub const MAX_TOP_XATTR_BYTES: usize = 16 << 10;
/// Longest user or group name, in bytes.
pub const MAX_OWNER_NAME: usize = 255;

/// Number for no user and no group: the owner has only a name, or hosts shall not set one.
pub const NO_ID: u32 = u32::MAX;

/// Permission bits, including set-user-id, set-group-id and sticky: `0o7777`. Decoding refuses
/// other bits.
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
    /// Takes the permission bits of `st_mode` and drops the file type.
    pub fn from_bits(st_mode: u32) -> Self {
        Self((st_mode & 0o7777) as u16)
    }

    /// Returns the bits.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }
}

/// Time of last modification, to the nanosecond.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Mtime {
    /// Seconds since 1970-01-01 UTC.
    #[n(0)]
    pub secs: i64,
    /// Nanoseconds within the second, below 10^9.
    #[n(1)]
    pub nanos: u32,
}

/// Owner of an entry: numbers always, names if the sender knew them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Owner {
    /// Number of the user.
    #[n(0)]
    pub uid: u32,
    /// Number of the group.
    #[n(1)]
    pub gid: u32,
    /// Name of the user.
    #[n(2)]
    pub user: Option<Box<str>>,
    /// Name of the group.
    #[n(3)]
    pub group: Option<Box<str>>,
}

impl Owner {
    /// Creates an owner without names.
    pub fn nameless(uid: u32, gid: u32) -> Self {
        Self {
            uid,
            gid,
            user: None,
            group: None,
        }
    }
}

/// One extended attribute (POSIX ACLs are `system.posix_acl_access` and
/// `system.posix_acl_default`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Xattr {
    /// Full name of the attribute.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub name: Vec<u8>,
    /// Value of the attribute.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Content of a file as blocks, in order.
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
    /// Returns the number of blocks.
    pub fn block_count(&self) -> u64 {
        match self {
            Content::Blocks(blocks) => blocks.len() as u64,
            Content::Lists(lists) => lists
                .iter()
                .fold(0, |sum: u64, l| sum.saturating_add(l.blocks)),
        }
    }

    /// Splits the content into pieces, each of which is read in one step.
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

    /// Returns the number of list nodes.
    pub fn list_count(&self) -> u64 {
        match self {
            Content::Blocks(_) => 0,
            Content::Lists(lists) => lists.len() as u64,
        }
    }

    /// Returns the sum of the block sizes.
    pub fn size(&self) -> u64 {
        match self {
            Content::Blocks(blocks) => blocks.iter().map(|b| u64::from(b.size)).sum(),
            Content::Lists(lists) => lists
                .iter()
                .fold(0, |sum: u64, l| sum.saturating_add(l.bytes)),
        }
    }
}

/// Kind of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub enum EntryKind {
    /// A directory.
    #[n(0)]
    Directory,
    /// A regular file.
    #[n(1)]
    File(#[n(0)] Content),
    /// A symbolic link with this target, which may be any bytes.
    #[n(2)]
    Symlink(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Another name of the entry at this earlier path. That entry is no directory: a file, a
    /// symbolic link, a pipe or a device.
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
    /// Returns the letter that rsync and `ls` show for the kind: `f d L h S D`.
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

    /// Returns the size of the content; 0 for all kinds but files.
    pub fn size(&self) -> u64 {
        match self {
            EntryKind::File(content) => content.size(),
            _ => 0,
        }
    }
}

/// One path of a tree. An [`EntryKind::Hardlink`] repeats mode, owner, mtime and xattrs of its
/// file.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Entry {
    /// Path of the entry.
    pub path: TreePath,
    /// Kind of the entry, with its content.
    pub kind: EntryKind,
    /// Permission bits (0o777 for a symbolic link).
    pub mode: Mode,
    /// Owner, shared by the many entries with the same one.
    pub owner: Arc<Owner>,
    /// Time of last modification.
    pub mtime: Mtime,
    /// Extended attributes, sorted by name; empty unless the release carries attributes.
    pub xattrs: Vec<Xattr>,
}

/// Root directory of the tree. It has no path and therefore no entry: the header carries its
/// metadata.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Top {
    /// Permission bits.
    #[n(0)]
    pub mode: Mode,
    /// Owner of the directory.
    #[n(1)]
    pub owner: Owner,
    /// Time of last modification.
    #[n(2)]
    pub mtime: Mtime,
    /// Extended attributes, sorted by name; empty unless the release carries attributes.
    #[n(3)]
    pub xattrs: Vec<Xattr>,
}

impl Top {
    /// Checks the caps that types cannot express. The attributes have to leave room for the rest of
    /// a header.
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
                "the tree's directory has more than {MAX_TOP_XATTR_BYTES} bytes of extended \
                 attributes"
            ));
        }

        Ok(())
    }
}

fn xattr_bytes(xattrs: &[Xattr]) -> usize {
    xattrs.iter().map(|x| x.name.len() + x.value.len()).sum()
}

impl Entry {
    /// Checks the caps of this module that types cannot express.
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
