//! The cases of moved content: blocks present on the host are not sent again.

use std::path::Path;

use super::place::Ground;
use crate::network::Settings;
use crate::network::fabric::Line;
use crate::network::fleet::Fleet;
use crate::network::job::{LIMIT, repeat};
use crate::network::material::Material;
use crate::network::row::{Check, Row, median};
use crate::network::trouble::Trouble;
use crate::support::{Noise, read, write};

/// Inserts 1 MB at the front of a file of 256 MB.
pub fn insert(_: &Ground, settings: Settings) -> Vec<Row> {
    let new = || Material::noise(12, 256_000_000);
    let change = |source: &Path| {
        let file = source.join("image.bin");
        let longer = [Noise::new(13).bytes(1_000_000), read(&file)].concat();
        write(&file, longer);
        Ok(())
    };

    vec![moved(
        "insert",
        "1 MB before 256 MB",
        settings,
        new,
        change,
        3.0,
    )]
}

/// Renames a directory of 500 MB.
pub fn rename(_: &Ground, settings: Settings) -> Vec<Row> {
    let new = || Material::small(14, 2000, 250_000);
    let change = |source: &Path| {
        let below = source.join("old");
        std::fs::rename(&below, source.join("new")).map_err(Trouble::from)
    };

    vec![moved(
        "rename",
        "a directory of 500 MB",
        settings,
        new,
        change,
        1.0,
    )]
}

/// Deploys the material, applies `change`, and allows at most `most` MB for the next deployment.
fn moved(
    case: &'static str,
    what: &str,
    settings: Settings,
    new: impl Fn() -> Material,
    change: impl Fn(&Path) -> Result<(), Trouble>,
    most: f64,
) -> Row {
    let mut bytes = 1;
    let (done, sent) = repeat(case, settings, || {
        let (material, fleet) = (new(), Fleet::new(1, Line::default())?);
        bytes = material.bytes;
        let source = material.path();
        if case == "rename" {
            gather(&source)?;
        }
        fleet.deploy(&source, "", &[], LIMIT)?;
        change(&source)?;
        fleet.settle();
        let before = fleet.fabric.sent();
        let ran = fleet.deploy(&source, "", &[], LIMIT)?;
        let counted = fleet.fabric.sent().since(before);
        fleet.check(&source)?;
        let result = ran
            .events
            .iter()
            .rev()
            .find(|(_, e)| e["event"] == "result");
        let sent = result
            .and_then(|(_, e)| e["bytes_sent"].as_f64())
            .unwrap_or(f64::NAN);
        Ok((ran.seconds, counted, sent / 1e6))
    });

    let mut row = Row::new(case, what, 1, &done, bytes, None);
    row.require(median(&sent).map(|sent| Check::under("MB sent", sent, most)));
    row
}

/// Moves everything into the directory `old`.
fn gather(source: &Path) -> Result<(), Trouble> {
    let names: Vec<_> = std::fs::read_dir(source)?.flatten().collect();
    std::fs::create_dir(source.join("old"))?;
    for name in names {
        std::fs::rename(name.path(), source.join("old").join(name.file_name()))?;
    }
    Ok(())
}
