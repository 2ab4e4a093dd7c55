//! Parses the table `[network]` into a [`NetworkConfig`].

use super::fields::{absolute, small};
use super::*;
use crate::spec::document::{Field, Section};
use crate::units::printable;

/// Longest name of an interface on Linux, in bytes.
const MAX_INTERFACE: usize = 15;
/// Largest number of interfaces.
const MAX_INTERFACES: usize = 64;
/// Largest number of configured peers.
const MAX_PEER_NAMES: usize = 1000;
/// Largest number of group keys: one that seals, and others during a change of keys.
const MAX_GROUP_KEYS: usize = 4;

pub(super) fn network(mut section: Section) -> Result<NetworkConfig> {
    let default = NetworkConfig::default();
    let network = NetworkConfig {
        interfaces: section
            .take("interface")
            .map(interfaces)
            .transpose()?
            .unwrap_or_default(),
        peers: section
            .take("peers")
            .map(peers)
            .transpose()?
            .unwrap_or_default(),
        multicast: section.take("multicast").map_or(Ok(true), |f| f.bool())?,
        segment: section.take("segment").map(|f| f.parse()).transpose()?,
        unicast_port_given: section.has("unicast_port"),
        unicast_port: small(
            &mut section,
            "unicast_port",
            1..=65_535,
            "a port from 1 to 65535",
        )?
        .unwrap_or(default.unicast_port),
        group: section
            .take("group")
            .map_or(Ok(default.group), |f| read_group(&f))?,
        port: small(&mut section, "port", 1..=65_535, "a port from 1 to 65535")?
            .unwrap_or(default.port),
        ttl: small(&mut section, "ttl", 0..=255, "a number from 0 to 255")?.unwrap_or(default.ttl),
        group_keys: section
            .take("group_key")
            .map(group_keys)
            .transpose()?
            .unwrap_or_default(),
        plain: section.take("plain").map_or(Ok(false), |f| f.bool())?,
        strict_host_keys: section
            .take("strict_host_keys")
            .map_or(Ok(false), |f| f.bool())?,
        catch_up_rate: section
            .take("catch_up_rate")
            .map_or(Ok(default.catch_up_rate), |f| f.parse())?,
    };

    let both = section.wrong("plain = true leaves the group key unused: take one of the two out");
    let alone = section
        .wrong("multicast = false leaves no way to other hosts: name some in peers, as [\"web1\"]");
    let apart =
        section.wrong("multicast = false leaves the segment unused: take one of the two out");
    section.finish()?;

    if network.plain && !network.group_keys.is_empty() {
        return Err(both);
    }
    if !network.multicast && network.peers.is_empty() {
        return Err(alone);
    }
    if !network.multicast && network.segment.is_some() {
        return Err(apart);
    }

    Ok(network)
}

/// One peer or a list.
fn peers(field: Field) -> Result<Vec<PeerName>> {
    if field.is_text() {
        return field.parse().map(|one| vec![one]);
    }

    let empty = field.wrong("name a host, or leave it out");
    let many = field.wrong("too many peers: a few are enough, they know the others");
    let list = field.list("a host, as \"web1\", or a list of them")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_PEER_NAMES => list.iter().map(|peer| peer.parse()).collect(),
        _ => Err(many),
    }
}

/// One interface or a list.
fn interfaces(field: Field) -> Result<Vec<String>> {
    if field.is_text() {
        return read_interface(&field).map(|one| vec![one]);
    }

    let empty = field.wrong("name an interface, or leave it out");
    let many = field.wrong("too many interfaces");
    let list = field.list("an interface, as \"eth0\", or a list of them")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_INTERFACES => list.iter().map(read_interface).collect(),
        _ => Err(many),
    }
}

fn read_interface(field: &Field) -> Result<String> {
    let text = field.text()?;
    let is_name = !text.is_empty()
        && text.len() <= MAX_INTERFACE
        && !text.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control());
    if is_name || text.parse::<IpAddr>().is_ok() {
        return Ok(text.to_string());
    }

    Err(field.wrong(format!(
        "{:?} is not an interface: write its name or address, as \"eth0\"",
        printable(text.as_bytes())
    )))
}

/// One path or a list: the first key seals, all open.
fn group_keys(field: Field) -> Result<Vec<PathBuf>> {
    if field.is_text() {
        return absolute(&field).map(|one| vec![one]);
    }

    let empty = field.wrong("name a file, or leave it out");
    let many = field.wrong("too many group keys");
    let list =
        field.list("a file, as \"/etc/makuo/group.key\", or a list of them, the new one first")?;

    match list.len() {
        0 => Err(empty),
        1..=MAX_GROUP_KEYS => list.iter().map(absolute).collect(),
        _ => Err(many),
    }
}

fn read_group(field: &Field) -> Result<IpAddr> {
    let text = field.text()?;
    text.parse::<IpAddr>()
        .ok()
        .filter(IpAddr::is_multicast)
        .ok_or_else(|| {
            let shown = printable(text.as_bytes());
            field.wrong(format!(
                "{shown:?} is not a multicast group: 224.0.0.0 to 239.255.255.255, or of ff00::/8"
            ))
        })
}
