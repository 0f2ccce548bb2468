//! Helpers for the tests of kvmeter: the test VMM, a real agent and what is taken away from it, its scrape, ledger and
//! commands, ports, the host's own clocks, processes, control groups, network and traffic, waits and trace and what lies between two
//! readings of them, what is shown on other kernels, and saying what was skipped; and `bench`, which measures.

pub mod agent;
pub mod bench;
pub mod bracket;
pub mod browser;
pub mod cgroup;
pub mod clock;
pub mod command;
pub mod disk;
pub mod ended;
pub mod http;
pub mod kernelcheck;
pub mod ledger;
pub mod libvirt;
pub mod loss;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod orders;
pub mod packets;
pub mod pair;
pub mod pins;
pub mod port;
pub mod process;
pub mod script;
pub mod secure;
pub mod skip;
pub mod sse;
pub mod statement;
pub mod stored;
pub mod storm;
pub mod swap;
pub mod terminal;
pub mod tiny;
pub mod trace;
pub mod traffic;
pub mod vmm;
pub mod waits;
