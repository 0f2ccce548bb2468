//! Whether an interface's writers are told apart. Where packets wait for another task to handle them, the program would
//! name that one: there the writer stays 0, and who holds the interface is known by events alone.

use super::{Error, NetworkPrograms, PortId, port::Port};

impl Port {
    /// Whether the program runs in the thread that writes; `None` if that cannot be asked.
    pub(super) fn runs_in_writer(&self) -> Option<bool> {
        // A macvtap sends in the thread that writes, whatever is set (net/core/dev.c, `__dev_queue_xmit`).
        if self.reversed {
            return Some(true);
        }
        self.device.as_ref()?.defers().ok().map(|defers| !defers)
    }
}

impl NetworkPrograms {
    /// Tells an interface's writers apart, or no longer, as its device is set now: nobody announces `rps_cpus`, and each
    /// queue that is attached may change `IFF_NAPI`.
    ///
    /// # Errors
    /// When the kernel refuses the other programs; the old ones stay then, and the next call tries again.
    pub fn refresh_split(&mut self, id: PortId) -> Result<(), Error> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        let Some(split) = port.runs_in_writer().filter(|split| *split != port.split) else { return Ok(()) };
        port.split = split;
        if let Err(error) = self.put_split(id) {
            self.ports.entry(id).and_modify(|port| port.split = !split);
            return Err(error);
        }
        tracing::info!(?id, split, "an interface's writers are told apart, or no longer");
        self.next_account(id);
        Ok(())
    }

    fn put_split(&mut self, id: PortId) -> Result<(), Error> {
        let Some(pair) = self.ports.get(&id).map(|port| self.pair(port, self.table.as_ref())) else { return Ok(()) };
        self.replace(id, &pair?).map_err(Error::Split)?;
        // Only then does no program name a writer any more.
        self.ports.entry(id).and_modify(Port::note_made);
        self.grace.wait().map_err(Error::Split)
    }
}
