//! Course of a session: the steps from one phase to the next, and the due work of each.

use super::audience::Audience;
use super::discovery::{Discovery, DiscoveryView};
use super::drift::DriftCollection;
use super::hosts::{Host, Hosts};
use super::offer::Offer;
use super::phase::{Announced, SenderPhase};
use super::serving::StatusAudience;
use super::{Sender, SenderNotice};
use crate::manifest::Release;
use crate::proto::datagram_size::min_datagram;
use crate::units::Moment;
use crate::wire::message::OrderKind;
use crate::wire::{Message, StatusPhase};

impl Sender {
    /// Restarts discovery at `at`, forgetting all hosts: by then they may have another release.
    pub fn discover_again(&mut self, at: Moment) {
        if !matches!(self.phase, SenderPhase::Waiting) {
            return;
        }
        self.hosts.clear();
        self.audience.forget_members();
        self.phase = SenderPhase::Discovering(Discovery::new(at));
    }

    /// Offers the release; call after discovery.
    pub fn announce(&mut self, now: Moment, release: Release, signature: Vec<u8>) {
        self.phase = SenderPhase::Serving(Announced::new(now));
        self.hosts.begin(now);
        self.fit_datagrams();
        self.offer.set(release, signature);
        self.serving.on_announced(now);

        self.tick(now);
    }

    /// Reduces the session's datagrams to the narrowest path.
    fn fit_datagrams(&mut self) {
        let Some((host, takes)) = self.hosts.narrowest() else {
            return;
        };

        let datagram = usize::from(takes).max(min_datagram(self.sizes.room));
        if datagram < self.sizes.datagram {
            self.outputs.notify(SenderNotice::Narrow {
                datagram,
                host: host.clone(),
            });
            self.serving.flow_mut().fit_datagram(datagram);
            self.outputs.control.fit(datagram);
        }
    }

    /// Fetches the differences after every host has compared.
    pub(super) fn collect(&mut self, now: Moment) {
        let SenderPhase::Serving(announced) = self.phase else {
            return;
        };

        self.drift = Some(DriftCollection::new(&self.hosts));
        self.phase = SenderPhase::Collecting(announced);
        self.tick(now);
    }

    /// Performs the due work of the present phase.
    pub(super) fn tick(&mut self, now: Moment) {
        self.ticked = now;

        match self.phase {
            SenderPhase::Discovering(discovery) => self.discover(now, discovery),
            SenderPhase::Serving(announced) => {
                self.resend_announcement(now, announced);
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                    self.decide_if_due(now);
                }
            }
            SenderPhase::Collecting(announced) => self.collect_drift(now, announced),
            SenderPhase::Signing(_) => self.heartbeat_if_due(now),
            SenderPhase::Ordering(ordering) => {
                // After an abort the stream is stopped, so only the heartbeat remains.
                self.serve(now);
                if self.sweep(now) {
                    self.start_second_pass(now);
                }
                self.resend_order(now, ordering);
            }
            SenderPhase::Farewell(farewell) => self.send_farewell(now, farewell),
            SenderPhase::Waiting | SenderPhase::Closed => {}
        }
    }

    /// Sends due solicits and ends discovery once all hosts have answered.
    fn discover(&mut self, now: Moment, mut discovery: Discovery) {
        let view = DiscoveryView {
            sizes: self.sizes,
            audience: &self.audience,
            hosts: &self.hosts,
        };
        discovery.solicit_if_due(now, view, &mut self.outputs.control);

        if discovery.is_over(now, view) {
            self.phase = SenderPhase::Waiting;
            self.outputs.notify(self.audience.discovered(&self.hosts));
        } else {
            self.phase = SenderPhase::Discovering(discovery);
        }
    }

    fn resend_announcement(&mut self, now: Moment, mut announced: Announced) {
        if !announced.resend.is_due(now) {
            return;
        }

        let hosts = self.hosts.len() as u32;
        if let Some(announce) = self.offer.announcement(self.serving.symbol(), hosts) {
            let is_for_all = !self.offer.is_granted() || announced.is_for_all();
            announced.resend.advance(now + self.audience.repeat_wait());
            announced.sent += 1;
            self.phase = SenderPhase::Serving(announced);

            let has_it = |host: &Host| host.stage.is_some();
            let dests = match is_for_all {
                true => self.audience.dests(now, &self.hosts, has_it),
                false => self.audience.unicast().cheap().into_iter().collect(),
            };
            let message = Message::Announce(announce);
            for dest in dests {
                self.outputs.control.send(dest, &message);
            }
        }
    }

    fn serve(&mut self, now: Moment) {
        if let Some(request) = self.serving.serve(now, &self.offer, &self.hosts) {
            self.outputs.request(request);
        }
        self.heartbeat_if_due(now);
    }

    /// Scans all hosts after a change or at the interval: marks silent ones as lost and chooses
    /// reporters. Returns whether a scan was due.
    fn sweep(&mut self, now: Moment) -> bool {
        if now < self.hosts.sweep_due() {
            return false;
        }

        let is_ordering = matches!(self.phase, SenderPhase::Ordering(_));
        let patience = self.decision.patience(is_ordering, &self.hosts);
        let lost = self.hosts.sweep(now, patience, self.awaited());
        self.outputs.notify_lost(lost);
        let receivers = self.serving.flow().receivers();
        let cut_off = self.reach.cut_off(now, patience.silent).into_iter();
        // A slow one waits for its pass.
        for host in cut_off.filter(|host| !receivers.is_slow(*host)) {
            let lost = self.hosts.drop_cut_off(now, host, patience.silent);
            self.outputs.notify_lost(lost);
        }
        if self.serving.choose_reporters(now, &self.hosts) {
            self.send_reporters(now);
        }

        true
    }

    /// The order that hosts have to answer.
    pub(super) fn awaited(&self) -> OrderKind {
        if let SenderPhase::Ordering(ordering) = self.phase {
            ordering.kind
        } else {
            OrderKind::Commit
        }
    }

    /// Serves the slow hosts once all others are done.
    fn start_second_pass(&mut self, now: Moment) {
        if self.serving.start_second_pass(now, &self.hosts) {
            self.reach.hasten(now);
            self.send_status(now, self.wire_phase());
        }
    }

    fn collect_drift(&mut self, now: Moment, announced: Announced) {
        self.sweep(now);
        self.heartbeat_if_due(now);
        let Some(drift) = &mut self.drift else { return };
        drift.handle_timeout(now, self.session, &self.hosts, &mut self.outputs.control);

        if !drift.is_done() {
            return;
        }

        if self.offer.is_audit() {
            self.finish(now);
        } else {
            // A deploy continues with the commit.
            self.phase = SenderPhase::Serving(announced);
            self.decide_if_due(now);
        }
    }

    fn wire_phase(&self) -> StatusPhase {
        match self.phase {
            SenderPhase::Ordering(_) | SenderPhase::Signing(_) => StatusPhase::Ordering,
            _ => StatusPhase::Serving,
        }
    }

    fn heartbeat_if_due(&mut self, now: Moment) {
        let phase = self.wire_phase();
        let to = status_audience(&self.audience, &self.hosts, &self.offer);
        self.serving
            .heartbeat_if_due(now, phase, to, &mut self.outputs.control);
    }

    fn send_reporters(&mut self, now: Moment) {
        let phase = self.wire_phase();
        let to = status_audience(&self.audience, &self.hosts, &self.offer);
        self.serving
            .send_reporters(now, phase, to, &mut self.outputs.control);
    }

    pub(super) fn send_status(&mut self, now: Moment, phase: StatusPhase) {
        let to = status_audience(&self.audience, &self.hosts, &self.offer);
        self.serving
            .send_status(now, phase, to, &mut self.outputs.control);
    }
}

fn status_audience<'a>(
    audience: &'a Audience,
    hosts: &'a Hosts,
    offer: &Offer,
) -> StatusAudience<'a> {
    StatusAudience {
        audience,
        hosts,
        audit: offer.is_audit(),
    }
}
