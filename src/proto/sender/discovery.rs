//! Discovery: solicits until all known hosts have answered.

use std::time::Duration;

use super::audience::Audience;
use super::hosts::{Host, Hosts};
use super::repeat_timer::{RepeatTimer, resend_from};
use super::setup::DatagramSizes;
use super::unicast_group::dests_of;
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::proto::datagram_size::{min_datagram, probe_sizes};
use crate::units::Moment;

/// Timeout of discovery, however many hosts have answered.
const DISCOVERY_TIMEOUT: Duration = Duration::from_millis(1500);
/// Timeout of discovery without any answer, or with fewer hosts than expected.
const DISCOVERY_TIMEOUT_EMPTY: Duration = Duration::from_millis(3000);
/// Time without new hosts after which all have answered: hosts that have just started do not know
/// each other yet.
const SETTLED_AFTER: Duration = Duration::from_millis(30);
/// Solicits that follow the first one at once while some hosts do not know of others: nothing else
/// tells then that a datagram was lost.
const QUICK_REPEATS: u32 = 3;
/// Interval of these solicits.
const QUICK_INTERVAL: Duration = Duration::from_millis(8);
/// Solicits to send while some hosts do not know of others.
const THOROUGH_SOLICITS: u32 = 2;
/// The same where losses are many or unknown.
const LOSSY_SOLICITS: u32 = 3;
/// Lost answers that say nothing about the network.
const FEW_LOST: u32 = 1;
/// One lost answer of so many makes a network lossy.
const LOSSY_SHARE: u32 = 8;
/// Solicits to send before concluding that the largest datagrams do not reach a host.
const MIN_SOLICITS: u32 = 2;

/// What discovery knows of the network.
#[derive(Clone, Copy)]
pub struct DiscoveryView<'a> {
    pub sizes: DatagramSizes,
    pub audience: &'a Audience,
    /// Hosts that have answered.
    pub hosts: &'a Hosts,
}

/// State of discovery.
#[derive(Debug, Clone, Copy)]
pub struct Discovery {
    began: Moment,
    /// Timer of the solicits.
    resend: RepeatTimer,
    /// Solicits sent, without the quick repeats.
    solicits: u32,
    /// Quick repeats of the first solicit that are left.
    quick: u32,
    /// Answers received.
    answers: u32,
    /// Time of the last solicit.
    solicited: Moment,
    /// Time at which a host was heard for the first time.
    last_new_member: Moment,
}

impl Discovery {
    /// Creates a discovery beginning at `at`.
    pub fn new(at: Moment) -> Self {
        Self {
            began: at,
            resend: resend_from(at),
            solicits: 0,
            quick: 0,
            answers: 0,
            solicited: at,
            last_new_member: at,
        }
    }

    /// Records the answer of a host, heard for the first time if `new`.
    pub fn on_answer(&mut self, now: Moment, new: bool) {
        self.answers += 1;
        if new {
            self.last_new_member = now;
        }
    }

    /// Sends a due solicit, with probes of the paths.
    pub fn solicit_if_due(&mut self, now: Moment, view: DiscoveryView<'_>, control: &mut Control) {
        if !self.resend.is_due(now) {
            return self.repeat_if_due(now, view, control);
        }

        let DiscoveryView {
            sizes,
            audience,
            hosts,
        } = view;

        // Probes first: a host answers with the largest probe received so far. The largest usually
        // passes, and the others are needed only if some host did not receive it.
        self.quick = 0;
        if self.solicits == 0 {
            view.solicit(&[Dest::Group], 1, control);
            // With many copies the answers to the first solicit have yet to come.
            self.quick = if audience.repeat_wait().is_zero() {
                QUICK_REPEATS
            } else {
                0
            };
        } else {
            let unicast = audience.unicast();
            let cheap = unicast.cheap();
            let unheard = audience.dests(now, hosts, |_| true);
            let (all, single): (Vec<_>, Vec<_>) =
                unheard.into_iter().partition(|dest| Some(*dest) == cheap);
            view.solicit(&all, usize::MAX, control);
            view.solicit(&single, 1, control);

            let apart = hosts.iter().map(|(_, host)| host);
            let apart = apart.filter(|host| unicast.contains(host.address));
            let narrow = apart.filter(|host| !is_full(host, sizes.datagram));
            let narrow = dests_of(narrow.map(|host| host.address));
            view.solicit(&narrow, usize::MAX, control);
        }

        self.solicits += 1;
        self.solicited = now;
        self.resend.advance(now + audience.repeat_wait());
    }

    /// Sends a due quick repeat.
    fn repeat_if_due(&mut self, now: Moment, view: DiscoveryView<'_>, control: &mut Control) {
        let is_due = self.quick > 0 && self.solicited + QUICK_INTERVAL <= now;
        if is_due && !view.audience.is_vouched_for() {
            let unheard = view.audience.dests(now, view.hosts, |_| true);
            view.solicit(&unheard, 1, control);
            self.quick -= 1;
            self.solicited = now;
        }
    }

    /// Returns whether further answers are unlikely, or waiting for them has taken too long.
    pub fn is_over(&self, now: Moment, view: DiscoveryView<'_>) -> bool {
        let DiscoveryView {
            sizes,
            audience,
            hosts,
        } = view;
        let waited = now.since(self.began);
        let slots = audience.answer_time();
        if waited >= DISCOVERY_TIMEOUT_EMPTY + slots {
            return true;
        }

        let is_settled =
            || self.is_measured(now, sizes, hosts) && self.is_quiet(now, audience, hosts);
        audience.is_enough(hosts) && (waited >= DISCOVERY_TIMEOUT + slots || is_settled())
    }

    /// Returns whether further answers are unlikely: all hosts of the preceding session have
    /// answered, or all that the members claim to exist, and no new host for a while.
    fn is_quiet(&self, now: Moment, audience: &Audience, hosts: &Hosts) -> bool {
        let known = audience.targets().known;
        if known > 0 && hosts.len() >= known {
            return audience.is_complete();
        }

        now.since(self.last_new_member) >= SETTLED_AFTER
            && (audience.is_vouched_for() || self.is_thorough(now, audience))
    }

    /// Returns whether lost datagrams are an unlikely reason for missing answers: several solicits
    /// brought nobody else, over longer than most bursts of losses last.
    fn is_thorough(&self, now: Moment, audience: &Audience) -> bool {
        let solicits = match self.is_lossy(audience) {
            true => LOSSY_SOLICITS,
            false => THOROUGH_SOLICITS,
        };

        self.solicits >= solicits
            && now.since(self.solicited) >= SETTLED_AFTER
            && now.since(self.began) >= audience.answer_time()
            && audience.is_complete()
    }

    /// Returns whether many answers to the first solicit and its quick repeats were lost, or must
    /// be expected to: a host of a large fleet answers them once.
    fn is_lossy(&self, audience: &Audience) -> bool {
        let members = audience.members().count() as u32;
        let expected = members * (1 + QUICK_REPEATS);
        let lost = expected.saturating_sub(self.answers);

        !audience.answer_time().is_zero() || (lost > FEW_LOST && lost * LOSSY_SHARE > expected)
    }

    /// Returns whether full-size datagrams reach every host, or several solicits found a smaller
    /// size. A host that received no probe at all gets twice as many solicits. The last solicit has
    /// had time for answers.
    fn is_measured(&self, now: Moment, sizes: DatagramSizes, hosts: &Hosts) -> bool {
        let most = sizes.datagram;
        if most < min_datagram(sizes.room) || hosts.iter().all(|(_, h)| is_full(h, most)) {
            return true;
        }

        let answered = hosts.iter().all(|(_, h)| h.transfer.takes.is_some());
        let enough = if answered {
            MIN_SOLICITS
        } else {
            MIN_SOLICITS * 2
        };
        self.solicits > enough && now.since(self.solicited) >= SETTLED_AFTER
    }

    /// Time of the next solicit or possible end of discovery, after `ticked`.
    pub fn timeout(&self, ticked: Moment, audience: &Audience) -> Moment {
        let slots = audience.answer_time();
        let repeat = (self.quick > 0).then(|| self.solicited + QUICK_INTERVAL);
        let ends = [
            self.last_new_member + SETTLED_AFTER,
            self.solicited + SETTLED_AFTER,
            self.began + slots,
            self.began + DISCOVERY_TIMEOUT + slots,
            self.began + DISCOVERY_TIMEOUT_EMPTY + slots,
        ];

        ends.into_iter()
            .chain(repeat)
            .filter(|&at| at > ticked)
            .fold(self.resend.due(), Moment::min)
    }
}

/// Returns whether datagrams of `most` bytes are known to reach a host.
fn is_full(host: &Host, most: usize) -> bool {
    let takes = host.transfer.takes;
    takes.is_some_and(|size| usize::from(size) >= most)
}

impl DiscoveryView<'_> {
    /// Sends the `most` largest probes and a solicit to each destination.
    fn solicit(&self, dests: &[Dest], most: usize, control: &mut Control) {
        for &dest in dests {
            probe_sizes(self.sizes.datagram, self.sizes.room)
                .take(most)
                .for_each(|size| control.probe(dest, size));
            self.audience.solicit(control, dest, true);
        }
    }
}
