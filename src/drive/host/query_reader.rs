//! The thread that reads answers to queries from disk, and warns of stale releases.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox};

use super::answer_size;
use super::machine_report::{machine_report, shortened_to};
use super::shared::LocalHost;
use super::staleness::{self, StaleWarnings};
use super::tree_report::tree_report;
use crate::drive::clock;
use crate::id::{HostName, Serial, TreeName};
use crate::net::Waker;
use crate::units::Moment;
use crate::wire::machine::LinkReport;
use crate::wire::query::{Query, QueryAnswer, ReleaseBytes, TreeActivity, TreeReport, Trouble};

/// Work for the thread.
#[derive(Debug)]
pub(super) enum QueryTask {
    Answer(TreeQuery),
    /// Log stale releases.
    Look(Moment),
}

/// A query with the machine's state of each tree.
#[derive(Debug)]
pub(super) struct TreeQuery {
    pub(super) from: SocketAddr,
    pub(super) at: Moment,
    pub(super) ask: Query,
    pub(super) trees: Vec<(TreeName, Option<TreeActivity>, Option<Trouble>)>,
    pub(super) links: Vec<LinkReport>,
}

/// Reads answers from disk.
pub(super) struct QueryReader {
    pub(super) name: HostName,
    pub(super) host: Arc<LocalHost>,
    pub(super) outbox: Outbox<(SocketAddr, QueryAnswer)>,
    pub(super) waker: Waker,
}

impl QueryReader {
    /// Works on the tasks in `inbox` until its other end is dropped.
    pub(super) fn run(&self, inbox: &Inbox<QueryTask>) {
        let mut stale_warnings = StaleWarnings::default();
        while let Ok(task) = inbox.recv() {
            let question = match task {
                QueryTask::Answer(question) => question,
                QueryTask::Look(now) => {
                    self.host.trees.iter().for_each(|(name, managed)| {
                        stale_warnings.on_check(
                            now,
                            name,
                            staleness::stale(managed, clock::wall_seconds()),
                        );
                    });
                    continue;
                }
            };

            let from = question.from;
            let at = question.at;
            let answer = answer_size::fitted(self.answer(question));
            answer
                .trees
                .iter()
                .for_each(|told| stale_warnings.on_query(at, &told.tree, told.stale));

            if self.outbox.send((from, answer)).is_err() {
                return;
            }
            self.waker.wake();
        }
    }

    fn answer(&self, question: TreeQuery) -> QueryAnswer {
        let TreeQuery {
            ask, trees, links, ..
        } = question;
        // The report shows what the order changed.
        let followed = ask.order.as_ref().map(|order| self.host.follow_hold(order));
        let release = ask
            .tree
            .as_ref()
            .zip(ask.serial)
            .and_then(|(tree, serial)| self.bytes_of(tree, serial));

        let machine = (ask.machine == Some(true)).then(|| machine_report(&self.host, links));
        let trees = trees.into_iter().map(|(name, work, trouble)| {
            let Some(managed) = self.host.trees.get(&name) else {
                return TreeReport {
                    trouble,
                    ..TreeReport::nothing(name)
                };
            };
            // A query for one release does not ask for the list.
            let list = ask.tree.is_some() && ask.serial.is_none();
            tree_report(managed, list, work, trouble)
        });

        QueryAnswer {
            number: ask.number,
            host: self.name.clone(),
            trees: trees.collect(),
            release,
            labels: Some(self.host.labels()).filter(|labels| !labels.is_empty()),
            machine: machine.and_then(|report| shortened_to(ask.padding.len(), report)),
            followed: followed.as_ref().map(Result::is_ok),
            refusal: followed.and_then(Result::err),
        }
    }

    fn bytes_of(&self, tree: &TreeName, serial: Serial) -> Option<ReleaseBytes> {
        let tree_there = &self.host.trees.get(tree)?.tree;
        // A staged release is the one that a commit asks for.
        let staged = tree_there.awaiting().ok().flatten();
        let staged = staged.filter(|found| found.serial() == serial);
        let stored = match staged {
            Some(found) => Ok(Some(found.stored)),
            None => tree_there.release(serial),
        };
        let stored = match stored {
            Ok(stored) => stored?,
            Err(e) => {
                tracing::warn!(
                    "tree {tree}: release {serial} is asked for and cannot be read: {e}"
                );
                return None;
            }
        };

        Some(ReleaseBytes {
            header: stored.release.bytes().to_vec(),
            signature: stored.signature,
        })
    }
}
