//! Metrics of a daemon as a client reads them, with a strict parser of the text format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};

use super::Host;
use super::http::{Answer, named};
use super::wait::until;

/// Samples by their name and labels as written: `makuo_sessions_total{role="sender"}`.
#[derive(Debug, Default)]
pub struct Scrape {
    pub samples: BTreeMap<String, f64>,
    /// Metrics with a description and their kinds.
    pub kinds: BTreeMap<String, String>,
    pub text: String,
}

/// Returns the address on which a daemon serves metrics, by its log.
pub fn address_of(host: &Host) -> SocketAddr {
    let mut found = None;
    until("an address of metrics", || {
        let log = host.log();
        let rest = log.rsplit_once("metrics on http://").map(|(_, rest)| rest);
        found = rest.and_then(|rest| rest.split('/').next()?.parse().ok());
        found.is_some()
    });
    found.expect("just found")
}

/// Asks for a path, on a connection of its own.
pub fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    ask(address, &request).unwrap_or_else(|| panic!("no answer to GET {path}"))
}

/// Sends a request as it is.
pub fn ask(address: SocketAddr, request: &str) -> Option<Answer> {
    use std::io::Write;
    let mut server = TcpStream::connect(address).ok()?;
    server.write_all(request.as_bytes()).ok()?;
    Answer::read(&mut BufReader::new(server), request.starts_with("HEAD "))
}

/// Reads the metrics.
pub fn scrape(address: SocketAddr) -> Scrape {
    let answer = get(address, "/metrics");
    assert_eq!(answer.status, 200);
    assert_eq!(
        named(&answer.headers)["content-type"],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    Scrape::parse(&String::from_utf8(answer.body).expect("UTF-8"))
}

/// Waits for a value of a sample.
pub fn until_sample(address: SocketAddr, sample: &str, is: impl Fn(f64) -> bool) -> Scrape {
    let mut last = Scrape::default();
    until(sample, || {
        last = scrape(address);
        last.get(sample).is_some_and(&is)
    });
    last
}

impl Scrape {
    /// Parses and checks a text.
    pub fn parse(text: &str) -> Self {
        let mut scrape = Self {
            text: text.to_string(),
            ..Self::default()
        };
        let (mut current, mut helped, mut over) = (String::new(), BTreeSet::new(), BTreeSet::new());
        assert!(text.ends_with('\n'), "the last line is cut");

        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, _) = help.split_once(' ').expect("a description");
                assert!(helped.insert(name.to_string()), "described twice: {line}");
                assert!(
                    over.insert(std::mem::replace(&mut current, name.into())),
                    "{line}"
                );
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a kind");
                assert_eq!(name, current, "HELP and TYPE belong together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(scrape.kinds.insert(name.into(), kind.into()).is_none());
            } else {
                let (labelled, value) = line.rsplit_once(' ').expect("a value");
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
                let name = labelled.split('{').next().expect("a name");
                let kind = scrape.kinds.get(&current).map(String::as_str);
                let suffix = name
                    .strip_prefix(&current)
                    .unwrap_or_else(|| panic!("{line}"));
                match kind {
                    Some("histogram") => {
                        assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}")
                    }
                    Some(_) => assert_eq!(suffix, "", "{line}"),
                    None => panic!("no TYPE before {line}"),
                }
                check_labels(&labelled[name.len()..]);
                let is_new = scrape.samples.insert(labelled.to_string(), value).is_none();
                assert!(is_new, "twice: {line}");
            }
        }

        scrape.check_histograms();
        scrape
    }

    /// The value of a sample, if it is there.
    pub fn get(&self, sample: &str) -> Option<f64> {
        self.samples.get(sample).copied()
    }

    /// The value of a sample that has to be there.
    #[track_caller]
    pub fn value(&self, sample: &str) -> f64 {
        self.get(sample)
            .unwrap_or_else(|| panic!("no {sample} in\n{}", self.text))
    }

    fn check_histograms(&self) {
        let is_histogram = |name: &&String| self.kinds[*name] == "histogram";
        for name in self.kinds.keys().filter(is_histogram) {
            let mut last: BTreeMap<String, f64> = BTreeMap::new();
            let mut whole = BTreeSet::new();
            for line in self.text.lines() {
                let Some(rest) = line.strip_prefix(&format!("{name}_bucket")) else {
                    continue;
                };
                let (labels, count) = rest.rsplit_once(' ').expect("a value");
                let (others, bound) = labels.rsplit_once("le=\"").expect("a bound");
                let count: f64 = count.parse().expect("a number");
                let before = last.insert(others.to_string(), count).unwrap_or(0.0);
                assert!(count >= before, "buckets hold those before them: {line}");
                if bound == "+Inf\"}" {
                    let others = others.trim_end_matches(',').to_string();
                    let labels = if others == "{" {
                        String::new()
                    } else {
                        others + "}"
                    };
                    let sum = self.value(&format!("{name}_count{labels}"));
                    assert_eq!(sum, count, "{line}");
                    whole.insert(labels);
                }
            }

            // Each series has the bucket of all observations.
            assert_eq!(last.len(), whole.len(), "{name}: {last:?}");
            for suffix in ["_count", "_sum"] {
                let sample = format!("{name}{suffix}");
                let labels = self.samples.keys().filter_map(|s| s.strip_prefix(&sample));
                let labels: BTreeSet<String> = labels.map(str::to_string).collect();
                assert_eq!(labels, whole, "{sample}");
            }
        }
    }
}

/// Checks `{name="value",...}`, or nothing.
fn check_labels(text: &str) {
    if text.is_empty() {
        return;
    }
    let mut rest = text.strip_prefix('{').expect("an opening brace");
    let mut names = BTreeSet::new();
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(is_word) && names.insert(name), "{text}");
        let mut chars = after.char_indices();
        let end = loop {
            match chars.next().unwrap_or_else(|| panic!("{text}")) {
                (_, '\\') => {
                    let escaped = chars.next().map(|(_, c)| c);
                    assert!(matches!(escaped, Some('\\' | '"' | 'n')), "{text}");
                }
                (at, '"') => break at,
                _ => {}
            }
        };
        rest = &after[end + 1..];
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None => break,
        }
    }
    assert_eq!(rest, "}", "{text}");
}
