//! What a host tells those who ask what it has: releases from its disk, read on a thread of their own, and what went
//! wrong last.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, Sender as Outbox, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::ages::{self, Ages};
use super::clock;
use super::disk::{Host, ManagedTree};
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

/// Questions that the thread has not come to; beyond it they are dropped, and asked again.
const QUEUE: usize = 16;

/// What is told of checks after a commit that never ended.
const CUT_SHORT: &str =
    "its checks after the commit were cut short: the next deploy runs them again";

/// Answers questions.
#[derive(Debug)]
pub(super) struct Answers {
    name: HostName,
    host: Arc<Host>,
    troubles: HashMap<TreeName, Past>,
    /// `None` once the thread is to end.
    questions: Option<SyncSender<Task>>,
    /// When the ages of releases are looked at next, whoever asks.
    look: Moment,
    answers: Inbox<(SocketAddr, QueryAnswer)>,
    thread: Option<JoinHandle<()>>,
}

/// What went wrong, and when.
#[derive(Debug)]
struct Past {
    serial: Serial,
    at: Moment,
    text: String,
    /// Whether the release was rightful.
    proven: bool,
}

/// What the thread has to do.
#[derive(Debug)]
enum Task {
    Answer(Question),
    /// Say which releases are too old.
    Look(Moment),
}

/// A question with what the network's thread knows about it.
#[derive(Debug)]
struct Question {
    from: SocketAddr,
    at: Moment,
    ask: Query,
    trees: Vec<(TreeName, Option<TreeActivity>, Option<Trouble>)>,
}

impl Answers {
    /// For the host `name`; `waker` is called when an answer is ready.
    pub(super) fn new(name: HostName, host: Arc<Host>, waker: Waker) -> Result<Self> {
        let (questions, inbox) = sync_channel(QUEUE);
        let (outbox, answers) = channel();
        let reader = Reader {
            name: name.clone(),
            host: Arc::clone(&host),
            outbox,
            waker,
        };

        let thread = std::thread::Builder::new()
            .name("answers".into())
            .spawn(move || reader.run(&inbox))
            .map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?;
        let (questions, thread) = (Some(questions), Some(thread));

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

    /// Takes note of what went wrong, and of what went well after it.
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

        // What anybody can cause may not hide what went wrong with a rightful release.
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
                    Past {
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

    /// Hands on what is asked, and answers what the thread is done with.
    pub(super) fn work(&mut self, now: Moment, machine: &mut Receiver) {
        if self.look <= now && self.hand(Task::Look(now)) {
            self.look = now + ages::EVERY;
        }

        while let Some((from, ask)) = machine.poll_query(now) {
            let question = Question {
                from,
                at: now,
                trees: self.known(now, machine, &ask),
                ask,
            };
            // A thread that is behind has enough to do.
            if !self.hand(Task::Answer(question)) {
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

    fn hand(&self, task: Task) -> bool {
        self.questions
            .as_ref()
            .is_some_and(|thread| thread.try_send(task).is_ok())
    }

    /// Why the tree cannot be served, or is part new, part old; and with which release.
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
            let Past {
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

impl Drop for Answers {
    /// The thread holds the trees, which somebody may want to open again.
    fn drop(&mut self) {
        self.questions = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Reads what is asked from the disk.
struct Reader {
    name: HostName,
    host: Arc<Host>,
    outbox: Outbox<(SocketAddr, QueryAnswer)>,
    waker: Waker,
}

impl Reader {
    fn run(&self, inbox: &Inbox<Task>) {
        let mut ages = Ages::default();
        while let Ok(task) = inbox.recv() {
            let question = match task {
                Task::Answer(question) => question,
                Task::Look(now) => {
                    self.host.trees.iter().for_each(|(name, managed)| {
                        ages.looked(now, name, ages::stale(managed, clock::wall_seconds()));
                    });
                    continue;
                }
            };
            let (from, at) = (question.from, question.at);
            let answer = self.answer(question);
            answer
                .trees
                .iter()
                .for_each(|told| ages.asked(at, &told.tree, told.stale));
            if self.outbox.send((from, answer)).is_err() {
                return;
            }
            self.waker.wake();
        }
    }

    fn answer(&self, question: Question) -> QueryAnswer {
        let Question { ask, trees, .. } = question;
        let release = ask
            .tree
            .as_ref()
            .zip(ask.serial)
            .and_then(|(tree, serial)| self.bytes_of(tree, serial));

        let trees = trees.into_iter().map(|(name, work, trouble)| {
            let Some(managed) = self.host.trees.get(&name) else {
                return TreeReport {
                    trouble,
                    ..nothing(name)
                };
            };
            // One release was asked for: not the list of them.
            let list = ask.tree.is_some() && ask.serial.is_none();
            told(managed, list, work, trouble)
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

/// What is told of a tree that cannot be served.
fn nothing(tree: TreeName) -> TreeReport {
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

fn told(
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
    // What went wrong before the daemon was started is kept with the tree.
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
        stale: ages::stale(managed, clock::wall_seconds()),
        drifted: managed.inspections.told(),
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
