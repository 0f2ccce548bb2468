//! What a VM has used so far: cumulative, monotone, by role.

use kvmeter_common::{thread::role, vm::RoleTime};

/// Whose time it is; the label `role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Threads that enter `KVM_RUN`.
    Vcpu,
    /// The VMM's other threads.
    Vmm,
}

impl Role {
    /// The roles this version tells apart.
    pub const ALL: [Self; 2] = [Self::Vcpu, Self::Vmm];

    /// The label's value.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Vcpu => "vcpu",
            Self::Vmm => "vmm",
        }
    }
}

/// On-CPU and run-queue nanoseconds of one VM, by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    /// vCPU threads.
    pub vcpu: RoleTime,
    /// All other threads of the process.
    pub vmm: RoleTime,
}

impl CpuUsage {
    /// From the kernel's four roles; what this version does not tell apart belongs to the VMM.
    #[must_use]
    pub fn from_roles(roles: &[RoleTime; role::COUNT]) -> Self {
        let mut usage = Self::default();
        for (index, time) in roles.iter().enumerate() {
            let part = if index == role::VCPU as usize { &mut usage.vcpu } else { &mut usage.vmm };
            part.runtime_ns += time.runtime_ns;
            part.run_delay_ns += time.run_delay_ns;
        }
        usage
    }

    /// One role's part.
    #[must_use]
    pub const fn of(&self, role: Role) -> RoleTime {
        match role {
            Role::Vcpu => self.vcpu,
            Role::Vmm => self.vmm,
        }
    }

    /// On-CPU nanoseconds of the whole VM.
    #[must_use]
    pub const fn runtime_ns(&self) -> u64 {
        self.vcpu.runtime_ns + self.vmm.runtime_ns
    }

    /// Run-queue nanoseconds of the whole VM.
    #[must_use]
    pub const fn run_delay_ns(&self) -> u64 {
        self.vcpu.run_delay_ns + self.vmm.run_delay_ns
    }

    /// Takes a newer reading, never letting a counter fall. True when one would have.
    pub fn advance(&mut self, now: Self) -> bool {
        let before = *self;
        self.vcpu = later(before.vcpu, now.vcpu);
        self.vmm = later(before.vmm, now.vmm);
        *self != now
    }
}

/// What an earlier agent told of a VM that goes on: the last counters it wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// On-CPU nanoseconds of vCPU threads.
    pub vcpu_ns: u64,
    /// On-CPU nanoseconds of the rest.
    pub vmm_ns: u64,
    /// Run-queue nanoseconds of all.
    pub run_delay_ns: u64,
}

impl Told {
    /// Counters as they were told.
    #[must_use]
    pub const fn of(cpu: &CpuUsage) -> Self {
        Self { vcpu_ns: cpu.vcpu.runtime_ns, vmm_ns: cpu.vmm.runtime_ns, run_delay_ns: cpu.run_delay_ns() }
    }
}

/// What a returning agent adds to its readings so that nothing already told falls.
///
/// A new reading can be below what was told in two ways, both of them constant from then on: a thread's time before
/// it became a vCPU is now seen as vCPU time, and the run-queue delay of threads that have ended is kept nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// Moved from vCPU to VMM (negative: the other way), nanoseconds.
    shift_ns: i64,
    /// Added to the VMM's on-CPU time.
    runtime_ns: u64,
    /// Added to the VMM's run-queue delay.
    run_delay_ns: u64,
}

impl Carry {
    /// What the first reading lacks of what was told.
    #[must_use]
    pub fn between(told: Told, reading: &CpuUsage) -> Self {
        let runtime_ns = (told.vcpu_ns + told.vmm_ns).saturating_sub(reading.runtime_ns());
        let run_delay_ns = told.run_delay_ns.saturating_sub(reading.run_delay_ns());
        let vmm_ns = reading.vmm.runtime_ns + runtime_ns;
        let shift_ns = if vmm_ns < told.vmm_ns {
            i64::try_from(told.vmm_ns - vmm_ns).unwrap_or(i64::MAX)
        } else if reading.vcpu.runtime_ns < told.vcpu_ns {
            i64::try_from(told.vcpu_ns - reading.vcpu.runtime_ns).map_or(i64::MIN, |v| -v)
        } else {
            0
        };
        Self { shift_ns, runtime_ns, run_delay_ns }
    }

    /// A reading with the carry in it.
    #[must_use]
    pub fn apply(self, mut reading: CpuUsage) -> CpuUsage {
        reading.vmm.runtime_ns += self.runtime_ns;
        reading.vmm.run_delay_ns += self.run_delay_ns;
        let (from, to) = if self.shift_ns >= 0 {
            (&mut reading.vcpu, &mut reading.vmm)
        } else {
            (&mut reading.vmm, &mut reading.vcpu)
        };
        let amount = self.shift_ns.unsigned_abs().min(from.runtime_ns);
        from.runtime_ns -= amount;
        to.runtime_ns += amount;
        reading
    }
}

fn later(a: RoleTime, b: RoleTime) -> RoleTime {
    RoleTime { runtime_ns: a.runtime_ns.max(b.runtime_ns), run_delay_ns: a.run_delay_ns.max(b.run_delay_ns) }
}

/// Percent of one core: `used_ns` of CPU in `elapsed_ns`; `None` when no time has passed.
#[must_use]
pub fn percent(used_ns: u64, elapsed_ns: u64) -> Option<f64> {
    (elapsed_ns > 0).then(|| 100.0 * used_ns as f64 / elapsed_ns as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usage(vcpu: u64, vmm: u64) -> CpuUsage {
        let time = |runtime_ns| RoleTime { runtime_ns, run_delay_ns: 0 };
        CpuUsage { vcpu: time(vcpu), vmm: time(vmm) }
    }

    proptest! {
        #[test]
        fn roles_sum_to_the_whole_whatever_the_kernel_tells(times in proptest::array::uniform4(0u64..1 << 60)) {
            let roles = times.map(|t| RoleTime { runtime_ns: t, run_delay_ns: t / 2 });
            let usage = CpuUsage::from_roles(&roles);
            prop_assert_eq!(usage.runtime_ns(), times.iter().sum::<u64>());
        }

        #[test]
        fn a_counter_never_falls(a in 0u64..1000, b in 0u64..1000, c in 0u64..1000, d in 0u64..1000) {
            let mut now = usage(a, b);
            now.advance(usage(c, d));
            prop_assert!(now.vcpu.runtime_ns >= a && now.vmm.runtime_ns >= b);
        }

        #[test]
        fn a_returning_agent_lets_nothing_fall_and_invents_nothing(
            v in 0u64..1000, m in 0u64..1000, told_v in 0u64..1000, told_m in 0u64..1000, more in 0u64..1000,
        ) {
            let told = Told { vcpu_ns: told_v, vmm_ns: told_m, run_delay_ns: 0 };
            let carry = Carry::between(told, &usage(v, m));
            let first = carry.apply(usage(v, m));
            prop_assert!(first.vcpu.runtime_ns >= told_v && first.vmm.runtime_ns >= told_m);
            prop_assert_eq!(first.runtime_ns(), (v + m).max(told_v + told_m));
            let next = carry.apply(usage(v + more, m));
            prop_assert_eq!(next.runtime_ns() - first.runtime_ns(), more);
        }
    }

    #[test]
    fn no_time_gives_no_percentage() {
        assert_eq!(percent(5, 0), None);
        assert_eq!(percent(500, 1000), Some(50.0));
    }
}
