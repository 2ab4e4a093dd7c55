//! Facts of this machine: its links, its kind, and the places of its trees.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::config::{HostConfig, TreeConfig};
use crate::doctor::LinkFacts;
use crate::doctor::environment::MachineKind;
use crate::net::{
    Channel, Link, LinkConfig, LinkSet, RecvBatch, filters_return_path, is_wireless, memberships,
};
use crate::tree::Volume;
use crate::units::printable_path;
use crate::wire::machine::TreePlace;

/// Directory with the texts of the firmware.
const FIRMWARE_DIR: &str = "/sys/class/dmi/id";
/// Files that containers have.
const CONTAINER_FILES: [&str; 2] = ["/.dockerenv", "/run/.containerenv"];

/// Opens a second socket of the group for each link, which hears what this machine sends.
pub(super) fn listeners(links: &LinkSet) -> Vec<Option<Link>> {
    let listener = |link: &Link| {
        let config = LinkConfig {
            port: link.group().port(),
            ..LinkConfig::new(link.interface().clone(), link.group().ip())
        };
        let opened = link.is_multicast().then(|| Link::open(&config));
        opened?
            .inspect_err(|e| tracing::debug!("no second socket for the group: {e}"))
            .ok()
    };
    links.iter().map(listener).collect()
}

/// Facts of the links, once datagrams to the group were sent.
pub(super) fn link_facts(links: &LinkSet, listeners: &[Option<Link>]) -> Vec<LinkFacts> {
    let joined = memberships();
    let facts = |(link, listener): (&Link, &Option<Link>)| {
        let interface = link.interface().clone();
        let group = link.group().ip();

        LinkFacts {
            local: link.local(),
            multicast: link.is_multicast(),
            joined: joined.contains(&(interface.name.clone(), group)),
            own_copy: listener.as_ref().map(|listener| hears(listener, link)),
            recv_buffer: link.recv_buffer(),
            offload: link.offload(),
            receives_trains: link.receives_trains(),
            interface,
        }
    };
    links.iter().zip(listeners).map(facts).collect()
}

/// Returns whether a datagram of `link` arrived at `listener`.
fn hears(listener: &Link, link: &Link) -> bool {
    let mut batch = RecvBatch::new();
    let mut is_heard = false;
    loop {
        let received = listener.recv(Channel::Group, &mut batch, |datagram| {
            is_heard |= datagram.from == link.local();
        });
        if is_heard || !matches!(received, Ok(1..)) {
            return is_heard;
        }
    }
}

/// The kind of this machine, with `links` in use.
pub fn machine_kind(links: &[LinkFacts], multicast: bool, has_answers: bool) -> MachineKind {
    let text = |name: &str| fs::read_to_string(Path::new(FIRMWARE_DIR).join(name));
    let firmware: Vec<String> = ["sys_vendor", "product_name"]
        .iter()
        .filter_map(|name| Some(text(name).ok()?.trim().to_string()))
        .collect();

    let names = |has: fn(&str) -> bool| -> Vec<String> {
        let names = links.iter().map(|link| link.interface.name.clone());
        names.filter(|name| has(name)).collect()
    };
    MachineKind {
        firmware: firmware.join(" "),
        container: CONTAINER_FILES.iter().any(|path| Path::new(path).exists()),
        wireless: names(is_wireless),
        filtered: names(filters_return_path),
        multicast,
        has_answers,
    }
}

/// Places of the trees of a configuration, whose daemon does not tell. Nothing is created.
pub fn places(config: &HostConfig) -> Vec<TreePlace> {
    let place = |tree: &TreeConfig| {
        // A directory that is missing is another check's.
        let volume = Volume::at(&tree.path).ok()?;
        Some(TreePlace {
            tree: tree.name.clone(),
            warning: state_warning(&tree.path, config.state_dir.as_deref()),
            filesystem: volume.kind,
            free: volume.free,
            size: volume.size,
            free_inodes: volume.free_inodes,
            read_only: volume.read_only,
            exchange: None,
            reflink: None,
        })
    };

    config.trees.iter().filter_map(place).collect()
}

/// Warning about a state directory on another filesystem than the tree.
fn state_warning(tree: &Path, state_dir: Option<&Path>) -> Option<String> {
    let state_dir = state_dir?;
    let device = |path: &Path| fs::metadata(path).ok().map(|meta| meta.dev());
    // A missing directory will be created in its nearest existing ancestor.
    let state = state_dir.ancestors().find_map(device)?;
    (device(tree)? != state).then(|| {
        format!(
            "{} is not on the filesystem of {}",
            printable_path(state_dir),
            printable_path(tree)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_directory_is_compared_without_being_made() {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).expect("new");
        let beside = dir.path().join("not/yet/there");
        assert_eq!(state_warning(&tree, Some(&beside)), None);
        assert_eq!(state_warning(&tree, None), None);
        assert!(!beside.exists());

        let elsewhere = state_warning(&tree, Some(Path::new("/proc/self/none")));
        assert!(elsewhere.is_some_and(|text| text.contains("/proc/self/none is not on")));
    }
}
