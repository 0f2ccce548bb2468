//! `kvmeter-testvm`: a small VMM for tests; `--help` says what it does, `kvmeter_tests::vmm` how.

use std::process::ExitCode;

use clap::Parser as _;
use kvmeter_tests::vmm;

fn main() -> ExitCode {
    match vmm::run(&vmm::options::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvmeter-testvm: {error:#}");
            ExitCode::FAILURE
        }
    }
}
