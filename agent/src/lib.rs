//! kvmeter: per-VM accounting for KVM hosts. Kernel programs count, this agent reads, three views publish.
//!
//! See `docs/ARCHITECTURE.md` for the map and the laws.

pub mod account;
pub mod app;
pub mod bpf;
pub mod cause;
pub mod cli;
pub mod clock;
pub mod config;
pub mod engine;
pub mod expose;
pub mod health;
pub mod heap;
pub mod history;
pub mod hooks;
pub mod host;
pub mod ledger;
pub mod lifecycle;
pub mod logging;
pub mod metrics;
pub mod sample;
pub mod storage;
pub mod units;
pub mod vm;
pub mod workload;
