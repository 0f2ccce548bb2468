//! This process's heap: one arena for all threads.
//!
//! The C library gives each thread that allocates an arena of its own, and each keeps what its thread once needed: with
//! 1,000 VMs several MiB that nobody uses. No thread here allocates so much that it would wait for another.

/// Before the first thread is started: they share one arena. Without effect where the C library knows no arenas.
pub fn share() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets a number of the allocator; no precondition.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives back to the system what start-up needed and nobody uses any more.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no precondition.
    let _ = unsafe { libc::malloc_trim(0) };
}
