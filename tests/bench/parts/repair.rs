//! Throughput of the repair of a generation, in bytes of payload per second: this code against two
//! others, each kernel, and the geometries of real generations. `cargo bench --manifest-path
//! tests/bench/parts/Cargo.toml --bench repair`

use std::hint::black_box;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{BatchSize, BenchmarkGroup, BenchmarkId, Criterion, Throughput};
use makuo::fec::{Coded, Grid, Kernel, decode, deficit, encode};
use raptorq::{
    EncodingPacket, ObjectTransmissionInformation, SourceBlockDecoder, SourceBlockEncoder,
};
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// Symbol losses in per cent.
const LOSSES: [usize; 3] = [1, 5, 10];
/// Geometry for the comparison of codes: symbols, and bytes of each.
const SYMBOLS: usize = 256;
const SYMBOL: usize = 1400;

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(1000))
        .configure_from_args();
    kernels(&mut criterion);
    codes(&mut criterion);
    generations(&mut criterion);

    criterion.final_summary();
}

fn random(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(7);
    std::iter::repeat_with(|| random.u8(..)).take(len).collect()
}

/// Selects `percent` of the `rows`, at least one, evenly spread.
fn spread(rows: usize, percent: usize, phase: usize) -> Vec<u16> {
    let count = (rows * percent).div_ceil(100).max(1);
    (0..count)
        .map(|n| ((n * rows + phase) / count % rows) as u16)
        .collect::<std::collections::BTreeSet<_>>()
        .into_iter()
        .collect()
}

/// Measures one destination and one source, both in the first-level cache.
fn kernels(criterion: &mut Criterion) {
    let (source, mut destination) = (random(8 * 1428), random(8 * 1428));
    let mut group = criterion.benchmark_group("multiply-add");
    group.throughput(Throughput::Bytes(source.len() as u64));

    for kernel in Kernel::all() {
        group.bench_function(kernel.name(), |b| {
            b.iter(|| kernel.multiply_add(black_box(&mut destination), 0x57, black_box(&source)))
        });
    }
}

/// Measures three codes with the same geometry.
fn codes(criterion: &mut Criterion) {
    let payload = random(SYMBOLS * SYMBOL);
    for loss in LOSSES {
        let lost = spread(SYMBOLS, loss, 0);
        let mut group = criterion.benchmark_group(format!("codes, {loss} % lost"));
        group.throughput(Throughput::Bytes(payload.len() as u64));
        let grid = Grid::new(payload.len() as u32, SYMBOL as u16, 1).expect("legal");
        ours(
            &mut group,
            Kernel::best(),
            "linear",
            &grid,
            &payload,
            std::slice::from_ref(&lost),
        );
        reed_solomon(&mut group, &payload, &lost);
        raptor(&mut group, &payload, &lost);
    }
}

/// Measures a generation of 2 MiB as sent: symbols lost independently, and whole rows lost at once.
fn generations(criterion: &mut Criterion) {
    let payload = random(2 << 20);
    let grid = Grid::new(payload.len() as u32, 1428, 8).expect("legal");

    // The last row is short.
    let rows = usize::from(grid.rows()) - 1;
    for loss in LOSSES {
        let mut group = criterion.benchmark_group(format!("2 MiB, {loss} % lost"));
        group.throughput(Throughput::Bytes(payload.len() as u64));
        for kernel in Kernel::all() {
            if kernel == Kernel::best() || loss == 5 {
                ours(
                    &mut group,
                    kernel,
                    kernel.name(),
                    &grid,
                    &payload,
                    &vec![spread(rows, loss, 0); 8],
                );
            }
        }
        let scattered: Vec<Vec<u16>> = (0..8)
            .map(|column| spread(rows, loss, column * rows / 8))
            .collect();
        ours(
            &mut group,
            Kernel::best(),
            "scattered",
            &grid,
            &payload,
            &scattered,
        );
    }
}

fn ours(
    group: &mut BenchmarkGroup<WallTime>,
    kernel: Kernel,
    name: &str,
    grid: &Grid,
    payload: &[u8],
    lost: &[Vec<u16>],
) {
    let most = lost.iter().map(Vec::len).max().unwrap_or(0) as u16;
    let enough = |n: &u16| lost.iter().all(|rows| deficit(kernel, rows, 0..*n) == 0);
    let count = (most..).find(enough).expect("soon");
    let mut out = Vec::new();
    group.bench_function(BenchmarkId::new("encode", name), |b| {
        b.iter(|| {
            out.clear();
            encode(kernel, grid, black_box(payload), 0..count, &mut out);
        });
    });

    out.clear();
    encode(kernel, grid, payload, 0..count, &mut out);
    let symbol = |n: usize, bytes| Coded {
        row: (n / lost.len()) as u16,
        column: (n % lost.len()) as u8,
        bytes,
    };

    let coded: Vec<Coded> = out
        .chunks_exact(usize::from(grid.symbol()))
        .enumerate()
        .map(|(n, b)| symbol(n, b))
        .collect();

    let mut damaged = payload.to_vec();
    group.bench_function(BenchmarkId::new("decode", name), |b| {
        b.iter(|| decode(kernel, grid, black_box(&mut damaged), lost, &coded).expect("enough"));
    });

    assert!(damaged == payload);
}

fn reed_solomon(group: &mut BenchmarkGroup<WallTime>, payload: &[u8], lost: &[u16]) {
    let recovery = lost.len();
    let mut encoder = ReedSolomonEncoder::new(SYMBOLS, recovery, SYMBOL).expect("supported");
    let mut coded: Vec<Vec<u8>> = Vec::new();
    group.bench_function(BenchmarkId::new("encode", "reed-solomon-simd"), |b| {
        b.iter(|| {
            payload
                .chunks(SYMBOL)
                .for_each(|symbol| encoder.add_original_shard(symbol).expect("room"));
            coded = encoder
                .encode()
                .expect("complete")
                .recovery_iter()
                .map(<[u8]>::to_vec)
                .collect();
        });
    });

    payload
        .chunks(SYMBOL)
        .for_each(|symbol| encoder.add_original_shard(symbol).expect("room"));
    coded = encoder
        .encode()
        .expect("complete")
        .recovery_iter()
        .map(<[u8]>::to_vec)
        .collect();

    let mut decoder = ReedSolomonDecoder::new(SYMBOLS, recovery, SYMBOL).expect("supported");
    group.bench_function(BenchmarkId::new("decode", "reed-solomon-simd"), |b| {
        b.iter(|| {
            for (index, symbol) in payload
                .chunks(SYMBOL)
                .enumerate()
                .filter(|(n, _)| !lost.contains(&(*n as u16)))
            {
                decoder.add_original_shard(index, symbol).expect("room");
            }
            for (index, symbol) in coded.iter().enumerate() {
                decoder.add_recovery_shard(index, symbol).expect("room");
            }
            black_box(
                decoder
                    .decode()
                    .expect("enough")
                    .restored_original_iter()
                    .count(),
            );
        });
    });
}

fn raptor(group: &mut BenchmarkGroup<WallTime>, payload: &[u8], lost: &[u16]) {
    let config = ObjectTransmissionInformation::new(payload.len() as u64, SYMBOL as u16, 1, 1, 8);
    // A few more than the lost ones, since this code may need extra symbols.
    let repair = |payload| {
        SourceBlockEncoder::new(0, &config, payload).repair_packets(0, lost.len() as u32 + 2)
    };

    group.bench_function(BenchmarkId::new("encode", "raptorq"), |b| {
        b.iter(|| repair(black_box(payload)))
    });
    let mut packets = SourceBlockEncoder::new(0, &config, payload).source_packets();
    packets.retain(|packet| !lost.contains(&(packet.payload_id().encoding_symbol_id() as u16)));
    packets.extend(repair(payload));
    let decode = |packets: Vec<EncodingPacket>| {
        SourceBlockDecoder::new(0, &config, payload.len() as u64)
            .decode(packets)
            .expect("enough")
    };

    assert!(decode(packets.clone()) == payload);
    group.bench_function(BenchmarkId::new("decode", "raptorq"), |b| {
        b.iter_batched(|| packets.clone(), decode, BatchSize::LargeInput);
    });
}
