//! Relays of a session: the hosts that pass data on to all others, in turn.
//!
//! A relay that is dead, stopped or behind a slow uplink shows by the NACKs: its symbols are
//! missing at several hosts that have the symbols of other relays. Such a relay is out for a time
//! that doubles with each repetition. Then it gets a small share on trial. Losses at one host only
//! count against no relay, but repairs take another way at once.

mod evidence;
mod own_word;
mod relay;
mod trains;
mod turns;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;

use evidence::PassedSymbols;
use relay::{Relay, RelayState};
use trains::{RelayIndex, TrainLog, TrainRun};
use turns::Turns;

use super::generation::{SentDatagrams, SentSymbols};
use crate::id::InstanceId;
use crate::units::Moment;
use crate::wire::message::Missing;

/// Hosts that have to accuse a relay. In a smaller fleet, the majority of the other hosts.
const MAX_ACCUSING: usize = 3;
/// Largest fleet in which all relays may be out. In a larger one half of them stay: own copies for
/// all hosts would cost more than the repairs.
const MAX_DIRECT_FLEET: usize = 3;

/// Relays of one session.
#[derive(Debug, Default)]
pub struct Relays {
    /// All hosts that have been relays.
    relays: Vec<Relay>,
    by_host: BTreeMap<InstanceId, RelayIndex>,
    /// Relays that take trains in turn.
    active: Vec<RelayIndex>,
    /// Relays that take a train from time to time.
    on_trial: Vec<RelayIndex>,
    /// Number of relays below which each host gets its own copy.
    least: usize,
    /// Number of suspects among those in turn.
    suspects: usize,
    /// Number of hosts that are out for their losses.
    out: usize,
    /// Number of relays that any host accuses.
    accused: usize,
    /// A host accuses a relay for the first time.
    has_new_accuser: bool,
    turns: Turns,
    log: TrainLog,
    /// Symbols of each relay at the host of the present NACK.
    counts: Vec<PassedSymbols>,
}

impl Relays {
    /// Lets `hosts` pass data on: those that are present, fast and not out. All others are out at
    /// once. They take turns in this order, in which the plan spreads the heads evenly.
    ///
    /// With fewer than `least` relays each host gets its own copy.
    pub fn choose(
        &mut self,
        now: Moment,
        least: usize,
        hosts: impl Iterator<Item = (InstanceId, SocketAddr)>,
    ) {
        self.least = least.max(1);
        self.relays
            .iter_mut()
            .for_each(|relay| relay.is_present = false);

        for ((host, address), place) in hosts.zip(0..) {
            let Some(relay) = self.relay_of(host, address) else {
                continue;
            };
            relay.address = address;
            relay.place = place;
            relay.is_present = true;
        }

        let next = self.log.end();
        self.relays
            .iter_mut()
            .for_each(|relay| relay.end_pause(now, next));
        self.arrange();
    }

    /// Returns the record of a host, new if it is the first time. `None` beyond the bound.
    fn relay_of(&mut self, host: InstanceId, address: SocketAddr) -> Option<&mut Relay> {
        if let Some(&RelayIndex(at)) = self.by_host.get(&host) {
            return self.relays.get_mut(usize::from(at));
        }

        let index = RelayIndex(u16::try_from(self.relays.len()).ok()?);
        self.by_host.insert(host, index);
        self.relays.push(Relay::new(host, address, self.log.end()));
        self.relays.last_mut()
    }

    /// Returns the record of a host that has been a relay.
    fn relay_mut(&mut self, host: InstanceId) -> Option<&mut Relay> {
        let RelayIndex(at) = *self.by_host.get(&host)?;
        self.relays.get_mut(usize::from(at))
    }

    /// Takes a host out that is gone.
    pub fn remove(&mut self, host: InstanceId) {
        if let Some(relay) = self.relay_mut(host) {
            relay.is_present = false;
            self.arrange();
        }
    }

    /// Lists the relays by their trust.
    fn arrange(&mut self) {
        self.active.clear();
        self.on_trial.clear();
        (self.suspects, self.out, self.accused) = (0, 0, 0);
        for (relay, at) in self.relays.iter().zip(0..) {
            self.accused += usize::from(relay.evidence.is_accused());
            match relay.state {
                RelayState::OutUntil(_) => self.out += 1,
                _ if relay.is_unfit => self.out += 1,
                _ if !relay.is_present => {}
                RelayState::Trial(_) => self.on_trial.push(RelayIndex(at)),
                RelayState::Trusted => {
                    self.active.push(RelayIndex(at));
                    self.suspects += usize::from(relay.is_suspect);
                }
            }
        }

        let relays = &self.relays;
        let place = |at: &RelayIndex| relays.get(usize::from(at.0)).map(|relay| relay.place);
        self.active.sort_by_key(place);
    }

    /// Returns whether there has been any relay: never with multicast.
    pub fn has_any(&self) -> bool {
        !self.relays.is_empty()
    }

    /// Returns whether a relay takes the next train. With too few relays each host gets its own
    /// copy, and only a relay on trial takes a train from time to time.
    pub fn begin_train(&mut self) -> bool {
        if self.active.len() < self.least && self.on_trial.is_empty() {
            return false;
        }

        self.turns.begin_train();
        self.active.len() >= self.least || (self.is_trial_due() && self.present() >= self.least)
    }

    /// Number of hosts that take part, whether or not they pass data on now.
    pub fn present(&self) -> usize {
        let takes_part = |r: &&Relay| r.is_present && !r.is_unfit;
        self.relays.iter().filter(takes_part).count()
    }

    /// Chooses the relay of the train with the datagrams in `counters`.
    pub fn take(&mut self, counters: Range<u64>, train: &SentDatagrams) -> Option<SocketAddr> {
        let is_repair = train.repairs > 0;
        let on_trial = self.is_trial_due() && (!is_repair || self.active.len() < 2);
        let at = match on_trial {
            true => self.next_on_trial(),
            false if is_repair => self.next_for_repair(train.lost),
            false => self.next_active(),
        }?;
        if !on_trial {
            self.on_turn(at, train.datagrams, is_repair);
        }

        let relay = self.relays.get_mut(usize::from(at.0))?;
        let address = relay.address;
        let has_passed = relay.on_taken(train.datagrams);
        self.log.record(counters, Some(at));
        if has_passed {
            self.arrange();
        }

        Some(address)
    }

    /// Records a train of the datagrams in `counters` that went to each host directly.
    pub fn on_direct(&mut self, counters: Range<u64>) {
        if !self.log.is_empty() {
            self.log.record(counters, None);
        }
    }

    /// Takes the losses of `host` in a generation, with `seen` the last data counter received.
    pub fn on_missing(
        &mut self,
        host: InstanceId,
        missing: &Missing,
        sent: SentSymbols<'_>,
        seen: u64,
    ) {
        // Without names of symbols nothing shows which relay lost them.
        if self.log.is_empty() || missing.symbols.0.is_empty() || missing.need.is_empty() {
            return;
        }

        let all = self.count_symbols(missing, sent, seen);
        for (relay, own) in self.relays.iter_mut().zip(&self.counts) {
            let taken = u64::from(all.taken - own.taken);
            let passed = u64::from(all.passed - own.passed);
            if own.taken == 0 || taken == 0 || relay.host == host {
                continue;
            }

            let expected = (u64::from(own.taken) * passed / taken) as u32;
            let symbols = PassedSymbols { expected, ..*own };
            let is_new = relay.evidence.add(host, missing.generation.0, symbols);
            self.has_new_accuser |= is_new;
        }
    }

    /// Counts the symbols of each relay that the host should have, and returns the sum.
    fn count_symbols(
        &mut self,
        missing: &Missing,
        sent: SentSymbols<'_>,
        seen: u64,
    ) -> PassedSymbols {
        self.counts.clear();
        self.counts
            .resize(self.relays.len(), PassedSymbols::default());

        let mut all = PassedSymbols::default();
        let mut named = missing.symbols.0.iter().peekable();
        let mut run = None;
        for (&at, index) in sent.counters.iter().zip(0u64..) {
            while named.next_if(|range| range.end <= index).is_some() {}
            let is_missing = named.peek().is_some_and(|range| range.start <= index);

            // A column without need says nothing of its symbols.
            let column = (index % u64::from(sent.columns.max(1))) as usize;
            let has_need = missing.need.get(column).is_some_and(|need| *need > 0);
            if at == 0 || at > seen || !has_need {
                continue;
            }

            let is_same = |run: &TrainRun| run.counters.contains(&at);
            let is_new = !run.as_ref().is_some_and(is_same);
            if is_new {
                run = self.log.run_of(at);
            }
            let Some(run) = &run else { continue };

            all.add(is_missing, is_new);
            if let Some(RelayIndex(relay)) = run.relay
                && let Some(own) = self.counts.get_mut(usize::from(relay))
                && let Some(relay) = self.relays.get(usize::from(relay))
                && at >= relay.since
            {
                own.add(is_missing, is_new);
            }
        }

        all
    }

    /// Ways from a relay that is not out to a host that carry nothing.
    pub fn broken_ways(&self) -> impl Iterator<Item = (InstanceId, InstanceId)> {
        let takes = |relay: &&Relay| relay.is_present && !relay.is_out();
        let relays = self.relays.iter().filter(|_| self.accused > 0);
        relays
            .filter(takes)
            .flat_map(|relay| relay.evidence.cut_off().map(|host| (relay.host, host)))
    }

    /// Number of relays that stay in, whatever they lose.
    fn least_left(&self) -> usize {
        match self.present() {
            ..=MAX_DIRECT_FLEET => 0,
            present => present.div_ceil(2),
        }
    }

    /// Takes out the relays that enough hosts accuse. Returns whether a relay was taken out, became
    /// suspect, or has a new accuser. A relay becomes suspect once until it is out: it may be
    /// innocent, and the losses those of a queue. A host is a new accuser of a relay once.
    pub fn judge(&mut self, now: Moment) -> bool {
        let present = self.present();
        let enough = (present.saturating_sub(1) / 2 + 1).min(MAX_ACCUSING);
        let before = self.active.len() + self.on_trial.len();
        let mut has_new = std::mem::take(&mut self.has_new_accuser);
        let mut most = before.saturating_sub(self.least_left());
        for relay in &mut self.relays {
            // Without one that takes no trains now, as many are left.
            let takes = relay.is_present && !relay.is_out();
            if relay.is_guilty(enough) && (most > 0 || !takes) {
                relay.take_out(now);
                most -= usize::from(takes);
            }
            has_new |= takes && relay.is_new_suspect();
        }

        self.arrange();
        self.active.len() + self.on_trial.len() < before || has_new
    }

    /// Number of the datagrams in `counters` that `host` was to get over relays that are out now or
    /// suspect, or that it accuses: its way from one of them may be broken.
    pub fn lost_by_relays(&self, host: InstanceId, counters: Range<u64>) -> u64 {
        if self.out + self.suspects + self.accused == 0 {
            return 0;
        }

        let loses = |relay: &Relay| relay.loses() || relay.evidence.is_accused_by(host);
        let is_out = |RelayIndex(at): RelayIndex| {
            let relay = self.relays.get(usize::from(at));
            relay.is_some_and(|relay| relay.host != host && loses(relay))
        };
        let lost = |run: &TrainRun| run.relay.is_some_and(is_out);
        let runs = self.log.runs_in(counters.clone()).filter(lost);
        runs.map(|run| {
            let end = run.counters.end.min(counters.end);
            end.saturating_sub(run.counters.start.max(counters.start))
        })
        .sum()
    }
}

#[cfg(test)]
mod tests;
