//! Orders issued in a session: the present one, and all that were sent.

use super::batches::Batches;
use super::hosts::Host;
use crate::id::HostName;
use crate::wire::message::{HostSet, Order, OrderKind, SignedOrder};

/// Orders issued so far.
#[derive(Debug, Default)]
pub struct IssuedOrders {
    /// Batches of the commit.
    pub batches: Batches,
    decision: Option<OrderKind>,
    /// Hosts named by the present order; `None` for all.
    named: Option<HostSet>,
    /// Whether the present order is for all hosts but those.
    excludes: bool,
    /// The present order, until first sent.
    unsent: Option<AddressedOrder>,
    signed: Option<SignedOrder>,
    /// Orders sent.
    sent: Vec<AddressedOrder>,
}

/// An order with its named hosts.
#[derive(Debug, Clone)]
pub struct AddressedOrder {
    /// The order.
    pub order: Order,
    /// Hosts named by the order; `None` for all.
    pub named: Option<HostSet>,
}

impl IssuedOrders {
    /// The decision.
    pub fn decision(&self) -> Option<OrderKind> {
        self.decision
    }

    /// Withdraws the decision of an order that could not be signed.
    pub fn withdraw(&mut self) {
        self.decision = None;
    }

    /// Issues an order.
    pub fn issue(&mut self, addressed: AddressedOrder) {
        self.decision = Some(addressed.order.kind);
        self.named = addressed.named.clone();
        self.excludes = addressed.order.except.is_some();
        self.unsent = Some(addressed);
    }

    /// Takes the signed order.
    pub fn on_signed(&mut self, signed: SignedOrder) {
        self.signed = Some(signed);
    }

    /// The last signed order.
    pub fn signed(&self) -> Option<&SignedOrder> {
        self.signed.as_ref()
    }

    /// Hosts named by the present order.
    pub fn named(&self) -> Option<&HostSet> {
        self.named.as_ref()
    }

    /// Records that the present order was sent.
    pub fn on_sent(&mut self) {
        self.sent.extend(self.unsent.take());
    }

    /// Returns whether the present order to prepare or commit is for the host.
    pub fn is_addressed(&self, host: &Host) -> bool {
        self.named
            .as_ref()
            .is_none_or(|named| named.has(&host.name) != self.excludes)
    }

    /// Returns whether an order of this kind for the host `name` was sent.
    pub fn was_sent(&self, kind: OrderKind, name: &HostName) -> bool {
        self.sent.iter().any(|AddressedOrder { order, named }| {
            order.kind == kind && order.is_for(name, named.as_ref())
        })
    }
}
