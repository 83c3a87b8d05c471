//! The broker as a program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    broker::main()
}
