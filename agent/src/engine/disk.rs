//! Storage of VMs: I/O is read at a sample where threads have run since, once more at the end; disks are listed by a
//! thread of their own, because a file system that hangs must not stop the counting of anything else.

use std::collections::HashSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::Engine;
use crate::{
    bpf::VmReading,
    clock::{self, Instant2},
    host::{
        GroupSearch, ProcFs,
        disk::{
            TaskIo, TaskIoFile,
            group::GroupIoFiles,
            image::{self, Disks},
        },
    },
    units::Tgid,
    vm::disk::Source,
};

/// Processes whose disks are waited for at once; the others come at the next reconcile.
const QUEUE: usize = 8_192;

/// Whose disks are listed.
struct Asked {
    tgid: u32,
    start_tick: u64,
    incarnation: String,
}

/// The disks of one process.
struct Listed {
    of: Asked,
    disks: Result<Disks, String>,
    /// When it was begun.
    at: Option<Instant2>,
    /// It was this process, alive, also after they were listed.
    certain: bool,
}

/// The thread that lists disks.
pub(super) struct Lister {
    ask: SyncSender<Asked>,
    answers: Receiver<Listed>,
}

impl Lister {
    /// Starts it; `None` where no thread can be had.
    pub(super) fn start(root: std::path::PathBuf) -> Option<Self> {
        let (ask, asked) = sync_channel::<Asked>(QUEUE);
        let (answer, answers) = std::sync::mpsc::channel();
        let work = move || {
            let procfs = ProcFs::new(&root);
            while let Ok(of) = asked.recv() {
                let at = clock::now().ok();
                let disks = image::list(&root, &procfs, Tgid(of.tgid)).map_err(|error| error.to_string());
                let certain = is_alive(&procfs, of.tgid, of.start_tick);
                // The next sample takes it: nobody is woken.
                if answer.send(Listed { of, disks, at, certain }).is_err() {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("disks".to_owned()).spawn(work);
        thread.inspect_err(|error| tracing::warn!(%error, "no thread to list disks")).ok()?;
        Some(Self { ask, answers })
    }
}

/// Whether the process still is the one that was asked about, and has its files. One that cannot be looked at counts as
/// itself.
pub(super) fn is_alive(procfs: &ProcFs, tgid: u32, start_tick: u64) -> bool {
    match procfs.stat(Tgid(tgid)) {
        Ok(stat) => stat.start_ticks == start_tick && (!matches!(stat.state, 'Z' | 'X' | 'x') || stat.threads > 1),
        Err(error) => !error.is_gone(),
    }
}

impl Engine {
    /// Once a sample: reads the VMs in which something has run, and takes in lists of disks.
    pub(super) fn sample_disks(&mut self, at: Instant2) {
        self.take_disks(at);
        let moved: Vec<u32> =
            self.registry.live().filter(|vm| vm.disk.moved && !vm.exiting).map(|vm| vm.fixed.tgid).collect();
        for tgid in moved {
            self.sample_disk(tgid);
        }
    }

    fn sample_disk(&mut self, tgid: u32) {
        self.open_task_io(tgid);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        vm.disk.moved = false;
        let mut failed = u64::from(!vm.disk.read_groups());
        let mut fell = false;
        if let Source::Open(file) = &vm.disk.file {
            match file.read() {
                Ok(Some(io)) => {
                    vm.changed |= vm.disk.usage.io != Some(io);
                    fell = vm.disk.take_io(io);
                }
                // Reaped: its end is on its way.
                Ok(None) => {}
                Err(error) => {
                    failed += 1;
                    vm.disk.no_io(&error.to_string());
                    vm.changed = true;
                }
            }
        }
        self.count_error("disk", failed);
        self.count_error("regression", u64::from(fell));
    }

    /// Opens a process's counter, and makes sure that it is still that process's.
    fn open_task_io(&mut self, tgid: u32) {
        let Some(vm) = self.registry.of_tgid(tgid) else { return };
        if !matches!(vm.disk.file, Source::NotLooked) {
            return;
        }
        let opened = TaskIoFile::open(&self.root, Tgid(tgid));
        // A zombie is the same process still.
        let tick_ns = self.tick_ns();
        let same = self.procfs.stat(Tgid(tgid)).is_ok_and(|stat| stat.start_ticks == vm.start_tick(tick_ns));
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        match opened {
            Ok(file) if same => vm.disk.file = Source::Open(file),
            Err(error) if same => vm.disk.no_io(&error.to_string()),
            _ => {}
        }
    }

    /// Takes the final numbers of a VM whose threads have all made their last switch: of a zombie from `/proc`, of one
    /// that was reaped from the kernel programs, with which each thread has left its own.
    pub(super) fn settle_disk(&mut self, reading: &VmReading) {
        let tgid = reading.tgid;
        self.open_task_io(tgid);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        let zombie = match &vm.disk.file {
            Source::Open(file) => file.read_final(),
            _ => Ok(None),
        };
        vm.disk.read_groups();
        let left = reading.ended_io.map(|left| TaskIo {
            read_bytes: left.read_bytes,
            written_bytes: left.written_bytes,
            cancelled_bytes: vm.disk.usage.io.map_or(0, |io| io.cancelled_bytes),
        });
        // Where nobody tells, what was read last stands.
        let Some(io) = zombie.ok().flatten().or(left) else { return };
        // Less than was read before: what some thread did at its end is missing.
        let fell = vm.disk.take_io(io);
        self.count_loss("final_io", u64::from(fell));
    }

    /// Takes the final numbers of a VM whose end nobody saw, if it is a zombie still.
    pub(super) fn settle_zombie_disk(&mut self, tgid: u32) {
        self.open_task_io(tgid);
        let Some(vm) = self.registry.of_tgid_mut(tgid) else { return };
        if let Source::Open(file) = &vm.disk.file
            && let Ok(Some(io)) = file.read_final()
        {
            vm.disk.take_io(io);
        }
    }

    /// Has a VM's disks listed.
    pub(super) fn ask_disks(&mut self, tgid: u32, at: Instant2) {
        let tick_ns = self.tick_ns();
        let (Some(lister), Some(vm)) = (&self.lister, self.registry.of_tgid_mut(tgid)) else { return };
        if !vm.disk.asked {
            let start_tick = vm.start_tick(tick_ns);
            let of = Asked { tgid, start_tick, incarnation: vm.fixed.incarnation.clone() };
            vm.disk.asked = lister.ask.try_send(of).is_ok();
            if vm.disk.asked {
                self.listing.ask(at.boot_ns);
            }
        }
    }

    /// Looks for a VM's groups: it may have been moved.
    pub(super) fn follow_group_io(&mut self, search: &GroupSearch, tgid: u32, at: Instant2) {
        if let Some(vm) = self.registry.of_tgid_mut(tgid) {
            vm.disk.take_groups(GroupIoFiles::find(search, Tgid(tgid)), at.boot_ns);
            vm.changed = true;
        }
    }

    /// At a reconcile: disks come and go. `still` are not looked at.
    pub(super) fn follow_disks(&mut self, still: &HashSet<u32>, at: Instant2) {
        for tgid in self.stirred_vms(still) {
            self.ask_disks(tgid, at);
        }
    }

    /// What was listed before a listing hung may be true no more.
    fn watch_listing(&mut self, at: Instant2) {
        let hung = self.listing.hung_since(at.boot_ns);
        self.tell_hung("disks", hung);
        if hung.is_none() {
            return;
        }
        if self.listing.tell_hung(at.boot_ns) {
            tracing::warn!("listing a VM's disks hangs: no VM's disks are told until it comes back");
            self.count_error("disk", 1);
        }
        for vm in self.registry.live_mut().filter(|vm| vm.disk.asked) {
            vm.changed |= vm.disk.no_disks("listing disks hangs in a file system of this host");
        }
    }

    /// Says which thread hangs.
    pub(super) fn tell_hung(&mut self, thread: &'static str, since_ns: Option<u64>) {
        match since_ns {
            Some(since_ns) => self.host.hung.insert(thread, since_ns),
            None => self.host.hung.remove(thread),
        };
    }

    /// Takes in what was listed. A process that is another by now, or none, is told nothing of.
    fn take_disks(&mut self, at: Instant2) {
        let Some(lister) = &self.lister else { return };
        let listed: Vec<Listed> = lister.answers.try_iter().collect();
        for Listed { of, disks, at: listed_at, certain } in listed {
            self.listing.answer(at.boot_ns);
            let Some(vm) = self.registry.of_tgid_mut(of.tgid) else { continue };
            if vm.fixed.incarnation == of.incarnation {
                vm.disk.asked = false;
                if certain && !vm.exiting {
                    let listed = disks.is_ok();
                    vm.changed |= vm.disk.take_disks(disks);
                    if let (Some(disks), Some(at), true) = (vm.disk.usage.disks.clone(), listed_at, listed) {
                        self.hold_storage(of.tgid, &disks, at);
                    }
                }
            }
        }
        self.watch_listing(at);
    }
}
