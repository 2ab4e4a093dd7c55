//! End of a session: after a goodbye, a timeout, or in favour of another sender.

use std::time::Duration;

use crate::units::Moment;

/// Delay between a goodbye and the end of the session: the goodbye may be forged.
const GOODBYE_DELAY: Duration = Duration::from_millis(1500);

/// Liveness of a session.
#[derive(Debug, Default)]
pub(super) struct Life {
    /// End of the session after a goodbye, unless the sender is heard again.
    close_at: Option<Moment>,
    /// A goodbye was heard: after the end of this session another sender may have the tree.
    goodbye_heard: bool,
    /// The session is over, apart from pending replies of the disk.
    closed: bool,
}

impl Life {
    /// Handles an unauthenticated goodbye of the sender.
    pub(super) fn on_goodbye(&mut self, now: Moment) {
        self.goodbye_heard = true;
        self.close_at.get_or_insert(now + GOODBYE_DELAY);
    }

    /// Handles any other status: a sender heard again is present, so the goodbye was forged.
    pub(super) fn on_status(&mut self) {
        self.close_at = None;
    }

    /// Closes the session. Returns false if already closed.
    pub(super) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.closed, true)
    }

    /// Returns true if the session is closed.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns true if the last status was a goodbye.
    pub(super) fn is_closing(&self) -> bool {
        self.close_at.is_some()
    }

    /// Returns true if a goodbye was ever heard.
    pub(super) fn was_goodbye_heard(&self) -> bool {
        self.goodbye_heard
    }

    /// Returns the end of the session after a goodbye.
    pub(super) fn close_at(&self) -> Option<Moment> {
        self.close_at
    }
}
