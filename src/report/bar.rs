//! Progress of a transfer: a bar on a terminal, a line for each tenth in a pipe.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::words;
use crate::outcome::TransferProgress;
use crate::units::shown_age;

/// Interval of a bar's spinner.
const SPINNER_INTERVAL: Duration = Duration::from_millis(120);
/// Number of progress lines in a pipe: one for each tenth.
const PROGRESS_STEPS: u64 = 10;

/// The bar or spinner shown, if any, and the last tenth reported.
pub(super) struct TransferBar {
    is_terminal: bool,
    shown: Option<ProgressBar>,
    step: u64,
}

impl TransferBar {
    /// No bar yet; one is shown only on a terminal.
    pub(super) fn new(is_terminal: bool) -> Self {
        Self {
            is_terminal,
            shown: None,
            step: 0,
        }
    }

    /// Shows a spinner beside `what`; returns false without a terminal.
    pub(super) fn spin(&mut self, what: &str) -> bool {
        if self.is_terminal {
            self.show(None, "{spinner} {msg}", what);
        }

        self.is_terminal
    }

    /// Shows the progress; without a terminal, returns a line for each new tenth.
    pub(super) fn progress(&mut self, progress: &TransferProgress) -> Option<String> {
        let &TransferProgress { sent, total, .. } = progress;
        if self.is_terminal {
            let is_known = |bar: &ProgressBar| bar.length() == Some(total.0);
            if !self.shown.as_ref().is_some_and(is_known) {
                self.show(Some(total.0), "{spinner} {wide_bar} {msg}", "");
            }
            if let Some(bar) = &self.shown {
                bar.set_position(sent.0.min(total.0));
                bar.set_message(progress_words(progress));
            }
            return None;
        }

        // A publication has no hosts, and its lines in a pipe would say little.
        if progress.targets == 0 {
            return None;
        }

        let step = sent
            .0
            .saturating_mul(PROGRESS_STEPS)
            .checked_div(total.0)
            .unwrap_or(PROGRESS_STEPS);

        if step <= self.step {
            return None;
        }

        self.step = step;
        Some(progress_words(progress))
    }

    /// Runs `write` while no bar is on the screen.
    pub(super) fn suspend(&self, write: impl FnOnce()) {
        match &self.shown {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    pub(super) fn clear(&mut self) {
        if let Some(old) = self.shown.take() {
            old.finish_and_clear();
        }
    }

    /// Replaces the bar by one of `length`; without a length it is a spinner.
    fn show(&mut self, length: Option<u64>, template: &str, message: &str) {
        let bar = ProgressBar::with_draw_target(length, ProgressDrawTarget::stderr());
        bar.set_style(style(template));
        bar.set_message(message.to_string());
        bar.enable_steady_tick(SPINNER_INTERVAL);
        self.clear();
        self.shown = Some(bar);
    }
}

fn style(template: &str) -> ProgressStyle {
    // An invalid template is a mistake in this file; the default bar is no reason to stop a deploy.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn progress_words(p: &TransferProgress) -> String {
    if p.targets == 0 {
        let left = p.rate.time_for(p.total.0.saturating_sub(p.sent.0));
        let left = match p.rate.0 {
            0 => String::new(),
            _ => format!(", {} left", shown_age(left.as_secs())),
        };
        return format!("{} of {} at {}{left}", p.sent, p.total, p.rate);
    }

    format!(
        "{} of {} at {}, {} of {} ready",
        p.sent,
        p.total,
        p.rate,
        p.ready,
        words::count(p.targets as u64, "host")
    )
}
