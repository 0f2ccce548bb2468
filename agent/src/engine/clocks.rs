//! What the host's clocks did between two looks: the wall clock set by somebody, the host suspended. Pure; readings
//! come from `clock`.
//!
//! The wall clock is compared with CLOCK_BOOTTIME: a difference that NTP slews away is no step. CLOCK_BOOTTIME runs on
//! while the host is suspended and CLOCK_MONOTONIC does not, and nothing else parts the two (kernel/time/timekeeping.c,
//! `__timekeeping_inject_sleeptime`), so what their distance has grown by is the time suspended, exactly.

use super::Engine;
use crate::{
    clock::{self, Asleep, Instant2},
    ledger::{Draft, Kind, Subject, TimeQuality},
};

/// Less than what a host takes to suspend, more than what readings of an earlier agent's nights are off by in all.
const SHORTEST_NIGHT_NS: u64 = 10_000_000;
/// A step of the wall clock smaller than this is drift that NTP slews away.
const CLOCK_STEP_NS: i128 = 100_000_000;

/// What is remembered from look to look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    last: Instant2,
    /// What is known of how long the host has been suspended since it booted.
    asleep: Option<Asleep>,
    /// That is what an earlier agent's lines told, and no reading: it lacks what readings were wide.
    told: bool,
}

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    /// What the wall clock would show now, Unix nanoseconds, had nobody set it.
    stepped_from: Option<u64>,
    /// For how long the host was suspended, nanoseconds.
    suspended_ns: Option<u64>,
}

impl Clocks {
    pub(super) fn new(now: Instant2, asleep: Option<Asleep>) -> Self {
        Self { last: now, asleep, told: false }
    }

    /// The last look was an earlier agent's, who told that the host had been suspended for so long since it booted.
    pub(super) fn begin_at(&mut self, last: Instant2, told_ns: Option<u64>) {
        self.last = last;
        if let Some(told_ns) = told_ns {
            self.asleep = Some(Asleep { least_ns: told_ns, most_ns: told_ns });
            self.told = true;
        }
    }

    /// For how long at most the host had been suspended since it booted, as of the last look.
    pub(super) fn asleep_ns(&self) -> Option<u64> {
        self.asleep.map(|asleep| asleep.most_ns)
    }

    /// Compares with the last look, which this one becomes.
    fn look(&mut self, now: Instant2, asleep: Option<Asleep>) -> Found {
        let mut found = Found::default();
        if (now.offset_ns() - self.last.offset_ns()).abs() > CLOCK_STEP_NS {
            found.stepped_from = Some(self.last.unix_of(now.boot_ns));
        }
        self.asleep = match (self.asleep, asleep) {
            (Some(before), Some(after)) => {
                let told = std::mem::take(&mut self.told);
                found.suspended_ns = after.since(before).filter(|ns| !told || *ns >= SHORTEST_NIGHT_NS);
                Some(if told || found.suspended_ns.is_some() { after } else { after.and(before) })
            }
            (before, after) => after.or(before),
        };
        self.last = now;
        found
    }
}

impl Engine {
    /// A line for each thing the clocks did since the last turn, some time between the two.
    pub(super) fn watch_clocks(&mut self, now: Instant2) {
        let not_before = now.unix_of(self.clocks.last.boot_ns);
        let found = self.clocks.look(now, clock::asleep().ok());
        let mut tell = |kind| {
            let mut draft = Draft::new(kind, Subject::Ledger, &self.boot_id, now.unix_ns, now.boot_ns);
            draft.time_quality = TimeQuality::Bounded { not_before, not_after: now.unix_ns };
            draft.stepped_from = found.stepped_from.filter(|_| kind == Kind::ClockStep);
            draft.suspended_ns = found.suspended_ns.filter(|_| kind == Kind::HostSuspend);
            self.out.push(draft);
        };
        if let Some(suspended_ns) = found.suspended_ns {
            tell(Kind::HostSuspend);
            tracing::warn!(suspended_ns, "the host was suspended");
        }
        if let Some(before) = found.stepped_from {
            tell(Kind::ClockStep);
            self.host.clock_steps += 1;
            self.next_heartbeat_s = 0;
            let (from, to) = (clock::rfc3339(before), clock::rfc3339(now.unix_ns));
            tracing::warn!(from, to, "the wall clock was set");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const AWAKE: Asleep = Asleep { least_ns: 0, most_ns: 300 };

    fn at(boot_ns: u64, unix_ns: u64) -> Instant2 {
        Instant2 { boot_ns, unix_ns }
    }

    #[test]
    fn a_set_clock_is_told_with_what_it_would_have_shown() {
        let mut clocks = Clocks::new(at(1_000_000_000, 50_000_000_000), Some(AWAKE));
        let back = clocks.look(at(2_000_000_000, 7_000_000_000), Some(AWAKE));
        assert_eq!(back, Found { stepped_from: Some(51_000_000_000), suspended_ns: None });
        assert_eq!(clocks.look(at(3_000_000_000, 8_050_000_000), Some(AWAKE)), Found::default());
    }

    #[test]
    fn a_clock_set_while_no_agent_ran_is_told_by_the_next() {
        let mut clocks = Clocks::new(at(9_000_000_000, 70_000_000_000), Some(AWAKE));
        clocks.begin_at(at(1_000_000_000, 50_000_000_000), None);
        let found = clocks.look(at(9_000_000_001, 70_000_000_001), Some(AWAKE));
        assert_eq!(found, Found { stepped_from: Some(58_000_000_001), suspended_ns: None });
    }

    #[test]
    fn a_suspended_host_is_told_with_how_long_and_once() {
        let mut clocks = Clocks::new(at(0, 0), Some(AWAKE));
        let slept = Asleep { least_ns: 5_000_000_000, most_ns: 5_000_000_900 };
        assert_eq!(clocks.look(at(9, 9), Some(slept)).suspended_ns, Some(4_999_999_700));
        assert_eq!(clocks.look(at(10, 10), Some(slept)), Found::default());
        assert_eq!(clocks.look(at(11, 11), None), Found::default());
        assert_eq!(clocks.look(at(12, 12), Some(slept)), Found::default());
    }

    #[test]
    fn what_was_slept_while_no_agent_ran_is_told_by_the_next_and_once() {
        let slept = |ns| Some(Asleep { least_ns: ns, most_ns: ns + 300 });
        let mut clocks = Clocks::new(at(9, 9), slept(8_000_000_000));
        clocks.begin_at(at(1, 1), Some(5_000_000_000));
        assert_eq!(clocks.look(at(9, 9), slept(8_000_000_000)).suspended_ns, Some(3_000_000_000));
        assert_eq!(clocks.look(at(9, 9), slept(8_000_000_000)).suspended_ns, None);
        // What readings are off by is no night.
        clocks.begin_at(at(1, 1), Some(7_999_990_000));
        assert_eq!(clocks.look(at(9, 9), slept(8_000_000_000)).suspended_ns, None);
        assert_eq!(clocks.asleep_ns(), Some(8_000_000_300));
        clocks.begin_at(at(1, 1), Some(8_000_000_100));
        assert_eq!(clocks.look(at(9, 9), slept(8_000_000_000)).suspended_ns, None);
        assert_eq!(clocks.look(at(9, 9), slept(8_000_000_150)).suspended_ns, None);
    }

    proptest! {
        /// However long the looks were held up in between, nothing is invented.
        #[test]
        fn a_host_that_never_slept_is_never_told_as_suspended(looks in prop::collection::vec((0u64..1 << 40, 0u64..1 << 40), 1..50)) {
            let truth = 1_u64 << 41;
            let mut clocks = Clocks::new(at(0, 0), None);
            for (below, above) in looks {
                let asleep = Asleep { least_ns: truth - below, most_ns: truth + above };
                prop_assert_eq!(clocks.look(at(0, 0), Some(asleep)), Found::default());
            }
        }

        /// What is told never exceeds what was slept, and all of it is told within the width of a reading.
        #[test]
        fn what_is_told_is_what_was_slept(naps in prop::collection::vec((0u64..1 << 40, 0u64..2_000, 0u64..2_000), 1..50)) {
            let (mut slept, mut told, mut clocks) = (0, 0, Clocks::new(at(0, 0), Some(Asleep { least_ns: 0, most_ns: 0 })));
            for (nap, below, above) in naps {
                slept += nap;
                let asleep = Asleep { least_ns: slept - below.min(slept), most_ns: slept + above };
                told += clocks.look(at(0, 0), Some(asleep)).suspended_ns.unwrap_or(0);
                prop_assert!(told <= slept);
            }
            let last = clocks.look(at(0, 0), Some(Asleep { least_ns: slept, most_ns: slept }));
            told += last.suspended_ns.unwrap_or(0);
            prop_assert!(slept - told <= 50 * 4_000);
        }
    }
}
