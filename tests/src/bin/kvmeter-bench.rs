//! `kvmeter-bench`: what kvmeter costs, measured here and now; `cargo xtask bench` builds and runs it.

use std::process::ExitCode;

use clap::Parser as _;
use kvmeter_tests::bench;

fn main() -> ExitCode {
    match bench::run(&bench::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvmeter-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}
