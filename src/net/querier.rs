//! The wait for a question about groups: switches with snooping keep a group only as long as some
//! router asks for its members (IGMP, RFC 3376; MLD, RFC 3810).

use std::io::{self, ErrorKind, Read};
use std::net::Ipv4Addr;
use std::time::Duration;

use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Family, Interface};

/// Type of a question in IGMP.
const IGMP_QUERY: u8 = 0x11;
/// Type of a question in MLD.
const MLD_QUERY: u8 = 130;

/// Waits for a question of a querier on `interface`, until `is_over`. Returns the querier, or
/// `None` without any; an error for a process that may not listen (CAP_NET_RAW).
pub fn wait_for_querier(
    interface: &Interface,
    family: Family,
    is_over: impl Fn() -> bool,
) -> io::Result<Option<String>> {
    /// Interval of checks for the end.
    const LISTEN_STEP: Duration = Duration::from_millis(200);
    let (domain, protocol) = match family {
        Family::V4 => (Domain::IPV4, libc::IPPROTO_IGMP),
        Family::V6 => (Domain::IPV6, libc::IPPROTO_ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.bind_device(Some(interface.name.as_bytes()))?;
    socket.set_read_timeout(Some(LISTEN_STEP))?;

    let mut packet = [0; 2048];
    while !is_over() {
        let length = match (&socket).read(&mut packet) {
            Ok(length) => length,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        let found = querier_of(&packet[..length.min(packet.len())], family);
        if found.is_some() {
            return Ok(found);
        }
    }

    Ok(None)
}

/// The querier that sent a packet; `None` for any other packet.
fn querier_of(packet: &[u8], family: Family) -> Option<String> {
    match family {
        Family::V4 => {
            let header = usize::from(packet.first()? & 0xf) * 4;
            let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
            let is_query = packet.get(header) == Some(&IGMP_QUERY);
            is_query.then(|| Ipv4Addr::from(source).to_string())
        }
        Family::V6 => (packet.first() == Some(&MLD_QUERY)).then(|| "a router".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_question_names_a_querier() {
        let packet = |options: u8, kind: u8| {
            let mut packet = vec![0; usize::from(20 + 4 * options)];
            packet[0] = 0x45 + options;
            packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
            packet.push(kind);
            packet
        };
        let v4 = |packet: &[u8]| querier_of(packet, Family::V4);
        // A question has the option of a router alert.
        assert_eq!(v4(&packet(1, 0x11)).as_deref(), Some("10.0.0.1"));
        assert_eq!(v4(&packet(0, 0x11)).as_deref(), Some("10.0.0.1"));
        assert_eq!(v4(&packet(1, 0x22)), None, "a report");

        for length in 0..21 {
            assert_eq!(v4(&packet(0, 0x11)[..length]), None);
        }
        assert!(querier_of(&[130], Family::V6).is_some());
        assert!(querier_of(&[131], Family::V6).is_none() && querier_of(&[], Family::V6).is_none());
    }
}
