//! What a VM's threads did beyond using CPU: where vCPUs spent it, what they waited for and whom. Pure.

use kvmeter_common::{
    limits::{self, BUCKETS},
    thread::cause,
    vcpu::{VcpuTimes, mode},
};

use super::Histogram;
use crate::bpf::Work;

/// Where a vCPU's time goes; the label `mode`.
pub const MODES: [&str; 5] = ["guest", "kernel", "user", "poll", "other"];

/// A vCPU's on-CPU time by [`MODES`], which sum to it; `None` where guest entries are not told.
///
/// The kernel's clock for tasks leaves out interrupts where it accounts them apart, ours does not; they come while an
/// exit is handled, so that mode gives way where all together would be more than the scheduler accounted.
#[must_use]
pub fn modes(runtime_ns: u64, times: &VcpuTimes) -> Option<[(&'static str, u64); 5]> {
    if times.entries == 0 {
        return None;
    }
    let of = |mode: u32| times.mode_ns[mode as usize];
    let guest = of(mode::GUEST).min(runtime_ns);
    let poll = of(mode::POLL).min(runtime_ns - guest);
    let user = of(mode::USER).min(runtime_ns - guest - poll);
    let kernel = of(mode::KERNEL).min(runtime_ns - guest - poll - user);
    let other = runtime_ns - guest - poll - user - kernel;
    let [g, k, u, p, o] = MODES;
    Some([(g, guest), (k, kernel), (u, user), (p, poll), (o, other)])
}

/// Whom a VM waited for that is no VM.
pub const HOST: &str = "host";
/// Those it waited for that are not named.
pub const OTHER: &str = "other";

/// Whom a VM waited for: named VMs, [`HOST`], and the rest as [`OTHER`], so that all sum to `delay_ns`.
pub fn waited_for<'a>(
    delay_ns: u64,
    work: &Work,
    names: &'a [Option<String>; cause::OFFENDERS],
) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
    let mut left = delay_ns;
    let mut take = |ns: u64| {
        let taken = ns.min(left);
        left -= taken;
        taken
    };
    let named = names.iter().zip(work.waited_ns).filter_map(|(name, ns)| Some((name.as_deref()?, ns)));
    let mut by = [None; cause::COUNT];
    for (name, ns) in named.chain([(HOST, work.waited_ns[cause::HOST as usize]), (OTHER, u64::MAX)]) {
        let ns = take(ns);
        // Two lives of one VM are two offenders with one vm_id, and a VM may be called `host`: one series each.
        let place = by.iter_mut().find(|place| place.is_none_or(|(known, _)| known == name));
        if let Some(place) = place {
            *place = Some((name, place.map_or(0, |(_, sum)| sum) + ns));
        }
    }
    by.into_iter().flatten()
}

/// Waits in a run queue and handling of exits, of all VMs there ever were: what each has grown by is added.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AllWork {
    waits: [u64; BUCKETS],
    waited_ns: u64,
    handling: [u64; BUCKETS],
    handling_ns: u64,
}

impl AllWork {
    /// Adds what a VM has done since it was read last.
    pub fn grow(&mut self, before: Option<&Work>, now: &Work) {
        let grown = |of: &dyn Fn(&Work) -> u64| of(now).saturating_sub(before.map_or(0, of));
        for at in 0..BUCKETS {
            self.waits[at] += grown(&|work| work.waits[at]);
            self.handling[at] += grown(&|work| work.vcpu.handling[at]);
        }
        self.waited_ns += grown(&|work| work.waited_ns.iter().sum());
        self.handling_ns += grown(&|work| work.vcpu.handling_ns);
    }

    /// Waits in a run queue.
    #[must_use]
    pub fn waits(&self) -> Histogram {
        Histogram::of(&limits::RUN_DELAY_BOUNDS_NS, &self.waits, self.waited_ns)
    }

    /// Handling of exits.
    #[must_use]
    pub fn handling(&self) -> Histogram {
        Histogram::of(&limits::HANDLING_BOUNDS_NS, &self.handling, self.handling_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn modes_sum_to_what_the_scheduler_accounted(
            runtime in 0u64..1000, ns in proptest::array::uniform4(0u64..500), entries in 1u64..9,
        ) {
            let times = VcpuTimes { entries, mode_ns: ns, ..VcpuTimes::default() };
            let modes = modes(runtime, &times).unwrap();
            prop_assert_eq!(modes.iter().map(|(_, ns)| ns).sum::<u64>(), runtime);
            if ns.iter().sum::<u64>() <= runtime {
                prop_assert_eq!(modes[0].1, ns[0]);
                prop_assert_eq!(modes[1].1, ns[1]);
            }
        }

        #[test]
        fn whom_a_vm_waited_for_sums_to_what_it_waited_and_names_each_once(
            delay in 0u64..1000, ns in proptest::array::uniform6(0u64..300),
            names in proptest::array::uniform4(proptest::option::of("vm-[0-2]|host|other")),
        ) {
            let work = Work { waited_ns: ns, ..Work::default() };
            let by: Vec<_> = waited_for(delay, &work, &names).collect();
            prop_assert_eq!(by.iter().map(|(_, ns)| ns).sum::<u64>(), delay);
            let once: std::collections::BTreeSet<_> = by.iter().map(|(name, _)| name).collect();
            prop_assert_eq!(once.len(), by.len());
        }
    }

    #[test]
    fn without_guest_entries_no_mode_is_told() {
        assert_eq!(modes(5, &VcpuTimes { mode_ns: [1, 1, 1, 1], ..VcpuTimes::default() }), None);
    }

    #[test]
    fn what_was_counted_once_is_not_counted_again() {
        let (mut all, mut work) = (AllWork::default(), Work::default());
        work.waits[8] = 3;
        work.waited_ns[5] = 1_000_000_000;
        all.grow(None, &work);
        let before = work.clone();
        work.waits[0] += 2;
        all.grow(Some(&before), &work);
        let histogram = all.waits();
        assert_eq!((histogram.count, histogram.sum), (5, 1.0));
        assert_eq!(histogram.buckets[0].1, 2);
        assert_eq!(histogram.buckets[7].1, 2);
    }
}
