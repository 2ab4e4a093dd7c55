//! Peers of a survey that this group does not hear.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::drive::clock;
use crate::drive::endpoint::GroupEndpoint;
use crate::outcome::Stranger;
use crate::proto::members::Table;
use crate::wire::seal::OpenError;

/// Peers whose datagrams do not open here, and those that hosts do not hear, by address.
pub(super) fn strangers(table: &Table, endpoint: &GroupEndpoint) -> Vec<Stranger> {
    let plain = table
        .iter()
        .flat_map(|(_, member)| member.hello.strangers.iter().flatten());
    merged_strangers(plain.copied(), endpoint)
}

/// Peers whose datagrams do not open here, and the `plain` ones that hosts name, by address.
pub fn merged_strangers(
    plain: impl Iterator<Item = IpAddr>,
    endpoint: &GroupEndpoint,
) -> Vec<Stranger> {
    let own = endpoint.unheard().recent(clock::since_epoch());
    let plain = plain.map(|address| Stranger {
        address,
        kind: OpenError::Plain,
    });

    let all: BTreeSet<Stranger> = own.chain(plain).collect();
    all.into_iter().collect()
}
