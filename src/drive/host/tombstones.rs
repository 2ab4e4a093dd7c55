//! Tombstones: orders to abort or revert a release that outlive their session.
//!
//! Verifies and stores them in the tree's state, and reverts the release where it is in place.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender as Outbox, channel};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::managed::ManagedTree;
use super::shared::LocalHost;
use crate::Result;
use crate::drive::clock;
use crate::error::Error;
use crate::hook::{Cause, HookContext, Phase};
use crate::keys::{Namespace, Role, verify};
use crate::proto::receiver::ReasonText;
use crate::tree::StoredRelease;
use crate::wire::message::{Order, SignedOrder};

/// The thread that verifies and stores tombstones, apart from the network loop and from sessions.
#[derive(Debug)]
pub(super) struct TombstoneKeeper {
    /// `None` once the thread has to end.
    orders: Option<Outbox<SignedOrder>>,
    thread: Option<JoinHandle<()>>,
}

impl TombstoneKeeper {
    /// Starts the thread, which calls `done` with each order's validity.
    pub(super) fn start(
        host: Arc<LocalHost>,
        done: impl Fn(SignedOrder, bool) + Send + 'static,
    ) -> Self {
        let (orders, inbox): (_, mpsc::Receiver<SignedOrder>) = channel();
        let work = move || {
            for order in inbox {
                let holds = match bury(&host, &order) {
                    Ok(()) => true,
                    Err(e) => {
                        tracing::debug!("ignoring an order to revert a release: {e}");
                        false
                    }
                };
                done(order, holds);
            }
        };

        let thread = std::thread::Builder::new()
            .name("tombstones".into())
            .spawn(work);
        let thread = thread.inspect_err(|e| {
            tracing::warn!(
                "cannot start the thread for tombstones, so reverted releases may return: {e}"
            )
        });

        Self {
            orders: Some(orders),
            thread: thread.ok(),
        }
    }

    /// Queues an order.
    pub(super) fn take(&self, order: SignedOrder) {
        // A lost order arrives again.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for TombstoneKeeper {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Stores an order to abort or revert a release, if the key may roll back the tree.
fn bury(host: &LocalHost, signed: &SignedOrder) -> Result<()> {
    let key = verify(Namespace::ORDER, &signed.order, &signed.signature)
        .map_err(|e| Error::refused("the order is not signed").because(e))?;
    let order = Order::decode(&signed.order);
    let named = order.as_ref().and_then(Order::tombstone);
    let (tree, stone) =
        named.ok_or_else(|| Error::refused("no order to abort or revert a release"))?;
    let managed = host
        .trees
        .get(tree)
        .ok_or_else(|| Error::refused(format!("there is no tree {tree} here")))?;

    host.keys()
        .allows(&key, tree, Role::Rollback, clock::wall_seconds())
        .map_err(|e| Error::refused(e.to_string()))?;

    // A known release can be reverted only by the original key.
    let staged = managed.tree.awaiting()?.map(|found| found.stored);
    let known = managed.tree.release(stone.serial)?.into_iter();
    let stored = known
        .chain(staged)
        .find(|stored| stored.release.id() == stone.release);

    if let Some(StoredRelease { release, signature }) = stored
        && verify(Namespace::RELEASE, release.bytes(), &signature).ok() != Some(key)
    {
        return Err(Error::refused(format!(
            "{release} was signed by another key than the order"
        )));
    }

    if managed.tree.bury(signed, clock::wall())? {
        let what = if stone.revert {
            "taken back"
        } else {
            "stopped"
        };
        tracing::info!(
            "{tree}@{}: {what} by its sender: no host takes it any more",
            stone.serial
        );
    }

    Ok(())
}

/// Reverts the current release if it has a tombstone and the previous content still exists.
pub(super) fn go_back(host: &LocalHost, managed: &ManagedTree) {
    match try_to_go_back(host, managed) {
        Ok(()) => {}
        Err(e) => tracing::error!(
            "tree {}: cannot go back from its reverted release: {e}",
            managed.tree.name()
        ),
    }
}

fn try_to_go_back(host: &LocalHost, managed: &ManagedTree) -> Result<()> {
    let tree = &managed.tree;
    let Some(current) = tree.current()? else {
        return Ok(());
    };

    let release = &current.release;
    let id = current.release.id();
    if !tree
        .state()
        .tombstone(id)?
        .is_some_and(|stone| stone.revert)
    {
        return Ok(());
    }

    if tree.revertible()? != Some(release.header().serial) {
        let next = match managed.catch_up.takes() {
            true => "it takes what other hosts have",
            false => {
                "deploy again, or roll back: this host takes no release from others (catch_up)"
            }
        };
        tracing::warn!("{release} was taken back, and the previous content is gone: {next}");
        return Ok(());
    }

    tree.revert()?;
    let previous = tree.current()?.map(|stored| stored.release.header().serial);
    tracing::warn!("{release} was taken back while this host was away: went back as well");
    let occasion = HookContext {
        tree: tree.name().clone(),
        serial: release.header().serial,
        previous,
        release: id,
        path: tree.root().path().to_path_buf(),
        host: host.name.clone(),
        sender: None,
        cause: Cause::Revert,
    };

    if let Some(Err(failure)) =
        managed
            .rules()
            .hooks
            .run(Phase::After, &occasion, &AtomicBool::new(false))
    {
        tracing::warn!("{release}: after it was taken back: {failure}");
    }

    Ok(())
}

/// Refuses a release with a tombstone.
pub(super) fn check(
    managed: &ManagedTree,
    release: &crate::manifest::Release,
) -> std::result::Result<(), ReasonText> {
    match managed
        .tree
        .state()
        .tombstone(release.id())
        .map_err(|e| e.with_hint())?
    {
        Some(_) => Err(format!(
            "{release} was taken back by its sender: release again"
        )),
        None => Ok(()),
    }
}
