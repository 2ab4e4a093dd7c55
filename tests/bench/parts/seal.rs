//! Cost of sealing a datagram, in bytes per second: two bare ciphers of the same crate, and makuo's
//! sending and receiving sides. `cargo bench --manifest-path tests/bench/parts/Cargo.toml --bench
//! seal`

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use makuo::id::{Generation, InstanceId, SessionId};
use makuo::keys::GroupKey;
use makuo::wire::datagram::{Front, SymbolHeader, write_symbol};
use makuo::wire::seal::{SEAL_OVERHEAD, Seal, Sealed};
use ring::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// UDP payload of an Ethernet frame.
const SIZE: usize = 1472;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .configure_from_args();
    ciphers(&mut criterion);
    datagrams(&mut criterion);
    criterion.final_summary();
}

/// Measures the ciphers alone, sealing in place.
fn ciphers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("cipher");
    group.throughput(Throughput::Bytes(SIZE as u64));
    for (name, algorithm) in [
        ("AES-256-GCM", &AES_256_GCM),
        ("ChaCha20-Poly1305", &CHACHA20_POLY1305),
    ] {
        let key = cipher(algorithm);
        let mut text = vec![7; SIZE - 36];
        group.bench_function(name, |b| {
            b.iter(|| {
                let nonce = Nonce::assume_unique_for_key([3; 12]);
                key.seal_in_place_separate_tag(nonce, Aad::from([1; 20]), black_box(&mut text))
                    .expect("seals")
            });
        });
    }
}

fn cipher(algorithm: &'static Algorithm) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(algorithm, &[9; 32]).expect("a key of the right length"))
}

/// Makes a symbol of `source`, with spare capacity at the end.
fn datagram(source: u64, counter: u64) -> Vec<u8> {
    let (session, generation) = (SessionId(1), Generation(2));
    let header = SymbolHeader {
        session,
        generation,
        row: 3,
        column: 0,
        columns: 1,
        payload: 1000,
        sent: 7,
    };

    let mut out = Vec::new();
    write_symbol(
        &mut out,
        Front {
            source: InstanceId(source),
            counter,
        },
        header,
        &vec![5; SIZE - 44 - SEAL_OVERHEAD],
    );

    out.resize(SIZE, 0);
    out
}

/// Measures the work of a sender and of a host.
fn datagrams(criterion: &mut Criterion) {
    let key = GroupKey::random().expect("random");
    let new = |keys: &[GroupKey], start| Sealed::new(keys, start).expect("keys");
    let mut group = criterion.benchmark_group("datagram");
    group.throughput(Throughput::Bytes(SIZE as u64));
    let (mut sender, mut counter) = (new(std::slice::from_ref(&key), [1; 4]), 0);
    let mut next = || {
        counter += 1;
        datagram(1, counter)
    };

    group.bench_function("seal", |b| {
        b.iter_batched_ref(&mut next, |d| sender.seal(d), BatchSize::SmallInput)
    });
    let mut host = new(std::slice::from_ref(&key), [2; 4]);
    let mut sealed = || {
        let mut one = next();
        sender.seal(&mut one);
        one
    };

    group.bench_function("open", |b| {
        b.iter_batched_ref(
            &mut sealed,
            |d| assert!(host.open(d).is_ok()),
            BatchSize::SmallInput,
        );
    });

    let mut forged = 0;
    let mut flood = || {
        forged += 1;
        let mut one = datagram(forged, 1);
        one[3] |= 0x80;
        one
    };

    group.bench_function("refuse a stranger", |b| {
        b.iter_batched_ref(
            &mut flood,
            |d| assert!(host.open(d).is_err()),
            BatchSize::SmallInput,
        );
    });

    let mut two = new(&[GroupKey::random().expect("random"), key], [2; 4]);
    group.bench_function("refuse a stranger, two keys", |b| {
        b.iter_batched_ref(
            &mut flood,
            |d| assert!(two.open(d).is_err()),
            BatchSize::SmallInput,
        );
    });
}
