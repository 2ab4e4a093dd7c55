//! Answers to queries about this host's trees: the last failures are known here, all else is read
//! from disk by `query_reader`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver as Inbox, SyncSender, channel, sync_channel};
use std::thread::JoinHandle;

use super::machine_report::link_reports;
use super::query_reader::{QueryReader, QueryTask, TreeQuery};
use super::shared::LocalHost;
use super::staleness;
use crate::error::{Error, Kind, Result};
use crate::id::{HostName, Serial, TreeName};
use crate::net::{LinkSet, Waker};
use crate::proto::receiver::{HostNotice, Receiver};
use crate::units::Moment;
use crate::wire::HostStage;
use crate::wire::message::{MAX_MESSAGE_TREES, MAX_TEXT};
use crate::wire::query::{MAX_ANSWER_CHARS, Query, QueryAnswer, TreeActivity, Trouble};

/// Largest number of queries queued for the thread; more are dropped, and sent again by their
/// senders.
const MAX_QUEUED_QUERIES: usize = 16;

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
            for_others,
            ..
        } = notice
        else {
            return;
        };

        // A failure that anyone can cause must not hide the failure of a legitimate release.
        if !proven && self.troubles.get(tree).is_some_and(|past| past.proven) {
            return;
        }

        // Of a session for other hosts this one has no failure.
        if *for_others {
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
    pub(super) fn work(&mut self, now: Moment, machine: &mut Receiver, links: &LinkSet) {
        if self.look <= now && self.queue(QueryTask::Look(now)) {
            self.look = now + staleness::AGE_CHECK_INTERVAL;
        }

        while let Some((from, ask)) = machine.poll_query(now) {
            let question = TreeQuery {
                from,
                at: now,
                trees: self.known(now, machine, &ask),
                links: match ask.machine {
                    Some(true) => link_reports(links),
                    Some(false) | None => Vec::new(),
                },
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
        let shortened = |trouble: Trouble| Trouble {
            text: trouble.text.chars().take(room).collect(),
            ..trouble
        };

        names
            .into_iter()
            .map(|tree| {
                let (trouble, _) = self.trouble(now, tree);
                let trouble = trouble.map(shortened);
                (tree.clone(), machine.work_on(tree), trouble)
            })
            .collect()
    }

    /// The trouble of a tree, and whether anything but a forged offer can be its cause.
    pub(super) fn trouble(&self, now: Moment, tree: &TreeName) -> (Option<Trouble>, bool) {
        if let Some((serial, text)) = self.broken(tree) {
            let age = 0;
            return (Some(Trouble { serial, age, text }), true);
        }

        let Some(past) = self.troubles.get(tree) else {
            return (None, false);
        };
        let trouble = Trouble {
            serial: past.serial,
            age: now.since(past.at).as_secs(),
            text: past.text.clone(),
        };
        (Some(trouble), past.proven)
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
