//! Phases of a session. Each phase carries the data that exists only while the phase lasts.

use std::time::Duration;

use super::repeat_timer::RepeatTimer;
use crate::units::Moment;
use crate::wire::message::OrderKind;

/// First wait between solicits, announcements and orders; doubled each time.
const FIRST_RESEND: Duration = Duration::from_millis(60);
/// Longest wait between solicits, announcements and orders.
const MAX_RESEND: Duration = Duration::from_secs(1);
/// Number of farewells, against loss. A host that receives none closes its session later by itself.
const FAREWELLS: u32 = 3;
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

/// State of discovery.
#[derive(Debug, Clone, Copy)]
pub struct Discovery {
    /// Start of discovery.
    pub began: Moment,
    /// Timer of the solicits.
    pub resend: RepeatTimer,
    /// Solicits sent.
    pub solicits: u32,
    /// Time of the last solicit.
    pub solicited: Moment,
    /// Time at which a host was heard for the first time.
    pub last_new_member: Moment,
}

impl Discovery {
    /// Creates a discovery that begins at `at`.
    pub fn new(at: Moment) -> Self {
        Self {
            began: at,
            resend: resend_from(at),
            solicits: 0,
            solicited: at,
            last_new_member: at,
        }
    }
}

/// State of an announced release.
#[derive(Debug, Clone, Copy)]
pub struct Announced {
    /// Time of the first announcement.
    pub since: Moment,
    /// Timer of the announcements.
    pub resend: RepeatTimer,
}

impl Announced {
    /// Creates the state of a release announced now.
    pub fn new(now: Moment) -> Self {
        Self {
            since: now,
            resend: resend_from(now),
        }
    }
}

/// State of a signed order.
#[derive(Debug, Clone, Copy)]
pub struct Ordering {
    /// Kind of the order.
    pub kind: OrderKind,
    /// Timer of the order.
    pub resend: RepeatTimer,
    /// Deadline for asking hosts again that may have followed an order unheard.
    pub asking_until: Option<Moment>,
}

impl Ordering {
    /// Creates the state of an order signed now. The first repetition follows early.
    pub fn new(now: Moment, kind: OrderKind) -> Self {
        Self {
            kind,
            resend: RepeatTimer::new(now, FIRST_RESEND / 2, MAX_RESEND),
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

fn resend_from(due: Moment) -> RepeatTimer {
    RepeatTimer::new(due, FIRST_RESEND, MAX_RESEND)
}
