//! Tests of the store of nodes.

use super::*;

fn put(nodes: &NodeStore, bytes: &[u8]) -> BlockRef {
    let block = BlockRef::of(bytes);
    assert!(nodes.put_node(block, bytes).unwrap());
    block
}

#[test]
fn nodes_come_back_after_reopening_and_a_torn_record_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes");
    let nodes = NodeStore::open(&path).unwrap();
    let a = put(&nodes, b"first");
    let b = put(&nodes, b"second");
    put(&nodes, b"first");
    assert!(!nodes.put_node(a, b"other").unwrap());
    let length = std::fs::metadata(&path).unwrap().len();

    drop(nodes);
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_len(length - 1)
        .unwrap();

    let nodes = NodeStore::open(&path).unwrap();
    assert_eq!(&*nodes.node(&a.hash).unwrap(), b"first");
    assert!(matches!(nodes.node(&b.hash), Err(ReadError::Missing(_))));
    put(&nodes, b"second");
    assert_eq!(&*nodes.node(&b.hash).unwrap(), b"second");

    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
}

#[test]
fn damage_is_a_missing_node_and_can_be_mended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nodes");
    let nodes = NodeStore::open(&path).unwrap();
    let a = put(&nodes, b"content");
    File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .write_all_at(b"X", (MAGIC.len() + RECORD_HEAD) as u64)
        .unwrap();
    assert!(matches!(nodes.node(&a.hash), Err(ReadError::Missing(_))));
    put(&nodes, b"content");

    assert!(nodes.node(&a.hash).is_ok());
}

#[test]
fn what_no_release_needs_goes() {
    let dir = tempfile::tempdir().unwrap();
    let nodes = NodeStore::open(dir.path().join("nodes")).unwrap();
    let root = crate::manifest::build::Builder::default()
        .finish(&mut &nodes)
        .unwrap();
    let waste = put(&nodes, &vec![7; 200_000]);
    assert!(nodes.has_all(&root).unwrap());
    nodes.prune(&[root]).unwrap();
    assert!(nodes.has_all(&root).unwrap() && !nodes.has(&waste.hash));

    put(&nodes, b"still usable");
}
