//! Rows of the table, as text and as JSON.

use serde_json::{Value, json};

use super::job::Done;
use super::trouble::Trouble;

/// One line of the table.
#[derive(Debug)]
pub struct Row {
    pub case: &'static str,
    /// Label of the row within its case.
    pub what: String,
    pub tool: &'static str,
    pub hosts: usize,
    pub seconds: Vec<f64>,
    /// Median divided by the bound.
    pub ratio: Option<f64>,
    /// Bytes sent divided by the bytes of the tree.
    pub wire: Option<f64>,
    /// Like `wire`, with the headers of a train of datagrams counted once, as the interface counts.
    pub interface: Option<f64>,
    /// Bytes sent by the host that sent most, divided by the bytes of the tree.
    pub passed_on: Option<f64>,
    pub checks: Vec<Check>,
    pub trouble: Option<Trouble>,
    peer: bool,
}

/// A requirement and its result.
#[derive(Debug, Clone)]
pub struct Check {
    what: &'static str,
    value: f64,
    limit: f64,
    at_least: bool,
}

impl Check {
    pub fn under(what: &'static str, value: f64, limit: f64) -> Self {
        Self {
            what,
            value,
            limit,
            at_least: false,
        }
    }

    pub fn at_least(what: &'static str, value: f64, limit: f64) -> Self {
        Self {
            what,
            value,
            limit,
            at_least: true,
        }
    }

    pub fn met(&self) -> bool {
        if self.at_least {
            self.value >= self.limit
        } else {
            self.value <= self.limit
        }
    }

    fn text(&self) -> String {
        let sign = match (self.at_least, self.met()) {
            (false, true) => "<=",
            (false, false) => ">",
            (true, true) => ">=",
            (true, false) => "<",
        };

        format!(
            "{} {} {sign} {}",
            self.what,
            number(self.value),
            number(self.limit)
        )
    }
}

/// Formats a number with its significant digits.
fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    }
}

impl Row {
    /// Makes a row from runs: `payload` bytes, and the line's minimum in seconds.
    pub fn new(
        case: &'static str,
        what: &str,
        hosts: usize,
        done: &Done,
        payload: u64,
        bound: Option<f64>,
    ) -> Self {
        let middle = median(&done.seconds);
        let over = |of: fn(&super::fabric::Sent) -> u64| {
            let all: Vec<f64> = done
                .sent
                .iter()
                .map(|sent| of(sent) as f64 / payload as f64)
                .collect();
            median(&all)
        };

        let passed_on: Vec<f64> = done
            .passed_on
            .iter()
            .map(|&bytes| bytes as f64 / payload as f64)
            .collect();

        Self {
            case,
            what: what.to_string(),
            tool: done.tool.name(),
            hosts,
            seconds: done.seconds.clone(),
            ratio: middle.zip(bound).map(|(seconds, bound)| seconds / bound),
            wire: over(|sent| sent.bytes()),
            interface: over(|sent| sent.interface),
            passed_on: median(&passed_on),
            checks: Vec::new(),
            trouble: done.trouble.clone(),
            peer: done.tool.is_peer(),
        }
    }

    /// Adds a requirement; `None` if there is no value.
    pub fn require(&mut self, check: Option<Check>) {
        self.checks.extend(check);
    }

    pub fn is_peer(&self) -> bool {
        self.peer
    }

    pub fn median(&self) -> Option<f64> {
        median(&self.seconds)
    }

    /// Returns true if makuo's result was wrong, regardless of speed.
    pub fn is_wrong(&self) -> bool {
        !self.peer && self.trouble.as_ref().is_some_and(Trouble::is_wrong)
    }

    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .checks
            .iter()
            .map(
                |c| json!({"what": c.what, "value": c.value, "limit": c.limit, "at_least": c.at_least, "met": c.met()}),
            )
            .collect();
        json!({
            "case": self.case, "what": self.what, "tool": self.tool, "hosts": self.hosts, "seconds": self.seconds,
            "median": self.median(), "ratio": self.ratio, "wire": self.wire, "interface": self.interface,
            "passed_on": self.passed_on,
            "checks": checks, "trouble": self.trouble.as_ref().map(Trouble::text), "wrong": self.is_wrong(),
        })
    }

    fn cells(&self) -> [String; 9] {
        let least = self.seconds.iter().copied().fold(f64::INFINITY, f64::min);
        let most = self.seconds.iter().copied().fold(0.0, f64::max);
        let seconds = self
            .median()
            .map_or_else(|| "-".into(), |m| format!("{m:.3} ({least:.3}-{most:.3})"));
        let ratio = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.3}"));
        let mut wanted: Vec<String> = self.checks.iter().map(Check::text).collect();

        wanted.extend(self.trouble.as_ref().map(Trouble::text));
        let met = match &self.trouble {
            Some(Trouble::Skipped(_)) => "-",
            _ if self.peer => "-",
            Some(_) => "NO",
            None if self.checks.is_empty() => "-",
            None => {
                if self.checks.iter().all(Check::met) {
                    "yes"
                } else {
                    "NO"
                }
            }
        };

        [
            self.case.to_string(),
            self.what.clone(),
            self.tool.to_string(),
            self.hosts.to_string(),
            seconds,
            ratio(self.ratio),
            ratio(self.wire),
            wanted.join("; "),
            met.to_string(),
        ]
    }
}

/// Formats all rows as one Markdown table.
pub fn table(rows: &[Row]) -> String {
    let head = [
        "case",
        "what",
        "tool",
        "hosts",
        "seconds (min-max)",
        "over bound",
        "wire",
        "requirement",
        "met",
    ];

    let cells: Vec<[String; 9]> = std::iter::once(head.map(String::from))
        .chain(rows.iter().map(Row::cells))
        .collect();
    let widths: Vec<usize> = (0..head.len())
        .map(|i| {
            cells
                .iter()
                .map(|line| line[i].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();

    let mut text = String::new();
    for (number, line) in cells.iter().enumerate() {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:width$}"))
            .collect();
        text.push_str(&format!("| {} |\n", padded.join(" | ")));
        if number == 0 {
            let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
            text.push_str(&format!("| {} |\n", rule.join(" | ")));
        }
    }

    text
}

/// Returns the median; of an even count, the mean of the middle two.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}
