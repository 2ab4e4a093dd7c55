//! A far store: each answer comes a round trip later, over one line.

use std::collections::VecDeque;
use std::time::Duration;

use super::budgets::setup;
use super::host::{Host, wants};
use super::publisher::Publisher;
use super::site::{Files, Site, noise};
use super::store::{MemoryStore, keys, www};
use crate::block::BlockRef;
use crate::repository::attempt::RequestId;
use crate::repository::object::GetReply;
use crate::repository::pull::{PullStep, RepositoryPull};
use crate::units::Moment;

const ROUND_TRIP: Duration = Duration::from_millis(50);
/// Bytes a second of the line, and bytes that it carries at once.
const LINE: u64 = 250_000_000;
const PIECE_BYTES: usize = 64 << 10;

/// Answers on their way.
#[derive(Default)]
struct Line {
    now: Moment,
    answers: VecDeque<Answer>,
    /// The most answers with bytes to come.
    most: usize,
}

struct Answer {
    id: RequestId,
    /// Time of its first byte.
    begins: Moment,
    replies: VecDeque<GetReply>,
}

impl Line {
    fn ask(&mut self, id: RequestId, replies: Vec<GetReply>) {
        let small = replies.into_iter().flat_map(|reply| match reply {
            GetReply::Bytes(bytes) => bytes
                .chunks(PIECE_BYTES)
                .map(|piece| GetReply::Bytes(piece.to_vec()))
                .collect(),
            last => vec![last],
        });
        self.answers.push_back(Answer {
            id,
            begins: self.now + ROUND_TRIP,
            replies: small.collect(),
        });
        self.most = self.most.max(self.answers.len());
    }

    /// Delivers the next reply; all answers share the line.
    fn next(&mut self) -> (RequestId, GetReply) {
        let first = self.answers.iter().map(|answer| answer.begins).min();
        self.now = self.now.max(first.expect("something is under way"));
        let at = self
            .answers
            .iter()
            .position(|answer| answer.begins <= self.now);
        let at = at.expect("one has begun");
        let mut answer = self.answers.remove(at).expect("there");
        let reply = answer.replies.pop_front().expect("the last one ends it");
        if let GetReply::Bytes(bytes) = &reply {
            let time = bytes.len() as u64 * 1_000_000_000 / LINE;
            self.now = self.now + Duration::from_nanos(time);
        }

        let id = answer.id;
        if !answer.replies.is_empty() {
            self.answers.push_back(answer);
        }
        (id, reply)
    }
}

#[test]
fn a_far_store_costs_a_first_pull_few_round_trips() {
    let mut rng = fastrand::Rng::with_seed(9);
    let files: Files = (0..6)
        .map(|n| (format!("file{n}"), noise(&mut rng, 16 << 20)))
        .collect();
    let mut store = MemoryStore::default();
    let site = Site::new(&files);
    let done = Publisher::new(&site, setup()).run(&mut store);
    done.expect("published");

    let (mut host, mut line) = (Host::new(), Line::default());
    let mut machine = RepositoryPull::new(www(), None, 1);
    loop {
        match machine.poll(line.now) {
            PullStep::Get(id, get) => line.ask(id, store.get(&get)),
            PullStep::Head(signed) => {
                let head = signed.verify(&www(), &keys(), None, store.now);
                machine.follow(&head.expect("signed"), None);
            }
            PullStep::Record(record) => host.pulled = Some(*record),
            PullStep::Node(block, bytes) => {
                host.nodes.0.insert(block.hash, bytes.into());
            }
            PullStep::Walk => {
                let nodes = &host.nodes;
                let is_here = |block: &BlockRef| nodes.0.contains_key(&block.hash);
                machine.walk(nodes, is_here).expect("a legal manifest");
            }
            PullStep::Complete => machine.want(wants(&host)),
            PullStep::Block(_, block, bytes) => {
                let again = host.blocks.insert(block.hash, bytes);
                assert!(again.is_none(), "a block came twice");
            }
            PullStep::Done => break,
            PullStep::Wait(_) => {
                let (id, reply) = line.next();
                machine.reply(id, reply, line.now);
            }
            other => panic!("{other:?}"),
        }
    }

    host.release = host.pulled.take();
    assert!(host.has(&site));
    let least = Duration::from_nanos(store.size() * 1_000_000_000 / LINE);
    let (time, round_trips) = (line.now.since(Moment(0)), 6);
    println!(
        "{time:?} for {least:?} of the line, {} answers at once",
        line.most
    );
    assert!(
        time <= least + round_trips * ROUND_TRIP,
        "{time:?}, {least:?}"
    );
    assert!((3..=4).contains(&line.most), "{} at once", line.most);
}
