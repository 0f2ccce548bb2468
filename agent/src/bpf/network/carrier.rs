//! How a program reads how often a device's carrier came and went. For a tap that changes whenever another opens it, so
//! that accounts begin with holders (`agent-ebpf`, `network/carrier`).
//!
//! The places are the kernel's own types'; which way is taken is found out by trying. Where none is, accounts begin with
//! writers, and when the agent hears of a handover.

use kvmeter_common::network::carrier;

use crate::bpf::{btf::Btf, object::KERNEL_BTF};

/// The way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Carrier {
    /// One of [`carrier`].
    pub way: u32,
    /// Bytes into `sk_buff`.
    pub device: u32,
    /// Bytes into `net_device`.
    pub ups: u32,
    /// For loads without a call.
    pub direct: Direct,
}

/// Numbers, among the kernel's types, of what loads without a call take (Linux 6.2); 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Direct {
    /// `bpf_rdonly_cast`
    pub cast: u32,
    /// `bpf_cast_to_kern_ctx`
    pub context: u32,
    /// A struct that begins with an integer of 64 bits.
    pub word: u32,
    /// Which task runs.
    pub running: Running,
}

/// The way to where which task runs is kept, in the runqueue of each CPU; all 0 where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Running {
    /// Number of `struct task_struct`.
    pub task: u32,
    /// Where that has its process's id, in bytes.
    pub tgid: u32,
    /// Where it has `se.cfs_rq`.
    pub fair: u32,
    /// Where `cfs_rq` has `rq`.
    pub runqueue: u32,
    /// Where `rq` has `curr`.
    pub current: u32,
    /// Where `rq` has `nr_switches`; 0 where it has none of 64 bits.
    pub switches: u32,
}

impl Running {
    fn of(btf: &Btf<'_>) -> Option<Self> {
        let place = |owner, path, size| btf.offset_sized(owner, path, size).ok();
        Some(Self {
            task: btf.structure("task_struct")?,
            tgid: place("task_struct", "tgid", 4)?,
            fair: place("task_struct", "se.cfs_rq", 8)?,
            runqueue: place("cfs_rq", "rq", 8)?,
            current: place("rq", "curr", 8)?,
            switches: place("rq", "nr_switches", 8).unwrap_or(0),
        })
    }
}

impl Direct {
    fn of(btf: &Btf<'_>) -> Option<Self> {
        let running = Running::of(btf).unwrap_or_default();
        let (cast, context) = (btf.function("bpf_rdonly_cast")?, btf.function("bpf_cast_to_kern_ctx")?);
        btf.offset_sized("timespec64", "tv_sec", 8).ok().filter(|offset| *offset == 0)?;
        Some(Self { cast, context, word: btf.structure("timespec64")?, running })
    }
}

impl Carrier {
    /// Ways that may go here, the cheaper first; the last always goes.
    pub(super) fn ways() -> Vec<Self> {
        let bytes = std::fs::read(KERNEL_BTF).unwrap_or_default();
        let mut ways = vec![Self::default()];
        let Ok(btf) = Btf::parse(&bytes) else { return ways };
        let device = btf.offset_sized("sk_buff", "dev", 8);
        let count = |name| btf.offset_sized("net_device", name, 4);
        let (Ok(device), Ok(ups), Ok(downs)) = (device, count("carrier_up_count"), count("carrier_down_count")) else {
            return ways;
        };
        let found = Self { way: carrier::PROBED, device, ups, direct: Direct::default() };
        // Both counts are read at once.
        if downs != ups + 4 {
            return ways;
        }
        ways.insert(0, found);
        if let Some(direct) = Direct::of(&btf) {
            ways.insert(0, Self { way: carrier::LOADED, direct, ..found });
        }
        ways
    }

    /// The same where nobody opens the device anew.
    pub(super) fn unread(self) -> Self {
        Self { way: carrier::UNREAD, ..self }
    }

    /// Whether generations are told.
    pub(super) fn is_read(self) -> bool {
        self.way != carrier::UNREAD
    }
}
