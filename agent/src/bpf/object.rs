//! Loading the kernel programs: one object, each program loaded and attached by itself.

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use aya::{
    Btf as AyaBtf, Ebpf, EbpfLoader,
    maps::Array,
    programs::{BtfTracePoint, CgroupSkb, Iter, Program as AyaProgram, RawTracePoint, TracePoint},
};

use kvmeter_common::{exit, name::Rule, thread::cause};

use super::{
    btf::Btf,
    group_counters,
    maps::MapError,
    offsets,
    pin::{self, PinError, Pins},
    plan::{self, State, Status, Unwanted},
    programs::{Hook, Program},
    records,
};

/// Where a kernel describes its own types.
pub const KERNEL_BTF: &str = "/sys/kernel/btf/vmlinux";

pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/kvmeter-ebpf"));

/// Why the kernel side cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No BTF file.
    #[error("the kernel's type information {path} cannot be read (a kernel with CONFIG_DEBUG_INFO_BTF=y has it)")]
    NoBtf {
        /// The path tried.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A BTF file we cannot parse.
    #[error("the kernel's type information is of no use")]
    BadBtf(#[from] super::btf::BtfError),
    /// As above, told by aya.
    #[error("the kernel's type information is of no use to the loader")]
    AyaBtf(#[source] Box<aya::BtfError>),
    /// Maps or relocations failed; mostly a missing capability.
    #[error("the kernel refused the BPF maps (needs CAP_BPF and CAP_PERFMON, or root)")]
    Refused(#[source] Box<aya::EbpfError>),
    /// A map is missing or cannot be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A map cannot be filled.
    #[error("map {0} cannot be prepared")]
    Prepare(&'static str, #[source] aya::maps::MapError),
    /// Tables that an earlier agent pinned cannot be gone on with, or new ones cannot be pinned.
    #[error("pinned tables cannot be used")]
    Pins(#[from] PinError),
    /// The CPUs to sample on are not known.
    #[error("the list of online CPUs {0} cannot be read")]
    Cpus(String, #[source] std::io::Error),
    /// A program without which CPU cannot be accounted did not attach.
    #[error("{0}")]
    Insufficient(String),
}

/// What kind of thing keeps the kernel side from running, to advise by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The configuration.
    Off,
    /// The kernel's type information is missing or of no use.
    TypeInformation,
    /// The kernel refused maps or programs.
    Refused,
}

impl LoadError {
    /// Which kind this is.
    #[must_use]
    pub fn obstacle(&self) -> Obstacle {
        match self {
            Self::NoBtf { .. } | Self::BadBtf(_) | Self::AyaBtf(_) => Obstacle::TypeInformation,
            _ => Obstacle::Refused,
        }
    }
}

/// Sizes of the maps, decided by configuration and by the host.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Thread slots.
    pub threads: u32,
    /// VM slots.
    pub vms: u32,
    /// `kernel.pid_max`: thread ids stay below it.
    pub pid_max: u32,
    /// Bytes of the ring buffer of wake-ups, a power of two and whole pages.
    pub wake_bytes: u32,
}

impl Sizes {
    /// Elements of the thread-id table.
    #[must_use]
    pub fn tid_words(self) -> u32 {
        kvmeter_common::index::word(self.pid_max) + 1
    }

    /// Elements of each map that has other than its own number.
    pub(super) fn entries(self) -> [(&'static str, u32); 12] {
        let claims = self.vms.saturating_mul(u32::try_from(cause::OFFENDERS).unwrap_or(u32::MAX));
        let of_vms = ["VMS", "VM_ARGS", "FREE_VMS", "VM_OF_TGID", "ADOPT", "SIGNALS"].map(|name| (name, self.vms));
        let [vms, args, free_vms, tgids, adopt, signals] = of_vms;
        let [threads, vcpus, free_threads] = ["THREADS", "VCPUS", "FREE_THREADS"].map(|name| (name, self.threads));
        let (tids, claims, wakes) = (("TIDS", self.tid_words()), ("CLAIMS", claims), ("WAKES", self.wake_bytes));
        [tids, threads, vcpus, claims, free_threads, vms, args, free_vms, tgids, adopt, signals, wakes]
    }
}

/// What the kernel side is set up with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Sizes of its maps.
    pub sizes: Sizes,
    /// Names that tell a thread's role or a VMM's family.
    pub rules: Vec<Rule>,
    /// The class of each exit, by [`exit::index`].
    pub exit_classes: [u8; exit::TABLE],
    /// What the records of the tracepoints in [`records::FIELDS`] look like here.
    pub formats: records::Formats,
    /// Programs that the configuration switches off.
    pub unwanted: Vec<Unwanted>,
    /// Where programs and tables are pinned, and the ledger they count for; without it they end with the agent.
    pub pins: Option<PinPlace>,
    /// Whether its log lines are wanted.
    pub log: bool,
}

/// Where pins lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PinPlace {
    /// The configured directory.
    pub dir: PathBuf,
    /// The ledger's id: no agent goes on with what was counted for another.
    pub ledger: String,
}

/// A loaded object.
pub struct Loaded {
    /// Its programs and maps.
    pub ebpf: Ebpf,
    /// What became of each program.
    pub statuses: Vec<Status>,
    /// Whether this kernel tells what a task reads from and writes to storage.
    pub io_told: bool,
}

/// Fields that tell it.
const IO: [&str; 4] = ["TASK_READ_BYTES", "TASK_WRITE_BYTES", "SIGNAL_READ_BYTES", "SIGNAL_WRITE_BYTES"];

/// Loads maps and every program this kernel can take. Nothing is attached yet. `group_counters`: the kernel has counters
/// for control groups. With `pins`, its tables are those, or become those.
///
/// # Errors
/// When there is no type information, or the kernel takes no map.
pub(super) fn load(
    setup: &Setup,
    btf_path: &Path,
    group_counters: bool,
    pins: Option<&mut Pins>,
) -> Result<Loaded, LoadError> {
    let bytes = std::fs::read(btf_path).map_err(|source| LoadError::NoBtf { path: btf_path.to_owned(), source })?;
    let mut places = offsets::resolve(&Btf::parse(&bytes)?);
    records::resolve(&mut places, &setup.formats);
    let btf = AyaBtf::parse(&bytes, aya::Endianness::default()).map_err(|e| LoadError::AyaBtf(Box::new(e)))?;
    let globals: Vec<(&str, u32)> =
        places.iter().map(|(name, place)| (*name, place.as_ref().copied().unwrap_or(u32::MAX))).collect();
    let log_level: u8 = if setup.log { 0xff } else { 0 };
    let generation = pins.as_deref().map_or(0, Pins::generation);
    let mut loader = EbpfLoader::new();
    loader.btf(Some(&btf)).override_global("GENERATION", &generation, true);
    for (name, entries) in setup.sizes.entries() {
        loader.map_max_entries(name, entries);
    }
    for (name, path) in pins.as_deref().into_iter().flat_map(Pins::tables) {
        loader.map_pin_path(name, path);
    }
    for (name, place) in &globals {
        loader.override_global(name, place, true);
    }
    loader.override_global(aya_log::LEVEL, &log_level, false);
    let (object, unwanted) = fitting(setup, group_counters);
    let mut ebpf = loader.load(&offsets::put_in(&object, &places)).map_err(|e| LoadError::Refused(Box::new(e)))?;
    fill(&mut ebpf, setup)?;
    if let Some(pins) = pins {
        if !pins.found() {
            pin::set_current(&mut ebpf, generation)?;
        }
        pins.join(&mut ebpf)?;
    }
    let statuses = plan::plan(&places, &unwanted)
        .into_iter()
        .map(|(program, verdict)| {
            let state = match verdict {
                Err(reason) => State::Refused(reason),
                Ok(()) => match load_one(&mut ebpf, program, &btf) {
                    Ok(()) => State::Attached,
                    Err(reason) => State::Failed(reason),
                },
            };
            Status::of(program, state)
        })
        .collect();
    let io_told = IO.iter().all(|field| matches!(places.get(field), Some(Ok(_))));
    Ok(Loaded { ebpf, statuses, io_told })
}

/// The object whose maps this kernel has, and the programs that are not to be loaded from it.
fn fitting(setup: &Setup, group_counters: bool) -> (Cow<'static, [u8]>, Vec<Unwanted>) {
    let mut unwanted = setup.unwanted.clone();
    let replaced = if group_counters { None } else { group_counters::replaced(OBJECT) };
    let Some(replaced) = replaced else { return (Cow::Borrowed(OBJECT), unwanted) };
    unwanted.extend(group_counters::unwanted());
    (Cow::Owned(replaced), unwanted)
}

/// Fills the tables that the programs only read. They stay with the object: its programs are not loaded yet.
fn fill(ebpf: &mut Ebpf, setup: &Setup) -> Result<(), LoadError> {
    let rules: Vec<_> = setup.rules.iter().copied().map(RuleValue).collect();
    fill_one(ebpf, "RULES", &rules)?;
    fill_one(ebpf, "EXIT_CLASSES", &[setup.exit_classes])
}

fn fill_one<T: aya::Pod>(ebpf: &mut Ebpf, name: &'static str, values: &[T]) -> Result<(), LoadError> {
    let map = ebpf.map_mut(name).ok_or(MapError::NotThere(name))?;
    let mut array: Array<_, T> = Array::try_from(map).map_err(|_| MapError::NotThere(name))?;
    for (number, value) in (0u32..array.len()).zip(values) {
        array.set(number, value, 0).map_err(|e| LoadError::Prepare(name, e))?;
    }
    Ok(())
}

/// A rule as aya copies it into a map.
#[repr(transparent)]
#[derive(Clone, Copy)]
struct RuleValue(Rule);

// SAFETY: integers only, no padding (asserted beside the type), any bits are valid.
unsafe impl aya::Pod for RuleValue {}

/// One line that tells an error and what is behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    // The verifier's log can be long; its last lines say what is wrong.
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    match lines.len() {
        0..=6 => lines.join(" | "),
        n => format!("{} | … | {}", lines[0], lines[n - 4..].join(" | ")),
    }
}

fn load_one(ebpf: &mut Ebpf, program: &Program, btf: &AyaBtf) -> Result<(), String> {
    let found = ebpf.program_mut(program.name).ok_or_else(|| "it is not in the object".to_owned())?;
    let loaded = match (program.hook, found) {
        (Hook::BtfTracepoint(hook), AyaProgram::BtfTracePoint(p)) => BtfTracePoint::load(p, hook, btf),
        (Hook::RawTracepoint(_) | Hook::OnRequest, AyaProgram::RawTracePoint(p)) => RawTracePoint::load(p),
        (Hook::Tracepoint(..), AyaProgram::TracePoint(p)) => TracePoint::load(p),
        (Hook::TaskWalk, AyaProgram::Iter(p)) => Iter::load(p, "task", btf),
        (Hook::Cgroup(_), AyaProgram::CgroupSkb(p)) => CgroupSkb::load(p),
        _ => return Err("it is of another type in the object".to_owned()),
    };
    loaded.map_err(|e| chain(&e))
}
