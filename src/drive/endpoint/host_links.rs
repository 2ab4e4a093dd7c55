//! The link on which each host was heard last.

use std::collections::HashMap;
use std::net::SocketAddr;

/// Largest number of hosts whose link is remembered; beyond it the table starts over.
const MAX_HOST_LINKS: usize = 20_000;

/// The link of each host.
#[derive(Debug, Default)]
pub(super) struct HostLinks {
    links: HashMap<SocketAddr, usize>,
    last: Option<(SocketAddr, usize)>,
}

impl HostLinks {
    /// Records that `from` was heard on `link`.
    pub(super) fn record(&mut self, from: SocketAddr, link: usize) {
        if self.last == Some((from, link)) {
            return;
        }

        self.last = Some((from, link));
        if self.links.len() >= MAX_HOST_LINKS && !self.links.contains_key(&from) {
            self.links.clear();
        }

        self.links.insert(from, link);
    }

    /// Link that last received from `host`.
    pub(super) fn of(&self, host: SocketAddr) -> Option<usize> {
        self.links.get(&host).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_where_it_was_heard_last_and_a_flood_of_hosts_stays_bounded() {
        let mut host_links = HostLinks::default();
        let host = |n: u16| SocketAddr::from(([10, 0, 0, 1], n));
        host_links.record(host(1), 0);
        host_links.record(host(1), 1);
        host_links.record(host(2), 0);
        assert_eq!(
            (
                host_links.links.get(&host(1)),
                host_links.links.get(&host(2))
            ),
            (Some(&1), Some(&0))
        );
        (0..u16::MAX).for_each(|n| host_links.record(host(n), 0));

        assert!(host_links.links.len() <= MAX_HOST_LINKS);
    }
}
