//! What a bucket adds up: a closed set of quantities with their names, each absent until it was measured once.

use std::rc::Rc;

macro_rules! quantities {
    ($($(#[$doc:meta])* $item:ident = $text:literal,)*) => {
        /// What is added up, in the order of the columns. All are whole numbers of the unit in their name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Quantity { $($(#[$doc])* $item,)* }

        impl Quantity {
            /// Every one, in order.
            pub const ALL: &'static [Self] = &[$(Self::$item,)*];

            /// How many there are.
            pub const COUNT: usize = Self::ALL.len();

            /// Its name.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$item => $text,)* }
            }
        }
    };
}

quantities! {
    /// How long the VM lived.
    Running = "running_ns",
    /// The part of that which nobody watched (`coverage`).
    Unobserved = "unobserved_ns",
    /// vCPUs times time.
    VcpuAllocated = "vcpu_allocated_ns",
    /// CPU time of all roles.
    CpuUsed = "cpu_used_ns",
    /// CPU time of vCPU threads; part of the above.
    VcpuUsed = "cpu_vcpu_used_ns",
    /// Time inside the guest; part of the above.
    Guest = "guest_ns",
    /// Time spent waiting for a CPU.
    RunDelay = "run_delay_ns",
    /// Configured memory times time.
    MemAllocated = "mem_allocated_byte_ns",
    /// Resident memory times time.
    MemUsed = "mem_used_byte_ns",
    /// Stored bytes times time.
    Storage = "storage_byte_ns",
    /// Bytes read from storage.
    DiskRead = "disk_read_bytes",
    /// Bytes written to storage.
    DiskWritten = "disk_written_bytes",
}

/// Bytes and packets into the guest and out of it, in the order of [`NET_NAMES`].
pub type NetAmounts = [u128; 4];

/// Names of the four numbers of a traffic class.
pub const NET_NAMES: [&str; 4] =
    ["network_receive_bytes", "network_receive_packets", "network_transmit_bytes", "network_transmit_packets"];

/// What one bucket, or one part of a stretch, has of everything.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Amounts {
    values: [u128; Quantity::COUNT],
    told: u16,
    /// By traffic class, in order of their names: they are few.
    net: Vec<(Rc<str>, NetAmounts)>,
}

impl Amounts {
    /// Adds to one quantity.
    pub fn add(&mut self, what: Quantity, more: u128) {
        let at = what as usize;
        self.values[at] = self.values[at].saturating_add(more);
        self.told |= 1 << at;
    }

    /// One quantity; `None` if it was never measured.
    #[must_use]
    pub const fn get(&self, what: Quantity) -> Option<u128> {
        let at = what as usize;
        if self.told & (1 << at) == 0 { None } else { Some(self.values[at]) }
    }

    /// Adds to one traffic class.
    pub fn add_net(&mut self, class: &Rc<str>, more: NetAmounts) {
        let at = self.net.partition_point(|(known, _)| known < class);
        if self.net.get(at).is_none_or(|(known, _)| known != class) {
            self.net.insert(at, (Rc::clone(class), [0; 4]));
        }
        for (sum, more) in self.net[at].1.iter_mut().zip(more) {
            *sum = sum.saturating_add(more);
        }
    }

    /// Traffic by class, in order of their names.
    #[must_use]
    pub fn net(&self) -> &[(Rc<str>, NetAmounts)] {
        &self.net
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        for what in Quantity::ALL {
            if let Some(more) = other.get(*what) {
                self.add(*what, more);
            }
        }
        for (class, more) in &other.net {
            self.add_net(class, *more);
        }
    }
}
