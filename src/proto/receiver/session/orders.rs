//! The order that the disk works on, and those beside it.

use crate::wire::message::SignedOrder;

/// Orders of a session.
#[derive(Debug)]
pub(super) struct Orders {
    /// An order is in progress on the disk.
    working: bool,
    /// Order of the sender received in the meantime.
    next: Option<SignedOrder>,
    /// Commit order attached to the offer; all other orders are ignored.
    grant: Option<SignedOrder>,
}

impl Orders {
    /// Starts a session whose offer has the commit order `grant` attached.
    pub(super) fn new(grant: Option<SignedOrder>) -> Self {
        Self {
            working: false,
            next: None,
            grant,
        }
    }

    /// Returns true for a catch-up session with a grant.
    pub(super) fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    /// Commit order attached to the offer.
    pub(super) fn grant(&self) -> Option<&SignedOrder> {
        self.grant.as_ref()
    }

    /// Returns true if an order is in progress on the disk.
    pub(super) fn is_working(&self) -> bool {
        self.working
    }

    /// Begins the work on an order.
    pub(super) fn begin(&mut self) {
        self.working = true;
    }

    /// Ends the work on an order.
    pub(super) fn finish(&mut self) {
        self.working = false;
    }

    /// Keeps `order` until the order in progress turns out to be invalid.
    pub(super) fn keep_next(&mut self, order: SignedOrder) {
        self.next = Some(order);
    }

    /// Takes the order received in the meantime.
    pub(super) fn take_next(&mut self) -> Option<SignedOrder> {
        self.next.take()
    }
}
