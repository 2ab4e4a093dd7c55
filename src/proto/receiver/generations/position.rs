//! Position of a sender: the first generation not yet sent in full, by claims without proof.

use crate::proto::generation::KEPT_GENERATIONS;

/// Largest distance of a sender from its last known generation: a sender keeps nothing older than
/// so many generations.
const MAX_DISTANCE: u32 = KEPT_GENERATIONS + 8;
/// Consecutive claims of a distant generation after which the sender counts as moved there.
pub(super) const MAX_CONTRADICTIONS: u32 = 64;

/// Position of a sender.
#[derive(Debug, Default)]
pub(super) struct SenderPosition {
    /// All generations below were sent in full.
    horizon: u32,
    /// True once the sender's position is known.
    known: bool,
    /// Consecutive claims of a distant position.
    contradicting_claims: u32,
}

/// Consequence of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PositionClaim {
    /// Near the known position.
    Plausible,
    /// Too distant to be believed.
    Distant,
    /// Distant and believed after many like it: only generations from the first number on can still
    /// arrive. The flag is true for a step back.
    Moved(u32, bool),
}

impl SenderPosition {
    /// Returns the first generation that was not yet sent in full.
    pub(super) fn horizon(&self) -> u32 {
        self.horizon
    }

    /// Handles a claim that generation `number` has begun and all before were sent in full.
    ///
    /// Claims are unauthenticated. A distant claim counts only after many in a row without any that
    /// agrees with the known position: for a host that was offline, and after an early forgery.
    pub(super) fn on_claim(&mut self, number: u32) -> PositionClaim {
        let near = number.abs_diff(self.horizon) <= MAX_DISTANCE;
        if near || !self.known {
            self.known = true;
            self.contradicting_claims = 0;
            self.horizon = self.horizon.max(number);
            return PositionClaim::Plausible;
        }

        self.contradicting_claims += 1;
        if self.contradicting_claims <= MAX_CONTRADICTIONS {
            return PositionClaim::Distant;
        }

        self.contradicting_claims = 0;
        let back = number < self.horizon;
        self.horizon = number;
        PositionClaim::Moved(number.saturating_sub(MAX_DISTANCE), back)
    }
}
