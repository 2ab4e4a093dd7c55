//! The `makuo` command: arguments to exit code.

fn main() {}
