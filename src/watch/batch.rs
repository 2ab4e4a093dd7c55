//! Groups changes into batches: timestamped events go in, batches come out.
//!
//! Pure: time is an argument. Owns the changes since the last batch, the quiet period, the maximum
//! delay and the files still being written. Knows neither the source of events nor the use of a
//! batch.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::manifest::TreePath;
use crate::tree::scan::Hints;
use crate::units::Moment;

/// Largest number of paths in a batch; beyond it the whole tree is rescanned.
pub const MAX_PATHS: usize = 200_000;
/// Idle time after which an open file counts as written.
pub const HELD_IDLE: Duration = Duration::from_secs(15);
/// Longest time that a busy open file is held back, so that a log that is never closed is still
/// sent now and then.
pub const HELD_MOST: Duration = Duration::from_secs(600);

/// Delay after a write without a close before checking whether the file is open at all: truncate(2)
/// opens nothing.
pub const OPEN_CHECK_AFTER: Duration = Duration::from_millis(200);
/// Shortest interval between two checks whether the same file is open.
pub const OPEN_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// Largest number of files checked at once.
const MAX_OPEN_CHECKS: usize = 256;

/// Timing of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Quiet time that completes a batch.
    pub settle: Duration,
    /// Longest time from the first change to the end of the batch. A file being written can hold
    /// the batch open as long.
    pub max_delay: Duration,
}

/// Reason for a full rescan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RescanCause {
    /// Some changes were missed, or were too many to list.
    Missed,
    /// An operator requested the rescan, or the spec changed; hosts rescan as well.
    Asked,
}

/// Scope of the scan for the next release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeBatch {
    /// Only the listed paths.
    Paths(PathBatch),
    /// The whole source.
    Everything(RescanCause),
}

/// Changed paths of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathBatch {
    /// Paths that may have changed, in no order.
    pub paths: HashSet<TreePath>,
    /// Whether the tree's root directory may have changed.
    pub top: bool,
    /// Files still being written.
    pub held: HashSet<TreePath>,
}

impl PathBatch {
    /// Converts the batch to hints for a scan.
    pub fn hints(self) -> Hints {
        Hints {
            paths: self.paths.into_iter().collect(),
            top: self.top,
            held: self.held.into_iter().collect(),
            everywhere: None,
        }
    }
}

/// File that is being written.
#[derive(Debug, Clone, Copy)]
struct Writing {
    since: Moment,
    last: Moment,
    /// Time of the next check whether the file is open; a further write postpones the check.
    ask: Option<Moment>,
}

/// Collects changes until a batch is complete.
#[derive(Debug)]
pub struct Batcher {
    pace: Pace,
    /// Changed paths, without files being written.
    paths: HashSet<TreePath>,
    top: bool,
    everything: Option<RescanCause>,
    writing: HashMap<TreePath, Writing>,
    /// Files held open for too long; not held back again until a batch includes them.
    overdue: HashSet<TreePath>,
    /// Time of the first change since the last batch.
    first: Option<Moment>,
    /// Time of the latest change.
    last: Moment,
}

impl Batcher {
    /// Creates a batcher without changes.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            paths: HashSet::new(),
            top: false,
            everything: None,
            writing: HashMap::new(),
            overdue: HashSet::new(),
            first: None,
            last: Moment(0),
        }
    }

    /// Returns whether the path is already recorded, so that another event only updates the time.
    pub fn knows(&self, path: &[u8]) -> bool {
        self.everything.is_some() || self.paths.contains(path) || self.writing.contains_key(path)
    }

    /// Records that the path may have changed, appeared or disappeared.
    pub fn touched(&mut self, now: Moment, path: &TreePath) {
        if !self.writing.contains_key(path) {
            self.stamp(now);
            self.add(path);
        }
    }

    /// Like [`Batcher::touched`], for a path that is already [recorded](Batcher::knows).
    pub fn again(&mut self, now: Moment, path: &[u8]) {
        if !self.writing.contains_key(path) {
            self.stamp(now);
        }
    }

    /// Records that the tree's root directory may have changed.
    pub fn top(&mut self, now: Moment) {
        self.stamp(now);
        self.top = true;
    }

    /// Records a write to a file that is still open.
    pub fn wrote(&mut self, now: Moment, path: &TreePath) {
        if let Some(writing) = self.writing.get_mut(path) {
            writing.last = now;
            return;
        }

        if self.overdue.contains(path) {
            return;
        }

        // A file written repeatedly must not postpone the batch: the first change stays the first.
        self.first.get_or_insert(now);
        self.paths.remove(path);
        self.writing.insert(
            path.clone(),
            Writing {
                since: now,
                last: now,
                ask: Some(now + OPEN_CHECK_AFTER),
            },
        );

        // Changes that are already waiting wait for this one, as for any other.
        if self.is_ready() {
            self.last = now;
        }
    }

    /// Like [`Batcher::wrote`], for a file already recorded as being written; returns false for any
    /// other.
    pub fn wrote_again(&mut self, now: Moment, path: &[u8]) -> bool {
        let Some(writing) = self.writing.get_mut(path) else {
            return false;
        };

        writing.last = now;
        writing.ask = writing.ask.map_or(Some(now + OPEN_CHECK_INTERVAL), |ask| {
            Some(ask.max(now + OPEN_CHECK_AFTER))
        });
        true
    }

    /// Returns whether the file is recorded as being written.
    pub fn is_written(&self, path: &TreePath) -> bool {
        self.writing.contains_key(path)
    }

    /// Time at which [`Batcher::take_open_checks`] is due.
    pub fn open_check_at(&self) -> Option<Moment> {
        self.writing
            .values()
            .filter_map(|writing| writing.ask)
            .min()
    }

    /// Returns written but unclosed files that are due for a check whether any process has them
    /// open. The caller reports a file that nobody has open as [closed](Batcher::closed).
    pub fn take_open_checks(&mut self, now: Moment) -> Vec<TreePath> {
        let due = self
            .writing
            .iter_mut()
            .filter(|(_, writing)| writing.ask.is_some_and(|ask| ask <= now));
        let asked = due.take(MAX_OPEN_CHECKS).map(|(path, writing)| {
            writing.ask = None;
            path.clone()
        });
        asked.collect()
    }

    /// Records that the writer closed the file.
    pub fn closed(&mut self, now: Moment, path: &TreePath) {
        let long = self
            .writing
            .remove(path)
            .is_some_and(|w| w.since + self.pace.max_delay <= now);
        if long && !self.is_ready() {
            self.first = None;
        }

        self.touched(now, path);
    }

    /// Records that the name is gone, with everything below it.
    pub fn gone(&mut self, now: Moment, path: &TreePath) {
        if !self.writing.is_empty() {
            self.writing.retain(|written, _| !written.is_within(path));
        }
        self.touched(now, path);
    }

    /// Requests a full rescan, because the changed paths are unknown.
    pub fn everything(&mut self, now: Moment, why: RescanCause) {
        self.stamp(now);
        self.paths.clear();
        self.top = false;
        self.everything = Some(if self.everything == Some(RescanCause::Asked) {
            RescanCause::Asked
        } else {
            why
        });
    }

    /// Time at which [`Batcher::take`] is due; `None` without changes.
    pub fn due(&self) -> Option<Moment> {
        let closing = self.writing.values().map(Writing::over).min();
        if !self.is_ready() {
            return closing;
        }

        let written = self
            .writing
            .values()
            .map(|w| w.since + self.pace.max_delay)
            .max();
        let quiet = (self.last + self.pace.settle).max(written.unwrap_or_default());
        let due = quiet.min(self.first.unwrap_or(self.last) + self.pace.max_delay);

        Some(closing.map_or(due, |closing| closing.min(due)))
    }

    /// Returns the batch once complete. Files still being written stay for a later batch.
    pub fn take(&mut self, now: Moment) -> Option<ChangeBatch> {
        self.release_held(now);
        if !self.is_ready() || self.due().is_none_or(|due| due > now) {
            return None;
        }

        self.first = None;
        self.overdue.clear();
        let paths = std::mem::take(&mut self.paths);
        let top =
            std::mem::take(&mut self.top) || paths.iter().any(|p| !p.as_bytes().contains(&b'/'));

        match self.everything.take() {
            Some(why) => Some(ChangeBatch::Everything(why)),
            None => Some(ChangeBatch::Paths(PathBatch {
                paths,
                top,
                held: self.writing.keys().cloned().collect(),
            })),
        }
    }

    /// Files still being written.
    pub fn held(&self) -> impl Iterator<Item = &TreePath> {
        self.writing.keys()
    }

    /// Returns whether nothing is pending, not even the close of a file.
    pub fn is_empty(&self) -> bool {
        !self.is_ready() && self.writing.is_empty()
    }

    /// Returns whether changes wait to be taken.
    pub fn is_ready(&self) -> bool {
        self.top || self.everything.is_some() || !self.paths.is_empty()
    }

    fn stamp(&mut self, now: Moment) {
        // A start time left over from a long write must not hurry new changes.
        if !self.is_ready()
            && self
                .first
                .is_none_or(|first| first + 2 * self.pace.max_delay < now)
        {
            self.first = Some(now);
        }

        self.first.get_or_insert(now);
        self.last = self.last.max(now);
    }

    fn add(&mut self, path: &TreePath) {
        if self.everything.is_some() || self.paths.contains(path) {
            return;
        }

        if self.paths.len() == MAX_PATHS {
            self.paths.clear();
            self.everything = Some(RescanCause::Missed);
        } else {
            self.paths.insert(path.clone());
        }
    }

    /// Turns files held open for too long into ordinary changes.
    fn release_held(&mut self, now: Moment) {
        if self.writing.values().all(|w| w.over() > now) {
            return;
        }

        let over: Vec<TreePath> = self
            .writing
            .iter()
            .filter(|(_, w)| w.over() <= now)
            .map(|(p, _)| p.clone())
            .collect();

        for path in over {
            self.closed(now, &path);
            self.overdue.insert(path);
        }
    }
}

impl Writing {
    /// Time at which the file counts as written although still open.
    fn over(&self) -> Moment {
        (self.last + HELD_IDLE).min(self.since + HELD_MOST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PACE: Pace = Pace {
        settle: Duration::from_millis(500),
        max_delay: Duration::from_secs(5),
    };

    fn at(ms: u64) -> Moment {
        Moment(ms * 1_000_000)
    }

    fn path(text: &str) -> TreePath {
        TreePath::new(text.as_bytes()).expect("legal")
    }

    fn names(batch: Option<ChangeBatch>) -> (Vec<String>, Vec<String>) {
        let Some(ChangeBatch::Paths(batch)) = batch else {
            panic!("{batch:?}")
        };

        let hints = batch.hints();
        (
            hints.paths.iter().map(|p| p.to_string()).collect(),
            hints.held.iter().map(|p| p.to_string()).collect(),
        )
    }

    #[test]
    fn a_batch_is_over_when_it_is_quiet() {
        let mut batcher = Batcher::new(PACE);
        assert_eq!((batcher.due(), batcher.take(at(1))), (None, None));
        batcher.touched(at(10), &path("a"));
        batcher.touched(at(400), &path("b/c"));
        assert_eq!(
            (batcher.due(), batcher.take(at(899))),
            (Some(at(900)), None)
        );
        assert_eq!(names(batcher.take(at(900))).0, ["a", "b/c"]);

        assert!(batcher.is_empty() && batcher.due().is_none() && batcher.take(at(5000)).is_none());
    }

    #[test]
    fn without_a_quiet_time_the_ceiling_ends_it() {
        let mut batcher = Batcher::new(PACE);
        for ms in (0..6000).step_by(100) {
            batcher.touched(at(ms), &path("a"));
        }
        assert_eq!(batcher.due(), Some(at(5000)));
    }

    #[test]
    fn the_top_is_meant_when_it_has_a_new_name() {
        let mut batcher = Batcher::new(PACE);
        for (name, is_top) in [("a/b", false), ("a", true)] {
            batcher.touched(at(0), &path(name));
            let Some(ChangeBatch::Paths(batch)) = batcher.take(at(500)) else {
                panic!("a batch")
            };
            assert_eq!(batch.top, is_top);
        }

        batcher.top(at(600));
        assert_eq!(
            batcher.take(at(1100)),
            Some(ChangeBatch::Paths(PathBatch {
                top: true,
                ..PathBatch::default()
            }))
        );
    }

    #[test]
    fn a_file_that_is_written_keeps_the_batch_open_until_the_ceiling_and_stays_out_of_it() {
        let mut batcher = Batcher::new(PACE);
        batcher.touched(at(0), &path("page"));
        batcher.touched(at(10), &path("big"));

        for ms in (20..20_000).step_by(20) {
            batcher.wrote(at(ms), &path("big"));
            if ms == 5000 {
                let (paths, held) = names(batcher.take(at(ms)));
                assert_eq!(
                    (paths, held),
                    (vec!["page".to_string()], vec!["big".to_string()])
                );
            } else {
                assert_eq!(batcher.take(at(ms)), None, "{ms}");
            }
        }

        // Later changes do not wait for the same file again.
        batcher.touched(at(20_000), &path("page"));
        assert_eq!(names(batcher.take(at(20_500))).1, ["big"]);
        batcher.closed(at(21_000), &path("big"));

        assert_eq!(
            names(batcher.take(at(21_500))),
            (vec!["big".to_string()], vec![])
        );
    }

    #[test]
    fn a_file_that_is_never_closed_is_sent_all_the_same() {
        let mut batcher = Batcher::new(PACE);
        batcher.wrote(at(0), &path("idle"));
        assert_eq!(batcher.due(), Some(at(15_000)));
        assert_eq!(batcher.take(at(15_000)), None);
        assert_eq!(names(batcher.take(at(15_500))).0, ["idle"]);
        let mut sent = Vec::new();

        for ms in (20_000..1_300_000).step_by(1000) {
            batcher.wrote(at(ms), &path("log"));
            sent.extend(batcher.take(at(ms)).map(|_| ms));
        }

        assert_eq!(sent, [621_000, 1_223_000]);
    }

    #[test]
    fn it_is_asked_whether_a_file_is_open_once_after_its_writes() {
        let mut batcher = Batcher::new(PACE);
        batcher.wrote(at(0), &path("a"));
        assert_eq!(
            (batcher.open_check_at(), batcher.take_open_checks(at(199))),
            (Some(at(200)), vec![])
        );
        assert!(batcher.wrote_again(at(150), b"a"));
        assert_eq!(batcher.open_check_at(), Some(at(350)));
        assert_eq!(batcher.take_open_checks(at(350)), [path("a")]);
        assert_eq!(
            (batcher.open_check_at(), batcher.take_open_checks(at(5000))),
            (None, vec![])
        );

        // The file is open and written to all the time.
        assert!(batcher.wrote_again(at(6000), b"a"));
        assert_eq!(batcher.open_check_at(), Some(at(8000)));
        batcher.closed(at(6500), &path("a"));

        assert_eq!(batcher.open_check_at(), None);
    }

    #[test]
    fn a_file_that_is_rewritten_all_the_time_is_late_by_the_ceiling_at_most() {
        let mut batcher = Batcher::new(PACE);
        let mut sent = Vec::new();
        for ms in (0..20_000).step_by(50) {
            match ms % 300 {
                0 => batcher.wrote(at(ms), &path("page")),
                100 => batcher.closed(at(ms), &path("page")),
                _ => {}
            }
            sent.extend(batcher.take(at(ms)).map(|_| ms));
        }

        assert_eq!(sent.len(), 3, "{sent:?}");
    }

    #[test]
    fn a_name_that_goes_is_written_no_more() {
        let mut batcher = Batcher::new(PACE);
        batcher.wrote(at(0), &path("dir/sub/part"));
        batcher.wrote(at(0), &path("dirt"));
        batcher.gone(at(1), &path("dir"));
        let (paths, held) = names(batcher.take(at(5000)));

        assert_eq!(
            (paths, held),
            (vec!["dir".to_string()], vec!["dirt".to_string()])
        );
    }

    #[test]
    fn everything_takes_the_place_of_paths() {
        let mut batcher = Batcher::new(PACE);
        batcher.touched(at(0), &path("a"));
        batcher.everything(at(1), RescanCause::Asked);
        batcher.everything(at(2), RescanCause::Missed);
        batcher.touched(at(3), &path("b"));
        assert_eq!(
            batcher.take(at(503)),
            Some(ChangeBatch::Everything(RescanCause::Asked))
        );
        assert!(batcher.is_empty());
        for i in 0..=MAX_PATHS {
            batcher.touched(at(600), &path(&format!("f{i}")));
        }

        assert_eq!(
            batcher.take(at(1100)),
            Some(ChangeBatch::Everything(RescanCause::Missed))
        );
    }

    #[derive(Debug, Clone)]
    enum Step {
        Touch(u8),
        Write(u8),
        Close(u8),
        Gone(u8),
        Everything,
        Wait(u16),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0u8..6).prop_map(Step::Touch),
            (0u8..6).prop_map(Step::Write),
            (0u8..6).prop_map(Step::Close),
            (0u8..6).prop_map(Step::Gone),
            Just(Step::Everything),
            (0u16..3000).prop_map(Step::Wait),
            (0u16..60).prop_map(Step::Wait),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_nothing_waits_past_the_ceiling_and_held_files_stay_out(
            steps in proptest::collection::vec(step(), 1..120)
        ) {
            let name = |n: u8| path(&format!("d{}/f{n}", n % 2));
            let mut batcher = Batcher::new(PACE);
            let mut now = at(0);

            // Paths owed to a batch, each with the time of its change.
            let mut owed: HashMap<TreePath, Moment> = HashMap::new();
            let mut written: HashSet<TreePath> = HashSet::new();
            let check = |batch: ChangeBatch,
                         now: Moment,
                         owed: &mut HashMap<TreePath, Moment>,
                         written: &HashSet<TreePath>| {
                match batch {
                    ChangeBatch::Everything(_) => owed.clear(),
                    ChangeBatch::Paths(batch) => {
                        prop_assert!(batch.paths.is_disjoint(&batch.held));
                        prop_assert!(batch.held.is_subset(written));
                        prop_assert!(batch.top || !batch.paths.is_empty());
                        owed.retain(|path, _| !batch.paths.contains(path));
                        let late = owed.iter().find(|(p, since)| {
                            !written.contains(*p) && **since + PACE.max_delay < now
                        });
                        prop_assert!(late.is_none(), "{late:?} at {now:?}");
                    }
                }
                Ok(())
            };

            for step in steps {
                match step {
                    Step::Touch(n) => {
                        batcher.touched(now, &name(n));
                        owed.entry(name(n)).or_insert(now);
                    }
                    Step::Write(n) => {
                        batcher.wrote(now, &name(n));
                        written.insert(name(n));
                        owed.insert(name(n), now);
                    }
                    Step::Close(n) => {
                        batcher.closed(now, &name(n));
                        written.remove(&name(n));
                        owed.insert(name(n), now);
                    }
                    Step::Gone(n) => {
                        batcher.gone(now, &name(n));
                        written.remove(&name(n));
                        owed.insert(name(n), now);
                    }
                    Step::Everything => batcher.everything(now, RescanCause::Missed),
                    Step::Wait(ms) => {
                        let until = now + Duration::from_millis(u64::from(ms));
                        while let Some(due) = batcher.due().filter(|due| *due <= until) {
                            now = now.max(due);
                            if let Some(batch) = batcher.take(now) {
                                check(batch, now, &mut owed, &written)?
                            }
                        }
                        now = until;
                    }
                }
                prop_assert!(owed.is_empty() || batcher.due().is_some());
            }

            // In the end every path comes, closed or not.
            while let Some(due) = batcher.due() {
                now = now.max(due);
                if let Some(batch) = batcher.take(now) { check(batch, now, &mut owed, &written)? }
            }

            prop_assert!(owed.is_empty() && batcher.is_empty(), "{owed:?}");
        }
    }
}
