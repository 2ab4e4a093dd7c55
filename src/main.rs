//! The `makuo` command: arguments to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    if makuo::hook::helper_process::served(makuo::config::read_hooks)
        || makuo::tree::user_lookup::served()
        || makuo::net::peer_lookup::served()
    {
        return ExitCode::SUCCESS;
    }
    makuo::tree::sys::settle();
    makuo::cli::run(std::env::args_os().collect()).into()
}
