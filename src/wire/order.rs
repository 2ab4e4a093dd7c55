//! Orders: a sender's signed decisions, the hosts concerned, and the tombstones that outlive the
//! session.
//!
//! An order stays within [`MAX_ORDER`] bytes for any number of hosts, because older hosts accept no
//! more. An order that names hosts contains the hash of a [`HostSet`], which travels beside the
//! order.

use minicbor::{Decode, Encode};

use crate::block::BlockHash;
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::manifest::{Release, ReleaseId};

/// Largest accepted signature in bytes. Verification itself accepts at most
/// [`crate::keys::MAX_SIGNATURE_BYTES`].
pub const MAX_SIGNATURE_FIELD: usize = 2048;
/// Largest order in bytes.
pub const MAX_ORDER: usize = 512;
/// Largest number of hosts that one order names.
pub const MAX_NAMED_HOSTS: usize = 12_000;

/// Decision of the sender for a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum OrderKind {
    /// Switch to the release.
    #[n(0)]
    Commit,
    /// Keep the current tree.
    #[n(1)]
    Abort,
    /// Run the commands before a commit, and report whether they agree.
    #[n(2)]
    Prepare,
    /// Take the release back if it is there; else keep the current tree.
    #[n(3)]
    Revert,
    /// Keep the release staged until a later session commits or aborts it.
    #[n(4)]
    Stage,
}

/// The signed bytes of an order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Order {
    /// Session of the order.
    #[n(0)]
    pub session: SessionId,
    /// Release of the order.
    #[n(1)]
    pub release: ReleaseId,
    /// The decision.
    #[n(2)]
    pub kind: OrderKind,
    /// Last host, in the order of names, that the order is for; `None` means all hosts. Read only
    /// by hosts that do not know [`Order::hosts`].
    #[n(3)]
    pub up_to: Option<HostName>,
    /// The tree, so that the order can be checked without the release.
    #[n(4)]
    pub tree: Option<TreeName>,
    /// Serial of the release.
    #[n(5)]
    pub serial: Option<Serial>,
    /// Hash of the [`HostSet`] that the order is for; `None` means all hosts, or those selected by
    /// `up_to`.
    #[n(6)]
    pub hosts: Option<BlockHash>,
    /// Hash of the [`HostSet`] of hosts that were silent when the order was given. They have left
    /// the session, and commit by this order only when the release is passed on to them. `None` if
    /// there are none, or if the order is for some hosts only.
    #[n(7)]
    pub except: Option<BlockHash>,
}

impl Order {
    /// An order about `release`, for all hosts.
    pub fn new(session: SessionId, release: &Release, kind: OrderKind) -> Self {
        let tree = Some(release.header().tree.clone());
        let serial = Some(release.header().serial);
        Self {
            session,
            release: release.id(),
            kind,
            up_to: None,
            tree,
            serial,
            hosts: None,
            except: None,
        }
    }

    /// Returns whether the order is for the host `name` in its session; `named` is the set of hosts
    /// sent with the order.
    pub fn is_for(&self, name: &HostName, named: Option<&HostSet>) -> bool {
        let is_silent =
            |hash: &BlockHash| named.is_none_or(|set| set.hash() != *hash || set.has(name));
        self.permits(name, named) && !self.except.as_ref().is_some_and(is_silent)
    }

    /// Returns whether the host `name` may follow the order, in its session or when the release is
    /// passed on to it.
    pub fn permits(&self, name: &HostName, named: Option<&HostSet>) -> bool {
        match &self.hosts {
            Some(hash) => named.is_some_and(|set| set.hash() == *hash && set.has(name)),
            None => self.up_to.as_ref().is_none_or(|last| name <= last),
        }
    }

    /// Returns whether every host may commit by the order.
    pub fn commits_everywhere(&self) -> bool {
        self.kind == OrderKind::Commit && self.hosts.is_none() && self.up_to.is_none()
    }

    /// The tombstone left by an order to abort or revert. `None` for other orders, and for orders
    /// without tree and serial from older senders.
    pub fn tombstone(&self) -> Option<(&TreeName, Tombstone)> {
        let revert = match self.kind {
            OrderKind::Abort => false,
            OrderKind::Revert => true,
            OrderKind::Commit | OrderKind::Prepare | OrderKind::Stage => return None,
        };

        Some((
            self.tree.as_ref()?,
            Tombstone {
                serial: self.serial?,
                release: self.release,
                revert,
            },
        ))
    }
}

/// Set of hosts, each represented by the first bytes of the hash of its name: small enough for a
/// message in a large fleet.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct HostSet(
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    Vec<u8>,
);

/// Bytes of one host's hash. The probability that a name collides with one of ten thousand others
/// is 1 in 10^8.
const HOST_HASH: usize = 5;

impl HostSet {
    /// The set of these hosts.
    pub fn of<'a>(names: impl Iterator<Item = &'a HostName>) -> Self {
        let mut hashes: Vec<[u8; HOST_HASH]> = names.map(host_hash).collect();
        hashes.sort_unstable();
        hashes.dedup();
        Self(hashes.concat())
    }

    /// Returns whether the set contains the host `name`.
    pub fn has(&self, name: &HostName) -> bool {
        self.0.as_chunks().0.binary_search(&host_hash(name)).is_ok()
    }

    /// Hash that an order contains for this set.
    pub fn hash(&self) -> BlockHash {
        BlockHash::of(&self.0)
    }
}

fn host_hash(name: &HostName) -> [u8; HOST_HASH] {
    let mut hash = [0; HOST_HASH];
    hash.copy_from_slice(&BlockHash::of(name.as_str().as_bytes()).0[..HOST_HASH]);
    hash
}

/// Order with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignedOrder {
    /// Exact bytes of the order.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub order: Vec<u8>,
    /// Signature of the order.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
    /// The hosts that the order names or excepts, if any: the order contains their hash.
    #[n(2)]
    pub hosts: Option<HostSet>,
}

/// A release that must not spread, after an order to abort or revert it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Tombstone {
    /// Serial of the release.
    #[n(0)]
    pub serial: Serial,
    /// The release.
    #[n(1)]
    pub release: ReleaseId,
    /// Whether a host with the release rolls back; else the host keeps the release without passing
    /// it on.
    #[n(2)]
    pub revert: bool,
}

impl SignedOrder {
    /// Returns whether order, signature and names are within their caps.
    pub fn fits(&self) -> bool {
        let named = self.hosts.as_ref().map_or(0, |set| set.0.len());
        self.order.len() <= MAX_ORDER
            && self.signature.len() <= MAX_SIGNATURE_FIELD
            && named <= MAX_NAMED_HOSTS * HOST_HASH
    }

    /// Decodes the order if it is for the host `name`.
    pub fn for_host(&self, name: &HostName) -> Option<Order> {
        Order::decode(&self.order).filter(|order| order.is_for(name, self.hosts.as_ref()))
    }
}

impl Order {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        crate::manifest::node::to_vec(self)
    }

    /// Decodes an order.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        minicbor::decode(bytes).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Message;
    use super::*;

    fn host(name: &str) -> HostName {
        HostName::new(name).expect("legal")
    }

    #[test]
    fn an_order_is_for_the_hosts_that_it_names_and_for_no_name_between_them() {
        let names: Vec<HostName> = (0..10_000).map(|n| host(&format!("web{n:05}"))).collect();
        let named = HostSet::of(names.iter().step_by(2));
        let order = Order {
            session: SessionId(1),
            release: ReleaseId(BlockHash::of(b"one")),
            kind: OrderKind::Commit,
            up_to: Some(host("web09998")),
            tree: None,
            serial: None,
            hosts: Some(named.hash()),
            except: None,
        };

        let is_for = |name: &HostName| order.is_for(name, Some(&named));
        assert!(
            names.iter().step_by(2).all(is_for) && !names.iter().skip(1).step_by(2).any(is_for)
        );
        assert!(
            !order.is_for(&names[0], None),
            "the names did not come with it"
        );

        assert!(
            !order.is_for(&names[1], Some(&HostSet::of(names.iter()))),
            "other names than the signed ones"
        );
        let signed = SignedOrder {
            order: order.encode(),
            signature: vec![0; 100],
            hosts: Some(named),
        };

        let said = Message::Order(signed);
        assert_eq!(
            Message::decode(&said.encode()),
            Ok(said),
            "ten thousand hosts fit"
        );

        let rest = Order {
            up_to: None,
            hosts: None,
            except: order.hosts,
            ..order.clone()
        };

        let in_session = |name: &HostName, set: Option<&HostSet>| {
            (rest.is_for(name, set), rest.permits(name, set))
        };
        let silent = HostSet::of(names.iter().step_by(2));
        assert_eq!(in_session(&names[1], Some(&silent)), (true, true));
        assert_eq!(
            in_session(&names[0], Some(&silent)),
            (false, true),
            "it may follow when the release is passed on"
        );

        assert_eq!(
            in_session(&names[1], None),
            (false, true),
            "it is not known who was silent"
        );

        let ranged = Order {
            hosts: None,
            up_to: Some(host("web2")),
            ..order
        };

        assert!(ranged.is_for(&host("web1"), None) && !ranged.is_for(&host("web3"), None));
    }

    #[test]
    fn an_order_of_a_sender_of_before_is_read() {
        let old = minicbor::to_vec((
            SessionId(1),
            ReleaseId(BlockHash::of(b"one")),
            OrderKind::Abort,
            None::<HostName>,
        ));
        let order = Order::decode(&old.expect("a Vec")).expect("an order");
        assert_eq!((order.kind, order.tombstone()), (OrderKind::Abort, None));
    }
}
