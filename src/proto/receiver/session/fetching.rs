//! Requests the blocks a session lacks, hands payloads to the disk, and reports losses.

use super::Session;
use crate::id::{Generation, Ordinal};
use crate::proto::control::Control;
use crate::proto::receiver::buffer::BlockPart;
use crate::proto::receiver::disk::{Ask, ReasonText};
use crate::proto::receiver::generations::Due;
use crate::proto::receiver::notice::HostNotice;
use crate::proto::{Dest, RangeSet, backoff, complaint_interval};
use crate::units::Moment;
use crate::wire::message::{Nack, WantList};
use crate::wire::{HostStage, Message};

impl Session {
    /// Requests `wants` and starts to listen for their generations.
    pub(super) fn want(&mut self, now: Moment, wants: RangeSet) {
        self.fetch.begin(now, wants);
        self.send_wants(now);
    }

    /// Requests the rest on a new pass and drops generations that went by: the sender now serves
    /// slow hosts.
    pub(super) fn want_rest(&mut self, now: Moment) {
        if !self.fetch.is_idle() {
            self.fetch.listen_again(now);
            self.send_wants(now);
        }
    }

    /// Queues the messages that request the outstanding wants.
    fn send_wants(&mut self, due: Moment) {
        let want = WantList {
            session: self.id,
            number: 0,
            ranges: self.fetch.request(due),
            more: false,
            seen: self.intake.seen(),
            fetch: self.state.fetch_bytes(),
        };

        self.messages
            .queue_wants(due, &want, self.orders.is_granted());
    }

    /// Handles the disk's reply to a delivered payload.
    pub(super) fn on_delivered(
        &mut self,
        now: Moment,
        buffer: Vec<u8>,
        outcome: Result<(RangeSet, u64), ReasonText>,
    ) {
        self.fetch.recycle(buffer);
        if self.is_over() {
            return;
        }

        let (wrong, bytes) = match outcome {
            Ok(result) => result,
            Err(why) => return self.refuse(now, why),
        };

        self.fetch.on_result(bytes, &wrong);
        if !wrong.is_empty() {
            self.on_invalid_data();
            if self.fetch.is_hopeless() {
                return self.refuse(now, "the sender's data does not match its release".into());
            }

            self.fetch.want_again(&wrong);
            self.send_wants(now);
        }

        if self.fetch.is_complete() {
            self.fetch.listen_again(now);

            // Requests of other hosts fulfilled these wants before this host's turn.
            self.messages.drop_wants();
            self.ask(match self.state.stage() {
                HostStage::Fetching => Ask::Explore,
                _ => Ask::Finish,
            });
        }
    }

    /// Reports invalid data and restricts the sources.
    fn on_invalid_data(&mut self) {
        let sources = self.intake.restrict(self.sender.address());
        self.effects.notify(HostNotice::Damaged {
            tree: self.tree().clone(),
            serial: self.release.header().serial,
            sources,
        });
    }

    /// Handles blocks read back from disk.
    pub(super) fn on_read_back(
        &mut self,
        now: Moment,
        generation: Generation,
        parts: &[(BlockPart, Vec<u8>)],
    ) {
        if let Some(delivery) = self.fetch.add_parts(now, generation, parts) {
            self.ask(Ask::Deliver(delivery));
        }
    }

    /// Reports losses and repeats wants that the sender no longer serves.
    pub(super) fn repair(&mut self, now: Moment, control: &mut Control) {
        if self.fetch.is_idle() {
            return;
        }

        let read_from = self.read_back_from();
        let hosts = self.sender.hosts();
        let is_second_hop = self.is_second_hop();
        let rng = &mut self.rng;
        let delay = || backoff(hosts, is_second_hop, rng.f64());
        let Due { missing, readbacks } =
            self.fetch
                .due(now, complaint_interval(hosts), read_from, delay);

        for (generation, parts) in readbacks {
            self.ask(Ask::ReadBack { generation, parts });
        }

        if !missing.is_empty() {
            let nack = Nack {
                session: self.id,
                seen: self.intake.seen(),
                missing,
            };
            control.send(Dest::Host(self.sender.address()), &Message::Nack(nack));
        }

        let abandoned = self.fetch.take_abandoned();
        if abandoned || self.retry_at().is_some_and(|at| at <= now) {
            self.fetch.wait_again(now);
            self.send_wants(now);
        }
    }

    /// Returns the first ordinal the disk may read back: the first block of files, while staging.
    /// A slow disk would reply too late.
    fn read_back_from(&self) -> Option<Ordinal> {
        let may_read = self.state.stage() == HostStage::Staging && self.fetch.is_disk_quick();

        may_read.then_some(Ordinal(self.release.header().root.nodes))
    }

    /// Returns the time to repeat the outstanding wants, once the last request is acknowledged.
    fn retry_at(&self) -> Option<Moment> {
        self.messages.is_empty().then(|| self.fetch.retry_at())
    }

    /// Returns the due time of the next [`Session::repair`].
    pub(super) fn fetch_timeout(&self, now: Moment) -> Option<Moment> {
        if self.fetch.is_idle() {
            return None;
        }

        self.fetch
            .timeout(now)
            .into_iter()
            .chain(self.retry_at())
            .min()
    }
}
