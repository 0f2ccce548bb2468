//! A small real VMM: `kvmeter-testvm`, whose guests run natively on every KVM back end.
//!
//! Guests are set up in 64-bit mode at CPL 3 with no kernel of their own, so PVM, SVM and VMX all run them at full
//! speed. `options` says what a VM does, `machine` puts it together, `vcpu` runs it, `end` ends it; `fleet` and `burst`
//! start many. `spawn` and `schedstat` are for tests: start the binary, and read what the scheduler charged.

pub mod burst;
pub mod code;
pub mod end;
pub mod exits;
pub mod fleet;
pub mod guest;
pub mod halt;
pub mod load;
pub mod machine;
pub mod memory;
pub mod nic;
pub mod options;
pub mod orders;
pub mod pace;
pub mod pingpong;
pub mod schedstat;
pub mod shared;
pub mod spawn;
pub mod uring;
pub mod vcpu;
pub mod vhost;
pub mod vhost_ring;

/// Does what the options say, once they have been checked: one VMM, a fleet of them, or a burst.
pub fn run(options: &options::Options) -> anyhow::Result<()> {
    options.check()?;
    end::die_of_signals()?;
    if let Some(count) = options.fleet {
        return fleet::run(options, count);
    }
    if let Some(count) = options.burst {
        return burst::run(options, count);
    }
    machine::run(options)
}
