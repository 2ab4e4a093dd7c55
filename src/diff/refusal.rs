//! Reasons to refuse a release on this host, found before anything changes.

use crate::manifest::TreePath;
use crate::units::Limit;

/// Reason to refuse a release on this host.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// More deletions than the release or the host allows.
    #[error("{would} of {total} paths would be deleted, the {who} allows {limit}")]
    TooManyDeletions {
        /// Number of paths to delete.
        would: u64,
        /// Exceeded limit.
        limit: Limit,
        /// Origin of the limit: `release` or `host`.
        who: &'static str,
        /// Number of paths on the host where the release governs.
        total: u64,
    },
    /// An empty release that would empty the tree.
    #[error("the release is empty and would delete everything")]
    Empty,
    /// A name unknown on this host.
    #[error("{path}: this host has no {what} {name:?}")]
    UnknownOwner {
        /// First path with this owner, as displayed.
        path: String,
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A protected or excluded path is in the way of another kind of entry.
    #[error(
        "{at}: the release has another kind of entry here, and {path} is protected or excluded"
    )]
    ReplacesProtected {
        /// Path that the release would replace.
        at: TreePath,
        /// Protected or excluded path.
        path: TreePath,
    },
    /// A directory with content is in the way of another kind of entry, and extras are not deleted.
    #[error("{at}: the release has no directory here, the host has one that contains {path}")]
    NotEmpty {
        /// The directory.
        at: TreePath,
        /// A path inside.
        path: TreePath,
    },
    /// The release has or changes a path outside its own scope.
    #[error("{0}: the release would change this outside its scope")]
    OutOfScope(TreePath),
    /// A hard link to a path that the release does not govern here.
    #[error("{path}: a hard link to {first}, which is protected, excluded or outside the scope")]
    LinkOutside {
        /// The link.
        path: TreePath,
        /// Target of the link.
        first: TreePath,
    },
    /// A hard link to a path outside the release, or to no file under its first name.
    #[error("{path}: a hard link to {first}, which is no file of the release")]
    LinkNowhere {
        /// The link.
        path: TreePath,
        /// Target of the link.
        first: TreePath,
    },
    /// Unreadable entries of the host or the release.
    #[error(transparent)]
    Unreadable(#[from] crate::Error),
}

impl Refusal {
    /// The reason with the remedy.
    pub(super) fn with_remedy(&self) -> String {
        match self.advice() {
            Some(advice) => format!("{self} ({advice})"),
            None => self.to_string(),
        }
    }

    /// Returns whether a comparison lists the paths in question.
    fn is_of_limit(&self) -> bool {
        matches!(self, Refusal::TooManyDeletions { .. } | Refusal::Empty)
    }

    fn advice(&self) -> Option<&'static str> {
        Some(match self {
            Refusal::TooManyDeletions { who: "host", .. } => {
                "raise max_delete on the host if that is meant"
            }
            Refusal::TooManyDeletions { .. } => {
                "raise delete.max in the spec, or --allow-deletes N once, if that is meant"
            }
            Refusal::Empty => {
                "is the source right? set delete.allow_empty = true in the spec if that is meant"
            }
            Refusal::UnknownOwner { .. } => {
                "create it on the host, or set owner.unknown = \"numeric\", or a fixed owner, \
                 in the spec"
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
        let is_of_limit = refusal.is_of_limit();
        let error = match refusal {
            Refusal::Unreadable(e) => return e,
            other => crate::Error::refused(other.to_string()),
        };

        match advice {
            Some(hint) if is_of_limit => error.hint(format!("`makuo diff` lists them; {hint}")),
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}
