//! `kvmeter-kernelcheck`: what `cargo xtask kernels` runs inside each kernel; `kvmeter_tests::kernelcheck` says how.

use std::process::ExitCode;

use kvmeter_tests::kernelcheck::{check, init};

fn main() -> ExitCode {
    let outcome = if std::process::id() == 1 { init::run() } else { check::run() };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kvmeter-kernelcheck: {error:#}");
            ExitCode::FAILURE
        }
    }
}
