//! The case with two segments: each has multicast, and unicast alone passes between them.

use super::{PAYLOAD, Scale, require_time};
use crate::network::cases::shaped;
use crate::network::fabric::{Fabric, Sent};
use crate::network::fleet::Fleet;
use crate::network::job::{LIMIT, repeat};
use crate::network::material::Material;
use crate::network::row::{Check, Row, median};
use crate::network::trouble::Trouble;
use crate::network::{Settings, cases};

/// Rate of the hosts over that of the line between the segments.
const NARROWER: u32 = 5;

/// Measures a fleet of two segments, half of the hosts in each, with a narrow line between.
pub fn segments(settings: Settings) -> Vec<Row> {
    const CASE: &str = "unicast-segments";
    let scale = Scale::new(500, PAYLOAD, settings);
    let hosts = if settings.small { 4 } else { 10 };
    let between = scale.mbit / NARROWER;
    let material = Material::noise(15, scale.bytes);
    let (done, carried) = repeat(CASE, settings, || across(&material, scale, hosts));

    let what = format!("{between} Mbit between two segments");
    let bound = cases::line_time(scale.bytes, between);
    let mut row = Row::new(CASE, &what, hosts, &done, scale.bytes, Some(bound));
    require_time(&mut row, 1.25);
    row.require(
        median(&carried).map(|carried| Check::under("bytes of the line between", carried, 1.1)),
    );

    vec![row]
}

/// Returns the seconds of a deployment, and the bytes between the segments over the payload.
fn across(material: &Material, scale: Scale, hosts: usize) -> Result<(f64, Sent, f64), Trouble> {
    let dir = tempfile::tempdir()?;
    let near = hosts / 2;
    let fabric = Fabric::new(hosts, shaped(scale.mbit, 0))?;
    fabric.split(near, scale.mbit / NARROWER);
    let peers = fabric.peers();
    let settings = |index: usize| {
        let segment = if (near..hosts).contains(&index) {
            "far"
        } else {
            "near"
        };
        format!("[network]\nsegment = {segment:?}\n{peers}")
    };

    let fleet = Fleet::on(dir.path().to_path_buf(), fabric, settings)?;
    let source = material.path();
    let (before, carried_before) = (fleet.fabric.sent(), fleet.fabric.carried());
    let ran = fleet.deploy(&source, "", &[], LIMIT)?;
    let sent = fleet.fabric.sent().since(before);
    let carried = fleet.fabric.carried() - carried_before;

    fleet.check(&source)?;
    Ok((ran.seconds, sent, carried as f64 / material.bytes as f64))
}
