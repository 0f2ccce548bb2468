//! A NIC of the test VMM: a tap or macvtap whose frames a guest's own program sends, receives and counts.
//!
//! `option` is the command line's `--nic`, `program` what the guest executes, `area` the guest memory both sides use,
//! `device` the queues, `command` and `control` what a test may say and where, `port` does it, `client` is the test's end. The device counts
//! nothing: every figure is read from guest memory, where the program keeps it.

pub mod area;
pub mod client;
pub mod command;
pub mod control;
pub mod device;
pub mod option;
pub mod port;
pub mod program;
