//! The kernel programs with those to compare them with, loaded side by side: attach, detach, run, and what each run took.
//!
//! Places of fields, sizes and slots come from the agent's own code, so what is measured is what the agent runs. Time a
//! run is the kernel's own count (`BPF_ENABLE_STATS`), which reads a clock before and after each run of each program.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData};
use aya::programs::iter::IterLinkId;
use aya::programs::raw_trace_point::RawTracePointLinkId;
use aya::programs::tp_btf::BtfTracePointLinkId;
use aya::programs::trace_point::TracePointLinkId;
use aya::programs::{Program, RawTracePointRunOptions, TestRun as _};
use aya::sys::{Stats, enable_stats};
use aya::{Btf, Ebpf, EbpfLoader, Endianness};
use kvmeter::bpf::object::{KERNEL_BTF, Sizes};
use kvmeter::bpf::slots::Slots;
use kvmeter::bpf::{btf, offsets};
use kvmeter_common::limits;

/// The variable that names the object `cargo xtask bench` has built.
pub const OBJECT: &str = "KVMETER_BENCH_OBJECT";

/// The tracepoint whose record stands for that of an exit.
const RECORD: (&str, &str) = ("raw_syscalls", "sys_exit");

/// Where a program is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// A tracepoint with typed arguments.
    Typed(&'static str),
    /// A tracepoint with raw arguments.
    Raw(&'static str),
    /// A tracepoint's record, `raw_syscalls:sys_exit`'s.
    Record,
    /// Nowhere: it is run on this CPU on request.
    Request(u32),
    /// A walk over all tasks.
    Walk,
}

/// A program, and where to put it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Its name in the object.
    pub name: &'static str,
    /// Its hook.
    pub hook: Hook,
}

/// A program that is attached, until it is detached.
#[derive(Debug)]
pub enum Link {
    /// To a typed tracepoint.
    Typed(BtfTracePointLinkId),
    /// To a raw one.
    Raw(RawTracePointLinkId),
    /// To a record.
    Record(TracePointLinkId),
    /// It runs on request.
    None,
}

/// Runs of a program so far, and what they took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Runs {
    /// How many.
    pub count: u64,
    /// All together.
    pub ns: u64,
}

impl Runs {
    /// Nanoseconds a run since an earlier reading.
    #[must_use]
    pub fn mean_since(self, before: Self) -> Option<f64> {
        let count = self.count.checked_sub(before.count).filter(|count| *count > 0)?;
        Some(self.ns.saturating_sub(before.ns) as f64 / count as f64)
    }
}

/// The loaded object.
pub struct Object {
    ebpf: Ebpf,
    btf: Btf,
    /// The agent's own view of its tables.
    pub slots: Slots,
    adopt: HashMap<MapData, u32, u32>,
    loaded: Vec<&'static str>,
    _stats: Option<OwnedFd>,
}

impl Object {
    /// Loads the maps; programs are loaded when they are first used. With `stats`, the kernel times each run.
    pub fn load(stats: bool) -> Result<Self> {
        let path = std::env::var_os(OBJECT).with_context(|| format!("{OBJECT} is not set: run `cargo xtask bench`"))?;
        let code = std::fs::read(&path).with_context(|| format!("cannot read {}", Path::new(&path).display()))?;
        let types = std::fs::read(KERNEL_BTF).with_context(|| format!("cannot read {KERNEL_BTF}"))?;
        let places = offsets::resolve(&btf::Btf::parse(&types)?);
        let mut globals: Vec<_> =
            places.iter().map(|(name, place)| (*name, place.as_ref().copied().unwrap_or(u32::MAX))).collect();
        // The two words of the record's first field stand for reason and numbering.
        globals.extend([("KVM_EXIT_REASON", 8), ("KVM_EXIT_ISA", 12)]);
        let btf = Btf::parse(&types, Endianness::default())?;
        let pid_max = std::fs::read_to_string("/proc/sys/kernel/pid_max")?.trim().parse()?;
        let sizes = Sizes { threads: limits::THREADS, vms: limits::VMS, pid_max, wake_bytes: limits::WAKE_BYTES };
        let quiet = 0_u8;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).map_max_entries("TIDS", sizes.tid_words());
        for (name, place) in &globals {
            loader.override_global(name, place, true);
        }
        loader.override_global(aya_log::LEVEL, &quiet, false);
        let mut ebpf = loader.load(&offsets::put_in(&code, &places)).context("the kernel refused the maps")?;
        let slots = Slots::new(&mut ebpf, sizes)?;
        let adopt = HashMap::try_from(map(&mut ebpf, "ADOPT")?)?;
        let stats = if stats { Some(enable_stats(Stats::RunTime)?) } else { None };
        Ok(Self { ebpf, btf, slots, adopt, loaded: Vec::new(), _stats: stats })
    }

    fn program(&mut self, name: &str) -> Result<&mut Program> {
        self.ebpf.program_mut(name).with_context(|| format!("the object has no program {name}"))
    }

    /// Loads a program, once.
    pub fn prepare(&mut self, placed: Placed) -> Result<()> {
        if self.loaded.contains(&placed.name) {
            return Ok(());
        }
        let btf = &self.btf;
        let program = self.ebpf.program_mut(placed.name);
        let program = program.with_context(|| format!("the object has no program {}", placed.name))?;
        match (placed.hook, program) {
            (Hook::Typed(hook), Program::BtfTracePoint(program)) => program.load(hook, btf),
            (Hook::Raw(_) | Hook::Request(_), Program::RawTracePoint(program)) => program.load(),
            (Hook::Record, Program::TracePoint(program)) => program.load(),
            (Hook::Walk, Program::Iter(program)) => program.load("task", btf),
            (hook, _) => bail!("{} does not fit {hook:?}", placed.name),
        }
        .with_context(|| format!("the kernel refused {}", placed.name))?;
        self.loaded.push(placed.name);
        Ok(())
    }

    /// Attaches a program, behind those that are there.
    pub fn attach(&mut self, placed: Placed) -> Result<Link> {
        self.prepare(placed)?;
        match (placed.hook, self.program(placed.name)?) {
            (Hook::Typed(_), Program::BtfTracePoint(program)) => Ok(Link::Typed(program.attach()?)),
            (Hook::Raw(hook), Program::RawTracePoint(program)) => Ok(Link::Raw(program.attach(hook)?)),
            (Hook::Record, Program::TracePoint(program)) => Ok(Link::Record(program.attach(RECORD.0, RECORD.1)?)),
            _on_request => Ok(Link::None),
        }
    }

    /// Detaches it again.
    pub fn detach(&mut self, placed: Placed, link: Link) -> Result<()> {
        match (link, self.program(placed.name)?) {
            (Link::Typed(link), Program::BtfTracePoint(program)) => program.detach(link)?,
            (Link::Raw(link), Program::RawTracePoint(program)) => program.detach(link)?,
            (Link::Record(link), Program::TracePoint(program)) => program.detach(link)?,
            _on_request => {}
        }
        Ok(())
    }

    /// Runs a program that runs on request.
    pub fn request(&mut self, placed: Placed) -> Result<()> {
        match (placed.hook, self.program(placed.name)?) {
            (Hook::Request(cpu), Program::RawTracePoint(program)) => {
                let mut options = RawTracePointRunOptions::new();
                options.cpu = Some(cpu);
                program.test_run(options)?;
            }
            (Hook::Walk, Program::Iter(program)) => {
                let link: IterLinkId = program.attach()?;
                let mut walk = program.take_link(link)?.into_file()?;
                while walk.read(&mut [0; 64])? > 0 {}
            }
            (hook, _) => bail!("{} is not run on request but by {hook:?}", placed.name),
        }
        Ok(())
    }

    /// What a program's runs took so far.
    pub fn runs(&mut self, name: &str) -> Result<Runs> {
        let info = match self.program(name)? {
            Program::BtfTracePoint(program) => program.info()?,
            Program::RawTracePoint(program) => program.info()?,
            Program::Iter(program) => program.info()?,
            Program::TracePoint(program) => program.info()?,
            _other => bail!("{name} is of a kind that is not measured"),
        };
        Ok(Runs { count: info.run_count(), ns: u64::try_from(info.run_time().as_nanos())? })
    }

    /// Makes VMs of these processes, all their threads tracked, as the agent does with those it finds.
    pub fn adopt(&mut self, tgids: &[u32]) -> Result<()> {
        let walk = Placed { name: "walk_tasks", hook: Hook::Walk };
        self.prepare(walk)?;
        for tgid in tgids {
            self.adopt.insert(tgid, 1, 0)?;
        }
        self.request(walk)?;
        for tgid in tgids {
            // One that has ended meanwhile is not there any more.
            drop(self.adopt.remove(tgid));
        }
        Ok(())
    }

    /// An array of the object, taken out of it.
    pub fn array<T: aya::Pod>(&mut self, name: &'static str) -> Result<Array<MapData, T>> {
        Ok(Array::try_from(map(&mut self.ebpf, name)?)?)
    }
}

fn map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map> {
    ebpf.take_map(name).with_context(|| format!("the object has no map {name}"))
}
