//! What a session fetches: asked for, handed to the disk when it came, complained about when it did not.

use std::time::Duration;

use super::assembly::{Delivery, Due};
use super::session::Session;
use super::{Part, Reason, Request};
use crate::id::{Generation, Ordinal};
use crate::proto::control::Control;
use crate::proto::{Dest, RangeSet, backoff, complaint_interval};
use crate::units::Moment;
use crate::wire::message::{MAX_RANGES, Nack, Ranges, WantList};
use crate::wire::{HostStage, Message};

/// The most ranges that one list of wants has; a finer one is asked for coarser.
const MAX_WANT_RANGES: usize = 16 * 1024;
/// Without any data for this long, what is still wanted is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(1000);
/// The same without anything of use in what comes: it is for others, or the sender never heard what we want. Where
/// datagrams are not sealed anybody can say in its name that it did.
const STARVED: Duration = Duration::from_secs(4);
/// So many payloads with wrong blocks one after the other, and nothing right among them: more are no accident.
const MAX_DAMAGED: u32 = 32;
/// With more payloads in hand than this the disk is behind.
const BEHIND: u32 = 2;

impl Session {
    /// Asks for `wants`, and listens.
    pub(super) fn want(&mut self, now: Moment, wants: RangeSet) {
        let cover = wants.cover(MAX_WANT_RANGES);
        self.wants = wants;
        self.assembly.rest();
        self.ask(now, &cover);
        self.data_at = now;
    }

    /// Queues the messages that ask for `cover`; we are listening already.
    fn ask(&mut self, due: Moment, cover: &RangeSet) {
        self.outbox.remove_if(|m| matches!(m, Message::Want(_)));
        self.asked_at = due;
        let (seen, fetch) = (self.measure.seen, self.to_fetch());
        let ranges: Vec<_> = cover.iter().collect();

        // Small enough that a list of wants is repeated cheaply, large enough that most lists are one message.
        let mut chunks = ranges.chunks(MAX_RANGES / 4).peekable();
        while let Some(chunk) = chunks.next() {
            let number = self.outbox.next_number();
            let (ranges, more) = (Ranges(chunk.to_vec()), chunks.peek().is_some());
            // A want says more than the stage in which it is said.
            let want = Message::Want(WantList {
                session: self.id,
                number,
                ranges,
                more,
                seen,
                fetch,
            });
            // It counts from a host that the sender knows: where nobody was looked for it knows nobody yet.
            let may_come_first = !self.is_granted() || self.outbox.has_sent();
            self.outbox.push_before(
                |m| may_come_first && matches!(m, Message::State(_)),
                number,
                want,
                due,
            );
        }
    }

    /// The disk has taken a payload, or not.
    pub(super) fn delivered(
        &mut self,
        now: Moment,
        buffer: Vec<u8>,
        outcome: Result<(RangeSet, u64), Reason>,
    ) {
        self.delivering = self.delivering.saturating_sub(1);
        self.assembly.recycle(buffer);
        if self.is_over() {
            return;
        }

        match outcome {
            Err(why) => return self.refuse(now, why),
            Ok((wrong, bytes)) => {
                self.received += bytes;
                // A single forged symbol spoils no more than its generation: what was right in it, and others, count.
                self.damaged = if bytes > 0 || wrong.is_empty() {
                    0
                } else {
                    self.damaged + 1
                };
                if !wrong.is_empty() {
                    self.doubt();
                    if self.damaged > MAX_DAMAGED {
                        return self.refuse(
                            now,
                            "what the sender sends is not what its release says".into(),
                        );
                    }
                    self.wants.extend(&wrong);
                    self.ask(now, &self.wants.cover(MAX_WANT_RANGES));
                }
            }
        }

        if self.wants.is_empty() && self.delivering == 0 {
            self.assembly.rest();
            // Others asked for the same before our turn came.
            self.outbox.remove_if(|m| matches!(m, Message::Want(_)));
            let next = match self.stage {
                HostStage::Fetching => Request::Explore(self.id),
                _ => Request::Finish(self.id),
            };
            self.requests.push_back(next);
        }
    }

    /// Hands a generation on that is whole as far as it is wanted.
    pub(super) fn hand_on(&mut self, delivery: Delivery) {
        for block in &delivery.blocks {
            self.wants.remove(block.ordinal.0..block.ordinal.0 + 1);
        }

        self.delivering += 1;
        let (payload, body, blocks) = (delivery.payload, delivery.body, delivery.blocks);
        self.requests.push_back(Request::Deliver {
            session: self.id,
            payload,
            body,
            blocks,
        });
    }

    /// The disk has read back what it could.
    pub(super) fn recalled(
        &mut self,
        now: Moment,
        generation: Generation,
        parts: &[(Part, Vec<u8>)],
    ) {
        if let Some(delivery) = self.assembly.recalled(now, generation, parts, &self.wants) {
            self.hand_on(delivery);
        }
    }

    /// The sender serves those that were too slow: what came of generations that went by is let go.
    pub(super) fn ask_for_rest(&mut self, now: Moment) {
        if !self.wants.is_empty() {
            self.assembly.rest();
            self.ask(now, &self.wants.cover(MAX_WANT_RANGES));
            self.data_at = now;
        }
    }

    /// Complains about what is missing, and asks again for what nobody sends any more.
    pub(super) fn repair(&mut self, now: Moment, control: &mut Control) {
        if self.wants.is_empty() {
            return;
        }

        let recall = self.may_recall();
        let (rng, hosts) = (&mut self.rng, self.hosts);
        let Due { missing, recalls } =
            self.assembly
                .due(now, complaint_interval(hosts), recall, || {
                    backoff(hosts, rng.f64())
                });

        for (generation, parts) in recalls {
            self.requests.push_back(Request::Recall {
                session: self.id,
                generation,
                parts,
            });
        }

        if !missing.is_empty() {
            let nack = Nack {
                session: self.id,
                seen: self.measure.seen,
                missing,
            };
            control.send(Dest::Host(self.sender), &Message::Nack(nack));
        }

        if self.assembly.take_gave_up() || self.may_ask_again(now) {
            self.data_at = now;
            let cover = self.wants.cover(MAX_WANT_RANGES);
            self.ask(now, &cover);
        }
    }

    /// The first ordinal of what the disk may be asked to read back: of files, while they are staged. A disk that is
    /// behind would answer too late.
    fn may_recall(&self) -> Option<Ordinal> {
        let may = self.stage == HostStage::Staging && self.delivering <= BEHIND;
        may.then_some(Ordinal(self.release.header().root.nodes))
    }

    /// Nothing of use comes, nothing is on its way, and still something is missing.
    pub(super) fn may_ask_again(&self, now: Moment) -> bool {
        self.ask_again_at().is_some_and(|at| at <= now)
    }

    /// When what is still wanted is asked for again, if nothing of use comes until then.
    fn ask_again_at(&self) -> Option<Moment> {
        if !self.outbox.is_empty() {
            return None;
        }

        let starved = self.assembly.taken_at().max(self.asked_at) + STARVED;
        Some(if self.assembly.is_settled() {
            starved.min(self.data_at + ASK_AGAIN)
        } else {
            starved
        })
    }

    /// When [`Session::repair`] is worth a call.
    pub(super) fn fetch_timeout(&self, now: Moment) -> Option<Moment> {
        if self.wants.is_empty() {
            return None;
        }

        self.assembly
            .timeout(now)
            .into_iter()
            .chain(self.ask_again_at())
            .min()
    }
}
