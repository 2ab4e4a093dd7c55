//! The hosts that a search found, with their measurements.

use std::net::SocketAddr;

use super::target::CheckupTarget;
use crate::doctor::{ClockOffset, HostFacts, PathSizes, Tally};
use crate::id::{HostName, InstanceId, NamedHost};
use crate::wire::message::Hello;
use crate::wire::query::QueryAnswer;

/// Largest number of hosts remembered.
const MAX_FOUND_HOSTS: usize = 4_096;
/// Largest number of hosts whose paths are measured.
const MAX_MEASURED_HOSTS: usize = 64;

/// A host that was heard.
#[derive(Debug)]
pub(super) struct FoundHost {
    /// Its process.
    pub(super) source: InstanceId,
    pub(super) facts: HostFacts,
    /// Packets lost in its receive buffer, at the last answer.
    pub(super) dropped: u64,
}

/// Hosts in the order of their discovery, then those to measure by name.
#[derive(Debug, Default)]
pub(super) struct FoundHosts {
    all: Vec<FoundHost>,
    /// Hosts whose paths are not measured.
    others: Vec<HostFacts>,
    /// Whether no host is added any more.
    is_closed: bool,
}

impl FoundHosts {
    /// Names of all hosts.
    pub(super) fn names(&self) -> Vec<HostName> {
        let names = self.all.iter().map(|host| host.facts.host.name.clone());
        names.collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &FoundHost> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut FoundHost> {
        self.all.iter_mut()
    }

    pub(super) fn get_mut(&mut self, source: InstanceId) -> Option<&mut FoundHost> {
        self.all.iter_mut().find(|host| host.source == source)
    }

    /// Hosts that answer, with their addresses.
    pub(super) fn answering(&self) -> Vec<(InstanceId, SocketAddr)> {
        let answering = self.all.iter().filter(|host| host.facts.answered);
        answering
            .map(|host| (host.source, host.facts.address))
            .collect()
    }

    /// Records a beacon, or an answer if `answered`.
    pub(super) fn on_hello(
        &mut self,
        source: InstanceId,
        from: SocketAddr,
        hello: &Hello,
        answered: bool,
    ) {
        if let Some(host) = self.entry(source, from, &hello.name) {
            host.facts.version.clone_from(&hello.version);
            host.facts.answered |= answered;
            if answered {
                host.facts.address = from;
            }
        }
    }

    /// Records an answer about the machine of a host.
    pub(super) fn on_answer(
        &mut self,
        source: InstanceId,
        from: SocketAddr,
        answer: QueryAnswer,
        clock: Option<ClockOffset>,
    ) {
        if let Some(host) = self.entry(source, from, &answer.host)
            && host.facts.report.is_none()
        {
            host.facts.answered = true;
            host.facts.clock = clock;
            host.facts.report = answer.machine;
        }
    }

    fn entry(
        &mut self,
        source: InstanceId,
        address: SocketAddr,
        name: &HostName,
    ) -> Option<&mut FoundHost> {
        let known = self.all.iter().position(|host| host.source == source);
        if known.is_none() && !self.is_closed && self.all.len() < MAX_FOUND_HOSTS {
            self.all.push(FoundHost {
                source,
                facts: unmeasured(name, address),
                dropped: 0,
            });
        }

        match known {
            Some(place) => self.all.get_mut(place),
            None => self.all.last_mut().filter(|host| host.source == source),
        }
    }

    /// Returns whether the only wanted host has told all.
    pub(super) fn has_all_of(&self, target: &CheckupTarget) -> bool {
        let is_told = |host: &FoundHost| host.facts.answered && host.facts.report.is_some();
        target.host.is_some() && self.all.iter().any(|h| is_wanted(h, target) && is_told(h))
    }

    /// Returns whether a wanted host was heard.
    pub(super) fn has_any_of(&self, target: &CheckupTarget) -> bool {
        self.all.iter().any(|host| is_wanted(host, target))
    }

    /// Keeps the wanted hosts, sorted by name. Beyond a number of hosts, paths are not measured.
    pub(super) fn keep_measured(&mut self, target: &CheckupTarget) {
        self.is_closed = true;
        self.all.retain(|host| is_wanted(host, target));
        self.all.sort_by(|a, b| {
            let key = |host: &FoundHost| (host.facts.host.clone(), host.facts.address);
            key(a).cmp(&key(b))
        });

        for same in self
            .all
            .chunk_by_mut(|a, b| a.facts.host.name == b.facts.host.name)
        {
            if same.len() > 1 {
                same.iter_mut()
                    .for_each(|host| host.facts.host.address = Some(host.facts.address.ip()));
            }
        }

        let others = self.all.len().min(MAX_MEASURED_HOSTS);
        let others = self.all.split_off(others).into_iter();
        self.others = others
            .map(|host| HostFacts {
                measured: false,
                ..host.facts
            })
            .collect();
    }

    pub(super) fn into_facts(self) -> Vec<HostFacts> {
        let measured = self.all.into_iter().map(|host| host.facts);
        measured.chain(self.others).collect()
    }
}

fn is_wanted(host: &FoundHost, target: &CheckupTarget) -> bool {
    let Some(wanted) = &target.host else {
        return true;
    };
    let is_at = |address: &SocketAddr| address.ip() == host.facts.address.ip();
    host.facts.host.name.as_str() == wanted || target.addresses.iter().any(is_at)
}

fn unmeasured(name: &HostName, address: SocketAddr) -> HostFacts {
    HostFacts {
        host: NamedHost::from(name.clone()),
        address,
        version: String::new(),
        answered: false,
        measured: true,
        report: None,
        clock: None,
        counts: false,
        to_group: None,
        to_host: None,
        from_group: None,
        sizes: PathSizes::default(),
        bursts: Vec::new(),
    }
}

impl FoundHost {
    /// Returns whether nothing arrives at the host's address.
    pub(super) fn is_cut_off(&self) -> bool {
        self.facts.to_host.is_none_or(Tally::is_cut)
    }

    /// Returns whether the group reaches the host.
    pub(super) fn hears_group(&self) -> bool {
        self.facts.to_group.is_some_and(|tally| !tally.is_cut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::checkup::tests::old_hello;
    use crate::id::Nonce;

    #[test]
    fn the_paths_to_64_of_200_hosts_are_measured_and_all_are_told() {
        let mut found = FoundHosts::default();
        // In no order of names.
        for number in (1..=200_u64).map(|n| n * 77 % 211) {
            let hello = Hello {
                name: HostName::new(&format!("web{number}")).expect("legal"),
                ..old_hello(Nonce(1))
            };
            let at = SocketAddr::from(([10, 0, 1, number as u8], 5001));
            found.on_hello(InstanceId(number), at, &hello, true);
        }
        assert_eq!(found.names().len(), 200);

        found.keep_measured(&CheckupTarget::default());
        assert_eq!(found.answering().len(), MAX_MEASURED_HOSTS);
        // A late answer of another one changes nothing.
        let late = found.others[0].clone();
        found.on_hello(InstanceId(999), late.address, &old_hello(Nonce(1)), true);

        let facts = found.into_facts();
        assert_eq!(facts.len(), 200);
        assert!(facts.is_sorted_by_key(|host| host.host.clone()));
        let measured = facts.iter().filter(|host| host.measured).count();
        assert_eq!(measured, MAX_MEASURED_HOSTS);
        assert!(facts.iter().all(|host| host.answered));
    }
}
