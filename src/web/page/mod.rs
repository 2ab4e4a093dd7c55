//! The pages of the fleet: for people as HTML, for scripts as JSON, and as a stream of events.
//!
//! `view` is the state of the fleet, `render` writes it with `markup`, and `events` tells of
//! changes. The fleet is asked only for requests: for its state once in an interval, and for the
//! releases of one tree at a time.

mod events;
mod markup;
mod render;
mod view;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use tokio::sync::Semaphore;

use self::events::MAX_EVENT_STREAMS;
use self::view::FleetView;
use super::answer::{self, HttpAnswer};
use super::facts::WebFacts;
use super::snapshot::Snapshot;
use crate::block::BlockHash;
use crate::id::TreeName;
use crate::outcome::{LogRelease, ReleaseLog, Standing};
use crate::recent::Recent;
use crate::report::ReleaseSummary;
use crate::sync::locked;

/// Shortest interval between two questions about the state of the fleet, or the releases of a tree.
const FLEET_INTERVAL: Duration = Duration::from_secs(4);
/// Longest wait for the answers of the fleet.
const MAX_FLEET_WAIT: Duration = Duration::from_secs(3);
/// Largest number of trees whose releases are kept for other viewers.
const MAX_KNOWN_LOGS: usize = 64;

/// Answers requests for pages.
#[derive(Debug)]
pub(super) struct FleetPages {
    facts: Arc<WebFacts>,
    fleet: Snapshot<Fleet>,
    logs: Mutex<Recent<TreeLog, MAX_KNOWN_LOGS>>,
    /// One permit: questions about releases follow each other.
    log_turns: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

/// A tree with its releases.
type TreeLog = (TreeName, Arc<Snapshot<ReleaseLog>>);

/// Answers of the fleet.
#[derive(Debug)]
struct Fleet {
    standings: Vec<Standing>,
    view: FleetView,
    /// The view as JSON, and its hash.
    json: String,
    id: String,
}

impl Fleet {
    fn of(standings: Vec<Standing>) -> Self {
        let view = FleetView::of(&standings);
        let json = json_of(&view);
        let id = BlockHash::of(json.as_bytes()).to_string();
        Self {
            standings,
            view,
            id: id.chars().take(16).collect(),
            json,
        }
    }
}

impl FleetPages {
    /// Pages of the fleet of `facts`.
    pub(super) fn new(facts: Arc<WebFacts>) -> Self {
        Self {
            facts,
            fleet: Snapshot::new(FLEET_INTERVAL),
            logs: Mutex::default(),
            log_turns: Arc::new(Semaphore::new(1)),
            streams: Arc::new(Semaphore::new(MAX_EVENT_STREAMS)),
        }
    }

    /// Answers a request for `path`.
    pub(super) async fn answer(self: &Arc<Self>, path: &str, headers: &HeaderMap) -> HttpAnswer {
        match path {
            "/style.css" => return asset("text/css; charset=utf-8", include_str!("style.css")),
            "/script.js" => {
                return asset("text/javascript; charset=utf-8", include_str!("script.js"));
            }
            "/events" => return events::stream(Arc::clone(self), headers),
            _ => {}
        }

        let Some(segments) = markup::segments_of(path) else {
            return not_found();
        };
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let is_page = matches!(
            segments[..],
            [] | ["tree", _] | ["host", _] | ["release", _, _]
        );
        if !is_page {
            return not_found();
        }
        let Some(fleet) = self.fleet().await else {
            return unasked();
        };

        let form = Form::of(headers);
        match segments[..] {
            [] => form.answer("makuo", "", &fleet.view, render::fleet(&fleet.view)),
            ["tree", name] => self.tree(&fleet, name, form).await,
            ["host", name] => host(&fleet, name, form),
            ["release", tree, serial] => self.release(&fleet, tree, serial, form).await,
            _ => not_found(),
        }
    }

    /// The latest answers of the fleet; `None` if it cannot be asked.
    async fn fleet(&self) -> Option<Arc<Fleet>> {
        let facts = Arc::clone(&self.facts);
        self.fleet
            .get(move || {
                let asked = facts.desk.ask_status(MAX_FLEET_WAIT);
                let asked = asked.inspect_err(|e| tracing::warn!("the page: {e}"));
                asked.ok().map(Fleet::of)
            })
            .await
    }

    /// The releases of a tree; `None` if the fleet cannot be asked.
    async fn log(&self, tree: &str) -> Option<Arc<ReleaseLog>> {
        let tree = TreeName::new(tree).ok()?;
        let snapshot = self.log_of(&tree);
        let facts = Arc::clone(&self.facts);
        snapshot
            .get(move || facts.desk.ask_log(&tree, MAX_FLEET_WAIT).ok())
            .await
    }

    fn log_of(&self, tree: &TreeName) -> Arc<Snapshot<ReleaseLog>> {
        let mut logs = locked(&self.logs);
        if let Some((_, known)) = logs.find(|(name, _)| name == tree) {
            return Arc::clone(known);
        }

        let turns = Arc::clone(&self.log_turns);
        let new = Arc::new(Snapshot::in_turn(FLEET_INTERVAL, turns));
        logs.add((tree.clone(), Arc::clone(&new)));
        new
    }

    async fn tree(&self, fleet: &Fleet, name: &str, form: Form) -> HttpAnswer {
        let Some(view) = fleet.view.trees.iter().find(|tree| tree.tree == name) else {
            return not_found();
        };

        let log = match form {
            Form::Html => self.log(name).await,
            Form::Json => None,
        };
        let title = format!("{name} - makuo");
        form.answer(&title, name, view, render::tree(view, log.as_deref()))
    }

    async fn release(&self, fleet: &Fleet, tree: &str, serial: &str, form: Form) -> HttpAnswer {
        if !fleet.view.trees.iter().any(|known| known.tree == tree) {
            return not_found();
        }
        let Some(log) = self.log(tree).await else {
            return unasked();
        };

        let is_it = |release: &&LogRelease| release.serial.to_string() == serial;
        let releases: Vec<&LogRelease> = log.releases.iter().filter(is_it).collect();
        if releases.is_empty() {
            return not_found();
        }
        let views: Vec<ReleaseView> = releases.iter().map(|r| ReleaseView::of(tree, r)).collect();
        let name = format!("{tree}@{serial}");
        let title = format!("{name} - makuo");
        form.answer(&title, &name, &views, render::release(tree, &releases))
    }
}

fn host(fleet: &Fleet, name: &str, form: Form) -> HttpAnswer {
    match view::host(name, &fleet.standings) {
        Some(view) => {
            let title = format!("{name} - makuo");
            form.answer(&title, name, &view, render::host(&view))
        }
        None => not_found(),
    }
}

/// A release for scripts.
#[derive(Debug, Serialize)]
struct ReleaseView {
    tree: String,
    id: String,
    #[serde(flatten)]
    summary: ReleaseSummary,
    reverted: bool,
}

impl ReleaseView {
    fn of(tree: &str, release: &LogRelease) -> Self {
        Self {
            tree: tree.to_string(),
            id: release.id.to_string(),
            summary: ReleaseSummary::of(release),
            reverted: release.tombstone.is_some(),
        }
    }
}

/// Form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Html,
    Json,
}

impl Form {
    /// The form that a request asks for.
    fn of(headers: &HeaderMap) -> Self {
        let accepts = |kind: &str| {
            let all = headers.get_all(header::ACCEPT).iter();
            let mut texts = all.filter_map(|value| value.to_str().ok());
            texts.any(|text| text.to_ascii_lowercase().contains(kind))
        };
        match accepts("application/json") && !accepts("text/html") {
            true => Form::Json,
            false => Form::Html,
        }
    }

    fn answer(
        self,
        title: &str,
        here: &str,
        view: &impl Serialize,
        body: impl FnOnce(&mut markup::Markup),
    ) -> HttpAnswer {
        match self {
            Form::Json => answer::of(StatusCode::OK, "application/json", json_of(view) + "\n"),
            Form::Html => {
                let page = render::page(title, here, body);
                answer::of(StatusCode::OK, "text/html; charset=utf-8", page)
            }
        }
    }
}

fn json_of(view: &impl Serialize) -> String {
    // Serialization cannot fail: every map key is a string.
    serde_json::to_string(view).unwrap_or_default()
}

fn asset(content_type: &'static str, text: &'static str) -> HttpAnswer {
    answer::of(StatusCode::OK, content_type, text)
}

fn not_found() -> HttpAnswer {
    answer::plain(StatusCode::NOT_FOUND, "not found\n")
}

fn unasked() -> HttpAnswer {
    answer::plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the fleet cannot be asked: the log of the daemon says why\n",
    )
}

#[cfg(test)]
mod tests;
