//! Drives the sender machine: timers, requests to the worker, and datagrams.

use super::reporter::PROGRESS_INTERVAL;
use super::worker::{WorkerHandle, WorkerTask};
use crate::Result;
use crate::drive::clock::Clock;
use crate::drive::endpoint::GroupEndpoint;
use crate::proto::sender::{Sender, SenderReply};
use crate::units::Moment;

/// Largest number of sends before the next read.
const MAX_SENDS: usize = 16;

/// The sender machine between clock, network and worker.
pub(super) struct SenderDriver {
    clock: Clock,
    pub(super) endpoint: GroupEndpoint,
    pub(super) machine: Sender,
    pub(super) worker: WorkerHandle,
    /// Number of the plan whose destinations the endpoint has.
    targets: u32,
}

impl SenderDriver {
    /// A driver of a new `machine`.
    pub(super) fn new(
        clock: Clock,
        endpoint: GroupEndpoint,
        machine: Sender,
        worker: WorkerHandle,
    ) -> Self {
        let mut driver = Self {
            clock,
            endpoint,
            machine,
            worker,
            targets: 0,
        };
        // The first message depends on it.
        driver.follow_roster(driver.now());
        driver
    }

    /// Current time.
    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Passes an answer of the worker to the machine.
    pub(super) fn reply(&mut self, reply: SenderReply) {
        self.machine.handle_reply(self.clock.now(), reply);
    }

    /// Ends the session without a commit; `why` is shown to people.
    pub(super) fn abort(&mut self, why: &str) {
        self.machine.abort(self.clock.now(), why);
    }

    /// Handles due timers, passes requests to the worker, and sends.
    pub(super) fn send(&mut self) -> Result<()> {
        let now = self.clock.now();
        if self.machine.poll_timeout(now).is_some_and(|due| due <= now) {
            self.machine.handle_timeout(now);
        }

        // Before sending, so that the next generation is packed meanwhile.
        while let Some(request) = self.machine.poll_request() {
            self.worker.send(WorkerTask::Machine(request))?;
        }

        self.follow_roster(now);
        let machine = &mut self.machine;
        let clock = &self.clock;
        let mut turn = 0..MAX_SENDS;
        self.endpoint.flush(|out| {
            turn.next()
                .and_then(|_| machine.poll_transmit(clock.now(), out))
        });

        Ok(())
    }

    /// Passes changes of the roster to the machine, and its destinations to the endpoint.
    fn follow_roster(&mut self, now: Moment) {
        let Some(roster) = self.endpoint.roster() else {
            return;
        };

        self.machine.set_roster(now, roster);
        if let Some((number, targets)) = self.machine.data_targets()
            && number != self.targets
        {
            self.targets = number;
            self.endpoint.set_data_targets(targets.clone());
        }
    }

    /// Waits for a datagram, an answer of the worker, the next timer or the next report of the
    /// progress, and reads the datagrams.
    pub(super) fn receive(&mut self) -> Result<()> {
        let now = self.clock.now();
        let due = self.machine.poll_timeout(now).map(|due| due.since(now));
        let wait = due.map_or(PROGRESS_INTERVAL, |due| due.min(PROGRESS_INTERVAL));
        self.endpoint.wait(Some(wait))?;

        let machine = &mut self.machine;
        let clock = &self.clock;
        self.endpoint
            .receive(|d| machine.handle_datagram(clock.now(), d.from, d.bytes));

        Ok(())
    }
}
