//! Phases of a session. Each phase carries the data that exists only while the phase lasts.

use std::time::Duration;

use super::discovery::Discovery;
use super::repeat_timer::{RepeatTimer, resend_early, resend_from};
use crate::units::Moment;
use crate::wire::message::OrderKind;

/// Number of farewells, against loss. A host that receives none closes its session later by itself.
const FAREWELLS: u32 = 3;
/// Announcements of a release committed elsewhere that go to all hosts at first; later one of twice
/// as many does.
const SURE_ANNOUNCEMENTS: u32 = 3;
/// Wait between farewells.
const FAREWELL_GAP: Duration = Duration::from_millis(2);

/// Phase of a session.
#[derive(Debug, Clone, Copy)]
pub enum SenderPhase {
    /// Solicits answers from hosts.
    Discovering(Discovery),
    /// Waits for the release.
    Waiting,
    /// Announces and serves the release.
    Serving(Announced),
    /// Fetches drift reports; the announcement may resume later.
    Collecting(Announced),
    /// Waits for the signature of an order.
    Signing(OrderKind),
    /// Repeats an order until all hosts have answered.
    Ordering(Ordering),
    /// Sends farewells.
    Farewell(Farewell),
    /// Over.
    Closed,
}

/// State of an announced release.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// Time of the first announcement.
    pub since: Moment,
    /// Timer of the announcements.
    pub resend: RepeatTimer,
    /// Announcements sent.
    pub sent: u32,
}

impl Announced {
    /// Creates the state of a release announced now.
    pub fn new(now: Moment) -> Self {
        Self {
            since: now,
            resend: resend_from(now),
            sent: 0,
        }
    }

    /// Returns whether the next announcement of a release committed elsewhere goes to hosts that
    /// need a copy of their own. Most of them have the release.
    pub fn is_for_all(&self) -> bool {
        self.sent < SURE_ANNOUNCEMENTS || self.sent.is_multiple_of(SURE_ANNOUNCEMENTS * 2)
    }
}

/// State of a signed order.
#[derive(Debug, Clone, Copy)]
pub struct Ordering {
    /// Kind of the order.
    pub kind: OrderKind,
    /// Timer of the order.
    pub resend: RepeatTimer,
    /// Set once the order was sent.
    pub is_repeated: bool,
    /// Deadline for asking hosts again that may have followed an order unheard.
    pub asking_until: Option<Moment>,
}

impl Ordering {
    /// Creates the state of an order signed now. The first repetition follows early.
    pub fn new(now: Moment, kind: OrderKind) -> Self {
        Self {
            kind,
            resend: resend_early(now),
            is_repeated: false,
            asking_until: None,
        }
    }

    /// Restarts the repetitions, to ask hosts again until `until`.
    pub fn ask_until(&mut self, now: Moment, until: Moment) {
        self.asking_until = Some(until);
        self.resend = resend_from(now);
    }
}

/// State of the farewells.
#[derive(Debug, Clone, Copy)]
pub struct Farewell {
    /// Farewells left to send.
    pub left: u32,
    /// Time of the next one.
    pub due: Moment,
}

impl Farewell {
    /// Creates the first farewell, due now.
    pub fn new(now: Moment) -> Self {
        Self {
            left: FAREWELLS,
            due: now,
        }
    }

    /// Returns the farewell after this one, if any is left.
    pub fn next(self, now: Moment) -> Option<Self> {
        let left = self.left.checked_sub(1).filter(|left| *left > 0)?;
        Some(Self {
            left,
            due: now + FAREWELL_GAP,
        })
    }
}
