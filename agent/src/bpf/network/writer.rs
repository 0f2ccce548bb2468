//! How a program learns which process writes to an interface.
//!
//! The helper for it is there for network programs since 6.10 (commit eb166e522c77). Before, they may ask for the current
//! task (5.8) and read its process's id, whose place the kernel's types tell. Which way goes is found out by trying.

use aya::{programs::ProgramType, sys::is_helper_supported};
use aya_obj::generated::bpf_func_id::{
    self, BPF_FUNC_get_current_pid_tgid, BPF_FUNC_get_current_task, BPF_FUNC_probe_read_kernel,
};

use crate::bpf::{btf::Btf, object::KERNEL_BTF};

/// The way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writer {
    /// A helper tells.
    Helper,
    /// So many bytes into the current task.
    Task(u32),
    /// None: writers are not told apart, and whose packets they are is known by who holds the interface.
    Untold,
}

impl Writer {
    /// Finds it out.
    pub(super) fn probe() -> Self {
        if can(BPF_FUNC_get_current_pid_tgid) {
            return Self::Helper;
        }
        match Self::of_task() {
            task if can(BPF_FUNC_get_current_task) && can(BPF_FUNC_probe_read_kernel) => task,
            _ => Self::Untold,
        }
    }

    /// The way for kernels without the helper.
    pub(super) fn of_task() -> Self {
        let bytes = std::fs::read(KERNEL_BTF).unwrap_or_default();
        let place = Btf::parse(&bytes).and_then(|btf| btf.offset_sized("task_struct", "tgid", 4));
        // 0 is where the task's flags for the assembler stand, and means the helper to the program.
        place.ok().filter(|place| *place > 0).map_or(Self::Untold, Self::Task)
    }

    /// What the program is given: 0 for the helper.
    pub(super) fn place(self) -> u32 {
        match self {
            Self::Task(place) => place,
            Self::Helper | Self::Untold => 0,
        }
    }
}

fn can(helper: bpf_func_id) -> bool {
    is_helper_supported(ProgramType::SchedClassifier, helper).unwrap_or(false)
}
