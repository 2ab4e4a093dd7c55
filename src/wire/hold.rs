//! Signed orders to hold a tree, or to end a hold: they travel with a query, and the answer tells
//! the result.

use minicbor::{Decode, Encode};

use super::caps::{clean_text, within};
use super::order::MAX_SIGNATURE_FIELD;
use crate::id::{HostName, TreeName};
use crate::manifest::node::to_vec;

/// Largest number of hosts that one order names.
pub const MAX_HELD_HOSTS: usize = 500;
/// Largest order in bytes.
const MAX_HOLD_ORDER: usize = 40 << 10;
/// Largest number of characters of the reason of a hold.
pub const MAX_HOLD_WHY: usize = 200;
/// Largest number of characters of the name of its author.
pub const MAX_HOLD_BY: usize = 64;
/// Longest hold in seconds: 90 days.
pub const MAX_HOLD_SECONDS: u64 = 90 * 24 * 3600;

/// The signed bytes of an order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HoldOrder {
    /// Hosts of the order.
    #[n(0)]
    pub hosts: Vec<HostName>,
    /// Tree of the order; `None` means all trees of these hosts.
    #[n(1)]
    pub tree: Option<TreeName>,
    /// Time of the signature, in milliseconds by its signer's clock. A host follows only orders
    /// that are later than the last one, and not much older than its own clock.
    #[n(2)]
    pub created: u64,
    /// The hold; `None` ends it.
    #[n(3)]
    pub hold: Option<HoldTerms>,
}

/// Terms of a hold.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HoldTerms {
    /// Length in seconds, because clocks differ.
    #[n(0)]
    pub seconds: u64,
    /// Name of the person or program that holds the tree.
    #[n(1)]
    pub by: String,
    /// Reason.
    #[n(2)]
    pub why: String,
}

impl HoldTerms {
    /// The terms within their caps, as one line of printable text.
    #[must_use]
    pub fn cleaned(self) -> Self {
        let one_line = |text: &str, most| clean_text(&text.replace(['\n', '\r'], " "), most);
        Self {
            seconds: self.seconds.min(MAX_HOLD_SECONDS),
            by: one_line(&self.by, MAX_HOLD_BY),
            why: one_line(&self.why, MAX_HOLD_WHY),
        }
    }
}

impl HoldOrder {
    /// The bytes to sign.
    pub fn encode(&self) -> Vec<u8> {
        to_vec(self)
    }

    /// Decodes an order within its caps.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let order: Self = minicbor::decode(bytes).ok()?;
        let hold = order.hold.map(HoldTerms::cleaned);
        (order.hosts.len() <= MAX_HELD_HOSTS).then_some(Self { hold, ..order })
    }
}

/// Order with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct SignedHold {
    /// Exact bytes of the order.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub order: Vec<u8>,
    /// Signature of the order.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl SignedHold {
    /// Checks the caps.
    pub(super) fn check(&self) -> Result<(), String> {
        within(
            self.order.len() <= MAX_HOLD_ORDER && self.signature.len() <= MAX_SIGNATURE_FIELD,
            "too long an order or signature",
        )
    }
}

/// A hold in an answer.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct HeldReport {
    /// Seconds until it ends, because clocks differ.
    #[n(0)]
    pub left: u64,
    /// Name of the person or program that holds the tree.
    #[n(1)]
    pub by: String,
    /// Reason.
    #[n(2)]
    pub why: String,
}

impl HeldReport {
    /// Makes all text for people printable.
    pub(super) fn clean(&mut self) {
        self.by = clean_text(&self.by, MAX_HOLD_BY);
        self.why = clean_text(&self.why, MAX_HOLD_WHY);
    }
}
