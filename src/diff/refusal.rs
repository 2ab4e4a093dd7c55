//! Why a release cannot be put on this host: decided before anything changes.

use crate::manifest::TreePath;
use crate::units::Limit;

/// Why a release cannot be put on this host.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// More deletions than the release or the host allows.
    #[error("{would} of {total} paths would be deleted, the {who} allows {limit}")]
    TooManyDeletions {
        /// How many paths would be deleted.
        would: u64,
        /// The limit that is broken.
        limit: Limit,
        /// Whose limit it is: `release` or `host`.
        who: &'static str,
        /// How many paths the host has where the release governs.
        total: u64,
    },
    /// An empty release that would empty the tree.
    #[error("the release is empty and would delete everything")]
    Empty,
    /// A name that this host does not know.
    #[error("{path}: this host has no {what} {name:?}")]
    UnknownOwner {
        /// The first path with this owner, as it is shown.
        path: String,
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// What is protected or excluded stands where the release has another kind of thing.
    #[error(
        "{at}: the release has another kind of entry here, and {path} is protected or excluded"
    )]
    ReplacesProtected {
        /// The path that the release would replace.
        at: TreePath,
        /// What is protected or excluded.
        path: TreePath,
    },
    /// A directory with content stands where the release has something else, and extras are not deleted.
    #[error("{at}: the release has no directory here, the host has one that contains {path}")]
    NotEmpty {
        /// The directory.
        at: TreePath,
        /// Something in it.
        path: TreePath,
    },
    /// The release has or changes something outside its own scope.
    #[error("{0}: the release would change this outside its scope")]
    OutOfScope(TreePath),
    /// A hard link to what the release does not govern here.
    #[error("{path}: a hard link to {first}, which is protected, excluded or outside the scope")]
    LinkOutside {
        /// The link.
        path: TreePath,
        /// What it links to.
        first: TreePath,
    },
    /// A hard link to what is not in the release, or no file under its first name.
    #[error("{path}: a hard link to {first}, which is no file of the release")]
    LinkNowhere {
        /// The link.
        path: TreePath,
        /// What it links to.
        first: TreePath,
    },
    /// The host's entries or the release's cannot be read.
    #[error(transparent)]
    Unreadable(#[from] crate::Error),
}

impl Refusal {
    fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Refusal::TooManyDeletions { who: "host", .. } => {
                "look at `makuo diff`; raise max_delete on the host if that is meant"
            }
            Refusal::TooManyDeletions { .. } => {
                "look at `makuo diff`; raise delete.max in the spec if that is meant"
            }
            Refusal::Empty => {
                "is the source right? set delete.allow_empty = true in the spec if that is meant"
            }
            Refusal::UnknownOwner { .. } => {
                "create it on the host, or set owner.unknown = \"numeric\", or a fixed owner, in the spec"
            }
            Refusal::ReplacesProtected { .. } => "move it away on the host, or change the spec",
            Refusal::NotEmpty { .. } => {
                "set delete.extras = true in the spec, or remove the directory on the host"
            }
            Refusal::OutOfScope(_) | Refusal::LinkOutside { .. } => {
                "make the release again with a scope that covers it"
            }
            Refusal::LinkNowhere { .. } => {
                "release it again with --checksum, which reads the whole source"
            }
            Refusal::Unreadable(_) => return None,
        })
    }
}

impl From<Refusal> for crate::Error {
    fn from(refusal: Refusal) -> Self {
        let advice = refusal.advice();
        let error = match refusal {
            Refusal::Unreadable(e) => return e,
            other => crate::Error::refused(other.to_string()),
        };

        match advice {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
