//! The commit around a command, and the environment variables to describe the commit.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use minicbor::{Decode, Encode};

use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;

/// Phase of a commit in which a command runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Phase {
    /// Before any change.
    #[n(0)]
    Before,
    /// After the commit.
    #[n(1)]
    After,
    /// Health check after the commit.
    #[n(2)]
    Health,
}

impl Phase {
    /// Key in the configuration and value of `MAKUO_PHASE`.
    pub fn key(self) -> &'static str {
        match self {
            Phase::Before => "before",
            Phase::After => "after",
            Phase::Health => "health",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Phase::Before => "before hook",
            Phase::After => "after hook",
            Phase::Health => "health check",
        })
    }
}

/// Reason for the change of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Cause {
    /// Commit of a release.
    #[n(0)]
    Commit,
    /// Return to the previous release.
    #[n(1)]
    Revert,
    /// No change: undoes the preparations of a hook before the commit.
    #[n(2)]
    Abort,
}

impl Cause {
    /// Value of `MAKUO_CAUSE`.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Commit => "commit",
            Cause::Revert => "revert",
            Cause::Abort => "abort",
        }
    }
}

/// Description of the commit for a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HookContext {
    /// Name of the tree.
    #[n(0)]
    pub tree: TreeName,
    /// New release of the tree.
    #[n(1)]
    pub serial: Serial,
    /// Previous release, if any.
    #[n(2)]
    pub previous: Option<Serial>,
    /// Identity of the release.
    #[n(3)]
    pub release: ReleaseId,
    /// Root directory of the tree.
    #[n(4)]
    #[cbor(with = "path_bytes")]
    pub path: PathBuf,
    /// This host.
    #[n(5)]
    pub host: HostName,
    /// Sender of the release, if known.
    #[n(6)]
    pub sender: Option<HostName>,
    /// Reason for the change of the tree.
    #[n(7)]
    pub cause: Cause,
}

impl HookContext {
    /// Environment variables. Unknown values are empty instead of missing, so that `set -u` does
    /// not fail.
    pub(super) fn variables(&self, phase: Phase) -> [(&'static str, OsString); 9] {
        let text = |text: String| OsString::from(text);
        let previous = self.previous.map(|s| s.to_string()).unwrap_or_default();
        let sender = self.sender.as_ref().map(|s| s.to_string());

        [
            ("MAKUO_TREE", text(self.tree.to_string())),
            ("MAKUO_SERIAL", text(self.serial.to_string())),
            ("MAKUO_PREVIOUS", text(previous)),
            ("MAKUO_RELEASE", text(self.release.to_string())),
            ("MAKUO_PATH", self.path.clone().into_os_string()),
            ("MAKUO_HOST", text(self.host.to_string())),
            ("MAKUO_SENDER", text(sender.unwrap_or_default())),
            ("MAKUO_PHASE", text(phase.key().to_string())),
            ("MAKUO_CAUSE", text(self.cause.word().to_string())),
        ]
    }
}

/// Encodes a path as bytes: no path has to be UTF-8.
mod path_bytes {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use minicbor::bytes::ByteVec;
    use minicbor::decode::{Decoder, Error};
    use minicbor::encode::{self, Encoder, Write};

    pub(super) fn encode<C, W: Write>(
        path: &Path,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), encode::Error<W::Error>> {
        e.bytes(path.as_os_str().as_bytes())?.ok()
    }

    pub(super) fn decode<C>(d: &mut Decoder<'_>, c: &mut C) -> Result<PathBuf, Error> {
        let bytes: ByteVec = d.decode_with(c)?;
        Ok(OsString::from_vec(bytes.into()).into())
    }
}
