//! Measured facts about hosts, links and paths: plain data.

use std::net::SocketAddr;

use crate::id::NamedHost;
use crate::net::{Family, Interface, Offload};
use crate::units::Rate;
use crate::wire::machine::MachineReport;

/// Datagrams sent, and those that arrived.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Number sent.
    pub sent: u32,
    /// Number that arrived.
    pub arrived: u32,
}

impl Tally {
    /// Returns whether some were sent and none arrived.
    pub fn is_cut(self) -> bool {
        self.sent > 0 && self.arrived == 0
    }

    /// Number that did not arrive.
    pub fn lost(self) -> u32 {
        self.sent.saturating_sub(self.arrived)
    }

    /// Lost share, from 0 to 1.
    pub fn share(self) -> f64 {
        f64::from(self.lost()) / f64::from(self.sent.max(1))
    }
}

/// One train of datagrams at a given rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// Rate of sending; `None` for as fast as possible.
    pub rate: Option<Rate>,
    /// Datagrams of the train.
    pub tally: Tally,
    /// Datagrams that arrived more than once.
    pub repeated: u32,
    /// Datagrams that arrived after a later one.
    pub late: u32,
    /// Packets lost in the host's receive buffer meanwhile.
    pub dropped: u64,
}

/// The largest datagrams that arrive, in bytes with the seal; `None` if not measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathSizes {
    /// Sent to the group.
    pub by_group: Option<usize>,
    /// Sent to the host.
    pub by_host: Option<usize>,
}

/// A host's clock against this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockOffset {
    /// Milliseconds that the host's clock is ahead.
    pub ahead: i64,
    /// Largest error of that in milliseconds: the time between question and answer.
    pub error: u64,
}

/// A host and the measurements of its paths.
#[derive(Debug, Clone, PartialEq)]
pub struct HostFacts {
    /// The host.
    pub host: NamedHost,
    /// Address that the host sends from.
    pub address: SocketAddr,
    /// Version of makuo on the host.
    pub version: String,
    /// Whether the host answered a question. Otherwise only its beacons are heard.
    pub answered: bool,
    /// The host's machine; `None` from an older makuo, or without an answer.
    pub report: Option<MachineReport>,
    /// The host's clock.
    pub clock: Option<ClockOffset>,
    /// Whether the paths to the host were measured: those of a large fleet are not all.
    pub measured: bool,
    /// Whether the host counts probes; an older makuo does not.
    pub counts: bool,
    /// Datagrams to the group.
    pub to_group: Option<Tally>,
    /// Datagrams to the host alone.
    pub to_host: Option<Tally>,
    /// Datagrams of the host to the group.
    pub from_group: Option<Tally>,
    /// Largest datagrams.
    pub sizes: PathSizes,
    /// Trains at rising rates.
    pub bursts: Vec<Burst>,
}

/// A link of this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkFacts {
    /// The interface.
    pub interface: Interface,
    /// Address that this process sends from, with its port.
    pub local: SocketAddr,
    /// Whether the link uses multicast.
    pub multicast: bool,
    /// Whether the kernel lists the group for the interface.
    pub joined: bool,
    /// Whether a datagram to the group came back to another socket of this machine; `None` if that
    /// was not tried.
    pub own_copy: Option<bool>,
    /// Granted receive buffer in bytes.
    pub recv_buffer: usize,
    /// Batching of sends.
    pub offload: Offload,
    /// Whether the kernel joins arriving datagrams (UDP GRO).
    pub receives_trains: bool,
}

/// The network of the search.
#[derive(Debug, Clone, PartialEq)]
pub struct NetworkFacts {
    /// Group, with its port.
    pub group: SocketAddr,
    /// Whether multicast is used.
    pub multicast: bool,
    /// Links of this machine.
    pub links: Vec<LinkFacts>,
    /// Largest datagram that the links take, in bytes with the seal.
    pub largest: usize,
}

impl NetworkFacts {
    /// Family of the addresses.
    pub fn family(&self) -> Family {
        Family::of(self.group.ip())
    }
}

#[cfg(test)]
pub(crate) mod testing {
    //! Facts about hosts that are well, for tests to spoil.

    use super::*;
    use crate::id::HostName;
    use crate::net::testing::interface;
    use crate::wire::machine::{LinkReport, TreePlace};

    /// A host on which all is well.
    pub(crate) fn host(name: &str) -> HostFacts {
        let all = Some(Tally {
            sent: 20,
            arrived: 20,
        });

        HostFacts {
            host: HostName::new(name).expect("legal").into(),
            address: SocketAddr::from(([10, 0, 0, 3], 5001)),
            version: env!("CARGO_PKG_VERSION").to_string(),
            answered: true,
            report: Some(report()),
            clock: Some(ClockOffset {
                ahead: 3,
                error: 20,
            }),
            measured: true,
            counts: true,
            to_group: all,
            to_host: all,
            from_group: all,
            sizes: PathSizes {
                by_group: Some(1472),
                by_host: Some(1472),
            },
            bursts: [10, 100, 500]
                .map(|mbit| burst(Some(Rate(mbit * 1_000_000)), 1_000))
                .into(),
        }
    }

    /// A train of which nothing was lost.
    pub(crate) fn burst(rate: Option<Rate>, sent: u32) -> Burst {
        Burst {
            rate,
            tally: Tally {
                sent,
                arrived: sent,
            },
            repeated: 0,
            late: 0,
            dropped: 0,
        }
    }

    /// The machine of such a host.
    pub(crate) fn report() -> MachineReport {
        let link = LinkReport {
            interface: "eth0".into(),
            mtu: 1500,
            recv_buffer: 16 << 20,
            port: 5001,
            multicast: true,
        };
        let place = TreePlace {
            tree: crate::id::TreeName::new("www").expect("legal"),
            warning: None,
            filesystem: "ext4".into(),
            free: 50 << 30,
            size: 100 << 30,
            free_inodes: Some(1 << 20),
            read_only: false,
            exchange: Some(true),
            reflink: Some(false),
        };

        MachineReport {
            clock: 0,
            links: vec![link],
            recv_limit: Some(16 << 20),
            keys: 1,
            trees: vec![place],
        }
    }

    /// A network with one link.
    pub(crate) fn network() -> NetworkFacts {
        NetworkFacts {
            group: SocketAddr::from(([224, 0, 0, 108], 5000)),
            multicast: true,
            links: vec![link("eth0")],
            largest: 1472,
        }
    }

    /// A link on which all is well.
    pub(crate) fn link(name: &str) -> LinkFacts {
        LinkFacts {
            interface: interface(name, 2, &["10.0.0.9"]),
            local: SocketAddr::from(([10, 0, 0, 9], 5002)),
            multicast: true,
            joined: true,
            own_copy: Some(true),
            recv_buffer: 16 << 20,
            offload: Offload::Full,
            receives_trains: true,
        }
    }
}
