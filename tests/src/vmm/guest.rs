//! One KVM VM with its memory, and the register state that starts a vCPU in 64-bit mode at CPL 3.
//!
//! Memory is mapped lazily and without huge pages, so what is resident is what was touched. The low 128 KiB hold page
//! tables, code and the vCPUs' blocks; everything is identity-mapped with 2 MiB pages that have the user bit. The guest
//! has no IDT and no GDT: any exception is a triple fault.

use std::sync::atomic::Ordering;

use anyhow::{Context, Result, anyhow, ensure};
use kvm_bindings::{Msrs, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap};

use super::code;

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
/// Four page directories, one for each GiB that the guest can address.
const DIRECTORIES: u64 = 0x3000;
const CODE: u64 = 0x7000;
const BLOCKS: u64 = 0x8000;
const BLOCK_SIZE: u64 = 64;
/// The unbacked window: the last 2 MiB below 4 GiB but one, far from any memory.
const MMIO: u64 = 0xffc0_0000;
const LARGE_PAGE: u64 = 2 << 20;

/// First byte that `--touch` writes; what lies below is the VMM's.
pub const TOUCH_START: u64 = 0x2_0000;
/// Least memory of a VM, in bytes.
pub const MIN_MEMORY: u64 = TOUCH_START;
/// Most memory of a VM, in bytes.
pub const MAX_MEMORY: u64 = 3 << 30;
/// Most vCPUs of a VM: their blocks fill the memory below [`TOUCH_START`].
pub const MAX_VCPUS: u32 = 1024;

const PRESENT_WRITABLE_USER: u64 = 0x7;
const PAGE_SIZE_BIT: u64 = 0x80;
/// PG, AM, WP, NE, ET, MP, PE.
const CR0: u64 = 0x8005_0033;
/// PAE.
const CR4: u64 = 0x20;
/// LMA, LME, SCE.
const EFER: u64 = 0x501;
/// The bit of RFLAGS that is always set; interrupts stay off.
const RFLAGS: u64 = 0x2;
/// Register of Hyper-V's (TLFS, "Partition Reset"): a write of 1 resets the machine.
const HV_X64_MSR_RESET: u32 = 0x4000_0003;

/// A KVM VM and its memory.
#[derive(Debug)]
pub struct Guest {
    // Before `memory`, so that the VM is gone before what it maps.
    vm: VmFd,
    memory: GuestMemoryMmap,
}

impl Guest {
    /// Creates a VM with `memory_bytes` (a multiple of 4096) of lazily mapped memory, page tables and code in place, and
    /// with interrupt controllers in the kernel if its vCPUs are to halt there.
    pub fn new(kvm: &Kvm, memory_bytes: u64, halts: bool) -> Result<Self> {
        let vm = kvm.create_vm().context("KVM_CREATE_VM failed")?;
        if halts {
            vm.create_irq_chip().context("KVM_CREATE_IRQCHIP failed")?;
        }
        let size = usize::try_from(memory_bytes)?;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)])
            .with_context(|| format!("cannot map {memory_bytes} bytes of guest memory; lower --memory"))?;
        let host = memory.get_host_address(GuestAddress(0))?;
        // SAFETY: the range is the private anonymous mapping made above; the advice changes no content.
        if unsafe { libc::madvise(host.cast(), size, libc::MADV_NOHUGEPAGE) } != 0 {
            // A kernel without huge pages says EINVAL and needs no advice.
        }
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: memory_bytes,
            userspace_addr: host as u64,
        };
        // SAFETY: the region is mapped, belongs to nothing else, and outlives the VM (field order of `Guest`).
        unsafe { vm.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION failed")?;
        let guest = Self { vm, memory };
        guest.write_tables(memory_bytes)?;
        guest.memory.write_slice(&code::CODE, GuestAddress(CODE))?;
        Ok(guest)
    }

    /// Its memory, identity-mapped for the guest.
    #[must_use]
    pub const fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Creates the vCPU with this number inside the VM.
    pub fn create_vcpu(&self, index: u32) -> Result<VcpuFd> {
        self.vm.create_vcpu(index.into()).with_context(|| format!("KVM_CREATE_VCPU {index} failed; lower --vcpus"))
    }

    /// Sets the registers of vCPU `index` so that it touches `touch_bytes` and then burns `rounds` (at least 1).
    pub fn set_registers(&self, vcpu: &VcpuFd, index: u32, touch_bytes: u64, rounds: u64) -> Result<()> {
        let mut special = vcpu.get_sregs().context("KVM_GET_SREGS failed")?;
        long_mode(&mut special);
        set_privilege(&mut special, 3);
        vcpu.set_sregs(&special).context("KVM_SET_SREGS refused 64-bit mode at CPL 3")?;
        let registers = kvm_regs {
            rip: CODE,
            rflags: RFLAGS,
            rdi: block(index),
            rsi: TOUCH_START,
            rdx: TOUCH_START + touch_bytes,
            rcx: rounds.max(1),
            r8: MMIO,
            ..kvm_regs::default()
        };
        vcpu.set_regs(&registers).context("KVM_SET_REGS failed")
    }

    /// What the guest last wrote to the block of vCPU `index`: 0 or one of the `STATE_…` values.
    pub fn state(&self, index: u32) -> Result<u32> {
        let at = GuestAddress(block(index) + code::STATE);
        self.memory.load(at, Ordering::Acquire).map_err(|e| anyhow!("cannot read a vCPU block: {e}"))
    }

    /// Tells vCPU `index` one of the `COMMAND_…` values; it looks at every round it burns.
    pub fn command(&self, index: u32, command: u32) -> Result<()> {
        let at = GuestAddress(block(index) + code::COMMAND);
        self.memory.store(command, at, Ordering::Release).map_err(|e| anyhow!("cannot write a vCPU block: {e}"))
    }

    fn write_tables(&self, memory_bytes: u64) -> Result<()> {
        let put = |entry: u64, at: u64| self.memory.write_obj(entry, GuestAddress(at));
        put(PDPT | PRESENT_WRITABLE_USER, PML4)?;
        for gib in 0..4 {
            put((DIRECTORIES + gib * 0x1000) | PRESENT_WRITABLE_USER, PDPT + gib * 8)?;
        }
        // Only the entries that are used, so that no page of the tables is touched in vain.
        let backed = 0..memory_bytes.div_ceil(LARGE_PAGE);
        for page in backed.chain([MMIO / LARGE_PAGE]) {
            put((page * LARGE_PAGE) | PRESENT_WRITABLE_USER | PAGE_SIZE_BIT, DIRECTORIES + page * 8)?;
        }
        Ok(())
    }
}

/// The offset in the unbacked window that a guest-physical address stands for, if it lies there.
#[must_use]
pub fn window_offset(address: u64) -> Option<u64> {
    address.checked_sub(MMIO).filter(|offset| *offset < LARGE_PAGE)
}

/// Makes a vCPU that waits after its write to `MMIO_HALT` privileged, so that `hlt` is allowed.
pub fn grant_privilege(vcpu: &VcpuFd) -> Result<()> {
    let mut special = vcpu.get_sregs().context("KVM_GET_SREGS failed")?;
    set_privilege(&mut special, 0);
    vcpu.set_sregs(&special).context("KVM_SET_SREGS refused CPL 0")
}

/// Writes to the register by which a Windows guest resets its machine.
pub fn ask_for_reset(vcpu: &VcpuFd) -> Result<()> {
    let entry = kvm_msr_entry { index: HV_X64_MSR_RESET, data: 1, ..kvm_msr_entry::default() };
    let set = vcpu.set_msrs(&Msrs::from_entries(&[entry])?).context("KVM_SET_MSRS failed")?;
    ensure!(set == 1, "system-event: this KVM has no Hyper-V registers (CONFIG_KVM_HYPERV)");
    Ok(())
}

/// Has a vCPU go on in the window, where there is nothing to execute. Of a privileged guest KVM gives up on that; any
/// other it lets have an exception.
pub fn lead_astray(vcpu: &VcpuFd) -> Result<()> {
    grant_privilege(vcpu)?;
    let mut registers = vcpu.get_regs().context("KVM_GET_REGS failed")?;
    registers.rip = MMIO + 0x1000;
    vcpu.set_regs(&registers).context("KVM_SET_REGS failed")
}

fn block(index: u32) -> u64 {
    BLOCKS + u64::from(index) * BLOCK_SIZE
}

fn long_mode(special: &mut kvm_sregs) {
    special.cr0 = CR0;
    special.cr3 = PML4;
    special.cr4 = CR4;
    special.efer = EFER;
    special.gdt.limit = 0;
    special.idt.limit = 0;
}

fn set_privilege(special: &mut kvm_sregs, level: u8) {
    // Type 11: code, readable, accessed. Type 3: data, writable, accessed.
    let code = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector: 0x30 | u16::from(level),
        type_: 11,
        present: 1,
        dpl: level,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: 0x28 | u16::from(level), type_: 3, l: 0, db: 1, ..code };
    special.cs = code;
    for segment in [&mut special.ss, &mut special.ds, &mut special.es, &mut special.fs, &mut special.gs] {
        *segment = data;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_low_does_not_overlap() {
        assert!(CODE + code::CODE.len() as u64 <= BLOCKS);
        assert!(block(MAX_VCPUS) <= TOUCH_START);
        const { assert!(MAX_MEMORY <= MMIO) };
    }

    #[test]
    fn only_the_window_is_the_window() {
        assert_eq!(window_offset(MMIO + 8), Some(8));
        assert_eq!(window_offset(MMIO - 1), None);
        assert_eq!(window_offset(MMIO + LARGE_PAGE), None);
    }

    #[test]
    fn privilege_is_the_same_everywhere() {
        let mut special = kvm_sregs::default();
        set_privilege(&mut special, 3);
        assert_eq!((special.cs.dpl, special.ss.dpl, special.cs.selector & 3, special.ss.selector & 3), (3, 3, 3, 3));
        assert_eq!((special.cs.l, special.cs.db), (1, 0));
    }
}
