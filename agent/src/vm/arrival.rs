//! A VM whose state came in from a process of this host: what that is told by. Pure.
//!
//! No kernel and no VMM says that a VM has moved. But a process that was started to take a state in, under the UUID of a VM
//! that lives, and whose guest ran while the other's never did again until it ended in order, has that VM's guest. Whether a
//! guest ran is counted: whoever was in `KVM_RUN` comes back to user space before its process ends, and each return counts.

/// What is known of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The process that had its UUID when it began.
    from_tgid: u32,
    /// When that process started, CLOCK_BOOTTIME nanoseconds.
    from_start_ns: u64,
    /// Returns of that one's guest to user space, as first read after this one's guest had run.
    returns: Option<u64>,
}

impl Arrival {
    /// One that began while this process had its UUID.
    #[must_use]
    pub const fn new(from_tgid: u32, from_start_ns: u64) -> Self {
        Self { from_tgid, from_start_ns, returns: None }
    }

    /// Whether it may come from this process.
    #[must_use]
    pub const fn is_from(&self, tgid: u32, start_ns: u64) -> bool {
        self.from_tgid == tgid && self.from_start_ns == start_ns
    }

    /// The process it may come from, while nothing has been read of it since.
    #[must_use]
    pub fn waits_for(&self) -> Option<u32> {
        self.returns.is_none().then_some(self.from_tgid)
    }

    /// Takes a reading of that process: its guest's returns as of `read_ns`; this one's guest first ran at `ran_ns`.
    pub fn look(&mut self, returns: u64, read_ns: u64, ran_ns: u64) {
        if read_ns > ran_ns {
            self.returns.get_or_insert(returns);
        }
    }

    /// Whether that process, which has ended with so many returns, left its guest here.
    #[must_use]
    pub fn has_moved(&self, returns: u64) -> bool {
        self.returns == Some(returns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_has_moved_if_it_ran_here_and_never_again_there() {
        let mut arrival = Arrival::new(5, 50);
        assert!(arrival.is_from(5, 50) && !arrival.is_from(5, 51), "a process id that is used again is another");
        arrival.look(7, 100, 100);
        assert_eq!(arrival.waits_for(), Some(5), "read before it ran here");
        assert!(!arrival.has_moved(7));
        arrival.look(8, 101, 100);
        arrival.look(9, 102, 100);
        assert_eq!(arrival.waits_for(), None);
        assert!(arrival.has_moved(8) && !arrival.has_moved(9), "it ran there again");
    }
}
