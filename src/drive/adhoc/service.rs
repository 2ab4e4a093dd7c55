//! The ad hoc service of a running host: releases and audits of own trees, and members.
//!
//! An ad hoc release is an ordinary release with the named paths as scope, signed by this host's
//! key. The host itself takes no part, since the source is the host's tree. Must not know the
//! interface: console and control socket bring an [`AdhocRequest`](super::AdhocRequest) and an
//! observer.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::queue::RequestQueue;
use crate::drive::clock::Clock;
use crate::drive::endpoint::GroupLinks;
use crate::drive::host::HostHandle;
use crate::drive::survey;
use crate::id::{HostName, TreeName};
use crate::keys::{GroupKey, Signer};
use crate::metrics::{SessionEnd, SessionRole};
use crate::outcome::{ExitStatus, MemberInfo, Outcome, Purpose, ReleaseLog, Standing};
use crate::spec::DEFAULT_TREE;
use crate::sync::locked;
use crate::tree::Root;
use crate::units::Rate;
use crate::wire::hold::HoldTerms;
use crate::{Error, Result};

/// Directory in a tree's state with the cache of sent files.
pub const SENT: &str = "sent";

/// Joins the group for one session.
pub type Dial = Box<dyn Fn() -> Result<GroupLinks> + Send + Sync>;

/// A tree to send from.
#[derive(Debug, Clone)]
pub struct SendTree {
    /// Name of the tree.
    pub name: TreeName,
    /// Directory of the tree.
    pub path: PathBuf,
    /// Directory opened at the host's start, for send-only trees.
    pub alone: Option<Arc<Root>>,
    /// Directory for the source's index between sessions.
    pub cache: Option<PathBuf>,
}

/// Settings for sending from this host.
pub struct SendSettings {
    /// Trees in the order of the configuration.
    pub trees: Vec<SendTree>,
    /// Whether the host may send at all.
    pub allowed: bool,
    /// Upper limit of the rate.
    pub rate: Option<Rate>,
    /// Numeric user; entries of other users, except directories, are not sent.
    pub owner: Option<u32>,
    /// Timeout for a silent host.
    pub timeout: Duration,
    /// Exclude hosts with another key than before.
    pub strict: bool,
    /// Joins the group, without keys.
    pub dial: Dial,
    /// Addresses of the host, which knows its peers.
    pub own: Vec<SocketAddr>,
}

/// The ad hoc service of a running host.
pub struct AdhocService {
    name: HostName,
    handle: HostHandle,
    sending: SendSettings,
    /// Signing key; replaced when the configuration is read again.
    signer: Mutex<Option<Arc<dyn Signer>>>,
    /// Keys to seal with; replaced in the same way.
    group_keys: Mutex<Vec<GroupKey>>,
    queue: RequestQueue,
}

impl std::fmt::Debug for AdhocService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdhocService")
            .field("name", &self.name)
            .field("trees", &self.sending.trees)
            .finish_non_exhaustive()
    }
}

impl AdhocService {
    /// The service of the host `name` behind `handle`.
    pub fn new(
        name: HostName,
        handle: HostHandle,
        sending: SendSettings,
        signer: Option<Arc<dyn Signer>>,
    ) -> Self {
        Self {
            name,
            handle,
            sending,
            signer: Mutex::new(signer),
            group_keys: Mutex::default(),
            queue: RequestQueue::default(),
        }
    }

    /// Name of this host.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// Holds `tree`, or all trees of this host; without terms a hold ends. Returns the trees.
    pub fn hold(&self, tree: Option<&TreeName>, terms: Option<HoldTerms>) -> Result<Vec<TreeName>> {
        self.handle.host().hold(tree, terms)
    }

    /// Trees to send from.
    pub fn trees(&self) -> &[SendTree] {
        &self.sending.trees
    }

    /// Settings for sending.
    pub(super) fn sending(&self) -> &SendSettings {
        &self.sending
    }

    /// Returns whether the host may send at all.
    pub fn may_send(&self) -> bool {
        self.sending.allowed
    }

    /// Other hosts, sorted by name.
    pub fn members(&self) -> Vec<MemberInfo> {
        let mut members = self.handle.members();
        members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        members
    }

    /// Handle of the running host.
    pub(in crate::drive) fn handle(&self) -> HostHandle {
        self.handle.clone()
    }

    /// Number of sessions sent by this service and number received by the host.
    pub fn sessions(&self) -> (usize, usize) {
        (self.queue.len(), self.handle.sessions())
    }

    /// Signs with another key from now on.
    pub fn sign_with(&self, signer: Option<Arc<dyn Signer>>) {
        *locked(&self.signer) = signer;
    }

    /// Seals with other group keys from now on.
    pub fn seal_with(&self, keys: Vec<GroupKey>) {
        *locked(&self.group_keys) = keys;
    }

    /// Asks all hosts for the state of their trees, for at most `longest`.
    pub fn ask_status(&self, longest: Duration) -> Result<Vec<Standing>> {
        Ok(survey::status(self.join()?, None, longest)?.found)
    }

    /// Asks all hosts for the releases of `tree`, for at most `longest`.
    pub fn ask_log(&self, tree: &TreeName, longest: Duration) -> Result<ReleaseLog> {
        Ok(survey::log(self.join()?, tree, longest)?.found)
    }

    /// Joins the group for a session that this host sends, runs and counts it.
    pub(in crate::drive) fn send(
        &self,
        run: impl FnOnce(GroupLinks) -> Result<Outcome>,
    ) -> Result<Outcome> {
        let clock = Clock::start();
        let began = clock.now();
        let ended = run(self.join()?);
        let end = match &ended {
            Ok(outcome) => sent_end(outcome),
            Err(_) => SessionEnd::Aborted,
        };

        let figures = &self.handle.host().figures;
        figures.on_session(SessionRole::Sender, end, clock.now().since(began));
        ended
    }

    /// Joins the group for one session.
    pub fn join(&self) -> Result<GroupLinks> {
        let keys = locked(&self.group_keys).clone();
        let mut network = (self.sending.dial)()?;
        if let Some(peers) = &mut network.peers {
            peers.known.extend(&self.sending.own);
        }

        let traffic = Arc::clone(&self.handle.host().figures.traffic);
        Ok(GroupLinks {
            keys,
            traffic,
            ..network
        })
    }

    /// Returns the directory of `tree`. Refuses if the path leads to another directory now.
    pub(super) fn root(&self, tree: &SendTree) -> Result<Arc<Root>> {
        if let Some(served) = self.handle.tree(&tree.name) {
            return served.root_to_send();
        }

        let Some(root) = &tree.alone else {
            return Err(Error::refused(format!(
                "tree {} is not served: the log says why",
                tree.name
            )));
        };

        match root.still_there() {
            Ok(true) => Ok(Arc::clone(root)),
            Ok(false) => Err(Error::refused(format!(
                "{} is not the directory any more that was opened",
                tree.path.display()
            ))
            .hint("it was moved or replaced: put it back, or restart the daemon")),
            Err(e) => Err(Error::io("cannot look at the tree", &tree.path, e)),
        }
    }

    /// Returns the named tree, or the default one for `paths`.
    pub fn tree(&self, tree: Option<&TreeName>, paths: &[Vec<u8>]) -> Result<&SendTree> {
        let trees = &self.sending.trees;
        let known = || {
            trees
                .iter()
                .map(|b| b.name.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };

        if let Some(tree) = tree {
            let found = trees.iter().find(|b| b.name == *tree);
            return found.ok_or_else(|| {
                let has = format!("it has these trees: {}", known());
                Error::usage(format!("this host has no tree {tree}")).hint(has)
            });
        }

        let holds = |tree: &&SendTree| paths.iter().any(|p| as_path(p).starts_with(&tree.path));
        match trees.as_slice() {
            [] => Err(Error::usage("this host has no tree to send from")),
            [one] => Ok(one),
            all => all
                .iter()
                .find(holds)
                .or(all.iter().find(|b| b.name.as_str() == DEFAULT_TREE))
                .ok_or_else(|| {
                    Error::usage("this host has several trees: say which one")
                        .hint(format!("--tree with one of {}", known()))
                }),
        }
    }

    /// Sessions and requests in progress.
    pub(super) fn queue(&self) -> &RequestQueue {
        &self.queue
    }

    /// Interrupts all requests and refuses new ones.
    pub fn stop(&self) {
        self.queue.stop();
    }

    /// Signing key; an error without one.
    pub(super) fn signer(&self) -> Result<Arc<dyn Signer>> {
        let signer = locked(&self.signer).clone();
        signer.ok_or_else(|| {
            Error::usage("this host has no key to sign what it sends").hint(
                "make one with `makuo keygen -o /etc/makuo/sender.key`, name it as [sender] key \
                in the \
                 configuration, and list its public half in the authorized_keys of the others",
            )
        })
    }
}

/// The end of a session that this host sent.
fn sent_end(outcome: &Outcome) -> SessionEnd {
    match (outcome.exit, outcome.purpose) {
        (ExitStatus::Success, Purpose::Deploy) => SessionEnd::Committed,
        (ExitStatus::Success, Purpose::Stage) => SessionEnd::Staged,
        (ExitStatus::Success, Purpose::Abort) => SessionEnd::Aborted,
        (ExitStatus::Success | ExitStatus::Drift, _) => SessionEnd::Compared,
        (ExitStatus::Refused, _) => SessionEnd::Aborted,
        (ExitStatus::Mixed, _) => SessionEnd::Mixed,
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}
