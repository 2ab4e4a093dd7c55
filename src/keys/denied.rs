//! The refusal of a key, with the line to add.

use std::fmt;
use std::path::PathBuf;

use super::role::Role;
use super::{Fingerprint, PublicKey, expiry, shown};
use crate::id::TreeName;
use crate::units::WallTime;

/// Reason why a key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialReason {
    /// No line has the key.
    NotListed,
    /// The lines of the key are for other trees.
    OtherTree,
    /// The lines of the key for this tree lack the role.
    LacksRole,
    /// The line expired at this time.
    Expired(WallTime),
    /// The security key was not touched.
    Untouched,
}

/// Refusal of a key. The message explains how to allow the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    /// The signing key.
    pub key: Box<PublicKey>,
    /// The tree.
    pub tree: TreeName,
    /// The requested role.
    pub role: Role,
    /// Reason for the refusal.
    pub reason: DenialReason,
    /// The file with the authorized keys.
    pub file: PathBuf,
}

impl DenialReason {
    /// Order of reasons: the higher, the nearer the key came to permission.
    pub(super) fn rank(self) -> u8 {
        match self {
            DenialReason::NotListed => 0,
            DenialReason::OtherTree => 1,
            DenialReason::LacksRole => 2,
            DenialReason::Expired(_) => 3,
            DenialReason::Untouched => 4,
        }
    }
}

impl Denied {
    /// Fingerprint of the signing key.
    pub fn fingerprint(&self) -> Fingerprint {
        self.key.fingerprint()
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            tree,
            role,
            reason,
            file,
        } = self;

        let file = shown(file);
        write!(f, "key {} may not {role} {tree}: ", key.fingerprint())?;
        match reason {
            DenialReason::NotListed => write!(f, "it is not listed in {file}")?,
            DenialReason::OtherTree => write!(f, "its line in {file} is for other trees")?,
            DenialReason::LacksRole => {
                write!(f, "its line in {file} does not have the role {role}")?
            }
            DenialReason::Expired(at) => {
                write!(f, "its line in {file} expired at {}", expiry::show(*at))?
            }
            DenialReason::Untouched => write!(f, "its security key was not touched")?,
        }

        let touch = match reason {
            DenialReason::Untouched => ",no-touch-required",
            _ => "",
        };
        write!(
            f,
            "; to allow it, add this line: tree=\"{tree}\",{role}{touch} {key}"
        )
    }
}

impl std::error::Error for Denied {}
