//! End of a session: after a goodbye, a timeout, or in favour of another sender.

use std::time::Duration;

use crate::units::Moment;

/// Delay between a goodbye and the end of the session: the goodbye may be forged.
const GOODBYE_DELAY: Duration = Duration::from_millis(1500);

/// Liveness of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Life {
    /// The sender never said goodbye.
    #[default]
    Open,
    /// After a goodbye: the session ends at this time, unless the sender is heard again.
    Closing(Moment),
    /// The sender was heard again after a goodbye.
    Reopened,
    /// Over, apart from pending replies of the disk. Nothing is sent after the deadline of a
    /// goodbye.
    Closed(Option<Moment>),
}

impl Life {
    /// Handles an unauthenticated goodbye of the sender. The first deadline counts.
    pub(super) fn on_goodbye(&mut self, now: Moment) {
        let deadline = now + GOODBYE_DELAY;
        *self = match *self {
            Life::Open | Life::Reopened => Life::Closing(deadline),
            Life::Closing(at) => Life::Closing(at),
            Life::Closed(at) => Life::Closed(at.or(Some(deadline))),
        };
    }

    /// Handles any other status: a sender heard again is present, so the goodbye was forged.
    pub(super) fn on_status(&mut self) {
        *self = match *self {
            Life::Closing(_) => Life::Reopened,
            Life::Closed(_) => Life::Closed(None),
            life => life,
        };
    }

    /// Closes the session. Returns false if already closed.
    pub(super) fn close(&mut self) -> bool {
        if self.is_closed() {
            return false;
        }

        *self = Life::Closed(self.close_at());
        true
    }

    /// Returns true if the session is closed.
    pub(super) fn is_closed(&self) -> bool {
        matches!(self, Life::Closed(_))
    }

    /// Returns true if the last status was a goodbye.
    pub(super) fn is_closing(&self) -> bool {
        self.close_at().is_some()
    }

    /// Returns true if the session is not closed and no goodbye was ever heard. After a goodbye
    /// another sender may have the tree.
    pub(super) fn is_untouched(&self) -> bool {
        *self == Life::Open
    }

    /// Returns the deadline of the last goodbye.
    pub(super) fn close_at(&self) -> Option<Moment> {
        match *self {
            Life::Closing(at) => Some(at),
            Life::Closed(at) => at,
            Life::Open | Life::Reopened => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_goodbye_has_one_deadline_until_the_sender_is_heard_again() {
        let first = Moment(1) + GOODBYE_DELAY;
        let mut life = Life::default();
        life.on_status();
        assert!(life.is_untouched() && !life.is_closing());

        life.on_goodbye(Moment(1));
        life.on_goodbye(Moment(2));
        assert_eq!(life, Life::Closing(first));
        assert!(!life.is_untouched());

        life.on_status();
        assert_eq!(life.close_at(), None);
        assert!(!life.is_untouched(), "a goodbye was heard");

        life.on_goodbye(Moment(1));
        assert!(life.close() && !life.close());
        assert_eq!(life.close_at(), Some(first));
        life.on_status();
        assert_eq!(life.close_at(), None);
        life.on_goodbye(Moment(1));
        assert_eq!(life.close_at(), Some(first));
        assert!(life.is_closed());
    }
}
