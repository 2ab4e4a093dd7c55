//! A host of its own for one pull, on the loopback interface: sender and receiver of a session in
//! one process, sealed with a key that nobody else has.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::thread::JoinHandle;

use crate::Result;
use crate::drive::endpoint::GroupLinks;
use crate::drive::host::{HostHandle, HostLoop, LocalHost};
use crate::drive::peers::PeerConfig;
use crate::error::IoResultExt;
use crate::keys::GroupKey;
use crate::net::{Link, LinkConfig, choose_unicast};

/// A running host that only this process reaches.
pub struct LoopbackHost {
    handle: HostHandle,
    thread: Option<JoinHandle<Result<()>>>,
}

impl LoopbackHost {
    /// Starts `host`; returns it with the network of its sender.
    pub fn start(host: Arc<LocalHost>) -> Result<(Self, GroupLinks)> {
        let key = GroupKey::random()?;
        let (own, sender) = (link()?, link()?);
        let peers = |known, host| PeerConfig {
            known,
            host,
            ..PeerConfig::default()
        };

        let reach = peers(vec![own.local()], false);
        let network = |link: Link, peers| GroupLinks {
            keys: vec![key.clone()],
            peers: Some(peers),
            ..link.into()
        };
        let (running, handle) = HostLoop::start(network(own, peers(Vec::new(), true)), host)?;
        let thread = std::thread::Builder::new()
            .name("network".into())
            .spawn(move || running.run())
            .io_context("cannot start a thread")?;

        let thread = Some(thread);
        Ok((Self { handle, thread }, network(sender, reach)))
    }
}

impl Drop for LoopbackHost {
    fn drop(&mut self) {
        self.handle.stop();
        if let Some(Ok(Err(e))) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("{e}");
        }
    }
}

/// A link without multicast, at a port that the kernel chooses.
fn link() -> Result<Link> {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let found = choose_unicast(Some(&loopback.to_string()), false)
        .map_err(|e| e.hint("a pull needs the loopback interface: ip link set lo up"))?;
    let nowhere = || crate::Error::refused("the loopback interface has no address");
    let chosen = found.into_iter().next().ok_or_else(nowhere)?;
    Link::open(&LinkConfig {
        multicast: false,
        ..LinkConfig::new(chosen.interface, Ipv4Addr::UNSPECIFIED.into())
    })
}
