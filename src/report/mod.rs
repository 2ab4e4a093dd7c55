//! Progress and results, for people and for scripts.
//!
//! Owns everything written to standard output (data, for a script or a pipe) and standard error
//! (messages, for a person). Must not decide anything: outcomes and exit codes come from
//! `outcome` unchanged. A closed pipe (`makuo deploy | head`) silences the output and
//! nothing else: the deploy continues.

mod display;
mod findings;
mod fleet;
pub mod human;
pub mod json;
mod line;
mod live;
mod notification;
pub mod paint;
mod release_summary;
mod summary;
pub mod table;
mod terminal;
pub mod words;
mod wrap;

use std::io::Write;

use serde::Serialize;

use crate::Error;
use crate::outcome::{
    DriftLine, Event, MemberInfo, Observer, Outcome, ReleaseLog, Standing, Stranger, Survey,
};

pub use display::{end_display, suspend_display};
pub use human::HumanReport;
pub use json::Json;
pub use live::Looked;
pub use notification::notify;
pub use paint::{ColorChoice, Painter};
pub use release_summary::ReleaseSummary;

/// How much of the messages is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Results and errors only.
    Quiet,
    /// Progress for a person at a terminal.
    #[default]
    Normal,
    /// Every host and path as it changes.
    Verbose,
    /// Everything, the log of the engine included.
    Debug,
}

/// Output settings of the command line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Settings {
    /// One JSON object a line instead of text.
    pub json: bool,
    /// How much of the messages is shown.
    pub verbosity: Verbosity,
    /// Use of colour.
    pub color: ColorChoice,
}

/// Destination of a command's reports.
pub enum Report {
    /// Text for people.
    HumanReport(HumanReport),
    /// JSON lines for scripts.
    Json(Json),
}

impl Report {
    /// Reports to this process's standard output and standard error.
    pub fn new(settings: Settings) -> Self {
        if settings.json {
            Report::Json(Json::stdout())
        } else {
            Report::HumanReport(HumanReport::terminal(settings))
        }
    }

    /// Returns whether people want to read every changed path.
    pub fn lists_paths(&self) -> bool {
        match self {
            Report::HumanReport(human) => human.lists_paths(),
            Report::Json(_) => false,
        }
    }

    /// Shows the current step; a spinner on a terminal.
    pub fn start(&mut self, what: &str) {
        if let Report::HumanReport(human) = self {
            human.start(what);
        }
    }

    /// Reports the end of a deploy, dry run or diff; nothing follows.
    pub fn outcome(&mut self, outcome: &Outcome) {
        match self {
            Report::HumanReport(human) => human.outcome(outcome),
            Report::Json(json) => json.outcome(outcome),
        }
    }

    /// Reports an outcome with the same trouble as the last one, which people need not read again.
    pub fn same_outcome(&mut self, outcome: &Outcome) {
        match self {
            Report::HumanReport(human) => human.same_outcome(),
            Report::Json(json) => json.outcome(outcome),
        }
    }

    /// Reports the end of a deploy with nothing to send.
    pub fn unchanged(&mut self, outcome: &Outcome) {
        match self {
            Report::HumanReport(human) => human.unchanged(),
            Report::Json(json) => json.outcome(outcome),
        }
    }

    /// Lists the hosts that are alive: all of the output of `makuo members`.
    pub fn members(&mut self, around: &Survey<Vec<MemberInfo>>) {
        match self {
            Report::HumanReport(human) => human.members(around),
            Report::Json(json) => json.members(around),
        }
    }

    /// Lists the releases known in the fleet: all of the output of `makuo log`.
    pub fn log(&mut self, log: &Survey<ReleaseLog>) {
        match self {
            Report::HumanReport(human) => human.log(log),
            Report::Json(json) => json.log(log),
        }
    }

    /// Shows the standing of each host: all of the output of `makuo status`.
    pub fn status(&mut self, standings: &Survey<Vec<Standing>>) {
        match self {
            Report::HumanReport(human) => human.status(standings),
            Report::Json(json) => json.status(standings),
        }
    }

    /// Names the peers that are not heard, where no host answered.
    pub fn strangers(&mut self, strangers: &[Stranger]) {
        match self {
            Report::HumanReport(human) => human.strangers(strangers),
            Report::Json(json) => json.strangers(strangers),
        }
    }

    /// Reports the result of a command without hosts: `text` for people, the fields of `fields` for
    /// scripts.
    pub fn plain(&mut self, text: &str, fields: &impl Serialize) {
        match self {
            Report::HumanReport(human) => human.data(text),
            Report::Json(json) => json.plain(fields),
        }
    }

    /// Reports the result of a check: like [`Report::plain`], with the exit code.
    pub fn checked(&mut self, text: &str, fields: &impl Serialize, exit: u8) {
        match self {
            Report::HumanReport(human) => human.data(text),
            Report::Json(json) => json.checked(fields, exit),
        }
    }

    /// Writes text for people before the rows of a list; scripts find all of it in the result.
    pub fn lead(&mut self, text: &str) {
        if let Report::HumanReport(human) = self {
            human.data(text);
        }
    }

    /// Writes a row of a list: `text` for people, the fields of `fields` for scripts.
    pub fn row(&mut self, text: &str, fields: &impl Serialize) {
        match self {
            Report::HumanReport(human) => human.data(text),
            Report::Json(json) => json.put(fields),
        }
    }

    /// Writes a difference of two releases.
    pub fn change(&mut self, line: &DriftLine) {
        match self {
            Report::HumanReport(human) => human.change(line),
            Report::Json(json) => json.change(line),
        }
    }

    /// Reports an error that a check found; in JSON it is in the result.
    pub fn found(&mut self, error: &Error) {
        if let Report::HumanReport(human) = self {
            human.failure(error);
        }
    }

    /// Writes a message for a person; JSON has no place for it.
    pub fn note(&mut self, text: &str) {
        if let Report::HumanReport(human) = self {
            human.note(text);
        }
    }

    /// Reports a failure that ended the command early.
    pub fn failure(&mut self, error: &Error) {
        match self {
            Report::HumanReport(human) => human.failure(error),
            Report::Json(json) => {
                json.failure(error);
                write_failure(
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
            Report::HumanReport(human) => human.event(event),
            Report::Json(json) => json.event(event),
        }
    }
}

/// Writes `error: ...` and `hint: ...`, readable and safe on any terminal.
pub fn write_failure(out: &mut dyn Write, painter: Painter, error: &Error) {
    write_trouble(out, painter, &error.to_string(), error.hint_text());
}

fn write_trouble(out: &mut dyn Write, painter: Painter, error: &str, hint: Option<&str>) {
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

/// Writes a line and ignores errors: a closed pipe must not stop the command.
fn put_line(out: &mut dyn Write, line: &str) {
    let _ = out
        .write_all(line.as_bytes())
        .and_then(|()| out.write_all(b"\n"))
        .and_then(|()| out.flush());
}

#[cfg(test)]
mod sample;
