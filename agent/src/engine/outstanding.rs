//! Questions to a thread beside the engine, and since when it has answered none: a read that hangs in the kernel never
//! comes back, and what was read last must not stand for ever as if it were current. Pure; CLOCK_BOOTTIME nanoseconds.

/// How long a thread may be silent before it counts as hung.
pub(super) const HUNG_NS: u64 = 60_000_000_000;

/// What was asked of one thread and is not answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outstanding {
    open: u64,
    /// The last answer, or the first question after everything was answered.
    since_ns: u64,
    told: bool,
}

impl Outstanding {
    /// Something was asked.
    pub(super) fn ask(&mut self, at_ns: u64) {
        if self.open == 0 {
            self.since_ns = at_ns;
        }
        self.open += 1;
    }

    /// Something was answered.
    pub(super) fn answer(&mut self, at_ns: u64) {
        self.open = self.open.saturating_sub(1);
        self.since_ns = at_ns;
        self.told = false;
    }

    /// Since when it hangs, if it does.
    pub(super) fn hung_since(&self, at_ns: u64) -> Option<u64> {
        (self.open > 0 && at_ns.saturating_sub(self.since_ns) > HUNG_NS).then_some(self.since_ns)
    }

    /// Whether it hangs and that was not told yet.
    pub(super) fn tell_hung(&mut self, at_ns: u64) -> bool {
        let first = self.hung_since(at_ns).is_some() && !self.told;
        self.told |= first;
        first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_answers_now_and_then_is_slow_and_not_hung() {
        let mut pss = Outstanding::default();
        (0..100).for_each(|at| pss.ask(at));
        for answer in 1..=100 {
            let at = answer * HUNG_NS;
            assert_eq!(pss.hung_since(at), None, "before answer {answer}");
            pss.answer(at);
        }
        assert_eq!(pss.hung_since(u64::MAX), None, "nothing is waited for");
    }

    #[test]
    fn a_thread_that_is_silent_while_something_waits_is_hung_and_told_once_until_it_answers() {
        let mut pss = Outstanding::default();
        pss.ask(5);
        pss.ask(HUNG_NS);
        assert!(!pss.tell_hung(5 + HUNG_NS));
        assert_eq!(pss.hung_since(6 + HUNG_NS), Some(5));
        assert!(pss.tell_hung(6 + HUNG_NS) && !pss.tell_hung(7 + HUNG_NS));
        pss.answer(8 + HUNG_NS);
        assert_eq!(pss.hung_since(8 + HUNG_NS), None);
        assert!(pss.tell_hung(9 + 2 * HUNG_NS), "again");
    }
}
