//! What a running host does for those who ask at its sockets: ad hoc releases out of its own trees, audits, members.
//!
//! An ad hoc release is one like any other, with the paths that were named as its scope and this host's own key under it.
//! The host itself takes no part: its tree is the source. Must not know how the asking looks: console and control socket
//! bring a [`Wish`] and an observer.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::deploy::{self, Interrupt, Options};
use super::endpoint::Door;
use super::host::Handle;
use super::outcome::{DriftGroup, ExitStatus, HostState, Member, Observer, Outcome, Purpose, What};
use super::paths::{Named, named, no_such};
use super::source::Part;
use crate::id::{HostName, TreeName};
use crate::keys::{GroupKey, Signer};
use crate::manifest::TreePath;
use crate::manifest::header::MAX_PATTERNS;
use crate::manifest::rules::{Exclude, PathFilter};
use crate::net::Links;
use crate::spec::{DEFAULT_TREE, OwnerPolicy, Spec};
use crate::tree::Root;
use crate::units::{Limit, Rate};
use crate::{Error, Result};

/// How often one who waits for another's session looks whether he is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Joins the group for one session.
pub type Dial = Box<dyn Fn() -> Result<Links> + Send + Sync>;

/// What is to be done with the paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Deed {
    /// Put them on the others.
    Send,
    /// The same, and delete what is extra there.
    Sync,
    /// Only delete what is extra there.
    Prune,
    /// Compare the content.
    Check,
}

/// What somebody wants of a tree of this host.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// What is to be done.
    pub deed: Deed,
    /// The tree; none: the one that holds an absolute path, or the only one, or `default`.
    pub tree: Option<TreeName>,
    /// Paths from the tree's directory, or absolute, with wildcards; none is all of it.
    #[serde(with = "words")]
    pub paths: Vec<Vec<u8>>,
    /// Whether directories are meant with what is in them.
    pub recurse: bool,
    /// Whether it is only told what would change.
    pub dry_run: bool,
    /// Globs on host names; none is every host that has the tree.
    pub targets: Vec<String>,
    /// Lines of .gitignore from the tree's directory.
    pub excludes: Vec<String>,
    /// The group that everything gets on the hosts; none: as it is here.
    pub group: Option<String>,
    /// Whether every file is read again, here and there.
    pub checksum: bool,
    /// The most deletions on one host; none: as a spec has it for a whole tree, no limit for paths that were named.
    #[serde(default, with = "limit")]
    pub max_delete: Option<Limit>,
    /// Whether the outcome has the list of what differed, also of a release that is put.
    pub lists: bool,
    /// Whether the files of the release are told.
    pub files: bool,
}

impl Wish {
    /// All of the tree, with nothing special about it.
    pub fn new(deed: Deed) -> Self {
        Self {
            deed,
            tree: None,
            paths: Vec::new(),
            recurse: false,
            dry_run: false,
            targets: Vec::new(),
            excludes: Vec::new(),
            group: None,
            checksum: deed == Deed::Check,
            max_delete: None,
            lists: false,
            files: false,
        }
    }
}

/// Paths as text where they are UTF-8.
mod words {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Word {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(words: &[Vec<u8>], to: S) -> Result<S::Ok, S::Error> {
        let word = |w: &Vec<u8>| match std::str::from_utf8(w) {
            Ok(text) => Word::Text(text.to_string()),
            Err(_) => Word::Bytes(w.clone()),
        };
        to.collect_seq(words.iter().map(word))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let bytes = |word| match word {
            Word::Text(text) => text.into_bytes(),
            Word::Bytes(bytes) => bytes,
        };
        Ok(Vec::<Word>::deserialize(from)?.into_iter().map(bytes).collect())
    }
}

/// A limit as people write it.
mod limit {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::units::Limit;

    pub(super) fn serialize<S: Serializer>(limit: &Option<Limit>, to: S) -> Result<S::Ok, S::Error> {
        limit.map(|l| l.to_string()).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Limit>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A tree to send from.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its name.
    pub tree: TreeName,
    /// Its directory.
    pub path: PathBuf,
    /// Where what is known of its files is kept between sessions.
    pub cache: Option<PathBuf>,
}

/// How this host sends.
pub struct Sending {
    /// The trees, in the order of the configuration.
    pub bases: Vec<Base>,
    /// Whether it does at all.
    pub allowed: bool,
    /// The ceiling of the rate.
    pub rate: Option<Rate>,
    /// Of what is no directory, only what this user owns; the user's number.
    pub owner: Option<u32>,
    /// How long a host may be silent.
    pub timeout: Duration,
    /// Joins the group.
    pub dial: Dial,
}

/// The desk of a running host.
pub struct Desk {
    name: HostName,
    handle: Handle,
    sending: Sending,
    /// The key; replaced when the configuration is read again.
    signer: Mutex<Option<Arc<dyn Signer>>>,
    /// What its datagrams are sealed with; replaced in the same way.
    group_keys: Mutex<Vec<GroupKey>>,
    busy: Mutex<Busy>,
    free: Condvar,
}

#[derive(Debug, Default)]
struct Busy {
    /// Trees of which a session is under way.
    trees: HashSet<TreeName>,
    /// What ends the work under way, and what waits.
    interrupts: Vec<Interrupt>,
    /// The host ends: nothing is begun any more.
    ending: bool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").field("name", &self.name).field("bases", &self.sending.bases).finish_non_exhaustive()
    }
}

impl Desk {
    /// The desk of the host `name` that runs behind `handle`.
    pub fn new(name: HostName, handle: Handle, sending: Sending, signer: Option<Arc<dyn Signer>>) -> Self {
        let (busy, free) = (Mutex::default(), Condvar::new());
        Self { name, handle, sending, signer: Mutex::new(signer), group_keys: Mutex::default(), busy, free }
    }

    /// This host.
    pub fn name(&self) -> &HostName {
        &self.name
    }

    /// The trees that it sends from.
    pub fn bases(&self) -> &[Base] {
        &self.sending.bases
    }

    /// Whether it sends at all.
    pub fn may_send(&self) -> bool {
        self.sending.allowed
    }

    /// The other hosts that it knows, sorted by name.
    pub fn members(&self) -> Vec<Member> {
        let mut members = self.handle.members();
        members.sort_by(|a, b| (&a.host, a.address).cmp(&(&b.host, b.address)));
        members
    }

    /// How many sessions of its own are under way, and how many of others.
    pub fn sessions(&self) -> (usize, usize) {
        (self.locked().trees.len(), self.handle.sessions())
    }

    /// Signs with another key from now on.
    pub fn sign_with(&self, signer: Option<Arc<dyn Signer>>) {
        *self.signer.lock().unwrap_or_else(PoisonError::into_inner) = signer;
    }

    /// Seals with other group keys from now on.
    pub fn seal_with(&self, keys: Vec<GroupKey>) {
        *self.group_keys.lock().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Joins the group for one session.
    fn door(&self) -> Result<Door> {
        let keys = self.group_keys.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(Door { links: (self.sending.dial)()?, keys })
    }

    /// The tree that a wish without one means.
    pub fn base(&self, tree: Option<&TreeName>, paths: &[Vec<u8>]) -> Result<&Base> {
        let bases = &self.sending.bases;
        let known = || bases.iter().map(|b| b.tree.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(tree) = tree {
            let found = bases.iter().find(|b| b.tree == *tree);
            return found.ok_or_else(|| Error::usage(format!("this host has no tree {tree}")).hint(known()));
        }
        let holds = |base: &&Base| paths.iter().any(|p| as_path(p).starts_with(&base.path));
        match bases.as_slice() {
            [] => Err(Error::usage("this host has no tree to send from")),
            [one] => Ok(one),
            all => all.iter().find(holds).or(all.iter().find(|b| b.tree.as_str() == DEFAULT_TREE)).ok_or_else(|| {
                Error::usage("this host has several trees: say which one")
                    .hint(format!("--tree with one of {}", known()))
            }),
        }
    }

    /// Does what is wanted. Waits while another session of the tree is under way.
    pub fn fulfil(&self, wish: &Wish, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        if !self.sending.allowed && wish.deed != Deed::Check {
            return Err(Error::usage("this server can't send"));
        }
        let base = self.base(wish.tree.as_ref(), &wish.paths)?;
        let work = Work::plan(self, base, wish)?;
        let _known = self.known(interrupt)?;
        let _turn = self.turn(&base.tree, interrupt)?;
        match wish.deed {
            Deed::Prune => work.prune(interrupt, observer),
            _ => work.run(interrupt, observer),
        }
    }

    /// Ends what is under way, as far as it can be taken back, and begins nothing any more.
    pub fn stop(&self) {
        let mut busy = self.locked();
        busy.ending = true;
        for interrupt in &busy.interrupts {
            interrupt.interrupt();
        }
    }

    fn known(&self, interrupt: &Interrupt) -> Result<Known<'_>> {
        let mut busy = self.locked();
        if busy.ending {
            return Err(Error::refused("the daemon ends"));
        }
        busy.interrupts.push(interrupt.clone());
        Ok(Known { desk: self, interrupt: interrupt.clone() })
    }

    fn signer(&self) -> Result<Arc<dyn Signer>> {
        let signer = self.signer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        signer.ok_or_else(|| {
            Error::usage("this host has no key to sign what it sends").hint(
                "make one with `makuo keygen -o /etc/makuo/sender.key`, name it as [sender] key in the \
                 configuration, and list its public half in the authorized_keys of the others",
            )
        })
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, Busy> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other session of the tree is under way.
    fn turn(&self, tree: &TreeName, interrupt: &Interrupt) -> Result<Turn<'_>> {
        let mut busy = self.locked();
        while !busy.trees.insert(tree.clone()) {
            if interrupt.is_asked() {
                return Err(Error::refused("interrupted before anything was sent"));
            }
            busy = self.free.wait_timeout(busy, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(Turn { desk: self, tree: tree.clone() })
    }
}

/// The right to a session of a tree; given back when it is dropped.
struct Turn<'a> {
    desk: &'a Desk,
    tree: TreeName,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.desk.locked().trees.remove(&self.tree);
        self.desk.free.notify_all();
    }
}

/// Work that ends with the host; forgotten when it is dropped.
struct Known<'a> {
    desk: &'a Desk,
    interrupt: Interrupt,
}

impl Drop for Known<'_> {
    fn drop(&mut self) {
        self.desk.locked().interrupts.retain(|other| !other.is(&self.interrupt));
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}

/// A wish with everything found that can be wrong about it.
struct Work<'a> {
    desk: &'a Desk,
    base: &'a Base,
    wish: &'a Wish,
    signer: Arc<dyn Signer>,
    named: Named,
    excludes: Vec<Exclude>,
}

impl<'a> Work<'a> {
    fn plan(desk: &'a Desk, base: &'a Base, wish: &'a Wish) -> Result<Self> {
        let root = Root::open(&base.path).map_err(|e| Error::io("cannot open the tree", &base.path, e))?;
        let deletes = matches!(wish.deed, Deed::Sync | Deed::Prune);
        let named = named(&root, &wish.paths, deletes)?;
        PathFilter::at_top(&wish.excludes).map_err(|e| Error::usage(format!("exclude pattern {e}")))?;
        check_globs(&wish.targets)?;
        let at_top = wish.excludes.iter().map(|p| Exclude { base: None, pattern: p.clone() });
        let mut excludes: Vec<Exclude> = at_top.collect();
        if !wish.recurse {
            // Only the directory itself is sent; what is deleted or compared is what is right in it.
            let pattern = if wish.deed == Deed::Send && !wish.paths.is_empty() { "/*" } else { "/*/" };
            let bases: Vec<Option<TreePath>> = match named.paths.is_empty() {
                true => vec![None],
                false => named.dirs.iter().cloned().map(Some).collect(),
            };
            excludes.extend(bases.into_iter().map(|base| Exclude { base, pattern: pattern.into() }));
        }
        Ok(Self { desk, base, wish, signer: desk.signer()?, named, excludes })
    }

    fn deletes(&self) -> bool {
        matches!(self.wish.deed, Deed::Sync | Deed::Prune)
    }

    fn spec(&self, scope: &[TreePath]) -> Result<Spec> {
        let mut spec = Spec::parse("source = \".\"\n", Path::new("ad hoc"))?;
        spec.tree = self.base.tree.clone();
        spec.source.clone_from(&self.base.path);
        spec.delete.extras = self.deletes();
        // Whoever names a path and what to do there means it; whoever names nothing may have forgotten something.
        spec.delete.allow_empty = !scope.is_empty();
        let most = if scope.is_empty() { spec.delete.max } else { Limit::NONE };
        spec.delete.max = self.wish.max_delete.unwrap_or(most);
        spec.transfer.rate = self.desk.sending.rate;
        if let Some(group) = &self.wish.group {
            spec.owner.group = OwnerPolicy::Fixed(group.clone());
        }
        Ok(spec)
    }

    fn options(&self, purpose: Purpose, scope: &[TreePath]) -> Result<Options> {
        Ok(Options {
            spec: self.spec(scope)?,
            purpose,
            only: self.wish.targets.clone(),
            signer: Arc::clone(&self.signer),
            name: self.desk.name.clone(),
            timeout: self.desk.sending.timeout,
            checksum: self.wish.checksum,
            cache: self.base.cache.clone(),
            part: Part {
                scope: scope.to_vec(),
                excludes: self.excludes.clone(),
                without_top: true,
                owner: self.desk.sending.owner,
                listed: self.wish.files,
            },
            lists: self.wish.lists || !self.named.missing.is_empty(),
            beside: Some(self.desk.handle.clone()),
        })
    }

    fn session(&self, options: Options, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        deploy::run(self.desk.door()?, options, interrupt, observer)
    }

    fn run(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let purpose = match (self.wish.deed, self.wish.dry_run) {
            (Deed::Check, _) => Purpose::Diff,
            (_, true) => Purpose::DryRun,
            (_, false) => Purpose::Deploy,
        };
        let outcome = self.session(self.options(purpose, &self.named.paths)?, interrupt, observer)?;
        self.check_missing(&outcome)?;
        Ok(outcome)
    }

    /// A path that is nowhere is a mistake.
    fn check_missing(&self, outcome: &Outcome) -> Result<()> {
        let lines = || outcome.drift.iter().flat_map(|group| &group.lines);
        let deleted = |path: &TreePath| lines().any(|l| crate::manifest::path::is_within(&l.path, path.as_bytes()));
        match self.named.missing.iter().find(|path| !deleted(path)) {
            Some(path) if outcome.exit == ExitStatus::Success => Err(no_such(path)),
            _ => Ok(()),
        }
    }

    /// Deletes what is extra and changes nothing else: what the hosts have beyond the source is asked for, and becomes
    /// the scope of a release that has nothing in it. Hosts with the same extras get it together.
    fn prune(&self, interrupt: &Interrupt, observer: &mut dyn Observer) -> Result<Outcome> {
        let mut found = self.session(self.options(Purpose::DryRun, &self.named.paths)?, interrupt, observer)?;
        for group in &mut found.drift {
            group.lines.retain(|line| line.what == What::Extra);
            (group.changed, group.missing) = (0, 0);
        }
        found.drift.retain(|group| !group.is_empty());
        self.check_missing(&found)?;
        if self.wish.dry_run || found.exit.code() != 0 {
            return Ok(found);
        }
        // Whoever has nothing extra is as it should be.
        for host in &mut found.hosts {
            host.state = if host.state == HostState::Diffed { HostState::Unchanged } else { host.state };
        }
        found.purpose = Purpose::Deploy;
        for group in found.drift.clone() {
            for scope in scopes(&group) {
                let done = self.session(self.pruning(&group, &scope)?, interrupt, observer)?;
                add(&mut found, done);
            }
        }
        let error = found.error.take();
        let mut found = found.settle();
        found.error = error;
        Ok(found)
    }

    fn pruning(&self, group: &DriftGroup, scope: &[TreePath]) -> Result<Options> {
        let mut options = self.options(Purpose::Deploy, scope)?;
        if group.hosts.len() <= MAX_PATTERNS {
            options.spec.targets.hosts = group.hosts.iter().map(ToString::to_string).collect();
            options.only = Vec::new();
        }
        options.part.listed = false;
        options.lists = false;
        Ok(options)
    }
}

/// Adds what a later session came to at the hosts that it was for.
fn add(found: &mut Outcome, done: Outcome) {
    for host in done.hosts {
        match found.hosts.iter_mut().find(|known| known.host == host.host) {
            // A failure stays one.
            Some(known) if known.state.is_trouble() => {}
            Some(known) => {
                let (deleted, written) = (known.files_deleted, known.files_written);
                *known = host;
                known.files_deleted += deleted;
                known.files_written += written;
            }
            None => found.hosts.push(host),
        }
    }
    found.serial = done.serial.or(found.serial);
    found.bytes_sent = crate::units::ByteSize(found.bytes_sent.0.saturating_add(done.bytes_sent.0));
    found.took += done.took;
    found.error = found.error.take().or(done.error);
}

/// The most bytes of the paths of one scope.
const MAX_SCOPE: usize = 32 << 10;

/// What is extra, the topmost of it, in lists that a header takes.
fn scopes(group: &DriftGroup) -> Vec<Vec<TreePath>> {
    let mut scopes: Vec<Vec<TreePath>> = Vec::new();
    let (mut bytes, mut last): (usize, Option<TreePath>) = (0, None);
    for line in &group.lines {
        let Ok(path) = TreePath::new(line.path.as_slice()) else { continue };
        if last.as_ref().is_some_and(|last| path.is_within(last)) {
            continue;
        }
        bytes += path.as_bytes().len() + 8;
        match scopes.last_mut() {
            Some(scope) if scope.len() < MAX_PATTERNS && bytes <= MAX_SCOPE => scope.push(path.clone()),
            _ => {
                bytes = path.as_bytes().len() + 8;
                scopes.push(vec![path.clone()]);
            }
        }
        last = Some(path);
    }
    scopes
}

fn check_globs(targets: &[String]) -> Result<()> {
    for pattern in targets {
        globset::Glob::new(pattern)
            .map_err(|e| Error::usage(format!("{}: {}", crate::units::printable(pattern.as_bytes()), e.kind())))?;
    }
    Ok(())
}
