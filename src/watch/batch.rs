//! When a batch of changes is over: events with a time go in, batches come out.
//!
//! Pure. It owns what may have changed since the last batch, the quiet time, the ceiling, and the files that are still
//! being written. Must not know where events come from, nor what is done with a batch; time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use crate::manifest::TreePath;
use crate::tree::scan::Hints;
use crate::units::Moment;

/// More paths than this are no batch of paths any more: the whole tree is looked at.
pub const MAX_PATHS: usize = 200_000;
/// A file that somebody holds open counts as written when nothing was written to it for so long,
pub const HELD_IDLE: Duration = Duration::from_secs(15);
/// or, however busy it is, after so long: a log that is never closed is sent now and then.
pub const HELD_MOST: Duration = Duration::from_secs(600);

/// A file that nobody has closed for so long after a write may not be open at all: truncate(2) opens nothing.
pub const ASK_AFTER: Duration = Duration::from_millis(200);
/// How soon, at the earliest, it is asked again whether a file is open.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How many files are asked about at once.
const ASK_AT_ONCE: usize = 256;

/// How long changes are gathered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// A batch is over when nothing has changed for so long,
    pub settle: Duration,
    /// or so long after its first change. A file that is being written can keep it open so long, too.
    pub max_delay: Duration,
}

/// Why everything has to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Some changes were not heard of, or were too many to be told apart.
    Missed,
    /// Somebody asked for it, or the spec is another one: hosts look at everything, too.
    Asked,
}

/// What has to be looked at for the next release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// These paths.
    Paths(PathBatch),
    /// Everything.
    Everything(Why),
}

/// The paths of a batch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PathBatch {
    /// What may have changed, in no order.
    pub paths: HashSet<TreePath>,
    /// Whether the tree's own directory may have changed.
    pub top: bool,
    /// Files that are still being written.
    pub held: HashSet<TreePath>,
}

impl PathBatch {
    /// The same for a scan.
    pub fn hints(self) -> Hints {
        Hints {
            paths: self.paths.into_iter().collect(),
            top: self.top,
            held: self.held.into_iter().collect(),
            everywhere: None,
        }
    }
}

/// A file that is being written.
#[derive(Debug, Clone, Copy)]
struct Writing {
    since: Moment,
    last: Moment,
    /// When it is asked whether the file is open, unless it is written to again before.
    ask: Option<Moment>,
}

/// Gathers changes until they are a batch.
#[derive(Debug)]
pub struct Batcher {
    pace: Pace,
    /// What changed and is not being written.
    paths: HashSet<TreePath>,
    top: bool,
    everything: Option<Why>,
    writing: HashMap<TreePath, Writing>,
    /// What was held open for too long: it is not held again before it was in a batch.
    overdue: HashSet<TreePath>,
    /// The first change since the last batch,
    first: Option<Moment>,
    /// and the last one.
    last: Moment,
}

impl Batcher {
    /// Nothing has changed yet.
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

    /// Whether the path is known to have changed, so that to say it again only tells the time.
    pub fn knows(&self, path: &[u8]) -> bool {
        self.everything.is_some() || self.paths.contains(path) || self.writing.contains_key(path)
    }

    /// The path may have changed, appeared or gone.
    pub fn touched(&mut self, now: Moment, path: &TreePath) {
        if !self.writing.contains_key(path) {
            self.stamp(now);
            self.add(path);
        }
    }

    /// As [`Batcher::touched`] for a path that is [known](Batcher::knows).
    pub fn again(&mut self, now: Moment, path: &[u8]) {
        if !self.writing.contains_key(path) {
            self.stamp(now);
        }
    }

    /// The tree's own directory may have changed.
    pub fn top(&mut self, now: Moment) {
        self.stamp(now);
        self.top = true;
    }

    /// Something was written to the file, which is open still.
    pub fn wrote(&mut self, now: Moment, path: &TreePath) {
        if let Some(writing) = self.writing.get_mut(path) {
            writing.last = now;
            return;
        }

        if self.overdue.contains(path) {
            return;
        }

        // A file that is written again and again is late all the same: the first change stays the first.
        self.first.get_or_insert(now);
        self.paths.remove(path);
        self.writing.insert(
            path.clone(),
            Writing {
                since: now,
                last: now,
                ask: Some(now + ASK_AFTER),
            },
        );

        // What else is ready waits for it as for any change.
        if self.is_ready() {
            self.last = now;
        }
    }

    /// As [`Batcher::wrote`], when the file is known to be written; says whether it is.
    pub fn wrote_again(&mut self, now: Moment, path: &[u8]) -> bool {
        let Some(writing) = self.writing.get_mut(path) else {
            return false;
        };

        writing.last = now;
        writing.ask = writing
            .ask
            .map_or(Some(now + ASK_AGAIN), |ask| Some(ask.max(now + ASK_AFTER)));
        true
    }

    /// Whether the file is known to be written.
    pub fn is_written(&self, path: &TreePath) -> bool {
        self.writing.contains_key(path)
    }

    /// When [`Batcher::ask`] has to be called.
    pub fn ask_at(&self) -> Option<Moment> {
        self.writing
            .values()
            .filter_map(|writing| writing.ask)
            .min()
    }

    /// Files that were written to and not closed, of which it is time to ask whether they are open at all. One that is
    /// not is to be [closed](Batcher::closed).
    pub fn ask(&mut self, now: Moment) -> Vec<TreePath> {
        let due = self
            .writing
            .iter_mut()
            .filter(|(_, writing)| writing.ask.is_some_and(|ask| ask <= now));
        let asked = due.take(ASK_AT_ONCE).map(|(path, writing)| {
            writing.ask = None;
            path.clone()
        });
        asked.collect()
    }

    /// Who wrote to the file has closed it.
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

    /// The name is gone, and so is all below it.
    pub fn gone(&mut self, now: Moment, path: &TreePath) {
        if !self.writing.is_empty() {
            self.writing.retain(|written, _| !written.is_within(path));
        }
        self.touched(now, path);
    }

    /// It is not known what has changed.
    pub fn everything(&mut self, now: Moment, why: Why) {
        self.stamp(now);
        self.paths.clear();
        self.top = false;
        self.everything = Some(if self.everything == Some(Why::Asked) {
            Why::Asked
        } else {
            why
        });
    }

    /// When [`Batcher::take`] has to be asked; `None` while nothing has changed.
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

    /// The batch, when it is over. What is still being written stays for a later one.
    pub fn take(&mut self, now: Moment) -> Option<Batch> {
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
            Some(why) => Some(Batch::Everything(why)),
            None => Some(Batch::Paths(PathBatch {
                paths,
                top,
                held: self.writing.keys().cloned().collect(),
            })),
        }
    }

    /// Files that are still being written.
    pub fn held(&self) -> impl Iterator<Item = &TreePath> {
        self.writing.keys()
    }

    /// Whether nothing waits, not even for a file to be closed.
    pub fn is_empty(&self) -> bool {
        !self.is_ready() && self.writing.is_empty()
    }

    /// Whether something waits to be taken.
    pub fn is_ready(&self) -> bool {
        self.top || self.everything.is_some() || !self.paths.is_empty()
    }

    fn stamp(&mut self, now: Moment) {
        // What only a long file was left of does not hurry what comes now.
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
            self.everything = Some(Why::Missed);
        } else {
            self.paths.insert(path.clone());
        }
    }

    /// What is held open for too long is a change like any other.
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
    /// When the file counts as written, though it is open.
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

    fn names(batch: Option<Batch>) -> (Vec<String>, Vec<String>) {
        let Some(Batch::Paths(batch)) = batch else {
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
            let Some(Batch::Paths(batch)) = batcher.take(at(500)) else {
                panic!("a batch")
            };
            assert_eq!(batch.top, is_top);
        }

        batcher.top(at(600));
        assert_eq!(
            batcher.take(at(1100)),
            Some(Batch::Paths(PathBatch {
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

        // What comes later does not wait for it again.
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
            (batcher.ask_at(), batcher.ask(at(199))),
            (Some(at(200)), vec![])
        );
        assert!(batcher.wrote_again(at(150), b"a"));
        assert_eq!(batcher.ask_at(), Some(at(350)));
        assert_eq!(batcher.ask(at(350)), [path("a")]);
        assert_eq!((batcher.ask_at(), batcher.ask(at(5000))), (None, vec![]));

        // It is open, and written to all the time.
        assert!(batcher.wrote_again(at(6000), b"a"));
        assert_eq!(batcher.ask_at(), Some(at(8000)));
        batcher.closed(at(6500), &path("a"));

        assert_eq!(batcher.ask_at(), None);
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
        batcher.everything(at(1), Why::Asked);
        batcher.everything(at(2), Why::Missed);
        batcher.touched(at(3), &path("b"));
        assert_eq!(batcher.take(at(503)), Some(Batch::Everything(Why::Asked)));
        assert!(batcher.is_empty());
        for i in 0..=MAX_PATHS {
            batcher.touched(at(600), &path(&format!("f{i}")));
        }

        assert_eq!(batcher.take(at(1100)), Some(Batch::Everything(Why::Missed)));
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
            let (mut batcher, mut now) = (Batcher::new(PACE), at(0));

            // What has to be in a batch yet, and since when.
            let mut owed: HashMap<TreePath, Moment> = HashMap::new();
            let mut written: HashSet<TreePath> = HashSet::new();
            let check = |batch: Batch, now: Moment, owed: &mut HashMap<TreePath, Moment>, written: &HashSet<TreePath>| {
                match batch {
                    Batch::Everything(_) => owed.clear(),
                    Batch::Paths(batch) => {
                        prop_assert!(batch.paths.is_disjoint(&batch.held));
                        prop_assert!(batch.held.is_subset(written));
                        prop_assert!(batch.top || !batch.paths.is_empty());
                        owed.retain(|path, _| !batch.paths.contains(path));
                        let late = owed.iter().find(|(p, since)| !written.contains(*p) && **since + PACE.max_delay < now);
                        prop_assert!(late.is_none(), "{late:?} at {now:?}");
                    }
                }
                Ok(())
            };

            for step in steps {
                match step {
                    Step::Touch(n) => { batcher.touched(now, &name(n)); owed.entry(name(n)).or_insert(now); }
                    Step::Write(n) => { batcher.wrote(now, &name(n)); written.insert(name(n)); owed.insert(name(n), now); }
                    Step::Close(n) => { batcher.closed(now, &name(n)); written.remove(&name(n)); owed.insert(name(n), now); }
                    Step::Gone(n) => { batcher.gone(now, &name(n)); written.remove(&name(n)); owed.insert(name(n), now); }
                    Step::Everything => batcher.everything(now, Why::Missed),
                    Step::Wait(ms) => {
                        let until = now + Duration::from_millis(u64::from(ms));
                        while let Some(due) = batcher.due().filter(|due| *due <= until) {
                            now = now.max(due);
                            if let Some(batch) = batcher.take(now) { check(batch, now, &mut owed, &written)? }
                        }
                        now = until;
                    }
                }
                prop_assert!(owed.is_empty() || batcher.due().is_some());
            }

            // In the end all of it comes, closed or not.
            while let Some(due) = batcher.due() {
                now = now.max(due);
                if let Some(batch) = batcher.take(now) { check(batch, now, &mut owed, &written)? }
            }

            prop_assert!(owed.is_empty() && batcher.is_empty(), "{owed:?}");
        }
    }
}
