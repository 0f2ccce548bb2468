//! What a network test needs: namespaces, interfaces made and unmade, frames of every kind, a sender towards the guest,
//! and the link's own statistics.
//!
//! All of it talks to the kernel itself, by rtnetlink, `/dev/net/tun` and packet sockets: no `ip`, which a small test
//! machine lacks, and no code of the agent, which is what is tested. Every call works in the namespace of the calling
//! thread; a [`netns::Namespace`] brings a thread into another. The kernel's own rules of counting are told in
//! `tests/tests/nic.rs`, which shows them.

pub mod frame;
pub mod hook;
pub mod kind;
pub mod link;
pub mod netns;
pub mod raw;
pub mod rtnetlink;
pub mod sender;
pub mod tap;
