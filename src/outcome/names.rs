//! Names of hosts in lines for people: lists, and warnings of shared names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::id::HostName;

/// Largest number of hosts named in one line.
const MAX_LOGGED_HOSTS: usize = 8;

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

/// The hosts in a line: names of the first, and the number of the others. `None` without hosts.
pub fn named_hosts<'a>(hosts: impl IntoIterator<Item = &'a HostName>) -> Option<String> {
    let names: Vec<&str> = hosts.into_iter().map(HostName::as_str).collect();
    let (named, more) = names.split_at(MAX_LOGGED_HOSTS.min(names.len()));
    match (named, more) {
        ([], _) => None,
        (named, []) => Some(named.join(", ")),
        (named, more) => Some(format!("{} and {} more", named.join(", "), more.len())),
    }
}
