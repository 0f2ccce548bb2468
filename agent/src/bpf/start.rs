//! How the kernel side starts: its tables found or made, its programs loaded, put on their hooks, and those before them
//! taken off. What cannot be gone on with is let go, so that counting begins anew rather than not at all.

use std::path::Path;

use aya::Ebpf;
use kvmeter_common::loss;

use super::{
    attach::{self, Links},
    group_counters,
    kernel::{Kernel, typed},
    maps::Mapped,
    object::{self, LoadError, Loaded, Setup, Sizes},
    pin::{PinError, Pins},
    plan::{self, State, Status},
    slots::Slots,
    sockets::Sockets,
};
use crate::{cause, clock};

impl Kernel {
    /// Loads, prepares and attaches.
    ///
    /// # Errors
    /// When CPU cannot be accounted by the kernel here, with the first reason; nothing stays attached then.
    pub fn start(setup: &Setup, btf: &Path) -> Result<Self, (LoadError, Vec<Status>)> {
        Self::start_on(setup, btf, group_counters::exist())
    }

    /// The same on a kernel that has counters for control groups, or has none.
    pub(super) fn start_on(setup: &Setup, btf: &Path, counters: bool) -> Result<Self, (LoadError, Vec<Status>)> {
        let place = setup.pins.as_ref();
        let open = || place.map(|place| Pins::open(&place.dir, &place.ledger, setup.sizes)).transpose();
        let (mut pins, mut unpinned) = match open() {
            Ok(pins) => (pins, None),
            Err(error) => (None, Some(cause::chain(&error))),
        };
        loop {
            let (pinned, found) = (pins.is_some(), pins.as_ref().is_some_and(Pins::found));
            let (error, statuses) = match Self::start_with(setup, btf, counters, pins) {
                Ok(kernel) => return Ok(Self { unpinned, ..kernel }),
                Err(failed) => failed,
            };
            if !pinned {
                return Err((error, statuses));
            }
            // What cannot be gone on with is counted in vain, and would be taken for somebody's later. It was let go.
            tracing::warn!(error = %cause::chain(&error), found, "pinned programs and tables cannot be used");
            unpinned = Some(cause::chain(&error));
            pins = if found { open().ok().flatten().map(Pins::after_others) } else { None };
        }
    }

    fn start_with(
        setup: &Setup,
        btf: &Path,
        counters: bool,
        mut pins: Option<Pins>,
    ) -> Result<Self, (LoadError, Vec<Status>)> {
        let let_go = |pins: Option<Pins>| pins.into_iter().for_each(Pins::remove);
        let loaded = object::load(setup, btf, counters, pins.as_mut());
        let Loaded { mut ebpf, mut statuses, io_told } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let_go(pins);
                return Err((error, plan::all_refused("the kernel side cannot be loaded")));
            }
        };
        let log = aya_log::EbpfLogger::init(&mut ebpf).ok();
        let found = pins.as_ref().is_some_and(Pins::found);
        let mut kernel = match Self::with_maps(ebpf, setup.sizes, log, found) {
            Ok(kernel) => kernel,
            Err(error) => {
                let_go(pins);
                return Err((error, statuses));
            }
        };
        if let Some(Err(error)) = pins.as_ref().map(|pins| pins.sweep(&mut kernel.slots)) {
            let_go(pins);
            return Err((error.into(), statuses));
        }
        kernel.links = attach::attach(&mut kernel.ebpf, &mut statuses, pins.as_ref());
        if let Some(error) = insufficient(&statuses) {
            let_go(pins);
            return Err((error, statuses));
        }
        kernel.statuses = statuses;
        kernel.slots.io_told = io_told;
        kernel.note_halts();
        match kernel.settle(pins) {
            Ok(()) => Ok(kernel),
            Err(error) => Err((error.into(), kernel.statuses)),
        }
    }

    /// The programs are on their hooks: what is pinned gets its place.
    fn settle(&mut self, pins: Option<Pins>) -> Result<(), PinError> {
        let Some(mut pins) = pins else { return Ok(()) };
        let now_ns = clock::boot_ns().unwrap_or(0);
        match pins.settle(&mut self.ebpf, &mut self.slots, now_ns) {
            Ok(()) => {
                self.pins = Some(pins);
                Ok(())
            }
            Err(error) => {
                pins.remove();
                Err(error)
            }
        }
    }

    fn with_maps(
        mut ebpf: Ebpf,
        sizes: Sizes,
        log: Option<aya_log::EbpfLogger<&'static dyn log::Log>>,
        found: bool,
    ) -> Result<Self, LoadError> {
        let stages = u32::try_from(loss::STAGES.len()).unwrap_or(u32::MAX);
        Ok(Self {
            slots: if found { Slots::found(&mut ebpf, sizes)? } else { Slots::new(&mut ebpf, sizes)? },
            losses: Mapped::new(ebpf.take_map("LOSSES"), "LOSSES", stages)?,
            adopt: typed(&mut ebpf, "ADOPT")?,
            processes: typed(&mut ebpf, "VM_OF_TGID")?,
            sockets: Sockets::new(&mut ebpf),
            wakes: typed(&mut ebpf, "WAKES")?,
            woken: Mapped::new(ebpf.take_map("WOKEN"), "WOKEN", 1)?,
            received: 0,
            log,
            cpus: aya::util::online_cpus().map_err(|(path, source)| LoadError::Cpus(path.to_owned(), source))?,
            statuses: Vec::new(),
            links: Links::default(),
            pins: None,
            unpinned: None,
            ebpf,
        })
    }
}

/// Why CPU cannot be accounted, if it cannot.
fn insufficient(statuses: &[Status]) -> Option<LoadError> {
    if plan::sufficient(statuses) {
        return None;
    }
    let broken = statuses.iter().find(|s| s.essential && s.state != State::Attached);
    let text = broken.map_or_else(String::new, |s| match &s.state {
        State::Refused(why) => format!("program {} needs what this kernel lacks: {why}", s.name),
        State::Failed(why) => format!("the kernel refused program {}: {why}", s.name),
        State::Attached | State::Silent(_) => String::new(),
    });
    Some(LoadError::Insufficient(text))
}
