//! The head of a tree: the only object of a repository that changes.
//!
//! It names the releases that the repository keeps, the newest first, with the places of their
//! records. Signature and content are one object, so that a reader never sees one without the
//! other. The signature has a namespace of its own.

mod pins;
mod times;

pub use pins::{MAX_HEAD_PINS, PinChange, split_kept};
pub use times::{HeadTimes, HeadValidity, Staleness};

use minicbor::{Decode, Encode};

use super::object::ObjectPath;
use super::pack::{Extent, PackName};
use crate::block::BlockHash;
use crate::id::{Serial, TreeName};
use crate::keys::{
    AuthorizedKeys, Denied, MAX_SIGNATURE_BYTES, Namespace, PublicKey, Role, SignatureError, verify,
};
use crate::manifest::ReleaseId;
use crate::manifest::node::to_vec;
use crate::units::WallTime;
use crate::wire::message::SignedOrder;

/// Format of the repository and its objects.
pub const REPOSITORY_FORMAT: u16 = 1;
/// Largest head in bytes, with its signature.
pub const MAX_HEAD_BYTES: usize = 4096;
/// Largest number of releases that a head keeps.
pub const MAX_KEPT: usize = 16;
/// Largest number of later orders in a head.
pub const MAX_HEAD_ORDERS: usize = 4;
/// Largest record of a release in bytes: a header, and orders for the hosts of a large fleet.
pub const MAX_RECORD_BYTES: u32 = 1 << 20;
/// Largest number of bytes before a record that are read with it.
pub const MAX_LEAD_BYTES: u32 = 256 << 10;

/// The signed part of a head.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Head {
    /// Format of the objects, see [`REPOSITORY_FORMAT`].
    #[n(0)]
    pub format: u16,
    /// The tree.
    #[n(1)]
    pub tree: TreeName,
    /// Time of the signature.
    #[n(2)]
    pub made: WallTime,
    /// Time from which the head is stale: its publisher signs it again before.
    #[n(3)]
    pub valid_until: Option<WallTime>,
    /// The newest release.
    #[n(4)]
    pub release: ReleaseId,
    /// The kept releases, by falling serial; the first is the newest.
    #[n(5)]
    pub kept: Vec<HeadRelease>,
    /// Orders after the publication: to abort or revert a release.
    #[n(6)]
    pub orders: Vec<SignedOrder>,
    /// Kept releases that stay until their pins end; `None` without any.
    #[n(7)]
    pub pinned: Option<Vec<Serial>>,
    /// Number of releases that stay by their age; `None` in heads of older publishers.
    #[n(8)]
    pub by_age: Option<u8>,
}

/// A release in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
pub struct HeadRelease {
    /// Its serial.
    #[n(0)]
    pub serial: Serial,
    /// Pack with its record.
    #[n(1)]
    pub pack: PackName,
    /// First byte of the record.
    #[n(2)]
    pub offset: u32,
    /// Size of the record in bytes.
    #[n(3)]
    pub len: u32,
    /// SHA-256 of the record.
    #[n(4)]
    pub hash: BlockHash,
    /// Bytes before the record that a host reads with it: all of a small publication, else the
    /// top of the manifest.
    #[n(5)]
    pub lead: u32,
    /// Bytes before the record with the root of the manifest and its places page, for a publisher;
    /// 0 if they are elsewhere.
    #[n(6)]
    pub top: u32,
}

/// Encoding of a head with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignedHead {
    /// Exact bytes of the head.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub head: Vec<u8>,
    /// Signature of the head.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

/// A head that an authorized key signed.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedHead {
    head: Head,
}

/// Reason for refusing a head.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// Not the CBOR of a head, or beyond a cap.
    #[error("the head is not legal: {0}")]
    Illegal(String),
    /// Written by a newer makuo.
    #[error(
        "the repository has format {0}, and this makuo reads format {REPOSITORY_FORMAT}: install a \
         newer makuo"
    )]
    Format(u16),
    /// Signed for another tree.
    #[error("the head is that of the tree {0}")]
    OtherTree(TreeName),
    /// Not signed.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// Signed by a key that may not.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl HeadError {
    /// Returns whether the head is as its signer made it. Otherwise it may have been damaged on the
    /// way, and another look is worth it.
    pub fn is_signed(&self) -> bool {
        !matches!(self, HeadError::Illegal(_) | HeadError::Signature(_))
    }
}

/// Path of the head of `tree`: `trees/www/head`.
pub fn head_object(tree: &TreeName) -> ObjectPath {
    ObjectPath::new(&format!("trees/{tree}/head")).expect("a tree's name is legal in a path")
}

/// The tree whose head has this path; `None` for other objects.
pub fn tree_of_head(object: &ObjectPath) -> Option<TreeName> {
    let name = object.as_str().strip_prefix("trees/")?;
    TreeName::new(name.strip_suffix("/head")?).ok()
}

impl Head {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(self)
    }

    /// Decodes a head and checks all caps. The format comes first, so that a newer head is refused
    /// as such.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(HeadError::Illegal(format!("{} bytes", bytes.len())));
        }

        let broken = |e: minicbor::decode::Error| HeadError::Illegal(e.to_string());
        let mut peek = minicbor::Decoder::new(bytes);
        peek.array().map_err(broken)?;
        match peek.u16().map_err(broken)? {
            REPOSITORY_FORMAT => {}
            other => return Err(HeadError::Format(other)),
        }

        let head: Head = minicbor::decode(bytes).map_err(broken)?;
        head.check()?;
        Ok(head)
    }

    /// The kept release with this serial.
    pub fn kept(&self, serial: Serial) -> Option<&HeadRelease> {
        self.kept.iter().find(|kept| kept.serial == serial)
    }

    /// Adds those of `orders` that a head may have, the most important first, while they fit.
    pub(super) fn add_orders<'a>(&mut self, orders: impl Iterator<Item = &'a SignedOrder>) {
        let room = MAX_HEAD_BYTES - MAX_SIGNATURE_BYTES;
        for order in orders {
            let fits = order.fits() && order.hosts.is_none();
            if !fits || self.orders.contains(order) || self.orders.len() == MAX_HEAD_ORDERS {
                continue;
            }
            self.orders.push(order.clone());
            if to_vec(self).len() > room {
                self.orders.pop();
            }
        }
    }

    /// Serial of the newest release.
    pub fn serial(&self) -> Serial {
        self.kept.first().map_or(Serial(0), |newest| newest.serial)
    }

    fn check(&self) -> Result<(), HeadError> {
        let illegal = |why: &str| Err(HeadError::Illegal(why.to_string()));
        if !(1..=MAX_KEPT).contains(&self.kept.len())
            || !self.kept.is_sorted_by(|a, b| a.serial > b.serial)
        {
            return illegal("too many releases, or out of order");
        }

        if self.serial().0 > Serial::MAX_ACCEPTED {
            return illegal("a serial that would use up the later ones");
        }

        let pinned = self.pinned.as_deref().unwrap_or_default();
        if pinned.len() > MAX_HEAD_PINS || pinned.iter().any(|pin| self.kept(*pin).is_none()) {
            return illegal("pins of releases that it does not keep, or too many");
        }

        let fits = |order: &SignedOrder| order.fits() && order.hosts.is_none();
        if self.orders.len() > MAX_HEAD_ORDERS || !self.orders.iter().all(fits) {
            return illegal("too many or too large orders");
        }

        if self.kept.iter().all(HeadRelease::is_legal) {
            Ok(())
        } else {
            illegal("a record outside of its pack")
        }
    }
}

impl HeadRelease {
    /// Bytes that a host reads: the record and the lead.
    pub fn window(&self) -> Extent {
        self.record_after(self.lead)
    }

    /// Bytes that a publisher reads: the record and the top.
    pub fn top_window(&self) -> Extent {
        self.record_after(self.top)
    }

    /// Bytes of the record.
    pub fn record(&self) -> Extent {
        self.record_after(0)
    }

    /// The record with as many bytes before it.
    fn record_after(&self, before: u32) -> Extent {
        Extent {
            pack: self.pack,
            offset: self.offset - before,
            len: self.len + before,
        }
    }

    fn is_legal(&self) -> bool {
        let before = self.lead.max(self.top);
        before <= self.offset.min(MAX_LEAD_BYTES)
            && self.len <= MAX_RECORD_BYTES
            && self.record().is_legal()
    }
}

impl SignedHead {
    /// The object.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(self)
    }

    /// Decodes the object; the head is not checked yet, see [`SignedHead::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Self, HeadError> {
        let illegal = |why: String| HeadError::Illegal(why);
        if bytes.len() > MAX_HEAD_BYTES {
            return Err(illegal(format!("{} bytes", bytes.len())));
        }

        let signed: Self = minicbor::decode(bytes).map_err(|e| illegal(e.to_string()))?;
        if signed.signature.len() > MAX_SIGNATURE_BYTES {
            return Err(illegal("too long a signature".into()));
        }

        Ok(signed)
    }

    /// Verifies the head of `tree` at `now`: signed by a key that may deploy or roll back. The key
    /// `own` may do so without being listed, for publishers.
    pub fn verify(
        &self,
        tree: &TreeName,
        keys: &AuthorizedKeys,
        own: Option<&PublicKey>,
        now: WallTime,
    ) -> Result<VerifiedHead, HeadError> {
        let key = verify(Namespace::HEAD, &self.head, &self.signature)?;
        if own != Some(&key) {
            // A key without either right is told of the one that most need.
            keys.allows(&key, tree, Role::Rollback, now)
                .or_else(|_| keys.allows(&key, tree, Role::Deploy, now))?;
        }

        let head = Head::decode(&self.head)?;
        if head.tree != *tree {
            return Err(HeadError::OtherTree(head.tree));
        }

        Ok(VerifiedHead { head })
    }
}

impl VerifiedHead {
    /// The head.
    pub fn head(&self) -> &Head {
        &self.head
    }
}

#[cfg(test)]
mod tests;
