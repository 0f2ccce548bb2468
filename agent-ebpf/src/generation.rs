//! Which generation of programs counts an event, while one replaces another on the same hook.
//!
//! A hook runs the older program first, in the thread and on the CPU of the event. One that has counted an event leaves
//! its number in the thread's slot; a newer one that finds an older number leaves the event alone and settles it. The
//! agent changes [`CURRENT`] once both are on the hook; an older program that is current no more takes its own number
//! back, so what a newer one finds then is of this very event. Hooks not gated by this are such that doing them twice
//! changes nothing.

use kvmeter_common::vcpu::VcpuSlot;

use crate::{maps::CURRENT, offsets::at};

/// The generation of this object, filled in by the agent before it is loaded; 0 where its tables end with the agent.
#[unsafe(no_mangle)]
pub static GENERATION: u32 = 0;

/// Whether this program is the one to count an event of a vCPU's thread on this [hook](kvmeter_common::vcpu::hook).
///
/// # Safety
/// `vcpu` must be the live map value with the number of the running thread's slot; `hook` below the table's length.
#[inline(always)]
pub unsafe fn counts(vcpu: *mut VcpuSlot, hook: usize) -> bool {
    let own = at(&GENERATION) as u16;
    // SAFETY: the caller's promise; nobody but the running thread writes its marks, except the agent, which settles them.
    unsafe {
        let mark = (&raw mut (*vcpu).served).cast::<u16>().add(hook);
        let left = mark.read_volatile();
        if (&raw const CURRENT).read_volatile() as u16 != own {
            if left == own {
                mark.write_volatile(0);
            }
            return false;
        }
        if left == own {
            return true;
        }
        mark.write_volatile(if left == 0 { own } else { 0 });
        left == 0
    }
}
