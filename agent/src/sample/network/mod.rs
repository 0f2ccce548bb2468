//! Traffic of VMs' network interfaces: a thread that knows which VM holds which interface and has them counted.
//!
//! Use: `Network::start(root, programs, names)` once; [`Network::born`] and [`Network::ended`] for every VM (process id
//! and start tick), [`Network::look`] when its cgroup changed, [`Network::reconcile`] at the slow scan,
//! [`Network::sample`] at every tick; [`Network::usage`] is what the last sample read, [`Network::final_usage`] the last
//! word on a VM that ended. None of them waits for a kernel lock; only `final_usage` waits, as long as it is told to.
//!
//! What is promised, for every packet that the programs counted:
//! * It is given away exactly once: to a VM, to nobody ([`Unowned`]), or it is undecided for at most a minute because
//!   its writer is not known as a VM yet. No figure of a VM ever falls.
//! * Transmitted packets belong to the VM whose process, or vhost worker, wrote them, however fast an interface changes
//!   hands and however late events arrive, as long as the programs have an account for each writer between two readings
//!   (four, less those of writers that write still; [`NetworkTally::shared_packets`] counts the rest). Two processes are never one: a process id that is used again belongs to the
//!   later VM only for accounts that began after it was born.
//! * Where packets are put off for another task to handle (`IFF_NAPI`, `rps_cpus`), nobody knows the writer, and they
//!   belong to the VM that holds the interface when its holding was heard of (milliseconds late, at handovers less than a
//!   second apart up to 0.1 s). Nobody announces `rps_cpus`: a change is seen at the next reconcile or announcement.
//! * Packets received through a tap belong to the process that opened it, however late the agent hears of it, unless the
//!   agent has seen another hold this very opening of it, or another has written since. Nobody's is what comes while it is
//!   closed; while its opener is no VM (a manager that passes the file on) until the agent has seen who holds it
//!   (milliseconds); and likewise where it was opened while the device was down, which nobody announces.
//! * What no hook can know: a file that is passed on *open* from one VM to another changes nothing in the kernel, so what
//!   is received before the second writes, or is seen with it, is told on the first; and a packet that is between our
//!   program and the device's queue at the very moment of a handover is told as that moment's.
//! * A macvtap, and a tap on a kernel whose types do not tell the places (no BTF), have no such openings: what they receive
//!   belongs to the VM that wrote last, or, from the moment an event was handled, to the VM that holds the interface;
//!   never to one that did not hold that existence of it.
//! * Interfaces are known by namespace, index and existence. A deleted interface's totals stay with its VM, under the
//!   name it had when the VM took it; a renamed one goes on under that name, because a counter that changes its label
//!   would start over. A second one of the same name is added to it.
//! * What passed before the program was attached is told as `unclassified` only where it is certain whose it is.
//! * The agent keeps no tap and no namespace: a tap's file is asked once and closed at once, and a namespace without a VM
//!   is let go after a second. A VM that takes a persistent tap there later than that is counted from its attachment on.

mod book;
mod carry;
mod left;
mod measure;
pub mod model;
pub mod programs;
mod scan;
mod share;
mod spaces;
mod thread;

use std::{
    collections::{BTreeSet, HashSet},
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread::JoinHandle,
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::account::NetworkUsage;
pub use book::Book;
pub use model::{ClassChange, ClassNames, Told, Unowned, VmKey};
use programs::Programs;
use share::Shared;
pub use share::{NetworkTally, Usages};
use thread::{Order, Worker};

/// The thread, from outside.
pub struct Network<P: Programs> {
    orders: mpsc::Sender<Order<P>>,
    waker: Arc<EventFd>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl<P: Programs> Network<P> {
    /// Starts the thread. `names`: classes by their numbers.
    ///
    /// # Errors
    /// When the system gives no eventfd or no thread.
    pub fn start(root: PathBuf, programs: P, names: ClassNames) -> io::Result<Self> {
        Self::start_from(root, programs, names, None)
    }

    /// The same, going on from an earlier agent's book.
    ///
    /// # Errors
    /// As [`Network::start`].
    pub fn start_from(root: PathBuf, programs: P, names: ClassNames, book: Option<Book>) -> io::Result<Self> {
        let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let shared = Arc::new(Shared::default());
        let (orders, receiver) = mpsc::channel();
        let (of_worker, share) = (Arc::clone(&waker), Arc::clone(&shared));
        let run = move || Worker::new(root, programs, names, share, receiver, of_worker).run(book);
        let thread = std::thread::Builder::new().name("kvmeter-network".to_owned()).spawn(run)?;
        Ok(Self { orders, waker, shared, thread: Some(thread) })
    }

    /// A VM runs.
    pub fn born(&self, vm: VmKey) {
        self.tell(Order::Born(vm));
    }

    /// A VM had interfaces of these names while an earlier agent ran; to be told before any VM.
    pub fn former(&self, vm: VmKey, names: BTreeSet<Arc<str>>) {
        self.tell(Order::Former(vm, names));
    }

    /// What the ledger told of a VM before any of this was counted; to be told when it was born.
    pub fn base(&self, vm: VmKey, told: Vec<Told>) {
        self.tell(Order::Base(vm, told));
    }

    /// The ledger has a VM's last figures: a later agent need not work them out again.
    pub fn forget(&self, vm: VmKey) {
        self.tell(Order::Forget(vm));
    }

    /// A VM's process has ended.
    pub fn ended(&self, vm: VmKey) {
        self.tell(Order::Ended(vm));
    }

    /// Something about a VM changed (its cgroup): its interfaces are looked at.
    pub fn look(&self, vm: VmKey) {
        self.tell(Order::Look(vm));
    }

    /// Everything is looked at again but the files of these processes, in which nothing has run since.
    pub fn reconcile(&self, still: HashSet<u32>) {
        self.tell(Order::Reconcile(still));
    }

    /// Everything counted is read and published.
    pub fn sample(&self) {
        self.tell(Order::Sample);
    }

    /// Changes the classes: `change` swaps the programs' table and says what the numbers mean from then on; `None` if
    /// that failed and nothing changed. Everything is read before and after it, and then the numbers of classes that
    /// are no more are wiped, so that no count goes under another's name.
    pub fn set_classes(&self, change: impl FnOnce(&mut P) -> Option<ClassChange> + Send + 'static) {
        self.tell(Order::Classes(Box::new(change)));
    }

    /// Figures of a VM as of the last sample; its last ones if it has ended.
    #[must_use]
    pub fn usage(&self, vm: VmKey) -> Option<Arc<NetworkUsage>> {
        self.shared.usage(vm)
    }

    /// Figures of all VMs as of the last sample, those excepted that have ended since.
    #[must_use]
    pub fn usages(&self) -> Usages {
        self.shared.usages()
    }

    /// The last figures of a VM whose end was told; waits for them as long as `at_most`.
    #[must_use]
    pub fn final_usage(&self, vm: VmKey, at_most: Duration) -> Option<Arc<NetworkUsage>> {
        self.shared.wait_final(vm, at_most)
    }

    /// `waker` is written to whenever a VM's last figures are there.
    pub fn waking(&self, waker: Arc<EventFd>) {
        self.shared.waking(waker);
    }

    /// Whether the thread has ended though nobody told it to: it panicked, and nothing it published is true any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Samples published so far.
    #[must_use]
    pub fn samples(&self) -> u64 {
        self.shared.samples()
    }

    /// Waits until so many samples are published; false when that took longer than `at_most`.
    #[must_use]
    pub fn wait_sample(&self, samples: u64, at_most: Duration) -> bool {
        self.shared.wait_sample(samples, at_most)
    }

    /// Figures of the host as of the last sample.
    #[must_use]
    pub fn tally(&self) -> NetworkTally {
        self.shared.tally()
    }

    fn tell(&self, order: Order<P>) {
        // One that is gone is told by `is_gone`.
        if self.orders.send(order).is_ok() {
            let _ = self.waker.write(1);
        }
    }
}

impl<P: Programs> Drop for Network<P> {
    fn drop(&mut self) {
        self.tell(Order::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the network thread had panicked");
        }
    }
}

#[cfg(test)]
mod tests;
