//! Text for people: results on standard output, messages on standard error.
//!
//! Owns the choice of lines for each verbosity; `summary` words the outcome, and `display` shows
//! the progress. Does not know JSON. Does not judge: the outcome says what failed.

use std::collections::HashSet;
use std::io::{IsTerminal, Write};

use super::display::{LiveDisplay, suspend_display};
use super::paint::{self, Painter, Tint};
use super::summary::{
    audit_summary, batch_summary, change_line, deploy_summary, drift_line, host_row, host_rows,
    staged_summary, tint_of, trouble_text, without_drift,
};
use super::table::{Align, TextTable};
use super::terminal::TextStream;
use super::{Settings, Verbosity, fleet, put_line, words, write_failure, write_trouble};
use crate::Error;
use crate::id::NamedHost;
use crate::outcome::{
    DriftLine, Event, ExitStatus, HostChange, HostState, MemberInfo, Observer, Outcome, Purpose,
    ReleaseLog, Standing, Stranger, Survey, paused_rollouts, shared_names,
};

/// Moves the cursor to the corner of a terminal and clears the rest.
const CLEAR_SCREEN: &[u8] = b"\x1b[H\x1b[J";

/// Writes text for people.
pub struct HumanReport {
    out: Box<dyn Write + Send>,
    messages: Box<dyn Write + Send>,
    out_paint: Painter,
    message_paint: Painter,
    verbosity: Verbosity,
    display: LiveDisplay,
    /// Whether standard output is a terminal that can be cleared.
    is_screen: bool,
    /// Troubles of hosts reported so far.
    reasons: HashSet<(HostState, Option<String>)>,
}

impl HumanReport {
    /// Writes to this process's standard output and standard error.
    pub fn terminal(settings: Settings) -> Self {
        // The log of the engine would be drawn over.
        let is_live = matches!(settings.verbosity, Verbosity::Normal | Verbosity::Verbose);
        Self {
            out: Box::new(TextStream::new(std::io::stdout())),
            messages: Box::new(TextStream::new(std::io::stderr())),
            out_paint: Painter::stdout(settings.color),
            message_paint: Painter::stderr(settings.color),
            verbosity: settings.verbosity,
            display: LiveDisplay::stderr(std::io::stderr().is_terminal() && is_live),
            is_screen: paint::is_screen(),
            reasons: HashSet::new(),
        }
    }

    /// Writes to `out` and `messages`, without a live display.
    pub fn to(
        out: Box<dyn Write + Send>,
        messages: Box<dyn Write + Send>,
        painter: Painter,
        verbosity: Verbosity,
    ) -> Self {
        Self {
            out,
            messages,
            out_paint: painter,
            message_paint: painter,
            verbosity,
            display: LiveDisplay::lines(),
            is_screen: false,
            reasons: HashSet::new(),
        }
    }

    /// Returns whether people want to read every changed path.
    pub fn lists_paths(&self) -> bool {
        self.verbosity >= Verbosity::Verbose
    }

    /// Returns whether only results are wanted.
    pub(super) fn is_quiet(&self) -> bool {
        self.verbosity == Verbosity::Quiet
    }

    /// Painter of standard output.
    pub(super) fn painter(&self) -> Painter {
        self.out_paint
    }

    /// Shows the current step.
    pub fn start(&mut self, what: &str) {
        let what = words::safe(what);
        if !self.display.step(&what) && self.verbosity >= Verbosity::Verbose {
            self.print(&what);
        }
    }

    /// Shows the end of a deploy, dry run or diff.
    pub fn outcome(&mut self, outcome: &Outcome) {
        self.display.clear();
        match outcome.purpose {
            Purpose::Deploy => {
                if self.verbosity >= Verbosity::Verbose && !outcome.drift.is_empty() {
                    self.drift(outcome);
                }
                self.hosts(outcome);
                self.data(&deploy_summary(outcome));
                if let Some(line) = batch_summary(outcome) {
                    self.data(&line);
                }
            }
            Purpose::Stage | Purpose::Abort => {
                self.hosts(outcome);
                self.data(&staged_summary(outcome));
            }
            Purpose::DryRun | Purpose::Diff => {
                self.drift(outcome);
                if self.verbosity > Verbosity::Quiet {
                    self.print(&audit_summary(outcome));
                }
            }
        }

        self.trouble(outcome);
    }

    /// Shows the end of a deploy that ended as the one before.
    pub fn same_outcome(&mut self) {
        self.display.clear();
        if self.verbosity >= Verbosity::Verbose {
            self.print("the same hosts for the same reasons");
        }
    }

    /// Shows the end of a deploy with nothing to send.
    pub fn unchanged(&mut self) {
        self.display.clear();
        if self.verbosity >= Verbosity::Verbose {
            self.print("nothing has changed: nothing is sent");
        }
    }

    /// Lists the hosts that are alive.
    pub fn members(&mut self, around: &Survey<Vec<MemberInfo>>) {
        self.display.clear();
        self.rows(&fleet::members(&around.found));
        self.note(&words::count(around.found.len() as u64, "host"));
        let hosts = around.found.iter().map(|m| (&m.host, m.address.ip()));
        shared_names(hosts).iter().for_each(|text| self.note(text));
        self.strangers(&around.strangers);
    }

    /// Names the peers that are not heard.
    pub fn strangers(&mut self, strangers: &[Stranger]) {
        self.display.clear();
        for Stranger { address, kind } in strangers {
            let what = Stranger::describe(*kind);
            self.note(&format!("{address} {what}: it is not heard"));
        }
    }

    /// Writes the rows of a table.
    pub(super) fn rows(&mut self, table: &TextTable) {
        let lines = table.lines(self.out_paint);
        lines.iter().for_each(|line| self.data(line));
    }

    /// Lists the releases known in the fleet.
    pub fn log(&mut self, log: &Survey<ReleaseLog>) {
        self.display.clear();
        self.rows(&fleet::releases(&log.found));
        let notes = fleet::log_notes(&log.found);
        notes.iter().for_each(|line| self.note(line));
        self.strangers(&log.strangers);
    }

    /// Shows the standing of each host.
    pub fn status(&mut self, standings: &Survey<Vec<Standing>>) {
        self.display.clear();
        self.rows(&fleet::standings(&standings.found));
        self.note(&fleet::summary(&standings.found));
        let paused = paused_rollouts(&standings.found);
        paused
            .iter()
            .for_each(|rollout| self.note(&fleet::rollout_note(rollout)));
        let hosts = standings.found.iter().map(|s| (&s.host, s.address.ip()));
        shared_names(hosts).iter().for_each(|text| self.note(text));
        self.strangers(&standings.strangers);
    }

    /// Returns whether looks that follow each other are redrawn in place.
    pub(super) fn redraws(&self) -> bool {
        self.is_screen
    }

    /// Shows a look in place of the one before.
    pub(super) fn redraw(&mut self, show: impl FnOnce(&mut Self)) {
        self.display.clear();
        let _ = self
            .out
            .write_all(CLEAR_SCREEN)
            .and_then(|()| self.out.flush());
        show(self);
    }

    /// Writes a row of each change, with the time.
    pub(super) fn changed_rows(&mut self, table: &TextTable) {
        let lines = table.lines(self.out_paint);
        lines.iter().for_each(|line| self.changed_line(line));
    }

    /// Writes a change, with the time.
    pub(super) fn changed_line(&mut self, line: &str) {
        self.data(&format!("{}  {line}", words::time_of_day()));
    }

    /// Writes one or more lines of data; nothing for an empty `text`.
    pub fn data(&mut self, text: &str) {
        self.display.clear();
        if !text.is_empty() {
            put_line(&mut *self.out, text);
        }
    }

    /// Reports a failure that ended the command early.
    pub fn failure(&mut self, error: &Error) {
        self.display.clear();
        write_failure(&mut *self.messages, self.message_paint, error);
    }

    /// Writes a message, unless quiet.
    pub fn note(&mut self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.print(&words::quoted(line));
        }
    }

    fn print(&mut self, line: &str) {
        let messages = &mut self.messages;
        suspend_display(|| put_line(&mut **messages, line));
    }

    fn host(&mut self, change: &HostChange) {
        let HostChange {
            host,
            address,
            state,
            error,
        } = change;

        // The result names all hosts of a reason.
        let is_new = self.reasons.insert((*state, error.clone()));
        let is_worth_a_line = state.is_trouble() && is_new;
        if !is_worth_a_line && self.verbosity < Verbosity::Verbose {
            return;
        }

        let state = self.message_paint.paint(tint_of(*state), state.word());
        let why = error
            .as_deref()
            .map(|e| format!(": {}", words::quoted(e)))
            .unwrap_or_default();
        let host = NamedHost {
            name: host.clone(),
            address: *address,
        };

        self.print(&format!("{host} {state}{why}"));
    }

    fn hosts(&mut self, outcome: &Outcome) {
        let mut table = TextTable::new(&[
            Align::Left,
            Align::Left,
            Align::Left,
            Align::Right,
            Align::Right,
            Align::Right,
        ]);

        for (host, hosts) in host_rows(outcome) {
            table.row(host_row(outcome, host, &hosts));
        }
        table
            .lines(self.out_paint)
            .iter()
            .for_each(|line| self.data(line));
    }

    /// Writes a difference of two releases.
    pub(super) fn change(&mut self, line: &DriftLine) {
        let text = change_line(line, self.out_paint);
        self.data(&text);
    }

    fn drift(&mut self, outcome: &Outcome) {
        for group in outcome.drift.iter().filter(|group| !group.is_empty()) {
            let hosts = self
                .out_paint
                .paint(Tint::Strong, &words::hosts(&group.hosts));
            self.data(&format!("{hosts}: {}", words::drift(group)));
            for line in &group.lines {
                let text = drift_line(line, self.out_paint);
                self.data(&text);
            }
            let cut = group.total().saturating_sub(group.lines.len() as u64);
            if cut > 0 {
                self.data(&format!("  ... and {}", words::count(cut, "more path")));
            }
            if let Some(limit) = &group.over_limit {
                let refused = self.out_paint.paint(Tint::Bad, "would be refused:");
                self.data(&format!("  {refused} {}", words::safe(limit)));
            }
        }
        for group in outcome
            .drift
            .iter()
            .filter(|group| group.protected.count > 0)
        {
            self.data(&words::protected(group));
        }

        let clean = without_drift(outcome);
        if !clean.is_empty() {
            self.data(&format!("{}: no drift", words::hosts(&clean)));
        }
    }

    /// Lists all failures with names and reasons.
    fn trouble(&mut self, outcome: &Outcome) {
        if !matches!(outcome.exit, ExitStatus::Refused | ExitStatus::Mixed) {
            return;
        }

        let hint = outcome.first_hint().or_else(|| {
            outcome
                .hosts
                .is_empty()
                .then_some("`makuo members` shows the hosts that are alive and their trees")
        });
        write_trouble(
            &mut *self.messages,
            self.message_paint,
            &trouble_text(outcome),
            hint,
        );
    }
}

impl Observer for HumanReport {
    fn event(&mut self, event: &Event) {
        if self.verbosity == Verbosity::Quiet {
            return;
        }

        let verbose = self.verbosity >= Verbosity::Verbose;
        match event {
            Event::Member(m) if verbose => {
                self.print(&format!(
                    "member {} at {} ({})",
                    m.host,
                    m.address,
                    words::safe(&m.version)
                ));
            }
            Event::Scanned(s) => {
                let entries = words::plural_count(s.entries, "entry", "entries");
                let took = words::seconds(s.took);
                let hashed = s.hashed;
                self.print(&format!(
                    "source: {entries}, {} ({hashed} hashed) in {took}",
                    s.bytes
                ));
            }
            Event::Released(r) => {
                let release = words::rollback(&r.tree, Some(r.serial), r.rollback_to);
                self.print(&format!(
                    "release {release}, signed by {}",
                    words::safe(&r.fingerprint)
                ));
            }
            Event::Host(change) => self.host(change),
            Event::Change(change) if verbose => {
                let line = drift_line(&change.line, self.message_paint);
                self.print(&format!("{}:{}", words::hosts(&change.hosts), &line[1..]));
            }
            Event::Progress(progress) => {
                if let Some(line) = self.display.progress(progress) {
                    self.print(&line);
                }
            }
            Event::Note(text) => self.print(&words::quoted(text)),
            Event::Member(_) | Event::Change(_) | Event::Files(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, SharedBuffer};
    use super::*;
    use crate::id::HostName;
    use crate::outcome::HostState;

    fn told(verbosity: Verbosity, painter: Painter, tell: impl FnOnce(&mut HumanReport)) -> String {
        let out = SharedBuffer::default();
        let messages = SharedBuffer::default();
        tell(&mut HumanReport::to(
            Box::new(out.clone()),
            Box::new(messages.clone()),
            painter,
            verbosity,
        ));
        format!("--- stdout\n{}--- stderr\n{}", out.text(), messages.text())
    }

    fn plain(tell: impl FnOnce(&mut HumanReport)) -> String {
        told(Verbosity::Normal, Painter::PLAIN, tell)
    }

    fn deploy(human: &mut HumanReport) {
        sample::events().iter().for_each(|e| human.event(e));
        human.outcome(&sample::deployed());
    }

    #[test]
    fn a_deploy() {
        insta::assert_snapshot!(plain(deploy));
    }

    #[test]
    fn a_deploy_told_in_detail() {
        insta::assert_snapshot!(told(Verbosity::Verbose, Painter::PLAIN, deploy));
    }

    #[test]
    fn a_quiet_deploy_is_its_result() {
        insta::assert_snapshot!(told(Verbosity::Quiet, Painter::PLAIN, deploy));
    }

    #[test]
    fn a_diff() {
        insta::assert_snapshot!(plain(|h| h.outcome(&sample::drifted())));
    }

    #[test]
    fn a_dry_run() {
        insta::assert_snapshot!(plain(|h| h.outcome(
            &Outcome {
                purpose: Purpose::DryRun,
                ..sample::drifted()
            }
            .settle()
        )));
    }

    #[test]
    fn a_refused_deploy_names_the_key_and_every_host() {
        insta::assert_snapshot!(plain(|h| h.outcome(&sample::refused())));
    }

    #[test]
    fn equal_results_are_told_once() {
        insta::assert_snapshot!(plain(|h| {
            let outcome = sample::refused_by_many();
            for host in &outcome.hosts {
                h.event(&Event::Host(HostChange {
                    host: host.host.clone(),
                    address: host.address,
                    state: host.state,
                    error: host.error.clone(),
                }));
            }
            h.outcome(&outcome);
        }));
    }

    #[test]
    fn a_mixed_end_names_both_groups() {
        insta::assert_snapshot!(plain(|h| h.outcome(&sample::mixed())));
    }

    #[test]
    fn nobody_there() {
        insta::assert_snapshot!(plain(|h| h.outcome(&sample::nobody())));
    }

    #[test]
    fn members() {
        insta::assert_snapshot!(plain(|h| h.members(&sample::around())));
    }

    #[test]
    fn colour_adds_nothing_that_plain_text_does_not_say() {
        let colored = told(Verbosity::Normal, Painter::COLOR, |h| {
            h.outcome(&sample::mixed())
        });
        assert!(colored.contains("\x1b["));
        let mut bare = String::new();

        for (n, part) in colored.split('\x1b').enumerate() {
            bare.push_str(if n == 0 {
                part
            } else {
                part.split_once('m').map_or("", |(_, rest)| rest)
            });
        }

        assert_eq!(bare, plain(|h| h.outcome(&sample::mixed())));
    }

    #[test]
    fn what_a_peer_says_is_no_terminal_command() {
        let text = plain(|h| {
            let error = Some("no\x1b[2J space".to_string());
            let host = HostName::new("web1").expect("legal");
            h.event(&Event::Host(HostChange {
                host,
                address: None,
                state: HostState::Failed,
                error,
            }));
        });
        assert!(!text.contains('\x1b'), "{text}");
    }
}
