//! Cost of the pure parts: `cargo bench --manifest-path tests/bench/parts/Cargo.toml --bench pure`.
//!
//! Measures chunking and hashing, the encoding of a page, the comparison of two manifests with a
//! million entries, and the reading of an index of the same size.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use makuo::Result;
use makuo::block::{BlockHash, BlockRef, chunk};
use makuo::diff::{Have, HostRules, OwnerResolver, diff};
use makuo::manifest::build::Builder;
use makuo::manifest::read::{Manifest, NodeSource, ReadError};
use makuo::manifest::rules::PathFilter;
use makuo::manifest::{
    Content, Entry, EntryKind, Mode, Mtime, Node, NodeRef, Owner, Rules, TreePath,
};
use makuo::tree::index::{IndexWriter, Origin};
use makuo::tree::{FileId, Index, IndexEntry, Version};
use makuo::units::Limit;

/// Entries of the large manifests, and the number of their directories.
const MILLION: usize = 1_000_000;
const DIRECTORIES: usize = 1000;
/// Entries of one page.
const PAGE: usize = 1000;
const CONTENT: usize = 64 << 20;
const ROOT: FileId = FileId { dev: 1, ino: 2 };

fn main() {
    let mut criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(3))
        .configure_from_args();
    content(&mut criterion);
    pages(&mut criterion);
    manifests(&mut criterion);
    index(&mut criterion);

    criterion.final_summary();
}

/// Measures 64 MB cut into blocks, and cut and hashed on one core.
fn content(criterion: &mut Criterion) {
    let mut bytes = vec![0; CONTENT];
    fastrand::Rng::with_seed(1).fill(&mut bytes);
    let mut group = criterion.benchmark_group("64 MB");
    group.throughput(Throughput::Bytes(CONTENT as u64));
    group.bench_function("chunk", |b| {
        b.iter(|| chunk::cuts(black_box(&bytes), true).count())
    });

    group.bench_function("chunk and hash", |b| {
        b.iter(|| {
            chunk::cuts(black_box(&bytes), true)
                .map(|cut| black_box(BlockRef::of(&bytes[cut])).size)
                .sum::<u32>()
        })
    });
}

/// Measures a page of a thousand entries, encoded and decoded.
fn pages(criterion: &mut Criterion) {
    let node = Node::Page(entries(PAGE, 0).collect());
    let bytes = node.encode();
    let mut group = criterion.benchmark_group("page of 1000 entries");
    group.throughput(Throughput::Elements(PAGE as u64));
    group.bench_function("encode", |b| b.iter(|| black_box(&node).encode()));

    group.bench_function("decode", |b| {
        b.iter(|| Node::decode(black_box(&bytes)).expect("legal"))
    });
}

/// Measures the building of a manifest with a million entries, and the comparison of two: equal,
/// and with one different file.
fn manifests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("manifests of 1,000,000 entries");
    group.throughput(Throughput::Elements(MILLION as u64));
    group.bench_function("build", |b| b.iter(|| Memory::of(entries(MILLION, 0)).0));
    let (_, old) = Memory::of(entries(MILLION, 0));

    for (name, changed) in [("diff, the same", 0), ("diff, one file changed", 1)] {
        let (_, new) = Memory::of(entries(MILLION, changed));
        group.bench_function(name, |b| {
            b.iter(|| compare(black_box(&old), black_box(&new)))
        });
    }
}

/// Measures the opening and reading of an index with a million entries.
fn index(criterion: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("index");
    let mut writer = IndexWriter::create(&path, ROOT).expect("writable");
    for (number, entry) in entries(MILLION, 0).enumerate() {
        let (mtime, size) = (entry.mtime, entry.kind.size());
        let version = Version {
            dev: ROOT.dev,
            ino: number as u64 + 3,
            size,
            mtime,
            ctime: mtime,
        };
        writer
            .push(IndexEntry { entry, version })
            .expect("writable");
    }

    let origin = Origin {
        started: Mtime::default(),
        options: BlockHash([0; 32]),
        top: Version::NONE,
        owners: Vec::new(),
        patterns: Vec::new(),
        ignore_files: Vec::new(),
        skipped: Vec::new(),
        mounts: Vec::new(),
    };

    writer.finish(origin).expect("writable");
    let mut group = criterion.benchmark_group("index of 1,000,000 entries");
    group.throughput(Throughput::Elements(MILLION as u64));

    group.bench_function("load", |b| {
        b.iter(|| {
            let index = Index::open(&path, ROOT).expect("whole");
            index
                .entries()
                .map(|entry| entry.expect("whole"))
                .filter(|e| e.version.size > 0)
                .count()
        })
    });
}

fn compare(old: &Manifest<Memory>, new: &Manifest<Memory>) -> usize {
    let host = HostRules {
        protect: &PathFilter::at_top::<&str>(&[]),
        spared: &[],
        max_delete: Limit::NONE,
        reports_limits: false,
        owners: &Nobody,
    };

    diff(&Host(old), new, &Rules::default(), &[], &host)
        .expect("comparable")
        .changes
        .len()
}

/// Returns entries in order; the first `changed` files have other content.
fn entries(count: usize, changed: usize) -> impl Iterator<Item = Entry> {
    let owner = Arc::new(Owner {
        uid: 33,
        gid: 33,
        user: Some("www-data".into()),
        group: Some("www-data".into()),
    });

    let each = count.div_ceil(DIRECTORIES);
    (0..count).map(move |number| {
        let (dir, place) = (number / each, number % each);
        // The first entry of a directory is the directory itself.
        let (path, kind, mode) = match place {
            0 => (format!("d{dir:04}"), EntryKind::Directory, 0o755),
            _ => {
                let version = u8::from(number <= changed);
                let block = BlockRef::of(format!("{number} {version}").as_bytes());
                (
                    format!("d{dir:04}/file-{place:06}.html"),
                    EntryKind::File(Content::Blocks(vec![block])),
                    0o644,
                )
            }
        };
        Entry {
            path: TreePath::new(path.into_bytes()).expect("legal"),
            kind,
            mode: Mode::from_bits(mode),
            owner: Arc::clone(&owner),
            mtime: Mtime {
                secs: 1_700_000_000 + number as i64,
                nanos: 0,
            },
            xattrs: Vec::new(),
        }
    })
}

/// Nodes in memory.
#[derive(Default)]
struct Memory(HashMap<BlockHash, Arc<[u8]>>);

impl Memory {
    fn of(entries: impl Iterator<Item = Entry>) -> (NodeRef, Manifest<Memory>) {
        let (mut nodes, mut builder) = (HashMap::new(), Builder::default());
        let mut sink =
            |block: BlockRef, bytes: Vec<u8>| drop(nodes.insert(block.hash, bytes.into()));
        entries.for_each(|entry| {
            builder
                .push(entry, &mut sink)
                .unwrap_or_else(|e| match e {})
        });
        let root = builder.finish(&mut sink).unwrap_or_else(|e| match e {});

        (root, Manifest::new(root, Memory(nodes)))
    }
}

impl NodeSource for Memory {
    fn node(&self, hash: &BlockHash) -> std::result::Result<Arc<[u8]>, ReadError> {
        self.0.get(hash).cloned().ok_or(ReadError::Missing(*hash))
    }
}

/// A host with a manifest as its tree.
struct Host<'a>(&'a Manifest<Memory>);

impl Have for Host<'_> {
    fn entries(&self) -> Box<dyn Iterator<Item = Result<Entry>> + '_> {
        Box::new(
            self.0
                .entries()
                .map(|located| Ok(located.expect("legal").entry)),
        )
    }

    fn blocks(&self, content: &Content) -> Result<Vec<BlockRef>> {
        Ok(self.0.blocks(content).expect("legal"))
    }
}

/// An empty user database: numeric ids are used.
struct Nobody;

impl OwnerResolver for Nobody {
    fn uid(&self, _: &str) -> Result<Option<u32>> {
        Ok(Some(33))
    }

    fn gid(&self, _: &str) -> Result<Option<u32>> {
        Ok(Some(33))
    }
}
