//! One look at the host or its fleet, shared by all who ask soon after each other: many clients
//! cost no more than one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// The latest result of a look.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    /// Age up to which a result is used again.
    interval: Duration,
    latest: Mutex<Option<(Instant, Arc<T>)>>,
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// No result yet; each is used again for `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            latest: Mutex::new(None),
        }
    }

    /// The latest result, or that of a new `look`, which may block. `None` if it failed.
    pub(super) async fn get(
        &self,
        look: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Option<Arc<T>> {
        // Others wait here for the look of the first.
        let mut latest = self.latest.lock().await;
        if let Some((at, found)) = &*latest
            && at.elapsed() < self.interval
        {
            return Some(Arc::clone(found));
        }

        let found = Arc::new(tokio::task::spawn_blocking(look).await.ok()??);
        *latest = Some((Instant::now(), Arc::clone(&found)));
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn those_who_ask_together_share_a_look() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a loop").block_on(async {
            let snapshot = Snapshot::new(Duration::from_secs(60));
            let looks = Arc::new(AtomicU32::new(0));
            let look = || {
                let looks = Arc::clone(&looks);
                snapshot.get(move || Some(looks.fetch_add(1, Ordering::Relaxed)))
            };
            let (a, b) = tokio::join!(look(), look());
            assert_eq!((a.as_deref(), b.as_deref()), (Some(&0), Some(&0)));

            *snapshot.latest.lock().await = None;
            assert_eq!(look().await.as_deref(), Some(&1));
            *snapshot.latest.lock().await = None;
            assert_eq!(snapshot.get(|| None::<u32>).await, None);
        });
    }
}
