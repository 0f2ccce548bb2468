//! Helpers for the tests of kvmeter: the test VMM, a real agent, its scrape, and saying what was skipped.

pub mod agent;
pub mod metrics;
pub mod skip;
pub mod vmm;
