//! Speed of makuo on a network, beside rsync, uftp and udpcast:
//! `cargo bench --bench network -- [CASE...]`.
//!
//! `unicast` stands for all cases on networks without multicast, `unicast-killed` for one of them;
//! `--help` lists the names.
//!
//! Hosts are network namespaces at one switch, trees are in memory, and a run leaves nothing
//! behind. Figures are comparable within one run on one machine, as the ratios in the table, not
//! between machines.

#[path = "network/mod.rs"]
mod network;
#[path = "../support/mod.rs"]
mod support;

fn main() -> std::process::ExitCode {
    network::main()
}
