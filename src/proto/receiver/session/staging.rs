//! The disk's answers in a session, from the offer to the complete stage.

use std::sync::Arc;

use super::Session;
use crate::proto::RangeSet;
use crate::proto::receiver::disk::{Answer, Ask, DiskRequest, OfferRefusal};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::DiffSummary;

impl Session {
    /// Handles the disk's verdict on the offer.
    pub fn on_opened(&mut self, now: Moment, outcome: Result<(), OfferRefusal>) {
        if self.is_over() {
            return;
        }

        match outcome {
            Ok(()) => {
                self.authenticated = true;
                self.enter(now, HostStage::Fetching);
                self.ask(Ask::Explore);
            }
            Err(denied) => {
                self.authenticated = denied.proven;
                self.for_others = denied.for_others;
                self.refuse(now, denied.why);
            }
        }
    }

    /// Handles an answer of the disk.
    pub fn on_answer(&mut self, now: Moment, answer: Answer) {
        let always = matches!(
            answer,
            Answer::Delivered(..) | Answer::Ordered(_) | Answer::Checked(_)
        );

        if self.is_over() && !always {
            return;
        }

        match answer {
            Answer::Explored(Ok(missing)) if missing.is_empty() => {
                self.enter(now, HostStage::Diffing);
                self.ask(Ask::Diff);
            }
            Answer::Explored(Ok(missing)) => self.want(now, missing),
            Answer::Diffed(Ok((summary, wants, drift))) => {
                self.on_diffed(now, summary, wants, drift);
            }
            Answer::Delivered(buffer, outcome) => self.on_delivered(now, buffer, outcome),
            Answer::ReadBack(generation, parts) => self.on_read_back(now, generation, &parts),
            Answer::Finished(Ok(Some(why))) if self.is_granted() => self.refuse(now, why),
            Answer::Finished(Ok(held)) => {
                self.state.set_held(held);
                self.enter(now, HostStage::Ready);
                if self.sender.may_order() {
                    self.follow_grant();
                }
            }
            Answer::Explored(Err(why)) | Answer::Diffed(Err(why)) | Answer::Finished(Err(why)) => {
                self.refuse(now, why);
            }
            Answer::Ordered(outcome) => self.on_ordered(now, outcome),
            Answer::Checked(outcome) => self.on_checked(now, outcome),
        }
    }

    fn on_diffed(&mut self, now: Moment, summary: DiffSummary, wants: RangeSet, drift: Arc<[u8]>) {
        self.state.set_summary(summary);
        self.drift.set(drift);
        self.enter(now, HostStage::Staging);

        if self.is_audit() {
            // The list is complete: the tree is free for others.
            self.effects.request(DiskRequest::Close(self.id));
            return;
        }

        if wants.is_empty() {
            self.ask(Ask::Finish);
        } else {
            self.want(now, wants);
        }
    }
}
