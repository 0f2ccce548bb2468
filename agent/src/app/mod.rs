//! Puts the parts together: facts, ledger, kernel side, engine, views; and takes them down in order.

mod history;
mod ledger;
mod metrics;
mod start;

pub use ledger::METERING;
pub use start::{NoKernel, start_kernel};

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{oneshot, watch},
};

use crate::{
    account::{Snapshot, snapshot::Detail},
    config::{self, Config, Overrides},
    engine::{Control, EngineError, Remote, Settings},
    expose::{Status, web::Web},
    heap,
    history::Saver,
    hooks::Hooks,
    host::HostFacts,
    ledger::{Writer, WriterHandle},
    logging::{self, LevelHandle},
};

/// How long the last sample may take when the agent ends; it takes milliseconds.
const LAST_SAMPLE: Duration = Duration::from_millis(500);
/// How long hooks may then go on with what waits and what is under way.
const HOOKS: Duration = Duration::from_secs(2);
/// How long the history may take to be saved; a thousand VMs' takes a fraction of a second.
const SAVE: Duration = Duration::from_secs(5);
/// How long the ledger may take to drain.
const DRAIN: Duration = Duration::from_millis(400);

/// Where the configuration comes from, to read it again on SIGHUP.
#[derive(Clone, Default)]
pub struct Source {
    /// The file named on the command line.
    pub path: Option<PathBuf>,
    /// Flags.
    pub overrides: Overrides,
}

impl Source {
    /// Reads it.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(&self) -> Result<(Config, Vec<config::Warning>), config::Problems> {
        Config::load(self.path.as_deref(), config::environment(), self.overrides.clone())
    }
}

/// A running agent.
struct App {
    source: Source,
    config: Config,
    level: LevelHandle,
    remote: Remote,
    engine: oneshot::Receiver<Result<(), EngineError>>,
    writer: Writer,
    ledger: WriterHandle,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    sample_ns: watch::Sender<u64>,
    history_ns: watch::Sender<u64>,
    status: Arc<Status>,
    hooks: Hooks,
    web: Arc<Web>,
    saver: Option<Saver>,
    /// Number of the last line before this agent's.
    sequence_before: u64,
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// Whatever keeps it from starting or going on.
pub fn run(source: Source) -> anyhow::Result<()> {
    heap::share();
    let (config, warnings) = source.load()?;
    let level = logging::start(config.log.format, config.log.level).context("logging cannot be started")?;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("the runtime cannot be started")?;
    let outcome = runtime.block_on(async {
        // Before anything can be seen of it: whoever sees it may send one, and would kill what does not listen.
        let signals = Signals::listen()?;
        let mut app = start::start(source, config, level).await?;
        let outcome = app.attend(signals).await;
        app.stop().await?;
        outcome
    });
    // Connections still open are not waited for.
    runtime.shutdown_background();
    outcome
}

/// Saves the history a last time.
async fn save(saver: Option<Saver>) {
    let Some(saver) = saver else { return };
    if tokio::time::timeout(SAVE, tokio::task::spawn_blocking(|| saver.finish())).await.is_err() {
        tracing::warn!("the history was not saved within {SAVE:?}: what came after the last time is lost");
    }
}

/// The parts of the configuration that the engine takes.
fn settings(config: &Config) -> Settings {
    let ns = |length: Duration| u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    Settings {
        sample_ns: ns(config.sample_interval),
        history_ns: ns(config.history.interval),
        keep_ns: ns(config.history.keep_stopped),
        heartbeat_ns: ns(config.ledger.heartbeat),
        linger_ns: ns(config.metrics.linger),
        scan_ns: ns(config.discovery.scan_interval),
        pss_ns: ns(config.memory.pss_interval),
        detail: Detail { histograms: config.metrics.histograms, per_vcpu: config.metrics.per_vcpu },
    }
}

/// What it is told by signals; those that come while it starts are kept.
struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let to = |kind| signal(kind).context("signals cannot be received");
        Ok(Self {
            term: to(SignalKind::terminate())?,
            int: to(SignalKind::interrupt())?,
            hup: to(SignalKind::hangup())?,
        })
    }
}

impl App {
    /// Waits for signals; returns when it is time to end.
    async fn attend(&mut self, mut signals: Signals) -> anyhow::Result<()> {
        let mut told = false;
        let first_seq = self.sequence_before;
        loop {
            tokio::select! {
                _ = signals.term.recv() => return Ok(()),
                _ = signals.int.recv() => return Ok(()),
                _ = signals.hup.recv() => self.reload(),
                ended = &mut self.engine => {
                    return match ended {
                        Ok(Ok(())) => Ok(()),
                        Ok(Err(error)) => Err(error).context("the sample loop ended"),
                        Err(_) => Err(anyhow::anyhow!("the sample loop died; this is a bug, please report it")),
                    };
                }
                changed = self.snapshots.changed(), if !told => {
                    // The first lines are durable, or cannot be made so.
                    let settled = {
                        let ledger = &self.snapshots.borrow_and_update().host.ledger;
                        ledger.sequence > first_seq || ledger.degraded
                    };
                    if changed.is_err() || settled {
                        told = true;
                        self.sum_up();
                    }
                }
            }
        }
    }

    /// One line that says what works.
    fn sum_up(&self) {
        let snapshot = self.snapshots.borrow();
        let works = self.status.features.iter().filter(|f| f.available).count();
        let missing: Vec<_> = self.status.features.iter().filter(|f| !f.available).map(|f| f.name.as_str()).collect();
        tracing::info!(
            vms = snapshot.vms.len(),
            cpu_source = %self.status.cpu_source,
            features = works,
            missing = %if missing.is_empty() { "nothing".to_owned() } else { missing.join(",") },
            ledger_sequence = self.ledger.stats().last_seq,
            listen = %self.config.listen.map_or_else(|| "off".to_owned(), |a| a.to_string()),
            socket = %self.config.socket.display(),
            "kvmeter runs"
        );
    }

    /// Reads the configuration again; takes over what can be, says what cannot. A broken file changes nothing.
    fn reload(&mut self) {
        self.web.reload();
        let (new, warnings) = match self.source.load() {
            Ok(loaded) => loaded,
            Err(problems) => {
                tracing::error!("the configuration was not reloaded, the old one stays in force: {problems}");
                return;
            }
        };
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        let diff = Config::reload_diff(&self.config, &new);
        self.config = self.config.with_reloadable(&new);
        self.level.set(self.config.log.level);
        self.hooks.take_over(&self.config.hooks, &HostFacts::gather(Path::new("/")));
        let settings = settings(&self.config);
        self.sample_ns.send_replace(settings.sample_ns);
        self.history_ns.send_replace(settings.history_ns);
        let classes = diff.applied.contains(&"network.classes");
        let classes = classes.then(|| Control::Classes(self.config.network.classes.clone()));
        let inventory = diff.applied.contains(&"inventory.path");
        let inventory = inventory.then(|| Control::Inventory(self.config.inventory.path.clone()));
        if !classes
            .into_iter()
            .chain(inventory)
            .chain([Control::Settings(settings)])
            .all(|control| self.remote.tell(control))
        {
            tracing::error!("the sample loop does not answer");
        }
        tracing::info!(applied = ?diff.applied, needs_restart = ?diff.needs_restart, "configuration reloaded");
    }

    /// Last sample, `agent.down`, drained ledger, no socket left, hooks told.
    async fn stop(mut self) -> anyhow::Result<()> {
        if self.remote.tell(Control::Stop) {
            let _ = tokio::time::timeout(LAST_SAMPLE, &mut self.engine).await;
        }
        let drained = tokio::task::spawn_blocking(move || self.writer.shutdown(DRAIN)).await;
        let _ = std::fs::remove_file(&self.config.socket);
        // Behind the last line, so that who asked for it is told of it.
        tokio::join!(self.hooks.shutdown(HOOKS), save(self.saver));
        drained.context("the ledger's writer died")?.context("the ledger was not written to its end")?;
        tracing::info!("kvmeter ended in order");
        Ok(())
    }
}
