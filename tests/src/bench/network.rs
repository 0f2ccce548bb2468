//! The programs at a VM's interface against empty ones on the same hook of the same tap, with and without classes.
//!
//! All see the same packets; each round loads and attaches all of them anew and in another order, so that all lie in many
//! places of memory, which makes a difference of some nanoseconds, and each is as often the first on the hook. What attaching
//! takes is told as well.

use std::fs::File;
use std::io::Write as _;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::programs::tc::{SchedClassifier, SchedClassifierLinkId, TcAttachOptions};
use aya::programs::{LinkOrder, TcAttachType, loaded_programs};
use aya::sys::{Stats, enable_stats};
use aya::{Ebpf, EbpfLoader};
use kvmeter::account::class::{ClassTable, Numbers};
use kvmeter::bpf::network::{Held, Hook, NetworkPrograms};
use kvmeter::config::Config;
use kvmeter::host::{NetNs, link::LinkRequests};

use super::contest::{Effort, Load};
use super::load::{Worker, busy_cpu};
use super::object::{OBJECT, Runs};
use super::spread::{Order, Spread};
use super::table::{Goal, Row, Section};
use super::{Options, RESOLUTION_NS};
use crate::net::frame::Frame;
use crate::net::link::Link;
use crate::net::netns::Namespace;
use crate::net::sender::Sender;
use crate::net::tap::{self, TapOptions};
use crate::process::process_cpu_ns;

/// What counting a packet may cost beyond an empty program.
const GOAL_NS: f64 = 5.0;
/// What attaching to an interface may take of a CPU.
const ATTACH_GOAL_MS: f64 = 2.0;
const TAP: &str = "bench0";
const EMPTY: [&str; 2] = ["empty_tc", "control_tc"];

/// Four classes as a provider has them: a large prefix, nested ones, IPv6.
const CLASSES: &str = "[network.classes]\n\
    internal = [\"10.0.0.0/8\", \"172.16.0.0/12\", \"192.168.0.0/16\", \"fd00::/8\"]\n\
    peering = [\"198.51.100.0/24\", \"203.0.113.0/24\", \"2001:db8:1::/48\"]\n\
    storage = [\"10.20.0.0/16\", \"fd00:20::/32\"]\n\
    backup = [\"10.20.30.0/24\"]\n";

/// Which packets, and whether they are looked up.
struct Case {
    what: &'static str,
    transmit: bool,
    classes: bool,
    far: &'static str,
    goal: Option<f64>,
}

const CASES: [Case; 6] = [
    Case { what: "out of the guest", transmit: true, classes: false, far: "10.20.30.1", goal: Some(GOAL_NS) },
    Case { what: "into the guest", transmit: false, classes: false, far: "10.20.30.1", goal: Some(GOAL_NS) },
    Case { what: "out, looked up: 1 step", transmit: true, classes: true, far: "8.8.8.8", goal: None },
    Case { what: "out, looked up: 3 steps (a /24)", transmit: true, classes: true, far: "10.20.30.1", goal: None },
    Case { what: "into, looked up: 3 steps (a /24)", transmit: false, classes: true, far: "10.20.30.1", goal: None },
    Case {
        what: "out, looked up: 6 steps (an IPv6 /48)",
        transmit: true,
        classes: true,
        far: "2001:db8:1::1",
        goal: None,
    },
];

/// The table.
pub fn section(options: &Options) -> Result<Section> {
    let effort = options.effort();
    let mut bench = Bench::new()?;
    let mut rows = Vec::new();
    for case in &CASES {
        rows.extend(bench.case(case, effort)?);
    }
    rows.extend(bench.attaching());
    let method = format!(
        "Nanoseconds a packet over an empty program on the same hook of the same tap, as the kernel times runs \
         (`BPF_ENABLE_STATS`): the agent's instance and two empty programs at the same time, all of them loaded and attached \
         anew and in another order for each round of {} ms; less the mean of both empty ones, whose difference is the \
         `control`. Classes: 4 names with 10 prefixes.",
        effort.slice.as_millis()
    );
    Ok(Section { title: "Network programs", method, rows })
}

struct Bench {
    namespace: Namespace,
    netns: NetNs,
    link: Link,
    queue: File,
    empty: Ebpf,
    order: Order,
    _stats: OwnedFd,
    /// Milliseconds on the wall and of a CPU, of attaching and of detaching.
    attached: [Vec<f64>; 2],
    detached: [Vec<f64>; 2],
}

impl Bench {
    fn new() -> Result<Self> {
        let path = std::env::var_os(OBJECT).with_context(|| format!("{OBJECT} is not set: run `cargo xtask bench`"))?;
        let code = std::fs::read(&path).with_context(|| format!("cannot read {}", Path::new(&path).display()))?;
        let empty = EbpfLoader::new().load(&code).context("the kernel refused the maps")?;
        let namespace = Namespace::new()?;
        let netns = NetNs::from_fd(namespace.as_fd().try_clone_to_owned()?)?;
        // As QEMU opens it: the guest takes large packets.
        let mut queues = namespace.inside(|| tap::open(TAP, TapOptions { vnet: true, ..TapOptions::default() }))?;
        let link = Link::find(&namespace, TAP)?;
        link.set_up()?;
        let queue = queues.pop().context("a queue")?;
        let (attached, detached) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
        let stats = enable_stats(Stats::RunTime)?;
        Ok(Self { namespace, netns, link, queue, empty, order: Order::new(7), _stats: stats, attached, detached })
    }

    fn case(&mut self, case: &Case, effort: Effort) -> Result<[Row; 2]> {
        let mut programs = NetworkPrograms::load()?;
        if programs.hook() == Hook::Clsact {
            let why = "this kernel has no tcx, and filters of clsact run in the order of their priorities";
            return Ok([Row::missing(case.what, why), Row::missing("control", why)]);
        }
        if case.classes {
            let (config, _) = Config::from_toml(Path::new("bench.toml"), CLASSES)?;
            let numbers = Numbers::default().after(&config.network.classes)?;
            programs.set_classes(ClassTable::new(&config.network.classes, &numbers)?.as_ref())?;
        }
        let mut load = self.load(case)?;
        let (mut costs, mut noise, mut absolute) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..effort.rounds {
            let [ours, empty, control] = self.round(case, &mut programs, &mut load, effort.slice)?;
            let both = f64::midpoint(empty, control);
            costs.push(ours - both);
            noise.push(control - empty);
            absolute.push(both);
        }
        let own = Spread::of(&absolute)
            .map_or_else(String::new, |one| format!("the empty program itself {:.1} ns", one.median));
        let cost = Row::new(case.what, "ns", Spread::of(&costs));
        let control = Row::new(format!("control, {}", case.what), "ns", Spread::of(&noise)).note(own);
        Ok([
            case.goal.into_iter().fold(cost, |row, goal| row.goal(Goal::AtMost(goal))),
            control.goal(Goal::Within(RESOLUTION_NS)),
        ])
    }

    /// A thread that sends packets one way.
    fn load(&self, case: &Case) -> Result<Worker> {
        let far: IpAddr = case.far.parse()?;
        let near: IpAddr = if far.is_ipv4() { "10.0.0.1" } else { "fd00::1" }.parse()?;
        let (from, to) = if case.transmit { (near, far) } else { (far, near) };
        let frame = Frame::udp(from, to, 100);
        if case.transmit {
            let mut queue = self.queue.try_clone()?;
            let whole = [&frame.vnet[..], &frame.bytes].concat();
            return Ok(Worker::start(busy_cpu()?, true, move || drop(queue.write(&whole))));
        }
        // What the guest does not take is dropped behind the hook.
        let mut sender = Sender::new(&self.link)?;
        Ok(Worker::start(busy_cpu()?, false, move || drop(sender.send(&frame, 1))))
    }

    /// Nanoseconds a run: the agent's program, the empty one, the control.
    fn round(
        &mut self,
        case: &Case,
        programs: &mut NetworkPrograms,
        load: &mut Worker,
        slice: Duration,
    ) -> Result<[f64; 3]> {
        let (side, name) =
            if case.transmit { (TcAttachType::Ingress, "tap_transmit") } else { (TcAttachType::Egress, "tap_receive") };
        let mut turns = [0_usize, 1, 2];
        self.order.shuffle(&mut turns);
        let (mut port, mut links) = (None, Vec::new());
        // Each goes before those that are there.
        for turn in turns {
            match turn.checked_sub(1) {
                None => {
                    // As for a VM's tap: the programs follow who holds it.
                    let held = Some(self.held()?);
                    let attach = || programs.attach_held(&self.netns, self.link.index(), false, held);
                    port = Some(timed(&mut self.attached, attach)??)
                }
                Some(empty) => links.push((empty, self.put(EMPTY[empty], side)?)),
            }
        }
        // The first packets find nothing of any program in the caches, and ours chooses an account.
        send(load, slice / 10)?;
        let (own, before) = (own_runs(name)?, [empty_runs(&mut self.empty, 0)?, empty_runs(&mut self.empty, 1)?]);
        send(load, slice)?;
        let ours = own_runs(name)?.mean_since(own).context("no packet came")?;
        let mut all = [ours, 0.0, 0.0];
        for (number, before) in before.into_iter().enumerate() {
            all[number + 1] = empty_runs(&mut self.empty, number)?.mean_since(before).context("no packet came")?;
        }
        for (number, link) in links {
            let program = classifier(&mut self.empty, EMPTY[number])?;
            program.detach(link)?;
            program.unload()?;
        }
        if let Some(port) = port {
            timed(&mut self.detached, || programs.detach(port))?;
        }
        Ok(all)
    }

    /// Who holds the tap: this process, since it opened it.
    fn held(&self) -> Result<Held> {
        let link = LinkRequests::open(&self.netns)?.indexed(self.link.index())?.context("the tap is gone")?;
        let generation = link.carrier_changes.context("no count of carrier changes")?;
        Ok(Held { generation, tgid: std::process::id() })
    }

    fn put(&mut self, name: &str, side: TcAttachType) -> Result<SchedClassifierLinkId> {
        let empty = &mut self.empty;
        self.namespace.inside(|| {
            let options = TcAttachOptions::TcxOrder(LinkOrder::first());
            let program = classifier(empty, name)?;
            program.load().with_context(|| format!("the kernel refused {name}"))?;
            Ok(program.attach_with_options(TAP, side, options)?)
        })
    }

    fn attaching(&self) -> [Row; 4] {
        let row = |what: &str, values: &[f64]| Row::new(what, "ms", Spread::of(values));
        let waits = "the kernel waits out a grace period a hook (kernel/bpf/tcx.c, `tcx_entry_sync`)";
        [
            row("attaching to an interface, CPU time", &self.attached[1]).goal(Goal::AtMost(ATTACH_GOAL_MS)),
            row("attaching to an interface, wall time", &self.attached[0]).note(waits),
            row("detaching, CPU time", &self.detached[1]),
            row("detaching, wall time", &self.detached[0]).note(waits),
        ]
    }
}

/// Lets packets come for so long.
fn send(load: &mut Worker, slice: Duration) -> Result<()> {
    load.begin()?;
    std::thread::sleep(slice);
    load.finish()
}

/// Does something, and notes the milliseconds it took on the wall and of a CPU.
fn timed<T>(notes: &mut [Vec<f64>; 2], work: impl FnOnce() -> T) -> Result<T> {
    let this = std::process::id().cast_signed();
    let (begun, cpu) = (Instant::now(), process_cpu_ns(this)?);
    let done = work();
    notes[0].push(begun.elapsed().as_secs_f64() * 1e3);
    notes[1].push((process_cpu_ns(this)? - cpu) as f64 / 1e6);
    Ok(done)
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

fn empty_runs(object: &mut Ebpf, number: usize) -> Result<Runs> {
    let info = classifier(object, EMPTY[number])?.info()?;
    Ok(Runs { count: info.run_count(), ns: u64::try_from(info.run_time().as_nanos())? })
}

/// Runs of the agent's newest program of a name: others of an agent at work may be there.
fn own_runs(name: &str) -> Result<Runs> {
    let all = loaded_programs().filter_map(Result::ok).filter(|info| info.name_as_str() == Some(name));
    let newest = all.max_by_key(|info| info.id()).with_context(|| format!("no program {name} is loaded"))?;
    Ok(Runs { count: newest.run_count(), ns: u64::try_from(newest.run_time().as_nanos())? })
}
