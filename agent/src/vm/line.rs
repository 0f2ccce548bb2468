//! What the ledger still owes a VM: its line is shown to nobody before it is durable.

use crate::ledger::Ticket;

/// A ledger line on its way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Line {
    /// There is none to wait for.
    #[default]
    None,
    /// In this turn's batch.
    Queued,
    /// Handed to the writer.
    Given(Ticket),
}

impl Line {
    /// Whether nothing has to be waited for.
    #[must_use]
    pub fn is_durable(self, durable: Ticket) -> bool {
        match self {
            Self::None => true,
            Self::Queued => false,
            Self::Given(ticket) => ticket <= durable,
        }
    }

    /// The batch was handed over.
    pub fn given(&mut self, ticket: Ticket) {
        if *self == Self::Queued {
            *self = Self::Given(ticket);
        }
    }
}
