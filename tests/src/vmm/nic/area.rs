//! The NIC's part of guest memory, at its end: the program, its counters, the frames it sends and those it receives.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress};

use super::program::{COUNT, ENTRY, FRAME, LENGTH, LENGTHS, PROGRAM, RECEIVED, SENT, WANT};
use crate::net::frame::MARKS;
use crate::net::sender::Amount;
use crate::vmm::guest::Guest;

/// Frames that a guest can hold ready to send.
pub const SLOTS: usize = 16;
/// Most frames received at once.
pub const MOST_FRAMES: usize = 1024;
/// Longest frame: what an IP header can say, its Ethernet header and two VLAN tags, rounded up.
pub const LONGEST: usize = 66_000;
/// Bytes of the receive buffer.
pub const RECEIVE_BYTES: usize = 1 << 20;

const SLOT_BYTES: u64 = 128 << 10;
const RECEIVE: u64 = 0x2000;
const SLOT: u64 = RECEIVE + RECEIVE_BYTES as u64;
/// Guest memory that a NIC takes.
pub const AREA_BYTES: u64 = SLOT + SLOTS as u64 * SLOT_BYTES;
/// Where in a slot the frame begins; its virtio_net_hdr lies before it.
const FRAME_AT: u64 = 16;
const VNET_BYTES: usize = 10;

/// One NIC's area.
#[derive(Debug)]
pub struct Area {
    guest: Arc<Guest>,
    base: u64,
    lengths: [usize; SLOTS],
}

impl Area {
    /// The area of the NIC with this number, the program in place; 0 lies at the very end of `memory_bytes`.
    pub fn new(guest: &Arc<Guest>, memory_bytes: u64, number: u64) -> Result<Self> {
        let base = memory_bytes.checked_sub((number + 1) * AREA_BYTES).context("--memory: no room for the NIC")?;
        let area = Self { guest: Arc::clone(guest), base, lengths: [0; SLOTS] };
        guest.memory().write_slice(&PROGRAM, GuestAddress(base + ENTRY))?;
        Ok(area)
    }

    /// Makes the program what this vCPU starts with.
    pub fn enter_at_program(&self, vcpu: &VcpuFd) -> Result<()> {
        let mut registers = vcpu.get_regs().context("KVM_GET_REGS failed")?;
        (registers.rip, registers.r9, registers.r10) = (self.base + ENTRY, self.base, self.base + RECEIVE);
        vcpu.set_regs(&registers).context("KVM_SET_REGS failed")
    }

    /// Puts a frame and its virtio_net_hdr into a slot.
    pub fn load(&mut self, slot: u64, vnet: &[u8], frame: &[u8]) -> Result<()> {
        ensure!(slot < SLOTS as u64, "slot {slot}: there are {SLOTS}, from 0");
        ensure!((1..=LONGEST).contains(&frame.len()), "a frame of {} bytes: give 1 to {LONGEST}", frame.len());
        ensure!(vnet.len() == VNET_BYTES, "a virtio_net_hdr of {} bytes: give {VNET_BYTES}", vnet.len());
        self.guest.memory().write_slice(vnet, GuestAddress(self.slot(slot) - VNET_BYTES as u64))?;
        self.guest.memory().write_slice(frame, GuestAddress(self.slot(slot)))?;
        self.lengths[usize::try_from(slot)?] = frame.len();
        Ok(())
    }

    /// Tells the program what to send.
    pub fn order(&self, slot: u64, count: u64) -> Result<()> {
        let length = self.lengths.get(usize::try_from(slot)?).copied().filter(|length| *length > 0);
        let length = length.with_context(|| format!("slot {slot} is empty: load a frame first"))?;
        for (at, value) in [(FRAME, self.slot(slot)), (LENGTH, length as u64), (COUNT, count)] {
            self.guest.memory().write_obj(value, GuestAddress(self.base + at))?;
        }
        Ok(())
    }

    /// What the program wants to send: bytes with their virtio_net_hdr first if asked for, and how often.
    pub fn wanted(&self, vnet: bool, bytes: &mut Vec<u8>) -> Result<u64> {
        let head = if vnet { VNET_BYTES } else { 0 };
        let length = usize::try_from(self.word(LENGTH)?)?.min(LONGEST);
        bytes.resize(head + length, 0);
        self.guest.memory().read_slice(bytes, GuestAddress(self.word(FRAME)? - head as u64))?;
        self.word(WANT)
    }

    /// Puts a batch of received frames into the receive buffer: their bytes one behind another, and their lengths.
    pub fn put(&self, bytes: &[u8], lengths: &[u8]) -> Result<()> {
        self.guest.memory().write_slice(bytes, GuestAddress(self.base + RECEIVE))?;
        self.guest.memory().write_slice(lengths, GuestAddress(self.base + LENGTHS))?;
        Ok(())
    }

    /// What the guest's program says it sent and received, by mark.
    pub fn counters(&self) -> Result<[[Amount; MARKS]; 2]> {
        let mut counters = [[Amount::default(); MARKS]; 2];
        for (side, at) in counters.iter_mut().zip([SENT, RECEIVED]) {
            for (place, amount) in (at..).step_by(16).zip(side) {
                *amount = Amount { packets: self.word(place)?, bytes: self.word(place + 8)? };
            }
        }
        Ok(counters)
    }

    fn word(&self, at: u64) -> Result<u64> {
        Ok(self.guest.memory().read_obj(GuestAddress(self.base + at))?)
    }

    fn slot(&self, slot: u64) -> u64 {
        self.base + SLOT + slot * SLOT_BYTES + FRAME_AT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_the_area_does_not_overlap() {
        const {
            assert!(SENT + 16 * MARKS as u64 <= RECEIVED && RECEIVED + 16 * MARKS as u64 <= ENTRY);
            assert!(ENTRY + PROGRAM.len() as u64 <= LENGTHS);
            assert!(LENGTHS + 4 * MOST_FRAMES as u64 <= RECEIVE);
            assert!(FRAME_AT + LONGEST as u64 <= SLOT_BYTES && FRAME_AT >= VNET_BYTES as u64);
            assert!(AREA_BYTES.is_multiple_of(4096));
        }
    }
}
