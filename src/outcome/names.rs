//! Warnings of shared names of hosts.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::id::HostName;

/// Warns of names that several `hosts` share: "2 hosts are named web, at 10.0.0.4 and 10.0.0.5".
pub fn shared_names<'a>(hosts: impl IntoIterator<Item = (&'a HostName, IpAddr)>) -> Vec<String> {
    let mut named: BTreeMap<&HostName, BTreeSet<IpAddr>> = BTreeMap::new();
    for (name, address) in hosts {
        named.entry(name).or_default().insert(address);
    }

    let shared = named
        .into_iter()
        .filter(|(_, addresses)| addresses.len() > 1);
    let warning = |(name, addresses): (&HostName, BTreeSet<IpAddr>)| {
        let at: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let advice =
            "targets and expected hosts go by name, so give each its own with `name` in makuo.toml";
        format!(
            "{} hosts are named {name}, at {}: {advice}",
            at.len(),
            at.join(" and ")
        )
    };

    shared.map(warning).collect()
}
