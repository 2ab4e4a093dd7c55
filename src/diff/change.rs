//! One path that differs, and how a person reads it: rsync's itemized string and a word.

use crate::manifest::read::Located;
use crate::manifest::{EntryKind, Top, TreePath};

/// What is done about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The host does not have it.
    Create,
    /// The host has another kind of thing there.
    Replace,
    /// The host has it with other content (or as a link where the release has a file, or the other way round).
    Update,
    /// Only mode, owner, time or attributes differ.
    Meta,
    /// The release does not have it, and it is removed.
    Delete,
    /// The release does not have it, and it stays.
    Extra,
    /// A directory that the release does not have and that stays because of what is protected or excluded in it.
    Keep,
}

/// What a path is, without what it contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A further name of a regular file.
    Hardlink,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

impl Shape {
    /// The shape of an entry.
    pub fn of(kind: &EntryKind) -> Self {
        match kind {
            EntryKind::Directory => Shape::Directory,
            EntryKind::File(_) => Shape::File,
            EntryKind::Symlink(_) => Shape::Symlink,
            EntryKind::Hardlink(_) => Shape::Hardlink,
            EntryKind::Fifo => Shape::Fifo,
            EntryKind::CharDevice(..) | EntryKind::BlockDevice(..) => Shape::Device,
        }
    }

    /// The letter that rsync shows; a hard link is what its first name is there, most often a file.
    fn letter(self) -> char {
        match self {
            Shape::Directory => 'd',
            Shape::File | Shape::Hardlink => 'f',
            Shape::Symlink => 'L',
            Shape::Fifo => 'S',
            Shape::Device => 'D',
        }
    }
}

/// What differs between a host's entry and the release's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Delta {
    /// The bytes of a file, the target of a link, the numbers of a device.
    pub content: bool,
    /// The size of a file.
    pub size: bool,
    /// The time of modification.
    pub mtime: bool,
    /// The permission bits.
    pub mode: bool,
    /// The user.
    pub user: bool,
    /// The group.
    pub group: bool,
    /// A POSIX ACL.
    pub acl: bool,
    /// An extended attribute that is not an ACL.
    pub xattrs: bool,
}

impl Delta {
    /// Whether anything differs.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    fn flags(&self, shape: Shape) -> String {
        let is_file = matches!(shape, Shape::File | Shape::Hardlink);
        // A file whose size or time tells of the change shows these, as rsync without --checksum does.
        let shows_content = self.content && !(is_file && (self.size || self.mtime));
        let signs = [
            (shows_content, 'c'),
            (self.size && is_file, 's'),
            (self.mtime, 't'),
            (self.mode, 'p'),
            (self.user, 'o'),
            (self.group, 'g'),
            (false, 'u'),
            (self.acl, 'a'),
            (self.xattrs, 'x'),
        ];

        signs
            .iter()
            .map(|&(on, sign)| if on { sign } else { '.' })
            .collect()
    }
}

/// Owner numbers on this host; `None` is left as it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LocalOwner {
    /// The user's number.
    pub uid: Option<u32>,
    /// The group's number.
    pub gid: Option<u32>,
}

/// One path that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// What is done about it.
    pub action: Action,
    /// What differs.
    pub delta: Delta,
    /// What the host has there.
    pub was: Option<Shape>,
    /// What the release has there, with the ordinal of its first block.
    pub want: Option<Located>,
    /// The release's owner in this host's numbers.
    pub owner: LocalOwner,
    /// The owner that the host has there, of what the release leaves to the host and makes anew.
    pub kept: LocalOwner,
}

impl Change {
    /// What the path is after the change, or is now when the release does not have it.
    pub fn shape(&self) -> Shape {
        let wanted = self.want.as_ref().map(|w| Shape::of(&w.entry.kind));
        wanted.or(self.was).unwrap_or(Shape::File)
    }

    /// Whether a file's bytes (or a link, pipe, device in its place) have to be made anew.
    pub fn makes_anew(&self) -> bool {
        matches!(
            self.action,
            Action::Create | Action::Replace | Action::Update
        )
    }

    /// Whether applying the plan changes this path.
    pub fn is_applied(&self) -> bool {
        !matches!(self.action, Action::Extra | Action::Keep)
    }

    /// The change in eleven characters as `rsync -i` prints it; what rsync has no sign for is `*extra` and `*keeping`.
    pub fn itemized(&self) -> String {
        self.itemized_as(None)
    }

    /// The same of a hard link whose first name is of the shape `first`, when that is known.
    pub fn itemized_as(&self, first: Option<Shape>) -> String {
        match self.action {
            Action::Delete => return format!("{:<11}", "*deleting"),
            Action::Extra => return format!("{:<11}", "*extra"),
            Action::Keep => return format!("{:<11}", "*keeping"),
            _ => {}
        }

        let shape = self.shape();
        let update = match (self.action, shape) {
            (Action::Meta, _) => '.',
            (_, Shape::Hardlink) => 'h',
            (_, Shape::File) => '>',
            _ => 'c',
        };

        let letter = if shape == Shape::Hardlink {
            first.unwrap_or(shape)
        } else {
            shape
        }
        .letter();

        if matches!(self.action, Action::Create | Action::Replace) {
            return format!("{update}{letter}+++++++++");
        }

        let flags = self.delta.flags(shape);
        // rsync shows a change of nothing but the link itself with blanks.
        let flags = if update == 'h' && flags.bytes().all(|b| b == b'.') {
            " ".repeat(9)
        } else {
            flags
        };

        format!("{update}{letter}{flags}")
    }

    /// One word: `new`, `changed`, `metadata`, `deleted`, `extra`, `kept`.
    pub fn word(&self) -> &'static str {
        match self.action {
            Action::Create => "new",
            Action::Replace | Action::Update => "changed",
            Action::Meta => "metadata",
            Action::Delete => "deleted",
            Action::Extra => "extra",
            Action::Keep => "kept",
        }
    }
}

/// The tree's own directory, as far as the release governs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopChange {
    /// What the release says of it.
    pub want: Top,
    /// What differs now, perhaps nothing. A commit that changes names in it sets its time again all the same.
    pub delta: Delta,
    /// The release's owner in this host's numbers.
    pub owner: LocalOwner,
}

impl TopChange {
    /// The path by which lists of differences name it.
    pub const PATH: &'static str = ".";

    /// Whether the host's directory is not what the release says.
    pub fn differs(&self) -> bool {
        self.delta.any()
    }

    /// As [`Change::itemized`].
    pub fn itemized(&self) -> String {
        format!(".d{}", self.delta.flags(Shape::Directory))
    }
}
