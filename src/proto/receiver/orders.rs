//! What a session does with its sender's signed orders, from being ready to the end.

use std::sync::Arc;

use super::session::Session;
use super::{Ordered, Reason, Request};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{OrderKind, SignedOrder};

impl Session {
    /// Nothing more will happen, unless a commit is taken back.
    pub(super) fn is_over(&self) -> bool {
        self.stage >= HostStage::Committed || (self.audit && self.stage >= HostStage::Staging)
    }

    /// The release is in place, and the sender may still take it back.
    pub(super) fn may_go_back(&self) -> bool {
        !self.gone && matches!(self.stage, HostStage::Committed | HostStage::Unhealthy)
    }

    pub(super) fn is_ordering(&self) -> bool {
        self.ordering
    }

    /// The sender has not confirmed that it knows what became of its order.
    pub(super) fn is_unheard(&self) -> bool {
        let answered = self.stage >= HostStage::Committed && self.stage != HostStage::Refused;
        answered && !self.gone && !self.is_closing() && !self.outbox.is_empty()
    }

    /// Takes an order. The sender repeats it until we answer: one that does not fit our stage yet is heard later.
    /// While the disk looks at one, the last that came waits: others, whose signature does not hold, do not keep it out.
    pub(super) fn order(&mut self, signed: SignedOrder) {
        if self.is_granted() {
            return;
        }

        let Some(order) = signed.for_host(&self.name) else {
            return;
        };

        let fits = match order.kind {
            OrderKind::Prepare => self.stage == HostStage::Ready && self.proof.may_order(),
            OrderKind::Commit => {
                matches!(self.stage, HostStage::Ready | HostStage::Prepared)
                    && self.proof.may_order()
            }
            OrderKind::Abort => !self.is_over(),
            OrderKind::Revert => !self.is_over() || self.may_go_back(),
        };

        if self.ordering {
            self.next_order = Some(signed);
            return;
        }

        if !fits || self.gone {
            return;
        }

        self.follow(signed);
    }

    /// Lets the disk carry an order out.
    pub(super) fn follow(&mut self, signed: SignedOrder) {
        self.ordering = true;
        self.requests.push_back(Request::Order {
            session: self.id,
            order: Arc::new(signed),
        });
    }

    /// What became of an order.
    pub(super) fn ordered(&mut self, now: Moment, outcome: Option<Ordered>) {
        self.ordering = false;
        if outcome.is_some() {
            self.next_order = None;
        }

        match outcome {
            None if self.is_granted() && self.stage < HostStage::Checking => self.end(
                now,
                HostStage::Failed,
                "the order to commit is not one".into(),
            ),
            None => {
                if let Some(next) = self.next_order.take() {
                    self.order(next);
                }
            }
            Some(Ordered::Prepared) => self.enter(now, HostStage::Prepared),
            Some(Ordered::Vetoed(why)) => self.refuse(now, why),
            Some(Ordered::Committed { serial, checks }) => {
                self.serial = serial;
                self.outbox.clear();
                self.enter(
                    now,
                    if checks {
                        HostStage::Checking
                    } else {
                        HostStage::Committed
                    },
                );
                if checks {
                    self.ordering = true;
                    self.requests.push_back(Request::Check(self.id));
                }
            }
            Some(Ordered::Reverted(text)) => {
                // At the host that was the reason, the reason stays to be seen.
                let why = self
                    .text
                    .take()
                    .filter(|_| self.stage == HostStage::Unhealthy);
                let text = why.map_or(text.clone(), |why| format!("{text}, for the {why}"));
                self.end(now, HostStage::Reverted, text);
            }
            Some(Ordered::Stuck(why)) => self.end(now, HostStage::Stuck, why),
            Some(Ordered::Aborted) => {
                self.end(now, HostStage::Aborted, "aborted by the sender".into())
            }
            Some(Ordered::Failed(why)) => self.end(now, HostStage::Failed, why),
            Some(Ordered::Torn(why)) => {
                self.torn = true;
                self.end(now, HostStage::Failed, why);
            }
        }
    }

    /// What was run after the commit, and the health check, came to this.
    pub(super) fn checked(&mut self, now: Moment, outcome: Result<(), Reason>) {
        self.ordering = false;
        match outcome {
            Ok(()) => self.enter(now, HostStage::Committed),
            Err(why) => self.end(now, HostStage::Unhealthy, why),
        }
    }
}
