//! Access to a running host from other threads of the process.

use std::sync::Arc;
use std::sync::mpsc::{Sender as Outbox, channel};
use std::time::Duration;

use super::observation::{TreeObservation, TreeSight, observe};
use super::shared::LocalHost;
use crate::id::{InstanceId, Labels, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, GroupKey};
use crate::manifest::Release;
use crate::net::Waker;
use crate::outcome::{MemberInfo, Stranger};
use crate::tree::Tree;

/// Timeout for an answer of the host's loop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// Commands from other threads to a running host.
#[derive(Debug)]
pub enum HostCommand {
    /// Return the known members.
    Members(Outbox<Vec<MemberInfo>>),
    /// Return the peers whose datagrams do not open.
    Strangers(Outbox<Vec<Stranger>>),
    /// Seal with the first of these keys from now on and open with all.
    Rekey(Vec<GroupKey>),
    /// Return the number of sessions.
    Sessions(Outbox<usize>),
    /// Return whether no session holds the tree.
    Idle(TreeName, Outbox<bool>),
    /// Take no part in this session, which is sent by this process.
    Ignore(SessionId, Outbox<()>),
    /// Note that a release of this host's own tree was sent: the tree has its content and need not
    /// catch up. Answers when noted.
    Sent(Release, Outbox<()>),
    /// Return what the loop knows of each tree.
    Observe(Outbox<Vec<TreeSight>>),
    /// Record the states of the trees again.
    Changed,
    /// Tell other labels from now on.
    Labels(Labels),
    /// Serve a tree opened late or repaired.
    Opened(TreeName),
    /// Return the hosts among these that were first heard a moment ago, so that they may still
    /// catch up.
    New(Vec<InstanceId>, Outbox<Vec<InstanceId>>),
    /// Say goodbye and end.
    Stop,
}

/// Controls a running host from other threads.
#[derive(Debug, Clone)]
pub struct HostHandle {
    commands: Outbox<HostCommand>,
    waker: Waker,
    instance: InstanceId,
    host: Arc<LocalHost>,
}

impl HostHandle {
    /// Sends into `commands` and wakes the loop by `waker`.
    pub(super) fn new(
        commands: Outbox<HostCommand>,
        waker: Waker,
        instance: InstanceId,
        host: Arc<LocalHost>,
    ) -> Self {
        Self {
            commands,
            waker,
            instance,
            host,
        }
    }

    /// Keys authorized on this host.
    pub fn keys(&self) -> Arc<AuthorizedKeys> {
        self.host.keys()
    }

    /// Instance of the running host.
    pub fn instance(&self) -> InstanceId {
        self.instance
    }

    /// Number of sessions that the host takes part in; 0 if the host is ending.
    pub fn sessions(&self) -> usize {
        let (answer, inbox) = channel();
        self.send(HostCommand::Sessions(answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
    }

    /// Returns whether no session of the host holds `tree`, or the host is ending.
    pub fn is_idle(&self, tree: &TreeName) -> bool {
        let (answer, inbox) = channel();
        self.send(HostCommand::Idle(tree.clone(), answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).unwrap_or(true)
    }

    /// Returns whether the host's loop still answers.
    pub fn is_alive(&self) -> bool {
        let (answer, inbox) = channel();
        self.send(HostCommand::Sessions(answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).is_ok()
    }

    /// Keeps the host out of `session`, which this process sends from the host's own tree.
    pub fn ignore(&self, session: SessionId) {
        let (answer, inbox) = channel();
        self.send(HostCommand::Ignore(session, answer));
        // An ending host joins no session anyway.
        let _ = inbox.recv_timeout(ANSWER_TIMEOUT);
    }

    /// Notes a release that this process makes of the host's own tree, so that the host does not
    /// catch up with it.
    pub fn sent(&self, release: &Release) {
        let (answer, inbox) = channel();
        self.send(HostCommand::Sent(release.clone(), answer));
        let _ = inbox.recv_timeout(ANSWER_TIMEOUT);
    }

    /// The host's own tree of this name.
    pub fn tree(&self, name: &TreeName) -> Option<Arc<Tree>> {
        Some(Arc::clone(&self.host.trees.get(name)?.tree))
    }

    /// Serves a tree opened late or repaired.
    pub fn opened(&self, tree: &TreeName) {
        self.send(HostCommand::Opened(tree.clone()));
    }

    /// The host itself.
    pub fn host(&self) -> &Arc<LocalHost> {
        &self.host
    }

    /// Observes every tree; blocks while the loop of the host is busy. `None` if it does not
    /// answer.
    pub fn observe(&self) -> Option<Vec<TreeObservation>> {
        let (answer, inbox) = channel();
        self.send(HostCommand::Observe(answer));
        let sights = inbox.recv_timeout(ANSWER_TIMEOUT).ok()?;
        Some(sights.into_iter().map(|s| observe(&self.host, s)).collect())
    }

    /// Refreshes the states after a tree changed without a session.
    pub fn changed(&self) {
        self.send(HostCommand::Changed);
    }

    /// Returns those of `hosts` that were first heard a moment ago or not at all; all of them if
    /// the host does not answer.
    pub fn new_ones(&self, hosts: Vec<InstanceId>) -> Vec<InstanceId> {
        let (answer, inbox) = channel();
        self.send(HostCommand::New(hosts.clone(), answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).unwrap_or(hosts)
    }

    /// Members known to the host; empty if the host is ending.
    pub fn members(&self) -> Vec<MemberInfo> {
        let (answer, inbox) = channel();
        self.send(HostCommand::Members(answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
    }

    /// Peers without a common group key; empty if the host is ending.
    pub fn strangers(&self) -> Vec<Stranger> {
        let (answer, inbox) = channel();
        self.send(HostCommand::Strangers(answer));
        inbox.recv_timeout(ANSWER_TIMEOUT).unwrap_or_default()
    }

    /// Seals with the first of `keys` from now on, and opens with all of them.
    pub fn rekey(&self, keys: Vec<GroupKey>) {
        self.send(HostCommand::Rekey(keys));
    }

    /// Has other labels from now on.
    pub fn set_labels(&self, labels: Labels) {
        self.host.set_labels(labels.clone());
        self.send(HostCommand::Labels(labels));
    }

    /// Ends the host.
    pub fn stop(&self) {
        self.send(HostCommand::Stop);
    }

    fn send(&self, command: HostCommand) {
        // A host that has ended needs no command.
        let _ = self.commands.send(command);
        self.waker.wake();
    }
}
