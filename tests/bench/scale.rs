//! What large trees and small changes cost: `cargo bench --bench scale -- [CASE...]`.
//!
//! Processor time is compared with that of a bare walk over the same tree in the same run, bytes and memory with what is
//! required. Hosts are network namespaces, as in the benchmark of the network; nothing of a run stays unless asked for.

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
