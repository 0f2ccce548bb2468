//! The thread: waits for orders, announcements and its own schedule; does what the model wants done.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, mpsc},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::eventfd::EventFd,
};

use super::{
    book::Book,
    model::{ClassChange, ClassNames, LinkKey, Model, Told, VmKey},
    programs::Programs,
    share::{NetworkTally, Shared},
    spaces::{Spaces, Touched},
};
use crate::{
    clock,
    host::{NetNs, NetNsId, ProcFs, link::LinkChange, tap::HeldTap},
};

/// How long an ended VM's process may take to let go of its files.
const LET_GO_NS: u64 = 2_000_000_000;
/// Between two looks whether it has.
const LOOK_NS: u64 = 5_000_000;

/// How long a namespace without a VM is listened in: about what the kernel takes itself to clean one up.
const LEAVE_NS: u64 = 1_000_000_000;

/// A change of classes.
pub(super) type ChangeClasses<P> = Box<dyn FnOnce(&mut P) -> Option<ClassChange> + Send>;

/// Files of one VM, by their numbers.
pub(super) type Asked = HashMap<i32, (LinkKey, u32, HeldTap)>;

/// What the thread is told.
pub(super) enum Order<P> {
    Born(VmKey),
    Base(VmKey, Vec<Told>),
    Forget(VmKey),
    Former(VmKey, BTreeSet<Arc<str>>),
    Ended(VmKey),
    Look(VmKey),
    Reconcile(HashSet<u32>),
    Sample,
    Classes(ChangeClasses<P>),
    Stop,
}

/// Everything the thread owns.
pub(super) struct Worker<P: Programs> {
    pub(super) root: PathBuf,
    pub(super) procfs: ProcFs,
    pub(super) programs: P,
    pub(super) ports: HashMap<LinkKey, P::Port>,
    pub(super) model: Model,
    pub(super) spaces: Spaces,
    pub(super) shared: Arc<Shared>,
    orders: mpsc::Receiver<Order<P>>,
    waker: Arc<EventFd>,
    /// What files of VMs stand for, with the interface's carrier count then: as long as that goes on, so does this.
    pub(super) asked: HashMap<VmKey, Asked>,
    /// The agent's own namespace, which stays whatever we hold.
    own: Option<NetNsId>,
    /// Namespaces without a VM, and when they are let go.
    pub(super) leaving: BTreeMap<NetNsId, u64>,
    /// VMs whose end was told and whose process may still hold something, with the latest instant to wait for.
    pub(super) ending: BTreeMap<VmKey, u64>,
    pub(super) tally: NetworkTally,
}

impl<P: Programs> Worker<P> {
    pub(super) fn new(
        root: PathBuf,
        programs: P,
        names: ClassNames,
        shared: Arc<Shared>,
        orders: mpsc::Receiver<Order<P>>,
        waker: Arc<EventFd>,
    ) -> Self {
        let mut model = Model::default();
        model.set_names(names);
        Self {
            procfs: ProcFs::new(&root),
            root,
            programs,
            ports: HashMap::new(),
            model,
            spaces: Spaces::default(),
            shared,
            orders,
            waker,
            own: NetNs::own().ok().map(|own| own.id()),
            leaving: BTreeMap::new(),
            ending: BTreeMap::new(),
            asked: HashMap::new(),
            tally: NetworkTally::default(),
        }
    }

    pub(super) fn run(mut self, book: Option<Book>) {
        self.take_up(book);
        // Behind it: what is not gone on with is known then.
        if let Ok(own) = NetNs::own() {
            self.programs.sweep(&own);
        }
        self.save();
        loop {
            self.wait();
            let _ = self.waker.read();
            self.hear();
            loop {
                match self.orders.try_recv() {
                    Ok(Order::Stop) | Err(mpsc::TryRecvError::Disconnected) => return self.save(),
                    Ok(order) => self.obey(order),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            self.scan_due();
            self.end();
            if self.leaving.values().any(|at| *at <= now_ns()) {
                self.leave();
            }
            if self.model.is_decided() {
                self.save();
            }
        }
    }

    fn obey(&mut self, order: Order<P>) {
        match order {
            Order::Born(vm) => self.model.born(vm, now_ns()),
            Order::Base(vm, told) => self.model.set_base(vm, told),
            Order::Forget(vm) => self.model.forget(vm),
            Order::Former(vm, names) => self.model.former(vm, names, now_ns()),
            Order::Ended(vm) => {
                self.ending.entry(vm).or_insert(now_ns().saturating_add(LET_GO_NS));
            }
            Order::Look(vm) => self.model.look(vm, now_ns()),
            Order::Reconcile(still) => {
                self.asked.clear();
                self.ports.values().for_each(|port| self.programs.recheck(*port));
                self.model.reconcile(&still, now_ns());
                self.execute();
                self.leave();
            }
            Order::Sample => self.sample(),
            Order::Classes(change) => {
                self.read(&self.model.counted());
                self.execute();
                if let Some(change) = change(&mut self.programs) {
                    self.model.set_names(change.names);
                    self.read(&self.model.counted());
                    // What a class had counted is written down before it is wiped.
                    self.save();
                    for class in change.freed {
                        self.programs.wipe_class(class);
                        self.model.wiped(class);
                    }
                    self.execute();
                }
            }
            Order::Stop => {}
        }
    }

    /// Lets go of namespaces without a VM. Who listens in one keeps it, and the ends of virtual cables in it, from going;
    /// the moment longer is for a VM that is started again on the same tap.
    pub(super) fn leave(&mut self) {
        let now = now_ns();
        let needed = self.model.namespaces();
        let without: BTreeSet<NetNsId> =
            self.spaces.ids().filter(|id| !needed.contains(id) && Some(*id) != self.own).collect();
        self.leaving.retain(|id, _| without.contains(id));
        for netns in without {
            if *self.leaving.entry(netns).or_insert(now.saturating_add(LEAVE_NS)) <= now {
                self.leaving.remove(&netns);
                self.model.abandon(netns);
                self.execute();
                self.spaces.drop(netns);
                self.model.unwatched(netns);
            }
        }
    }

    fn wait(&self) {
        let due = self.model.next_due_ns();
        let look = (!self.ending.is_empty()).then(|| now_ns().saturating_add(LOOK_NS));
        let leave = self.leaving.values().min().copied();
        let timeout = due.into_iter().chain(look).chain(leave).chain(self.spaces.due_ns()).min().map_or(
            PollTimeout::NONE,
            |at| {
                let left_ms = at.saturating_sub(now_ns()).div_ceil(1_000_000);
                PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX)
            },
        );
        let mut fds = vec![PollFd::new(self.waker.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.spaces.sockets().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        // EINTR is a turn without news.
        let _ = poll(&mut fds, timeout);
    }

    /// Takes in what was announced; which links it was about.
    pub(super) fn hear(&mut self) -> Touched {
        let touched = self.take_in();
        self.execute();
        touched
    }

    /// The same, what the model wants done left to do.
    pub(super) fn take_in(&mut self) -> Touched {
        let mut touched = Touched::new();
        for news in self.spaces.news(now_ns()) {
            for change in &news.changes {
                if self.model.change(news.netns, change, now_ns()) {
                    let (LinkChange::New(link) | LinkChange::Gone { link, .. }) = change;
                    touched.insert((news.netns, link.ifindex));
                }
            }
            if let Some(error) = &news.failure {
                self.fail("announcements of a network namespace cannot be heard; another socket is tried", error);
            }
            if news.overflow {
                self.tally.overflows += 1;
                self.list(news.netns);
                self.model.sweep(news.netns, now_ns());
            }
        }
        touched
    }

    /// Compares what is known of a namespace with what there is.
    pub(super) fn list(&mut self, netns: NetNsId) {
        let gone = |(_, port): &(&LinkKey, &P::Port)| !self.programs.is_attached(**port);
        let of = self.ports.iter().filter(|(link, _)| link.netns == netns);
        let lost: Vec<LinkKey> = of.filter(gone).map(|(link, _)| *link).collect();
        for link in lost {
            self.model.lost(link, now_ns());
        }
        match self.spaces.links(netns) {
            Ok(links) => self.model.listed(netns, &links, now_ns()),
            Err(error) => self.fail("links cannot be listed", &error),
        }
    }

    pub(super) fn fail(&mut self, what: &str, error: &(dyn std::error::Error + 'static)) {
        self.tally.errors += 1;
        tracing::debug!(error, "{what}");
    }
}

/// CLOCK_BOOTTIME, as start ticks of processes are.
pub(super) fn now_ns() -> u64 {
    clock::boot_ns().unwrap_or(0)
}
