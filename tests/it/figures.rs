//! Network cost of a change.

use crate::support::{Lab, Noise, read, write};

#[test]
fn an_unchanged_tree_of_2000_files_costs_under_20_kb() {
    let Some(lab) = Lab::loopback(2) else { return };
    Noise::new(1).tree(&lab.site(), 2000, 2000);
    lab.deploy(&[]).exits(0);
    let ran = lab.deploy(&[]).exits(0);
    let sent = ran.result()["bytes_sent"].as_u64().expect("a number");
    assert!(sent > 0 && sent < 20_000, "{sent} bytes: {ran}");
    lab.all_same(&lab.site());
}

#[test]
fn one_byte_in_a_file_of_64_mb_costs_under_1_mb() {
    let Some(lab) = Lab::loopback(2) else { return };
    let file = lab.site().join("big");
    write(&file, Noise::new(2).bytes(64 << 20));
    let first = lab.deploy(&[]).exits(0).result();
    assert!(first["bytes_sent"].as_u64() > Some(64 << 20), "{first}");
    let mut bytes = read(&file);
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    write(&file, bytes);
    let ran = lab.deploy(&[]).exits(0);
    let sent = ran.result()["bytes_sent"].as_u64().expect("a number");
    assert!(sent > 1000 && sent < 1_000_000, "{sent} bytes: {ran}");

    lab.all_same(&lab.site());
}
