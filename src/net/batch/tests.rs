//! Tests of trains: complete, in order, and never sent twice, in each mode.

use std::io;

use nix::errno::Errno;

use super::recv::cut;
use super::send::settle;
use super::*;
use crate::net::Link;
use crate::net::testing::{collect, free_port, loopback};
use crate::net::{Interest, Poller, sys};

/// 32 different datagrams, the last one short.
fn train(segment: usize) -> Vec<u8> {
    let bytes = (MAX_SEGMENTS - 1) * segment + segment / 2;
    (0..bytes)
        .map(|i| (i / segment * 7 + i % 251) as u8)
        .collect()
}

fn pair(offload: Offload) -> Option<(Link, Link)> {
    let port = free_port();
    Some((
        loopback("224.0.0.108", port, offload)?,
        loopback("224.0.0.108", port, offload)?,
    ))
}

#[test]
fn a_train_arrives_complete_and_in_order_whichever_way_it_goes() {
    for offload in [Offload::Full, Offload::Batched, Offload::Single] {
        let Some((a, b)) = pair(offload) else { return };

        for segment in [2, 1472, 2000] {
            let sent = train(segment);
            for (to, channel) in [(a.group(), Channel::Group), (b.local(), Channel::Own)] {
                assert_eq!(
                    a.send(to, &sent, segment).unwrap(),
                    SendOutcome::Sent,
                    "{offload:?} {segment}"
                );

                let got = collect(&b, channel, MAX_SEGMENTS);
                assert!(
                    sent.chunks(segment).eq(got.iter().map(Vec::as_slice)),
                    "{offload:?} {segment}"
                );
            }
        }

        assert_eq!(
            (a.drops().unwrap(), b.drops().unwrap()),
            (0, 0),
            "{offload:?}"
        );
    }
}

#[test]
fn a_train_is_read_in_one_call() {
    let Some((a, b)) = pair(Offload::Full) else {
        return;
    };

    if a.offload() != Offload::Full || b.own.state.gro_segments() == 1 {
        return crate::skip::skipped("this kernel has no UDP GSO or GRO");
    }

    assert_eq!(
        a.send(a.group(), &train(1472), 1472).unwrap(),
        SendOutcome::Sent
    );
    Poller::new()
        .unwrap()
        .wait(&b, Interest::READ, None)
        .unwrap();

    let mut batch = RecvBatch::new();
    let mut stamps = Vec::new();
    assert_eq!(
        b.recv(Channel::Group, &mut batch, |d| stamps.push(d.stamp))
            .unwrap(),
        MAX_SEGMENTS
    );

    assert!(stamps[0].is_some() && stamps.iter().all(|s| *s == stamps[0]));
}

#[test]
fn a_link_that_falls_back_still_understands_trains_of_others() {
    let port = free_port();
    let open = |offload| loopback("224.0.0.108", port, offload);
    let (Some(a), Some(b)) = (open(Offload::Full), open(Offload::Single)) else {
        return;
    };

    let sent = train(1472);
    assert_eq!(a.send(a.group(), &sent, 1472).unwrap(), SendOutcome::Sent);
    assert!(
        sent.chunks(1472)
            .eq(collect(&b, Channel::Group, MAX_SEGMENTS)
                .iter()
                .map(Vec::as_slice))
    );
}

#[test]
fn a_refused_train_goes_out_as_datagrams_and_the_link_remembers() {
    let Some((a, b)) = pair(Offload::Full) else {
        return;
    };

    if a.offload() != Offload::Full {
        return crate::skip::skipped("this kernel has no UDP GSO");
    }

    // The kernel refuses trains of a socket without checksums, as it does for drivers that
    // cannot compute them.
    sys::send_no_checksums(&a.own.socket).unwrap();
    let sent = train(1000);
    for _ in 0..2 {
        assert_eq!(a.send(a.group(), &sent, 1000).unwrap(), SendOutcome::Sent);
        assert!(
            sent.chunks(1000)
                .eq(collect(&b, Channel::Group, MAX_SEGMENTS)
                    .iter()
                    .map(Vec::as_slice))
        );
        assert_eq!(a.offload(), Offload::Batched);
    }

    assert_eq!(a.drops().unwrap(), 0);
}

#[test]
fn many_trains_arrive_or_block_and_nothing_is_sent_twice() {
    const TRAINS: usize = 100;
    for offload in [Offload::Full, Offload::Batched, Offload::Single] {
        let Some((a, b)) = pair(offload) else { return };
        let poller = Poller::new().unwrap();
        let sent = train(1472);
        for _ in 0..TRAINS {
            let mut rest = sent.as_slice();
            while let SendOutcome::Blocked { sent, retry_after } =
                a.send(b.local(), rest, 1472).unwrap()
            {
                rest = &rest[sent..];
                poller
                    .wait(
                        &a,
                        Interest {
                            write: true,
                            ..Interest::default()
                        },
                        retry_after,
                    )
                    .unwrap();
            }

            let got = collect(&b, Channel::Own, MAX_SEGMENTS);
            assert!(
                sent.chunks(1472).eq(got.iter().map(Vec::as_slice)),
                "{offload:?}"
            );
        }
    }
}

#[test]
fn what_is_too_much_is_refused_before_the_kernel_sees_it() {
    let Some((a, _)) = pair(Offload::Full) else {
        return;
    };

    let bytes = vec![0; 70_000];
    for (length, segment) in [(0, 10), (10, 0), (33, 1), (65_001, 3_000), (65_508, 65_508)] {
        let error = a.send(a.group(), &bytes[..length], segment).unwrap_err();
        assert_eq!(
            error.kind(),
            io::ErrorKind::InvalidInput,
            "{length} by {segment}"
        );
    }

    assert_eq!(
        a.send(a.group(), &bytes[..MAX_DATAGRAM], MAX_DATAGRAM)
            .unwrap(),
        SendOutcome::Sent
    );
}

#[test]
fn a_datagram_over_the_mtu_is_told_apart() {
    let Some(link) = loopback("ff15::108", free_port(), Offload::Full) else {
        return;
    };

    if link.max_segment() >= MAX_DATAGRAM {
        return crate::skip::skipped("loopback's MTU is larger than any datagram");
    }

    let bytes = vec![0; link.max_segment() + 1];
    assert_eq!(
        link.send(link.local(), &bytes, bytes.len()).unwrap(),
        SendOutcome::TooLarge
    );
    assert_eq!(
        link.send(link.local(), &bytes[1..], bytes.len()).unwrap(),
        SendOutcome::Sent
    );

    assert_eq!(link.offload(), Offload::Full, "the fault was the segment's");
}

#[test]
fn results_of_the_kernel_have_their_meaning() {
    let meaning = |e: Errno| settle(Err(io::Error::from_raw_os_error(e as i32)), 5).ok();
    assert_eq!(
        meaning(Errno::EAGAIN),
        Some(SendOutcome::Blocked {
            sent: 5,
            retry_after: None
        })
    );

    let hinted = SendOutcome::Blocked {
        sent: 5,
        retry_after: Some(RETRY_AFTER_ENOBUFS),
    };

    assert_eq!(meaning(Errno::ENOBUFS), Some(hinted));
    assert_eq!(meaning(Errno::EMSGSIZE), Some(SendOutcome::TooLarge));
    assert_eq!(meaning(Errno::EPERM), None);
    assert_eq!(Offload::Full.limited_to(1), Offload::Batched);

    assert_eq!(Offload::Single.limited_to(64), Offload::Single);
}

#[test]
fn a_train_is_cut_where_its_datagrams_end() {
    let cuts = |bytes: &[u8], segment| {
        let mut got = Vec::new();
        assert_eq!(
            cut(&mut bytes.to_vec(), segment, |d| got.push(d.to_vec())),
            got.len()
        );
        got
    };

    assert_eq!(cuts(b"abcdefg", 3), [&b"abc"[..], b"def", b"g"]);
    assert_eq!(cuts(b"abcdef", 3), [b"abc", b"def"]);
    assert_eq!(cuts(b"ab", 3), [b"ab"]);

    assert_eq!(cuts(b"", 0), [b""]);
}
