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
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_REPORT_WARNING).collect()
}
