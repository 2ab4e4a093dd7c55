//! Answers to queries about this host's trees: releases, read from disk on a separate thread, and
//! the last failures.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::managed::ManagedTree;
use super::shared::LocalHost;
use super::staleness::{self, StaleWarnings};
use crate::drive::clock;
use crate::error::{Error, Kind, Result};
use crate::id::{HostName, Serial, TreeName};
use crate::keys::Fingerprint;
use crate::net::Waker;
use crate::proto::receiver::{HostNotice, Receiver};
use crate::tree::KeptRelease;
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{MAX_MESSAGE_TREES, MAX_TEXT};
use crate::wire::query::{
    FullRelease, MAX_ANSWER_CHARS, MAX_ANSWER_PARTS, MAX_ANSWER_RELEASES, MAX_ANSWER_TARGETS,
    MAX_ANSWER_TOMBSTONES, PartRelease, Query, QueryAnswer, ReleaseBytes, ReleaseReport,
    TreeActivity, TreeReport, Trouble,
};

/// Largest number of queries queued for the thread; more are dropped, and sent again by their
/// senders.
const MAX_QUEUED_QUERIES: usize = 16;

/// Trouble reported for interrupted checks after a commit.
const CUT_SHORT: &str =
    "its checks after the commit were cut short: the next deploy runs them again";

/// Answers queries.
#[derive(Debug)]
pub(super) struct QueryAnswers {
    name: HostName,
    host: Arc<LocalHost>,
    troubles: HashMap<TreeName, PastTrouble>,
    /// `None` once the thread has to end.
    questions: Option<SyncSender<QueryTask>>,
    /// Time of the next check for stale releases.
    look: Moment,
    answers: Inbox<(SocketAddr, QueryAnswer)>,
    thread: Option<JoinHandle<()>>,
}

/// A past failure.
#[derive(Debug)]
struct PastTrouble {
    serial: Serial,
    at: Moment,
    text: String,
    /// True if the release was proven to be legitimate.
    proven: bool,
}

/// Work for the thread.
#[derive(Debug)]
enum QueryTask {
    Answer(TreeQuery),
    /// Log stale releases.
    Look(Moment),
}

/// A query with the machine's state of each tree.
#[derive(Debug)]
struct TreeQuery {
    from: SocketAddr,
    at: Moment,
    ask: Query,
    trees: Vec<(TreeName, Option<TreeActivity>, Option<Trouble>)>,
}

impl QueryAnswers {
    /// Answers for the host `name`; calls `waker` when an answer is ready.
    pub(super) fn new(name: HostName, host: Arc<LocalHost>, waker: Waker) -> Result<Self> {
        let (questions, inbox) = sync_channel(MAX_QUEUED_QUERIES);
        let (outbox, answers) = channel();
        let reader = QueryReader {
            name: name.clone(),
            host: Arc::clone(&host),
            outbox,
            waker,
        };

        let thread = std::thread::Builder::new()
            .name("answers".into())
            .spawn(move || reader.run(&inbox))
            .map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;
        let questions = Some(questions);
        let thread = Some(thread);

        Ok(Self {
            name,
            host,
            troubles: HashMap::new(),
            questions,
            look: Moment(0),
            answers,
            thread,
        })
    }

    /// Records a failure, and forgets the past one after a commit.
    pub(super) fn note(&mut self, now: Moment, notice: &HostNotice) {
        let HostNotice::Stage {
            tree,
            serial,
            stage,
            text,
            proven,
            ..
        } = notice
        else {
            return;
        };

        // A failure that anyone can cause must not hide the failure of a legitimate release.
        if !proven && self.troubles.get(tree).is_some_and(|past| past.proven) {
            return;
        }

        match (stage, text) {
            (HostStage::Committed, _) => drop(self.troubles.remove(tree)),
            (
                HostStage::Refused
                | HostStage::Failed
                | HostStage::Unhealthy
                | HostStage::Reverted
                | HostStage::Stuck,
                Some(text),
            ) if self.host.trees.get(tree).is_some() => {
                let text = text.chars().take(MAX_TEXT).collect();
                self.troubles.insert(
                    tree.clone(),
                    PastTrouble {
                        serial: *serial,
                        at: now,
                        text,
                        proven: *proven,
                    },
                );
            }
            _ => {}
        }
    }

    /// Queues new queries and sends finished answers.
    pub(super) fn work(&mut self, now: Moment, machine: &mut Receiver) {
        if self.look <= now && self.queue(QueryTask::Look(now)) {
            self.look = now + staleness::AGE_CHECK_INTERVAL;
        }

        while let Some((from, ask)) = machine.poll_query(now) {
            let question = TreeQuery {
                from,
                at: now,
                trees: self.known(now, machine, &ask),
                ask,
            };
            // The thread is behind: drop the query.
            if !self.queue(QueryTask::Answer(question)) {
                tracing::debug!(
                    "{}: a question from {from} is not answered: there are too many",
                    self.name
                );
            }
        }

        while let Ok((to, tell)) = self.answers.try_recv() {
            machine.answer(to, tell);
        }
    }

    fn queue(&self, task: QueryTask) -> bool {
        self.questions
            .as_ref()
            .is_some_and(|thread| thread.try_send(task).is_ok())
    }

    /// Release and reason of a tree that cannot be served or is torn.
    fn broken(&self, tree: &TreeName) -> Option<(Serial, String)> {
        match self.host.trees.get(tree) {
            Some(managed) => managed.tree.torn(),
            None => self
                .host
                .trees
                .broken(tree)
                .map(|why| (Serial::default(), why)),
        }
    }

    fn known(
        &self,
        now: Moment,
        machine: &Receiver,
        ask: &Query,
    ) -> Vec<(TreeName, Option<TreeActivity>, Option<Trouble>)> {
        let mut names: Vec<&TreeName> = match &ask.tree {
            Some(tree) => self
                .host
                .trees
                .names()
                .filter(|name| *name == tree)
                .collect(),
            None => self.host.trees.names().collect(),
        };

        names.sort();
        names.truncate(MAX_MESSAGE_TREES);
        let room = MAX_ANSWER_CHARS / names.len().max(1);
        let trouble = |tree: &TreeName| {
            if let Some((serial, why)) = self.broken(tree) {
                return Some(Trouble {
                    serial,
                    age: 0,
                    text: why.chars().take(room).collect(),
                });
            }
            let PastTrouble {
                serial, at, text, ..
            } = self.troubles.get(tree)?;
            let text = text.chars().take(room).collect();
            Some(Trouble {
                serial: *serial,
                age: now.since(*at).as_secs(),
                text,
            })
        };

        names
            .into_iter()
            .map(|tree| (tree.clone(), machine.work_on(tree), trouble(tree)))
            .collect()
    }
}

impl Drop for QueryAnswers {
    /// Ends the thread, which holds the trees, before others open them again.
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads answers from disk.
struct QueryReader {
    name: HostName,
    host: Arc<LocalHost>,
    outbox: Outbox<(SocketAddr, QueryAnswer)>,
    waker: Waker,
}

impl QueryReader {
    fn run(&self, inbox: &Inbox<QueryTask>) {
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
            let answer = self.answer(question);
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
        let TreeQuery { ask, trees, .. } = question;
        let release = ask
            .tree
            .as_ref()
            .zip(ask.serial)
            .and_then(|(tree, serial)| self.bytes_of(tree, serial));

        let trees = trees.into_iter().map(|(name, work, trouble)| {
            let Some(managed) = self.host.trees.get(&name) else {
                return TreeReport {
                    trouble,
                    ..unavailable(name)
                };
            };
            // A query for one release does not ask for the list.
            let list = ask.tree.is_some() && ask.serial.is_none();
            tree_told(managed, list, work, trouble)
        });

        QueryAnswer {
            number: ask.number,
            host: self.name.clone(),
            trees: trees.collect(),
            release,
        }
    }

    fn bytes_of(&self, tree: &TreeName, serial: Serial) -> Option<ReleaseBytes> {
        let stored = match self.host.trees.get(tree)?.tree.release(serial) {
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

/// Answer for a tree that cannot be served.
fn unavailable(tree: TreeName) -> TreeReport {
    TreeReport {
        tree,
        release: None,
        tombstones: None,
        running: None,
        highest: Serial::default(),
        work: None,
        trouble: None,
        releases: Vec::new(),
        stale: None,
        drifted: None,
        sent: None,
        parts_only: false,
        base: None,
        targets: None,
        parts: None,
        shown: None,
    }
}

fn tree_told(
    managed: &ManagedTree,
    list: bool,
    work: Option<TreeActivity>,
    trouble: Option<Trouble>,
) -> TreeReport {
    let tree = &managed.tree;
    let unreadable = |e: Error| {
        tracing::debug!(
            "tree {}: its state is asked for and cannot be read: {e}",
            tree.name()
        )
    };

    let running = tree.current().map_err(unreadable).ok().flatten();
    // A failure from before the daemon's start is stored with the tree.
    let trouble = trouble.or_else(|| {
        let running = running.as_ref().filter(|_| work.is_none())?;
        let failed = tree.state().unhealthy(running.release.id())?;
        let age = tree.state().unhealthy_for(clock::wall()).as_secs();
        let text = if failed.text.is_empty() {
            CUT_SHORT.to_string()
        } else {
            failed.text
        };
        Some(Trouble {
            serial: failed.mark.serial,
            age,
            text,
        })
    });

    let runs_part = running
        .as_ref()
        .is_some_and(|stored| !stored.release.header().is_whole());
    let targets = running
        .as_ref()
        .filter(|_| runs_part)
        .map(|stored| stored.release.header().targets.clone());

    let targets = targets.filter(|list| (1..=MAX_ANSWER_TARGETS).contains(&list.len()));
    let parts = if runs_part {
        tree.parts(MAX_ANSWER_PARTS)
            .map_err(unreadable)
            .unwrap_or_default()
    } else {
        Vec::new()
    };

    let parts = parts
        .into_iter()
        .map(|(serial, replaced)| PartRelease { serial, replaced })
        .collect();
    let base = tree
        .base()
        .map_err(unreadable)
        .ok()
        .flatten()
        .map(|(serial, content)| FullRelease { serial, content });

    let kept = if list {
        tree.kept().map_err(unreadable).unwrap_or_default()
    } else {
        Vec::new()
    };

    let stones = tree
        .state()
        .tombstones()
        .map_err(unreadable)
        .unwrap_or_default();

    let shown = running
        .as_ref()
        .filter(|_| list)
        .map(|stored| ReleaseBytes {
            header: stored.release.bytes().to_vec(),
            signature: stored.signature.clone(),
        });

    TreeReport {
        shown,
        tree: tree.name().clone(),
        release: running.as_ref().map(|stored| stored.release.id()),
        tombstones: Some(
            stones
                .into_iter()
                .map(|buried| buried.stone)
                .take(MAX_ANSWER_TOMBSTONES)
                .collect(),
        ),
        running: running.map(|stored| stored.release.header().serial),
        highest: tree.highest_serial().ok().flatten().unwrap_or_default(),
        work,
        trouble,
        releases: kept
            .into_iter()
            .take(MAX_ANSWER_RELEASES)
            .map(release_told)
            .collect(),
        stale: staleness::stale(managed, clock::wall_seconds()),
        drifted: managed.drift_counts.counts(),
        sent: tree.state().sent().ok().flatten().map(|mark| mark.serial),
        parts_only: runs_part && base.is_none(),
        base,
        targets,
        parts: Some(parts),
    }
}

fn release_told(kept: KeptRelease) -> ReleaseReport {
    let KeptRelease {
        serial,
        id,
        created,
        key,
        entries,
        bytes,
        content,
        part,
        running,
    } = kept;

    let key = key.map(|key: Fingerprint| key.to_string());
    ReleaseReport {
        serial,
        id,
        created,
        key,
        entries,
        bytes: bytes.0,
        running,
        content: Some(content),
        part,
    }
}
