//! How fast makuo is on a network, beside rsync, uftp and udpcast: `cargo bench --bench network -- [CASE...]`.
//!
//! Hosts are network namespaces at one switch, trees are in memory, and everything of a run ends with it. Figures
//! compare within one run of one machine, as the ratios that the table shows, not between machines.

#[path = "network/mod.rs"]
mod network;
#[path = "../support/mod.rs"]
mod support;

fn main() -> std::process::ExitCode {
    network::main()
}
