//! What a running host does for those who ask at its sockets: ad hoc releases out of its own trees, audits, members.
//!
//! An ad hoc release is one like any other, with the paths that were named as its scope and this host's own key under it.
//! The host itself takes no part: its tree is the source. Must not know how the asking looks: console and control socket
//! bring a [`Wish`] and an observer. [`work`] makes sessions of it.

mod wish;
mod work;

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

pub use wish::{Deed, Wish};

use super::deploy::Interrupt;
use super::endpoint::Door;
use super::host::Handle;
use super::outcome::{Member, Observer, Outcome};
use crate::id::{HostName, TreeName};
use crate::keys::{GroupKey, Signer};
use crate::net::LinkSet;
use crate::spec::DEFAULT_TREE;
use crate::tree::Root;
use crate::units::Rate;
use crate::{Error, Result};
use work::Work;

/// How often one who waits for another's session looks whether he is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// The directory of a tree's state in which it is remembered what was sent.
pub const SENT: &str = "sent";

/// Joins the group for one session.
pub type Dial = Box<dyn Fn() -> Result<LinkSet> + Send + Sync>;

/// A tree to send from.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its name.
    pub tree: TreeName,
    /// Its directory.
    pub path: PathBuf,
    /// The directory as it was opened when the host started, of a tree that takes nothing of others.
    pub alone: Option<Arc<Root>>,
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
    /// Whether a host that shows another key than before is kept out.
    pub strict: bool,
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
    /// How many parts of a tree are to come before it is looked again whether they can be merged.
    until_merge: HashMap<TreeName, usize>,
    /// What ends the work under way, and what waits.
    interrupts: Vec<Interrupt>,
    /// The host ends: nothing is begun any more.
    ending: bool,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("name", &self.name)
            .field("bases", &self.sending.bases)
            .finish_non_exhaustive()
    }
}

impl Desk {
    /// The desk of the host `name` that runs behind `handle`.
    pub fn new(
        name: HostName,
        handle: Handle,
        sending: Sending,
        signer: Option<Arc<dyn Signer>>,
    ) -> Self {
        let (busy, free) = (Mutex::default(), Condvar::new());
        Self {
            name,
            handle,
            sending,
            signer: Mutex::new(signer),
            group_keys: Mutex::default(),
            busy,
            free,
        }
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

    /// The running host.
    pub(super) fn handle(&self) -> Handle {
        self.handle.clone()
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
        *self
            .group_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Joins the group for one session.
    pub(super) fn door(&self) -> Result<Door> {
        let keys = self
            .group_keys
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let links = (self.sending.dial)()?;
        Ok(Door {
            links,
            keys,
            reopen: None,
        })
    }

    /// The directory of `base`, whatever its path leads to; refused when that is another one than when it was opened.
    fn root(&self, base: &Base) -> Result<Arc<Root>> {
        if let Some(tree) = self.handle.tree(&base.tree) {
            return tree.root_to_send();
        }

        let Some(root) = &base.alone else {
            return Err(Error::refused(format!(
                "tree {} is not served: the log says why",
                base.tree
            )));
        };

        match root.still_there() {
            Ok(true) => Ok(Arc::clone(root)),
            Ok(false) => Err(Error::refused(format!(
                "{} is not the directory any more that was opened",
                base.path.display()
            ))
            .hint("it was moved or replaced: put it back, or restart the daemon")),
            Err(e) => Err(Error::io("cannot look at the tree", &base.path, e)),
        }
    }

    /// The tree that a wish without one means.
    pub fn base(&self, tree: Option<&TreeName>, paths: &[Vec<u8>]) -> Result<&Base> {
        let bases = &self.sending.bases;
        let known = || {
            bases
                .iter()
                .map(|b| b.tree.as_str())
                .collect::<Vec<_>>()
                .join(", ")
        };

        if let Some(tree) = tree {
            let found = bases.iter().find(|b| b.tree == *tree);
            return found.ok_or_else(|| {
                Error::usage(format!("this host has no tree {tree}")).hint(known())
            });
        }

        let holds = |base: &&Base| paths.iter().any(|p| as_path(p).starts_with(&base.path));
        match bases.as_slice() {
            [] => Err(Error::usage("this host has no tree to send from")),
            [one] => Ok(one),
            all => all
                .iter()
                .find(holds)
                .or(all.iter().find(|b| b.tree.as_str() == DEFAULT_TREE))
                .ok_or_else(|| {
                    Error::usage("this host has several trees: say which one")
                        .hint(format!("--tree with one of {}", known()))
                }),
        }
    }

    /// Does what is wanted. Waits while another session of the tree is under way.
    pub fn fulfil(
        &self,
        wish: &Wish,
        interrupt: &Interrupt,
        observer: &mut dyn Observer,
    ) -> Result<Outcome> {
        if !self.sending.allowed && wish.deed != Deed::Check {
            return Err(Error::usage("this server can't send"));
        }

        let base = self.base(wish.tree.as_ref(), &wish.paths)?;
        let work = Work::plan(self, base, wish)?;
        let _known = self.known(interrupt)?;
        let _turn = self.turn(&base.tree, interrupt)?;

        work.fulfil(interrupt, observer)
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
        Ok(Known {
            desk: self,
            interrupt: interrupt.clone(),
        })
    }

    fn signer(&self) -> Result<Arc<dyn Signer>> {
        let signer = self
            .signer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        signer.ok_or_else(|| {
            Error::usage("this host has no key to sign what it sends").hint(
                "make one with `makuo keygen -o /etc/makuo/sender.key`, name it as [sender] key in the \
                 configuration, and list its public half in the authorized_keys of the others",
            )
        })
    }

    /// Whether it is time to look whether parts of `tree` can be merged, of which one more has come.
    fn may_merge(&self, tree: &TreeName) -> bool {
        let mut busy = self.locked();
        let Some(left) = busy.until_merge.get_mut(tree) else {
            return true;
        };
        *left = left.saturating_sub(1);
        *left == 0
    }

    /// Looks again after `parts` further ones.
    fn merge_after(&self, tree: &TreeName, parts: usize) {
        self.locked().until_merge.insert(tree.clone(), parts);
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
            busy = self
                .free
                .wait_timeout(busy, LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }

        Ok(Turn {
            desk: self,
            tree: tree.clone(),
        })
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
        self.desk
            .locked()
            .interrupts
            .retain(|other| !other.is(&self.interrupt));
    }
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(<OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(bytes))
}
