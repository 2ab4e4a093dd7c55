//! Arguments of the search for the cause of a trouble.

use clap::Args;

use super::shared::NetworkArgs;

/// `makuo doctor`
#[derive(Debug, Args)]
#[command(after_help = "\
Nothing needs root. For some seconds datagrams go to the hosts at up to 500 Mbit/s and, for 8 MB, \
as fast as possible.
Exit codes:
  0  no check failed
  1  a check failed
  2  the command line or the configuration is wrong
Examples:
  makuo doctor                                  this machine, every host, and the paths to them
  makuo doctor web3                             one host, found by name or address as well
  makuo doctor --json | grep '\"fail\"'")]
pub struct DoctorArgs {
    /// Only this host, by name or address [default: all hosts]
    #[arg(value_name = "HOST")]
    pub host: Option<String>,
    /// Wait for a querier as well, up to 130 seconds: switches with IGMP snooping need one for most
    /// groups. Listening for it needs root
    #[arg(long)]
    pub long: bool,
    /// Network options.
    #[command(flatten)]
    pub network: NetworkArgs,
}
