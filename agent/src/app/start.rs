//! Start-up, in the order that fails early: sockets, ledger, kernel side, engine.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use nix::sys::{
    eventfd::{EfdFlags, EventFd},
    resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
};
use tokio::{
    net::TcpListener,
    sync::{oneshot, watch},
};

use super::{App, Source, history, ledger, metrics, settings};
use crate::{
    bpf::{
        Hooks, Kernel, Obstacle, Setup, Status as ProgramStatus,
        object::{self, PinPlace},
        pin,
        plan::{self, Unwanted},
        records,
    },
    cause,
    clock::{self, Instant2},
    config::{BpfMode, Config, Recorder},
    engine::{Annotate, Control, Counting, Engine, EngineError, Parts, Refused, Remote},
    expose::{
        Status,
        annotation::{Annotations, NotTaken, Taken},
        http, serve,
        status::{self, Feature, Unavailable},
        stream::Streams,
        web::Web,
    },
    heap, hooks,
    host::{HostFacts, UeventSocket, tracefs},
    ledger::Recovered,
    lifecycle::Bus,
    logging::LevelHandle,
    vm::{exit_class, thread},
    workload::Asker,
};

/// How long the engine may take to take a statement: it answers between two turns.
const ANNOTATE: std::time::Duration = std::time::Duration::from_secs(5);

/// What a failed kernel side leaves.
pub struct NoKernel {
    /// The one sentence.
    pub why: String,
    /// What kind of thing it is.
    pub obstacle: Obstacle,
    /// What became of each program.
    pub programs: Vec<ProgramStatus>,
}

impl NoKernel {
    /// As the status shows it.
    #[must_use]
    pub fn told(&self) -> Unavailable<'_> {
        Unavailable { why: &self.why, obstacle: self.obstacle, programs: &self.programs }
    }
}

/// Lifts the limits that maps (before 5.11) and kept-open files run into. What is refused shows later, where it hurts.
fn lift_limits() {
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Starts the kernel side as the configuration wants it. With a `ledger`'s id its programs and tables are pinned for that
/// one, and an earlier agent's are gone on with.
///
/// # Errors
/// The one sentence why it cannot be, with the programs' states.
pub fn start_kernel(config: &Config, facts: &HostFacts, ledger: Option<&str>) -> Result<Kernel, NoKernel> {
    if config.bpf.enabled == BpfMode::Off {
        let why = "bpf.enabled is \"off\" in the configuration".to_owned();
        return Err(NoKernel { programs: plan::all_refused(&why), why, obstacle: Obstacle::Off });
    }
    lift_limits();
    let sizes = object::Sizes {
        threads: config.bpf.max_threads,
        vms: config.bpf.max_vms,
        pid_max: facts.pid_max.unwrap_or(4_194_304),
        wake_bytes: config.bpf.wake_bytes.next_power_of_two(),
    };
    let off = Unwanted { program: "kvm_exit_reason", why: "bpf.exit_reasons is false in the configuration" };
    let setup = Setup {
        sizes,
        rules: thread::RULES.to_vec(),
        exit_classes: exit_class::TABLE,
        formats: records::events().into_iter().map(|event| (event, tracefs::format(Path::new("/"), event))).collect(),
        pins: config.bpf.pin_dir.clone().zip(ledger).map(|(dir, id)| PinPlace { dir, ledger: id.to_owned() }),
        unwanted: (!config.bpf.exit_reasons).then_some(off).into_iter().collect(),
        log: config.log.level >= crate::config::LogLevel::Warn,
    };
    let started = Kernel::start(&setup, Path::new(object::KERNEL_BTF)).map(|mut kernel| {
        if !facts.kvm_backends.is_empty() && !plan::fires(&facts.kvm_backends) {
            let names = facts.kvm_backends.join(", ");
            let why = format!(
                "attached, but KVM's back end here ({names}) is not known to fire it, as kvm_amd and kvm_intel do"
            );
            Hooks::ALL.into_iter().for_each(|hooks| kernel.mark_silent(hooks, Some(&why)));
        }
        kernel
    });
    started.map_err(|(error, programs)| NoKernel { why: cause::chain(&error), obstacle: error.obstacle(), programs })
}

/// The TCP listener, where one is wanted.
async fn listen(config: &Config) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = config.listen else { return Ok(None) };
    Ok(Some(http::listen_tcp(address).await?))
}

/// Starts everything.
pub(super) async fn start(source: Source, config: Config, level: LevelHandle) -> anyhow::Result<App> {
    let root = Path::new("/");
    lift_limits();
    let facts = HostFacts::gather(root);
    facts.errors.iter().for_each(|error| tracing::debug!("{error}"));
    let boot_id = facts.boot_id.clone().context("/proc/sys/kernel/random/boot_id cannot be read")?;
    let web = Arc::new(Web::open(config.web_config.as_deref())?);
    let tcp = listen(&config).await?;
    let unix = http::listen_unix(&config.socket)?;
    let left = SocketFile(Some(config.socket.clone()));
    let now = clock::now().context("the clock cannot be read")?;
    let waker = Arc::new(EventFd::from_flags(EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC).context("no eventfd")?);
    let bus = Bus::default();
    let bounds = bounds(&config);
    let counts = bounds.counts();
    let (metrics, own) = metrics::start(&config, &bus, counts.clone())?;
    let (writer, recovered) =
        ledger::open(&config, &facts, &boot_id, now, ledger::on_commit(Arc::clone(&waker), bus.clone()))?;
    let earlier = history::read(&config).context("the history cannot be read")?;
    let ledger = writer.handle();
    let sequence_before = ledger.stats().last_seq;
    let streams = Streams::new(&bus, ledger::reread(&config), sequence_before);
    // Attached before the first line is written.
    let hooks = hooks::Hooks::start(&config.hooks, &facts, &bus, &metrics);
    // Only a file is there for the next agent, and only of a file can what was counted be told whether it is told.
    let kept = (config.ledger.recorder == Recorder::File).then_some(recovered.ledger_id.as_str());
    let kernel = start_kernel(&config, &facts, kept);
    if kernel.is_err() {
        let_go(&config, kept);
    }
    let uevents = UeventSocket::open().map_err(|error| error.to_string());
    let network_pins = kernel.as_ref().ok().and_then(Kernel::network_pins);
    let counting = Counting::start(root, &config.network.classes, network_pins.as_deref());
    // The kernel's types and our own programs are read whole for it.
    heap::trim();
    let network = counting.as_ref().map(|counting| counting.hook).map_err(String::as_str);
    let more = [Some(status::network(network)), pins(&kernel, now)];
    let status = tell_status(&facts, &kernel, uevents.as_ref().map(drop).map_err(String::as_str), more);
    let (history, saver) = history::store(&config.history, earlier);
    let parts = Parts {
        root: root.to_owned(),
        facts,
        boot_id,
        settings: settings(&config),
        kernel: kernel.ok(),
        counting: counting.ok(),
        uevents: uevents.ok(),
        pools: config.pools.clone(),
        ledger: ledger.clone(),
        waker,
        inventory: config.inventory.path.clone(),
        annotations: ledger::annotations(&config),
        history: Arc::clone(&history),
        workloads: Asker::start(config.workload.clone()),
        metrics,
        bus,
    };
    let (engine, remote, snapshots) = Engine::new(parts, now);
    let engine = launch(engine, recovered)?;
    let (sample_ns, sample_seen) = watch::channel(settings(&config).sample_ns);
    let (history_ns, history_seen) = watch::channel(settings(&config).history_ns);
    let views = serve::views(snapshots.clone(), Arc::clone(&status), own, sample_seen, history_seen, history, streams);
    serve::serve(views, annotations(&config, remote.clone()), &counts, bounds, Arc::clone(&web), tcp, unix);
    left.keep();
    Ok(App {
        source,
        config,
        level,
        remote,
        engine,
        writer,
        ledger,
        snapshots,
        sample_ns,
        history_ns,
        status,
        hooks,
        web,
        saver,
        sequence_before,
    })
}

/// How many connections are taken.
fn bounds(config: &Config) -> serve::Bounds {
    let connections = usize::try_from(config.http.max_connections).unwrap_or(usize::MAX);
    // What cannot be asked is as low as it is anywhere.
    serve::Bounds { connections, files: getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft) }
}

/// Starts the engine's thread; what it ends with comes back.
fn launch(engine: Engine, recovered: Recovered) -> anyhow::Result<oneshot::Receiver<Result<(), EngineError>>> {
    let (done, ended) = oneshot::channel();
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || done.send(engine.run(recovered)))
        .context("the sample loop cannot be started")?;
    Ok(ended)
}

/// The socket's file, removed again if the start fails after it was made.
struct SocketFile(Option<PathBuf>);

impl SocketFile {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Some(path) = &self.0 {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Who may annotate, and the way to the engine.
fn annotations(config: &Config, remote: Remote) -> Annotations {
    let mut uids = config.annotations.uids.clone();
    uids.push(nix::unistd::geteuid().as_raw());
    let take = move |request, by| -> Taken {
        let (answer, taken) = oneshot::channel();
        let told = remote.tell(Control::Annotate(Box::new(Annotate { request, by, answer })));
        Box::pin(async move {
            let answered = if told { tokio::time::timeout(ANNOTATE, taken).await } else { Ok(taken.await) };
            match answered {
                Ok(Ok(Ok(()))) => Ok(()),
                Ok(Ok(Err(refused @ Refused::NoProcess(_)))) => Err(NotTaken::Unknown(refused.to_string())),
                Ok(Ok(Err(refused))) => Err(NotTaken::Busy(refused.to_string())),
                Ok(Err(_)) | Err(_) => Err(NotTaken::Busy("the sample loop does not answer".to_owned())),
            }
        })
    };
    Annotations { uids: uids.into(), take: Arc::new(take) }
}

/// An earlier agent's programs are no use to one that reads `/proc` alone: what they count would be taken for news later.
fn let_go(config: &Config, ledger: Option<&str>) {
    let Some((dir, ledger)) = config.bpf.pin_dir.as_deref().zip(ledger) else { return };
    match pin::release_ledger(dir, ledger) {
        Ok(0) => {}
        Ok(pins) => tracing::warn!(pins, dir = %dir.display(), "an earlier agent's kernel programs were let go"),
        Err(error) => tracing::warn!(%error, dir = %dir.display(), "an earlier agent's pins cannot be removed"),
    }
}

/// Whether counting goes on without an agent.
fn pins(kernel: &Result<Kernel, NoKernel>, now: Instant2) -> Option<Feature> {
    let kernel = kernel.as_ref().ok()?;
    Some(status::pins(&kernel.pinning(), |since_ns| clock::rfc3339(now.unix_of(since_ns))))
}

/// What this host can measure; what it cannot is told in the log.
fn tell_status(
    facts: &HostFacts,
    kernel: &Result<Kernel, NoKernel>,
    uevents: Result<(), &str>,
    more: [Option<Feature>; 2],
) -> Arc<Status> {
    let mut status = Status::new(facts, kernel.as_ref().map(Kernel::statuses).map_err(NoKernel::told), uevents);
    status.features.extend(more.into_iter().flatten());
    for feature in status.features.iter().filter(|feature| !feature.available) {
        tracing::warn!(feature = %feature.name, why = %feature.why, advice = %feature.advice, "not available");
    }
    Arc::new(status)
}
