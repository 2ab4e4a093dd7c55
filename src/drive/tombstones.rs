//! Orders to abort or revert a release that outlive their session: verified, kept in the tree's state, and carried out
//! where the release is in place.

use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Sender as Outbox, channel};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use super::clock;
use super::disk::{Host, ManagedTree, reason};
use crate::Result;
use crate::error::Error;
use crate::hook::{Cause, HookContext, Phase};
use crate::keys::{Namespace, Role, verify};
use crate::proto::receiver::ReasonText;
use crate::tree::StoredRelease;
use crate::wire::message::{Order, SignedOrder};

/// The thread that verifies and keeps such orders: writing is not the network's business, and no session is waited for.
#[derive(Debug)]
pub(super) struct Gravedigger {
    /// `None` once the thread is to end.
    orders: Option<Outbox<SignedOrder>>,
    thread: Option<JoinHandle<()>>,
}

impl Gravedigger {
    /// Starts it; `done` is told of each order whether it holds.
    pub(super) fn start(
        host: Arc<Host>,
        done: impl Fn(SignedOrder, bool) + Send + 'static,
    ) -> Self {
        let (orders, inbox): (_, mpsc::Receiver<SignedOrder>) = channel();
        let work = move || {
            for order in inbox {
                let holds = match bury(&host, &order) {
                    Ok(()) => true,
                    Err(e) => {
                        tracing::debug!("an order to take a release back is left alone: {e}");
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
            tracing::warn!("releases that are taken back come back: no thread: {e}")
        });

        Self {
            orders: Some(orders),
            thread: thread.ok(),
        }
    }

    /// Hands an order on.
    pub(super) fn take(&self, order: SignedOrder) {
        // It is heard again.
        let _ = self.orders.as_ref().map(|orders| orders.send(order));
    }
}

impl Drop for Gravedigger {
    fn drop(&mut self) {
        self.orders = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Keeps an order to abort or revert a release, when it is by a key that may put or take back releases of the tree.
fn bury(host: &Host, signed: &SignedOrder) -> Result<()> {
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

    // Where the release is known, only who signed it takes it back.
    let stored = managed
        .tree
        .release(stone.serial)?
        .filter(|stored| stored.release.id() == stone.release);

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
            "{tree}@{}: it was {what} by its sender: nobody takes it any more",
            stone.serial
        );
    }

    Ok(())
}

/// Goes back behind the tree's present release when that was taken back and what it replaced is still there.
pub(super) fn go_back(host: &Host, managed: &ManagedTree) {
    match try_to_go_back(host, managed) {
        Ok(()) => {}
        Err(e) => tracing::error!(
            "tree {}: its release was taken back, and it has it still: {e}",
            managed.tree.name()
        ),
    }
}

fn try_to_go_back(host: &Host, managed: &ManagedTree) -> Result<()> {
    let tree = &managed.tree;
    let Some(current) = tree.current()? else {
        return Ok(());
    };

    let (release, id) = (&current.release, current.release.id());
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
        tracing::warn!(
            "{release}: it was taken back, and what it replaced is not here any more: {next}"
        );
        return Ok(());
    }

    tree.revert()?;
    let previous = tree.current()?.map(|stored| stored.release.header().serial);
    tracing::warn!("{release}: it was taken back while this host was away: went back as well");
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

    if let Some(Err(failure)) = managed
        .hooks
        .run(Phase::After, &occasion, &AtomicBool::new(false))
    {
        tracing::warn!("{release}: after it was taken back: {failure}");
    }

    Ok(())
}

/// Why a release that was taken back is not taken.
pub(super) fn check(
    managed: &ManagedTree,
    release: &crate::manifest::Release,
) -> std::result::Result<(), ReasonText> {
    match managed
        .tree
        .state()
        .tombstone(release.id())
        .map_err(|e| reason(&e))?
    {
        Some(_) => Err(format!(
            "{release} was taken back by its sender: release again"
        )),
        None => Ok(()),
    }
}
