//! One interface's page: opening, closing and reading its accounts.

use std::{
    io,
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use aya::maps::{Map, MapData};
use aya_obj::generated::bpf_map_type;
use kvmeter_common::network::{
    self as abi, ACCOUNTS, BLOCK_BYTES, CLASSES, Claim, Flow, Head, NOTE_BLOCKS, direction, state,
};

use super::{Account, Error, PortId, attachment::Attachment, clsact::Mark, grace::Grace, object, offload, syscall};
use crate::{
    bpf::maps::{MapError, Mapped},
    clock,
    host::{link::LinkDevice, netns::NetNs},
};

/// The page, and the programs that write to it.
pub(super) struct Port {
    pub(super) id: u32,
    pub(super) fd: OwnedFd,
    pub(super) lanes: u32,
    pub(super) page: Mapped<abi::Block>,
    /// The block with which its notes begin, where it has any.
    pub(super) notes: Option<u32>,
    pub(super) attachment: Option<Attachment>,
    /// Where its device is.
    pub(super) place: Option<(NetNs, u32)>,
    /// The same device in sysfs; `None` if that was refused.
    pub(super) device: Option<LinkDevice>,
    /// Its hooks run the other way round.
    pub(super) reversed: bool,
    /// Its programs tell writers apart.
    pub(super) split: bool,
    /// Its programs follow who holds it; where its openings are told.
    pub(super) follows: Option<u64>,
    pub(super) last_serial: u64,
    /// Accounts given back that are to be emptied once that is written down.
    pub(super) retired: Vec<usize>,
    /// It outlives the agent, so giving back is written down first.
    pub(super) kept: bool,
    /// Packets of another's account that an earlier agent told.
    pub(super) shared_before: u64,
    /// Its device is known to be there no more.
    pub(super) gone: bool,
    /// The kernel's number of the page.
    number: u32,
    /// What its claims are known by.
    pub(super) claimant: u32,
}

impl Port {
    pub(super) fn new(id: PortId, lanes: u32, reversed: bool) -> Result<Self, Error> {
        const NAME: &str = "NETWORK_PORT";
        let shape = syscall::MapShape {
            name: NAME,
            kind: bpf_map_type::BPF_MAP_TYPE_ARRAY,
            key_bytes: 4,
            value_bytes: size(abi::blocks(lanes as usize) + NOTE_BLOCKS) * size(BLOCK_BYTES),
            entries: 1,
            // `BPF_F_MMAPABLE`
            flags: 1 << 10,
            inner: None,
        };
        let fd = syscall::create_map(&shape).map_err(|source| Error::Map(NAME, source))?;
        let mut port = Self::around(id, fd, lanes, reversed)?;
        // No number of the agent's: programs of one that was killed may be at work on a page that nobody knows any more.
        port.claimant = port.number;
        port.page.put_u32(0, offset_of!(abi::Header, id), port.claimant);
        Ok(port)
    }

    /// The page behind this descriptor.
    pub(super) fn around(id: PortId, fd: OwnedFd, lanes: u32, reversed: bool) -> Result<Self, Error> {
        const NAME: &str = "NETWORK_PORT";
        let info = object::info(fd.as_fd()).map_err(|source| Error::Map(NAME, source))?;
        let (number, notes) = (info.id(), size(abi::blocks(lanes as usize)));
        let last = notes + size(NOTE_BLOCKS);
        let noted = info.value_size() / size(BLOCK_BYTES) >= last;
        let again = fd.try_clone().map_err(|source| Error::Map(NAME, source))?;
        let data = MapData::from_fd(again).map_err(|_| MapError::NotThere(NAME))?;
        let page = Mapped::<abi::Block>::new(Some(Map::Array(data)), NAME, if noted { last } else { notes })?;
        let claimant = page.u32_at(0, offset_of!(abi::Header, id)).unwrap_or(number);
        Ok(Self {
            id: id.0,
            fd,
            lanes,
            page,
            notes: noted.then_some(notes),
            attachment: None,
            place: None,
            device: None,
            reversed,
            split: true,
            follows: None,
            last_serial: 0,
            retired: Vec::new(),
            kept: false,
            shared_before: 0,
            gone: false,
            number,
            claimant,
        })
    }

    /// What its filters are known by, where it has any.
    pub(super) fn mark(&self) -> Mark {
        Mark { handle: self.id, page: self.number }
    }

    pub(super) fn map(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    pub(super) fn head(&self, number: usize) -> Head {
        let at = offset_of!(abi::Header, heads) + number * size_of::<Head>();
        let word = |offset| self.page.u32_at(0, at + offset).unwrap_or(0);
        Head {
            state: word(offset_of!(Head, state)),
            writer: word(offset_of!(Head, writer)),
            serial: self.page.u64_at(0, at + offset_of!(Head, serial)).unwrap_or(0),
        }
    }

    pub(super) fn put_state(&mut self, number: usize, state: u32) {
        let at = offset_of!(abi::Header, heads) + number * size_of::<Head>() + offset_of!(Head, state);
        self.page.put_u32(0, at, state);
    }

    pub(super) fn word(&self, at: usize) -> u64 {
        self.page.u64_at(0, at).unwrap_or(0)
    }

    /// The account in use, if one is.
    pub(super) fn active(&self) -> Option<usize> {
        let word = self.word(offset_of!(abi::Header, active));
        let number = usize::try_from(word & abi::OFFSET_MASK).unwrap_or(0) / BLOCK_BYTES;
        (word & abi::NOBODY == 0).then_some(number)
    }

    pub(super) fn refresh_offload(&mut self) -> io::Result<()> {
        let Some((netns, ifindex)) = &self.place else { return Ok(()) };
        let kinds = netns.inside(|| offload::left_to_the_kernel(*ifindex))??;
        self.page.put_u32(0, offset_of!(abi::Header, segmented), kinds);
        Ok(())
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attachment.as_ref().is_some_and(Attachment::is_there)
    }

    pub(super) fn shared(&self) -> u64 {
        self.word(offset_of!(abi::Header, shared)).saturating_sub(self.shared_before)
    }

    /// Begins an account for whoever writes next. Without a free one the old goes on, and the kernel side counts that.
    pub(super) fn open(&mut self, claims: BorrowedFd<'_>) {
        let free = (0..ACCOUNTS).find(|number| self.head(*number).state == state::FREE && self.claim(claims, *number));
        let Some(number) = free else { return };
        let at = offset_of!(abi::Header, heads) + number * size_of::<Head>();
        self.last_serial = clock::monotonic_ns().unwrap_or(0).max(self.last_serial + 1);
        self.page.put_u64(0, at + offset_of!(Head, serial), self.last_serial);
        self.page.put_u32(0, at + offset_of!(Head, writer), 0);
        self.put_state(number, state::OPEN);
        self.page.put_u64(0, offset_of!(abi::Header, active), abi::NO_WRITER | (number * BLOCK_BYTES) as u64);
    }

    pub(super) fn claim(&self, claims: BorrowedFd<'_>, number: usize) -> bool {
        /// `BPF_NOEXIST`
        const NEW: u64 = 1;
        syscall::insert(claims, &self.claim_key(number, 0), &0_u32, NEW).is_ok()
    }

    pub(super) fn claim_key(&self, number: usize, phase: u16) -> Claim {
        Claim { port: self.claimant, account: u16::try_from(number).unwrap_or(u16::MAX), phase }
    }

    /// Lets no writer go on with the account it had.
    pub(super) fn next(&mut self, claims: BorrowedFd<'_>, grace: &Grace) {
        let judged = self.active();
        for number in 0..ACCOUNTS {
            if matches!(self.head(number).state, state::HELD | state::OPEN) {
                self.put_state(number, state::CLOSED);
            }
        }
        // Who found an account held before that may put it to use until here.
        let waited = grace.wait();
        let closed = |number| self.head(number).state == state::CLOSED;
        if waited.is_ok() && self.active() == judged && judged.is_some_and(closed) {
            self.open(claims);
        }
    }

    pub(super) fn read(&self) -> Vec<Account> {
        let active = self.active();
        let nobodys = self.follows.map(|_| self.nobodys());
        let (first, last) = if active.is_some() { (nobodys, None) } else { (None, nobodys) };
        first.into_iter().chain(self.writers(active)).chain(last).collect()
    }

    fn writers(&self, active: Option<usize>) -> Vec<Account> {
        let mut numbers: Vec<_> = (0..ACCOUNTS).map(|number| (number, self.head(number))).collect();
        numbers.retain(|(number, head)| head.state != state::FREE && !self.retired.contains(number));
        numbers.sort_by_key(|(number, head)| (Some(*number) == active, head.serial));
        numbers.into_iter().map(|(number, head)| self.account(number, head)).collect()
    }

    pub(super) fn account(&self, number: usize, head: Head) -> Account {
        let mut account = Account {
            serial: head.serial,
            writer: head.writer,
            transmit: [Flow::default(); CLASSES],
            receive: [Flow::default(); CLASSES],
        };
        for block in (0..=self.lanes as usize).filter_map(|lane| self.page.get(size(abi::block(lane, number)))) {
            let directions = [(&mut account.transmit, direction::TRANSMIT), (&mut account.receive, direction::RECEIVE)];
            for (sums, direction) in directions {
                for (sum, flow) in sums.iter_mut().zip(&block[direction]) {
                    sum.bytes = sum.bytes.wrapping_add(flow.bytes);
                    sum.packets = sum.packets.wrapping_add(flow.packets);
                }
            }
        }
        account
    }

    /// Takes the programs off; afterwards nothing is added.
    pub(super) fn take_off(&mut self, grace: &Grace) {
        // Without the wait, what a program adds that still runs is lost.
        if self.attachment.take().is_some_and(Attachment::take_off) {
            let _ = grace.wait();
        }
    }

    /// Wipes a class under which nothing is counted any more.
    pub(super) fn wipe(&mut self, class: usize) {
        for lane in 0..=self.lanes as usize {
            for account in 0..ACCOUNTS {
                for direction in [direction::TRANSMIT, direction::RECEIVE] {
                    let at = (direction * CLASSES + class) * size_of::<Flow>();
                    let block = size(abi::block(lane, account));
                    self.page.put_u64(block, at + offset_of!(Flow, bytes), 0);
                    self.page.put_u64(block, at + offset_of!(Flow, packets), 0);
                }
            }
        }
    }

    /// Gives back what the page holds elsewhere.
    pub(super) fn release(&self, claims: BorrowedFd<'_>) {
        for number in 0..ACCOUNTS {
            self.unclaim(claims, number);
        }
    }
}

/// A number of blocks or bytes; all that are met are far below the limit.
pub(super) fn size(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
