//! The page of a daemon: the state of the fleet as HTML, as JSON and as a stream of events.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use crate::support::http::named;
use crate::support::scrape::{address_of, ask, get};
use crate::support::{Lab, until, write};

/// Makes a lab of two hosts, of which the first serves the page.
pub fn lab() -> Option<Lab> {
    let mut lab = Lab::loopback_idle()?;
    let mut flags = lab.admin.flags();
    flags.extend(["--metrics", "127.0.0.1:0"].map(String::from));
    lab.host("web1").flags = Some(flags);
    lab.host("web2");
    lab.hosts.iter_mut().for_each(|host| host.start());
    Some(lab)
}

fn html(at: SocketAddr, path: &str) -> String {
    let answer = get(at, path);
    assert_eq!(answer.status, 200, "{path}");
    let kind = &named(&answer.headers)["content-type"];
    assert_eq!(kind, "text/html; charset=utf-8");
    String::from_utf8(answer.body).expect("UTF-8")
}

fn json(at: SocketAddr, path: &str) -> Value {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: localhost\r\naccept: application/json\r\n\
         connection: close\r\n\r\n"
    );
    let answer = ask(at, &request).expect("an answer");
    assert_eq!(answer.status, 200, "{path}");
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn the_fleet_is_shown_from_all_sides() {
    let Some(lab) = lab() else { return };
    let at = address_of(&lab.hosts[0]);
    write(&lab.site().join("a"), "a");
    let serial = lab.deploy(&[]).exits(0).result()["serial"].to_string();
    let current = |fleet: &Value| {
        let groups = &fleet["trees"][0]["groups"];
        groups[0]["state"] == "current" && groups[0]["hosts"] == serde_json::json!(["web1", "web2"])
    };
    until("both hosts on the page", || current(&json(at, "/")));

    let page = html(at, "/");
    let release = format!("www@{serial}");
    for said in ["2 hosts, 1 tree", "2 hosts current", &release, "/tree/www"] {
        assert!(page.contains(said), "{said}: {page}");
    }
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "{page}"
    );
    let tree = html(at, "/tree/www");
    assert!(
        tree.contains("/host/web2") && tree.contains("Releases"),
        "{tree}"
    );
    let host = html(at, "/host/web2");
    assert!(
        host.contains(&release) && host.contains("current"),
        "{host}"
    );
    let path = format!("/release/www/{serial}");
    let shown = html(at, &path);
    assert!(
        shown.contains("Runs on 2 hosts") && shown.contains("SHA256:"),
        "{shown}"
    );
    let facts = json(at, &path);
    assert_eq!(facts[0]["running"], serde_json::json!(["web1", "web2"]));
    assert_eq!(facts[0]["bytes"], 1);

    for asset in ["/style.css", "/script.js"] {
        assert_eq!(get(at, asset).status, 200, "{asset}");
    }
    let no_release = format!("/release/www/{serial}9");
    for unknown in [
        "/tree/nowhere",
        "/host/nobody",
        &no_release,
        "/tree/",
        "/tree/www/x",
        "/%00",
        "/host/%3Cscript%3E",
    ] {
        let answer = get(at, unknown);
        assert_eq!(
            (answer.status, answer.body.as_slice()),
            (404, &b"not found\n"[..])
        );
    }
}

/// An open stream of events.
struct Events(BufReader<TcpStream>);

impl Events {
    fn open(at: SocketAddr, last: Option<&str>) -> Self {
        let mut stream = TcpStream::connect(at).expect("a connection");
        let last = last.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let request = format!("GET /events HTTP/1.1\r\nhost: localhost\r\n{last}\r\n");
        stream.write_all(request.as_bytes()).expect("it reads");
        Self(BufReader::new(stream))
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let read = self.0.read_line(&mut line).expect("readable");
        assert!(read > 0, "the stream ended");
        line.trim_end().to_string()
    }

    /// The next event with its identity.
    fn next(&mut self) -> (String, Value) {
        let (mut id, mut data) = (String::new(), None);
        loop {
            let line = self.line();
            match line.split_once(": ") {
                Some(("id", text)) => id = text.to_string(),
                Some(("data", text)) => data = serde_json::from_str(text).ok(),
                _ => {}
            }
            if line.is_empty()
                && let Some(data) = data.take()
            {
                return (id, data);
            }
        }
    }
}

#[test]
fn open_pages_are_told_of_changes_and_keep_nobody_out() {
    let Some(lab) = lab() else { return };
    let at = address_of(&lab.hosts[0]);
    let mut events = Events::open(at, None);
    let (mut id, mut fleet) = events.next();
    while fleet["hosts"] != 2 {
        (id, fleet) = events.next();
    }

    // A client with the latest id gets only later events.
    let mut again = Events::open(at, Some(&id));
    write(&lab.site().join("a"), "a");
    let serial = lab.deploy(&[]).exits(0).result()["serial"].clone();
    for events in [&mut events, &mut again] {
        let mut told = events.next();
        assert_ne!(told.0, id);
        while told.1["trees"][0]["newest"] != serial {
            told = events.next();
        }
    }

    let mut open: Vec<Events> = (0..40).map(|_| Events::open(at, None)).collect();
    // Each has an answer before the next request.
    let lines: Vec<String> = open.iter_mut().map(Events::line).collect();
    assert_eq!(get(at, "/events").status, 503);
    assert_eq!(get(at, "/metrics").status, 200);
    let refused = lines.iter().filter(|line| line.contains(" 503 ")).count();
    assert_eq!((refused, lines.len()), (10, 40), "{lines:?}");
    drop((events, again, open));
    until("room for a stream", || {
        Events::open(at, None).line().contains(" 200 ")
    });
}
