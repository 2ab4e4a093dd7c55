//! Text for people: bars on a terminal, plain lines in a pipe.
//!
//! Owns the wording of results (standard output) and talk (standard error). Must not know JSON, and
//! must not decide: the outcome defines failure.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::paint::{Painter, Tint};
use super::table::{Align, Cell, TextTable};
use super::{Settings, Verbosity, fleet, put_line, words, write_failure, write_trouble};
use crate::Error;
use crate::id::NamedHost;
use crate::outcome::Stranger;
use crate::outcome::shared_names;
use crate::outcome::{
    DriftKind, DriftLine, Event, ExitStatus, HostChange, HostResult, HostState, Observer, Outcome,
    Purpose, Survey, TransferProgress,
};
use crate::outcome::{ReleaseLog, Standing};
use crate::units::{ByteSize, printable};

/// Interval of a bar's spinner.
const SPINNER_INTERVAL: Duration = Duration::from_millis(120);
/// Number of progress lines in a pipe: one for each tenth.
const PROGRESS_STEPS: u64 = 10;

/// Writes text for people.
pub struct Human {
    out: Box<dyn Write + Send>,
    talk: Box<dyn Write + Send>,
    out_paint: Painter,
    talk_paint: Painter,
    verbosity: Verbosity,
    bars: bool,
    bar: Option<ProgressBar>,
    step: u64,
}

impl Human {
    /// Writes to this process's standard output and standard error.
    pub fn terminal(settings: Settings) -> Self {
        Self {
            out: Box::new(std::io::stdout()),
            talk: Box::new(std::io::stderr()),
            out_paint: Painter::stdout(settings.color),
            talk_paint: Painter::stderr(settings.color),
            verbosity: settings.verbosity,
            bars: std::io::stderr().is_terminal() && settings.verbosity > Verbosity::Quiet,
            bar: None,
            step: 0,
        }
    }

    /// Writes to `out` and `talk`, without bars.
    pub fn to(
        out: Box<dyn Write + Send>,
        talk: Box<dyn Write + Send>,
        painter: Painter,
        verbosity: Verbosity,
    ) -> Self {
        Self {
            out,
            talk,
            out_paint: painter,
            talk_paint: painter,
            verbosity,
            bars: false,
            bar: None,
            step: 0,
        }
    }

    /// Shows the current step.
    pub fn start(&mut self, what: &str) {
        if self.bars {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            bar.set_style(style("{spinner} {msg}"));
            bar.set_message(words::safe(what));
            bar.enable_steady_tick(SPINNER_INTERVAL);
            self.replace_bar(Some(bar));
        } else if self.verbosity >= Verbosity::Verbose {
            self.print(&words::safe(what));
        }
    }

    /// Shows the end of a deploy, dry run or diff.
    pub fn outcome(&mut self, outcome: &Outcome) {
        self.replace_bar(None);
        match outcome.purpose {
            Purpose::Deploy => {
                if self.verbosity >= Verbosity::Verbose && !outcome.drift.is_empty() {
                    self.drift(outcome);
                }
                self.hosts(outcome);
                self.data(&deploy_summary(outcome));
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

    /// Shows the end of a deploy with nothing to send.
    pub fn unchanged(&mut self) {
        self.replace_bar(None);
        if self.verbosity >= Verbosity::Verbose {
            self.print("nothing has changed: nothing is sent");
        }
    }

    /// Lists the hosts that are alive.
    pub fn members(&mut self, around: &Survey) {
        self.replace_bar(None);
        let mut table = TextTable::new(&[]);
        for member in &around.members {
            let trees: Vec<String> = member
                .trees
                .iter()
                .map(|t| words::release(&t.tree, t.serial))
                .collect();
            table.row(vec![
                Cell::new(member.host.as_str(), Tint::Strong),
                member.address.to_string().into(),
                words::safe(&member.version).into(),
                trees.join(" ").into(),
            ]);
        }

        table
            .lines(self.out_paint)
            .iter()
            .for_each(|line| self.data(line));

        if self.verbosity > Verbosity::Quiet {
            self.print(&words::count(around.members.len() as u64, "host"));
            let hosts = around.members.iter().map(|m| (&m.host, m.address.ip()));
            shared_names(hosts).iter().for_each(|text| self.print(text));
            for Stranger { address, kind } in &around.strangers {
                self.print(&format!(
                    "{address} {}: it is not heard",
                    Stranger::describe(*kind)
                ));
            }
        }
    }

    /// Lists the releases known in the fleet.
    pub fn log(&mut self, log: &ReleaseLog) {
        self.replace_bar(None);
        fleet::releases(log)
            .lines(self.out_paint)
            .iter()
            .for_each(|line| self.data(line));
        fleet::log_notes(log)
            .iter()
            .for_each(|line| self.note(line));
    }

    /// Shows the standing of each host.
    pub fn status(&mut self, standings: &[Standing]) {
        self.replace_bar(None);
        fleet::standings(standings)
            .lines(self.out_paint)
            .iter()
            .for_each(|line| self.data(line));
        self.note(&fleet::summary(standings));
        let hosts = standings.iter().map(|s| (&s.host, s.address.ip()));

        shared_names(hosts).iter().for_each(|text| self.note(text));
    }

    /// Writes one or more lines of data; nothing for an empty `text`.
    pub fn data(&mut self, text: &str) {
        if !text.is_empty() {
            put_line(&mut *self.out, text);
        }
    }

    /// Reports a failure that ended the command early.
    pub fn failure(&mut self, error: &Error) {
        self.replace_bar(None);
        write_failure(&mut *self.talk, self.talk_paint, error);
    }

    /// Writes a line of talk, unless quiet.
    pub fn note(&mut self, line: &str) {
        if self.verbosity > Verbosity::Quiet {
            self.print(&words::quoted(line));
        }
    }

    fn print(&mut self, line: &str) {
        let talk = &mut self.talk;
        match &self.bar {
            Some(bar) => bar.suspend(|| put_line(&mut **talk, line)),
            None => put_line(&mut **talk, line),
        }
    }

    fn replace_bar(&mut self, bar: Option<ProgressBar>) {
        if let Some(old) = std::mem::replace(&mut self.bar, bar) {
            old.finish_and_clear();
        }
    }

    fn progress(&mut self, progress: &TransferProgress) {
        let &TransferProgress { sent, total, .. } = progress;
        if self.bars {
            let known = self
                .bar
                .as_ref()
                .is_some_and(|bar| bar.length() == Some(total.0));
            if !known {
                let bar =
                    ProgressBar::with_draw_target(Some(total.0), ProgressDrawTarget::stderr());
                bar.set_style(style("{spinner} {wide_bar} {msg}"));
                bar.enable_steady_tick(SPINNER_INTERVAL);
                self.replace_bar(Some(bar));
            }
            if let Some(bar) = &self.bar {
                bar.set_position(sent.0.min(total.0));
                bar.set_message(progress_words(progress));
            }
            return;
        }

        let step = sent
            .0
            .saturating_mul(PROGRESS_STEPS)
            .checked_div(total.0)
            .unwrap_or(PROGRESS_STEPS);

        if step > self.step {
            self.step = step;
            self.print(&progress_words(progress));
        }
    }

    fn host(&mut self, change: &HostChange) {
        let HostChange {
            host,
            address,
            state,
            error,
        } = change;

        if !state.is_trouble() && self.verbosity < Verbosity::Verbose {
            return;
        }

        let state = self.talk_paint.paint(tint_of(*state), state.word());
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

        outcome
            .hosts
            .iter()
            .for_each(|host| table.row(host_row(outcome, host)));
        table
            .lines(self.out_paint)
            .iter()
            .for_each(|line| self.data(line));
    }

    fn drift(&mut self, outcome: &Outcome) {
        for group in &outcome.drift {
            let hosts = self
                .out_paint
                .paint(Tint::Strong, &words::list(&group.hosts));
            self.data(&format!("{hosts}: {}", words::drift(group)));
            for line in &group.lines {
                let text = drift_line(line, self.out_paint);
                self.data(&text);
            }
            let cut = group.total().saturating_sub(group.lines.len() as u64);
            if cut > 0 {
                self.data(&format!("  ... and {}", words::count(cut, "more path")));
            }
        }

        let clean = without_drift(outcome);
        if !clean.is_empty() {
            self.data(&format!("{}: no drift", words::list(&clean)));
        }
    }

    /// Lists all failures with names and reasons.
    fn trouble(&mut self, outcome: &Outcome) {
        if !matches!(outcome.exit, ExitStatus::Refused | ExitStatus::Mixed) {
            return;
        }

        let hint = outcome.hint.as_deref().or_else(|| {
            outcome
                .hosts
                .is_empty()
                .then_some("`makuo members` shows the hosts that are alive and their trees")
        });
        write_trouble(
            &mut *self.talk,
            self.talk_paint,
            &trouble_text(outcome),
            hint,
        );
    }
}

impl Observer for Human {
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
                let line = drift_line(&change.line, self.talk_paint);
                self.print(&format!("{}:{}", words::list(&change.hosts), &line[1..]));
            }
            Event::Progress(progress) => self.progress(progress),
            Event::Note(text) => self.print(&words::quoted(text)),
            Event::Member(_) | Event::Change(_) | Event::Files(_) => {}
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    // An invalid template is a mistake in this file; the default bar is no reason to stop a deploy.
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn progress_words(p: &TransferProgress) -> String {
    format!(
        "{} of {} at {}, {} of {} ready",
        p.sent,
        p.total,
        p.rate,
        p.ready,
        words::count(p.targets as u64, "host")
    )
}

fn tint_of(state: HostState) -> Tint {
    match state {
        HostState::Committed | HostState::Unchanged => Tint::Good,
        HostState::Absent | HostState::Aborted | HostState::Reverted => Tint::Warn,
        HostState::Refused | HostState::Failed | HostState::Unhealthy | HostState::Stuck => {
            Tint::Bad
        }
        HostState::Torn | HostState::Unknown => Tint::Bad,
        HostState::Joined | HostState::Diffed | HostState::Staging => Tint::Plain,
        HostState::Ready | HostState::Prepared | HostState::Checking => Tint::Plain,
    }
}

/// Builds a row: host, state, release, written, deleted, received, time, reason.
fn host_row(outcome: &Outcome, host: &HostResult) -> Vec<Cell> {
    let worked = host.state.has_release() && host.state != HostState::Unchanged;
    let when_worked = |text: String| Cell::from(if worked { text } else { String::new() });

    vec![
        host.named().to_string().into(),
        Cell::new(host.state.word(), tint_of(host.state)),
        host.serial
            .map(|serial| words::release(&outcome.tree, Some(serial)))
            .unwrap_or_default()
            .into(),
        when_worked(format!("{} written", host.files_written)),
        when_worked(format!("{} deleted", host.files_deleted)),
        when_worked(host.bytes_received.to_string()),
        when_worked(words::seconds(host.took)),
        // The output of a command follows below.
        Cell::new(
            words::safe(
                host.error
                    .as_deref()
                    .and_then(|e| e.lines().next())
                    .unwrap_or_default(),
            ),
            tint_of(host.state),
        ),
    ]
}

/// ` >f.st...... content css/site.css`
fn drift_line(line: &DriftLine, painter: Painter) -> String {
    let tint = match line.what {
        DriftKind::Missing => Tint::Good,
        DriftKind::Extra => Tint::Bad,
        _ => Tint::Warn,
    };

    let word = painter.paint(tint, &format!("{:<7}", line.what.word()));
    format!(
        "  {:<11}  {word}  {}",
        words::safe(&line.itemized),
        printable(&line.path)
    )
}

fn deploy_summary(o: &Outcome) -> String {
    let have = o.hosts.iter().filter(|h| h.state.has_release()).count();
    let rate = o.rate.map(|r| format!(" at {r}")).unwrap_or_default();
    let unknown = match o
        .hosts
        .iter()
        .filter(|h| h.state == HostState::Unknown)
        .count()
    {
        0 => String::new(),
        n => format!(", {n} unknown"),
    };

    format!(
        "{}: {have} of {}{unknown}; {} written, {} deleted; \
         sent {} for a release of {}{rate} in {}; {} repaired",
        words::rollback(&o.tree, o.serial, o.rollback_to),
        words::count(o.hosts.len() as u64, "host"),
        words::count(o.files_written, "file"),
        o.files_deleted,
        o.bytes_sent,
        o.bytes_release,
        words::seconds(o.took),
        words::plural_count(o.repaired, "loss", "losses"),
    )
}

fn audit_summary(o: &Outcome) -> String {
    let differ: u64 = o.drift.iter().map(|g| g.hosts.len() as u64).sum();
    let hosts = words::count(o.hosts.len() as u64, "host");
    let size = ByteSize(o.bytes_release.0);
    match o.purpose {
        Purpose::DryRun => {
            format!(
                "{}: {differ} of {hosts} would change; release of {size}; nothing was changed",
                o.tree
            )
        }
        _ => format!("{}: {differ} of {hosts} differ; source of {size}", o.tree),
    }
}

/// Returns the hosts that answered an audit and are in no group.
fn without_drift(o: &Outcome) -> Vec<NamedHost> {
    let drifts = |host: &NamedHost| o.drift.iter().any(|g| g.hosts.contains(host));
    o.hosts
        .iter()
        .filter(|h| !h.state.is_trouble())
        .map(HostResult::named)
        .filter(|h| !drifts(h))
        .collect()
}

fn trouble_text(o: &Outcome) -> String {
    let release = words::release(&o.tree, o.serial);
    let good = |h: &&HostResult| {
        h.state.is_well() || (o.purpose != Purpose::Deploy && h.state == HostState::Diffed)
    };

    let done: Vec<NamedHost> = o.hosts.iter().filter(good).map(HostResult::named).collect();
    let mut lines = vec![match (o.exit, o.purpose) {
        (ExitStatus::Mixed, Purpose::Deploy) => mixed_text(o, &release),
        (ExitStatus::Mixed, _) => "mixed: some hosts answered, others did not".to_string(),
        // The reason includes the number of answers.
        (_, Purpose::Deploy) if o.hosts.is_empty() => format!("{} was offered to no host", o.tree),
        (_, Purpose::Deploy) if o.hosts.iter().any(|h| h.state == HostState::Reverted) => {
            format!("{release} was taken back: no host has it")
        }
        (_, Purpose::Deploy) => format!("{release} was not deployed: no host changed"),
        _ => format!("no host could be compared with {}", o.tree),
    }];

    if let Some(error) = o.error.as_deref().and_then(|e| e.lines().next()) {
        lines[0] = format!("{} ({error})", lines[0]);
    }

    if let (Some(key), true) = (
        &o.fingerprint,
        o.hosts.iter().any(|h| h.state == HostState::Refused),
    ) {
        lines.push(format!("  signed by {key}"));
    }

    if !done.is_empty() {
        lines.push(format!(
            "  {}: {}",
            if o.purpose == Purpose::Deploy {
                "have it"
            } else {
                "answered"
            },
            words::list(&done)
        ));
    }

    for host in o.hosts.iter().filter(|h| !good(h)) {
        let why = host
            .error
            .as_deref()
            .map(|e| format!(": {}", words::quoted(e)))
            .unwrap_or_default();
        lines.push(format!("  {} {}{why}", host.named(), host.state.word()));
    }

    lines.join("\n")
}

/// Describes the hosts' releases after a deploy that failed somewhere.
fn mixed_text(o: &Outcome, release: &str) -> String {
    let count = |of: fn(HostState) -> bool| o.hosts.iter().filter(|h| of(h.state)).count();
    let has = count(HostState::has_release);
    let torn = count(|s| s == HostState::Torn);
    let unknown = count(|s| s == HostState::Unknown);
    let before = count(HostState::is_as_before);
    let hosts = |n: usize| words::count(n as u64, "host");

    match (has, before, torn, unknown) {
        (_, 0, 0, 0) => format!("every host has {release}, and not every host is well"),
        (_, _, 0, 0) => format!("mixed: some hosts have {release}, others do not"),
        (0, _, 0, _) => format!(
            "it is not known whether {} changed: none is known to have {release}",
            hosts(unknown)
        ),
        _ => {
            let parts = [
                (has, format!("{} with {release}", hosts(has))),
                (before, format!("{} without", hosts(before))),
                (torn, format!("{} part new, part old", hosts(torn))),
                (unknown, format!("{} unknown", hosts(unknown))),
            ];
            let said: Vec<String> = parts
                .into_iter()
                .filter(|(n, _)| *n > 0)
                .map(|(_, text)| text)
                .collect();
            format!("mixed: {}", said.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::sample::{self, SharedBuffer};
    use super::*;
    use crate::id::HostName;

    fn told(verbosity: Verbosity, painter: Painter, tell: impl FnOnce(&mut Human)) -> String {
        let out = SharedBuffer::default();
        let talk = SharedBuffer::default();
        tell(&mut Human::to(
            Box::new(out.clone()),
            Box::new(talk.clone()),
            painter,
            verbosity,
        ));
        format!("--- stdout\n{}--- stderr\n{}", out.text(), talk.text())
    }

    fn plain(tell: impl FnOnce(&mut Human)) -> String {
        told(Verbosity::Normal, Painter::PLAIN, tell)
    }

    fn deploy(human: &mut Human) {
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
