//! Rules of a firewall that may explain datagrams which are measured to be lost. A rule alone is no
//! verdict: it is named beside a loss, and never without one.

use std::net::IpAddr;

use crate::outcome::{Check, Finding, Severity};
use crate::units::printable;

/// Most rules that are named.
const MAX_NAMED_RULES: usize = 3;

/// Rules of this machine's firewall, as far as they can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FirewallRules {
    /// As `nft list ruleset`, `iptables-save` and `ip6tables-save` print them.
    Read(String),
    /// This user may not read them.
    Forbidden,
    /// There is no program to read them with.
    Unknown,
}

/// Names rules that may drop datagrams of makuo, if the `findings` have a loss that a firewall can
/// cause. Only then the rules are read.
pub fn judge(
    findings: &[Finding],
    read: impl FnOnce() -> FirewallRules,
    group: IpAddr,
    ports: &[u16],
) -> Option<Finding> {
    if !findings.iter().any(is_loss) {
        return None;
    }

    let finding = |level, what: String| Finding::new(Check::Firewall, level, what);
    let text = match read() {
        FirewallRules::Read(text) => text,
        FirewallRules::Forbidden => {
            let what = "only root may read the rules of the firewall here";
            return Some(finding(Severity::Ok, what.into()).todo("run it as root"));
        }
        FirewallRules::Unknown => return None,
    };

    let found = suspects(&text, group, ports);
    if found.is_empty() {
        let what = "no rule of the firewall here is known to drop datagrams of makuo";
        return Some(finding(Severity::Ok, what.into()));
    }

    let named: Vec<String> = found.iter().take(MAX_NAMED_RULES).cloned().collect();
    let more = match found.len().saturating_sub(MAX_NAMED_RULES) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    let what = format!("the firewall here may be why: {}{more}", named.join("; "));
    let todo = "see the whole of it: nft list ruleset. Let UDP to the ports 5000 to 5063 and IGMP \
                in (udp dport 5000-5063 accept; ip protocol igmp accept)";
    Some(finding(Severity::Warn, what).todo(todo))
}

/// Returns whether a firewall can be the cause of a finding.
fn is_loss(finding: &Finding) -> bool {
    let is_path = matches!(
        finding.check,
        Check::Hosts | Check::Multicast | Check::Unicast
    );
    is_path && finding.level == Severity::Fail
}

/// Rules that may drop datagrams to the group or to one of the ports, with their places.
fn suspects(text: &str, group: IpAddr, ports: &[u16]) -> Vec<String> {
    let mut table = String::new();
    let mut chain = String::new();
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        let head = line.strip_suffix('{').map(str::trim);
        match head.and_then(|head| head.split_once(' ')) {
            Some(("table", name)) => table = name.to_string(),
            Some(("chain", name)) => chain = name.to_string(),
            _ if is_suspect(line, group, ports) => {
                let place = match chain.is_empty() {
                    true => String::new(),
                    false => format!(" (table {table}, chain {chain})"),
                };
                found.push(printable(format!("{line}{place}").as_bytes()));
            }
            _ => {}
        }
    }

    found
}

/// Returns whether a line of a ruleset may drop datagrams to the group or to one of the ports.
fn is_suspect(line: &str, group: IpAddr, ports: &[u16]) -> bool {
    // The kind of a refusal is none of what the rule matches.
    let matched = [" reject with ", " --reject-with "]
        .iter()
        .find_map(|end| line.split_once(end));
    let (line, refuses) = matched.map_or((line, false), |(line, _)| (line, true));
    let words: Vec<&str> = line
        .split([' ', ',', ';'])
        .filter(|w| !w.is_empty())
        .collect();
    let has = |word: &str| words.contains(&word);
    let has_pair = |a: &str, b: &str| words.windows(2).any(|pair| pair == [a, b]);

    // A chain that drops what no rule lets in: `policy drop`, and `:INPUT DROP [0:0]`.
    if has_pair("policy", "drop") {
        return has("input") || has("output");
    }
    if line.starts_with(':') {
        return has("DROP") && (has(":INPUT") || has(":OUTPUT"));
    }

    let drops = ["drop", "reject", "DROP", "REJECT"];
    if !refuses && !drops.iter().any(|word| has(word)) {
        return false;
    }

    let others = ["tcp", "icmp", "icmpv6", "ipv6-icmp", "sctp", "esp"];
    if others.iter().any(|protocol| has(protocol)) {
        return false;
    }
    if has("dport") || has("--dport") || has("--dports") {
        return ports
            .iter()
            .any(|port| words.iter().any(|word| covers(word, *port)));
    }
    if has("sport") || has("--sport") {
        return false;
    }

    // A rule for other destinations or invalid connections is none of this.
    let destination = words.windows(2).find_map(|pair| {
        let is_to = matches!(pair[0], "daddr" | "-d");
        is_to.then(|| pair[1])
    });
    match destination {
        Some(address) => matches_group(address, group),
        None => {
            let by_kind = ["multicast", "udp", "igmp", "@nh"];
            by_kind.iter().any(|word| has(word)) || !has_match(&words)
        }
    }
}

/// Returns whether `5000`, `5000-5063` or `5000:5063` is or has a port.
fn covers(word: &str, port: u16) -> bool {
    let (first, last) = word.split_once(['-', ':']).unwrap_or((word, word));
    match (first.parse::<u16>(), last.parse::<u16>()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => false,
    }
}

/// Returns whether `224.0.0.0/4` or an address has the group.
fn matches_group(network: &str, group: IpAddr) -> bool {
    let (address, bits) = network.split_once('/').unwrap_or((network, "128"));
    let bits: u32 = bits.parse().unwrap_or(128);
    let shifted = |address: u128, size: u32| {
        let rest = size.saturating_sub(bits.min(size));
        address.checked_shr(rest).unwrap_or(0)
    };

    match (address.parse::<IpAddr>(), group) {
        (Ok(IpAddr::V4(network)), IpAddr::V4(group)) => {
            let of = |address: std::net::Ipv4Addr| shifted(u128::from(u32::from(address)), 32);
            of(network) == of(group)
        }
        (Ok(IpAddr::V6(network)), IpAddr::V6(group)) => {
            shifted(u128::from(network), 128) == shifted(u128::from(group), 128)
        }
        _ => false,
    }
}

/// Returns whether a rule has a condition other than an interface or a counter.
fn has_match(words: &[&str]) -> bool {
    let conditions = [
        "saddr", "ct", "meta", "tcp", "ether", "ip", "ip6", "-s", "-m", "-p", "mark", "limit",
        "fib",
    ];
    conditions.iter().any(|word| words.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: [u16; 2] = [5000, 5001];

    fn found(text: &str) -> Vec<String> {
        suspects(text, "224.0.0.108".parse().expect("an address"), &PORTS)
    }

    #[test]
    fn rules_that_drop_the_group_or_a_port_are_named_with_their_place() {
        let text = "table inet cut {\n\tchain in {\n\t\ttype filter hook input priority -300; policy \
                    accept;\n\t\tiifname \"eth0\" ip daddr 224.0.0.0/4 drop\n\t}\n}\n";
        let rule = "iifname \"eth0\" ip daddr 224.0.0.0/4 drop (table inet cut, chain in)";
        assert_eq!(found(text), [rule]);

        for rule in [
            "udp dport 5001 drop",
            "udp dport { 22, 4000-6000 } reject",
            "type filter hook input priority filter; policy drop;",
            "meta pkttype multicast drop",
            "meta l4proto udp drop",
            "ip protocol igmp drop",
            "counter packets 3 bytes 100 drop",
            "-A INPUT -p udp -m udp --dport 5000:5063 -j DROP",
            "-A INPUT -d 224.0.0.0/4 -j DROP",
            "-A INPUT -j REJECT --reject-with icmp-port-unreachable",
            ":INPUT DROP [0:0]",
            "counter packets 5 bytes 300 reject with icmp type host-prohibited",
            "udp dport 5000-5001 reject with icmpv6 type admin-prohibited",
        ] {
            assert_eq!(found(rule), [rule]);
        }
    }

    #[test]
    fn other_rules_are_not_named() {
        for rule in [
            "udp dport 53 drop",
            "tcp dport 5000 drop",
            "ct state invalid drop",
            "ip saddr 10.9.0.0/16 drop",
            "ip daddr 10.0.0.9 drop",
            "udp dport 5000-5063 accept",
            "type nat hook prerouting priority 0; policy drop;",
            "type filter hook input priority filter; policy accept;",
            "-A INPUT -m conntrack --ctstate INVALID -j DROP",
            ":INPUT ACCEPT [0:0]",
            "type filter hook forward priority filter; policy drop;",
            ":FORWARD DROP [0:0]",
            "tcp dport 22 reject with icmp type port-unreachable",
            ":DOCKER DROP [0:0]",
            "",
        ] {
            assert_eq!(found(rule), [""; 0], "{rule}");
        }
    }

    #[test]
    fn a_rule_is_no_finding_without_a_loss() {
        let group = "ff02::1".parse().expect("an address");
        let drops = FirewallRules::Read("ip6 daddr ff00::/8 drop".into());
        let lost = Finding::new(Check::Multicast, Severity::Fail, "0 of 20");
        let fine = Finding::new(Check::Multicast, Severity::Ok, "all");
        assert_eq!(judge(&[fine], || drops.clone(), group, &PORTS), None);

        let level = |rules: &FirewallRules| {
            let found = judge(std::slice::from_ref(&lost), || rules.clone(), group, &PORTS);
            found.map(|found| (found.level, found.todo.is_some()))
        };
        assert_eq!(level(&drops), Some((Severity::Warn, true)));
        let none = FirewallRules::Read(String::new());
        assert_eq!(level(&none), Some((Severity::Ok, false)));
        assert_eq!(level(&FirewallRules::Forbidden), Some((Severity::Ok, true)));
        assert_eq!(level(&FirewallRules::Unknown), None);
    }
}
