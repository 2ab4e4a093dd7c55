//! Sealed datagrams open once, unchanged, for holders of the key only.

use proptest::prelude::*;

use super::sources::{MAX_DATA_SOURCES, MAX_SEALED_SOURCES};
use super::*;
use crate::id::{Generation, InstanceId, SessionId};
use crate::wire::datagram::{Fragment, Front, SymbolHeader, write_fragment, write_symbol};

fn key(n: u8) -> GroupKey {
    use base64ct::{Base64, Encoding};
    let text = format!("makuo-group-key-v1 {}", Base64::encode_string(&[n; 32]));
    GroupKey::parse(&text).expect("a key")
}

fn sealed(keys: &[u8], start: u8) -> Sealed {
    let keys: Vec<_> = keys.iter().map(|&n| key(n)).collect();
    Sealed::new(&keys, [start; START_BYTES]).expect("keys")
}

fn control(source: u64, counter: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let front = Front {
        source: InstanceId(source),
        counter,
    };

    write_fragment(
        &mut out,
        front,
        Fragment {
            message: 1,
            index: 0,
            count: 1,
            bytes,
        },
    );

    out.resize(out.len() + SEAL_OVERHEAD, 0);
    out
}

fn data(source: u64, counter: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let session = SessionId(1);
    let generation = Generation(2);
    let header = SymbolHeader {
        session,
        generation,
        row: 3,
        column: 0,
        columns: 1,
        payload: 1000,
        sent: 7,
    };

    write_symbol(
        &mut out,
        Front {
            source: InstanceId(source),
            counter,
        },
        header,
        &[5; 900],
    );

    out.resize(out.len() + SEAL_OVERHEAD, 0);
    out
}

fn seal(by: &mut Sealed, mut datagram: Vec<u8>) -> Vec<u8> {
    by.seal(&mut datagram);
    datagram
}

fn open(by: &mut Sealed, datagram: &[u8]) -> Result<Vec<u8>, OpenError> {
    by.open(&mut datagram.to_vec()).map(<[u8]>::to_vec)
}

proptest! {
    #[test]
    fn what_is_sealed_comes_back_and_nobody_can_read_it(
        source: u64,
        counter in 1..u64::MAX,
        text in prop::collection::vec(any::<u8>(), 32..200),
    ) {
        let mut ours = sealed(&[1], 1);
        let mut theirs = sealed(&[1], 2);
        let plain = control(source, counter, &text);
        let closed = seal(&mut ours, plain.clone());
        prop_assert_eq!(closed.len(), plain.len());
        prop_assert!(!closed.windows(16).any(|w| w == &text[..16]));

        let text = &plain[..plain.len() - SEAL_OVERHEAD];
        prop_assert_eq!(open(&mut theirs, &closed), Ok(text.to_vec()));
    }

    #[test]
    fn any_flipped_bit_is_refused(at: prop::sample::Index, bit in 0..8u8, known: bool) {
        let mut ours = sealed(&[1], 1);
        let mut theirs = sealed(&[1], 2);
        if known {
            let first = seal(&mut ours, control(7, 8, b"hello"));
            prop_assert!(open(&mut theirs, &first).is_ok());
        }

        let closed = seal(&mut ours, control(7, 9, b"the text of a message"));
        let mut broken = closed.clone();
        broken[at.index(closed.len())] ^= 1 << bit;
        prop_assert!(open(&mut theirs, &broken).is_err());

        prop_assert!(open(&mut theirs, &closed).is_ok(), "the forged one took nobody's place");
    }

    #[test]
    fn any_bytes_are_refused_without_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        kind: u8,
    ) {
        let mut ours = sealed(&[1, 2], 1);
        prop_assert!(open(&mut ours, &bytes).is_err());
        let mut near = vec![b'm', b'k', 1, kind];
        near.extend_from_slice(&bytes);
        prop_assert!(open(&mut ours, &near).is_err());
        prop_assert!(ours.sources.len() == 0);
    }
}

#[test]
fn another_key_a_plain_datagram_and_noise_are_told_apart() {
    let mut ours = sealed(&[1], 1);
    let mut theirs = sealed(&[2], 2);
    let mut none = super::super::Plain;
    let closed = seal(&mut ours, control(7, 1, b"text"));
    assert_eq!(open(&mut theirs, &closed), Err(OpenError::Wrong));
    assert_eq!(none.open(&mut closed.clone()), Err(OpenError::Sealed));
    let plain = control(7, 1, b"text");
    assert_eq!(open(&mut ours, &plain), Err(OpenError::Plain));
    assert_eq!(none.open(&mut plain.clone()), Ok(&plain[..]));
    assert_eq!(
        open(&mut ours, b"GET / HTTP/1.1\r\nHost: x"),
        Err(OpenError::Foreign)
    );
    let mut newer = closed;
    newer[2] += 1;
    assert_eq!(open(&mut ours, &newer), Err(OpenError::Version));

    assert!(theirs.sources.len() == 0);
}

#[test]
fn a_replay_is_refused_in_any_order_for_messages_and_data_apart() {
    let mut ours = sealed(&[1], 1);
    let mut theirs = sealed(&[1], 2);
    let sent: Vec<Vec<u8>> = (1..=200)
        .flat_map(|n| [control(7, n, b"text"), data(7, n)])
        .map(|datagram| seal(&mut ours, datagram))
        .collect();
    assert!(
        sent.iter()
            .rev()
            .all(|datagram| open(&mut theirs, datagram).is_ok())
    );

    assert!(
        sent.iter()
            .all(|datagram| open(&mut theirs, datagram) == Err(OpenError::Replayed))
    );
    let late = seal(&mut ours, control(7, 1_000_000, b"text"));
    assert!(open(&mut theirs, &late).is_ok());

    assert_eq!(
        open(&mut theirs, &sent[0]),
        Err(OpenError::Replayed),
        "older than the window"
    );
}

#[test]
fn a_nonce_is_never_used_twice() {
    let mut ours = sealed(&[1], 1);
    let first = seal(&mut ours, control(7, 5, b"one"));
    let again = seal(&mut ours, control(7, 5, b"two"));
    assert!(
        again[..again.len() - SEAL_OVERHEAD].iter().all(|&b| b == 0),
        "not sent"
    );

    // The same numbers after a restart, from another process, and for data: other keys or nonces,
    // other bytes.
    let text = |datagram: &[u8]| datagram[FRONT..].to_vec();
    assert_ne!(
        text(&seal(&mut sealed(&[1], 2), control(7, 5, b"one"))),
        text(&first)
    );
    assert_ne!(
        text(&seal(&mut sealed(&[1], 1), control(8, 5, b"one"))),
        text(&first)
    );

    assert_eq!(
        text(&seal(&mut sealed(&[1], 1), control(7, 5, b"one"))),
        text(&first),
        "what the start is for"
    );

    let mut short = vec![0xff; SEAL_OVERHEAD];
    ours.seal(&mut short);
    assert!(short.iter().all(|&b| b == 0));
}

#[test]
fn two_keys_let_a_group_change_over() {
    let mut old = sealed(&[1], 1);
    let mut new = sealed(&[2], 2);
    let mut both = sealed(&[2, 1], 3);
    let a = seal(&mut old, control(1, 1, b"a"));
    let b = seal(&mut new, control(2, 1, b"b"));
    assert!(open(&mut both, &a).is_ok() && open(&mut both, &b).is_ok());
    let c = seal(&mut both, control(3, 1, b"c"));

    assert!(open(&mut new, &c).is_ok(), "sealed with the first");
    assert_eq!(open(&mut old, &c), Err(OpenError::Wrong));

    // The old key is removed while the process runs: its datagrams are refused from now on, and the
    // windows of the new key stay.
    assert!(both.rekey(&[key(2)], [4; START_BYTES]));
    assert_eq!(
        open(&mut both, &seal(&mut old, control(1, 2, b"a"))),
        Err(OpenError::Wrong)
    );
    assert_eq!(open(&mut both, &b), Err(OpenError::Replayed));

    let d = seal(&mut both, control(3, 2, b"d"));
    assert!(open(&mut new, &d).is_ok());
    assert!(
        !both.rekey(&[], [5; START_BYTES]),
        "there is no way back to plain"
    );

    assert!(!super::super::Plain.rekey(&[key(1)], [6; START_BYTES]));
}

#[test]
fn sources_and_streams_stay_bounded_whoever_speaks() {
    let mut host = sealed(&[1], 0);
    let datagram = |source: u64, data_too: bool| {
        let mut one = sealed(&[1], 1);
        let first = seal(&mut one, control(source, 1, b"x"));
        (first, data_too.then(|| seal(&mut one, data(source, 1))))
    };

    for source in 0..MAX_SEALED_SOURCES as u64 + 100 {
        let (first, more) = datagram(source, source % 40 == 0);
        assert!(
            open(&mut host, &first).is_ok()
                && more.is_none_or(|more| open(&mut host, &more).is_ok())
        );
        assert!(
            host.sources.len() <= MAX_SEALED_SOURCES
                && host.sources.streams().0 <= MAX_DATA_SOURCES
        );
    }

    let (counted, streams) = host.sources.streams();
    assert_eq!(counted, streams);

    // The sources heard last are still known.
    let (again, _) = datagram(MAX_SEALED_SOURCES as u64, false);
    assert_eq!(open(&mut host, &again), Err(OpenError::Replayed));

    // Sources without the key are not remembered at all.
    let known = host.sources.len();
    let mut stranger = sealed(&[9], 1);
    (0..1000).for_each(|n| drop(open(&mut host, &seal(&mut stranger, control(n, 1, b"x")))));

    assert_eq!(host.sources.len(), known);
}
