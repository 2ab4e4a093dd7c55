//! The live display of a command under way: a few rows on a terminal, a line now and then
//! elsewhere.
//!
//! `frame` words the progress, `screen` draws on a terminal that may change its size, and `lines`
//! chooses the lines for a file or a pipe. There is one display in a process.

mod frame;
mod lines;
mod screen;

use std::cell::Cell;
use std::sync::Mutex;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use self::lines::ProgressLines;
use self::screen::Screen;
use super::terminal::Size;
use crate::outcome::ProgressReport;
use crate::sync::locked;

/// Interval of the spinner.
const SPINNER_INTERVAL: Duration = Duration::from_millis(120);
/// Most columns of a row: on a wider terminal, there is room to shrink without wrapping it.
const ROW_COLUMNS: usize = 80;
/// Columns of the spinner and the blank after it.
const SPINNER_COLUMNS: usize = 2;

/// The rows on the screen.
static SHOWN: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Held while something else is written on the screen.
static WRITING: Mutex<()> = Mutex::new(());

thread_local! {
    /// Set while this thread holds [`WRITING`].
    static IS_WRITING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `write`, which writes on the screen or asks a question there, while the display is off it.
pub fn suspend_display<T>(write: impl FnOnce() -> T) -> T {
    if IS_WRITING.get() {
        return write();
    }

    let _held = locked(&WRITING);
    let _mark = WritingMark::set();
    let shown = locked(&SHOWN).clone();
    match shown {
        Some(shown) => shown.suspend(write),
        None => write(),
    }
}

/// Marks this thread as the one that writes, even if it panics meanwhile.
struct WritingMark;

impl WritingMark {
    fn set() -> Self {
        IS_WRITING.set(true);
        Self
    }
}

impl Drop for WritingMark {
    fn drop(&mut self) {
        IS_WRITING.set(false);
    }
}

/// Removes the display from the screen, before the process ends early.
pub fn end_display() {
    // Not under the lock: the display may be suspended for long.
    let shown = locked(&SHOWN).take();
    if let Some(shown) = shown {
        shown.finish_and_clear();
    }
}

/// Shows what a command does at present.
pub(super) struct LiveDisplay {
    target: Target,
}

enum Target {
    /// Rows on a terminal, while there are any.
    Terminal(Option<ProgressBar>),
    /// Lines in a file or a pipe.
    Lines(ProgressLines),
}

impl LiveDisplay {
    /// A display on standard error: rows if it is a terminal that can move its cursor.
    pub(super) fn stderr(is_terminal: bool) -> Self {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
        if is_terminal && !is_dumb {
            Self {
                target: Target::Terminal(None),
            }
        } else {
            Self::lines()
        }
    }

    /// A display that only returns lines.
    pub(super) fn lines() -> Self {
        Self {
            target: Target::Lines(ProgressLines::default()),
        }
    }

    /// Shows a spinner beside `what`; returns false without a terminal.
    pub(super) fn step(&mut self, what: &str) -> bool {
        let Target::Terminal(shown) = &mut self.target else {
            return false;
        };
        let size = size_beside_spinner();
        show(shown, frame::cut(what, size.columns));
        true
    }

    /// Shows the progress. Without a terminal, returns a line if it is time for one.
    pub(super) fn progress(&mut self, progress: &ProgressReport) -> Option<String> {
        match &mut self.target {
            Target::Terminal(shown) => {
                let rows = frame::rows(progress, size_beside_spinner());
                show(shown, rows.join("\n"));
                None
            }
            Target::Lines(lines) => lines.next(progress),
        }
    }

    /// Removes the rows.
    pub(super) fn clear(&mut self) {
        if let Target::Terminal(shown) = &mut self.target
            && shown.take().is_some()
        {
            end_display();
        }
    }
}

impl Drop for LiveDisplay {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Puts `text` on the screen in place of what is shown.
fn show(shown: &mut Option<ProgressBar>, text: String) {
    let bar = shown.get_or_insert_with(|| {
        let target = ProgressDrawTarget::term_like(Box::new(Screen::stderr()));
        let bar = ProgressBar::with_draw_target(None, target);
        // An invalid template is a mistake in this file, and no reason to stop a deploy.
        let style = ProgressStyle::with_template("{spinner} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        bar.set_message(text.clone());
        bar.enable_steady_tick(SPINNER_INTERVAL);
        *locked(&SHOWN) = Some(bar.clone());
        bar
    });
    bar.set_message(text);
}

fn size_beside_spinner() -> Size {
    let Size { columns, rows } = screen::size();
    Size {
        columns: columns
            .min(ROW_COLUMNS)
            .saturating_sub(SPINNER_COLUMNS)
            .max(1),
        rows,
    }
}
