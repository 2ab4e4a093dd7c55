//! A release that stays staged after its session, until a later session commits it.

use super::authorize::check_allowed;
use super::offer::AdmittedOffer;
use crate::drive::clock;
use crate::proto::receiver::{Ordered, ReasonText};

/// Keeps a complete release staged, if its key still may.
pub(super) fn keep_staged(offer: &AdmittedOffer<'_>) -> Ordered {
    let now = clock::wall_seconds();
    let tree = &offer.managed.tree;
    let release = &offer.release;
    let kept = check_allowed(offer.host, &offer.key, release, now).and_then(|()| {
        let kept = tree.keep_staged(release, &offer.signature, now);
        kept.map_err(|e| e.with_hint())
    });

    match kept {
        Ok(replaced) => {
            let replaced = replaced.map(|serial| format!("in place of {}@{serial}", tree.name()));
            let text = replaced.as_deref().map(|text| format!(", {text}"));
            let text = text.unwrap_or_default();
            tracing::info!("{release}: stays staged until it is committed{text}");
            Ordered::Staged(replaced)
        }
        Err(why) => Ordered::Failed(why),
    }
}

/// Forgets an aborted release that was kept staged.
pub(super) fn forget_staged(offer: &AdmittedOffer<'_>) -> Result<(), ReasonText> {
    let forgotten = offer.managed.tree.forget_if_staged(&offer.release);
    forgotten.map_err(|e| e.with_hint())
}
