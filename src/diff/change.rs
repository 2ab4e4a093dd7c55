//! One differing path, and its description for a person: rsync's itemized string and a word.

use crate::manifest::read::Located;
use crate::manifest::{EntryKind, Top, TreePath};

/// Action on a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The host does not have the path.
    Create,
    /// The host has another kind of entry.
    Replace,
    /// The content differs (or one side has a hard link where the other has a file).
    Update,
    /// Only mode, owner, mtime or attributes differ.
    Meta,
    /// The release does not have the path, and it is removed.
    Delete,
    /// The release does not have the path, and it stays.
    Extra,
    /// The release does not have the directory, which stays because of protected or excluded
    /// entries inside.
    Keep,
}

/// Kind of an entry without its content.
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
    /// Returns the shape of an entry.
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

    /// Returns the letter that rsync shows. A hard link has the letter of its first name, most
    /// often a file.
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

/// Differences between a host's entry and the release's.
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
    /// An extended attribute other than an ACL.
    pub xattrs: bool,
}

impl Delta {
    /// Difference of an entry that is written anew.
    pub(super) const CONTENT: Delta = Delta {
        content: true,
        size: false,
        mtime: false,
        mode: false,
        user: false,
        group: false,
        acl: false,
        xattrs: false,
    };

    /// Returns true if anything differs.
    pub fn any(&self) -> bool {
        *self != Self::default()
    }

    /// Returns true if only the time of modification differs.
    pub(super) fn is_mtime_only(&self) -> bool {
        let mtime_only = Self {
            mtime: true,
            ..Self::default()
        };
        *self == mtime_only
    }

    fn flags(&self, shape: Shape) -> String {
        let is_file = matches!(shape, Shape::File | Shape::Hardlink);
        // Size or time reveal the change of a file, and replace the content's sign as in rsync
        // without --checksum.
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

/// Owner numbers on this host; `None` leaves the owner unchanged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct LocalOwner {
    /// Number of the user.
    pub uid: Option<u32>,
    /// Number of the group.
    pub gid: Option<u32>,
}

/// One differing path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path.
    pub path: TreePath,
    /// Action on the path.
    pub action: Action,
    /// Differences.
    pub delta: Delta,
    /// Shape of the host's entry.
    pub was: Option<Shape>,
    /// Entry of the release, with the ordinal of its first block.
    pub want: Option<Located>,
    /// Owner in the release, in this host's numbers.
    pub owner: LocalOwner,
    /// Owner on the host, for a new entry whose owner the release leaves to the host.
    pub kept: LocalOwner,
}

impl Change {
    /// Returns the shape after the change, or the present one if the release does not have the
    /// path.
    pub fn shape(&self) -> Shape {
        let wanted = self.want.as_ref().map(|w| Shape::of(&w.entry.kind));
        wanted.or(self.was).unwrap_or(Shape::File)
    }

    /// Returns true if a file's bytes (or a link, pipe, device in its place) have to be created.
    pub fn makes_anew(&self) -> bool {
        matches!(
            self.action,
            Action::Create | Action::Replace | Action::Update
        )
    }

    /// Returns true if applying the plan changes this path.
    pub fn is_applied(&self) -> bool {
        !matches!(self.action, Action::Extra | Action::Keep)
    }

    /// Formats the change in eleven characters as `rsync -i` does; `*extra` and `*keeping` have no
    /// sign in rsync.
    pub fn itemized(&self) -> String {
        self.itemized_as(None)
    }

    /// Same as [`Change::itemized`] for a hard link, with the shape of its first name if known.
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
        // rsync shows blanks if only the link itself changes.
        let flags = if update == 'h' && flags.bytes().all(|b| b == b'.') {
            " ".repeat(9)
        } else {
            flags
        };

        format!("{update}{letter}{flags}")
    }

    /// Returns one word: `new`, `changed`, `metadata`, `deleted`, `extra`, `kept`.
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

/// Change of the root directory, as far as the release governs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopChange {
    /// Metadata in the release.
    pub want: Top,
    /// Present differences, possibly none. A commit that changes names in the directory restores
    /// its mtime in any case.
    pub delta: Delta,
    /// Owner in the release, in this host's numbers.
    pub owner: LocalOwner,
}

impl TopChange {
    /// Name of the root directory in lists of differences.
    pub const PATH: &'static str = ".";

    /// Returns true if the host's directory differs from the release.
    pub fn differs(&self) -> bool {
        self.delta.any()
    }

    /// Same as [`Change::itemized`].
    pub fn itemized(&self) -> String {
        format!(".d{}", self.delta.flags(Shape::Directory))
    }
}
