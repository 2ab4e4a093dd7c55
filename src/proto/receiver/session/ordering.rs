//! Handles the sender's signed orders in a session, from Ready to the end.

use std::sync::Arc;

use super::Session;
use crate::id::Serial;
use crate::proto::receiver::disk::{Ask, Ordered, ReasonText};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, SignedOrder};

impl Session {
    /// Returns true for a catch-up session with a grant, which gives way to any other.
    pub fn is_granted(&self) -> bool {
        self.orders.is_granted()
    }

    /// Returns true if the release is in place and the sender may still revert it.
    pub fn may_go_back(&self) -> bool {
        !self.life.is_closed() && self.state.is_in_place()
    }

    /// Returns true if an order is in progress on the disk.
    pub fn is_ordering(&self) -> bool {
        self.orders.is_working()
    }

    /// Returns true if the sender has not acknowledged the outcome of its order.
    pub fn is_unheard(&self) -> bool {
        let ended = self.life.is_closed() || self.life.is_closing();
        self.state.is_outcome() && !ended && !self.messages.is_empty()
    }

    /// Handles an order.
    ///
    /// The sender retransmits an order until the host answers, so an order too early for the stage
    /// is ignored. While the disk works on one order, the latest other one waits: a forged order in
    /// progress must not block the real one.
    pub fn on_order(&mut self, signed: SignedOrder) {
        if self.is_granted() {
            return;
        }

        let Some(order) = signed.for_host(self.state.name()) else {
            return;
        };

        let stage = self.state.stage();
        let fits = match order.kind {
            OrderKind::Prepare | OrderKind::Stage => {
                stage == HostStage::Ready && self.sender.may_order()
            }
            OrderKind::Commit => {
                matches!(stage, HostStage::Ready | HostStage::Prepared) && self.sender.may_order()
            }
            OrderKind::Abort => !self.is_over(),
            OrderKind::Revert => !self.is_over() || self.may_go_back(),
        };

        if self.orders.is_working() {
            self.orders.keep_next(signed);
        } else if fits && !self.life.is_closed() {
            self.follow(signed);
        }
    }

    /// Passes an order to the disk.
    pub fn follow(&mut self, signed: SignedOrder) {
        self.orders.begin();
        self.ask(Ask::Order(Arc::new(signed)));
    }

    /// Passes the commit order of the offer to the disk.
    pub(super) fn follow_grant(&mut self) {
        if let Some(grant) = self.orders.grant().cloned() {
            self.follow(grant);
        }
    }

    /// Handles the outcome of an order; `None` is an invalid one.
    pub(super) fn on_ordered(&mut self, now: Moment, outcome: Option<Ordered>) {
        self.orders.finish();

        let Some(outcome) = outcome else {
            return self.on_invalid_order(now);
        };

        self.orders.take_next();
        match outcome {
            Ordered::Prepared => self.enter(now, HostStage::Prepared),
            Ordered::Vetoed(why) => self.refuse(now, why),
            Ordered::Committed { serial, checks } => self.on_committed(now, serial, checks),
            Ordered::Reverted(text) => {
                let text = self.state.with_cause(text);
                self.end(now, HostStage::Reverted, text);
            }
            Ordered::Stuck(why) => self.end(now, HostStage::Stuck, why),
            Ordered::Aborted => {
                self.end(now, HostStage::Aborted, "aborted by the sender".into());
            }
            Ordered::Staged(text) => {
                if let Some(text) = text {
                    self.state.explain(text);
                }
                self.messages.clear();
                self.enter(now, HostStage::Staged);
            }
            Ordered::Failed(why) => self.end(now, HostStage::Failed, why),
            Ordered::Torn(why) => {
                self.state.mark_torn();
                self.end(now, HostStage::Failed, why);
            }
        }
    }

    fn on_invalid_order(&mut self, now: Moment) {
        if self.is_granted() && self.state.stage() < HostStage::Checking {
            self.end(now, HostStage::Failed, "the commit order is invalid".into());
        } else if let Some(next) = self.orders.take_next() {
            self.on_order(next);
        }
    }

    fn on_committed(&mut self, now: Moment, serial: Serial, checks: bool) {
        self.state.set_serial(serial);
        self.messages.clear();

        if checks {
            self.enter(now, HostStage::Checking);
            self.orders.begin();
            self.ask(Ask::Check);
        } else {
            self.enter(now, HostStage::Committed);
        }
    }

    /// Handles the result of the hooks and the health check after a commit.
    pub(super) fn on_checked(&mut self, now: Moment, outcome: Result<(), ReasonText>) {
        self.orders.finish();
        match outcome {
            Ok(()) => self.enter(now, HostStage::Committed),
            Err(why) => self.end(now, HostStage::Unhealthy, why),
        }
    }
}
