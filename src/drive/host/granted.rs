//! Orders from elsewhere: the check of a release before anything of it is loaded, the one that an
//! offer of it has to pass as well, and the order for all hosts to commit the release in place.

use super::authorize::{check_allowed, check_catch_up, check_grant, check_signatures};
use super::managed::ManagedTree;
use super::shared::LocalHost;
use super::tombstones;
use crate::drive::clock;
use crate::keys::{Namespace, PublicKey, verify};
use crate::manifest::Release;
use crate::manifest::node::to_vec;
use crate::proto::receiver::{ReasonText, is_target};
use crate::wire::message::{Order, SignedOrder};
use crate::{Error, Result};

/// A release that this host may take.
#[derive(Debug, Clone)]
pub struct Permitted {
    /// The key that signed it.
    pub key: PublicKey,
    /// The order by which this host commits it.
    pub order: SignedOrder,
}

impl LocalHost {
    /// Checks whether this host may take `release` now, by one of `orders`.
    pub fn permits(
        &self,
        release: &Release,
        signature: &[u8],
        orders: &[SignedOrder],
    ) -> std::result::Result<Permitted, ReasonText> {
        let key = verify(Namespace::RELEASE, release.bytes(), signature)
            .map_err(|e| format!("the release is not signed: {e}"))?;
        check_allowed(self, &key, release, clock::wall_seconds())?;
        check_signatures(self, release, signature, clock::wall_seconds())?;
        if !is_target(release, &self.name, Some(&self.labels())) {
            return Err(format!("it is for other hosts than {}", self.name));
        }

        let tree = &release.header().tree;
        let managed = self
            .trees
            .get(tree)
            .ok_or_else(|| format!("there is no tree {tree} here"))?;
        check_catch_up(&managed.tree, release)?;
        tombstones::check(managed, release)?;

        let mut why = "no order to commit it came with it".to_string();
        for order in orders {
            match check_grant(self, &key, release, order) {
                Ok(()) => {
                    let order = order.clone();
                    return Ok(Permitted { key, order });
                }
                Err(other) => why = other.why,
            }
        }
        Err(why)
    }
}

/// Keeps an order by which every host may commit the release in place, to pass the release on to
/// hosts that were away.
pub(super) fn keep_order(
    host: &LocalHost,
    managed: &ManagedTree,
    signed: &SignedOrder,
) -> Result<()> {
    let tree = &managed.tree;
    let order = Order::decode(&signed.order).filter(Order::commits_everywhere);
    let order = order.ok_or_else(|| Error::refused("it is no order for all hosts to commit"))?;
    let current = tree.current()?;
    let current = current
        .filter(|current| current.release.id() == order.release)
        .ok_or_else(|| Error::refused("its release is not in place here"))?;

    let by = verify(
        Namespace::RELEASE,
        current.release.bytes(),
        &current.signature,
    );
    let by = by.map_err(|e| Error::refused("the release in place is not signed").because(e))?;
    check_grant(host, &by, &current.release, signed).map_err(|e| Error::refused(e.why))?;

    let serial = current.release.header().serial;
    let kept = tree.state().grant(serial)?;
    let kept = kept.and_then(|bytes| minicbor::decode::<SignedOrder>(&bytes).ok());
    let kept = kept.and_then(|kept| Order::decode(&kept.order));
    if kept.is_some_and(|kept| kept.release == order.release && kept.commits_everywhere()) {
        return Ok(());
    }
    tree.keep_grant(serial, Some(&to_vec(signed)))
}
