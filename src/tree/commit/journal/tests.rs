//! Tests of the journal.

use super::*;
use crate::block::BlockHash;
use crate::manifest::ReleaseId;
use crate::tree::state::reader::Mark;

#[test]
fn a_journal_is_whole_or_refused() {
    let path = TreePath::new(b"a".as_slice()).unwrap();
    let journal = Journal {
        commit: CommitMark {
            release: Mark {
                serial: Serial(3),
                id: ReleaseId(BlockHash::of(b"x")),
            },
            number: 1,
        },
        previous: None,
        steps: [
            Step::Mkdir(path.clone()),
            Step::Place {
                path,
                slot: 1,
                ino: 2,
                replaces: true,
                copy: None,
                born: None,
            },
        ]
        .into_iter()
        .collect(),
        dirs: vec![DirStep {
            path: None,
            old: Some(Metadata::default()),
            new: None,
        }],
        header: vec![1, 2],
        signature: vec![3],
        swap: None,
    };

    let payload = minicbor::to_vec(&journal).unwrap();
    let bytes = [
        JOURNAL_MAGIC.as_slice(),
        &Sha256::digest(&payload),
        &payload,
    ]
    .concat();
    assert_eq!(Journal::parse(&bytes), Some(journal));

    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        assert_eq!(Journal::parse(&broken), None);
        assert_eq!(Journal::parse(&bytes[..at]), None);
    }
}
