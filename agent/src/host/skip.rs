//! How a unit test says that it cannot run on this machine, so that it is not counted as passed.

use std::{fs::File, io::Write as _};

/// Says why a test is skipped, and where `cargo xtask test` counts it.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("SKIPPED {test}: {why}");
    if let Some(log) = std::env::var_os("KVMETER_SKIP_LOG") {
        let mut log = File::options().create(true).append(true).open(log).expect("the log of skipped tests");
        writeln!(log, "SKIPPED {test}: {why}").expect("the log of skipped tests");
    }
}
