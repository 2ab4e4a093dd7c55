//! Parses the tables of the servers beside the daemon: `[console]` and `[metrics]`.

use super::fields::{absolute, read_socket};
use super::*;
use crate::spec::document::{Field, Section};
use crate::units::printable;

/// Largest number of names of the HTTP server, and the longest one in bytes.
const MAX_SERVER_NAMES: usize = 64;
const MAX_SERVER_NAME: usize = 253;

pub(super) fn console(mut section: Section) -> Result<ConsoleConfig> {
    let listen = section.take("listen").map(|f| {
        let listen = ConsoleListen::parse(f.text()?);
        listen.ok_or_else(|| {
            f.wrong("write an address with its port, as \"127.0.0.1:5000\", or \"off\"")
        })
    });

    let console = ConsoleConfig {
        listen: listen.transpose()?.unwrap_or_default(),
        socket: section
            .take("socket")
            .map(|f| read_socket(&f))
            .transpose()?,
        password: section.take("password").map(|f| absolute(&f)).transpose()?,
        remote: section.take("remote").map_or(Ok(false), |f| f.bool())?,
        trusts_owner: false,
        tree: section.take("tree").map(|f| f.parse()).transpose()?,
    };

    let reachable = console
        .check()
        .map_err(|why| section.wrong(&format!("console.listen: {why}")));
    section.finish()?;

    reachable.map(|()| console)
}

pub(super) fn metrics(mut section: Section) -> Result<MetricsConfig> {
    let listen = section.take("listen").map(|f| {
        let address = f.text()?.parse();
        address.map_err(|_| f.wrong("write an address with its port, as \"127.0.0.1:9108\""))
    });
    let listen = listen.transpose()?;
    let names = section.take("names").map(server_names).transpose()?;
    let unused = section.wrong("names without `listen`: there is no server");
    section.finish()?;

    match (&listen, &names) {
        (None, Some(_)) => Err(unused),
        _ => Ok(MetricsConfig {
            listen,
            names: names.unwrap_or_default(),
        }),
    }
}

/// One name or a list.
fn server_names(field: Field) -> Result<Vec<String>> {
    if field.is_text() {
        return read_server_name(&field).map(|one| vec![one]);
    }

    let many = field.wrong("too many names");
    let list = field.list("a name, as \"web1.example\", or a list of them")?;
    match list.len() {
        0..=MAX_SERVER_NAMES => list.iter().map(read_server_name).collect(),
        _ => Err(many),
    }
}

fn read_server_name(field: &Field) -> Result<String> {
    let text = field.text()?;
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    match !text.is_empty() && text.len() <= MAX_SERVER_NAME && text.chars().all(is_legal) {
        true => Ok(text.to_string()),
        false => Err(field.wrong(format!(
            "{:?} is no name of a host: write it without port, as \"web1.example\"",
            printable(text.as_bytes())
        ))),
    }
}
