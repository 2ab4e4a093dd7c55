//! The `makuo` command: arguments to exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    makuo::cli::run(std::env::args_os().collect()).into()
}
