//! One relay: its trust, and the pauses after its losses.

use std::net::SocketAddr;
use std::time::Duration;

use super::evidence::LossEvidence;
use crate::id::InstanceId;
use crate::proto::generation::KEPT_GENERATIONS;
use crate::units::Moment;

/// Time for which a relay is out at first.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest time for which a relay is out.
const MAX_PAUSE: Duration = Duration::from_secs(64);
/// Pauses after which an earlier one counts no longer.
const FORGIVEN_AFTER: u32 = 4;
/// Datagrams after which a relay on trial is one like all others.
pub(super) const TRIAL_DATAGRAMS: u64 = 512;

/// A host that passes data on.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) host: InstanceId,
    pub(super) address: SocketAddr,
    /// Position in the order of the turns.
    pub(super) place: u32,
    /// Datagrams of new data that it took in its turns, in parts, see [`super::turns`].
    pub(super) taken: u64,
    /// Set if the host may take trains now.
    pub(super) is_present: bool,
    /// The host reports nothing while others do, or is far behind them.
    pub(super) is_unfit: bool,
    pub(super) drops: OwnDrops,
    pub(super) state: RelayState,
    pub(super) evidence: LossEvidence,
    /// More hosts accuse the relay than clear it.
    pub(super) is_suspect: bool,
    /// It was suspect since its losses count.
    was_suspect: bool,
    /// Generation in which enough hosts accused it first.
    accused: Option<u32>,
    /// Data counter from which losses count.
    pub(super) since: u64,
    /// Length of the next pause.
    pause: Duration,
    /// End of the last pause.
    back: Moment,
}

/// Trust in a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RelayState {
    /// Takes trains in turn.
    Trusted,
    /// Takes none until this time.
    OutUntil(Moment),
    /// Has taken so many datagrams since the pause.
    Trial(u64),
}

/// Datagrams that a relay dropped, by its own word.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct OwnDrops {
    /// All of the session.
    pub(super) total: u64,
    /// Time of the last ones.
    pub(super) at: Option<Moment>,
}

impl OwnDrops {
    /// Takes a count, and returns whether it rose.
    pub(super) fn on_count(&mut self, now: Moment, total: u64) -> bool {
        let rose = total > self.total;
        if rose {
            self.total = total;
            self.at = Some(now);
        }
        rose
    }
}

impl Relay {
    /// Creates a trusted relay for datagrams from counter `since` on.
    pub(super) fn new(host: InstanceId, address: SocketAddr, since: u64) -> Self {
        Self {
            host,
            address,
            place: 0,
            taken: 0,
            is_present: true,
            is_unfit: false,
            drops: OwnDrops::default(),
            state: RelayState::Trusted,
            evidence: LossEvidence::default(),
            is_suspect: false,
            was_suspect: false,
            accused: None,
            since,
            pause: FIRST_PAUSE,
            back: Moment(0),
        }
    }

    /// Returns whether the relay is out for its losses, or not fit.
    pub(super) fn is_out(&self) -> bool {
        self.is_unfit || matches!(self.state, RelayState::OutUntil(_))
    }

    /// Returns whether losses of its datagrams show nothing of the hosts that miss them.
    pub(super) fn loses(&self) -> bool {
        self.is_suspect || self.is_out()
    }

    /// Records whether the host is not fit, with `next` the next data counter. Returns whether that
    /// is new.
    pub(super) fn set_unfit(&mut self, is_unfit: bool, next: u64) -> bool {
        let is_new = std::mem::replace(&mut self.is_unfit, is_unfit) != is_unfit;
        if is_new && !self.is_out() {
            self.forget_losses(next);
        }
        is_new
    }

    /// Weighs the reports, and returns whether at least `enough` hosts accuse the relay in two
    /// generations: in one it may have stalled.
    pub(super) fn is_guilty(&mut self, enough: usize) -> bool {
        let verdict = self.evidence.verdict();
        self.is_suspect = verdict.is_suspicion();
        if !self.is_suspect || verdict.accusing < enough {
            self.accused = None;
            return false;
        }

        let recent = |first: &u32| verdict.latest.saturating_sub(*first) <= KEPT_GENERATIONS;
        let first = self.accused.filter(recent).unwrap_or(verdict.latest);
        self.accused = Some(first);
        first < verdict.latest
    }

    /// Returns whether the relay is suspect for the first time since its losses count.
    pub(super) fn is_new_suspect(&mut self) -> bool {
        self.is_suspect && !std::mem::replace(&mut self.was_suspect, true)
    }

    /// Takes the relay out, for twice as long as the last time.
    pub(super) fn take_out(&mut self, now: Moment) {
        if now.since(self.back) > self.pause * FORGIVEN_AFTER {
            self.pause = FIRST_PAUSE;
        }
        self.state = RelayState::OutUntil(now + self.pause);
        self.pause = (self.pause * 2).min(MAX_PAUSE);
        self.forget_losses(u64::MAX);
    }

    /// Puts the relay on trial after its pause; `next` is the next data counter.
    pub(super) fn end_pause(&mut self, now: Moment, next: u64) {
        if matches!(self.state, RelayState::OutUntil(until) if until <= now) {
            self.state = RelayState::Trial(0);
            self.back = now;
            self.forget_losses(next);
        }
    }

    /// Counts only losses from data counter `since` on.
    fn forget_losses(&mut self, since: u64) {
        self.evidence.clear();
        self.is_suspect = false;
        self.was_suspect = false;
        self.accused = None;
        self.since = since;
    }

    /// Records a train and returns whether it ends a trial.
    pub(super) fn on_taken(&mut self, datagrams: u64) -> bool {
        let RelayState::Trial(taken) = &mut self.state else {
            return false;
        };

        *taken += datagrams;
        let has_passed = *taken >= TRIAL_DATAGRAMS;
        if has_passed {
            self.state = RelayState::Trusted;
        }
        has_passed
    }
}
