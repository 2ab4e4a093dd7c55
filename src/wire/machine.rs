//! A host's machine in an answer to a query: clock, links, buffers and places of trees, for the
//! search for the cause of a trouble.

use minicbor::{Decode, Encode};

use super::caps::{clean_text, within};
use crate::id::TreeName;

/// Largest number of links in a report.
pub const MAX_REPORT_LINKS: usize = 8;
/// Largest number of trees in a report.
pub const MAX_REPORT_TREES: usize = 32;
/// Largest number of characters of the warning about a tree.
pub const MAX_REPORT_WARNING: usize = 512;
/// Largest number of characters of the name of an interface or a filesystem.
const MAX_SHORT_NAME: usize = 32;

/// The machine of a host.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct MachineReport {
    /// The host's time of day, in milliseconds since 1970.
    #[n(0)]
    pub clock: u64,
    /// Links of the daemon.
    #[n(1)]
    pub links: Vec<LinkReport>,
    /// The kernel's limit of receive buffers in bytes (net.core.rmem_max), if readable.
    #[n(2)]
    pub recv_limit: Option<u64>,
    /// Number of authorized keys.
    #[n(3)]
    pub keys: u32,
    /// Places of the trees.
    #[n(4)]
    pub trees: Vec<TreePlace>,
}

/// A link of a daemon.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct LinkReport {
    /// Name of the interface.
    #[n(0)]
    pub interface: String,
    /// MTU of the interface in bytes.
    #[n(1)]
    pub mtu: u32,
    /// Receive buffer granted by the kernel, in bytes.
    #[n(2)]
    pub recv_buffer: u64,
    /// UDP port for datagrams to this host alone.
    #[n(3)]
    pub port: u16,
    /// Whether the link has joined the group.
    #[n(4)]
    pub multicast: bool,
}

/// The filesystem of a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct TreePlace {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// Warning about the place of the tree's state, such as one on another filesystem than the
    /// configured one.
    #[n(1)]
    pub warning: Option<String>,
    /// Name of the filesystem's kind.
    #[n(2)]
    pub filesystem: String,
    /// Free bytes of the filesystem.
    #[n(3)]
    pub free: u64,
    /// Bytes of the filesystem.
    #[n(4)]
    pub size: u64,
    /// Free inodes; `None` for a filesystem without a limit.
    #[n(5)]
    pub free_inodes: Option<u64>,
    /// Whether the filesystem is mounted read-only.
    #[n(6)]
    pub read_only: bool,
    /// Whether two names are exchanged in one step; `None` if that was not tried.
    #[n(7)]
    pub exchange: Option<bool>,
    /// Whether files share blocks (reflinks); `None` if that was not tried.
    #[n(8)]
    pub reflink: Option<bool>,
}

impl MachineReport {
    /// Checks every cap and makes all text for people printable.
    pub(super) fn check(&mut self) -> Result<(), String> {
        within(
            self.links.len() <= MAX_REPORT_LINKS && self.trees.len() <= MAX_REPORT_TREES,
            "too many links or places",
        )?;

        for link in &mut self.links {
            link.interface = clean_text(&link.interface, MAX_SHORT_NAME);
        }
        for place in &mut self.trees {
            place.filesystem = clean_text(&place.filesystem, MAX_SHORT_NAME);
            if let Some(warning) = &mut place.warning {
                *warning = clean_text(warning, MAX_REPORT_WARNING);
            }
        }

        Ok(())
    }
}
