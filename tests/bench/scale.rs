//! Cost of large trees and small changes: `cargo bench --bench scale -- [CASE...]`.
//!
//! Processor time is compared with a bare walk over the same tree in the same run, bytes and memory
//! with fixed requirements. Hosts are network namespaces, as in the network benchmark; a run leaves
//! nothing behind unless requested.

#[path = "network/mod.rs"]
#[allow(
    dead_code,
    reason = "the parts of the other benchmark: the lab and the table"
)]
mod network;
#[path = "scale/mod.rs"]
mod scale;
#[path = "../support/mod.rs"]
mod support;

fn main() -> std::process::ExitCode {
    scale::main()
}
