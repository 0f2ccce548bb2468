//! kvmeter: per-VM accounting for KVM hosts.
pub mod bpf;
