//! Questions about what hosts have, and their answers, outside of any session.
//!
//! A question goes to the group and is repeated to those that were not heard; an answer goes to who asked. Nothing of it
//! is signed: it informs people, and what a release is says its own signature, which an answer can carry.

use minicbor::{Decode, Encode};

use super::message::{MAX_SIGNATURE, MAX_TEXT, MAX_TREES, Tombstone, clean};
use crate::block::BlockHash;
use crate::id::{HostName, Serial, TreeName};
use crate::manifest::ReleaseId;
use crate::manifest::header::MAX_HEADER_BYTES;
use crate::units::WallTime;

/// The most releases of one tree that an answer lists: the newest.
pub const MAX_LOG: usize = 64;
/// The most tombstones of one tree that an answer lists: the newest.
pub const MAX_TOMBSTONES: usize = 32;
/// The most characters of all texts of an answer together.
pub const MAX_TEXTS: usize = 32 << 10;
/// The most globs on names that an answer lists for a tree.
pub const MAX_TARGETS_TOLD: usize = 32;
/// The most parts that an answer lists for a tree: the newest.
pub const MAX_PARTS_TOLD: usize = 256;
/// The most characters of a fingerprint or a word.
const MAX_WORD: usize = 64;

/// "What have you?"
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Ask {
    /// The question's number, drawn by who asks: its answers repeat it.
    #[n(0)]
    pub number: u64,
    /// Of which tree, with the releases that are kept; none: of all, without them.
    #[n(1)]
    pub tree: Option<TreeName>,
    /// Of that tree the header and signature of this release.
    #[n(2)]
    pub serial: Option<Serial>,
}

/// What a host has.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct Tell {
    /// The question's number.
    #[n(0)]
    pub number: u64,
    /// The host.
    #[n(1)]
    pub host: HostName,
    /// The trees that were asked for and that it has.
    #[n(2)]
    pub trees: Vec<TreeTold>,
    /// The release that was asked for, when it is kept.
    #[n(3)]
    pub release: Option<ReleaseBytes>,
}

/// What a host has of one tree.
#[derive(Debug, Clone, PartialEq, Encode, Decode)]
pub struct TreeTold {
    /// The tree.
    #[n(0)]
    pub tree: TreeName,
    /// The release that the tree is now.
    #[n(1)]
    pub running: Option<Serial>,
    /// The highest serial that was accepted; 0 is none.
    #[n(2)]
    pub highest: Serial,
    /// What is done with the tree now; none: nothing.
    #[n(3)]
    pub work: Option<Work>,
    /// What went wrong last, unless a commit followed.
    #[n(4)]
    pub trouble: Option<Trouble>,
    /// The releases that are kept, the newest first.
    #[n(5)]
    pub releases: Vec<ReleaseTold>,
    /// Its release is older than this host lets it be.
    #[n(6)]
    pub stale: Option<Stale>,
    /// What the host found when it looked for what drifted, since its start.
    #[n(7)]
    pub drifted: Option<Drifted>,
    /// The release that the tree is now: of two of one serial the number does not tell.
    #[n(8)]
    pub release: Option<ReleaseId>,
    /// The releases that were aborted or taken back, as far as the host knows, the newest first.
    #[n(9)]
    pub tombstones: Option<Vec<Tombstone>>,
    /// The newest release that went out from this tree: it has that, too.
    #[n(12)]
    pub sent: Option<Serial>,
    /// The tree runs a part, and the whole that it belongs to is not kept here: a new host cannot be given it.
    #[n(13)]
    #[cbor(default)]
    pub parts_only: bool,
    /// The whole that the release belongs to; itself, when it is whole.
    #[n(14)]
    pub base: Option<Base>,
    /// The signed part of the release that the tree is now, when the question names the tree.
    #[n(15)]
    pub shown: Option<ReleaseBytes>,
    /// Globs on the names of the hosts that the release is for, when it is a part; none: it is for all.
    #[n(16)]
    pub targets: Option<Vec<String>>,
    /// The parts for all hosts that followed the whole, as far as their records are kept, the newest last.
    #[n(17)]
    pub parts: Option<Vec<Part>>,
}

/// A release of a part of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Part {
    /// Its number.
    #[n(0)]
    pub serial: Serial,
    /// Whether a later one does all that it did.
    #[n(1)]
    pub replaced: bool,
}

/// A release of a whole tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Base {
    /// Its number.
    #[n(0)]
    pub serial: Serial,
    /// The name of what it does to a tree, whatever its number.
    #[n(1)]
    pub content: BlockHash,
}

/// How often a host looked whether a tree is what its release says, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Drifted {
    /// How often it looked.
    #[n(0)]
    pub looks: u64,
    /// How often something had drifted.
    #[n(1)]
    pub drifted: u64,
    /// How often it was made good.
    #[n(2)]
    pub repaired: u64,
    /// How many paths were not as the release says when it looked last.
    #[n(3)]
    pub paths: Option<u64>,
}

/// A release that is older than its host lets it be: somebody may keep deploys from that host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Stale {
    /// How many seconds ago it was made, by the host's clock.
    #[n(0)]
    pub age: u64,
    /// How many the host allows.
    #[n(1)]
    pub max_age: u64,
}

/// A session at work on a tree.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Work {
    /// What it does, in a word.
    #[n(0)]
    pub word: String,
    /// The release that it is about.
    #[n(1)]
    pub serial: Serial,
    /// Whose release.
    #[n(2)]
    pub sender: HostName,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Trouble {
    /// With which release.
    #[n(0)]
    pub serial: Serial,
    /// How many seconds ago: clocks differ.
    #[n(1)]
    pub age: u64,
    /// What, for people.
    #[n(2)]
    pub text: String,
}

/// A release that a host keeps.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseTold {
    /// Its number.
    #[n(0)]
    pub serial: Serial,
    /// Its identity.
    #[n(1)]
    pub id: ReleaseId,
    /// When it was made, by its sender's clock.
    #[n(2)]
    pub created: WallTime,
    /// The fingerprint of the key that signed it; none when the kept signature does not hold.
    #[n(3)]
    pub key: Option<String>,
    /// Entries of its tree.
    #[n(4)]
    pub entries: u64,
    /// Bytes of its files.
    #[n(5)]
    pub bytes: u64,
    /// Whether the tree is this release now.
    #[n(6)]
    pub running: bool,
    /// The name of what it does to a tree, whatever its number; none from a host of before.
    #[n(7)]
    pub content: Option<BlockHash>,
    /// Whether it governs a part of the tree only.
    #[n(8)]
    #[cbor(default)]
    pub part: bool,
}

/// The signed part of a release.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ReleaseBytes {
    /// The header's exact bytes.
    #[n(0)]
    #[cbor(with = "minicbor::bytes")]
    pub header: Vec<u8>,
    /// Its signature.
    #[n(1)]
    #[cbor(with = "minicbor::bytes")]
    pub signature: Vec<u8>,
}

impl ReleaseBytes {
    /// Whether header and signature are within their caps.
    pub(super) fn fits(&self) -> bool {
        self.header.len() <= MAX_HEADER_BYTES && self.signature.len() <= MAX_SIGNATURE
    }
}

impl Tell {
    /// Checks every cap; what a person will read is made printable.
    pub(super) fn check(&mut self) -> Result<(), String> {
        if self.trees.len() > MAX_TREES {
            return Err("too many trees".to_string());
        }

        let stones = |tree: &TreeTold| tree.tombstones.as_ref().map_or(0, Vec::len);
        if self.trees.iter().any(|tree| stones(tree) > MAX_TOMBSTONES) {
            return Err("too many tombstones".to_string());
        }

        if self.trees.iter().any(|tree| tree.releases.len() > MAX_LOG) {
            return Err("too many releases".to_string());
        }

        let is_long = |tree: &TreeTold| {
            tree.targets
                .as_ref()
                .is_some_and(|t| t.len() > MAX_TARGETS_TOLD)
        };

        if self.trees.iter().any(is_long) {
            return Err("too many targets".to_string());
        }

        if self.trees.iter().any(|tree| {
            tree.parts
                .as_ref()
                .is_some_and(|parts| parts.len() > MAX_PARTS_TOLD)
        }) {
            return Err("too many parts".to_string());
        }

        let shown = self.trees.iter().filter_map(|tree| tree.shown.as_ref());
        if !self.release.iter().chain(shown).all(ReleaseBytes::fits) {
            return Err("too long a header or signature".to_string());
        }

        for tree in &mut self.trees {
            tree.work
                .iter_mut()
                .for_each(|work| work.word = clean(&work.word, MAX_WORD));
            tree.trouble
                .iter_mut()
                .for_each(|trouble| trouble.text = clean(&trouble.text, MAX_TEXT));
            let keys = tree
                .releases
                .iter_mut()
                .filter_map(|release| release.key.as_mut());
            keys.for_each(|key| *key = clean(key, MAX_WORD));
        }

        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Message;
    use super::*;

    fn release(serial: u64) -> ReleaseTold {
        ReleaseTold {
            serial: Serial(serial),
            id: ReleaseId(BlockHash::of(&serial.to_be_bytes())),
            created: WallTime(1_801_418_400),
            key: Some("SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8".to_string()),
            entries: serial,
            bytes: serial << 20,
            running: serial == 7,
            content: (serial > 2).then(|| BlockHash::of(b"content")),
            part: serial % 2 == 1,
        }
    }

    fn tell(trees: Vec<TreeTold>, release: Option<ReleaseBytes>) -> Message {
        Message::Tell(Tell {
            number: 9,
            host: HostName::new("web1").expect("legal"),
            trees,
            release,
        })
    }

    fn tree(text: &str, releases: u64) -> TreeTold {
        TreeTold {
            shown: (releases > 3).then(|| ReleaseBytes {
                header: vec![1; 300],
                signature: vec![2; 90],
            }),
            tree: TreeName::new("www").expect("legal"),
            running: Some(Serial(7)),
            highest: Serial(8),
            work: Some(Work {
                word: "staging".into(),
                serial: Serial(9),
                sender: HostName::new("ci").expect("legal"),
            }),
            trouble: Some(Trouble {
                serial: Serial(8),
                age: 60,
                text: text.to_string(),
            }),
            releases: (0..releases).map(release).collect(),
            stale: (releases > 1).then_some(Stale {
                age: 90,
                max_age: 60,
            }),
            drifted: (releases > 2).then_some(Drifted {
                looks: 9,
                drifted: 2,
                repaired: 1,
                paths: Some(3),
            }),
            release: (releases > 1).then(|| release(7).id),
            tombstones: Some(vec![Tombstone {
                serial: Serial(8),
                release: release(8).id,
                revert: true,
            }]),
            sent: (releases > 3).then_some(Serial(9)),
            parts_only: releases == 4,
            parts: (releases > 6).then(|| {
                vec![Part {
                    serial: Serial(4),
                    replaced: true,
                }]
            }),
            targets: (releases > 5).then(|| vec!["web*".to_string()]),
            base: (releases > 4).then(|| Base {
                serial: Serial(3),
                content: BlockHash::of(b"whole"),
            }),
        }
    }

    proptest! {
        #[test]
        fn questions_come_back(number: u64, named: bool, serial in proptest::option::of(any::<u64>())) {
            let tree = named.then(|| TreeName::new("www").expect("legal"));
            let ask = Message::Ask(Ask { number, tree, serial: serial.map(Serial) });
            prop_assert_eq!(Message::decode(&ask.encode()), Ok(ask));
        }

        #[test]
        fn answers_come_back(
            text in "[a-z ]{0,200}",
            releases in 0..=MAX_LOG as u64,
            bytes in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..500)),
        ) {
            let bytes = bytes.map(|header| ReleaseBytes { signature: header.clone(), header });
            let told = tell(vec![tree(&text, releases), tree("", 0)], bytes);
            prop_assert_eq!(Message::decode(&told.encode()), Ok(told));
        }

        #[test]
        fn a_broken_answer_is_refused_without_panic(cut in 0..400usize, at in 0..400usize, byte: u8) {
            let mut bytes = tell(vec![tree("why", 3)], None).encode();
            bytes.truncate(bytes.len().saturating_sub(cut));
            if let Some(b) = bytes.get_mut(at) {
                *b = byte;
            }
            let _ = Message::decode(&bytes);
        }
    }

    #[test]
    fn what_is_beyond_a_cap_is_refused() {
        let many = vec![tree("", 0); MAX_TREES + 1];
        assert!(Message::decode(&tell(many, None).encode()).is_err());
        assert!(Message::decode(&tell(vec![tree("", MAX_LOG as u64 + 1)], None).encode()).is_err());
        let long = ReleaseBytes {
            header: vec![0; MAX_HEADER_BYTES + 1],
            signature: Vec::new(),
        };

        assert!(Message::decode(&tell(Vec::new(), Some(long)).encode()).is_err());
        let largest = ReleaseBytes {
            header: vec![0; MAX_HEADER_BYTES],
            signature: vec![0; MAX_SIGNATURE],
        };

        assert!(Message::decode(&tell(Vec::new(), Some(largest)).encode()).is_ok());
    }

    #[test]
    fn what_a_host_says_cannot_drive_a_terminal() {
        let mut evil = tree("no\x1b[31m way", 1);
        evil.work
            .iter_mut()
            .for_each(|w| w.word = "\x1b[2J".to_string());
        evil.releases[0].key = Some("\x07".to_string());
        let Ok(Message::Tell(back)) = Message::decode(&tell(vec![evil], None).encode()) else {
            panic!("decodes")
        };

        let tree = &back.trees[0];
        assert_eq!(
            tree.trouble.as_ref().map(|t| t.text.as_str()),
            Some("no\\u{1b}[31m way")
        );
        assert_eq!(
            tree.work.as_ref().map(|w| w.word.as_str()),
            Some("\\u{1b}[2J")
        );

        assert_eq!(tree.releases[0].key.as_deref(), Some("\\u{7}"));
    }
}
