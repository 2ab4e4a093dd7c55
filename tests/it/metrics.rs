//! The metrics of a daemon: what they count, who may ask, and what a hostile client cannot do.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use makuo::metrics::{FAMILIES, FamilyKind, RefusalCauseWord, SessionEnd, Word};
use serde_json::Value;

use crate::repository::run;
use crate::support::http::named;
use crate::support::scrape::{address_of, ask, get, scrape, until_sample};
use crate::support::{Lab, is_root, skipped, until, write};

/// Makes a lab with one host that serves metrics, not started yet.
fn lab() -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    let mut flags = lab.admin.flags();
    flags.extend(["--metrics", "127.0.0.1:0"].map(String::from));
    if is_root() {
        flags.extend(["--user", "65534"].map(String::from));
    }
    lab.host("web1").flags = Some(flags);
    Some(lab)
}

#[test]
fn every_metric_counts_what_it_says() {
    let Some(mut lab) = lab() else { return };
    let repository = lab.path("repository");
    std::fs::create_dir(&repository).expect("new");
    let url = format!("file://{}", repository.display());
    let host = &mut lab.hosts[0];
    host.catch_up = true;
    host.rule(&format!(
        "repository = {url:?}\npoll = \"1s\"\nrepair = \"1s\""
    ));
    host.rule("max_age = \"1s\"\nafter = [\"/bin/true\"]\nbefore = [\"/bin/true\"]");
    host.start();
    let at = address_of(&lab.hosts[0]);

    let before = scrape(at);
    for family in FAMILIES {
        assert!(before.kinds.contains_key(family.name), "{}", family.name);
    }
    assert_eq!(before.kinds.len(), FAMILIES.len());
    assert_eq!(
        before.value("makuo_tree_state{tree=\"www\",state=\"idle\"}"),
        1.0
    );
    assert_eq!(before.get("makuo_tree_release_serial{tree=\"www\"}"), None);
    assert!(before.value("makuo_receive_buffer_bytes") > 1000.0);
    let version = format!("makuo_build_info{{version={:?}", env!("CARGO_PKG_VERSION"));
    assert!(before.text.contains(&version));

    write(&lab.site().join("a"), "x".repeat(3000));
    write(&lab.site().join("dir/b"), "b");
    let serial = lab.deploy(&[]).exits(0).result()["serial"].as_f64();
    let done = "makuo_sessions_total{role=\"receiver\",outcome=\"committed\"}";
    let found = until_sample(at, done, |n| n == 1.0);
    let of_tree = |name: &str| found.value(&format!("makuo_{name}{{tree=\"www\"}}"));
    assert_eq!(Some(of_tree("tree_release_serial")), serial);
    assert_eq!(of_tree("tree_bytes"), 3001.0);
    assert_eq!(of_tree("tree_entries"), 3.0);
    assert_eq!(of_tree("files_written_total"), 2.0);
    assert_eq!(of_tree("files_deleted_total"), 0.0);
    assert_eq!(of_tree("tree_behind"), 0.0);
    let (made, put) = (
        of_tree("tree_release_created_timestamp_seconds"),
        of_tree("tree_committed_timestamp_seconds"),
    );
    assert!(
        made > 1.7e9 && put >= made - 1.0 && put < made + 100.0,
        "{made} {put}"
    );
    assert!(found.value("makuo_start_time_seconds") <= put);
    assert_eq!(
        found.value("makuo_session_duration_seconds_count{role=\"receiver\"}"),
        1.0
    );
    assert_eq!(
        found.value("makuo_hook_duration_seconds_count{phase=\"after\"}"),
        1.0
    );
    assert_eq!(
        found.value("makuo_hook_failures_total{tree=\"www\",phase=\"before\"}"),
        0.0
    );
    for via in ["multicast", "unicast"] {
        assert!(found.value(&format!("makuo_received_bytes_total{{via=\"{via}\"}}")) > 0.0);
        assert!(found.value(&format!("makuo_sent_bytes_total{{via=\"{via}\"}}")) > 0.0);
    }
    let received: f64 = ["multicast", "unicast"]
        .map(|via| found.value(&format!("makuo_received_bytes_total{{via=\"{via}\"}}")))
        .iter()
        .sum();
    assert!(received > 300.0, "{received}");
    until_sample(at, "makuo_tree_stale{tree=\"www\"}", |n| n == 1.0);
    until_sample(at, "makuo_state_bytes{tree=\"www\"}", |n| n > 1000.0);

    // A key that no host lists.
    lab.keygen("other");
    lab.deploy(&["--key", "other"]).exits(3);
    let refused = "makuo_refused_total{reason=\"key\"}";
    assert_eq!(
        until_sample(at, refused, |n| n > 0.0).value("makuo_refused_total{reason=\"signature\"}"),
        0.0
    );

    // A file that somebody changes.
    write(&lab.hosts[0].tree().join("a"), "y");
    let drifted = until_sample(at, "makuo_drift_paths{tree=\"www\"}", |n| n >= 1.0);
    assert!(drifted.value("makuo_last_drift_check_timestamp_seconds{tree=\"www\"}") >= made);
    std::fs::remove_file(lab.site().join("dir/b")).expect("there");
    lab.deploy(&[]).exits(0);
    until_sample(at, "makuo_files_deleted_total{tree=\"www\"}", |n| n == 1.0);

    // A release on the store.
    write(&lab.site().join("c"), "c".repeat(2000));
    run(&lab, &["publish", "www.toml", "--to", "./repository"]).exits(0);
    let store = format!("store=\"{}\"", repository.display());
    let got = until_sample(at, "makuo_received_bytes_total{via=\"store\"}", |n| {
        n > 100.0
    });
    assert!(
        got.value(&format!(
            "makuo_store_requests_total{{{store},code=\"ok\"}}"
        )) > 0.0
    );
    until_sample(
        at,
        &format!("makuo_store_last_success_timestamp_seconds{{{store}}}"),
        |n| n >= made,
    );
    until_sample(
        at,
        "makuo_sessions_total{role=\"sender\",outcome=\"committed\"}",
        |n| n >= 1.0,
    );

    passes_promtool(&scrape(at).text);
}

/// Checks a text with the tool of Prometheus, if it is installed.
fn passes_promtool(text: &str) {
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut tool = match started {
        Ok(tool) => tool,
        Err(e) => return skipped(format!("promtool: {e}")),
    };
    let mut input = tool.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let told = tool.wait_with_output().expect("it ends");
    assert!(told.status.success(), "{told:?}\n{text}");
    assert!(told.stderr.is_empty(), "{told:?}");
}

#[test]
fn only_requests_for_this_host_are_answered() {
    let Some(mut lab) = lab() else { return };
    lab.hosts[0].setting("[metrics]\nlisten = \"127.0.0.1:1\"\nnames = [\"metrics.example\"]");
    lab.hosts[0].start();
    let at = address_of(&lab.hosts[0]);
    let status = |request: &str| ask(at, request).map(|answer| answer.status);
    let get_as = |host: &str| status(&format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n"));

    assert_eq!(get_as("localhost"), Some(200));
    assert_eq!(get_as(&at.to_string()), Some(200));
    assert_eq!(get_as("metrics.example:80"), Some(200));
    assert_eq!(get_as("web1"), Some(200));
    assert_eq!(get_as("evil.example"), Some(421));
    assert_eq!(status("GET /healthz HTTP/1.0\r\n\r\n"), Some(200));
    assert_eq!(status("GET /healthz HTTP/1.1\r\n\r\n"), Some(400));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let request = format!("{method} /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
        assert_eq!(status(&request), Some(405), "{method}");
    }

    assert_eq!(get(at, "/../../etc/passwd").status, 404);
    assert_eq!(get(at, "/metrics/").status, 404);
    let head = ask(at, "HEAD /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("an answer");
    let headers = named(&head.headers);
    assert!(
        headers["content-length"]
            .parse::<usize>()
            .is_ok_and(|n| n > 1000)
    );
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert!(headers["content-security-policy"].starts_with("default-src 'self';"));

    // A reload changes nothing here, and says so.
    let file = lab.hosts[0].config_path();
    let text = std::fs::read_to_string(&file).expect("there");
    write(&file, text.replace("metrics.example", "other.example"));
    lab.hosts[0].reload();
    until("a notice of the reload", || {
        let log = lab.hosts[0].log();
        log.contains("these changes need a restart: [metrics]")
    });
    assert_eq!(get_as("metrics.example"), Some(200));
    assert_eq!(get_as("other.example"), Some(421));
}

#[test]
fn an_address_in_use_is_named() {
    let Some(mut lab) = lab() else { return };
    let taken = TcpListener::bind("127.0.0.1:0").expect("free");
    let at = taken.local_addr().expect("bound").to_string();
    let mut flags = lab.admin.flags();
    flags.extend(["--metrics".to_string(), at.clone()]);
    lab.hosts[0].flags = Some(flags);
    lab.hosts[0].begin();
    until("an error", || {
        lab.hosts[0].log().contains("[metrics] listen")
    });
    let log = lab.hosts[0].log();
    assert!(
        log.contains(&format!("cannot listen on {at} for metrics")),
        "{log}"
    );
}

#[test]
fn a_hostile_client_holds_nobody_up() {
    let Some(mut lab) = lab() else { return };
    lab.hosts[0].start();
    let at = address_of(&lab.hosts[0]);
    let connect = |_| TcpStream::connect(at).expect("a connection");

    // Idle ones, ones in the middle of a head, and ones that never read.
    let idle: Vec<TcpStream> = (0..200).map(connect).collect();
    assert_eq!(get(at, "/healthz").status, 200);
    let mut halves: Vec<TcpStream> = (0..70).map(connect).collect();
    for half in &mut halves {
        // The daemon may have closed it for a newer one.
        let _ = half.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: ");
    }
    assert_eq!(get(at, "/metrics").status, 200);
    let mut deaf: Vec<TcpStream> = (0..70).map(connect).collect();
    for client in &mut deaf {
        for _ in 0..50 {
            let _ = client.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n");
        }
    }
    assert_eq!(get(at, "/metrics").status, 200);
    let open = sockets(lab.hosts[0].pid());
    assert!(open < 90, "{open} sockets");

    assert!(is_refused(at, endless_headers()), "endless headers");
    assert!(
        is_refused(at, std::iter::repeat_n(b'a', 1 << 20).collect()),
        "an endless line"
    );
    let many: String = (0..1000).map(|n| format!("x{n}: y\r\n")).collect();
    assert!(
        is_refused(at, format!("GET / HTTP/1.1\r\n{many}\r\n").into_bytes()),
        "many headers"
    );

    // Everybody else is served, and the daemon works.
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    until_sample(at, "makuo_files_written_total{tree=\"www\"}", |n| n == 1.0);
    drop((idle, halves, deaf));
    until("fewer sockets", || {
        sockets(lab.hosts[0].pid()) < open.min(30)
    });
}

fn endless_headers() -> Vec<u8> {
    let mut text = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
    text.resize(1 << 20, b'y');
    text
}

/// Returns whether the daemon closes the connection, with an error or none, long before its end.
fn is_refused(at: SocketAddr, bytes: Vec<u8>) -> bool {
    let mut client = TcpStream::connect(at).expect("a connection");
    client
        .set_write_timeout(Some(Duration::from_secs(30)))
        .expect("legal");
    client
        .set_read_timeout(Some(Duration::from_secs(30)))
        .expect("legal");
    let wrote = client.write_all(&bytes);
    let mut answer = Vec::new();
    let read = client.read_to_end(&mut answer);
    let is_ok = answer.starts_with(b"HTTP/1.1 200");
    !is_ok
        && (wrote.is_err()
            || read.is_err()
            || answer.starts_with(b"HTTP/1.1 4")
            || answer.is_empty())
}

/// Number of sockets of a process.
fn sockets(pid: u32) -> usize {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs");
    let is_socket = |target: &std::path::PathBuf| target.to_string_lossy().starts_with("socket:");
    open.flatten()
        .filter_map(|fd| std::fs::read_link(fd.path()).ok())
        .filter(is_socket)
        .count()
}

#[test]
fn alerts_and_the_dashboard_use_metrics_that_are_served() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let served = |word: &str| {
        let is = |name: &str| word == name;
        FAMILIES.iter().any(|family| match family.kind {
            FamilyKind::Histogram => {
                let parts = ["_bucket", "_sum", "_count"];
                parts
                    .iter()
                    .any(|part| is(&format!("{}{part}", family.name)))
            }
            _ => is(family.name),
        })
    };

    for (file, at_least) in [
        ("packaging/prometheus/makuo.rules.yml", 5),
        ("packaging/prometheus/makuo.rules.test.yml", 5),
        ("packaging/grafana/makuo.json", 18),
    ] {
        let text = std::fs::read_to_string(root.join(file)).expect("there");
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let named: BTreeSet<&str> = words.filter(|w| w.starts_with("makuo_")).collect();
        let unknown: Vec<_> = named.iter().filter(|name| !served(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
        assert!(named.len() >= at_least, "{file}: {named:?}");
    }

    let board = std::fs::read(root.join("packaging/grafana/makuo.json")).expect("there");
    let board: Value = serde_json::from_slice(&board).expect("JSON");
    let names = board["templating"]["list"].as_array().expect("variables");
    let names: Vec<&str> = names.iter().filter_map(|v| v["name"].as_str()).collect();
    assert_eq!(names, ["datasource", "job", "tree", "instance"]);
    check_expressions(&board);

    let rules = root.join("packaging/prometheus");
    promtool(&["check", "rules", "makuo.rules.yml"], &rules);
    promtool(&["test", "rules", "makuo.rules.test.yml"], &rules);
}

/// Has every expression of a dashboard parsed, as rules.
fn check_expressions(board: &Value) {
    let panels = board["panels"].as_array().expect("panels");
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    let exprs: Vec<&str> = targets
        .flatten()
        .filter_map(|target| target["expr"].as_str())
        .collect();
    assert!(exprs.len() > 20, "{exprs:?}");

    let rule = |(n, expr): (usize, &&str)| {
        let expr = expr.replace("$__rate_interval", "5m");
        serde_json::json!({ "record": format!("panel_{n}"), "expr": expr })
    };
    let rules: Vec<Value> = exprs.iter().enumerate().map(rule).collect();
    // JSON is YAML.
    let rules = serde_json::json!({ "groups": [{ "name": "board", "rules": rules }] });
    let dir = tempfile::tempdir().expect("a directory");
    write(&dir.path().join("board.yml"), rules.to_string());
    promtool(&["check", "rules", "board.yml"], dir.path());
}

/// Runs the tool of Prometheus, if it is installed. `.ci/run` does not install it: with its
/// dependencies the package of Debian takes 300 MB.
fn promtool(args: &[&str], dir: &std::path::Path) {
    match Command::new("promtool")
        .args(args)
        .current_dir(dir)
        .output()
    {
        Ok(told) => assert!(told.status.success(), "{args:?}: {told:?}"),
        Err(e) => skipped(format!("promtool: {e}")),
    }
}

#[test]
fn the_page_of_the_configuration_lists_every_metric() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = root.join("packaging/man/makuo.toml.5");
    let page = std::fs::read_to_string(page).expect("there");
    for family in FAMILIES {
        let entry = format!("\n.BR {}", family.name);
        let (_, rest) = page.split_once(&entry).unwrap_or_else(|| panic!("{entry}"));
        let mut lines = rest.lines();
        assert!(
            lines
                .next()
                .is_some_and(|l| l.is_empty() || l.starts_with(' '))
        );
        assert_eq!(lines.next(), Some(family.help));
    }

    let listed = page.matches("\n.BR makuo_").count();
    assert_eq!(listed, FAMILIES.len(), "the page lists others");
    for word in SessionEnd::ALL.iter().map(|end| end.word()) {
        assert!(page.contains(word), "{word}");
    }
    for word in RefusalCauseWord::ALL.iter().map(|cause| cause.word()) {
        assert!(page.contains(word), "{word}");
    }
}
