//! Measures both directions of the paths to hosts, and the largest datagrams that arrive.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::prober::{AskWay, Prober};
use crate::Result;
use crate::doctor::Tally;
use crate::id::InstanceId;
use crate::proto::Dest;
use crate::proto::datagram_size::{min_datagram, probe_sizes};
use crate::wire::count::ProbeCounts;

/// Datagrams of a direction.
const PROBES: u32 = 20;
/// Interval of these datagrams.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// Answers to the group that each host is asked for.
const BACK_PROBES: u32 = 5;
/// Largest number of hosts that are asked for answers to the group: each of these goes to all.
const MAX_BACK_HOSTS: usize = 16;
/// Copies of a datagram of each size.
const COPIES: u32 = 3;
/// Sizes of one round of the search between two sizes.
const ROUND_SIZES: usize = 8;
/// Rounds of that search: each makes the gap nine times smaller.
const SEARCH_ROUNDS: u8 = 3;

/// Ways of questions about few datagrams.
const BY_GROUP: AskWay = AskWay {
    by_group: true,
    switches: true,
};
const BY_HOST: AskWay = AskWay {
    by_group: false,
    switches: true,
};
/// Train to the group, then to single hosts.
const GROUP_TRAIN: u8 = 0;
const HOST_TRAIN: u8 = 1;
/// Trains of sizes.
const GROUP_SIZES: u8 = 2;
const HOST_SIZES: u8 = 3;
/// First train of the searches between sizes, one for each round of each host: a search by the
/// group is counted by all hosts.
const SEARCH: u8 = 48;

/// MeasuredHosts with their addresses.
type MeasuredHosts = [(InstanceId, SocketAddr)];

/// Measures both directions, by multicast and by unicast apart.
pub(super) fn directions(prober: &mut Prober) -> Result<()> {
    let hosts = prober.hosts.answering();
    let size = min_datagram(prober.room());
    let multicast = prober.has_multicast();
    for number in 0..PROBES {
        if multicast {
            prober.probe(Dest::Multicast, size, GROUP_TRAIN, number);
        }
        for (_, address) in &hosts {
            prober.probe(Dest::Host(*address), size, HOST_TRAIN, number);
        }
        prober.pass(PROBE_INTERVAL)?;
    }

    let to_host = prober.collect(HOST_TRAIN, &hosts, BY_HOST)?;
    let to_group = match multicast {
        true => prober.collect(GROUP_TRAIN, &hosts, BY_GROUP)?,
        false => BTreeMap::new(),
    };
    for host in prober.hosts.iter_mut() {
        let tally = |counts: Option<&ProbeCounts>| {
            counts.map(|counts| Tally {
                sent: PROBES,
                arrived: counts.arrived.min(PROBES),
            })
        };
        host.facts.to_host = tally(to_host.get(&host.source));
        host.facts.to_group = tally(to_group.get(&host.source));
        host.dropped = to_host.get(&host.source).map_or(0, |counts| counts.dropped);
    }

    match multicast {
        true => back(prober),
        false => Ok(()),
    }
}

/// Measures the way from hosts to the group.
fn back(prober: &mut Prober) -> Result<()> {
    let hosts: Vec<_> = prober
        .hosts
        .iter()
        .filter(|host| host.facts.counts)
        .map(|host| match host.is_cut_off() {
            true => (host.source, Dest::Multicast),
            false => (host.source, Dest::Host(host.facts.address)),
        })
        .take(MAX_BACK_HOSTS)
        .collect();

    let mut questions = Vec::new();
    for _ in 0..BACK_PROBES {
        for (source, dest) in &hosts {
            let question = prober.ask_counts(*dest, GROUP_TRAIN, Some(*source), true);
            questions.push((*source, question));
        }
        prober.pass(PROBE_INTERVAL * 4)?;
    }
    prober.pass(PROBE_INTERVAL * 20)?;

    for (source, _) in hosts {
        let mine = questions.iter().filter(|(asked, _)| *asked == source);
        let arrived = mine
            .filter(|(_, question)| {
                let answer = prober.answer(*question, source);
                answer.is_some_and(|counts| counts.by_group)
            })
            .count();
        if let Some(host) = prober.hosts.get_mut(source) {
            host.facts.from_group = Some(Tally {
                sent: BACK_PROBES,
                arrived: arrived as u32,
            });
        }
    }

    Ok(())
}

/// Measures the largest datagrams that arrive.
pub(super) fn sizes(prober: &mut Prober) -> Result<()> {
    let counting = prober.hosts.iter().filter(|host| host.facts.counts);
    let hosts: Vec<_> = counting
        .map(|host| (host.source, host.facts.address))
        .collect();
    let room = prober.room();
    let ladder: Vec<usize> = probe_sizes(prober.datagram(), room).collect();

    let groups: Vec<Dest> = match prober.has_multicast() {
        true => vec![Dest::Multicast],
        false => Vec::new(),
    };
    let by_group = match groups.is_empty() {
        true => BTreeMap::new(),
        false => largest(prober, (&groups, GROUP_SIZES), &ladder, &hosts)?,
    };
    let alone: Vec<Dest> = hosts.iter().map(|(_, at)| Dest::Host(*at)).collect();
    let by_host = largest(prober, (&alone, HOST_SIZES), &ladder, &hosts)?;

    for host in prober.hosts.iter_mut() {
        let sealed = |size: &usize| *size + room;
        let found = |sizes: &BTreeMap<InstanceId, usize>| sizes.get(&host.source).map(sealed);
        host.facts.sizes.by_group = found(&by_group).filter(|_| host.hears_group());
        host.facts.sizes.by_host = found(&by_host).filter(|_| !host.is_cut_off());
    }

    let trains = (SEARCH..=u8::MAX - SEARCH_ROUNDS).step_by(SEARCH_ROUNDS.into());
    for ((source, address), train) in hosts.into_iter().zip(trains) {
        let Some(host) = prober.hosts.get_mut(source) else {
            continue;
        };
        let way = match (host.facts.sizes.by_host, host.facts.sizes.by_group) {
            (Some(size), _) => Some((Dest::Host(address), size)),
            (None, Some(size)) => Some((Dest::Multicast, size)),
            (None, None) => None,
        };
        if let Some((dest, rung)) = way.filter(|(_, size)| *size > room) {
            let found = search(
                prober,
                (dest, train),
                (rung - room, &ladder),
                (source, address),
            )?;
            let sizes = prober
                .hosts
                .get_mut(source)
                .map(|host| &mut host.facts.sizes);
            // Both ways have one path, if they ended at the same size of the ladder.
            for size in sizes
                .into_iter()
                .flat_map(|s| [&mut s.by_group, &mut s.by_host])
            {
                if *size == Some(rung) {
                    *size = Some(found + room);
                }
            }
        }
    }

    Ok(())
}

/// Sends datagrams of each size, and returns the largest that arrived at each host.
fn largest(
    prober: &mut Prober,
    (dests, train): (&[Dest], u8),
    sizes: &[usize],
    hosts: &MeasuredHosts,
) -> Result<BTreeMap<InstanceId, usize>> {
    let mut number = 0;
    for _ in 0..COPIES {
        for size in sizes {
            for dest in dests {
                prober.probe(*dest, *size, train, number);
            }
            number += 1;
        }
        prober.pass(PROBE_INTERVAL)?;
    }

    let way = match dests {
        [Dest::Multicast] => BY_GROUP,
        _ => BY_HOST,
    };
    let counts = prober.collect(train, hosts, way)?;
    let counts = counts.into_iter();
    Ok(counts
        .map(|(id, counts)| (id, arrived_size(sizes, &counts)))
        .collect())
}

/// The largest of `sizes` that arrived, by the counts of a host, which may be wrong.
fn arrived_size(sizes: &[usize], counts: &ProbeCounts) -> usize {
    let largest = usize::from(counts.largest);
    let arrived = sizes.iter().copied().filter(|size| *size <= largest);
    arrived.max().unwrap_or(0)
}

/// Searches between a size that arrives at a host and the next one of the ladder that does not.
fn search(
    prober: &mut Prober,
    (dest, train): (Dest, u8),
    (rung, ladder): (usize, &[usize]),
    host: (InstanceId, SocketAddr),
) -> Result<usize> {
    let mut low = rung;
    let above = ladder.iter().filter(|size| **size > rung).min();
    let Some(mut high) = above.copied() else {
        return Ok(rung);
    };

    for round in 0..SEARCH_ROUNDS {
        let sizes = sizes_between(low, high);
        if sizes.is_empty() {
            break;
        }

        let found = largest(prober, (&[dest], train + round), &sizes, &[host])?;
        let arrived = found.get(&host.0).copied().unwrap_or(0);
        (low, high) = narrowed((low, high), &sizes, arrived);
    }

    Ok(low)
}

/// Sizes of the next round between two sizes; none if they are neighbours.
fn sizes_between(low: usize, high: usize) -> Vec<usize> {
    let step = (high.saturating_sub(low) / (ROUND_SIZES + 1)).max(1);
    let sizes = (1..=ROUND_SIZES).map(|n| low + n * step);
    sizes.filter(|size| *size < high).collect()
}

/// The next two sizes of the search, when `arrived` is the largest of `sizes` that arrived.
fn narrowed((low, high): (usize, usize), sizes: &[usize], arrived: usize) -> (usize, usize) {
    let above = sizes.iter().copied().find(|size| *size > arrived);
    (low.max(arrived), above.unwrap_or(high))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(largest: u16) -> ProbeCounts {
        ProbeCounts {
            run: 1,
            train: SEARCH,
            number: 1,
            by_group: false,
            arrived: u32::MAX,
            repeated: 0,
            late: 0,
            largest,
            dropped: 0,
        }
    }

    /// The end of a search at a host that counts a largest size of `told(sizes)`.
    fn searched(mut low: usize, mut high: usize, told: impl Fn(&[usize]) -> u16) -> usize {
        for _ in 0..SEARCH_ROUNDS {
            let sizes = sizes_between(low, high);
            let arrived = arrived_size(&sizes, &counts(told(&sizes)));
            (low, high) = narrowed((low, high), &sizes, arrived);
            assert!(low < high);
        }
        low
    }

    #[test]
    fn a_search_ends_at_the_largest_size_that_arrives() {
        let path = |limit: usize| {
            move |sizes: &[usize]| {
                let arriving = sizes.iter().filter(|size| **size <= limit);
                arriving.max().map_or(0, |size| *size as u16)
            }
        };
        for limit in [1200, 1201, 1333, 1450, 1451] {
            assert_eq!(searched(1200, 1452, path(limit)), limit);
        }
    }

    #[test]
    fn a_lying_count_stays_between_the_sizes_that_were_sent() {
        for told in [0, 1, 1199, 1200, 1300, 1452, 9000, u16::MAX] {
            let found = searched(1200, 1452, |_| told);
            assert!((1200..1452).contains(&found), "{told}: {found}");
        }
    }
}
