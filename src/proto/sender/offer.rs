//! The release on offer, and the terms of the offer.

use super::setup::{CompareRules, ReleaseGrant};
use crate::id::{HostName, Serial, SessionId};
use crate::manifest::{Header, Intent, NodeRef, Release};
use crate::wire::message::{Announce, Order, OrderKind};

/// Terms of an offer, and the release once announced.
#[derive(Debug)]
pub struct Offer {
    session: SessionId,
    /// Name of the sender's host.
    sender: HostName,
    compare: CompareRules,
    grant: Option<ReleaseGrant>,
    /// Whether only hosts that keep the release staged can take it.
    staged: bool,
    /// Lowest serial that a host must have to take a partial release.
    lowest_serial: Option<Serial>,
    content: Option<SignedOffer>,
}

/// A release with its signature.
#[derive(Debug)]
struct SignedOffer {
    release: Release,
    signature: Vec<u8>,
}

impl Offer {
    /// Creates an offer without a release.
    pub fn new(
        session: SessionId,
        sender: HostName,
        compare: CompareRules,
        grant: Option<ReleaseGrant>,
    ) -> Self {
        Self {
            session,
            sender,
            compare,
            grant,
            staged: false,
            lowest_serial: None,
            content: None,
        }
    }

    /// Restricts the offer to hosts that keep the release staged, if `staged`.
    pub fn only_staged(self, staged: bool) -> Self {
        Self { staged, ..self }
    }

    /// Restricts a partial release to hosts with at least serial `oldest`.
    pub fn requires(&mut self, oldest: Serial) {
        self.lowest_serial = Some(oldest);
    }

    /// Sets the release.
    pub fn set(&mut self, release: Release, signature: Vec<u8>) {
        self.content = Some(SignedOffer { release, signature });
    }

    /// The release, once announced.
    pub fn release(&self) -> Option<&Release> {
        self.content.as_ref().map(|content| &content.release)
    }

    /// Root of the release's manifest, once announced.
    pub fn root(&self) -> Option<NodeRef> {
        self.header().map(|header| header.root)
    }

    fn header(&self) -> Option<&Header> {
        self.release().map(Release::header)
    }

    /// Returns whether the release is only compared with the hosts' trees.
    pub fn is_audit(&self) -> bool {
        self.header()
            .is_some_and(|header| header.intent == Intent::Audit)
    }

    /// Returns whether hosts commit by an order that came with the release.
    pub fn is_granted(&self) -> bool {
        self.grant.is_some()
    }

    /// Returns whether only hosts that keep the release staged can take it.
    pub fn is_of_staged(&self) -> bool {
        self.staged
    }

    /// Returns an order about the release.
    pub fn order(&self, kind: OrderKind) -> Option<Order> {
        let release = self.release()?;
        Some(Order::new(self.session, release, kind))
    }

    /// Returns the announcement in a session of `hosts` hosts, with symbols of `symbol` bytes.
    pub fn announcement(&self, symbol: u16, hosts: u32) -> Option<Announce> {
        let content = self.content.as_ref()?;
        let grant = self.grant.as_ref();

        Some(Announce {
            session: self.session,
            sender: self.sender.clone(),
            header: content.release.bytes().to_vec(),
            signature: content.signature.clone(),
            symbol,
            hosts: hosts.max(grant.map_or(0, |grant| grant.fleet)),
            checksum: self.compare.checksum,
            quick: Some(true).filter(|_| self.compare.quick),
            recheck: Some(true).filter(|_| self.compare.recheck),
            grant: grant.map(|grant| grant.order.clone()),
            follows: grant.and_then(|grant| grant.follows),
            only: grant.and_then(|grant| grant.only.clone()),
            proves: Some(true),
            after: self.lowest_serial,
            staged: Some(true).filter(|_| self.staged),
        })
    }
}
