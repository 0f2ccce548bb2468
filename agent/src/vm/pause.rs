//! Whether a VM is held, and what that is judged by.

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pause {
    /// None of its vCPUs may run.
    pub paused: bool,
    /// That was looked at since they came to rest.
    pub judged: bool,
    /// How long its vCPUs had run at the last sample, nanoseconds.
    pub ran_ns: Option<u64>,
}
