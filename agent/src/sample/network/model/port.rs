//! One interface that is to be counted, and what is known of its accounts.

use std::{collections::BTreeMap, sync::Arc};

use super::{Command, LinkKey, VmKey, accounts::QUIET, before::Before, tally::Label};
use crate::{
    account::network::{InterfaceKind, Traffic},
    host::link::{LinkStats, Queue},
    sample::network::programs::{Account, Held},
};

/// Whose an account is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Vm(VmKey),
    Nobody,
    /// Of a process of which it is not known yet whether it is a VM.
    Writer(u32),
}

/// How far the counting has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asked for.
    Wanted,
    /// Counting.
    Attached,
    /// Refused; tried again at the next reconcile.
    Refused,
    /// To be ended.
    Closing,
}

/// An account as it was last read.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) last: Account,
    pub(super) owner: Owner,
    /// The writer decided; else events did, and a writer may still.
    pub(super) by_writer: bool,
    /// Its owner is over, and was out of sight: what came in is the owner's only if the writer turns out to be the owner.
    pub(super) doubted: bool,
    /// When its writer was first seen.
    pub(super) first_seen_ns: u64,
    /// Readings in a row in which it did not move.
    pub(super) quiet: u8,
}

/// An interface.
#[derive(Clone, Debug)]
pub(super) struct Port {
    pub(super) label: Label,
    pub(super) state: State,
    /// The VMs whose processes hold it, the first to hold it first.
    pub(super) holders: Vec<VmKey>,
    /// Whose an account without a writer is that is seen for the first time.
    pub(super) expected: Owner,
    pub(super) accounts: BTreeMap<u64, Seen>,
    /// The account in use at the last reading.
    pub(super) current: Option<u64>,
    /// The agent began an account since the last reading.
    pub(super) opened: bool,
    /// Its accounts begin with its openings, in the kernel: who holds it, as the programs were told last.
    pub(super) follows: Option<Held>,
    /// The programs are known to sit on this existence of it.
    pub(super) landed: bool,
    /// All that its accounts ever counted.
    pub(super) counted: Traffic,
    pub(super) before: Before,
    /// The link's counters as of the last reading.
    pub(super) stats: Option<LinkStats>,
    /// Its queueing discipline as of the last look, and what it was looked at for.
    pub(super) queue: Option<Queue>,
    pub(super) gap: Option<u64>,
    /// It went to another namespace.
    pub(super) moved: bool,
    /// The holder that let go of it last.
    pub(super) left: Option<VmKey>,
    /// When an account was ended because of a handover, and when that is to be looked at again.
    pub(super) turned_ns: Option<u64>,
    pub(super) turn_at_ns: Option<u64>,
    /// Accounts that were given back and may not be emptied yet.
    pub(super) settled: Vec<u64>,
    /// An earlier agent left it, and its accounts were not read since: from CLOCK_MONOTONIC to CLOCK_BOOTTIME.
    pub(super) left_ns: Option<u64>,
    /// Since when nobody holds it.
    pub(super) idle_since_ns: Option<u64>,
}

impl Port {
    pub(super) fn new(name: &str, kind: InterfaceKind, holder: VmKey, before: Before) -> Self {
        Self {
            label: (Arc::from(name), kind),
            state: State::Wanted,
            holders: vec![holder],
            // Until it is certain that the program sits on this existence of the interface.
            expected: Owner::Nobody,
            accounts: BTreeMap::new(),
            current: None,
            opened: true,
            follows: None,
            landed: false,
            counted: Traffic::default(),
            before,
            stats: None,
            queue: None,
            gap: None,
            moved: false,
            left: None,
            turned_ns: None,
            turn_at_ns: None,
            settled: Vec::new(),
            left_ns: None,
            idle_since_ns: None,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.state == State::Attached
    }

    pub(super) fn reversed(&self) -> bool {
        self.label.1 == InterfaceKind::Macvtap
    }

    pub(super) fn attach(&self, link: LinkKey) -> Command {
        Command::Attach { link, reversed: self.reversed(), held: self.follows }
    }

    /// Who has it by the events so far.
    pub(super) fn holder(&self) -> Owner {
        self.holders.first().map_or(Owner::Nobody, |vm| Owner::Vm(*vm))
    }

    pub(super) fn concerns(&self, vm: VmKey) -> bool {
        self.holders.contains(&vm) || self.accounts.values().any(|seen| seen.owner == Owner::Vm(vm))
    }

    /// A VM let go of it: its accounts are given back at the next reading, before its process id means another.
    pub(super) fn released(&mut self, vm: VmKey) {
        self.left = Some(vm);
        for seen in self.accounts.values_mut().filter(|seen| seen.owner == Owner::Vm(vm)) {
            seen.quiet = QUIET;
        }
    }

    /// A VM is gone for good.
    pub(super) fn forget(&mut self, vm: VmKey) {
        let gone = |owner: &mut Owner| {
            if *owner == Owner::Vm(vm) {
                *owner = Owner::Nobody;
            }
        };
        self.holders.retain(|holder| *holder != vm);
        gone(&mut self.expected);
        self.accounts.values_mut().for_each(|seen| gone(&mut seen.owner));
    }

    /// Whether the account that counts now must end, because it is not the present holder's.
    pub(super) fn must_turn(&mut self) -> bool {
        let holder = self.holder();
        self.expected = holder;
        if self.follows.is_some() {
            return false;
        }
        let current = self.current.and_then(|serial| self.accounts.get_mut(&serial));
        let Some(current) = current else { return false };
        if current.owner == holder {
            return false;
        }
        // Somebody has written since: the next holder, of whom no event has told yet.
        let next = |vm| current.by_writer && self.left != Some(vm);
        if holder == Owner::Nobody && matches!(current.owner, Owner::Vm(vm) if next(vm)) {
            return false;
        }
        if current.last.writer == 0 && is_empty(&current.last) {
            current.owner = holder;
            return false;
        }
        true
    }
}

fn is_empty(account: &Account) -> bool {
    account.transmit.iter().chain(&account.receive).all(|flow| flow.packets == 0)
}
