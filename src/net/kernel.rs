//! The kernel's tables and limits for multicast: memberships, buffers, the filter of return paths.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// Largest receive buffer that a process may ask for without privileges, in bytes.
pub fn recv_buffer_limit() -> Option<u64> {
    read_number("/proc/sys/net/core/rmem_max")
}

/// Largest send buffer that a process may ask for without privileges, in bytes.
pub fn send_buffer_limit() -> Option<u64> {
    read_number("/proc/sys/net/core/wmem_max")
}

/// Whether the kernel drops packets whose source it would answer by another interface.
pub fn filters_return_path(interface: &str) -> bool {
    /// Value of rp_filter for exactly the interface of the answer.
    const STRICT: u64 = 1;
    let value = |name: &str| {
        // The name of an interface cannot have a slash.
        let path = format!("/proc/sys/net/ipv4/conf/{name}/rp_filter");
        read_number(&path).unwrap_or(0)
    };
    value("all").max(value(interface)) == STRICT
}

/// Whether the interface is a wireless one.
pub fn is_wireless(interface: &str) -> bool {
    Path::new("/sys/class/net")
        .join(interface)
        .join("wireless")
        .exists()
}

/// Groups that this machine has joined, with the names of the interfaces.
pub fn memberships() -> Vec<(String, IpAddr)> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut all = parse_igmp(&read("/proc/net/igmp"));
    all.extend(parse_igmp6(&read("/proc/net/igmp6")));
    all
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// /proc/net/igmp: a line for each interface, then lines that begin with a group. Its bytes are in
/// the order of the network, printed as a number of this machine.
fn parse_igmp(table: &str) -> Vec<(String, IpAddr)> {
    let mut found = Vec::new();
    let mut device = None;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is_group = line.starts_with([' ', '\t']);
        match (fields.as_slice(), is_group) {
            ([_, name, ..], false) => device = Some(name.trim_end_matches(':').to_string()),
            ([group, ..], true) => {
                let group = u32::from_str_radix(group, 16).ok();
                let group = group.map(|number| Ipv4Addr::from(number.to_ne_bytes()));
                found.extend(device.clone().zip(group.map(IpAddr::V4)));
            }
            _ => {}
        }
    }

    found
}

/// /proc/net/igmp6: number, interface, group, users, flags, timer.
fn parse_igmp6(table: &str) -> Vec<(String, IpAddr)> {
    let membership = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (device, group) = (fields.next()?, fields.next()?);
        let group = u128::from_str_radix(group, 16).ok()?;
        Some((device.to_string(), IpAddr::V6(Ipv6Addr::from(group))))
    };
    table.lines().filter_map(membership).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_groups_are_read() {
        let group = u32::from_ne_bytes([224, 0, 0, 108]);
        let table = format!(
            "Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n\
             1\tlo        :     1      V3\n\t\t\t\t{:08X}     1 0:00000000\t\t0\n\
             2\teth0      :     2      V3\n\t\t\t\t{group:08X}     1 0:00000000\t\t0\n",
            u32::from_ne_bytes([224, 0, 0, 1])
        );
        let address = |text: &str| text.parse::<IpAddr>().expect("legal");
        assert_eq!(
            parse_igmp(&table),
            [
                ("lo".to_string(), address("224.0.0.1")),
                ("eth0".to_string(), address("224.0.0.108"))
            ]
        );

        let table = "2    eth0            ff0200000000000000000000000000fb     1 00000004 0\n";
        let expected = [("eth0".to_string(), address("ff02::fb"))];
        assert_eq!(parse_igmp6(table), expected);
    }

    #[test]
    fn any_text_is_read_without_panic() {
        for text in ["", "x", "a\n b", "a\n1 x\n zz\n", "\n\t\n \n"] {
            assert!(
                parse_igmp(text).is_empty() && parse_igmp6(text).is_empty(),
                "{text:?}"
            );
        }
    }
}
