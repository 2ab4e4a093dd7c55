//! All connections of this machine to one group: a [`Link`] on each interface in use.
//!
//! Owns the set and its totals; the caller chooses the link for a datagram.

use std::io;
use std::net::SocketAddr;

use super::{Link, LinkConfig};
use crate::Result;

/// One or more links, all of the same group and port.
#[derive(Debug)]
pub struct LinkSet {
    first: Link,
    more: Vec<Link>,
    /// Packets lost at replaced links.
    lost: u64,
}

impl From<Link> for LinkSet {
    fn from(first: Link) -> Self {
        Self {
            first,
            more: Vec::new(),
            lost: 0,
        }
    }
}

impl LinkSet {
    /// Opens `first`, and then `more`, one link for each family of an interface.
    pub fn open(
        first: &LinkConfig,
        more: &[LinkConfig],
        open: impl Fn(&LinkConfig) -> Result<Link>,
    ) -> Result<Self> {
        let mut links = Self::from(open(first)?);
        for config in more {
            let is_open = |link: &Link| {
                link.interface().index == config.interface.index
                    && link.group().is_ipv4() == config.group.is_ipv4()
            };
            if !links.iter().any(is_open) {
                links.more.push(open(config)?);
            }
        }

        Ok(links)
    }

    /// The first link; the only one on most machines.
    pub fn first(&self) -> &Link {
        &self.first
    }

    /// All links, in the order of the configuration.
    pub fn iter(&self) -> impl Iterator<Item = &Link> {
        std::iter::once(&self.first).chain(&self.more)
    }

    /// Number of links, at least 1.
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        1 + self.more.len()
    }

    /// The link at index `place`.
    pub fn get(&self, place: usize) -> Option<&Link> {
        match place.checked_sub(1) {
            None => Some(&self.first),
            Some(place) => self.more.get(place),
        }
    }

    /// Index of the first link with the family of `address`.
    pub fn of_family(&self, address: SocketAddr) -> Option<usize> {
        self.iter()
            .position(|link| link.local().is_ipv4() == address.is_ipv4())
    }

    /// Replaces the link at index `place` by another one of the same group.
    pub fn replace(&mut self, place: usize, link: Link) {
        let old = match place.checked_sub(1) {
            None => std::mem::replace(&mut self.first, link),
            Some(place) => match self.more.get_mut(place) {
                Some(old) => std::mem::replace(old, link),
                None => return,
            },
        };

        self.lost += old.drops().unwrap_or(0);
    }

    /// Adds a link at the end.
    pub fn add(&mut self, link: Link) {
        self.more.push(link);
    }

    /// The group, for display.
    pub fn group(&self) -> SocketAddr {
        self.first.group()
    }

    /// The group, or unicast, for display.
    pub fn reach(&self) -> String {
        match self.first.is_multicast() {
            true => self.group().to_string(),
            false => "unicast".to_string(),
        }
    }

    /// Names of the interfaces, for display.
    pub fn names(&self) -> String {
        let mut names: Vec<&str> = self
            .iter()
            .map(|link| link.interface().name.as_str())
            .collect();
        names.dedup();
        names.join(", ")
    }

    /// The link with the smallest largest datagram.
    pub fn narrowest(&self) -> &Link {
        self.iter()
            .min_by_key(|link| link.max_segment())
            .unwrap_or(&self.first)
    }

    /// Granted receive buffer in bytes, of the link with the smallest.
    pub fn recv_buffer(&self) -> usize {
        self.iter().map(Link::recv_buffer).min().unwrap_or(0)
    }

    /// Packets lost because the process did not read them in time, see [`Link::drops`].
    pub fn drops(&self) -> io::Result<u64> {
        let now: u64 = self.iter().map(Link::drops).sum::<io::Result<_>>()?;
        Ok(self.lost + now)
    }
}
