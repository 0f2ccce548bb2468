//! Other classes, in force for all interfaces at once.

use std::io;

use super::{CLASSES, Error, NetworkPrograms, PortId, attachment::Pair, table::Table};
use crate::account::class::ClassTable;

impl NetworkPrograms {
    /// Puts other classes in force for all interfaces, none missing a packet. When this returns, no program runs that
    /// knows the old ones; after an error the old ones are in force. `None`: all is `external` or `non_ip`.
    ///
    /// # Errors
    /// When the kernel refuses the table or a program.
    pub fn set_classes(&mut self, table: Option<&ClassTable>) -> Result<(), Error> {
        let code = self.code(table);
        let table = table.map(Table::new).transpose()?;
        let mut pairs = Vec::with_capacity(self.ports.len());
        for (id, port) in &self.ports {
            pairs.push((*id, self.pair(port, table.as_ref())?));
        }
        for (at, (id, pair)) in pairs.iter().enumerate() {
            if let Err(source) = self.replace(*id, pair) {
                // Classes of two configurations at once would mix their counts.
                for (id, _) in &pairs[..=at] {
                    if let Some(old) = self.ports.get(id).map(|port| self.pair(port, self.table.as_ref())) {
                        self.replace(*id, &old?).map_err(Error::Replace)?;
                    }
                }
                return Err(Error::Replace(source));
            }
        }
        (self.table, self.code) = (table, code);
        self.grace.wait().map_err(Error::Replace)
    }

    /// The classes that programs count by which an agent before has made of the same [code](NetworkPrograms::code).
    ///
    /// # Errors
    /// When the kernel refuses the table.
    pub fn take_classes(&mut self, table: Option<&ClassTable>) -> Result<(), Error> {
        self.code = self.code(table);
        self.table = table.map(Table::new).transpose()?;
        Ok(())
    }

    /// A device that is gone needs no other programs.
    pub(super) fn replace(&mut self, id: PortId, pair: &Pair) -> io::Result<()> {
        let Some(port) = self.ports.get_mut(&id) else { return Ok(()) };
        let Some(attachment) = port.attachment.as_mut() else { return Ok(()) };
        attachment.replace(pair).or_else(|error| if attachment.is_there() { Err(error) } else { Ok(()) })
    }

    /// Wipes a class that no table in force has, so that its number can be given to another name. What was counted must
    /// have been read before.
    pub fn wipe_class(&mut self, class: usize) {
        if class < CLASSES {
            self.ports.values_mut().for_each(|port| port.wipe(class));
        }
    }
}
