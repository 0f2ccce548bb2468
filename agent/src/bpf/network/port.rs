//! One interface's page: opening, closing and reading its accounts.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_map_type;
use kvmeter_common::network::{self as abi, ACCOUNT_BYTES, ACCOUNTS, Claim, Flow, Head, direction, state};

use super::{Account, Error, PortId, grace::Grace, syscall};
use crate::bpf::maps::{MapError, Mapped};

/// The page, and the programs that write to it.
pub(super) struct Port {
    id: u32,
    fd: OwnedFd,
    page: Mapped<abi::Port>,
    /// Ingress and egress.
    pub(super) links: Option<[OwnedFd; 2]>,
    last_serial: u64,
}

impl Port {
    pub(super) fn new(id: PortId) -> Result<Self, Error> {
        const NAME: &str = "NETWORK_PORT";
        let shape = syscall::MapShape {
            name: NAME,
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: 4,
            value_bytes: u32::try_from(size_of::<abi::Port>()).unwrap_or(u32::MAX),
            entries: 1,
            // `BPF_F_MMAPABLE`
            flags: 1 << 10,
            inner: None,
        };
        let fd = syscall::create_map(&shape).map_err(|source| Error::Map(NAME, source))?;
        let again = fd.try_clone().map_err(|source| Error::Map(NAME, source))?;
        let data = MapData::from_fd(again).map_err(|_| MapError::NotThere(NAME))?;
        let mut page: Mapped<abi::Port> = Mapped::new(Some(Map::Array(data)), NAME, 1)?;
        page.put_u32(0, offset_of!(abi::Port, id), id.0);
        Ok(Self { id: id.0, fd, page, links: None, last_serial: 0 })
    }

    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn head(&self, number: usize) -> Head {
        let at = offset_of!(abi::Port, heads) + number * size_of::<Head>();
        let word = |offset| self.page.u32_at(0, at + offset).unwrap_or(0);
        Head {
            state: word(offset_of!(Head, state)),
            writer: word(offset_of!(Head, writer)),
            serial: self.page.u64_at(0, at + offset_of!(Head, serial)).unwrap_or(0),
        }
    }

    fn put_state(&mut self, number: usize, state: u32) {
        let at = offset_of!(abi::Port, heads) + number * size_of::<Head>() + offset_of!(Head, state);
        self.page.put_u32(0, at, state);
    }

    fn active(&self) -> usize {
        let word = self.page.u64_at(0, offset_of!(abi::Port, active)).unwrap_or(0);
        usize::try_from(word & abi::OFFSET_MASK).unwrap_or(0) / ACCOUNT_BYTES
    }

    pub(super) fn is_attached(&self) -> bool {
        let on = |link: &OwnedFd| syscall::linked_ifindex(link.as_fd()).is_ok_and(|ifindex| ifindex != 0);
        self.links.as_ref().is_some_and(|links| links.iter().all(on))
    }

    pub(super) fn shared(&self) -> u64 {
        self.page.u64_at(0, offset_of!(abi::Port, shared)).unwrap_or(0)
    }

    /// Begins an account for whoever writes next. Without a free one the old goes on, and the kernel side counts that.
    pub(super) fn open(&mut self, claims: BorrowedFd<'_>) {
        let free = (1..=ACCOUNTS).find(|number| self.head(*number).state == state::FREE && self.claim(claims, *number));
        let Some(number) = free else { return };
        let at = offset_of!(abi::Port, heads) + number * size_of::<Head>();
        self.last_serial = monotonic_ns().max(self.last_serial + 1);
        self.page.put_u64(0, at + offset_of!(Head, serial), self.last_serial);
        self.page.put_u32(0, at + offset_of!(Head, writer), 0);
        self.put_state(number, state::OPEN);
        self.page.put_u64(0, offset_of!(abi::Port, active), abi::NO_WRITER | (number * ACCOUNT_BYTES) as u64);
    }

    fn claim(&self, claims: BorrowedFd<'_>, number: usize) -> bool {
        /// `BPF_NOEXIST`
        const NEW: u64 = 1;
        syscall::insert(claims, &self.claim_key(number, 0), &0_u32, NEW).is_ok()
    }

    fn claim_key(&self, number: usize, phase: u16) -> Claim {
        Claim { port: self.id, account: u16::try_from(number).unwrap_or(u16::MAX), phase }
    }

    /// Lets no writer go on with the account it had.
    pub(super) fn next(&mut self, claims: BorrowedFd<'_>, grace: &Grace) {
        for number in 1..=ACCOUNTS {
            if matches!(self.head(number).state, state::HELD | state::OPEN) {
                self.put_state(number, state::CLOSED);
            }
        }
        // Who found an account held before that may put it to use until here.
        let waited = grace.wait();
        if waited.is_ok() && self.head(self.active()).state == state::CLOSED {
            self.open(claims);
        }
    }

    pub(super) fn read(&self) -> Vec<Account> {
        let active = self.active();
        let mut numbers: Vec<_> = (1..=ACCOUNTS).map(|number| (number, self.head(number))).collect();
        numbers.retain(|(_, head)| head.state != state::FREE);
        numbers.sort_by_key(|(number, head)| (*number == active, head.serial));
        numbers.into_iter().map(|(number, head)| self.account(number, head)).collect()
    }

    fn account(&self, number: usize, head: Head) -> Account {
        let flows = |direction| {
            std::array::from_fn(|class| {
                let at = flow_offset(number, direction, class);
                let word = |offset| self.page.u64_at(0, at + offset).unwrap_or(0);
                Flow { bytes: word(offset_of!(Flow, bytes)), packets: word(offset_of!(Flow, packets)) }
            })
        };
        Account {
            serial: head.serial,
            writer: head.writer,
            transmit: flows(direction::TRANSMIT),
            receive: flows(direction::RECEIVE),
        }
    }

    pub(super) fn retire(&mut self, claims: BorrowedFd<'_>, grace: &Grace, up_to: u64) -> Vec<Account> {
        let old = |port: &Self, number: &usize| {
            let head = port.head(*number);
            head.state != state::FREE && head.serial <= up_to && *number != port.active()
        };
        let before: Vec<_> = (1..=ACCOUNTS).filter(|n| old(self, n)).map(|n| (n, self.head(n).state)).collect();
        if before.is_empty() {
            return Vec::new();
        }
        for (number, _) in &before {
            self.put_state(*number, state::CLOSED);
        }
        // Until here an account found held before may still be put to use; until the second wait, one in use before may
        // still be added to.
        let waited = grace.wait();
        let active = self.active();
        let waited = waited.and_then(|()| grace.wait());
        let mut finals = Vec::new();
        for (number, was) in before {
            if number == active || waited.is_err() {
                self.put_state(number, was);
                continue;
            }
            finals.push(self.account(number, self.head(number)));
            self.free(claims, number);
        }
        finals
    }

    fn free(&mut self, claims: BorrowedFd<'_>, number: usize) {
        let begin = flow_offset(number, 0, 0);
        for at in (begin..begin + ACCOUNT_BYTES).step_by(size_of::<u64>()) {
            self.page.put_u64(0, at, 0);
        }
        self.put_state(number, state::FREE);
        self.unclaim(claims, number);
    }

    fn unclaim(&self, claims: BorrowedFd<'_>, number: usize) {
        for phase in [1, 0] {
            // One that was never made is as good.
            let _ = syscall::remove(claims, &self.claim_key(number, phase));
        }
    }

    /// Takes the programs off; afterwards nothing is added.
    pub(super) fn unlink(&mut self) {
        for link in self.links.take().into_iter().flatten() {
            // Closing it does the same, without telling; a device that is gone has let go already.
            let _ = syscall::unlink(link.as_fd());
        }
    }

    /// Gives back what the page holds elsewhere.
    pub(super) fn release(&self, claims: BorrowedFd<'_>) {
        for number in 1..=ACCOUNTS {
            self.unclaim(claims, number);
        }
    }
}

fn flow_offset(number: usize, direction: usize, class: usize) -> usize {
    number * ACCOUNT_BYTES + (direction * abi::CLASSES + class) * size_of::<Flow>()
}

fn monotonic_ns() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(std::time::Duration::from);
    now.ok().and_then(|now| u64::try_from(now.as_nanos()).ok()).unwrap_or(0)
}
