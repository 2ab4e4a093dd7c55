//! Findings for people and for scripts: verdict, check, hosts, state, and the remedy.

use serde::Serialize;

use super::Report;
use super::human::HumanReport;
use super::json::Json;
use super::paint::{Painter, Tint};
use super::words;
use crate::outcome::{Check, Finding, Severity, findings_exit};

/// A finding for scripts.
#[derive(Serialize)]
struct FindingLine<'a> {
    event: &'static str,
    check: Check,
    level: Severity,
    hosts: Vec<String>,
    what: &'a str,
    todo: Option<&'a str>,
}

/// Numbers of findings for scripts.
#[derive(Serialize)]
struct FindingsResult {
    failed: usize,
    warned: usize,
    well: usize,
    hosts: usize,
}

impl Report {
    /// Reports the findings about a network of `hosts` hosts: all of the output of `makuo doctor`.
    pub fn findings(&mut self, findings: &[Finding], hosts: usize) {
        match self {
            Report::HumanReport(human) => human.findings(findings, hosts),
            Report::Json(json) => json.findings(findings, hosts),
        }
    }
}

impl HumanReport {
    fn findings(&mut self, findings: &[Finding], hosts: usize) {
        let is_quiet = self.is_quiet();
        let painter = self.painter();
        for finding in findings
            .iter()
            .filter(|f| !is_quiet || f.level != Severity::Ok)
        {
            self.data(&shown(finding, painter));
        }

        let result = FindingsResult::of(findings, hosts);
        self.note(&format!(
            "{}: {} failed, {} to look at, {} well",
            words::count(result.hosts as u64, "host"),
            words::count(result.failed as u64, "check"),
            result.warned,
            result.well
        ));
    }
}

impl Json {
    fn findings(&mut self, findings: &[Finding], hosts: usize) {
        for finding in findings {
            self.put(&FindingLine {
                event: "finding",
                check: finding.check,
                level: finding.level,
                hosts: finding.hosts.iter().map(ToString::to_string).collect(),
                what: &finding.what,
                todo: finding.todo.as_deref(),
            });
        }

        let result = FindingsResult::of(findings, hosts);
        self.checked(&result, findings_exit(findings));
    }
}

impl FindingsResult {
    fn of(findings: &[Finding], hosts: usize) -> Self {
        let count = |level| findings.iter().filter(|f| f.level == level).count();
        Self {
            failed: count(Severity::Fail),
            warned: count(Severity::Warn),
            well: count(Severity::Ok),
            hosts,
        }
    }
}

/// The lines of a finding. Texts come from hosts, too, so none may command the terminal.
fn shown(finding: &Finding, painter: Painter) -> String {
    let (tint, word) = match finding.level {
        Severity::Fail => (Tint::Bad, "fail"),
        Severity::Warn => (Tint::Warn, "warn"),
        Severity::Ok => (Tint::Good, "ok"),
    };
    let level = painter.paint(tint, word);
    let blanks = " ".repeat("fail".len() - word.len());
    let check = finding.check.name();
    let hosts = match finding.hosts.as_slice() {
        [] => String::new(),
        hosts => format!("{}: ", words::hosts(hosts)),
    };

    let mut text = format!(
        "{level}{blanks}  {check}: {hosts}{}",
        words::quoted(&finding.what)
    );
    if let Some(todo) = &finding.todo {
        let arrow = painter.paint(Tint::Note, "->");
        text.push_str(&format!("\n      {arrow} {}", words::quoted(todo)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::Verbosity;
    use super::super::sample::SharedBuffer;
    use super::*;
    use crate::id::{HostName, NamedHost};

    fn findings() -> Vec<Finding> {
        let hosts = ["web2", "web3", "web4"]
            .map(|name| NamedHost::from(HostName::new(name).expect("legal")));
        let multicast = Finding::new(
            Check::Multicast,
            Severity::Fail,
            "0 of 20 datagrams to the group 224.0.0.108 arrive there; 20 of 20 to its address do",
        );
        let clock = Finding::new(
            Check::Clock,
            Severity::Ok,
            "its clock agrees with the one here",
        );
        vec![
            multicast
                .todo("let UDP to port 5000 in there")
                .of(&hosts[0]),
            Finding::new(Check::Buffer, Severity::Warn, "small"),
            Finding {
                hosts: hosts.into(),
                ..clock
            },
        ]
    }

    fn told(verbosity: Verbosity, findings: &[Finding]) -> String {
        let (out, messages) = (SharedBuffer::default(), SharedBuffer::default());
        let mut human = HumanReport::to(
            Box::new(out.clone()),
            Box::new(messages.clone()),
            Painter::PLAIN,
            verbosity,
        );
        human.findings(findings, 3);
        format!("--- stdout\n{}--- stderr\n{}", out.text(), messages.text())
    }

    #[test]
    fn people_read_the_worst_first_with_the_remedy() {
        assert_eq!(
            told(Verbosity::Normal, &findings()),
            "--- stdout\n\
             fail  multicast: web2: 0 of 20 datagrams to the group 224.0.0.108 arrive there; 20 of \
             20 to its address do\n      \
             -> let UDP to port 5000 in there\n\
             warn  buffer: small\n\
             ok    clock: web2-web4: its clock agrees with the one here\n\
             --- stderr\n\
             3 hosts: 1 check failed, 1 to look at, 1 well\n"
        );
        let quiet = told(Verbosity::Quiet, &findings());
        assert!(
            !quiet.contains("ok  ") && quiet.contains("fail  multicast"),
            "{quiet}"
        );
    }

    #[test]
    fn scripts_read_a_line_for_each_and_the_exit_code() {
        let out = SharedBuffer::default();
        Json::to(Box::new(out.clone())).findings(&findings(), 3);
        let text = out.text();
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 4);
        assert_eq!(lines[0]["check"], "multicast");
        assert_eq!(lines[0]["level"], "fail");
        assert_eq!(lines[0]["hosts"][0], "web2");
        assert_eq!(lines[3]["event"], "result");
        assert_eq!(
            (&lines[3]["exit"], &lines[3]["failed"]),
            (&1.into(), &1.into())
        );
    }

    #[test]
    fn no_text_of_a_host_commands_the_terminal() {
        let evil: String = (0..255_u8).map(|n| char::from(n % 32)).collect();
        let finding = Finding::new(Check::Filesystem, Severity::Warn, evil.clone()).todo(evil);
        let told = told(Verbosity::Normal, &[finding]);
        let is_harmless = |c: char| c == '\n' || !c.is_control();
        assert!(told.chars().all(is_harmless), "{told:?}");
        let text = told.strip_prefix("--- stdout\n").expect("first");
        let forged = text
            .lines()
            .take_while(|line| !line.starts_with("---"))
            .filter(|line| !line.starts_with("warn  filesystem: ") && !line.starts_with("  "));
        assert_eq!(forged.count(), 0, "{told}");
    }
}
