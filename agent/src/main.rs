//! The `kvmeter` command. Turns an outcome into an exit code; everything else is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    kvmeter::cli::main()
}
