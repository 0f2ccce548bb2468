//! Carrying out what the model wants: attaching, detaching, ending accounts and giving them back.

use super::{
    model::{Command, LinkKey},
    programs::{Held, Programs},
    thread::{Worker, now_ns},
};

impl<P: Programs> Worker<P> {
    /// Does what the model wants until it wants nothing more.
    pub(super) fn execute(&mut self) {
        loop {
            let commands = self.model.commands();
            if commands.is_empty() {
                return;
            }
            for command in commands {
                self.carry_out(&command);
            }
        }
    }

    fn carry_out(&mut self, command: &Command) {
        let whose = |writer: u32| self.procfs.writer(writer);
        match *command {
            Command::Attach { link, reversed, held } => self.attach(link, reversed, held),
            Command::Held(link, held) => {
                if let Some(port) = self.ports.get(&link) {
                    self.programs.hold(*port, held);
                }
            }
            Command::Turn(link) => self.turn(link),
            Command::Changed(link) => {
                if let Some(port) = self.ports.get(&link) {
                    self.programs.link_changed(*port);
                }
            }
            Command::Retire(link, up_to) => {
                let Some(port) = self.ports.get(&link) else { return };
                let last = self.programs.retire(*port, up_to);
                self.model.retired(link, &last, &whose, now_ns());
            }
            Command::Detach(link) => {
                let last = self.ports.remove(&link).map(|port| self.programs.detach(port)).unwrap_or_default();
                self.model.detached(link, &last, &whose, now_ns());
            }
        }
    }

    fn attach(&mut self, link: LinkKey, reversed: bool, held: Option<Held>) {
        let Some(netns) = self.spaces.get(link.netns) else { return };
        let result = match self.programs.attach(netns, link.ifindex, reversed, held) {
            Ok(port) => {
                self.ports.insert(link, port);
                Ok(())
            }
            Err(error) => Err(format!("its packets cannot be counted: {error}")),
        };
        // If it went in the meantime, the program may sit on its successor: the announcement waits by now.
        let _ = self.take_in();
        self.model.attached(link, result);
        // What was announced until here, the model did not pass on.
        if let Some(port) = self.ports.get(&link) {
            self.programs.link_changed(*port);
        }
        self.read(&[link]);
    }
}
