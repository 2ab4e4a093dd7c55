//! Bytes that a pull holds, whatever it pulls: a bound by counts.

use std::collections::HashMap;

use super::budgets::setup;
use super::host::Borrowed;
use super::publisher::Publisher;
use super::site::{Files, Site, many_files, noise};
use super::store::{MemoryStore, NOW, keys, www};
use crate::block::BlockRef;
use crate::manifest::fixtures::MemoryNodes;
use crate::repository::attempt::RequestId;
use crate::repository::fetch::PART_BYTES;
use crate::repository::object::GetReply;
use crate::repository::pull::{PullStep, RepositoryPull};
use crate::units::Moment;

/// Bytes of blocks from which the reader has enough, and from which it asks for no others while
/// the next one is on its way, as in a host.
const ENOUGH_BYTES: usize = 4 << 20;
const MANY_BYTES: usize = 12 << 20;
/// Three requests, the last of which begins with two under way, and their last pieces.
const MOST_BYTES: usize = MANY_BYTES + 3 * PART_BYTES as usize + (2 << 20);

/// A reader of blocks that is slower than its store.
struct SlowReader {
    machine: RepositoryPull,
    waiting: Vec<(RequestId, std::vec::IntoIter<GetReply>)>,
    nodes: MemoryNodes,
    /// Sizes of the blocks that came and were not read.
    shelf: HashMap<u64, usize>,
    next: u64,
    end: u64,
    /// One answer of the store is slower than all others.
    stalls: bool,
    /// The most bytes in the machine and on the shelf.
    most: usize,
}

impl SlowReader {
    fn shelved(&self) -> usize {
        self.shelf.values().sum()
    }

    /// Reads all blocks in order; replies come in random turns.
    fn run(&mut self, store: &mut MemoryStore) {
        loop {
            let has_next = self.shelf.contains_key(&self.next);
            let is_full = has_next && self.shelved() > ENOUGH_BYTES;
            let is_overdue = !has_next && self.shelved() > MANY_BYTES;
            let held = is_full || is_overdue && self.machine.is_coming(self.next);
            self.machine.hold(held);
            match self.machine.poll(Moment(1)) {
                PullStep::Get(id, get) => self.waiting.push((id, store.get(&get).into_iter())),
                PullStep::Head(signed) => {
                    let head = signed.verify(&www(), &keys(), None, NOW).expect("signed");
                    self.machine.follow(&head, None);
                }
                PullStep::Record(record) => {
                    let root = record.release.header().root;
                    (self.next, self.end) = (root.nodes, root.nodes + root.blocks);
                }
                PullStep::Node(block, bytes) => {
                    self.nodes.0.insert(block.hash, bytes.into());
                }
                PullStep::Walk => {
                    let nodes = &self.nodes;
                    let is_here = |block: &BlockRef| nodes.0.contains_key(&block.hash);
                    let walked = self.machine.walk(&Borrowed(nodes), is_here);
                    walked.expect("a legal manifest");
                }
                PullStep::Complete => self.machine.want([self.next..self.end]),
                PullStep::Block(ordinal, _, bytes) => {
                    self.shelf.insert(ordinal.0, bytes.len());
                }
                PullStep::Wait(_) if is_full || self.waiting.is_empty() => self.read(),
                PullStep::Wait(_) => self.take_reply(store),
                PullStep::Done => break,
                other => panic!("{other:?}"),
            }
            self.most = self.most.max(self.machine.held() + self.shelved());
        }
        while self.next < self.end {
            self.read();
        }
    }

    fn read(&mut self) {
        self.shelf.remove(&self.next).expect("it came");
        self.next += 1;
    }

    fn take_reply(&mut self, store: &mut MemoryStore) {
        let slow = usize::from(self.stalls && self.waiting.len() > 1);
        let which = slow + store.rng.usize(..self.waiting.len() - slow);
        let (id, replies) = &mut self.waiting[which];
        let (id, reply) = (*id, replies.next().expect("the last one ends it"));
        if replies.len() == 0 {
            self.waiting.remove(which);
        }
        self.machine.reply(id, reply, Moment(1));
    }
}

/// The most bytes that a pull of `files` holds.
fn most_held(files: &Files, stalls: bool, seed: u64) -> usize {
    let mut store = MemoryStore {
        rng: fastrand::Rng::with_seed(seed),
        ..MemoryStore::default()
    };
    let published = Publisher::new(&Site::new(files), setup()).run(&mut store);
    published.expect("published");

    let mut reader = SlowReader {
        machine: RepositoryPull::new(www(), None, seed),
        waiting: Vec::new(),
        nodes: MemoryNodes::default(),
        shelf: HashMap::new(),
        next: 0,
        end: 0,
        stalls,
        most: 0,
    };
    reader.run(&mut store);
    reader.most
}

#[test]
fn a_pull_holds_no_more_of_a_larger_tree() {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut one = |size: usize| Files::from([("large".to_string(), noise(&mut rng, size << 20))]);
    let large = [one(60), one(120)];
    let mut rng = fastrand::Rng::with_seed(2);
    let small = many_files(&mut rng, 4_000, 16 << 10);

    for stalls in [false, true] {
        for (seed, files) in (1..).zip(large.iter().chain([&small])) {
            let most = most_held(files, stalls, seed);
            let what = format!("{} files, seed {seed}, stalls: {stalls}", files.len());
            println!("{what}: at most {} KiB", most >> 10);
            assert!(most <= MOST_BYTES, "{what}: {most} bytes");
            // Otherwise the store is not asked ahead.
            assert!(most > 4 << 20, "{what}: {most} bytes");
        }
    }
}
