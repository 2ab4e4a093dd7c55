//! The release header: the signed part of a release.
//!
//! A signature covers the exact bytes of the header, which are kept beside the decoded header for
//! good. Everything below (nodes, blocks) is bound to these bytes by SHA-256.

use std::fmt;
use std::sync::Arc;

use minicbor::{Decode, Encode};

use super::node::to_vec;
use super::{FORMAT, FORMAT_PACKED, Mtime, NodeRef, PausedCommit, ReleaseMessage, Rules, Top};
use crate::block::BlockHash;
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::manifest::path::{MAX_PATH, PathError};
use crate::manifest::rules::Exclude;
use crate::units::WallTime;

/// Largest size of an encoded header in bytes.
pub const MAX_HEADER_BYTES: usize = 64 << 10;
/// Largest number of scope prefixes, and of target patterns.
pub const MAX_PATTERNS: usize = 1000;
/// Longest target pattern, in bytes.
pub const MAX_PATTERN_BYTES: usize = 255;

/// Use that a signed header permits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Intent {
    /// To be staged and committed; needs the role `deploy`.
    #[n(0)]
    Deploy,
    /// To be compared only; needs the role `audit`. Never commits, not even by a later signature.
    #[n(1)]
    Audit,
    /// As deploy, of a manifest that was released before; needs the role `rollback` or `deploy`.
    #[n(2)]
    Rollback,
}

/// Identity of a release: the SHA-256 of its header's bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ReleaseId(#[n(0)] pub BlockHash);

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Decoded header of a release. It stays one flat struct, because every field is a position of the
/// signed array.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Header {
    /// Format of header and nodes, see [`FORMAT`].
    #[n(0)]
    pub format: u16,
    /// Name of the released tree.
    #[n(1)]
    pub tree: TreeName,
    /// Number of this release.
    #[n(2)]
    pub serial: Serial,
    /// Time of creation.
    #[n(3)]
    pub created: WallTime,
    /// Time at which hosts stop accepting the release.
    #[n(4)]
    pub expires: Option<WallTime>,
    /// Use that the signature permits.
    #[n(5)]
    pub intent: Intent,
    /// Path prefixes that the release governs; empty for the whole tree.
    #[n(6)]
    pub scope: Vec<Prefix>,
    /// Globs on host names; empty for every host that has the tree.
    #[n(7)]
    pub targets: Vec<String>,
    /// Root of the manifest.
    #[n(8)]
    pub root: NodeRef,
    /// Rules of the commit.
    #[n(9)]
    pub rules: Rules,
    /// Root directory of the tree. A release without one, or with a scope, leaves the directory
    /// unchanged.
    #[n(10)]
    pub top: Option<Top>,
    /// Serial of the release that a rollback restores, or only compares with. Paths excluded by
    /// later releases are left alone.
    #[n(11)]
    pub again: Option<Serial>,
    /// Session that the release was signed for; `None` from an older makuo.
    #[n(12)]
    pub session: Option<SessionId>,
    /// Host that released the tree.
    #[n(13)]
    pub sender: Option<HostName>,
    /// True if hosts re-read every file before a comparison; `None` if the signature leaves it
    /// open.
    #[n(14)]
    pub checksum: Option<bool>,
    /// True if hosts scan only the paths that differ between their release and this one.
    #[n(15)]
    pub quick: Option<bool>,
    /// What the release changes, in its author's words.
    #[n(16)]
    pub message: Option<ReleaseMessage>,
    /// Batches of a commit with pauses; `None` for a commit without.
    #[n(17)]
    pub paused: Option<PausedCommit>,
}

/// A legal path as prefix of a scope.
pub type Prefix = super::TreePath;

/// Reason for refusing a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not the CBOR of a header.
    #[error("release header cannot be decoded: {0}")]
    Encoding(String),
    /// Written by a newer makuo.
    #[error(
        "release header has format {0}, this makuo reads up to {FORMAT_PACKED}: \
         install a newer makuo on this host"
    )]
    Format(u16),
    /// A size or count beyond its cap, or unreadable rules.
    #[error("release header is not legal: {0}")]
    Illegal(String),
}

impl From<PathError> for HeaderError {
    fn from(e: PathError) -> Self {
        HeaderError::Illegal(e.to_string())
    }
}

impl Header {
    /// Returns the bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(self)
    }

    /// Decodes a header and checks all caps. The format comes first, so that a newer header is
    /// refused as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        if bytes.len() > MAX_HEADER_BYTES {
            return Err(HeaderError::Illegal(format!("{} bytes", bytes.len())));
        }

        let broken = |e: minicbor::decode::Error| HeaderError::Encoding(e.to_string());
        let mut peek = minicbor::Decoder::new(bytes);
        peek.array().map_err(broken)?;
        let format = peek.u16().map_err(broken)?;
        if !(FORMAT..=FORMAT_PACKED).contains(&format) {
            return Err(HeaderError::Format(format));
        }

        let header: Header = minicbor::decode(bytes).map_err(broken)?;
        header.check()?;
        Ok(header)
    }

    /// Hash of the release's effect on a tree, independent of serial, time and targets. Two
    /// releases with the same hash are one in a host's history. The mtime of the root directory
    /// does not count.
    pub fn content(&self) -> BlockHash {
        let top = self.top.clone().map(|top| Top {
            mtime: Mtime { secs: 0, nanos: 0 },
            ..top
        });
        BlockHash::of(&to_vec(&(&self.root, &top, &self.scope, &self.rules)))
    }

    /// Returns true if the release governs the whole tree. A release with a scope does not, nor one
    /// of only the root directory's own entries, as of files sent by hand without subdirectories.
    pub fn is_whole(&self) -> bool {
        let is_shallow =
            |e: &Exclude| e.base.is_none() && matches!(e.pattern.as_bytes(), b"/*" | b"/*/");
        let is_shallow = || {
            self.rules
                .patterns()
                .is_ok_and(|patterns| patterns.iter().any(is_shallow))
        };

        self.scope.is_empty() && (self.top.is_some() || !is_shallow())
    }

    fn check(&self) -> Result<(), HeaderError> {
        let illegal = |why: &str| Err(HeaderError::Illegal(why.to_string()));
        let root = &self.root;
        if self.scope.len() > MAX_PATTERNS
            || self.scope.iter().any(|p| p.as_bytes().len() > MAX_PATH)
        {
            return illegal("too many scope prefixes");
        }

        if self.targets.len() > MAX_PATTERNS
            || self
                .targets
                .iter()
                .any(|t| t.is_empty() || t.len() > MAX_PATTERN_BYTES)
        {
            return illegal("too many or too long target patterns");
        }

        if root.block.size as usize > super::node::MAX_NODE_BYTES || root.nodes == 0 {
            return illegal("a root of an illegal size");
        }

        if root.nodes > MAX_NODES
            || root
                .nodes
                .checked_add(root.blocks)
                .is_none_or(|sum| sum > MAX_ORDINALS)
        {
            return illegal("more blocks than any tree has");
        }

        if root.entries > MAX_ENTRIES {
            return illegal(&format!("{} entries, more than any tree has", root.entries));
        }

        if root.bytes > MAX_RELEASE_BYTES {
            return illegal(&format!("{} bytes, more than any tree has", root.bytes));
        }

        if self.format < self.rules.format() {
            return illegal("packed excludes in a format without them");
        }

        self.top
            .as_ref()
            .map_or(Ok(()), Top::check)
            .map_err(HeaderError::Illegal)?;

        self.paused
            .as_ref()
            .map_or(Ok(()), PausedCommit::check)
            .map_err(HeaderError::Illegal)?;

        self.rules.check().map_err(HeaderError::Illegal)
    }
}

/// Largest number of nodes and blocks of a release.
pub const MAX_ORDINALS: u64 = 1 << 40;
/// Largest number of nodes of a manifest: a host visits all of them, and a manifest may name one
/// many times.
pub const MAX_NODES: u64 = 1 << 24;
/// Largest number of entries of a release.
pub const MAX_ENTRIES: u64 = 1 << 28;
/// Largest size of a release's files in bytes: a pebibyte.
pub const MAX_RELEASE_BYTES: u64 = 1 << 50;

/// A header together with the exact bytes to be signed.
#[derive(Debug, Clone)]
pub struct Release {
    header: Arc<Header>,
    bytes: Arc<[u8]>,
    id: ReleaseId,
}

impl Release {
    /// Encodes `header`, once.
    pub fn new(header: Header) -> Result<Self, HeaderError> {
        header.check()?;
        header.rules.excluded().map_err(HeaderError::Illegal)?;
        let bytes = header.encode();
        if bytes.len() > MAX_HEADER_BYTES {
            return Err(HeaderError::Illegal(format!("{} bytes", bytes.len())));
        }

        Ok(Self {
            id: ReleaseId(BlockHash::of(&bytes)),
            header: Arc::new(header),
            bytes: bytes.into(),
        })
    }

    /// Decodes the release with the header `bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, HeaderError> {
        let header = Header::decode(bytes)?;
        Ok(Self {
            id: ReleaseId(BlockHash::of(bytes)),
            header: Arc::new(header),
            bytes: bytes.into(),
        })
    }

    /// Returns the decoded header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the exact bytes of the header.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the identity of the release.
    pub fn id(&self) -> ReleaseId {
        self.id
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.header.tree, self.header.serial)
    }
}

#[cfg(test)]
pub(crate) mod tests;
