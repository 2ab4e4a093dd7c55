//! Parses the keys of the file into a [`HostConfig`]: those at the top here, each table in a file
//! of its own.

use std::collections::BTreeMap;

use super::fields::{absolute, read_socket};
use super::network_table::network;
use super::server_tables::{console, metrics};
use super::tree_tables::trees;
use super::*;
use crate::spec::document::{Document, Field, Section};
use crate::units::{printable, printable_path};

/// Every key of a configuration.
pub const CONFIG_KEYS: &[&str] = &[
    "name",
    "labels",
    "authorized_keys",
    "state_dir",
    "socket",
    "sandbox",
    "socket_group",
    "sender",
    "sender.key",
    "network",
    "network.interface",
    "network.peers",
    "network.multicast",
    "network.segment",
    "network.unicast_port",
    "network.group",
    "network.port",
    "network.ttl",
    "network.group_key",
    "network.plain",
    "network.strict_host_keys",
    "network.catch_up_rate",
    "console",
    "console.listen",
    "console.socket",
    "console.password",
    "console.remote",
    "console.tree",
    "metrics",
    "metrics.listen",
    "metrics.names",
    "tree",
    "tree.name",
    "tree.path",
    "tree.protect",
    "tree.max_delete",
    "tree.keep",
    "tree.max_age",
    "tree.require_signatures",
    "tree.catch_up",
    "tree.repair",
    "tree.repository",
    "tree.repository_ca",
    "tree.poll",
    "tree.swap",
    "tree.devices",
    "tree.follow_links",
    "tree.window",
    "tree.before",
    "tree.after",
    "tree.health",
    "tree.hook_timeout",
    "tree.health_timeout",
    "tree.health_interval",
    "tree.health_deadline",
];

/// Returns whether the top-level keys are those of a configuration.
pub(super) fn looks_like_config(mut top: Section) -> bool {
    [
        "labels",
        "authorized_keys",
        "state_dir",
        "socket",
        "sandbox",
        "sender",
        "network",
        "console",
        "metrics",
    ]
    .iter()
    .any(|k| top.has(k))
        || top.take("tree").is_some_and(|f| f.is_tables())
}

impl HostConfig {
    pub(crate) fn from_document(document: &Document) -> Result<Self> {
        let mut top = document.top(CONFIG_KEYS)?;
        let default = HostConfig::default();
        let sender_key = sender(top.section("sender")?)?;
        let console = console(top.section("console")?)?;
        let metrics = metrics(top.section("metrics")?)?;
        let name = top.take("name").map(|f| f.parse()).transpose()?;
        let labels = top
            .take("labels")
            .map_or(Ok(Labels::default()), read_labels)?;
        let beside = document.path.with_file_name(AUTHORIZED_KEYS);

        let authorized_keys = top
            .take("authorized_keys")
            .map_or(Ok(beside), |f| absolute(&f))?;
        let socket = top
            .take("socket")
            .map_or(Ok(default.socket), |f| read_socket(&f))?;
        let sandbox = top
            .take("sandbox")
            .map_or(Ok(Sandbox::default()), |f| read_sandbox(&f))?;

        let socket_group = top
            .take("socket_group")
            .map(|f| f.text().map(str::to_string))
            .transpose()?;
        let state = top
            .take("state_dir")
            .map(|f| absolute(&f).map(|path| (path, f.span())))
            .transpose()?;

        let network = network(top.section("network")?)?;
        let trees = trees(document, &mut top)?;
        top.finish()?;

        if let Some((dir, span)) = &state
            && let Some((tree, _)) = trees.iter().find(|(tree, _)| dir.starts_with(&tree.path))
        {
            let what = format!(
                "state_dir: {} is inside the tree {}, which would serve it",
                printable_path(dir),
                tree.name
            );
            return Err(document.wrong(span.clone(), &what));
        }

        Ok(HostConfig {
            path: document.path.clone(),
            name,
            labels,
            authorized_keys,
            state_dir: state.map(|(path, _)| path),
            socket,
            sandbox,
            socket_group,
            sender_key,
            console,
            metrics,
            network,
            trees: trees.into_iter().map(|(tree, _)| tree).collect(),
        })
    }
}

/// Reads `{ zone = "a" }`, whose keys are free.
fn read_labels(field: Field) -> Result<Labels> {
    let wrong = field.deferred();
    let mut labels = BTreeMap::new();
    for (key, label) in field.section()?.into_fields() {
        labels.insert(key, label.text()?.to_string());
    }
    Labels::new(labels).map_err(|e| wrong(&e))
}

fn sender(mut section: Section) -> Result<Option<PathBuf>> {
    let key = section.take("key").map(|f| absolute(&f)).transpose()?;
    section.finish().map(|()| key)
}

fn read_sandbox(field: &Field) -> Result<Sandbox> {
    match field.text()? {
        "require" => Ok(Sandbox::Require),
        "auto" => Ok(Sandbox::Auto),
        "off" => Ok(Sandbox::Off),
        other => {
            let shown = printable(other.as_bytes());
            Err(field.wrong(format!("{shown:?} is not \"auto\", \"require\" or \"off\"")))
        }
    }
}
