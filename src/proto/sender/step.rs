//! The step of a session and the hosts that it waits for, as seen by people.

use super::Sender;
use super::hosts::Host;
use super::phase::SenderPhase;
use crate::wire::message::OrderKind;

/// Step of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStep {
    /// Discovers hosts, or waits for the release.
    Discovering,
    /// Serves content, or collects reports of drift.
    Serving,
    /// Orders hosts: those of one batch, unless all revert or abort.
    Ordering {
        /// Kind of the order.
        kind: OrderKind,
        /// Number of the batch, from 1.
        batch: usize,
        /// Number of batches.
        of: usize,
    },
    /// Over.
    Ended,
}

impl Sender {
    /// Present step.
    pub fn step(&self) -> SessionStep {
        let ordering = |kind| {
            let (batch, of) = self.decision.issued().batches.number();
            SessionStep::Ordering { kind, batch, of }
        };

        match self.phase {
            SenderPhase::Discovering(_) | SenderPhase::Waiting => SessionStep::Discovering,
            SenderPhase::Serving(_) | SenderPhase::Collecting(_) => SessionStep::Serving,
            SenderPhase::Signing(kind) => ordering(kind),
            SenderPhase::Ordering(state) => ordering(state.kind),
            SenderPhase::Farewell(_) | SenderPhase::Closed => SessionStep::Ended,
        }
    }

    /// Returns whether the present step waits for the host, in an audit or a deploy.
    pub fn awaits(&self, host: &Host, audit: bool) -> bool {
        match self.step() {
            SessionStep::Discovering => false,
            SessionStep::Serving => !host.is_settled(audit),
            SessionStep::Ordering { kind, .. } => self.decision.awaits(kind, host),
            SessionStep::Ended => false,
        }
    }
}
