//! Progress and results, for people and for scripts.
//!
//! Owns everything that is written to standard output (data: what a script or a pipe wants) and standard error (talk:
//! what a person watches). Must not decide anything: outcomes and exit codes come from `drive::outcome` as they are. A
//! reader that went away (`makuo deploy | head`) silences the output and nothing else: a deploy is never cut off by it.

mod fleet;
pub mod human;
pub mod json;
pub mod paint;
pub mod table;
pub mod words;

use std::io::Write;

use serde::Serialize;

use crate::Error;
use crate::outcome::{Event, Observer, Outcome, Survey};
use crate::outcome::{ReleaseLog, Standing};

pub use human::Human;
pub use json::Json;
pub use paint::{ColorChoice, Painter};

/// How much talk a person wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results and errors only.
    Quiet,
    /// What a person at a terminal wants to follow.
    #[default]
    Normal,
    /// Every host and path as it changes.
    Verbose,
    /// Everything, the log of the engine included.
    Debug,
}

/// How output was asked for on the command line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// How much talk.
    pub verbosity: Verbosity,
    /// Whether to use colour.
    pub color: ColorChoice,
}

/// Where a command reports to.
pub enum Report {
    /// Text for people.
    Human(Human),
    /// JSON lines for scripts.
    Json(Json),
}

impl Report {
    /// A report to this process's standard output and standard error.
    pub fn new(settings: Settings) -> Self {
        if settings.json {
            Report::Json(Json::stdout())
        } else {
            Report::Human(Human::terminal(settings))
        }
    }

    /// Says what is being done now; a spinner on a terminal.
    pub fn start(&mut self, what: &str) {
        if let Report::Human(human) = self {
            human.start(what);
        }
    }

    /// The end of a deploy, dry run or diff: the last thing that its report is told.
    pub fn outcome(&mut self, outcome: &Outcome) {
        match self {
            Report::Human(human) => human.outcome(outcome),
            Report::Json(json) => json.outcome(outcome),
        }
    }

    /// The end of a deploy that had nothing to send.
    pub fn unchanged(&mut self, outcome: &Outcome) {
        match self {
            Report::Human(human) => human.unchanged(),
            Report::Json(json) => json.outcome(outcome),
        }
    }

    /// The hosts that are alive: all of the output of `makuo members`.
    pub fn members(&mut self, around: &Survey) {
        match self {
            Report::Human(human) => human.members(around),
            Report::Json(json) => json.members(around),
        }
    }

    /// The releases that the fleet knows: all of the output of `makuo log`.
    pub fn log(&mut self, log: &ReleaseLog) {
        match self {
            Report::Human(human) => human.log(log),
            Report::Json(json) => json.log(log),
        }
    }

    /// Where hosts stand: all of the output of `makuo status`.
    pub fn status(&mut self, standings: &[Standing]) {
        match self {
            Report::Human(human) => human.status(standings),
            Report::Json(json) => json.status(standings),
        }
    }

    /// The result of a command that has no hosts: `text` for people, the fields of `fields` in the result for scripts.
    pub fn plain(&mut self, text: &str, fields: &impl Serialize) {
        match self {
            Report::Human(human) => human.data(text),
            Report::Json(json) => json.plain(fields),
        }
    }

    /// A line of talk for a person; JSON has no place for it.
    pub fn note(&mut self, text: &str) {
        if let Report::Human(human) = self {
            human.note(text);
        }
    }

    /// A failure that ended the command early.
    pub fn failure(&mut self, error: &Error) {
        match self {
            Report::Human(human) => human.failure(error),
            Report::Json(json) => {
                json.failure(error);
                tell_failure(
                    &mut std::io::stderr(),
                    Painter::stderr(ColorChoice::Auto),
                    error,
                );
            }
        }
    }
}

impl Observer for Report {
    fn event(&mut self, event: &Event) {
        match self {
            Report::Human(human) => human.event(event),
            Report::Json(json) => json.event(event),
        }
    }
}

/// Writes `error: ...` and `hint: ...`, readable and safe on any terminal.
pub fn tell_failure(out: &mut dyn Write, painter: Painter, error: &Error) {
    tell_trouble(out, painter, &error.to_string(), error.hint_text());
}

fn tell_trouble(out: &mut dyn Write, painter: Painter, error: &str, hint: Option<&str>) {
    put_line(
        out,
        &format!(
            "{} {}",
            painter.paint(paint::Tint::Bad, "error:"),
            words::safe(error)
        ),
    );

    if let Some(hint) = hint {
        put_line(
            out,
            &format!(
                "{}  {}",
                painter.paint(paint::Tint::Note, "hint:"),
                words::safe(hint)
            ),
        );
    }
}

/// Writes a line; a reader that is gone is no reason to stop what is being done, so the error ends here.
fn put_line(out: &mut dyn Write, line: &str) {
    let _ = out
        .write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

#[cfg(test)]
mod sample;
