//! One look at the host or its fleet, shared by requests within an interval: many clients cost no
//! more than one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

/// Time and result of a look.
type Latest<T> = Arc<Mutex<Option<(Instant, Option<Arc<T>>)>>>;

/// The latest result of a look.
#[derive(Debug)]
pub(super) struct Snapshot<T> {
    /// Age up to which a result is used again.
    interval: Duration,
    /// Snapshots that share it look one after another.
    turns: Arc<Semaphore>,
    latest: Latest<T>,
}

impl<T: Send + Sync + 'static> Snapshot<T> {
    /// No result yet; each is used again for `interval`.
    pub(super) fn new(interval: Duration) -> Self {
        Self::in_turn(interval, Arc::new(Semaphore::new(1)))
    }

    /// Like [`Self::new`]; looks only while it holds a permit of `turns`.
    pub(super) fn in_turn(interval: Duration, turns: Arc<Semaphore>) -> Self {
        Self {
            interval,
            turns,
            latest: Arc::default(),
        }
    }

    /// The latest result, or that of a new `look`, which may block. `None` if it failed.
    pub(super) async fn get(
        &self,
        look: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> Option<Arc<T>> {
        let (latest, interval) = (Arc::clone(&self.latest), self.interval);
        let turns = Arc::clone(&self.turns);
        // A client that leaves does not end the look: otherwise many could be under way.
        let asked = tokio::spawn(async move {
            // Others wait here for the look of the first.
            let mut latest = latest.lock().await;
            if let Some((at, found)) = &*latest
                && at.elapsed() < interval
            {
                return found.clone();
            }

            let turn = turns.acquire_owned().await.ok()?;
            let found = tokio::task::spawn_blocking(look).await.ok().flatten();
            let found = found.map(Arc::new);
            drop(turn);

            // A failure is shared as well.
            *latest = Some((Instant::now(), found.clone()));
            found
        });

        asked.await.ok().flatten()
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
            assert_eq!(look().await, None, "a failure is shared");
        });
    }

    #[test]
    fn one_who_leaves_leaves_the_look_to_the_others() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a loop").block_on(async {
            let snapshot = Snapshot::new(Duration::from_secs(60));
            let (go, wait) = std::sync::mpsc::channel::<()>();
            let first = snapshot.get(move || wait.recv().ok().map(|()| 1));
            assert!(tokio::time::timeout(Duration::ZERO, first).await.is_err());

            go.send(()).expect("it looks");
            assert_eq!(snapshot.get(|| Some(2)).await.as_deref(), Some(&1));
        });
    }

    #[test]
    fn snapshots_that_share_turns_look_one_after_another() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("a loop").block_on(async {
            let turns = Arc::new(Semaphore::new(1));
            let under_way = Arc::new(AtomicU32::new(0));
            let look = |_| {
                let interval = Duration::from_secs(60);
                let snapshot = Snapshot::in_turn(interval, Arc::clone(&turns));
                let under_way = Arc::clone(&under_way);
                let look = move || {
                    let others = under_way.fetch_add(1, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(20));
                    under_way.fetch_sub(1, Ordering::SeqCst);
                    Some(others)
                };
                tokio::spawn(async move { snapshot.get(look).await })
            };

            let looks: Vec<_> = (0..4).map(look).collect();
            for look in looks {
                let others = look.await.expect("no panic");
                assert_eq!(others.as_deref(), Some(&0), "a look beside another");
            }
        });
    }
}
