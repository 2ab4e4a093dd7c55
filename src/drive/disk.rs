//! A host's disk side: answers the receiver machine's requests from real trees, one thread a session.
//!
//! Here is where a peer's word is checked before it has an effect: the release's signature against the authorized
//! keys, its serial against the highest that was accepted, an order's signature against the key of the release.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::look::Look;
use super::{clock, drift};
use crate::block::frame::Expander;
use crate::diff::{self, HostRules};
use crate::error::Error;
use crate::id::{Ordinal, Serial, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, Namespace, PublicKey, Role, verify};
use crate::manifest::explore::Explorer;
use crate::manifest::read::Manifest;
use crate::manifest::rules::{Layout, PathFilter};
use crate::manifest::{Header, Intent, Release};
use crate::net::Waker;
use crate::proto::RangeSet;
use crate::proto::generation::{Body, Encoding, Placed};
use crate::proto::receiver::{Ordered, Reason, Reply, Request};
use crate::tree::Tree;
use crate::tree::nodes::Nodes;
use crate::tree::owners::HostNames;
use crate::tree::scan::Scanned;
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
    sessions: HashMap<SessionId, Queue>,
    /// The newest session's thread of each tree: it waits for the one before it, so joining it is joining all.
    threads: HashMap<TreeName, JoinHandle<()>>,
}

/// The way to a session's thread.
#[derive(Debug)]
struct Queue {
    work: Sender<Request>,
    /// Nobody wants to know any more: only an order is still carried out.
    closed: Arc<AtomicBool>,
}

impl Disk {
    /// Answers go into `replies`, and `waker` is called.
    pub fn new(host: Arc<Host>, replies: Sender<Reply>, waker: Waker) -> Self {
        Self { host, replies, waker, sessions: HashMap::new(), threads: HashMap::new() }
    }

    /// Hands a request on. Each is answered, but for those of a session that is closed.
    pub fn request(&mut self, request: Request) {
        match request {
            Request::Open { session, release, signature, checksum } => {
                self.open(session, release, signature, checksum);
            }
            Request::Close(session) => drop(self.sessions.remove(&session)),
            request => {
                let id = session_of(&request);
                let refused = match self.sessions.get(&id) {
                    Some(queue) => queue.work.send(request).err().map(|e| e.0),
                    None => Some(request),
                };
                if let Some(reply) = refused.and_then(|request| unable(&request, "the session is over".into())) {
                    // An order that nobody can follow is no failed commit: the machine goes on as if it had not come.
                    let ordered = matches!(reply, Reply::Ordered(..));
                    self.answer().send(if ordered { Reply::Ordered(id, None) } else { reply });
                }
            }
        }
    }

    fn answer(&self) -> Answer {
        Answer { replies: self.replies.clone(), waker: self.waker.clone() }
    }

    fn open(&mut self, session: SessionId, release: Release, signature: Arc<[u8]>, checksum: bool) {
        let (work, requests) = channel();
        let closed = Arc::new(AtomicBool::new(false));
        let tree = release.header().tree.clone();
        let before = self.threads.remove(&tree);
        let (host, answer) = (Arc::clone(&self.host), self.answer());
        let task = Task { id: session, closed: Arc::clone(&closed), before, requests, answer };
        let thread = std::thread::Builder::new()
            .name(format!("session {release}"))
            .spawn(move || task.run(&host, release, signature, checksum));
        match thread {
            Ok(thread) => {
                self.sessions.insert(session, Queue { work, closed });
                self.threads.insert(tree, thread);
            }
            Err(e) => {
                self.answer().send(Reply::Opened(session, Err(format!("this host cannot start a thread: {e}"))));
            }
        }
    }
}

impl Drop for Disk {
    /// Waits for what is under way: a commit that has begun is not left to the journal without need.
    fn drop(&mut self) {
        // All are told before the first is waited for.
        self.sessions.clear();
        for (_, thread) in self.threads.drain() {
            let _ = thread.join();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

fn session_of(request: &Request) -> SessionId {
    match request {
        Request::Open { session, .. } | Request::Deliver { session, .. } | Request::Order { session, .. } => *session,
        Request::Explore(id) | Request::Diff(id) | Request::Finish(id) | Request::Close(id) => *id,
    }
}

/// The answer to a request that could not be worked on.
fn unable(request: &Request, why: Reason) -> Option<Reply> {
    Some(match request {
        Request::Open { session, .. } => Reply::Opened(*session, Err(why)),
        Request::Explore(id) => Reply::Explored(*id, Err(why)),
        Request::Diff(id) => Reply::Diffed(*id, Err(why)),
        Request::Finish(id) => Reply::Finished(*id, Err(why)),
        Request::Deliver { session, .. } => Reply::Delivered(*session, Vec::new(), Err(why)),
        Request::Order { session, .. } => Reply::Ordered(*session, Some(Ordered::Failed(why))),
        Request::Close(_) => return None,
    })
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

/// A session's thread.
struct Task {
    id: SessionId,
    closed: Arc<AtomicBool>,
    /// The thread of the tree's session before this one.
    before: Option<JoinHandle<()>>,
    requests: Receiver<Request>,
    answer: Answer,
}

impl Task {
    fn run(mut self, host: &Host, release: Release, signature: Arc<[u8]>, checksum: bool) {
        step_back();
        let opened = guarded(|| Session::open(host, release, signature, checksum)).and_then(|opened| opened);
        let mut session = match opened {
            Ok(session) => {
                self.answer.send(Reply::Opened(self.id, Ok(())));
                Some(session)
            }
            Err(why) => {
                self.answer.send(Reply::Opened(self.id, Err(why)));
                None
            }
        };
        // The session before gives way when this one is known to be rightful; what it still has in hand (an order,
        // the clearing up after a commit) is done before this one touches the tree. A session that was refused waits
        // too: whoever comes next waits for the tree by waiting for it.
        if let Some(before) = self.before.take() {
            let _ = before.join();
        }
        while let (Some(session), Ok(request)) = (&mut session, self.requests.recv()) {
            if self.closed.load(Ordering::Acquire) && !matches!(request, Request::Order { .. }) {
                continue;
            }
            if !self.work(session, request) {
                break;
            }
        }
        // After a failure: an order that was on its way is no longer waited for.
        for request in self.requests.iter().filter(|r| matches!(r, Request::Order { .. })) {
            self.answer.send(Reply::Ordered(session_of(&request), None));
        }
    }

    /// Answers one request; false when the session is in no state to go on.
    fn work(&self, session: &mut Session<'_>, request: Request) -> bool {
        // What the answer would be if the work should panic.
        let stub = match &request {
            Request::Deliver { session, body, .. } => {
                let (payload, blocks) = (Vec::new(), Vec::new());
                Request::Deliver { session: *session, payload, body: *body, blocks }
            }
            other => other.clone(),
        };
        let reply = match guarded(|| session.answer(self.id, request)) {
            Ok(Some(reply)) => reply,
            Ok(None) => return true,
            Err(why) => {
                if let Some(reply) = unable(&stub, why) {
                    self.answer.send(reply);
                }
                return false;
            }
        };
        let committed = matches!(reply, Reply::Ordered(_, Some(Ordered::Committed(_))));
        if committed {
            self.answer.send(Reply::Trees(session.host.states()));
        }
        let compared = matches!(reply, Reply::Diffed(_, Ok(_)));
        self.answer.send(reply);
        if compared
            && let Some(stage) = &session.stage
            && let Err(e) = stage.reserve()
        {
            self.answer.send(Reply::Finished(self.id, Err(reason(&e))));
            return false;
        }
        let tree = &session.managed.tree;
        if committed && let Err(e) = tree.forget_undo() {
            tracing::warn!("tree {}: what the commit replaced cannot be removed: {e}", tree.name());
        }
        true
    }
}

/// Hashing and writing let receiving go first (and whatever else the host is there for): what is not received in time
/// is lost and has to be sent again.
fn step_back() {
    // Of this thread and those that it starts.
    if let Err(e) = rustix::process::nice(STEP_BACK) {
        tracing::debug!("cannot lower the priority of a thread: {e}");
    }
}

/// How much nicer the threads are that hash and write.
const STEP_BACK: i32 = 3;

/// Does `work`; a defect in it ends this session and not the host.
fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, Reason> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        let why = format!("a defect in makuo on this host: {}", text.unwrap_or("no text"));
        tracing::error!("{why}");
        why
    })
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
    /// The look at the tree that is taken while nodes of the manifest are missing.
    look: Option<Look>,
    stage: Option<Stage>,
    expander: Expander,
}

impl<'a> Session<'a> {
    fn open(host: &'a Host, release: Release, signature: Arc<[u8]>, checksum: bool) -> Result<Self, Reason> {
        let header = release.header();
        let key = verify(Namespace::RELEASE, release.bytes(), &signature)
            .map_err(|e| format!("the release is not signed: {e}"))?;
        check_allowed(host, &key, &release)?;
        let managed = host.trees.get(&header.tree).ok_or_else(|| format!("there is no tree {} here", header.tree))?;
        is_newer(&managed.tree, header)?;
        match managed.tree.still_there() {
            Ok(true) => {}
            Ok(false) => {
                let root = managed.tree.root();
                return Err(format!(
                    "{} is another directory than when the daemon started; restart the daemon",
                    root.path().display()
                ));
            }
            Err(e) => return Err(reason(&Error::io("cannot look at", managed.tree.root().path(), e))),
        }
        if header.rules.layout == Layout::Swap && header.intent != Intent::Audit {
            managed.tree.check_swap().map_err(|e| reason(&e))?;
        }
        let explorer = Explorer::new(header.root);
        let expander = Expander::default();
        Ok(Self { host, managed, key, checksum, explorer, look: None, stage: None, expander, release, signature })
    }

    /// `None` to what is no work of a session.
    fn answer(&mut self, id: SessionId, request: Request) -> Option<Reply> {
        Some(match request {
            // The session before this one may have committed since this one was opened.
            Request::Explore(_) => {
                let newer = is_newer(&self.managed.tree, self.release.header());
                Reply::Explored(id, newer.and_then(|()| self.explore()))
            }
            Request::Diff(_) => Reply::Diffed(id, self.diff()),
            Request::Deliver { payload, body, blocks, .. } => {
                let outcome = self.deliver(&payload, body, &blocks);
                Reply::Delivered(id, payload, outcome)
            }
            Request::Finish(_) => Reply::Finished(id, self.finish()),
            Request::Order { order, signature, .. } => Reply::Ordered(id, self.order(id, &order, &signature)),
            Request::Open { .. } | Request::Close(_) => return None,
        })
    }

    fn explore(&mut self) -> Result<RangeSet, Reason> {
        // Nothing is taken to be here without looking, not even of the present release: the store may have been damaged.
        let missing = self.explorer.advance(self.managed.tree.nodes(), |_| false).map_err(|e| e.to_string())?;
        if !missing.is_empty() && self.look.is_none() {
            self.look = Some(Look::begin(self.managed, &self.release, self.checksum).map_err(|e| reason(&e))?);
        }
        Ok(missing.iter().map(|(ordinal, _)| ordinal.0..ordinal.0 + 1).collect())
    }

    fn diff(&mut self) -> Result<(Summary, RangeSet, Arc<[u8]>), Reason> {
        let scanned = self.scan().map_err(|e| reason(&e))?;
        let tree = &self.managed.tree;
        let header = self.release.header();
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

    /// What is in the tree: what the look found that was begun while nodes were fetched, or a look taken now.
    fn scan(&mut self) -> crate::Result<Scanned> {
        match self.look.take() {
            Some(look) => look.end(),
            None => Look::begin(self.managed, &self.release, self.checksum)?.end(),
        }
    }

    /// Makes the content plain, and keeps the blocks. Of a frame that is not what its map says every block is wrong.
    fn deliver(&mut self, payload: &[u8], at: Body, blocks: &[Placed]) -> Result<(RangeSet, u64), Reason> {
        let encoded = payload.get(at.start..).unwrap_or_default();
        let content = match at.encoding {
            Encoding::Plain => Some(encoded),
            Encoding::Zstd => self.expander.expand(encoded, at.plain),
        };
        match (content, &self.stage) {
            (None, _) => Ok((blocks.iter().map(|b| b.ordinal.0..b.ordinal.0 + 1).collect(), 0)),
            (Some(content), None) => keep_nodes(&self.explorer, self.managed.tree.nodes(), content, blocks),
            (Some(content), Some(stage)) => stage_blocks(stage, content, blocks),
        }
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
    let keys = host.keys();
    keys.allows(key, &header.tree, Role::from(header.intent), now).map_err(|denied| denied.to_string())?;
    if header.intent == Intent::Rollback
        && let Err(denied) = keys.allows(key, &header.tree, Role::Deploy, now)
        && !had_before(host, header)
    {
        return Err(format!(
            "this host keeps no release like this one, and a new one is more than a rollback: {denied}"
        ));
    }
    match header.expires {
        Some(at) if at < now => Err("the release has expired".into()),
        _ => Ok(()),
    }
}

/// Whether the tree had, or has, just this: a key that may only go back chooses among what others put here.
fn had_before(host: &Host, new: &Header) -> bool {
    let Some(managed) = host.trees.get(&new.tree) else { return false };
    let same =
        |old: &Header| (old.root, &old.rules, &old.scope, &old.top) == (new.root, &new.rules, &new.scope, &new.top);
    let serials = managed.tree.releases().unwrap_or_default();
    serials.into_iter().any(|s| managed.tree.release(s).ok().flatten().is_some_and(|kept| same(kept.release.header())))
}

/// Whether the release may follow what the host has accepted.
fn is_newer(tree: &Tree, header: &Header) -> Result<(), Reason> {
    let highest = tree.highest_serial().map_err(|e| reason(&e))?.unwrap_or_default();
    if header.intent != Intent::Audit && header.serial <= highest {
        return Err(format!("serial {} is not newer than {highest}, which this host has accepted", header.serial));
    }
    Ok(())
}

/// Verifies and keeps nodes of the manifest.
fn keep_nodes(
    explorer: &Explorer,
    nodes: &Nodes,
    content: &[u8],
    blocks: &[Placed],
) -> Result<(RangeSet, u64), Reason> {
    let (mut wrong, mut bytes) = (RangeSet::default(), 0);
    for placed in blocks {
        let node = content.get(placed.bytes.clone()).unwrap_or_default();
        let Some(block) = explorer.missing(placed.ordinal) else { continue };
        match nodes.put_node(block, node).map_err(|e| reason(&e))? {
            true => bytes += node.len() as u64,
            false => wrong.insert(placed.ordinal.0..placed.ordinal.0 + 1),
        }
    }
    Ok((wrong, bytes))
}

/// Verifies and writes on as many threads as there are cores; the content is shared out by bytes.
fn stage_blocks(stage: &Stage, content: &[u8], blocks: &[Placed]) -> Result<(RangeSet, u64), Reason> {
    let put = |blocks: &[Placed]| -> Result<(RangeSet, u64), Reason> {
        let (mut wrong, mut bytes) = (RangeSet::default(), 0);
        for placed in blocks {
            let block = content.get(placed.bytes.clone()).unwrap_or_default();
            let Ordinal(ordinal) = placed.ordinal;
            match stage.put(placed.ordinal, block).map_err(|e| reason(&e))? {
                true => bytes += block.len() as u64,
                false => wrong.insert(ordinal..ordinal + 1),
            }
        }
        Ok((wrong, bytes))
    };
    let middle = blocks.iter().position(|b| b.bytes.start >= content.len() / 2).unwrap_or(0);
    if content.len() < PARALLEL_BYTES || middle == 0 {
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

/// Contents below this are not worth a second thread.
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
