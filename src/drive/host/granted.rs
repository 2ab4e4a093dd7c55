//! The check of a release from elsewhere, before anything of it is loaded: the one that an offer
//! of it has to pass as well.

use super::authorize::{check_allowed, check_catch_up, check_grant, check_signatures};
use super::shared::LocalHost;
use super::tombstones;
use crate::drive::clock;
use crate::keys::{Namespace, PublicKey, verify};
use crate::manifest::Release;
use crate::proto::receiver::{ReasonText, is_target};
use crate::wire::message::SignedOrder;

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
    ) -> Result<Permitted, ReasonText> {
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
                Err(other) => why = other,
            }
        }
        Err(why)
    }
}
