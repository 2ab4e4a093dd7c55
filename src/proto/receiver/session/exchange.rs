//! Exchange of a session with its sender: incoming messages and data, outgoing reports, and timers.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::Session;
use crate::id::Nonce;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::receiver::disk::Ask;
use crate::units::Moment;
use crate::wire::message::{SenderStatus, StageReport};
use crate::wire::relay::RelayTargets;
use crate::wire::window::Seen;
use crate::wire::{HostStage, Message, StatusPhase, Symbol};

/// Time for which an ended session waits for a sender that missed the outcome.
const LINGER_TIME: Duration = Duration::from_secs(10);

impl Session {
    /// Handles an acknowledgement and the nonce that proves the sender's presence.
    pub fn on_ack(&mut self, now: Moment, number: u32, echo: Option<Nonce>) {
        self.messages.on_ack(number);

        let first = self.sender.on_echo(now, echo);
        if first && self.state.stage() == HostStage::Ready && !self.is_ordering() {
            self.follow_grant();
        }
    }

    /// Handles the sender's status.
    pub fn on_status(&mut self, now: Moment, status: &SenderStatus) {
        self.sender.set_hosts(status.hosts);
        self.messages.set_hosts(status.hosts);
        self.fetch.on_sent(status.sent);
        self.fetch.on_counter(status.counter);
        self.intake.on_status(status, self.state.instance());

        if status.phase == StatusPhase::Closed {
            self.life.on_goodbye(now);
            return;
        }

        self.life.on_status();
        if self.fetch.on_pass(status.pass) {
            self.want_rest(now);
        }
    }

    /// Takes the hosts to pass data on to, and confirms them.
    ///
    /// The last list holds, whatever its number: the sender repeats its own until it is confirmed,
    /// so neither a late list nor a forged one stays.
    pub fn on_targets(&mut self, now: Moment, targets: RelayTargets) {
        if self.targets.as_deref() == Some(&targets) {
            return;
        }

        self.state.set_targets(targets.number);
        self.targets = Some(Arc::new(targets));
        self.queue_state(now);
    }

    /// Records that hosts pass data on in this session.
    pub fn on_relayed(&mut self) {
        self.fetch.on_relayed();
        self.intake.on_relayed();
    }

    /// Handles a symbol. Returns false unless it is accepted and came for the first time.
    pub fn on_data(
        &mut self,
        now: Moment,
        from: IpAddr,
        counter: u64,
        symbol: &Symbol<'_>,
        arrival: u64,
        control: &mut Control,
    ) -> bool {
        if !self.intake.accepts(from, self.sender.address()) {
            return false;
        }

        self.fetch.on_data(now);
        let seen = self.intake.measure(counter, symbol, arrival);
        if seen == Seen::Again {
            return false;
        }

        if let Some(delivery) = self.fetch.symbol(now, symbol) {
            self.ask(Ask::Deliver(delivery));
        }

        self.report_if_due(now, control);
        seen == Seen::New
    }

    fn report_if_due(&mut self, now: Moment, control: &mut Control) {
        let hosts = self.sender.hosts();
        let backlog = self.fetch.backlog();
        if let Some(report) = self.intake.report(now, self.id, hosts, backlog) {
            control.send(Dest::Host(self.sender.address()), &Message::Report(report));
        }
    }

    /// Sends the part of the drift list that follows `offset`.
    pub fn send_drift(&mut self, now: Moment, offset: u64, control: &mut Control) {
        let to = Dest::Host(self.sender.address());
        self.drift.answer(now, self.id, offset, to, control);
    }

    /// Runs all timers that are due. `patience` is the timeout of a silent sender.
    pub fn handle_timeout(&mut self, now: Moment, control: &mut Control, patience: Duration) {
        let silent = self.sender.silent(now) >= self.silence_limit(patience);
        if silent || self.life.close_at().is_some_and(|at| at <= now) {
            return self.close();
        }

        let to = Dest::Host(self.sender.address());
        let hosts = self.sender.hosts();
        let send = |message: &Message| control.send(to, message);
        let heartbeat_due = self.messages.poll(now, hosts, &mut self.rng, send);

        if heartbeat_due && !self.life.is_closed() {
            let state = self.heartbeat(now);
            control.send(to, &Message::State(state));
        }

        self.report_if_due(now, control);
        self.repair(now, control);
    }

    /// Builds a state message that is not retransmitted.
    fn heartbeat(&mut self, now: Moment) -> StageReport {
        let nonce = self.sender.nonce_to_echo(now);
        self.state.report(self.id, 0, self.fetch.received(), nonce)
    }

    fn silence_limit(&self, patience: Duration) -> Duration {
        if self.is_over() {
            LINGER_TIME.min(patience)
        } else {
            patience
        }
    }

    /// Returns the due time of the next [`Session::handle_timeout`].
    pub fn timeout(&self, now: Moment, patience: Duration) -> Moment {
        if self.life.is_closed() {
            // No timer is due: the disk's last reply ends the session.
            return now + patience;
        }

        let silence = self.sender.last_heard() + self.silence_limit(patience);
        let hosts = self.sender.hosts();
        let report = self.intake.timeout(now, hosts, self.fetch.backlog());

        [self.life.close_at(), report, self.fetch_timeout(now)]
            .into_iter()
            .flatten()
            .fold(self.messages.timeout().min(silence), Moment::min)
    }
}
