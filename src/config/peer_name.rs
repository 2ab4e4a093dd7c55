//! Name of another process, as in `peers`: a host name or an address, with or without a port.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::units::printable;

/// Longest host name (RFC 1035).
const MAX_DNS_NAME: usize = 253;

/// A peer as the user writes it: `web1`, `web1.internal:5001`, `10.0.0.1` or `[2001:db8::7]:5001`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerName {
    /// Host name, or an address without brackets.
    host: String,
    port: Option<u16>,
}

impl PeerName {
    /// Host name or address, for the resolver.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Returns whether it is a name, which has to be resolved.
    pub fn is_name(&self) -> bool {
        self.host.parse::<IpAddr>().is_err()
    }

    /// Address, with `default` in place of an unnamed port. `None` for a name.
    pub fn address(&self, default: u16) -> Option<SocketAddr> {
        let ip = self.host.parse().ok()?;
        Some(SocketAddr::new(ip, self.port_or(default)))
    }

    /// Port, or `default` if none was named.
    pub fn port_or(&self, default: u16) -> u16 {
        self.port.unwrap_or(default)
    }
}

impl From<IpAddr> for PeerName {
    /// A peer at an address, with the default port.
    fn from(ip: IpAddr) -> Self {
        Self {
            host: ip.to_string(),
            port: None,
        }
    }
}

impl FromStr for PeerName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            let shown = printable(text.as_bytes());
            Err(format!(
                "{shown:?} {why}: write a host name or an address, and a port if it is another \
                 one, as \"web1\", \"10.0.0.1:5001\" or \"[2001:db8::7]:5001\""
            ))
        };

        if let Ok(ip) = text.parse::<IpAddr>() {
            return Self::at(ip, None).or_else(|why| wrong(&why));
        }
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => wrong("has port 0"),
                port => Self::at(address.ip(), Some(port)).or_else(|why| wrong(&why)),
            };
        }

        let inside = text.strip_prefix('[').and_then(|t| t.strip_suffix(']'));
        if let Some(ip) = inside.and_then(|inside| inside.parse::<IpAddr>().ok()) {
            return Self::at(ip, None).or_else(|why| wrong(&why));
        }

        let (host, port) = match text.rsplit_once(':') {
            None => (text, None),
            Some((host, port)) => match port.parse::<u16>() {
                Ok(port) if port > 0 => (host, Some(port)),
                _ => return wrong("has no port from 1 to 65535 behind the colon"),
            },
        };

        let is_legal = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
        if host.is_empty()
            || host.len() > MAX_DNS_NAME
            || host.starts_with(['-', '.'])
            || !host.chars().all(is_legal)
        {
            return wrong("is not a peer");
        }

        Ok(Self {
            host: host.to_string(),
            port,
        })
    }
}

impl PeerName {
    fn at(ip: IpAddr, port: Option<u16>) -> Result<Self, String> {
        if ip.is_multicast() || ip.is_unspecified() {
            return Err("is no address of a host".to_string());
        }

        Ok(Self {
            host: ip.to_string(),
            port,
        })
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.host.contains(':'), self.port) {
            (true, Some(port)) => write!(f, "[{}]:{port}", self.host),
            (false, Some(port)) => write!(f, "{}:{port}", self.host),
            (_, None) => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_peers_with_or_without_a_port() {
        let cases = [
            ("web1", "web1", 5001),
            ("web1.internal:7000", "web1.internal", 7000),
            ("10.0.0.1", "10.0.0.1", 5001),
            ("10.0.0.1:7000", "10.0.0.1", 7000),
            ("2001:db8::7", "2001:db8::7", 5001),
            ("[2001:db8::7]", "2001:db8::7", 5001),
            ("[2001:db8::7]:7000", "2001:db8::7", 7000),
            ("a_b-c.example", "a_b-c.example", 5001),
        ];
        for (text, host, port) in cases {
            let peer: PeerName = text.parse().expect(text);
            assert_eq!((peer.host(), peer.port_or(5001)), (host, port), "{text}");
            let again: PeerName = peer.to_string().parse().expect("shown as it is read");
            assert_eq!(again, peer, "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_an_example() {
        let long = "a".repeat(MAX_DNS_NAME + 1);
        let cases = [
            "",
            ":5001",
            "web1:",
            "web1:0",
            "web1:70000",
            "web1:http",
            "we b",
            "web/1",
            "-web",
            "[web1]",
            "[::1",
            "224.0.0.1",
            "ff02::1",
            "0.0.0.0",
            "10.0.0.1:0",
            "a,b",
            &long,
        ];
        for text in cases {
            let why = text.parse::<PeerName>().expect_err(text);
            assert!(why.contains("\"web1\""), "{text}: {why}");
        }
    }
}
