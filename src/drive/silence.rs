//! The reason why no host may have answered, as far as this machine knows.

use super::clock;
use super::endpoint::GroupEndpoint;
use crate::outcome::{Silence, Stranger};
use crate::wire::seal::OpenError;

/// Where nobody answered, and what to look at.
pub(super) fn silence(endpoint: &GroupEndpoint) -> Silence {
    let links = endpoint.links();
    if !links.first().is_multicast() {
        let hint = "is the daemon running on the peers, and do firewalls pass UDP to their port \
                    (5001 by default)?";
        return Silence {
            error: format!("no peer answered on {}", links.names()),
            hint: unheard_hint(endpoint).unwrap_or_else(|| hint.to_string()),
        };
    }

    let at = format!("{} on {}", links.group(), links.names());
    let hint = "is the daemon running on the hosts, on this network, with the same --group \
                and --port? \
                Does --interface name the right one, do firewalls here and there pass IGMP and \
                UDP to the ports 5000 to 5063 (nft: udp dport 5000-5063 accept), and does the \
                switch pass multicast?";
    Silence {
        error: format!("no hosts answered at {at}"),
        hint: unheard_hint(endpoint).unwrap_or_else(|| hint.to_string()),
    }
}

/// Hint if there are peers whose datagrams do not open: one of them, and what to do.
fn unheard_hint(endpoint: &GroupEndpoint) -> Option<String> {
    let recent: Vec<Stranger> = endpoint.unheard().recent(clock::since_epoch()).collect();
    let stranger = [
        OpenError::Sealed,
        OpenError::Wrong,
        OpenError::Plain,
        OpenError::Version,
    ]
    .into_iter()
    .find_map(|kind| recent.iter().find(|stranger| stranger.kind == kind))?;

    let remedy = match stranger.kind {
        OpenError::Sealed => "give --group-key, or network.group_key in makuo.toml",
        OpenError::Wrong => "is the group key here the hosts' own?",
        OpenError::Version => "is makuo of the same age everywhere?",
        _ => "do the hosts have the group key, and were they restarted since?",
    };
    let Stranger { address, kind } = stranger;
    Some(format!("{address} {}: {remedy}", Stranger::describe(*kind)))
}
