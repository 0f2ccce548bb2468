//! Helpers for the tests of kvmeter: the test VMM, and starting what a test needs.

pub mod vmm;
