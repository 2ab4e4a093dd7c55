//! The hosts that a search looks at.

use std::net::{IpAddr, SocketAddr};

use crate::net::peer_lookup;

/// All hosts, or one by its name or address.
#[derive(Debug, Clone, Default)]
pub struct CheckupTarget {
    /// Name or address of the only host; `None` for all hosts.
    pub(super) host: Option<String>,
    /// Known addresses of that host.
    pub(super) addresses: Vec<SocketAddr>,
    /// UDP port of daemons.
    port: u16,
}

impl CheckupTarget {
    /// The host named by `host`, else all hosts. Daemons listen at `port`.
    pub fn new(host: Option<&str>, port: u16) -> Self {
        let address = host.and_then(|host| host.parse::<IpAddr>().ok());
        Self {
            host: host.map(str::to_string),
            addresses: address.map(|ip| (ip, port).into()).into_iter().collect(),
            port,
        }
    }

    /// Looks the name up, which may take seconds; returns whether there are addresses to try.
    pub(super) fn look_up(&mut self) -> bool {
        match &self.host {
            Some(host) if self.addresses.is_empty() => {
                self.addresses = peer_lookup::resolve(host, self.port).unwrap_or_default();
                !self.addresses.is_empty()
            }
            Some(_) | None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_tried_at_once_and_a_name_is_looked_up_once() {
        let mut target = CheckupTarget::new(Some("10.0.0.1"), 5001);
        assert_eq!(target.addresses, ["10.0.0.1:5001".parse().expect("legal")]);
        assert!(!target.look_up());

        let mut named = CheckupTarget::new(Some("localhost"), 5001);
        assert!(named.addresses.is_empty());
        if named.look_up() {
            assert!(named.addresses.iter().all(|at| at.port() == 5001));
            assert!(!named.look_up());
        }
        assert!(!CheckupTarget::new(None, 5001).look_up());
    }
}
