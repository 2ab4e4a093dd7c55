//! Batches of a commit, in the order of host names.

use super::hosts::Host;
use crate::id::HostName;
use crate::units::Quorum;
use crate::wire::message::MAX_NAMED_HOSTS;

/// Batches of a commit, in the order of host names.
#[derive(Debug, Default)]
pub struct Batches {
    /// Last host of each batch except the final one, which covers everyone.
    bounds: Vec<HostName>,
    /// Index of the present batch.
    at: usize,
}

impl Batches {
    /// Plans batches of the given `sizes`, and a final one for the rest.
    pub fn plan(sizes: &[Quorum], mut hosts: Vec<HostName>) -> Self {
        hosts.sort();
        let mut bounds = Vec::new();
        let mut end = 0;
        for size in sizes {
            let first = end;
            end += size.of(hosts.len());
            // The final batch covers these hosts anyway.
            if end >= hosts.len() {
                break;
            }
            // An order names a bounded number of hosts, so a larger batch is split.
            let parts = (first + MAX_NAMED_HOSTS..end)
                .step_by(MAX_NAMED_HOSTS)
                .chain([end]);
            bounds.extend(parts.filter_map(|end| hosts.get(end - 1).cloned()));
        }

        Self { bounds, at: 0 }
    }

    /// Last host of the present batch; `None` for the final batch.
    pub fn up_to(&self) -> Option<&HostName> {
        self.bounds.get(self.at)
    }

    /// Returns whether the present batch, or an earlier one, includes the host.
    pub fn has(&self, host: &Host) -> bool {
        self.up_to().is_none_or(|last| host.name <= *last)
    }

    /// Returns whether the present batch is the final one.
    pub fn is_last(&self) -> bool {
        self.at >= self.bounds.len()
    }

    /// Number of the present batch, from 1, and of all.
    pub fn number(&self) -> (usize, usize) {
        let of = self.bounds.len() + 1;
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

    fn bounds(sizes: &[Quorum], hosts: usize) -> Vec<String> {
        let hosts = (1..=hosts)
            .rev()
            .map(|n| HostName::new(&format!("web{n}")).expect("legal"))
            .collect();
        Batches::plan(sizes, hosts)
            .bounds
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn batches_follow_the_order_of_names_and_the_last_takes_in_everybody() {
        let one = Quorum::Count(1);
        let half = Quorum::Share(5_000);
        assert_eq!(bounds(&[], 5), [""; 0]);
        assert_eq!(bounds(&[one], 5), ["web1"]);
        assert_eq!(bounds(&[one, half], 5), ["web1", "web4"]);
        assert_eq!(bounds(&[one, one, one, one, one, one], 3), ["web1", "web2"]);
        assert_eq!(bounds(&[Quorum::All, one], 5), [""; 0]);
        assert_eq!(bounds(&[half], 1), [""; 0]);

        assert_eq!(bounds(&[one], 0), [""; 0]);
    }
}
