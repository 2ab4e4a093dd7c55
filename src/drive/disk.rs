//! A host's disk side: answers the receiver machine's requests from real trees, one thread a session.
//!
//! Here is where a peer's word is checked before it has an effect: the release's signature against the authorized
//! keys, its serial against the highest that was accepted, an order's signature against the key of the release.

use std::collections::HashMap;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::{clock, drift};
use crate::diff::{self, HostRules};
use crate::error::Error;
use crate::id::{Ordinal, Serial, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::explore::Explorer;
use crate::manifest::read::Manifest;
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Intent, Release};
use crate::net::Waker;
use crate::proto::RangeSet;
use crate::proto::generation::Placed;
use crate::proto::receiver::{Ordered, Reason, Reply, Request};
use crate::tree::Tree;
use crate::tree::index::Index;
use crate::tree::owners::HostNames;
use crate::tree::root::FileId;
use crate::tree::scan::{ScanOptions, Scanned, scan};
use crate::tree::stage::Stage;
use crate::units::Limit;
use crate::wire::message::{Order, OrderKind, Summary, TreeState};

/// A tree that this host manages, with what the host itself says about it.
#[derive(Debug)]
pub struct ManagedTree {
    /// The tree, locked for this process.
    pub tree: Arc<Tree>,
    /// Never touched, whatever a release says.
    pub protect: PathFilter,
    /// The most deletions.
    pub max_delete: Limit,
}

/// The trees and keys of a host; shared by all sessions.
#[derive(Debug)]
pub struct Host {
    /// The trees by name.
    pub trees: HashMap<TreeName, ManagedTree>,
    /// Who may do what; replaced as a whole when the file is read again.
    pub keys: Mutex<Arc<AuthorizedKeys>>,
}

impl Host {
    /// What the host says of its trees in beacons.
    pub fn states(&self) -> Vec<TreeState> {
        let mut states: Vec<TreeState> = self.trees.values().map(|m| state(&m.tree)).collect();
        states.sort_by(|a, b| a.tree.cmp(&b.tree));
        states
    }

    fn keys(&self) -> Arc<AuthorizedKeys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn state(tree: &Tree) -> TreeState {
    let current = tree.current().ok().flatten();
    TreeState {
        tree: tree.name().clone(),
        serial: tree.highest_serial().ok().flatten().unwrap_or_default(),
        release: current.map(|c| c.release.id()),
    }
}

/// Hands requests to the threads of their sessions.
#[derive(Debug)]
pub struct Disk {
    host: Arc<Host>,
    replies: Sender<Reply>,
    waker: Waker,
    sessions: HashMap<SessionId, (Sender<Request>, std::thread::JoinHandle<()>)>,
}

impl Disk {
    /// Answers go into `replies`, and `waker` is called.
    pub fn new(host: Arc<Host>, replies: Sender<Reply>, waker: Waker) -> Self {
        Self { host, replies, waker, sessions: HashMap::new() }
    }

    /// Hands a request on.
    pub fn request(&mut self, request: Request) {
        self.sessions.retain(|_, (_, thread)| !thread.is_finished());
        match &request {
            Request::Open { session, release, signature, checksum } => {
                self.open(*session, release.clone(), Arc::clone(signature), *checksum);
            }
            Request::Close(session) => drop(self.sessions.remove(session)),
            Request::Explore(session)
            | Request::Diff(session)
            | Request::Finish(session)
            | Request::Deliver { session, .. }
            | Request::Order { session, .. } => {
                if let Some((work, _)) = self.sessions.get(session) {
                    // A thread that is gone has said why.
                    let _ = work.send(request);
                }
            }
        }
    }

    fn open(&mut self, session: SessionId, release: Release, signature: Arc<[u8]>, checksum: bool) {
        let (work, requests) = channel();
        let (host, replies, waker) = (Arc::clone(&self.host), self.replies.clone(), self.waker.clone());
        let thread = std::thread::Builder::new().name(format!("session {release}")).spawn(move || {
            let answer = Answer { replies, waker };
            Session::run(session, &host, release, signature, checksum, &requests, &answer);
        });
        match thread {
            Ok(thread) => drop(self.sessions.insert(session, (work, thread))),
            Err(e) => {
                let _ = self.replies.send(Reply::Opened(session, Err(format!("this host cannot start a thread: {e}"))));
                self.waker.wake();
            }
        }
    }
}

impl Drop for Disk {
    /// Waits for what is under way: a commit that has begun is not left to the journal without need.
    fn drop(&mut self) {
        for (_, (work, thread)) in self.sessions.drain() {
            drop(work);
            let _ = thread.join();
        }
    }
}

struct Answer {
    replies: Sender<Reply>,
    waker: Waker,
}

impl Answer {
    fn send(&self, reply: Reply) {
        // Nobody listens any more when the daemon is ending.
        let _ = self.replies.send(reply);
        self.waker.wake();
    }
}

/// One session's work on one tree.
struct Session<'a> {
    host: &'a Host,
    managed: &'a ManagedTree,
    release: Release,
    signature: Arc<[u8]>,
    key: PublicKey,
    checksum: bool,
    explorer: Explorer,
    stage: Option<Stage>,
}

impl<'a> Session<'a> {
    fn run(
        id: SessionId,
        host: &'a Host,
        release: Release,
        signature: Arc<[u8]>,
        checksum: bool,
        requests: &Receiver<Request>,
        answer: &Answer,
    ) {
        let mut session = match Self::open(host, release, signature, checksum) {
            Ok(session) => session,
            Err(why) => return answer.send(Reply::Opened(id, Err(why))),
        };
        answer.send(Reply::Opened(id, Ok(())));
        while let Ok(request) = requests.recv() {
            let reply = match request {
                Request::Explore(_) => Reply::Explored(id, session.explore()),
                Request::Diff(_) => Reply::Diffed(id, session.diff()),
                Request::Deliver { payload, blocks, .. } => {
                    let outcome = session.deliver(&payload, &blocks);
                    Reply::Delivered(id, payload, outcome)
                }
                Request::Finish(_) => Reply::Finished(id, session.finish()),
                Request::Order { order, signature, .. } => {
                    let outcome = session.order(id, &order, &signature);
                    let committed = matches!(outcome, Some(Ordered::Committed(_)));
                    if committed {
                        answer.send(Reply::Trees(session.host.states()));
                    }
                    Reply::Ordered(id, outcome)
                }
                Request::Open { .. } | Request::Close(_) => continue,
            };
            let committed = matches!(reply, Reply::Ordered(_, Some(Ordered::Committed(_))));
            answer.send(reply);
            if committed && let Err(e) = session.managed.tree.forget_undo() {
                tracing::warn!("tree {}: what the commit replaced cannot be removed: {e}", session.managed.tree.name());
            }
        }
    }

    fn open(host: &'a Host, release: Release, signature: Arc<[u8]>, checksum: bool) -> Result<Self, Reason> {
        let header = release.header();
        let key = verify(Namespace::RELEASE, release.bytes(), &signature)
            .map_err(|e| format!("the release is not signed: {e}"))?;
        check_allowed(host, &key, &release)?;
        if header.rules.layout != Layout::InPlace {
            return Err("this host cannot switch whole trees (layout = \"swap\")".into());
        }
        let managed = host.trees.get(&header.tree).ok_or_else(|| format!("there is no tree {} here", header.tree))?;
        let highest = managed.tree.highest_serial().map_err(|e| reason(&e))?.unwrap_or_default();
        if header.intent != Intent::Audit && header.serial <= highest {
            return Err(format!("serial {} is not newer than {highest}, which this host has accepted", header.serial));
        }
        match managed.tree.root().still_there() {
            Ok(true) => {}
            Ok(false) => {
                let path = managed.tree.root().path().display();
                return Err(format!("{path} is another directory than when the daemon started; restart the daemon"));
            }
            Err(e) => return Err(reason(&Error::io("cannot look at", managed.tree.root().path(), e))),
        }
        let explorer = Explorer::new(header.root);
        Ok(Self { host, managed, key, checksum, explorer, stage: None, release, signature })
    }

    fn explore(&mut self) -> Result<RangeSet, Reason> {
        // Nothing is taken to be here without looking, not even of the present release: the store may have been damaged.
        let missing = self.explorer.advance(self.managed.tree.nodes(), |_| false).map_err(|e| e.to_string())?;
        Ok(missing.iter().map(|(ordinal, _)| ordinal.0..ordinal.0 + 1).collect())
    }

    fn diff(&mut self) -> Result<(Summary, RangeSet, Arc<[u8]>), Reason> {
        let tree = &self.managed.tree;
        let header = self.release.header();
        let scanned = self.scan().map_err(|e| reason(&e))?;
        let manifest = Manifest::of(header, tree.nodes());
        let names = HostNames::default();
        let rules = HostRules { protect: &self.managed.protect, max_delete: self.managed.max_delete, owners: &names };
        let plan = diff::diff(&scanned, &manifest, &header.rules, &header.scope, &rules)
            .map_err(|refusal| reason(&refusal.into()))?;
        let (list, identity) = drift::encode(&plan);
        let mut summary = Summary {
            written: plan.summary.created + plan.summary.updated,
            touched: plan.summary.metadata,
            deleted: plan.summary.deleted,
            extra: plan.summary.extra,
            fetch: plan.summary.fetch_bytes,
            drift: identity,
            drift_bytes: list.len() as u64,
        };
        let wants = if header.intent == Intent::Audit {
            plan.wants.iter().cloned().collect()
        } else {
            tree.nodes().sync().map_err(|e| reason(&e))?;
            let stage = Stage::begin(tree, plan).map_err(|e| reason(&e))?;
            summary.fetch = stage.plan().fetch.values().map(|b| u64::from(b.size)).sum();
            let wants: RangeSet = stage.wants().iter().cloned().collect();
            self.stage = Some(stage);
            wants
        };
        Ok((summary, wants, list.into()))
    }

    /// What the comparison leaves alone is listed, so that the directories around it are known to hold it, and not read.
    fn scan(&self) -> crate::Result<Scanned> {
        let tree = &self.managed.tree;
        let rules = &self.release.header().rules;
        let mut options = ScanOptions::new(clock::wall());
        options.scope.clone_from(&self.release.header().scope);
        options.xattrs = rules.xattrs;
        options.hardlinks = rules.hardlinks;
        options.checksum = self.checksum;
        options.apart = apart(tree);
        options.closed.push(self.managed.protect.clone());
        let excluded = rules.excluded().map_err(|e| Error::refused(format!("exclude pattern {e}")))?;
        // What is to be deleted has to be known to the last path, but by its name only.
        if rules.delete_excluded { &mut options.unhashed } else { &mut options.closed }.push(excluded);
        let path = tree.index_path();
        let old = Index::open(&path, tree.root().id());
        scan(tree.root(), &options, old.as_ref(), &path)
    }

    fn deliver(&mut self, payload: &[u8], blocks: &[Placed]) -> Result<(RangeSet, u64), Reason> {
        match &self.stage {
            None => self.keep_nodes(payload, blocks),
            Some(stage) => stage_blocks(stage, payload, blocks),
        }
    }

    fn keep_nodes(&self, payload: &[u8], blocks: &[Placed]) -> Result<(RangeSet, u64), Reason> {
        let (mut wrong, mut bytes) = (RangeSet::default(), 0);
        for placed in blocks {
            let content = payload.get(placed.bytes.clone()).unwrap_or_default();
            let Some(block) = self.explorer.missing(placed.ordinal) else { continue };
            match self.managed.tree.nodes().put_node(block, content).map_err(|e| reason(&e))? {
                true => bytes += content.len() as u64,
                false => wrong.insert(placed.ordinal.0..placed.ordinal.0 + 1),
            }
        }
        Ok((wrong, bytes))
    }

    fn finish(&mut self) -> Result<(), Reason> {
        let stage = self.stage.as_mut().ok_or("nothing is staged")?;
        stage.finish().map_err(|e| reason(&e))
    }

    /// `None`: not an order by the key of the release for this session, or not one that we can follow now.
    fn order(&mut self, id: SessionId, order: &[u8], signature: &[u8]) -> Option<Ordered> {
        let order_key = verify(Namespace::ORDER, order, signature).ok()?;
        let order = Order::decode(order)?;
        if order_key != self.key || order.session != id || order.release != self.release.id() {
            return None;
        }
        match order.kind {
            OrderKind::Abort => {
                self.stage = None;
                Some(Ordered::Aborted)
            }
            OrderKind::Commit if self.release.header().intent == Intent::Audit => None,
            OrderKind::Commit => {
                let stage = self.stage.take()?;
                // Both may have changed while the release was on its way.
                if let Err(why) = check_allowed(self.host, &self.key, &self.release) {
                    return Some(Ordered::Failed(why));
                }
                Some(match stage.commit(&self.release, &self.signature) {
                    Ok(report) => {
                        tracing::info!("{}: {report:?}", self.release);
                        Ordered::Committed(self.serial())
                    }
                    Err(e) => Ordered::Failed(reason(&e)),
                })
            }
        }
    }

    fn serial(&self) -> Serial {
        self.release.header().serial
    }
}

/// Whether `key` may put `release` here now.
fn check_allowed(host: &Host, key: &PublicKey, release: &Release) -> Result<(), Reason> {
    let (header, now) = (release.header(), clock::wall_seconds());
    host.keys().allows(key, &header.tree, Role::from(header.intent), now).map_err(|denied| denied.to_string())?;
    match header.expires {
        Some(at) if at < now => Err("the release has expired".into()),
        _ => Ok(()),
    }
}

/// The state directory, which is no part of the tree even if someone put the tree's root above it.
fn apart(tree: &Tree) -> Vec<FileId> {
    use std::os::unix::fs::MetadataExt;
    let id = std::fs::metadata(tree.state().path()).map(|m| FileId { dev: m.dev(), ino: m.ino() });
    id.into_iter().collect()
}

/// Verifies and writes on as many threads as there are cores; the payload is shared out by bytes.
fn stage_blocks(stage: &Stage, payload: &[u8], blocks: &[Placed]) -> Result<(RangeSet, u64), Reason> {
    let put = |blocks: &[Placed]| -> Result<(RangeSet, u64), Reason> {
        let (mut wrong, mut bytes) = (RangeSet::default(), 0);
        for placed in blocks {
            let content = payload.get(placed.bytes.clone()).unwrap_or_default();
            let Ordinal(ordinal) = placed.ordinal;
            match stage.put(placed.ordinal, content).map_err(|e| reason(&e))? {
                true => bytes += content.len() as u64,
                false => wrong.insert(ordinal..ordinal + 1),
            }
        }
        Ok((wrong, bytes))
    };
    let middle = blocks.iter().position(|b| b.bytes.start >= payload.len() / 2).unwrap_or(0);
    if payload.len() < PARALLEL_BYTES || middle == 0 {
        return put(blocks);
    }
    let (first, second) = blocks.split_at(middle);
    let (a, b) = std::thread::scope(|scope| {
        let other = scope.spawn(|| put(second));
        (put(first), other.join().unwrap_or_else(|_| Err("a staging thread failed".into())))
    });
    let ((mut wrong, bytes), (more_wrong, more_bytes)) = (a?, b?);
    wrong.extend(&more_wrong);
    Ok((wrong, bytes + more_bytes))
}

/// Payloads below this are not worth a second thread.
const PARALLEL_BYTES: usize = 512 << 10;

/// An error as a host tells it: with what to do about it.
fn reason(e: &Error) -> Reason {
    match e.hint_text() {
        Some(hint) => format!("{e} ({hint})"),
        None => e.to_string(),
    }
}

/// The host's trees out of what a configuration says; journals are finished or undone here, before anything is served.
pub fn open_tree(
    name: &TreeName,
    path: &Path,
    state_dir: Option<&Path>,
    keep: u32,
    protect: PathFilter,
    max_delete: Limit,
) -> crate::Result<ManagedTree> {
    let options = crate::tree::Options { keep: keep as usize };
    let tree = Tree::open(name.clone(), path, state_dir, options)?;
    if let Some(warning) = tree.state().warning() {
        tracing::warn!("tree {name}: {warning}");
    }
    match tree.recovery() {
        crate::tree::Recovery::Nothing => {}
        crate::tree::Recovery::Completed(serial) => {
            tracing::warn!("tree {name}: the commit of {name}@{serial} was interrupted and is completed now");
        }
        crate::tree::Recovery::Undone(serial) => {
            tracing::warn!("tree {name}: the commit of {name}@{serial} was interrupted and is undone now");
        }
    }
    Ok(ManagedTree { tree, protect, max_delete })
}
