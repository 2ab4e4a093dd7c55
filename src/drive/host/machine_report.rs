//! Report about the machine of a host for queries: clock, links, buffers, places of trees.

use super::managed::ManagedTree;
use super::shared::LocalHost;
use crate::drive::clock;
use crate::id::TreeName;
use crate::net::{Link, LinkSet, recv_buffer_limit};
use crate::tree::Volume;
use crate::wire::machine::{
    LinkReport, MAX_REPORT_LINKS, MAX_REPORT_TREES, MAX_REPORT_WARNING, MachineReport, TreePlace,
};

/// Reports of the links, known to the loop of the host alone.
pub(super) fn link_reports(links: &LinkSet) -> Vec<LinkReport> {
    let report = |link: &Link| LinkReport {
        interface: link.interface().name.clone(),
        mtu: link.interface().mtu,
        recv_buffer: link.recv_buffer() as u64,
        port: link.local().port(),
        multicast: link.is_multicast(),
    };
    links.iter().take(MAX_REPORT_LINKS).map(report).collect()
}

/// Reports the machine of `host`.
pub(super) fn machine_report(host: &LocalHost, links: Vec<LinkReport>) -> MachineReport {
    let served = host
        .trees
        .iter()
        .map(|(name, managed)| place(name, managed));
    let broken = host.trees.all_broken().map(|(name, why)| TreePlace {
        warning: Some(shortened(&why)),
        ..unknown_place(name)
    });

    MachineReport {
        clock: u64::try_from(clock::since_epoch().as_millis()).unwrap_or(u64::MAX),
        links,
        recv_limit: recv_buffer_limit(),
        keys: u32::try_from(host.authorized().len()).unwrap_or(u32::MAX),
        trees: served.chain(broken).take(MAX_REPORT_TREES).collect(),
    }
}

/// Shortens a report to at most `room` bytes; `None` if nothing of it fits.
pub(super) fn shortened_to(room: usize, mut report: MachineReport) -> Option<MachineReport> {
    let fits =
        |report: &MachineReport| minicbor::to_vec(report).is_ok_and(|bytes| bytes.len() <= room);
    if !fits(&report) {
        without_warnings(&mut report);
    }
    if !fits(&report) {
        report.trees.clear();
    }
    Some(report).filter(fits)
}

/// Removes the warnings about the places of trees.
pub(super) fn without_warnings(report: &mut MachineReport) {
    report
        .trees
        .iter_mut()
        .for_each(|place| place.warning = None);
}

fn place(name: &TreeName, managed: &ManagedTree) -> TreePlace {
    let state = managed.tree.state();
    let warning = state.warning().map(shortened);
    let unknown = TreePlace {
        warning,
        ..unknown_place(name)
    };

    match state.volume() {
        Ok(volume) => {
            let Volume {
                kind,
                free,
                size,
                free_inodes,
                read_only,
            } = volume;
            TreePlace {
                filesystem: kind,
                free,
                size,
                free_inodes,
                read_only,
                exchange: managed.abilities.exchange,
                reflink: managed.abilities.reflink,
                ..unknown
            }
        }
        Err(e) => {
            tracing::debug!("tree {name}: its filesystem cannot be asked: {e}");
            unknown
        }
    }
}

/// A place of which nothing is known.
fn unknown_place(name: &TreeName) -> TreePlace {
    TreePlace {
        tree: name.clone(),
        warning: None,
        filesystem: String::new(),
        free: 0,
        size: 0,
        free_inodes: None,
        read_only: false,
        exchange: None,
        reflink: None,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REPORT_WARNING).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_no_larger_than_the_padding_of_its_question() {
        let name = |n: usize| TreeName::new(&format!("tree{n}")).expect("legal");
        let place = |n| TreePlace {
            warning: Some("w".repeat(MAX_REPORT_WARNING)),
            ..unknown_place(&name(n))
        };
        let report = MachineReport {
            clock: 1_801_418_400_000,
            links: Vec::new(),
            recv_limit: Some(1 << 20),
            keys: 3,
            trees: (0..MAX_REPORT_TREES).map(place).collect(),
        };
        let size = |report: &MachineReport| minicbor::to_vec(report).expect("room").len();

        let mut left = Vec::new();
        for room in (0..=size(&report)).rev() {
            let told = shortened_to(room, report.clone());
            assert!(
                told.as_ref().is_none_or(|told| size(told) <= room),
                "{room}"
            );
            let told = told.map(|told| (told.trees.len(), told.trees.first().cloned()));
            if left.last() != Some(&told) {
                left.push(told);
            }
        }

        let bare = unknown_place(&name(0));
        let all = MAX_REPORT_TREES;
        let steps = [
            Some((all, Some(place(0)))),
            Some((all, Some(bare))),
            Some((0, None)),
            None,
        ];
        assert_eq!(left, steps);
    }
}
