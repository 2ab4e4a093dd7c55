//! A search on the loopback interface, with a host that does not know its messages.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::*;
use crate::doctor::judge_hosts;
use crate::drive::endpoint::GroupEndpoint;
use crate::id::{HostName, Nonce};
use crate::net::Offload;
use crate::net::testing::{free_port, loopback};
use crate::outcome::{Check, Severity};
use crate::proto::Dest;
use crate::proto::control::Control;
use crate::wire::message::Hello;
use crate::wire::{Datagram, Message};

/// Answers to solicits, and ignores everything else, until `is_over`.
fn be_old(mut endpoint: GroupEndpoint, is_over: &AtomicBool) {
    let mut control = Control::new(endpoint.instance(), endpoint.datagram(), endpoint.room());
    while !is_over.load(Ordering::Relaxed) {
        endpoint
            .wait(Some(Duration::from_millis(20)))
            .expect("waits");
        let mut asked = Vec::new();
        endpoint.receive(|arrived| {
            if let Ok(Datagram::Control(_, piece)) = Datagram::parse(arrived.bytes)
                && let Ok(Message::Solicit(Some(nonce), _)) = Message::decode(piece.bytes)
            {
                asked.push((arrived.from, nonce));
            }
        });

        for (from, nonce) in asked {
            control.send(Dest::Host(from), &Message::Hello(old_hello(nonce)));
        }
        endpoint.flush(|out| control.poll(out));
    }
}

pub(super) fn old_hello(nonce: Nonce) -> Hello {
    Hello {
        name: HostName::new("old1").expect("legal"),
        version: "0.0.1".to_string(),
        trees: Vec::new(),
        members: 1,
        heard: None,
        strangers: None,
        nonce: Some(Nonce(1)),
        echoes: Some(vec![nonce]),
        identity: None,
        shown: None,
        labels: None,
    }
}

#[test]
fn a_host_of_an_older_version_is_too_old_and_no_failure() {
    let port = free_port();
    let link = || loopback("224.0.0.108", port, Offload::Full);
    let (Some(host), Some(own)) = (link(), link()) else {
        return;
    };
    let endpoint = GroupEndpoint::new(host).expect("opens");
    let is_over = AtomicBool::new(false);

    let result = std::thread::scope(|threads| {
        threads.spawn(|| be_old(endpoint, &is_over));
        let result = run(own, CheckupTarget::new(None, 5001), &mut |_| {});
        is_over.store(true, Ordering::Relaxed);
        result.expect("measures")
    });

    assert_eq!(result.heard.len(), 1);
    let host = &result.hosts[0];
    assert!(host.answered && !host.counts && host.report.is_none());
    let found = judge_hosts(&result.hosts, &result.network);
    assert!(
        found.iter().all(|finding| finding.level != Severity::Fail),
        "{found:?}"
    );
    let is_told = |finding: &crate::outcome::Finding| {
        finding.check == Check::Version && finding.what.contains("too old for the checks")
    };
    assert!(found.iter().any(is_told), "{found:?}");
    assert_eq!(result.network.links[0].own_copy, Some(true));
}
