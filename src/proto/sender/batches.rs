//! Batches of a commit: by number, in the order of host names, or by name and label.

use std::collections::{BTreeMap, BTreeSet};

use super::hosts::Host;
use crate::id::{HostName, Labels, matches_host};
use crate::spec::BatchRule;
use crate::wire::message::MAX_NAMED_HOSTS;

/// Batches of a commit. The final one takes in everyone, and hosts that came late.
#[derive(Debug, Default)]
pub struct Batches {
    /// Batch of each host, but for hosts of the final one.
    of: BTreeMap<HostName, usize>,
    /// First host of the final batch.
    first_rest: Option<HostName>,
    /// Number of batches before the final one.
    count: usize,
    /// Index of the present batch.
    at: usize,
}

impl Batches {
    /// Plans a batch for each of the `rules`, and a final one for the rest. A rule that selects
    /// nobody has no batch.
    pub fn plan(rules: &[BatchRule], hosts: Vec<(HostName, Labels)>) -> Self {
        let total = hosts.len();
        let mut left: BTreeMap<HostName, Labels> = hosts.into_iter().collect();
        let mut planned = Self::default();
        for rule in rules {
            let selected: Vec<HostName> = match rule {
                BatchRule::Size(size) => left.keys().take(size.of(total)).cloned().collect(),
                BatchRule::Hosts(pattern) => {
                    let is_selected = |(name, labels): &(&HostName, &Labels)| {
                        matches_host(pattern, name, Some(labels))
                    };
                    let selected = left.iter().filter(is_selected);
                    selected.map(|(name, _)| name.clone()).collect()
                }
            };

            // The final batch covers these hosts anyway.
            if selected.len() == left.len() {
                break;
            }
            selected.iter().for_each(|name| drop(left.remove(name)));

            // An order names a bounded number of hosts, so a larger batch is split.
            for part in selected.chunks(MAX_NAMED_HOSTS) {
                let hosts = part.iter().map(|name| (name.clone(), planned.count));
                planned.of.extend(hosts);
                planned.count += 1;
            }
        }

        planned.first_rest = left.into_keys().next();
        planned
    }

    /// Last host in the order of names up to which the present batch and earlier ones have every
    /// host; the lowest possible name if there is none. Older hosts read it in place of the names.
    pub fn up_to(&self) -> HostName {
        let is_done = |name: &HostName| self.of.get(name).is_some_and(|batch| *batch <= self.at);
        let done: BTreeSet<&HostName> = self.of.keys().filter(|name| is_done(name)).collect();
        let later = self.of.keys().find(|name| !is_done(name));
        let first_later = self.first_rest.iter().chain(later).min();
        let mut before = done.into_iter().rev();
        let last = before.find(|name| first_later.is_none_or(|later| *name < later));
        last.cloned()
            .unwrap_or_else(|| HostName::new("0").expect("a legal name"))
    }

    /// Returns whether the present batch, or an earlier one, includes the host.
    pub fn has(&self, host: &Host) -> bool {
        self.index_of(&host.name) <= self.at
    }

    /// Index of the batch of the host `name`, from 0.
    pub fn index_of(&self, name: &HostName) -> usize {
        self.of.get(name).copied().unwrap_or(self.count)
    }

    /// Returns whether the present batch is the final one.
    pub fn is_last(&self) -> bool {
        self.at >= self.count
    }

    /// Number of the present batch, from 1, and of all.
    pub fn number(&self) -> (usize, usize) {
        let of = self.count + 1;
        (of.min(self.at + 1), of)
    }

    /// Moves on to the next batch.
    pub fn advance(&mut self) {
        self.at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Quorum;

    /// Plans batches of web1, web2 and so on; those of odd number are in zone a, others in b.
    fn planned(rules: &[BatchRule], hosts: usize) -> Batches {
        let host = |n: usize| {
            let name = HostName::new(&format!("web{n}")).expect("legal");
            let zone = if n % 2 == 1 { "zone=a" } else { "zone=b" };
            (name, Labels::parse_known(zone))
        };
        Batches::plan(rules, (1..=hosts).rev().map(host).collect())
    }

    /// Hosts of each batch but the final one, with the last name for older hosts.
    fn shown(rules: &[BatchRule], hosts: usize) -> Vec<String> {
        let mut batches = planned(rules, hosts);
        let mut shown = Vec::new();
        while !batches.is_last() {
            let here = batches.of.iter().filter(|(_, batch)| **batch == batches.at);
            let names: Vec<&str> = here.map(|(name, _)| name.as_str()).collect();
            shown.push(format!("{} up to {}", names.join(" "), batches.up_to()));
            batches.advance();
        }
        shown
    }

    fn size(size: Quorum) -> BatchRule {
        BatchRule::Size(size)
    }

    fn hosts(pattern: &str) -> BatchRule {
        BatchRule::Hosts(pattern.into())
    }

    #[test]
    fn batches_follow_the_order_of_names_and_the_last_takes_in_everybody() {
        let one = || size(Quorum::Count(1));
        let half = || size(Quorum::Share(5_000));
        assert_eq!(shown(&[], 5), [""; 0]);
        assert_eq!(shown(&[one()], 5), ["web1 up to web1"]);
        let canary = ["web1 up to web1", "web2 web3 web4 up to web4"];
        assert_eq!(shown(&[one(), half()], 5), canary);
        let each = ["web1 up to web1", "web2 up to web2"];
        assert_eq!(shown(&[one(), one(), one(), one()], 3), each);
        assert_eq!(shown(&[size(Quorum::All), one()], 5), [""; 0]);
        assert_eq!(shown(&[half()], 1), [""; 0]);
        assert_eq!(shown(&[one()], 0), [""; 0]);
    }

    #[test]
    fn a_zone_is_a_batch_and_a_pattern_without_hosts_is_none() {
        let zones = [hosts("zone=a"), hosts("zone=b")];
        assert_eq!(shown(&zones, 5), ["web1 web3 web5 up to web1"]);
        assert_eq!(shown(&[hosts("zone=c"), hosts("db*")], 5), [""; 0]);

        let canary = [size(Quorum::Count(1)), hosts("zone=b"), hosts("zone=a")];
        let expected = ["web1 up to web1", "web2 web4 up to web2"];
        assert_eq!(shown(&canary, 5), expected);
        let by_name = [hosts("web[45]"), hosts("zone=*")];
        assert_eq!(shown(&by_name, 5), ["web4 web5 up to 0"]);
    }

    #[test]
    fn no_batch_has_more_hosts_than_an_order_names() {
        let most = [size(Quorum::Count(2 * MAX_NAMED_HOSTS as u32 + 1))];
        let batches = planned(&most, 3 * MAX_NAMED_HOSTS);
        assert_eq!(batches.number(), (1, 4));
        let sizes = (0..3).map(|at| batches.of.values().filter(|batch| **batch == at).count());
        assert_eq!(
            sizes.collect::<Vec<_>>(),
            [MAX_NAMED_HOSTS, MAX_NAMED_HOSTS, 1]
        );
    }
}
