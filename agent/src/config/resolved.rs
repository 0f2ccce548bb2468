//! The configuration in the types it is used in.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

mod default;
mod hook;

pub use hook::{Hook, HookAction, SecretAs};

use super::url::Url;
use crate::account::class::Classes;
use crate::storage::Pool;
use crate::units::Bytes;

/// Everything that can be configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where HTTP is served over TCP; `None` serves the Unix socket only.
    pub listen: Option<SocketAddr>,
    /// The file that says who may ask over TCP; `None` asks nothing of anybody.
    pub web_config: Option<PathBuf>,
    /// The Unix socket that the commands talk to.
    pub socket: PathBuf,
    /// Where the ledger is kept.
    pub data_dir: PathBuf,
    /// How often readings are taken.
    pub sample_interval: Duration,
    /// The agent's own log.
    pub log: Log,
    /// Who may state something of VMs.
    pub annotations: Annotations,
    /// The kernel programs.
    pub bpf: Bpf,
    /// How VMs are found that no event told of.
    pub discovery: Discovery,
    /// The in-memory time series.
    pub history: History,
    /// The metering ledger.
    pub ledger: Ledger,
    /// The HTTP server.
    pub http: Http,
    /// How memory is read.
    pub memory: Memory,
    /// Whose VMs are.
    pub inventory: Inventory,
    /// The Prometheus metrics.
    pub metrics: Metrics,
    /// What is told of network traffic.
    pub network: Network,
    /// What is asked of workloads.
    pub workload: Workload,
    /// Directories with images and snapshots.
    pub pools: Vec<Pool>,
    /// What is run when something happens.
    pub hooks: Vec<Hook>,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How lines look.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// `log.format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `log.level`
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Somebody must act.
    Error,
    /// Somebody should look.
    Warn,
    /// What an operator wants to read afterwards.
    Info,
    /// For developers.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The word in the configuration, which is a filter directive of `tracing` too.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

/// `[annotations]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Annotations {
    /// User ids that may, beside the agent's own.
    pub uids: Vec<u32>,
}

/// `[bpf]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bpf {
    /// Whether kernel programs are loaded.
    pub enabled: BpfMode,
    /// Where they and their maps are pinned, on a bpffs, so that they outlive the agent; `None` pins nothing.
    pub pin_dir: Option<PathBuf>,
    /// Whether guest exits are counted by reason, by a dearer kind of kernel program than the others are.
    pub exit_reasons: bool,
    /// Threads of VMs that the maps have room for.
    pub max_threads: u32,
    /// VMs that the maps have room for.
    pub max_vms: u32,
    /// Bytes of the buffer of wake-ups; made a power of two.
    pub wake_bytes: u32,
}

/// `bpf.enabled`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfMode {
    /// Load what this kernel takes; fall back to `/proc` reading by reading.
    Auto,
    /// Load nothing; `/proc` alone.
    Off,
}

/// `[discovery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// How often all processes are looked through.
    pub scan_interval: Duration,
}

/// `[history]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Distance of two samples.
    pub interval: Duration,
    /// Samples kept a VM.
    pub samples: u32,
    /// Memory for all of them.
    pub max_memory: Bytes,
    /// How long a stopped VM's samples are kept.
    pub keep_stopped: Duration,
    /// How often they are saved to a disk; never if 0.
    pub save_interval: Duration,
}

/// `ledger.recorder`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorder {
    /// The ledger's file.
    File,
    /// Lines on standard error.
    Stderr,
    /// Nothing is kept.
    Discard,
}

/// `[ledger]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ledger {
    /// Where lines go.
    pub recorder: Recorder,
    /// Distance of two usage lines of a VM.
    pub heartbeat: Duration,
    /// The size a file is rotated at.
    pub max_file: Bytes,
    /// The age of its first line at which it is rotated as well.
    pub max_file_age: Duration,
    /// How long rotated files are kept; `None` keeps them for ever.
    pub retain: Option<Duration>,
    /// Size of all files beyond which the oldest goes; `None` has no bound.
    pub max_total: Option<Bytes>,
    /// Size of all files beyond which it goes although a reader has not acknowledged it; `None` waits for ever.
    pub max_unread: Option<Bytes>,
    /// Free space below which an alarm is raised.
    pub min_free: Bytes,
    /// Readers whose acknowledgement retention waits for.
    pub readers: Vec<String>,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Connections over TCP at the same time, streams of events apart.
    pub max_connections: u32,
}

/// `[inventory]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The file that says which tenant and labels a VM has; `None` without one.
    pub path: Option<PathBuf>,
}

/// `[memory]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Distance of two readings of a VM's proportional set size; zero takes none.
    pub pss_interval: Duration,
}

/// `[metrics]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// How long a stopped VM is still shown.
    pub linger: Duration,
    /// Whether each VM has histograms.
    pub histograms: bool,
    /// Whether each vCPU has its own series.
    pub per_vcpu: bool,
    /// A StatsD server that is told what the agent counts about its own work.
    pub statsd: Option<SocketAddr>,
    /// An OTLP collector that is told the same.
    pub otlp: Option<Url>,
}

/// `[network]`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Classes by the far end's address, next to those that are always there.
    pub classes: Classes,
}

/// `[workload]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// The label that holds the address; unset asks nobody.
    pub label: Option<String>,
    /// Counters of requests, the first that is there is taken.
    pub requests: Vec<String>,
    /// Histograms or summaries of latency, likewise.
    pub latency: Vec<String>,
    /// How long an answer may take.
    pub timeout: Duration,
}

impl Default for Workload {
    /// The names are those of Prometheus' client libraries, of OpenTelemetry's semantic conventions and of Micrometer.
    fn default() -> Self {
        let latency =
            ["http_request_duration_seconds", "http_server_request_duration_seconds", "http_server_requests_seconds"];
        let counts = latency.iter().map(|name| format!("{name}_count"));
        Self {
            label: None,
            requests: ["http_requests_total".to_owned()].into_iter().chain(counts).collect(),
            latency: latency.map(str::to_owned).to_vec(),
            timeout: Duration::from_secs(2),
        }
    }
}
