//! Ending accounts at handovers that the agent hears of, where the kernel cannot see them itself.

use super::{Command, LinkKey, Model};

/// Handovers closer than this are a burst.
const RARE_NS: u64 = 1_000_000_000;
/// In a burst, the time a new holder has to write.
const PATIENCE_NS: u64 = 100_000_000;

impl Model {
    /// Up to which its accounts are to be given back before all of them end: all but the one in use.
    #[must_use]
    pub fn done(&self, link: LinkKey) -> u64 {
        let Some(port) = self.ports.get(&link) else { return 0 };
        let former = |serial: &&u64| Some(**serial) != port.current;
        port.accounts.keys().take_while(former).last().copied().unwrap_or(0)
    }

    /// After [`Model::accounts`]: whether the interface changed hands and the account that counts now must end.
    ///
    /// The first time at once; soon after that, not before the new holder had time to write, which makes an account by
    /// itself: accounts are few, and ending one ends those of all writers.
    pub fn turn(&mut self, link: LinkKey, now_ns: u64) -> bool {
        let Some(port) = self.ports.get_mut(&link).filter(|port| port.is_attached()) else { return false };
        if !port.must_turn() {
            port.turn_at_ns = None;
            return false;
        }
        let busy = port.turned_ns.is_some_and(|turned| now_ns.saturating_sub(turned) < RARE_NS);
        if busy && port.turn_at_ns.is_none_or(|at| now_ns < at) {
            let at = *port.turn_at_ns.get_or_insert(now_ns.saturating_add(PATIENCE_NS));
            self.schedule.turn(link, at);
            return false;
        }
        port.opened = true;
        port.turned_ns = Some(now_ns);
        port.turn_at_ns = None;
        true
    }

    /// Whether its accounts begin with its openings, so that none has to be begun for a handover.
    #[must_use]
    pub fn follows(&self, link: LinkKey) -> bool {
        self.ports.get(&link).is_some_and(|port| port.follows.is_some())
    }

    pub(super) fn want_turn(&mut self, link: LinkKey) {
        let turn = Command::Turn(link);
        if !self.out.contains(&turn) {
            self.out.push(turn);
        }
    }
}
