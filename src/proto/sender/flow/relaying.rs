//! Relays that fail, by the reports of the hosts: who is not fit, and who drops what to pass on.

use super::Flow;
use crate::id::InstanceId;
use crate::units::Moment;
use crate::wire::message::ReceiverReport;

impl Flow {
    /// Records a choice of relays, of which there are `present` now.
    pub(super) fn on_chosen(&mut self, present: usize) {
        if present > 0 {
            self.receivers.on_relayed();
            self.controller.on_relayed();
        }
    }

    /// Takes out relays by a report of a host: itself if it drops data, and those that
    /// are not fit.
    pub(super) fn heed_relay(&mut self, now: Moment, host: InstanceId, report: &ReceiverReport) {
        if !self.relays.has_any() {
            return;
        }

        let dropped = report.unrelayed.unwrap_or_default();
        let is_out = self.relays.on_unrelayed(now, host, dropped);
        let are_unfit = self.relays.set_unfit(self.receivers.unfit(now));
        if is_out || are_unfit {
            self.excuse_relays();
        }
    }

    /// Forgets the effects of relays that are out now: they show nothing of the links of hosts.
    pub(super) fn excuse_relays(&mut self) {
        self.receivers.excuse_losses();
        self.controller.undo_cuts();
    }
}
