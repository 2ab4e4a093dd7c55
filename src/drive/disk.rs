//! A host's disk side: answers the receiver machine's requests from real trees, on one thread for each tree.
//!
//! Owns the threads and their order; what they do is in `session` and `switch`, and who gets to them in `admission`.

use std::collections::{BTreeMap, HashMap};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use super::admission::{Admission, Offer};
use super::inspect::{Inspections, inspect};
use super::own_key::OwnKey;
use super::session::{Opening, Session};
use super::spared::spared;
use super::tombstones::{self, Gravedigger};
use super::trees::Trees;
use crate::config::{CatchUp, TreeConfig};
use crate::diff::{HostRules, Memory, Plan};
use crate::error::{Error, Kind};
use crate::hook::Hooks;
use crate::id::{HostName, SessionId, TreeName};
use crate::keys::{AuthorizedKeys, HostKey, PublicKey, random_bytes};
use crate::manifest::read::Manifest;
use crate::manifest::rules::PathFilter;
use crate::manifest::{Header, Release};
use crate::net::Waker;
use crate::proto::receiver::{DiskReply, DiskRequest, Ordered, ReasonText};
use crate::tree::scan::Scanned;
use crate::tree::{HostNames, Tree};
use crate::units::Limit;
use crate::wire::message::{MAX_BEACON_TOMBSTONES, SerialProof, SignedOrder, TreeState};
use crate::wire::query::ReleaseBytes;

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
    /// Whether it catches up with others, and who with it.
    pub catch_up: CatchUp,
    /// How often it is looked for what drifted.
    pub repair: Option<Duration>,
    /// What was found then.
    pub inspections: Inspections,
}

impl ManagedTree {
    /// What has to be done to make the tree, as `scanned` found it, what `header` says; as the host's own rules allow.
    pub(super) fn compare(&self, scanned: &Scanned, header: &Header) -> crate::Result<Plan> {
        let (manifest, names) = (
            Manifest::of(header, self.tree.nodes()),
            HostNames::default(),
        );
        let spared = spared(&self.tree, header)?;
        let max_delete = self.max_delete;
        let rules = HostRules {
            protect: &self.protect,
            spared: &spared,
            max_delete,
            owners: &names,
        };

        let mut memory = self
            .memory
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);

        Ok(memory.diff(scanned, &manifest, &header.rules, &header.scope, &rules)?)
    }
}

/// The trees and keys of a host; shared by all sessions.
#[derive(Debug)]
pub struct Host {
    /// The host's name.
    pub name: HostName,
    /// The trees. What is sent to one that cannot be served is refused with the reason.
    pub trees: Trees,
    /// Who may do what; replaced as a whole when the file is read again.
    pub keys: Mutex<Arc<AuthorizedKeys>>,
    /// What it signs its words with.
    pub own_key: OwnKey,
}

impl Host {
    /// What the host says of its trees in beacons.
    pub fn states(&self) -> Vec<TreeState> {
        let mut states: Vec<TreeState> = self.trees.iter().map(|(_, m)| state(&m.tree)).collect();
        states.extend(self.trees.all_broken().map(|(tree, _)| TreeState {
            tombstones: Some(Vec::new()),
            ..TreeState::nothing(tree.clone())
        }));
        states.sort_by(|a, b| a.tree.cmp(&b.tree));
        states
    }

    /// What shows others the highest serial that each tree accepted.
    pub fn shown(&self) -> BTreeMap<TreeName, SerialProof> {
        let shown = |managed: &ManagedTree| {
            shown(&managed.tree).unwrap_or_else(|e| {
                tracing::debug!(
                    "tree {}: its highest serial cannot be shown: {e}",
                    managed.tree.name()
                );
                None
            })
        };

        self.trees
            .iter()
            .filter_map(|(name, managed)| Some((name.clone(), shown(managed)?)))
            .collect()
    }

    /// The signed part of the release that each tree has.
    pub fn headers(&self) -> BTreeMap<TreeName, ReleaseBytes> {
        let header = |tree: &Tree| {
            let stored = tree.current().ok().flatten()?;
            Some(ReleaseBytes {
                header: stored.release.bytes().to_vec(),
                signature: stored.signature,
            })
        };

        self.trees
            .iter()
            .filter_map(|(name, managed)| Some((name.clone(), header(&managed.tree)?)))
            .collect()
    }

    /// The orders to abort or revert a release that are kept.
    pub fn tombstones(&self) -> Vec<SignedOrder> {
        let of = |managed: &ManagedTree| {
            let kept = managed.tree.state().tombstones();
            kept.unwrap_or_else(|e| {
                tracing::warn!(
                    "tree {}: what was taken back is not known: {e}",
                    managed.tree.name()
                );
                Vec::new()
            })
        };

        self.trees
            .iter()
            .flat_map(|(_, managed)| of(managed))
            .map(|buried| buried.order)
            .collect()
    }

    /// What the host signs its words with, in this process.
    pub(super) fn key(&self) -> crate::Result<HostKey> {
        Ok(HostKey::new(
            self.own_key.of(&self.trees)?,
            u64::from_be_bytes(random_bytes()?),
        ))
    }

    /// Serves the tree `name`, which could be opened only now.
    pub fn serve(&self, name: &TreeName, managed: ManagedTree) {
        self.trees.serve(name, managed);
        self.own_key.opened(&self.trees);
    }

    pub(super) fn keys(&self) -> Arc<AuthorizedKeys> {
        Arc::clone(
            &self
                .keys
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }
}

/// The release of the highest serial that the tree accepted, or the order by which that was taken back.
fn shown(tree: &Tree) -> crate::Result<Option<SerialProof>> {
    let Some(highest) = tree.state().highest()? else {
        return Ok(None);
    };

    if let Some(stored) = tree
        .release(highest.serial)?
        .filter(|stored| stored.release.id() == highest.id)
    {
        let (header, signature) = (stored.release.bytes().to_vec(), stored.signature);
        return Ok(Some(SerialProof {
            release: Some(ReleaseBytes { header, signature }),
            order: None,
        }));
    }

    let buried = tree
        .state()
        .tombstones()?
        .into_iter()
        .find(|buried| buried.stone.release == highest.id);

    Ok(buried.map(|buried| SerialProof {
        release: None,
        order: Some(buried.order),
    }))
}

fn state(tree: &Tree) -> TreeState {
    let current = tree.current().ok().flatten();
    let stones = tree
        .state()
        .tombstones()
        .unwrap_or_default()
        .into_iter()
        .map(|buried| buried.stone);

    let unhealthy = current
        .as_ref()
        .is_some_and(|c| tree.state().unhealthy(c.release.id()).is_some());
    let is_part = current
        .as_ref()
        .is_some_and(|c| !c.release.header().is_whole());
    let base = if is_part {
        tree.base().ok().flatten()
    } else {
        None
    };

    TreeState {
        tree: tree.name().clone(),
        serial: tree.highest_serial().ok().flatten().unwrap_or_default(),
        release: current.as_ref().map(|c| c.release.id()),
        running: current.as_ref().map(|c| c.release.header().serial),
        created: current.map(|c| c.release.header().created),
        tombstones: Some(stones.take(MAX_BEACON_TOMBSTONES).collect()),
        unhealthy: Some(true).filter(|_| unhealthy),
        base: base.map(|(serial, _)| serial),
    }
}

/// Hands requests to the threads of their trees.
#[derive(Debug)]
pub struct Disk {
    host: Arc<Host>,
    replies: Sender<DiskReply>,
    waker: Waker,
    sessions: HashMap<SessionId, Queue>,
    admission: Option<Admission>,
    /// The way to each tree's thread.
    trees: BTreeMap<TreeName, SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
    /// Trees that are to be looked at, once the work before is done.
    inspecting: HashMap<TreeName, Arc<AtomicBool>>,
    gravedigger: Gravedigger,
    /// The daemon is ending: what can be cut short is.
    ending: Arc<AtomicBool>,
}

/// The most jobs that wait for a tree's thread.
const MAX_JOBS: usize = 64;

/// What a tree's thread does, one after the other.
pub(super) enum Job {
    /// A session, from its first request to its last.
    Session(Box<Task>),
    /// A look at the tree, or the way back.
    Work(Work),
}

/// Work on a tree that is no session's.
type Work = Box<dyn FnOnce(&Host, &ManagedTree, &Answer) + Send>;

/// The way to a session on its tree's thread.
#[derive(Debug)]
struct Queue {
    work: Sender<DiskRequest>,
    /// Nobody wants to know any more: only an order is still carried out.
    closed: Arc<AtomicBool>,
}

impl Disk {
    /// Answers go into `replies`, and `waker` is called.
    pub fn new(host: Arc<Host>, replies: Sender<DiskReply>, waker: Waker) -> crate::Result<Self> {
        let ending = Arc::new(AtomicBool::new(false));
        let answer = Answer {
            replies: replies.clone(),
            waker: waker.clone(),
        };

        let gravedigger = {
            let (graves, answer) = (Arc::clone(&host), answer.clone());
            Gravedigger::start(Arc::clone(&host), move |order, holds| {
                answer.send(DiskReply::Buried(order, holds));
                answer.trees(&graves);
            })
        };

        let (mut trees, mut threads) = (BTreeMap::new(), Vec::new());

        for tree in host.trees.names() {
            let (queue, jobs) = sync_channel(MAX_JOBS);
            let (host, answer, name) = (Arc::clone(&host), answer.clone(), tree.clone());
            let work = move || work_on(&host, &name, &jobs, &answer);
            let thread = std::thread::Builder::new()
                .name(format!("tree {tree}"))
                .spawn(work);
            threads.push(
                thread.map_err(|e| Error::new(Kind::Io, "cannot start a thread").because(e))?,
            );
            trees.insert(tree.clone(), queue);
        }

        Ok(Self {
            admission: Some(Admission::start(Arc::clone(&host), trees.clone(), answer)?),
            gravedigger,
            host,
            replies,
            waker,
            sessions: HashMap::new(),
            trees,
            threads,
            inspecting: HashMap::new(),
            ending,
        })
    }

    /// Hands a request on. Each is answered, but for those of a session that is closed.
    pub fn request(&mut self, request: DiskRequest) {
        match request {
            DiskRequest::Open {
                session,
                release,
                signature,
                look,
                sender,
                grant,
            } => {
                let (ending, closed) = (Arc::clone(&self.ending), Arc::default());
                self.open(
                    session,
                    Opening {
                        release,
                        signature,
                        look,
                        sender,
                        grant,
                        ending,
                        closed,
                    },
                );
            }
            DiskRequest::Close(session) => drop(self.sessions.remove(&session)),
            DiskRequest::Bury(order) => self.gravedigger.take(order),
            DiskRequest::Verify(release, signature) => {
                let id = release.id();
                if !self
                    .admission
                    .as_ref()
                    .is_some_and(|admission| admission.verify(release, signature))
                {
                    self.answer().send(DiskReply::Verified(id, false));
                }
            }
            DiskRequest::GoBack(tree) => {
                let go_back: Work = Box::new(|host, managed, answer| {
                    tombstones::go_back(host, managed);
                    answer.trees(host);
                });
                if !self.after_others(&tree, go_back) {
                    tracing::error!(
                        "tree {tree}: its release was taken back, and too much waits to be done there"
                    );
                }
            }
            request => {
                let Some(id) = session_of(&request) else {
                    return;
                };
                let refused = match self.sessions.get(&id) {
                    Some(queue) => queue.work.send(request).err().map(|e| e.0),
                    None => Some(request),
                };
                if let Some(reply) =
                    refused.and_then(|request| unable(&request, "the session is over".into()))
                {
                    // An order that nobody can follow is no failed commit: the machine goes on as if it had not come.
                    let ordered = matches!(reply, DiskReply::Ordered(..));
                    self.answer().send(if ordered {
                        DiskReply::Ordered(id, None)
                    } else {
                        reply
                    });
                }
            }
        }
    }

    /// A release of a tree of this host goes out from here, and lacks nothing that came before. What the trees are now.
    pub fn sent(&self, release: &Release) -> Vec<TreeState> {
        if let Some(managed) = self.host.trees.get(&release.header().tree)
            && let Err(e) = managed.tree.sends(release)
        {
            tracing::warn!(
                "tree {}: this host may take its own release from others: {e}",
                managed.tree.name()
            );
        }

        self.host.states()
    }

    /// What the trees are now.
    pub fn states(&self) -> Vec<TreeState> {
        self.host.states()
    }

    /// Looks whether a tree is what its release says, once nobody works on it.
    pub fn inspect(&mut self, name: &TreeName) {
        if self.host.trees.get(name).is_none() {
            return;
        }

        let waiting = self.inspecting.entry(name.clone()).or_default();
        if waiting.swap(true, Ordering::AcqRel) {
            return;
        }

        let (waiting, done) = (Arc::clone(waiting), Arc::clone(waiting));
        let look: Work = Box::new(move |_, managed, answer| {
            waiting.store(false, Ordering::Release);
            if inspect(managed) && managed.repair.is_some() {
                answer.send(DiskReply::Drifted(managed.tree.name().clone()));
            }
        });

        if !self.after_others(name, look) {
            done.store(false, Ordering::Release);
        }
    }

    /// Does `work` on a tree once nobody else works on it; false when too much waits already.
    pub(super) fn after_others(&self, name: &TreeName, work: Work) -> bool {
        self.trees
            .get(name)
            .is_some_and(|queue| queue.try_send(Job::Work(work)).is_ok())
    }

    fn answer(&self) -> Answer {
        Answer {
            replies: self.replies.clone(),
            waker: self.waker.clone(),
        }
    }

    fn open(&mut self, session: SessionId, opening: Opening) {
        let (work, requests) = channel();
        let closed = Arc::clone(&opening.closed);
        let offer = Offer {
            session,
            opening,
            requests,
        };

        if self
            .admission
            .as_ref()
            .is_some_and(|admission| admission.take(offer))
        {
            self.sessions.insert(session, Queue { work, closed });
        } else {
            let why = "this host has too many offers to look at; try again".to_string();
            self.answer()
                .send(DiskReply::Opened(session, Err(why.into())));
        }
    }
}

impl Drop for Disk {
    /// Waits for what is under way: a commit that has begun is not left to the journal without need.
    fn drop(&mut self) {
        self.ending.store(true, Ordering::Release);
        // All are told before the first is waited for.
        self.sessions.clear();
        self.admission = None;
        self.trees.clear();

        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

fn session_of(request: &DiskRequest) -> Option<SessionId> {
    Some(match request {
        DiskRequest::Bury(_) | DiskRequest::GoBack(_) | DiskRequest::Verify(..) => return None,
        DiskRequest::Open { session, .. } | DiskRequest::Deliver { session, .. } => *session,
        DiskRequest::ReadBack { session, .. } | DiskRequest::Order { session, .. } => *session,
        DiskRequest::Explore(id) | DiskRequest::Diff(id) | DiskRequest::Finish(id) => *id,
        DiskRequest::Check(id) | DiskRequest::Close(id) => *id,
    })
}

/// The answer to a request that could not be worked on.
fn unable(request: &DiskRequest, why: ReasonText) -> Option<DiskReply> {
    Some(match request {
        DiskRequest::Open { session, .. } => DiskReply::Opened(*session, Err(why.into())),
        DiskRequest::Explore(id) => DiskReply::Explored(*id, Err(why)),
        DiskRequest::Diff(id) => DiskReply::Diffed(*id, Err(why)),
        DiskRequest::Finish(id) => DiskReply::Finished(*id, Err(why)),
        DiskRequest::Deliver { session, .. } => {
            DiskReply::Delivered(*session, Vec::new(), Err(why))
        }
        DiskRequest::ReadBack {
            session,
            generation,
            ..
        } => DiskReply::ReadBack(*session, *generation, Vec::new()),
        DiskRequest::Order { session, .. } => {
            DiskReply::Ordered(*session, Some(Ordered::Failed(why)))
        }
        DiskRequest::Check(id) => DiskReply::Checked(*id, Err(why)),
        DiskRequest::Close(_)
        | DiskRequest::Bury(_)
        | DiskRequest::GoBack(_)
        | DiskRequest::Verify(..) => {
            return None;
        }
    })
}

/// Where answers go.
#[derive(Clone)]
pub(super) struct Answer {
    replies: Sender<DiskReply>,
    waker: Waker,
}

impl Answer {
    /// Says what the trees of `host` are now.
    fn trees(&self, host: &Host) {
        self.send(DiskReply::Shown(host.shown()));
        self.send(DiskReply::Headers(host.headers()));
        self.send(DiskReply::Trees(host.states()));
    }

    pub(super) fn send(&self, reply: DiskReply) {
        // Nobody listens any more when the daemon is ending.
        let _ = self.replies.send(reply);
        self.waker.wake();
    }
}

/// A tree's thread.
fn work_on(host: &Host, tree: &TreeName, jobs: &Receiver<Job>, answer: &Answer) {
    step_back();
    for job in jobs {
        // What is admitted is for a tree that is served.
        let Some(managed) = host.trees.get(tree) else {
            continue;
        };
        match job {
            Job::Session(task) => task.run(host, managed),
            // A defect is in the log.
            Job::Work(work) => drop(guarded(|| work(host, managed, answer))),
        }
    }
}

/// A session that was admitted. Those before it have given way: what they still had in hand (an order, the clearing up
/// after a commit) is done.
pub(super) struct Task {
    pub(super) id: SessionId,
    pub(super) opening: Opening,
    /// Who signed the release.
    pub(super) key: PublicKey,
    pub(super) requests: Receiver<DiskRequest>,
    pub(super) answer: Answer,
}

impl Task {
    fn run(self, host: &Host, managed: &ManagedTree) {
        let closed = Arc::clone(&self.opening.closed);
        let mut session = Session::begin(host, managed, self.opening, self.key);
        let (id, requests, answer) = (self.id, self.requests, self.answer);
        while let Ok(request) = requests.recv() {
            // What was committed is looked after even when nobody wants to know any more.
            let matters = matches!(request, DiskRequest::Order { .. } | DiskRequest::Check(_));
            if closed.load(Ordering::Acquire) && !matters {
                continue;
            }
            if !work(id, &answer, &mut session, request) {
                break;
            }
        }

        // What it could not do is in the log.
        let _ = guarded(|| session.close());
        // After a failure: an order that was on its way is no longer waited for.
        for _ in requests
            .iter()
            .filter(|r| matches!(r, DiskRequest::Order { .. }))
        {
            answer.send(DiskReply::Ordered(id, None));
        }
    }
}

/// Answers one request; false when the session is in no state to go on.
fn work(id: SessionId, answer: &Answer, session: &mut Session<'_>, request: DiskRequest) -> bool {
    // What the answer would be if the work should panic.
    let stub = match &request {
        DiskRequest::Deliver { session, body, .. } => {
            let (payload, blocks) = (Vec::new(), Vec::new());
            DiskRequest::Deliver {
                session: *session,
                payload,
                body: *body,
                blocks,
            }
        }
        DiskRequest::ReadBack {
            session,
            generation,
            ..
        } => DiskRequest::ReadBack {
            session: *session,
            generation: *generation,
            parts: Vec::new(),
        },
        other => other.clone(),
    };

    let reply = match guarded(|| session.answer(id, request)) {
        Ok(Some(reply)) => reply,
        Ok(None) => return true,
        Err(why) => {
            if let Some(reply) = unable(&stub, why) {
                answer.send(reply);
            }
            return false;
        }
    };

    // A commit that failed has used its number up, too.
    if let DiskReply::Ordered(_, Some(_)) | DiskReply::Checked(..) = reply {
        answer.trees(session.host);
    }

    let compared = matches!(reply, DiskReply::Diffed(_, Ok(_)));
    answer.send(reply);
    session.keep_order();

    if compared
        && let Some(stage) = &session.stage
        && let Err(e) = stage.reserve()
    {
        answer.send(DiskReply::Finished(id, Err(reason(&e))));
        return false;
    }

    true
}

/// Hashing and writing let receiving go first (and whatever else the host is there for): what is not received in time
/// is lost and has to be sent again.
pub(super) fn step_back() {
    // Of this thread and those that it starts.
    if let Err(e) = rustix::process::nice(STEP_BACK) {
        tracing::debug!("cannot lower the priority of a thread: {e}");
    }
}

/// How much nicer the threads are that hash and write.
const STEP_BACK: i32 = 3;

/// Does `work`; a defect in it ends this session and not the host.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, ReasonText> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        let why = format!(
            "a defect in makuo on this host: {}",
            text.unwrap_or("no text")
        );
        tracing::error!("{why}");
        why
    })
}

/// An error as a host tells it: with what to do about it.
pub(super) fn reason(e: &Error) -> ReasonText {
    match e.hint_text() {
        Some(hint) => format!("{e} ({hint})"),
        None => e.to_string(),
    }
}

/// One of a host's trees as its configuration says; a journal is finished or undone here, before anything is served.
pub fn open_tree(config: &TreeConfig, state_dir: Option<&Path>) -> crate::Result<ManagedTree> {
    let options = crate::tree::TreeOptions {
        keep: config.keep as usize,
        follow_links: config.follow_links,
        exchanges: config.swap != Some(false),
    };

    let name = &config.name;
    let tree = Tree::open(name.clone(), &config.path, state_dir, options)?;
    if let Some(warning) = tree.state().warning() {
        tracing::warn!("tree {name}: {warning}");
    }

    match tree.recovery() {
        crate::tree::Recovery::Nothing => {}
        crate::tree::Recovery::Completed(serial) => {
            tracing::warn!(
                "tree {name}: the commit of {name}@{serial} was interrupted and is completed now"
            );
        }
        crate::tree::Recovery::Undone(serial) => {
            tracing::warn!(
                "tree {name}: the commit of {name}@{serial} was interrupted and is undone now"
            );
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
