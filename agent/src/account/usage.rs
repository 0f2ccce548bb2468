//! What a VM has used so far: cumulative, monotone, by role.

use kvmeter_common::{thread::role, vm::RoleTime};

/// Whose time it is; the label `role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Threads that enter `KVM_RUN`.
    Vcpu,
    /// The VMM's other threads.
    Vmm,
    /// Those of them that do disk and network I/O, known by their names, and io_uring's workers.
    Io,
    /// The kernel's vhost workers for this VM.
    Vhost,
}

impl Role {
    /// All roles, in the order of the kernel's numbers.
    pub const ALL: [Self; role::COUNT] = [Self::Vcpu, Self::Vmm, Self::Io, Self::Vhost];

    /// The label's value.
    #[must_use]
    pub const fn as_label(self) -> &'static str {
        match self {
            Self::Vcpu => "vcpu",
            Self::Vmm => "vmm",
            Self::Io => "io",
            Self::Vhost => "vhost",
        }
    }

    const fn index(self) -> usize {
        let number = match self {
            Self::Vcpu => role::VCPU,
            Self::Vmm => role::VMM,
            Self::Io => role::IO,
            Self::Vhost => role::VHOST,
        };
        number as usize
    }
}

/// On-CPU and run-queue nanoseconds of one VM, by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuUsage {
    roles: [RoleTime; role::COUNT],
}

impl CpuUsage {
    /// From the kernel's four roles.
    #[must_use]
    pub const fn from_roles(roles: &[RoleTime; role::COUNT]) -> Self {
        Self { roles: *roles }
    }

    /// One role's part.
    #[must_use]
    pub const fn of(&self, role: Role) -> RoleTime {
        self.roles[role.index()]
    }

    /// One role's part, if it is measured: without the kernel programs (`fine`) I/O and vhost are the VMM's, and shown only
    /// where an earlier agent told them apart.
    #[must_use]
    pub fn told(&self, role: Role, fine: bool) -> Option<RoleTime> {
        let time = self.of(role);
        (fine || matches!(role, Role::Vcpu | Role::Vmm) || time != RoleTime::default()).then_some(time)
    }

    /// One role's part, to add to.
    pub const fn of_mut(&mut self, role: Role) -> &mut RoleTime {
        &mut self.roles[role.index()]
    }

    /// On-CPU nanoseconds of the whole VM.
    #[must_use]
    pub fn runtime_ns(&self) -> u64 {
        self.roles.iter().map(|time| time.runtime_ns).sum()
    }

    /// Run-queue nanoseconds of the whole VM.
    #[must_use]
    pub fn run_delay_ns(&self) -> u64 {
        self.roles.iter().map(|time| time.run_delay_ns).sum()
    }

    /// Takes a newer reading, never letting a counter fall. True when one would have.
    pub fn advance(&mut self, now: Self) -> bool {
        for (mine, newer) in self.roles.iter_mut().zip(now.roles) {
            mine.runtime_ns = mine.runtime_ns.max(newer.runtime_ns);
            mine.run_delay_ns = mine.run_delay_ns.max(newer.run_delay_ns);
        }
        *self != now
    }
}

/// What an earlier agent told of a VM that goes on: the last counters it wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// On-CPU nanoseconds by role, in the order of [`Role::ALL`].
    pub cpu_ns: [u64; role::COUNT],
    /// Run-queue nanoseconds of all.
    pub run_delay_ns: u64,
}

impl Told {
    /// Whether these counters have reached what was told.
    #[must_use]
    pub fn is_within(&self, cpu: &CpuUsage) -> bool {
        let told = Role::ALL.iter().all(|role| cpu.of(*role).runtime_ns >= self.cpu_ns[role.index()]);
        told && cpu.run_delay_ns() >= self.run_delay_ns
    }

    /// Counters as they were told.
    #[must_use]
    pub fn of(cpu: &CpuUsage) -> Self {
        Self { cpu_ns: Role::ALL.map(|role| cpu.of(role).runtime_ns), run_delay_ns: cpu.run_delay_ns() }
    }
}

/// What a returning agent adds to its readings so that nothing already told falls.
///
/// A new reading can be below what was told in two ways, both of them constant from then on: a thread's time before
/// it got its role, or of one that has ended, is now seen under another role; and the run-queue delay of threads that
/// have ended is kept nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Carry {
    /// What is moved to each role, nanoseconds; sums to nothing.
    shift_ns: [i64; role::COUNT],
    /// Added to the VMM's on-CPU time.
    runtime_ns: u64,
    /// Added to the VMM's run-queue delay.
    run_delay_ns: u64,
}

impl Carry {
    /// What the first reading lacks of what was told.
    #[must_use]
    pub fn between(told: Told, reading: &CpuUsage) -> Self {
        let runtime_ns = told.cpu_ns.iter().sum::<u64>().saturating_sub(reading.runtime_ns());
        let run_delay_ns = told.run_delay_ns.saturating_sub(reading.run_delay_ns());
        let mut carry = Self { shift_ns: [0; role::COUNT], runtime_ns, run_delay_ns };
        let have = carry.apply(*reading);
        let signed = |ns: u64| i64::try_from(ns).unwrap_or(i64::MAX);
        let mut missing = 0;
        for role in Role::ALL {
            let short = told.cpu_ns[role.index()].saturating_sub(have.of(role).runtime_ns);
            carry.shift_ns[role.index()] += signed(short);
            missing += short;
        }
        // The VMM gives first: that is where the time of ended threads is found again.
        for role in [Role::Vmm, Role::Vcpu, Role::Io, Role::Vhost] {
            let spare = have.of(role).runtime_ns.saturating_sub(told.cpu_ns[role.index()]).min(missing);
            carry.shift_ns[role.index()] -= signed(spare);
            missing -= spare;
        }
        carry
    }

    /// As it is left for a later agent: what is moved to each role, and what is added to the VMM's time and delay.
    #[must_use]
    pub fn to_words(self) -> ([u64; role::COUNT], u64, u64) {
        (self.shift_ns.map(i64::cast_unsigned), self.runtime_ns, self.run_delay_ns)
    }

    /// What an earlier agent left.
    #[must_use]
    pub fn from_words(shift_ns: [u64; role::COUNT], runtime_ns: u64, run_delay_ns: u64) -> Self {
        Self { shift_ns: shift_ns.map(u64::cast_signed), runtime_ns, run_delay_ns }
    }

    /// A reading with the carry in it.
    #[must_use]
    pub fn apply(self, mut reading: CpuUsage) -> CpuUsage {
        let vmm = reading.of_mut(Role::Vmm);
        vmm.runtime_ns += self.runtime_ns;
        vmm.run_delay_ns += self.run_delay_ns;
        for (time, shift) in reading.roles.iter_mut().zip(self.shift_ns) {
            time.runtime_ns = time.runtime_ns.saturating_add_signed(shift);
        }
        reading
    }
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

    fn usage(ns: [u64; 4]) -> CpuUsage {
        CpuUsage { roles: ns.map(|runtime_ns| RoleTime { runtime_ns, run_delay_ns: 0 }) }
    }

    fn small() -> impl Strategy<Value = [u64; 4]> {
        proptest::array::uniform4(0u64..1000)
    }

    proptest! {
        #[test]
        fn roles_sum_to_the_whole_whatever_the_kernel_tells(times in proptest::array::uniform4(0u64..1 << 60)) {
            let roles = times.map(|t| RoleTime { runtime_ns: t, run_delay_ns: t / 2 });
            let usage = CpuUsage::from_roles(&roles);
            prop_assert_eq!(usage.runtime_ns(), times.iter().sum::<u64>());
        }

        #[test]
        fn a_counter_never_falls(before in small(), after in small()) {
            let mut now = usage(before);
            now.advance(usage(after));
            for (role, ns) in Role::ALL.into_iter().zip(before) {
                prop_assert!(now.of(role).runtime_ns >= ns);
            }
        }

        #[test]
        fn a_returning_agent_lets_nothing_fall_and_invents_nothing(
            first in small(), told in small(), more in small(),
        ) {
            let carry = Carry::between(Told { cpu_ns: told, run_delay_ns: 0 }, &usage(first));
            let now = carry.apply(usage(first));
            for (role, ns) in Role::ALL.into_iter().zip(told) {
                prop_assert!(now.of(role).runtime_ns >= ns);
            }
            let (read, said) = (first.iter().sum::<u64>(), told.iter().sum::<u64>());
            prop_assert_eq!(now.runtime_ns(), read.max(said));
            let grown: [u64; 4] = std::array::from_fn(|i| first[i] + more[i]);
            let next = carry.apply(usage(grown));
            prop_assert_eq!(next.runtime_ns() - now.runtime_ns(), more.iter().sum::<u64>());
        }
    }

    #[test]
    fn no_time_gives_no_percentage() {
        assert_eq!(percent(5, 0), None);
        assert_eq!(percent(500, 1000), Some(50.0));
    }
}
