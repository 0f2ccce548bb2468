//! The JSON of the API: a VM as the contract shows it.

use std::collections::BTreeMap;

use kvmeter_common::vm::RoleTime;

use super::{
    answer::{At, Decimal, Entries, Nullable, answers},
    disk::{self, Disk},
    network::{self, NetworkInterface},
    vm::roles,
    work_detail::{self, Work},
};
use crate::account::{Snapshot, VmView, past::Past, snapshot::Sample};

answers! {
    /// A VM in the list.
    struct VmEntry<'a> {
        vm_id: &'a str = "Its name to everyone: its UUID if it has one.";
        incarnation: &'a str = "One life of its process.";
        name: &'a str = "Its human name; empty if none.";
        uuid: &'a str = "Its UUID; empty if none.";
        tenant: &'a str = "Whom it belongs to; empty if nobody says.";
        labels: &'a BTreeMap<String, String> = "Its labels.";
        hypervisor: &'a str = "The VMM's family.";
        state: &'static str = "running, paused or stopped.";
        shape: Size = "What it is sized at; a part that is not known is absent.";
        started_at: At = "When its process started.";
        stopped_at: Nullable<At> = "When it ended.";
    }

    /// What a VM is sized at.
    struct Size {
        cpu: Option<u32> = "vCPUs.";
        mem_bytes: Option<u64> = "Memory.";
        storage_bytes: Option<u64> = "Disks.";
    }

    /// The VMs, by vm_id.
    struct VmList<'a> {
        vms: Vec<VmEntry<'a>> = "Each VM that lives, or ended a while ago.";
    }

    /// The same with all that is known of each.
    struct VmDetails<'a> {
        vms: Vec<VmDetail<'a>> = "Each VM that lives, or ended a while ago.";
    }

    /// A VM with all that is known. What was not measured is absent. Nanoseconds and bytes that grow for ever are decimal
    /// texts.
    struct VmDetail<'a> {
        ..entry: VmEntry<'a>,
        ..process: VmProcess<'a>,
        ..work: Work,
        ..interfaces: VmNetwork,
        ..disk: Disk,
        ..rest: VmRest<'a>,
    }

    /// A VM's process.
    struct VmProcess<'a> {
        pid: u32 = "Its process id.";
        vmm: &'a str = "The executable's short name.";
        cgroup: &'a str = "Its control group; empty if not known.";
        adopted: bool = "Whether it was found running rather than seen starting.";
        cpu_source: &'static str = "Where CPU time comes from.";
        read_at: At = "When its numbers were read.";
        first_run_at: Option<At> = "When its guest ran first.";
        cpu_ns: Option<Entries<Decimal>> = "CPU time by role.";
        cpu_delay_ns: Option<Entries<Decimal>> = "Time runnable but not running, by role.";
    }

    /// A VM's network.
    struct VmNetwork {
        network: Option<Vec<NetworkInterface>> = "Its interfaces.";
    }

    /// Where a VM's workload is asked for its own metrics.
    struct VmWorkload<'a> {
        address: &'a str = "As the label has it.";
        requests: Option<&'a str> = "The metric that requests are counted in.";
        latency: Option<&'a str> = "The metric of their latency.";
        error: Option<&'a str> = "Why there is no signal now.";
    }

    /// What else is known of a VM.
    struct VmRest<'a> {
        stop_cause: Option<&'a str> = "What its end was seen to be.";
        stop_reason: Option<&'a str> = "The reason told in the ledger; empty if none.";
        latest: Option<&'a Sample> = "Its newest sample.";
        workload: Option<VmWorkload<'a>> = "Where its workload is asked, and what was found there.";
        samples: usize = "Samples that are kept of it.";
    }
}

/// One VM for the list.
#[must_use]
pub fn entry(vm: &VmView) -> VmEntry<'_> {
    let fixed = &vm.fixed;
    VmEntry {
        vm_id: &fixed.vm_id,
        incarnation: &fixed.incarnation,
        name: vm.name(),
        uuid: vm.uuid(),
        tenant: vm.tenant(),
        labels: &vm.owner.labels,
        hypervisor: &fixed.hypervisor,
        state: vm.state().as_str(),
        shape: Size {
            cpu: (fixed.vcpus > 0).then_some(fixed.vcpus),
            mem_bytes: (fixed.mem_bytes > 0).then_some(fixed.mem_bytes),
            storage_bytes: (fixed.storage_bytes > 0).then_some(fixed.storage_bytes),
        },
        started_at: At::unix(fixed.started_at),
        stopped_at: Nullable(vm.end.as_ref().map(|end| At::unix(end.stopped_at))),
    }
}

/// The list, sorted by vm_id.
#[must_use]
pub fn list(snapshot: &Snapshot) -> VmList<'_> {
    VmList { vms: sorted(snapshot).into_iter().map(entry).collect() }
}

/// The same with all that is known of each.
#[must_use]
pub fn details<'a>(snapshot: &'a Snapshot, history: &dyn Past) -> VmDetails<'a> {
    VmDetails { vms: sorted(snapshot).into_iter().map(|vm| detail(vm, snapshot, history)).collect() }
}

fn sorted(snapshot: &Snapshot) -> Vec<&VmView> {
    let mut vms: Vec<_> = snapshot.vms.iter().map(AsRef::as_ref).collect();
    vms.sort_by(|a: &&VmView, b| a.fixed.vm_id.cmp(&b.fixed.vm_id));
    vms
}

/// One VM with all that is known.
#[must_use]
pub fn detail<'a>(vm: &'a VmView, snapshot: &Snapshot, history: &dyn Past) -> VmDetail<'a> {
    let by_role = |of: fn(RoleTime) -> u64| {
        let one =
            |(role, time): (crate::account::Role, RoleTime)| (role.as_label().to_owned(), Decimal::from(of(time)));
        vm.cpu.is_some().then(|| Entries(roles(vm).map(one).collect()))
    };
    let instant = |boot_ns| At::unix(snapshot.taken.unix_of(boot_ns));
    VmDetail {
        entry: entry(vm),
        process: VmProcess {
            pid: vm.fixed.tgid,
            vmm: &vm.fixed.vmm,
            cgroup: &vm.fixed.cgroup,
            adopted: vm.fixed.adopted,
            cpu_source: vm.source,
            read_at: instant(snapshot.read_ns(vm)),
            first_run_at: vm.first_run_ns.map(instant),
            cpu_ns: by_role(|time| time.runtime_ns),
            cpu_delay_ns: by_role(|time| time.run_delay_ns),
        },
        work: work_detail::of(vm, snapshot.sampled_ns),
        interfaces: VmNetwork { network: network::detail(vm) },
        disk: disk::of(vm, snapshot.taken),
        rest: VmRest {
            stop_cause: vm.end.as_ref().map(|end| end.cause.as_str()),
            stop_reason: vm.end.as_ref().map(|end| end.reason.as_str()),
            latest: vm.latest.as_deref(),
            workload: vm.workload.as_deref().map(|workload| VmWorkload {
                address: &workload.address,
                requests: workload.requests.as_deref(),
                latency: workload.latency.as_deref(),
                error: workload.error.as_deref(),
            }),
            samples: history.len(&vm.fixed.vm_id),
        },
    }
}

/// The newest life of a vm_id.
#[must_use]
pub fn find<'a>(snapshot: &'a Snapshot, vm_id: &str) -> Option<&'a VmView> {
    snapshot
        .vms
        .iter()
        .map(AsRef::as_ref)
        .filter(|vm: &&VmView| vm.fixed.vm_id == vm_id)
        .max_by_key(|vm| vm.fixed.start_ns)
}
