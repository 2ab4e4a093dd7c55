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
/// Solicits to send before concluding that the largest datagrams do not reach a host.
const MIN_SOLICITS: u32 = 2;

/// State of discovery.
#[derive(Debug, Clone, Copy)]
pub struct Discovery {
    began: Moment,
    /// Timer of the solicits.
    resend: RepeatTimer,
    /// Solicits sent.
    solicits: u32,
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
            solicited: at,
            last_new_member: at,
        }
    }

    /// Records that a host was heard for the first time.
    pub fn on_new_member(&mut self, now: Moment) {
        self.last_new_member = now;
    }

    /// Sends a due solicit, with probes of the paths.
    pub fn solicit_if_due(
        &mut self,
        now: Moment,
        sizes: DatagramSizes,
        audience: &Audience,
        hosts: &Hosts,
        control: &mut Control,
    ) {
        if !self.resend.is_due(now) {
            return;
        }

        // Probes first: a host answers with the largest probe received so far. The largest usually
        // passes, and the others are needed only if some host did not receive it.
        if self.solicits == 0 {
            solicit(&[Dest::Group], 1, sizes, audience, control);
        } else {
            let unicast = audience.unicast();
            let cheap = unicast.cheap();
            let unheard = audience.dests(now, hosts, |_| true);
            let (all, single): (Vec<_>, Vec<_>) =
                unheard.into_iter().partition(|dest| Some(*dest) == cheap);
            solicit(&all, usize::MAX, sizes, audience, control);
            solicit(&single, 1, sizes, audience, control);

            let apart = hosts.iter().map(|(_, host)| host);
            let apart = apart.filter(|host| unicast.contains(host.address));
            let narrow = apart.filter(|host| !is_full(host, sizes.datagram));
            let narrow = dests_of(narrow.map(|host| host.address));
            solicit(&narrow, usize::MAX, sizes, audience, control);
        }

        self.solicits += 1;
        self.solicited = now;
        self.resend.advance(now + audience.repeat_wait());
    }

    /// Returns whether further answers are unlikely, or waiting for them has taken too long.
    pub fn is_over(
        &self,
        now: Moment,
        sizes: DatagramSizes,
        audience: &Audience,
        hosts: &Hosts,
    ) -> bool {
        let waited = now.since(self.began);
        let slots = audience.answer_time();
        if waited >= DISCOVERY_TIMEOUT_EMPTY + slots {
            return true;
        }

        let is_settled = || {
            self.is_measured(now, sizes, hosts)
                && audience.is_complete()
                && self.is_quiet(now, audience.targets().known, hosts)
        };

        audience.is_enough(hosts) && (waited >= DISCOVERY_TIMEOUT + slots || is_settled())
    }

    /// Returns whether further answers are unlikely: all hosts of the preceding session, `known` in
    /// number, have answered, or no new host for a while.
    fn is_quiet(&self, now: Moment, known: usize, hosts: &Hosts) -> bool {
        let all_known = known > 0 && hosts.len() >= known;
        all_known || now.since(self.last_new_member) >= SETTLED_AFTER
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
        let ends = [
            self.last_new_member + SETTLED_AFTER,
            self.solicited + SETTLED_AFTER,
            self.began + DISCOVERY_TIMEOUT + slots,
            self.began + DISCOVERY_TIMEOUT_EMPTY + slots,
        ];

        ends.into_iter()
            .filter(|&at| at > ticked)
            .fold(self.resend.due(), Moment::min)
    }
}

/// Returns whether datagrams of `most` bytes are known to reach a host.
fn is_full(host: &Host, most: usize) -> bool {
    let takes = host.transfer.takes;
    takes.is_some_and(|size| usize::from(size) >= most)
}

/// Sends the `most` largest probes and a solicit to each destination.
fn solicit(
    dests: &[Dest],
    most: usize,
    sizes: DatagramSizes,
    audience: &Audience,
    control: &mut Control,
) {
    for &dest in dests {
        probe_sizes(sizes.datagram, sizes.room)
            .take(most)
            .for_each(|size| control.probe(dest, size));
        audience.solicit(control, dest, true);
    }
}
