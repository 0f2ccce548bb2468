//! Arithmetic of a duty cycle: how long to burn, how long to sleep. Pure; the caller brings both clocks.
//!
//! A period is "burn, then sleep". Both are measured from the start and not from the last period, so an error of one is
//! made good in the next: what a thread uses converges on `duty` whatever the machine does in between. Only a thread
//! that is more than a second late starts over, else it would spin for as long as it was starved.

/// A period when nothing else asks for one: 20 ms.
pub const DEFAULT_PERIOD_NS: u64 = 20_000_000;
const TOO_LATE_NS: u64 = 1_000_000_000;

/// The duty cycle of one thread.
#[derive(Debug, Clone)]
pub struct Pace {
    duty_percent: u32,
    period_ns: u64,
    wall_start_ns: u64,
    cpu_start_ns: u64,
    periods: u64,
}

impl Pace {
    /// A duty cycle that starts now, by the thread's two clocks.
    #[must_use]
    pub fn new(duty_percent: u32, period_ns: u64, wall_ns: u64, cpu_ns: u64) -> Self {
        Self { duty_percent, period_ns, wall_start_ns: wall_ns, cpu_start_ns: cpu_ns, periods: 0 }
    }

    /// CPU time that is still to be burnt in this period.
    #[must_use]
    pub fn burn_ns(&self, cpu_ns: u64) -> u64 {
        let target = (self.periods + 1).saturating_mul(self.period_ns).saturating_mul(self.duty_percent.into()) / 100;
        target.saturating_sub(cpu_ns.saturating_sub(self.cpu_start_ns))
    }

    /// Ends the burning part of the period: time to sleep before the next one.
    pub fn sleep_ns(&mut self, wall_ns: u64, cpu_ns: u64) -> u64 {
        self.periods += 1;
        let due = self.periods.saturating_mul(self.period_ns);
        let elapsed = wall_ns.saturating_sub(self.wall_start_ns);
        if elapsed > due.saturating_add(TOO_LATE_NS) {
            *self = Self::new(self.duty_percent, self.period_ns, wall_ns, cpu_ns);
            return 0;
        }
        due.saturating_sub(elapsed)
    }
}

/// How many rounds of a busy loop take a given time, learnt from what the last ones took.
#[derive(Debug, Clone)]
pub struct Speed {
    rounds_per_ms: u64,
    seen_rounds: u64,
    seen_ns: u64,
}

impl Default for Speed {
    fn default() -> Self {
        // Slow enough that the first try does not overshoot on any machine, an emulated one included.
        Self { rounds_per_ms: 20_000, seen_rounds: 0, seen_ns: 0 }
    }
}

impl Speed {
    /// Less than this tells more about the exit than about the loop.
    const LEAST_NS: u64 = 20_000;

    /// Rounds that take about this long; at least 1.
    #[must_use]
    pub fn rounds(&self, burn_ns: u64) -> u64 {
        (burn_ns.saturating_mul(self.rounds_per_ms) / 1_000_000).max(1)
    }

    /// Learns that so many rounds took so long.
    pub fn learn(&mut self, rounds: u64, took_ns: u64) {
        if rounds < 2 {
            return;
        }
        self.seen_rounds = self.seen_rounds.saturating_add(rounds);
        self.seen_ns = self.seen_ns.saturating_add(took_ns);
        if self.seen_ns >= Self::LEAST_NS {
            let measured = self.seen_rounds.saturating_mul(1_000_000) / self.seen_ns;
            self.rounds_per_ms = measured.midpoint(self.rounds_per_ms).max(1);
            (self.seen_rounds, self.seen_ns) = (0, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a thread whose burns overshoot by `overshoot_ns` and whose sleeps are `late_ns` too long.
    fn used_percent(duty: u32, overshoot_ns: u64, late_ns: u64) -> u64 {
        let (mut wall, mut cpu) = (7, 3);
        let mut pace = Pace::new(duty, DEFAULT_PERIOD_NS, wall, cpu);
        for _ in 0..500 {
            let burn = pace.burn_ns(cpu) + overshoot_ns;
            (wall, cpu) = (wall + burn, cpu + burn);
            wall += match pace.sleep_ns(wall, cpu) {
                0 => 0,
                sleep => sleep + late_ns,
            };
        }
        (cpu - 3) * 1000 / (wall - 7)
    }

    #[test]
    fn errors_do_not_add_up() {
        for duty in [1, 10, 50, 90] {
            let used = used_percent(duty, 150_000, 200_000);
            assert!(used.abs_diff(u64::from(duty) * 10) <= 10, "duty {duty}: used {used} per mille");
        }
    }

    #[test]
    fn a_full_duty_never_sleeps() {
        let mut pace = Pace::new(100, 1000, 0, 0);
        assert_eq!(pace.burn_ns(0), 1000);
        assert_eq!(pace.sleep_ns(1000, 1000), 0);
    }

    #[test]
    fn a_starved_thread_starts_over() {
        let mut pace = Pace::new(50, 1000, 0, 0);
        assert_eq!(pace.sleep_ns(2_000_000_000, 500), 0);
        assert_eq!(pace.burn_ns(500), 500);
    }

    #[test]
    fn speed_converges_from_both_sides() {
        for true_rate in [50_u64, 1_000_000, 50_000_000] {
            let mut speed = Speed::default();
            for _ in 0..100 {
                let rounds = speed.rounds(10_000_000);
                speed.learn(rounds, rounds * 1_000_000 / true_rate);
            }
            let rate = speed.rounds(1_000_000);
            assert!(rate.abs_diff(true_rate) <= true_rate / 20 + 1, "{rate} for {true_rate}");
        }
    }
}
