//! A host's disk side: answers the receiver machine's requests from real trees, one thread a session.
//!
//! Owns the threads and their order; what they do is in `session` and `switch`.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::inspect::{Inspections, inspect};
use super::session::{Opening, Session};
use super::spared::spared;
use super::tombstones::{self, Gravedigger};
use crate::config::TreeConfig;
use crate::diff::{HostRules, Memory, Plan};
use crate::error::Error;
use crate::hook::Hooks;
use crate::id::{HostName, Serial, SessionId, TreeName};
use crate::keys::AuthorizedKeys;
use crate::manifest::read::Manifest;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Header, Release};
use crate::net::Waker;
use crate::proto::receiver::{Denied, Ordered, Reason, Reply, Request};
use crate::tree::Tree;
use crate::tree::owners::HostNames;
use crate::tree::scan::Scanned;
use crate::units::Limit;
use crate::wire::message::{MAX_TOMBSTONES_TOLD, SignedOrder, TreeState};

/// A tree that this host manages, with what the host itself says about it.
#[derive(Debug)]
pub struct ManagedTree {
    /// The tree, locked for this process.
    pub tree: Arc<Tree>,
    /// Never touched, whatever a release says.
    pub protect: PathFilter,
    /// The most deletions.
    pub max_delete: Limit,
    /// How old its release may be before that is said.
    pub max_age: Option<Duration>,
    /// What runs around a commit.
    pub hooks: Hooks,
    /// What the last comparison found.
    pub memory: Mutex<Memory>,
    /// Whether it catches up with others, and they with it.
    pub catch_up: bool,
    /// How often it is looked for what drifted.
    pub repair: Option<Duration>,
    /// What was found then.
    pub inspections: Inspections,
}

impl ManagedTree {
    /// What has to be done to make the tree, as `scanned` found it, what `header` says; as the host's own rules allow.
    pub(super) fn compare(&self, scanned: &Scanned, header: &Header) -> crate::Result<Plan> {
        let (manifest, names) = (Manifest::of(header, self.tree.nodes()), HostNames::default());
        let spared = spared(&self.tree, header)?;
        let max_delete = self.max_delete;
        let rules = HostRules { protect: &self.protect, spared: &spared, max_delete, owners: &names };
        let mut memory = self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(memory.diff(scanned, &manifest, &header.rules, &header.scope, &rules)?)
    }
}

/// The trees and keys of a host; shared by all sessions.
#[derive(Debug)]
pub struct Host {
    /// The host's name.
    pub name: HostName,
    /// The trees by name.
    pub trees: HashMap<TreeName, ManagedTree>,
    /// The trees that could not be opened, and why: what is sent to them is refused with that.
    pub broken: BTreeMap<TreeName, String>,
    /// Who may do what; replaced as a whole when the file is read again.
    pub keys: Mutex<Arc<AuthorizedKeys>>,
}

impl Host {
    /// What the host says of its trees in beacons.
    pub fn states(&self) -> Vec<TreeState> {
        let mut states: Vec<TreeState> = self.trees.values().map(|m| state(&m.tree)).collect();
        states.extend(self.broken.keys().map(|tree| TreeState {
            tree: tree.clone(),
            serial: Serial::default(),
            release: None,
            running: None,
            created: None,
            tombstones: Some(Vec::new()),
            unhealthy: None,
        }));
        states.sort_by(|a, b| a.tree.cmp(&b.tree));
        states
    }

    /// The orders to abort or revert a release that are kept.
    pub fn tombstones(&self) -> Vec<SignedOrder> {
        let of = |managed: &ManagedTree| {
            let kept = managed.tree.state().tombstones();
            kept.unwrap_or_else(|e| {
                tracing::warn!("tree {}: what was taken back is not known: {e}", managed.tree.name());
                Vec::new()
            })
        };
        self.trees.values().flat_map(of).map(|buried| buried.order).collect()
    }

    /// The names of all trees, also of those that cannot be served.
    pub fn names(&self) -> impl Iterator<Item = &TreeName> {
        self.trees.keys().chain(self.broken.keys())
    }

    pub(super) fn keys(&self) -> Arc<AuthorizedKeys> {
        Arc::clone(&self.keys.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

fn state(tree: &Tree) -> TreeState {
    let current = tree.current().ok().flatten();
    let stones = tree.state().tombstones().unwrap_or_default().into_iter().map(|buried| buried.stone);
    let unhealthy = current.as_ref().is_some_and(|c| tree.state().unhealthy(c.release.id()).is_some());
    TreeState {
        tree: tree.name().clone(),
        serial: tree.highest_serial().ok().flatten().unwrap_or_default(),
        release: current.as_ref().map(|c| c.release.id()),
        running: current.as_ref().map(|c| c.release.header().serial),
        created: current.map(|c| c.release.header().created),
        tombstones: Some(stones.take(MAX_TOMBSTONES_TOLD).collect()),
        unhealthy: Some(true).filter(|_| unhealthy),
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
    /// Trees that are to be looked at, once the thread before is done.
    inspecting: HashMap<TreeName, Arc<AtomicBool>>,
    gravedigger: Gravedigger,
    /// The daemon is ending: what can be cut short is.
    ending: Arc<AtomicBool>,
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
        let ending = Arc::new(AtomicBool::new(false));
        let (graves, answer) = (Arc::clone(&host), Answer { replies: replies.clone(), waker: waker.clone() });
        let gravedigger = Gravedigger::start(Arc::clone(&host), move |order, holds| {
            answer.send(Reply::Buried(order, holds));
            answer.send(Reply::Trees(graves.states()));
        });
        Self {
            gravedigger,
            host,
            replies,
            waker,
            sessions: HashMap::new(),
            threads: HashMap::new(),
            inspecting: HashMap::new(),
            ending,
        }
    }

    /// Hands a request on. Each is answered, but for those of a session that is closed.
    pub fn request(&mut self, request: Request) {
        match request {
            Request::Open { session, release, signature, look, sender, grant } => {
                let ending = Arc::clone(&self.ending);
                self.open(session, Opening { release, signature, look, sender, grant, ending });
            }
            Request::Close(session) => drop(self.sessions.remove(&session)),
            Request::Bury(order) => self.gravedigger.take(order),
            Request::GoBack(tree) => self.after_others(&tree, |host, managed, answer| {
                tombstones::go_back(host, managed);
                answer.send(Reply::Trees(host.states()));
            }),
            request => {
                let Some(id) = session_of(&request) else { return };
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

    /// A release of a tree of this host goes out from here. What the trees are now.
    pub fn sent(&self, release: &Release) -> Vec<TreeState> {
        if let Some(managed) = self.host.trees.get(&release.header().tree)
            && let Err(e) = managed.tree.sent(release)
        {
            tracing::warn!("tree {}: this host may take its own release from others: {e}", managed.tree.name());
        }
        self.host.states()
    }

    /// Looks whether a tree is what its release says, once nobody works on it.
    pub fn inspect(&mut self, name: &TreeName) {
        if !self.host.trees.contains_key(name) {
            return;
        }
        let waiting = self.inspecting.entry(name.clone()).or_default();
        if waiting.swap(true, Ordering::AcqRel) {
            return;
        }
        let waiting = Arc::clone(waiting);
        self.after_others(name, move |_, managed, answer| {
            waiting.store(false, Ordering::Release);
            if inspect(managed) && managed.repair.is_some() {
                answer.send(Reply::Drifted(managed.tree.name().clone()));
            }
        });
    }

    /// Does `work` on a tree once nobody else works on it.
    fn after_others(&mut self, name: &TreeName, work: impl FnOnce(&Host, &ManagedTree, &Answer) + Send + 'static) {
        let before = self.threads.remove(name);
        let (host, answer, tree) = (Arc::clone(&self.host), self.answer(), name.clone());
        let work = move || {
            step_back();
            if let Some(before) = before {
                let _ = before.join();
            }
            let Some(managed) = host.trees.get(&tree) else { return };
            // A defect is in the log.
            let _ = guarded(|| work(&host, managed, &answer));
        };
        match std::thread::Builder::new().name(format!("tree {name}")).spawn(work) {
            Ok(thread) => drop(self.threads.insert(name.clone(), thread)),
            Err(e) => tracing::warn!("tree {name}: it is not looked after: cannot start a thread: {e}"),
        }
    }

    fn answer(&self) -> Answer {
        Answer { replies: self.replies.clone(), waker: self.waker.clone() }
    }

    fn open(&mut self, session: SessionId, opening: Opening) {
        let (work, requests) = channel();
        let closed = Arc::new(AtomicBool::new(false));
        let tree = opening.release.header().tree.clone();
        let before = self.threads.remove(&tree);
        let (host, answer) = (Arc::clone(&self.host), self.answer());
        let task = Task { id: session, closed: Arc::clone(&closed), before, requests, answer };
        let thread = std::thread::Builder::new()
            .name(format!("session {}", opening.release))
            .spawn(move || task.run(&host, opening));
        match thread {
            Ok(thread) => {
                self.sessions.insert(session, Queue { work, closed });
                self.threads.insert(tree, thread);
            }
            Err(e) => {
                self.answer().send(Reply::Opened(session, Err(format!("this host cannot start a thread: {e}").into())));
            }
        }
    }
}

impl Drop for Disk {
    /// Waits for what is under way: a commit that has begun is not left to the journal without need.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
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

fn session_of(request: &Request) -> Option<SessionId> {
    Some(match request {
        Request::Bury(_) | Request::GoBack(_) => return None,
        Request::Open { session, .. } | Request::Deliver { session, .. } => *session,
        Request::Recall { session, .. } | Request::Order { session, .. } => *session,
        Request::Explore(id) | Request::Diff(id) | Request::Finish(id) => *id,
        Request::Check(id) | Request::Close(id) => *id,
    })
}

/// The answer to a request that could not be worked on.
fn unable(request: &Request, why: Reason) -> Option<Reply> {
    Some(match request {
        Request::Open { session, .. } => Reply::Opened(*session, Err(why.into())),
        Request::Explore(id) => Reply::Explored(*id, Err(why)),
        Request::Diff(id) => Reply::Diffed(*id, Err(why)),
        Request::Finish(id) => Reply::Finished(*id, Err(why)),
        Request::Deliver { session, .. } => Reply::Delivered(*session, Vec::new(), Err(why)),
        Request::Recall { session, generation, .. } => Reply::Recalled(*session, *generation, Vec::new()),
        Request::Order { session, .. } => Reply::Ordered(*session, Some(Ordered::Failed(why))),
        Request::Check(id) => Reply::Checked(*id, Err(why)),
        Request::Close(_) | Request::Bury(_) | Request::GoBack(_) => return None,
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
    fn run(mut self, host: &Host, opening: Opening) {
        step_back();
        let opened = guarded(|| Session::open(host, opening)).map_err(Denied::from).and_then(|opened| opened);
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
            // What was committed is looked after even when nobody wants to know any more.
            let matters = matches!(request, Request::Order { .. } | Request::Check(_));
            if self.closed.load(Ordering::Acquire) && !matters {
                continue;
            }
            if !self.work(session, request) {
                break;
            }
        }
        if let Some(mut session) = session {
            // What it could not do is in the log.
            let _ = guarded(|| session.close());
        }
        // After a failure: an order that was on its way is no longer waited for.
        for _ in self.requests.iter().filter(|r| matches!(r, Request::Order { .. })) {
            self.answer.send(Reply::Ordered(self.id, None));
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
            Request::Recall { session, generation, .. } => {
                Request::Recall { session: *session, generation: *generation, parts: Vec::new() }
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
        // A commit that failed has used its number up, too.
        if let Reply::Ordered(_, Some(_)) | Reply::Checked(..) = reply {
            self.answer.send(Reply::Trees(session.host.states()));
        }
        let compared = matches!(reply, Reply::Diffed(_, Ok(_)));
        self.answer.send(reply);
        session.keep_order();
        if compared
            && let Some(stage) = &session.stage
            && let Err(e) = stage.reserve()
        {
            self.answer.send(Reply::Finished(self.id, Err(reason(&e))));
            return false;
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

/// An error as a host tells it: with what to do about it.
pub(super) fn reason(e: &Error) -> Reason {
    match e.hint_text() {
        Some(hint) => format!("{e} ({hint})"),
        None => e.to_string(),
    }
}

/// One of a host's trees as its configuration says; a journal is finished or undone here, before anything is served.
pub fn open_tree(config: &TreeConfig, state_dir: Option<&Path>) -> crate::Result<ManagedTree> {
    let options = crate::tree::Options { keep: config.keep as usize, follow_links: config.follow_links };
    let name = &config.name;
    let tree = Tree::open(name.clone(), &config.path, state_dir, options)?;
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
    let (protect, hooks) = (config.protect.clone(), config.hooks.clone());
    Ok(ManagedTree {
        tree,
        protect,
        max_delete: config.max_delete.unwrap_or(Limit::NONE),
        max_age: config.max_age,
        hooks,
        memory: Mutex::default(),
        catch_up: config.catch_up,
        repair: config.repair,
        inspections: Inspections::default(),
    })
}
