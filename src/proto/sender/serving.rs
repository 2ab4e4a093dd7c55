//! Serving a release: wants, data, passes over the hosts, and heartbeats.

use std::sync::Arc;

use super::audience::Audience;
use super::effects::{PackedPayload, SenderRequest};
use super::flow::Flow;
use super::heartbeat::Heartbeat;
use super::hosts::{Host, Hosts};
use super::offer::Offer;
use super::want_window::WantWindow;
use crate::id::{InstanceId, SessionId};
use crate::proto::compression::Demand;
use crate::proto::control::Control;
use crate::proto::{Dest, RangeSet};
use crate::units::Moment;
use crate::wire::message::{SenderStatus, WantList};
use crate::wire::{DATA_OVERHEAD, HostStage, Message, StatusPhase};

/// Hosts that get the position of the stream.
#[derive(Debug, Clone, Copy)]
pub struct StatusAudience<'a> {
    /// Members and targets.
    pub audience: &'a Audience,
    /// Hosts of the session.
    pub hosts: &'a Hosts,
    /// Whether hosts only compare.
    pub audit: bool,
}

/// Content of a session on its way to the hosts.
#[derive(Debug)]
pub struct ContentService {
    session: SessionId,
    flow: Flow,
    wants: WantWindow,
    heartbeat: Heartbeat,
    /// Passes over the hosts so far; slow hosts are served in a later one.
    pass: u32,
    /// Number of choices of reporters so far.
    choice: u32,
}

impl ContentService {
    /// Creates the state of a session beginning now.
    pub fn new(now: Moment, session: SessionId, flow: Flow) -> Self {
        Self {
            session,
            flow,
            wants: WantWindow::new(now),
            heartbeat: Heartbeat::new(now),
            pass: 0,
            choice: 0,
        }
    }

    /// Flow of data.
    pub fn flow(&self) -> &Flow {
        &self.flow
    }

    /// Mutable access to the flow.
    pub fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// Bytes of a full symbol.
    pub fn symbol(&self) -> u16 {
        (self.flow.stream().segment() - DATA_OVERHEAD) as u16
    }

    /// Records that hosts can ask from now on.
    pub fn on_announced(&mut self, now: Moment) {
        self.wants.on_announced(now);
    }

    /// Takes a host's want: manifest nodes until the host has compared, then blocks if the host
    /// lacks any. An audit serves nodes only. Returns false for wants beyond that.
    pub fn on_want(
        &mut self,
        now: Moment,
        source: InstanceId,
        mut want: WantList,
        offer: &Offer,
        hosts: &mut Hosts,
    ) -> bool {
        let (Some(root), Some(host)) = (offer.root(), hosts.get_mut(source)) else {
            return false;
        };

        let lacks = want
            .fetch
            .or(host.summary.map(|summary| summary.fetch))
            .unwrap_or_default()
            > 0;

        let all = if lacks && !offer.is_audit() {
            root.nodes + root.blocks
        } else {
            root.nodes
        };

        let is_done = host.stage.is_some_and(|stage| stage >= HostStage::Ready);
        want.ranges.0.retain(|range| range.start < all);
        if want.ranges.0.is_empty() || is_done {
            return false;
        }

        let nodes = want.ranges.0.first().is_none_or(|r| r.start < root.nodes);
        if !want.more {
            host.on_asked(nodes);
        }

        self.flow.on_want(source, &want, all);
        if !self.flow.stream().pending().is_empty() {
            self.wants.on_wants(now);
        }

        true
    }

    /// Takes a packed generation.
    pub fn on_packed(&mut self, now: Moment, packed: PackedPayload, offer: &Offer) {
        let PackedPayload { ordinals, payload } = packed;
        let starved = !self.flow.stream().has_data();
        self.wants.on_packed(starved);
        let nodes = offer.root().map_or(0, |root| root.nodes);
        if ordinals.first().is_some_and(|first| first < nodes) {
            self.wants.on_informed(now);
        }
        self.flow.on_packed(now, ordinals, payload);
    }

    /// Takes the failure of the source: the generation is empty.
    pub fn on_unreadable(&mut self, now: Moment) {
        self.flow
            .on_packed(now, RangeSet::default(), Arc::default());
    }

    /// Performs due work, and returns the generation to pack next, if any.
    pub fn serve(&mut self, now: Moment, offer: &Offer, hosts: &Hosts) -> Option<SenderRequest> {
        self.flow.handle_timeout(now);
        if !self.flow.stream().pending().is_empty() {
            self.wants.on_wants(now);
        }

        let mut request = None;
        if self.may_pack(now, offer, hosts)
            && let Some((generation, ordinals)) = self.flow.stream_mut().next_to_pack()
        {
            let demand = Demand {
                rate: self.flow.rate(),
                starved: self.wants.is_starved(),
            };
            request = Some(SenderRequest::Pack(generation, ordinals, demand));
        }

        if self.flow.stream().pending().is_empty() {
            self.wants.on_drained();
        }

        request
    }

    /// Returns whether the wants of all hosts about to ask are merged, or the wait is over.
    fn may_pack(&self, now: Moment, offer: &Offer, hosts: &Hosts) -> bool {
        // Repairs are no reason to pack: others may need the repaired blocks before they can ask.
        if self.flow.stream().is_fresh() {
            return true;
        }
        let closes = self.window_closes(now, offer, hosts);
        closes.is_some_and(|until| until <= now)
    }

    /// Time until which pending wants are gathered, as seen at `at`.
    fn window_closes(&self, at: Moment, offer: &Offer, hosts: &Hosts) -> Option<Moment> {
        let nodes = offer.root()?.nodes;
        let first = self.flow.stream().pending().first();
        let working = hosts
            .iter()
            .filter(|(id, h)| !h.is_lost() && !self.flow.receivers().is_slow(**id));

        self.wants.closes_at(
            at,
            first.is_some_and(|first| first < nodes),
            hosts.len() as u32,
            working.map(|(_, h)| h),
        )
    }

    /// Time at which the gathering of wants ends, after the last tick at `ticked`.
    pub fn window_timeout(&self, ticked: Moment, offer: &Offer, hosts: &Hosts) -> Option<Moment> {
        if self.flow.stream().is_fresh() {
            return None;
        }
        self.window_closes(ticked, offer, hosts)
            .filter(|&until| until > ticked)
    }

    /// Chooses the reporters after a scan of the hosts, and returns whether the choice changed.
    pub fn choose_reporters(&mut self, now: Moment, hosts: &Hosts) -> bool {
        let slow = self.flow.receivers().slow();
        let fetching = hosts
            .iter()
            .filter(|(id, h)| !h.is_settled(false) && !slow.contains(id))
            .count();

        self.flow.set_fetching(fetching);
        self.flow.choose_reporters(now, hosts.ids())
    }

    /// Begins to serve the slow hosts once all others are done; silent ones are not awaited.
    /// Returns whether a pass began.
    pub fn start_second_pass(&mut self, now: Moment, hosts: &Hosts) -> bool {
        let slow = self.flow.receivers().slow();
        let is_open = |h: &Host| !h.is_settled(false) && h.is_present(now, hosts.len());
        let open = |(id, h): (&InstanceId, &Host)| is_open(h) && !slow.contains(id);
        if slow.is_empty() || hosts.iter().any(open) {
            return false;
        }

        self.flow.readmit(now);
        self.pass += 1;
        true
    }

    /// Sends a due heartbeat: at even intervals during data, soon after data, then ever more
    /// rarely.
    pub fn heartbeat_if_due(
        &mut self,
        now: Moment,
        phase: StatusPhase,
        to: StatusAudience<'_>,
        control: &mut Control,
    ) {
        let has_data = self.flow.stream().has_data();
        if !self.heartbeat.poll(now, has_data) {
            return;
        }

        let hosts = to.hosts.len() as u32;
        let unicast = to.audience.unicast();
        if !unicast.has_any() || self.heartbeat.is_due_to_all(now, hosts) {
            return self.send_status(now, phase, to, control);
        }

        // Each has a copy of its own: only hosts that may have lost the end of the data get it.
        let mut dests: Vec<Dest> = unicast.cheap().into_iter().collect();
        if !has_data && self.flow.stream().counter() > 0 {
            let open = (to.audience).dests(now, to.hosts, |host| host.is_settled(to.audit));
            if open != [Dest::Group] {
                if self.heartbeat.may_repeat_to_open(now, hosts) {
                    dests = open;
                }
            } else if self.heartbeat.may_repeat_to_all(now, hosts) {
                return self.send_status(now, phase, to, control);
            }
        }

        let status = Message::Status(self.status(phase, to));
        dests.iter().for_each(|&dest| control.send(dest, &status));
    }

    /// Time of the next heartbeat.
    pub fn heartbeat_due(&self) -> Moment {
        self.heartbeat.due(self.flow.stream().has_data())
    }

    /// Reports the end of the data at once, so that a loss at the end is noticed.
    pub fn on_sent(&mut self, now: Moment) {
        if !self.flow.stream().has_data() {
            self.heartbeat.on_end_of_data(now);
        }
    }

    /// Sends the position of the stream to all.
    pub fn send_status(
        &mut self,
        now: Moment,
        phase: StatusPhase,
        to: StatusAudience<'_>,
        control: &mut Control,
    ) {
        self.heartbeat.on_status(now);
        let status = Message::Status(self.status(phase, to));
        for dest in to.audience.all(to.hosts) {
            control.send(dest, &status);
        }
    }

    /// Sends a new choice of reporters: by multicast to all, otherwise to the reporters, and the
    /// others learn of it by the next status.
    pub fn send_reporters(
        &mut self,
        now: Moment,
        phase: StatusPhase,
        to: StatusAudience<'_>,
        control: &mut Control,
    ) {
        self.choice = self.choice.wrapping_add(1);
        let reporters = self.flow.receivers().reporters();
        let unicast = to.audience.unicast();
        if reporters.is_empty() || !unicast.has_any() {
            return self.send_status(now, phase, to, control);
        }

        let status = Message::Status(SenderStatus {
            reporters: reporters.to_vec(),
            ..self.status(phase, to)
        });
        let hosts = reporters.iter().filter_map(|id| to.hosts.get(*id));
        let apart = hosts.filter(|host| unicast.contains(host.address));
        let apart = apart.map(|host| Dest::Host(host.address));
        let dests = unicast.cheap().into_iter().chain(apart);
        dests.for_each(|dest| control.send(dest, &status));
    }

    /// Returns the position of the stream. Without multicast only the reporters get their list.
    fn status(&self, phase: StatusPhase, to: StatusAudience<'_>) -> SenderStatus {
        let reporters = self.flow.receivers().reporters();
        let is_unicast = to.audience.unicast().is_unicast();
        SenderStatus {
            session: self.session,
            phase,
            sent: self.flow.stream().sent(),
            hosts: to.hosts.len() as u32,
            counter: self.flow.stream().counter(),
            pass: self.pass,
            reporters: match is_unicast {
                true => Vec::new(),
                false => reporters.to_vec(),
            },
            choice: Some(self.choice).filter(|_| is_unicast && !reporters.is_empty()),
        }
    }
}
