//! Giving accounts back, so that other writers get them. Where the page outlives the agent, an account is emptied only
//! once its last figures are written down: an agent killed in between leaves them in it.

use std::os::fd::BorrowedFd;

use kvmeter_common::network::{self as abi, ACCOUNTS, state};

use super::{
    Account,
    grace::Grace,
    port::{Port, size},
    syscall,
};

impl Port {
    /// Those that are no use to their writers go first: who loses another finds one of them.
    pub(super) fn retire(&mut self, claims: BorrowedFd<'_>, grace: &Grace, up_to: u64) -> Vec<Account> {
        let mut finals = self.retire_some(claims, grace, up_to, &[state::CLOSED]);
        finals.extend(self.retire_some(claims, grace, up_to, &[state::HELD, state::OPEN]));
        finals
    }

    fn retire_some(&mut self, claims: BorrowedFd<'_>, grace: &Grace, up_to: u64, states: &[u32]) -> Vec<Account> {
        let old = |port: &Self, number: &usize| {
            let head = port.head(*number);
            let held = states.contains(&head.state) && !port.retired.contains(number);
            held && head.serial <= up_to && Some(*number) != port.active()
        };
        let before: Vec<_> = (0..ACCOUNTS).filter(|n| old(self, n)).map(|n| (n, self.head(n).state)).collect();
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
            if Some(number) == active || waited.is_err() {
                self.put_state(number, was);
                continue;
            }
            finals.push(self.account(number, self.head(number)));
            self.retired.push(number);
        }
        if !self.kept {
            self.empty(claims);
        }
        finals
    }

    /// Empties what was given back.
    pub(super) fn empty(&mut self, claims: BorrowedFd<'_>) {
        for number in std::mem::take(&mut self.retired) {
            self.free(claims, number);
        }
        // No writer begins an account here, so one that could not be begun is begun now.
        let closed = self.active().is_some_and(|number| self.head(number).state == state::CLOSED);
        if !self.split && self.follows.is_none() && closed {
            self.open(claims);
        }
    }

    fn free(&mut self, claims: BorrowedFd<'_>, number: usize) {
        for lane in 0..=self.lanes as usize {
            self.page.set(size(abi::block(lane, number)), abi::Block::default());
        }
        self.put_state(number, state::FREE);
        self.unclaim(claims, number);
    }

    pub(super) fn unclaim(&self, claims: BorrowedFd<'_>, number: usize) {
        for phase in [1, 0] {
            // One that was never made is as good.
            let _ = syscall::remove(claims, &self.claim_key(number, phase));
        }
    }
}
