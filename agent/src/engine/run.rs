//! The loop itself: what it waits for, and the order of one turn.

use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Control, Engine};
use crate::{
    clock,
    ledger::{Draft, Kind, Recovered, Shape, Stamp, Subject},
};

/// Turns closer together than this are made one: a burst of wake-ups is read once, not once each.
const TURN_NS: u64 = 3_000_000;

/// Why the loop ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The clocks cannot be read.
    #[error("the clock cannot be read")]
    Clock(#[source] std::io::Error),
    /// Waiting failed.
    #[error("waiting for events failed")]
    Wait(#[source] nix::Error),
}

impl Engine {
    /// Runs until told to stop. `recovered` is what the ledger knew before this agent.
    ///
    /// # Errors
    /// When the clock or the wait fails, which no turn can do without.
    pub fn run(mut self, recovered: Recovered) -> Result<(), EngineError> {
        let now = clock::now().map_err(EngineError::Clock)?;
        let found = self.found_slots(&recovered);
        let watched = recovered.watched.as_ref().filter(|(boot_id, _)| *boot_id == self.boot_id);
        let instant = |at: &Stamp| clock::Instant2 { boot_ns: at.mono_ns, unix_ns: at.unix_ns };
        let since = watched.map(|(_, at)| instant(at));
        if let Some(clocks) = recovered.clocks.as_ref().filter(|_| watched.is_some()) {
            self.clocks.begin_at(instant(clocks), recovered.asleep_ns);
        }
        self.out.push(self.agent_up(&recovered, now));
        self.out.extend(self.gap(&recovered, now));
        self.why.past = recovered.past;
        self.resume_statements(&recovered.laid, now);
        self.resume_recent(&recovered.lately, now);
        self.first_inventory(now);
        self.first_scan(recovered.open, &found, now);
        let running = self.registry.live().map(|vm| (vm.fixed.vm_id.as_str(), vm.fixed.start_ns));
        self.history.settle(running, now, self.settings.keep_ns);
        self.resume_storage(recovered.open_storage, since, now);
        self.next_heartbeat_s = self.heartbeat_after(now.unix_ns);
        loop {
            let now = clock::now().map_err(EngineError::Clock)?;
            if self.obey(now) {
                return self.finish();
            }
            self.turn(now);
            self.wait(now.boot_ns)?;
        }
    }

    fn agent_up(&self, recovered: &Recovered, now: clock::Instant2) -> Draft {
        let mut draft = Draft::new(Kind::AgentUp, Subject::Ledger, &self.boot_id, now.unix_ns, now.boot_ns);
        draft.shape = Shape {
            cpu: self.facts.online_cpus.unwrap_or(0),
            mem_bytes: self.facts.mem_total.map_or(0, |bytes| bytes.get()),
            storage_bytes: 0,
        };
        draft.suspended_ns = self.clocks.asleep_ns();
        draft.resumed_after = recovered.last.clone();
        draft.clean = Some(recovered.clean || recovered.last.is_none());
        draft
    }

    /// Takes what was told; true when it is time to end.
    fn obey(&mut self, now: clock::Instant2) -> bool {
        let mut stop = false;
        while let Ok(control) = self.control.try_recv() {
            match control {
                Control::Settings(settings) => {
                    self.settings = settings;
                    self.next_tick_ns = 0;
                    self.next_heartbeat_s = 0;
                }
                Control::Classes(classes) => self.set_classes(classes),
                Control::Annotate(statement) => self.annotate(*statement, now),
                Control::Unkept(id) => self.unkept(id),
                Control::Inventory(path) => self.set_inventory(path, now),
                Control::Stop => stop = true,
            }
        }
        stop
    }

    fn finish(mut self) -> Result<(), EngineError> {
        let now = clock::now().map_err(EngineError::Clock)?;
        // A last sample, but no search: whatever is found now is found again by the next agent.
        self.next_tick_ns = 0;
        self.next_scan_ns = u64::MAX;
        self.turn(now);
        let now = clock::now().map_err(EngineError::Clock)?;
        self.out.push(Draft::new(Kind::AgentDown, Subject::Ledger, &self.boot_id, now.unix_ns, now.boot_ns));
        self.submit();
        self.why.annotations.keeping.finish();
        Ok(())
    }

    /// Sleeps until something happens or the next sample is due.
    fn wait(&mut self, turn_began_ns: u64) -> Result<(), EngineError> {
        let now = clock::boot_ns().map_err(EngineError::Clock)?;
        // Rounded up: waking a fraction of a millisecond early would spin through an empty turn.
        let next = if self.peek_ns > 0 { self.next_tick_ns.min(self.peek_ns) } else { self.next_tick_ns };
        let left_ms = next.saturating_sub(now).div_ceil(1_000_000).min(60_000);
        let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
        let mut fds = vec![PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        if let Some(kernel) = &self.kernel {
            fds.push(PollFd::new(kernel.wake_fd(), PollFlags::POLLIN));
        }
        if let Some(uevents) = &self.uevents {
            fds.push(PollFd::new(uevents.as_fd(), PollFlags::POLLIN));
        }
        let ready = match poll(&mut fds, timeout) {
            Ok(ready) => ready,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(EngineError::Wait(error)),
        };
        if fds.first().and_then(PollFd::any).unwrap_or(false) {
            // Level-triggered counter: reading resets it; its value means nothing.
            let _ = self.waker.read();
        }
        if ready > 0 {
            let since = clock::boot_ns().map_err(EngineError::Clock)?.saturating_sub(turn_began_ns);
            std::thread::sleep(std::time::Duration::from_nanos(TURN_NS.saturating_sub(since)));
        }
        Ok(())
    }
}
