//! Tests of the source from a scan.

use std::collections::HashMap;

use super::*;
use crate::manifest::entry::NO_ID;
use crate::manifest::{EntryKind, Mode, Mtime, Owner};
use crate::tree::scan::{OwnerMapping, Policy, ScanOptions, scan};

struct Fixture {
    dir: tempfile::TempDir,
    root: Arc<Root>,
}

impl Fixture {
    fn new(files: &[(&str, Vec<u8>)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("tree");
        for (path, bytes) in files {
            std::fs::create_dir_all(top.join(path).parent().unwrap()).unwrap();
            std::fs::write(top.join(path), bytes).unwrap();
        }

        let root = Arc::new(Root::open(top).unwrap());
        Self { dir, root }
    }

    fn source(&self, policy: &Policy) -> ScannedSource {
        let mut options = ScanOptions::new(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
        options.entries.policy = policy.clone();
        let scanned = scan(&self.root, &options, None, &self.dir.path().join("index")).unwrap();
        ScannedSource::new(Arc::clone(&self.root), &scanned).unwrap()
    }
}

fn noise(words: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u64(..))
        .take(words)
        .flat_map(u64::to_le_bytes)
        .collect()
}

/// Reads every ordinal of the release, in order or backwards: whole, verified and of the
/// promised size.
fn read_all(source: &mut ScannedSource, backwards: bool) -> HashMap<u64, Vec<u8>> {
    let top = source.top();
    let all = 0..top.nodes + top.blocks;
    let order: Vec<u64> = if backwards {
        all.rev().collect()
    } else {
        all.collect()
    };

    let mut out = Vec::new();
    let mut found = HashMap::new();
    for n in order {
        let size = source.size_of(Ordinal(n)).unwrap();
        out.clear();
        let block = source.read(Ordinal(n), &mut out).unwrap();
        assert!(
            block.matches(&out) && size as usize == out.len(),
            "ordinal {n}"
        );
        found.insert(n, out.clone());
    }

    found
}

#[test]
fn every_ordinal_is_read_as_it_is_in_the_tree() {
    let large = noise(3 << 20, 1);
    let mut files = vec![
        ("a/empty", Vec::new()),
        ("big", large.clone()),
        ("z", b"last".to_vec()),
    ];

    let many: Vec<String> = (0..300).map(|i| format!("many/{i}")).collect();
    files.extend(many.iter().map(|p| (p.as_str(), p.as_bytes().to_vec())));
    let f = Fixture::new(&files);
    let mut source = f.source(&Policy::default());
    let found = read_all(&mut source, false);
    assert_eq!(found, read_all(&mut source, true));
    let top = source.top();

    assert!(top.nodes > 2, "the large file has lists");
    for n in 0..top.nodes {
        assert_eq!(
            source.block(Ordinal(n)).unwrap(),
            source.manifest().node_at(Ordinal(n)).unwrap()
        );
    }

    let mut seen = 0;
    for located in source.manifest().entries() {
        let crate::manifest::read::Located { entry, first } = located.unwrap();
        let EntryKind::File(content) = &entry.kind else {
            continue;
        };
        let blocks = (first.0..first.0 + content.block_count()).map(|n| found[&n].as_slice());
        let bytes = blocks.collect::<Vec<_>>().concat();
        assert!(
            bytes == std::fs::read(f.root.shown(&entry.path)).unwrap(),
            "{}",
            entry.path
        );
        seen += 1;
    }

    assert_eq!(seen, files.len());
    assert!(
        source
            .read(Ordinal(top.nodes + top.blocks), &mut Vec::new())
            .is_err()
    );
}

#[test]
fn a_file_that_changed_since_the_scan_is_named_and_never_sent() {
    for change in 0..4 {
        let f = Fixture::new(&[("d/file", b"as it was".to_vec())]);
        let mut source = f.source(&Policy::default());
        let at = f.root.path().join("d/file");
        match change {
            0 => std::fs::write(&at, b"as it is!").unwrap(),
            1 => std::fs::write(&at, b"short").unwrap(),
            2 => std::fs::remove_file(&at).unwrap(),
            _ => {
                std::fs::rename(&at, at.with_file_name("moved")).unwrap();
                std::os::unix::fs::symlink("moved", &at).unwrap();
            }
        }
        let mut out = b"what was sent before".to_vec();
        let first = Ordinal(source.top().nodes);
        let refused = source.read(first, &mut out);
        let named = matches!(&refused, Err(SourceError::Changed(p)) if p.as_bytes() == b"d/file");
        assert!(
            named && out == b"what was sent before",
            "{change}: {refused:?}"
        );
    }
}

#[test]
fn equal_trees_have_equal_roots_whatever_the_policy_leaves_out() {
    let policy = Policy {
        user: OwnerMapping::Fixed("no-such-user-here".into()),
        group: OwnerMapping::Ignore,
        file_mode: Some(Mode::from_bits(0o644)),
        dir_mode: Some(Mode::from_bits(0o755)),
        without_mtime: true,
    };

    let make = || Fixture::new(&[("d/file", b"text".to_vec())]).source(&policy);
    let one = make();
    let two = make();
    assert_eq!(one.top(), two.top());
    let entries: Vec<_> = one.manifest().entries().map(|l| l.unwrap().entry).collect();
    assert_eq!(
        entries.iter().map(|e| e.mode.bits()).collect::<Vec<_>>(),
        [0o755, 0o644]
    );

    assert_eq!(one.directory(), two.directory());
    assert_eq!(
        (one.directory().mode.bits(), one.directory().mtime),
        (0o755, Mtime::default())
    );
    let expected = Owner {
        uid: NO_ID,
        gid: NO_ID,
        user: Some("no-such-user-here".into()),
        group: None,
    };

    assert!(entries.iter().all(|e| *e.owner == expected));
    assert_eq!(one.directory().owner, expected);
}

#[test]
fn an_empty_tree_has_a_manifest() {
    let f = Fixture::new(&[("x", Vec::new())]);
    std::fs::remove_file(f.root.path().join("x")).unwrap();
    let mut source = f.source(&Policy::default());
    assert_eq!(
        (
            source.top().nodes,
            source.top().blocks,
            source.top().entries
        ),
        (1, 0, 0)
    );

    assert_eq!(read_all(&mut source, false).len(), 1);
}

#[test]
fn a_file_that_changed_after_the_scan_is_not_trusted() {
    let fixture = Fixture::new(&[("file", noise(100, 1)), ("other", noise(100, 2))]);
    let mut source = fixture.source(&Policy::default());
    let nodes = source.top().nodes;

    // As if the scan began long after the last write, with one file changed since.
    source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1 << 33));
    let mut out = Vec::new();
    source.read(Ordinal(nodes), &mut out).unwrap();
    std::fs::write(fixture.root.path().join("other"), noise(100, 3)).unwrap();
    source.trust_unchanged(SystemTime::UNIX_EPOCH + Duration::from_secs(1));
    assert!(matches!(
        source.read(Ordinal(nodes + 1), &mut out),
        Err(SourceError::Changed(_))
    ));

    assert_eq!(out, noise(100, 1));
}
