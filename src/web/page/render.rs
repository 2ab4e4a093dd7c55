//! The pages as HTML: one frame, and a body for each kind.

use super::markup::Markup;
use super::view::{FleetView, HostGroup, HostTreeView, HostView, TreeView};
use crate::keys::shown_time;
use crate::outcome::{LogRelease, ReleaseLog};
use crate::report::words;
use crate::units::ByteSize;

/// Columns about a release, after its name.
const RELEASE_FACTS: [&str; 5] = ["made", "entries", "size", "runs on", "kept by"];

/// A whole page with `body` as its main part.
pub(super) fn page(title: &str, here: &str, body: impl FnOnce(&mut Markup)) -> String {
    let mut page = Markup::default();
    page.raw("<!doctype html>").open("html", &[("lang", "en")]);
    page.open("head", &[])
        .open("meta", &[("charset", "utf-8")])
        .open(
            "meta",
            &[("name", "viewport"), ("content", "width=device-width")],
        )
        .open(
            "meta",
            &[("name", "color-scheme"), ("content", "light dark")],
        )
        .element("title", &[], title)
        .open("link", &[("rel", "stylesheet"), ("href", "/style.css")])
        .open("script", &[("src", "/script.js"), ("defer", "")])
        .close("script")
        .close("head");

    page.open("body", &[]).open("header", &[]);
    page.link(&[], "makuo");
    page.element("span", &[("class", "here")], here);
    page.element("span", &[("id", "live"), ("role", "status")], "")
        .close("header");
    page.open("main", &[]);
    body(&mut page);
    page.close("main").close("body").close("html");
    page.finish()
}

/// Body of the list of trees.
pub(super) fn fleet(view: &FleetView) -> impl FnOnce(&mut Markup) {
    move |out| {
        out.element(
            "h1",
            &[],
            &format!(
                "{}, {}",
                many(view.hosts, "host"),
                many(view.trees.len(), "tree")
            ),
        );
        if view.trees.is_empty() {
            out.element(
                "p",
                &[],
                "No host answers. `makuo members` lists those that are alive.",
            );
            return;
        }

        out.open("table", &[]).open("tr", &[]);
        for head in ["tree", "release", "hosts"] {
            out.element("th", &[], head);
        }
        out.close("tr");
        for tree in &view.trees {
            fleet_row(out, tree);
        }
        out.close("table");
    }
}

fn fleet_row(out: &mut Markup, tree: &TreeView) {
    out.open("tr", &[]).open("td", &[]);
    out.link(&["tree", &tree.tree], &tree.tree).close("td");
    out.open("td", &[]);
    release_link(out, &tree.tree, tree.newest);
    out.close("td").open("td", &[]);

    // Groups of one state are neighbours, the ones that need somebody first.
    for groups in tree.groups.chunk_by(|a, b| a.state == b.state) {
        let Some(first) = groups.first() else {
            continue;
        };
        let hosts: usize = groups.iter().map(|group| group.hosts.len()).sum();
        let state = first.state;
        out.open("span", &[("class", &format!("state {}", state.word()))]);
        out.element("b", &[("aria-hidden", "true")], state.sign());
        out.text(&format!(" {} {}", many(hosts, "host"), state.word()))
            .close("span");
    }
    out.close("td").close("tr");
}

/// Body of the page of a tree, with the releases that hosts know.
pub(super) fn tree<'a>(
    view: &'a TreeView,
    log: Option<&'a ReleaseLog>,
) -> impl FnOnce(&mut Markup) + 'a {
    move |out| {
        out.element("h1", &[], &view.tree);
        // Groups that differ only in their reason are neighbours.
        let is_alike = |a: &HostGroup, b: &HostGroup| (a.state, a.serial) == (b.state, b.serial);
        for groups in view.groups.chunk_by(is_alike) {
            for (at, group) in groups.iter().enumerate() {
                host_group(out, &view.tree, group, at);
            }
        }

        let Some(log) = log else {
            out.element(
                "p",
                &[],
                "The releases are not known: no host answered in time.",
            );
            return;
        };
        out.element("h2", &[], "Releases")
            .open("table", &[])
            .open("tr", &[]);
        for head in std::iter::once("release").chain(RELEASE_FACTS) {
            out.element("th", &[], head);
        }
        out.close("tr");
        for release in &log.releases {
            release_row(out, &view.tree, release);
        }
        out.close("table");
    }
}

/// Writes a group; `at` is its place among those with the same state and serial.
fn host_group(out: &mut Markup, tree: &str, group: &HostGroup, at: usize) {
    let state = group.state;
    let serial = group.serial.unwrap_or_default();
    let id = format!("{}-{serial}-{at}", state.word());
    let few = group.hosts.len() <= 12;
    let open: &[(&'static str, &str)] = &[("open", "")];
    let class = format!("state {}", state.word());
    let attributes = [("id", id.as_str()), ("class", class.as_str())];
    let attributes = [&attributes[..], if few { open } else { &[] }].concat();

    out.open("details", &attributes).open("summary", &[]);
    out.element("b", &[("aria-hidden", "true")], state.sign());
    out.text(&format!(
        " {} {}",
        many(group.hosts.len(), "host"),
        state.word()
    ));
    if group.serial.is_some() {
        out.text(" at ");
        release_link(out, tree, group.serial);
    }
    if let Some(reason) = &group.reason {
        out.text(": ")
            .element("span", &[("class", "reason")], reason);
    }
    if let (Some(percent), Some(left)) = (group.percent, group.bytes_left) {
        let last = if group.hosts.len() > 1 {
            "the last at "
        } else {
            ""
        };
        out.text(&format!(", {last}{percent} %, {} left", ByteSize(left)));
    }
    out.close("summary").open("ul", &[]);
    for host in &group.hosts {
        // A name that two hosts have is shown with its address.
        let name = host.split(' ').next().unwrap_or_default();
        out.open("li", &[]).link(&["host", name], host).close("li");
    }
    out.close("ul").close("details");
}

fn release_row(out: &mut Markup, tree: &str, release: &LogRelease) {
    out.open("tr", &[]).open("td", &[]);
    release_link(out, tree, Some(release.serial.0));
    if release.tombstone.is_some() {
        out.text(" (taken back)");
    }
    if release.part {
        out.text(" (a part)");
    }

    out.close("td");
    let cells = [
        shown_time(release.created),
        release.entries.to_string(),
        release.bytes.to_string(),
        many(release.running.len(), "host"),
        many(release.kept.len(), "host"),
    ];
    for (label, cell) in RELEASE_FACTS.iter().zip(&cells) {
        out.element("td", &[("data-label", label)], cell);
    }
    out.close("tr");
}

/// Body of the page of a host.
pub(super) fn host(view: &HostView) -> impl FnOnce(&mut Markup) {
    move |out| {
        out.element("h1", &[], &view.host);
        for tree in &view.trees {
            host_tree(out, tree);
        }
    }
}

fn host_tree(out: &mut Markup, tree: &HostTreeView) {
    let class = format!("state {}", tree.state.word());
    out.open("section", &[("class", &class)]).open("h2", &[]);
    out.element("b", &[("aria-hidden", "true")], tree.state.sign())
        .text(" ");
    out.link(&["tree", &tree.tree], &tree.tree);
    out.text(&format!(" {}", tree.state.word()));
    if tree.serial.is_some() {
        out.text(" at ");
        release_link(out, &tree.tree, tree.serial);
    }
    out.close("h2");
    out.element("p", &[], &format!("asked at {}", tree.address));

    out.open("ul", &[]);
    for note in &tree.notes {
        out.element("li", &[], note);
    }
    out.close("ul").close("section");
}

/// Body of the page of a release, of which there may be several with one serial.
pub(super) fn release<'a>(
    tree: &'a str,
    releases: &'a [&'a LogRelease],
) -> impl FnOnce(&mut Markup) + 'a {
    move |out| {
        for release in releases {
            out.open("h1", &[]).link(&["tree", tree], tree);
            out.text(&format!("@{}", release.serial)).close("h1");
            let key = release
                .key
                .as_deref()
                .unwrap_or("the signature does not hold");
            let size: ByteSize = release.bytes;
            let facts = [
                ("identity", release.id.to_string()),
                ("made", shown_time(release.created)),
                ("key", key.to_string()),
                ("entries", release.entries.to_string()),
                ("size", size.to_string()),
            ];

            out.open("dl", &[]);
            for (name, value) in &facts {
                out.element("dt", &[], name).element("dd", &[], value);
            }
            out.close("dl");
            if release.tombstone.is_some() {
                out.element("p", &[], "Its sender took it back.");
            }
            for (what, hosts) in [("Runs on", &release.running), ("Kept by", &release.kept)] {
                out.element("h2", &[], &format!("{what} {}", many(hosts.len(), "host")));
                out.open("ul", &[]);
                for host in hosts {
                    let name = host.name.as_str();
                    out.open("li", &[])
                        .link(&["host", name], &host.to_string())
                        .close("li");
                }
                out.close("ul");
            }
        }
    }
}

fn release_link(out: &mut Markup, tree: &str, serial: Option<u64>) {
    match serial.map(|serial| serial.to_string()) {
        Some(serial) => out.link(&["release", tree, &serial], &format!("{tree}@{serial}")),
        None => out.text("none"),
    };
}

/// Formats "1 host", "37 hosts".
fn many(count: usize, what: &str) -> String {
    words::count(count as u64, what)
}
