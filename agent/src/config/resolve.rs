//! Raw table → [`Config`]: every bound and every rule between keys stands here.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::key::{KEYS, Support};
use super::problem::{Origin, Problem, Problems, Warning};
use super::raw::{Entry, Table, Value};
use super::resolved::{
    Annotations, Bpf, BpfMode, Config, Discovery, History, Http, Inventory, Ledger, Log, LogFormat, LogLevel, Memory,
    Metrics, Recorder,
};
use super::take::Taker;
use crate::units::Bytes;

/// The longest path of a Unix socket: `sun_path` without its NUL.
const MAX_SOCKET_PATH: usize = 107;
/// The longest path of anything else, with room for names below it.
const MAX_PATH: usize = 3072;
/// Readers of a ledger whose acknowledgements are kept.
const MAX_READERS: usize = 16;

/// User ids that may annotate.
const MAX_UIDS: usize = 64;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);
/// 365.25 days, as humantime has it.
const YEAR: Duration = Duration::from_secs(31_557_600);

/// Resolves the table; `problems` are those found while reading it.
pub(super) fn resolve(table: Table, problems: Vec<Problem>) -> Result<(Config, Vec<Warning>), Problems> {
    let mut taker = Taker { table, problems };
    unsupported(&mut taker);
    let pins = taker.table.entries.get("bpf.pin_dir").map(|entry| (entry.value.shown(), entry.origin.clone()));
    let default = Config::default();
    let sample_interval = taker.duration("sample_interval", default.sample_interval, 100 * MILLISECOND, MINUTE);
    let history = history(&mut taker, sample_interval, &default.history);
    let config = Config {
        listen: taker.listen("listen", default.listen),
        web_config: optional_path(&mut taker, "web_config", "/etc/kvmeter/web.yml"),
        socket: taker.path("socket", &default.socket, MAX_SOCKET_PATH),
        data_dir: taker.path("data_dir", &default.data_dir, MAX_PATH),
        sample_interval,
        log: log(&mut taker, &default.log),
        annotations: Annotations { uids: taker.numbers("annotations.uids", &default.annotations.uids, MAX_UIDS) },
        bpf: bpf(&mut taker, &default.bpf),
        discovery: Discovery {
            scan_interval: taker.duration("discovery.scan_interval", default.discovery.scan_interval, SECOND, HOUR),
        },
        history,
        ledger: ledger(&mut taker, &default.ledger),
        http: Http { max_connections: taker.number("http.max_connections", default.http.max_connections, 8, 1 << 16) },
        inventory: inventory(&mut taker),
        memory: memory(&mut taker, &default.memory),
        metrics: metrics(&mut taker, &default.metrics),
        network: super::network::network(&mut taker),
        workload: super::workload::workload(&mut taker, &default.workload),
        pools: super::storage::pools(&mut taker),
        hooks: super::hooks::hooks(&mut taker),
    };
    between_keys(&mut taker, &config);
    let warnings = without_effect(&config, pins).into_iter().collect();
    if taker.problems.is_empty() { Ok((config, warnings)) } else { Err(Problems::new(taker.problems, warnings)) }
}

fn log(taker: &mut Taker, default: &Log) -> Log {
    let levels = [LogLevel::Error, LogLevel::Warn, LogLevel::Info, LogLevel::Debug, LogLevel::Trace];
    Log {
        format: taker.word("log.format", default.format, &[("text", LogFormat::Text), ("json", LogFormat::Json)]),
        level: taker.word("log.level", default.level, &levels.map(|level| (level.as_str(), level))),
    }
}

fn bpf(taker: &mut Taker, default: &Bpf) -> Bpf {
    Bpf {
        enabled: taker.word("bpf.enabled", default.enabled, &[("auto", BpfMode::Auto), ("off", BpfMode::Off)]),
        pin_dir: taker.path_or_off("bpf.pin_dir", default.pin_dir.as_deref(), MAX_PATH),
        exit_reasons: taker.flag("bpf.exit_reasons", default.exit_reasons),
        max_threads: taker.number("bpf.max_threads", default.max_threads, 64, 1 << 20),
        max_vms: taker.number("bpf.max_vms", default.max_vms, 1, 1 << 16),
        wake_bytes: taker.number("bpf.wake_bytes", default.wake_bytes, 1 << 12, 1 << 24),
    }
}

fn history(taker: &mut Taker, sample_interval: Duration, default: &History) -> History {
    let interval = taker.duration("history.interval", default.interval, SECOND, HOUR);
    let save_interval = taker.duration("history.save_interval", default.save_interval, Duration::ZERO, DAY);
    if !save_interval.is_zero() && save_interval < SECOND {
        taker.conflict("history.save_interval", "must be 0s, for memory alone, or 1s at least".to_owned());
    }
    History {
        save_interval,
        // Slow sampling alone is no contradiction: the default follows it.
        interval: if taker.is_set("history.interval") { interval } else { interval.max(sample_interval) },
        samples: taker.number("history.samples", default.samples, 0, 1_000_000),
        max_memory: taker.size("history.max_memory", default.max_memory, Bytes::mib(1), Bytes::gib(1024)),
        keep_stopped: taker.duration("history.keep_stopped", default.keep_stopped, Duration::ZERO, 30 * DAY),
    }
}

fn ledger(taker: &mut Taker, default: &Ledger) -> Ledger {
    // A heartbeat's id is its slot's Unix second, hence the least of one second.
    let recorders = [("file", Recorder::File), ("stderr", Recorder::Stderr), ("discard", Recorder::Discard)];
    Ledger {
        recorder: taker.word("ledger.recorder", default.recorder, &recorders),
        heartbeat: taker.duration("ledger.heartbeat", default.heartbeat, SECOND, HOUR),
        max_file: taker.size("ledger.max_file", default.max_file, Bytes::kib(64), Bytes::gib(16)),
        max_file_age: taker.duration("ledger.max_file_age", default.max_file_age, MINUTE, 10 * YEAR),
        retain: taker.bound_duration("ledger.retain", YEAR, HOUR, 100 * YEAR),
        max_total: taker.bound_size("ledger.max_total", Bytes::gib(16), Bytes::kib(128), Bytes::gib(1 << 14)),
        max_unread: taker.bound_size("ledger.max_unread", Bytes::gib(32), Bytes::kib(128), Bytes::gib(1 << 14)),
        min_free: taker.size("ledger.min_free", default.min_free, Bytes::mib(1), Bytes::gib(1 << 10)),
        readers: taker.names("ledger.readers", MAX_READERS),
    }
}

fn inventory(taker: &mut Taker) -> Inventory {
    Inventory { path: optional_path(taker, "inventory.path", "/etc/kvmeter/inventory.toml") }
}

/// A path; `""` is none.
fn optional_path(taker: &mut Taker, key: &str, like: &str) -> Option<PathBuf> {
    let entry = taker.table.entries.get(key);
    if entry.is_none_or(|entry| entry.value == Value::Text(String::new())) {
        return None;
    }
    Some(taker.path(key, Path::new(like), MAX_PATH))
}

/// A reading walks every page of a VM, so the least distance is a second; 0 is none at all.
fn memory(taker: &mut Taker, default: &Memory) -> Memory {
    let every = taker.duration("memory.pss_interval", default.pss_interval, Duration::ZERO, DAY);
    if !every.is_zero() && every < SECOND {
        taker.conflict("memory.pss_interval", "must be 0s, for none, or 1s at least".to_owned());
    }
    Memory { pss_interval: every }
}

fn metrics(taker: &mut Taker, default: &Metrics) -> Metrics {
    Metrics {
        linger: taker.duration("metrics.linger", default.linger, Duration::ZERO, DAY),
        histograms: taker.flag("metrics.histograms", default.histograms),
        per_vcpu: taker.flag("metrics.per_vcpu", default.per_vcpu),
        statsd: taker.listen("metrics.statsd", default.statsd),
        otlp: taker.collector("metrics.otlp"),
    }
}

/// Rules that need more than one key; one that is wrong by itself is not compared.
fn between_keys(taker: &mut Taker, config: &Config) {
    let sample = config.sample_interval;
    for (key, interval) in
        [("history.interval", config.history.interval), ("ledger.heartbeat", config.ledger.heartbeat)]
    {
        if interval < sample && taker.sound(&[key, "sample_interval"]) {
            let sample = humantime::format_duration(sample);
            taker.conflict(key, format!("must not be shorter than sample_interval ({sample})"));
        }
    }
    let (vms, threads) = (config.bpf.max_vms, config.bpf.max_threads);
    if vms > threads && taker.sound(&["bpf.max_vms", "bpf.max_threads"]) {
        let culprit = if taker.is_set("bpf.max_vms") { "bpf.max_vms" } else { "bpf.max_threads" };
        taker.conflict(culprit, format!("bpf.max_vms ({vms}) must not exceed bpf.max_threads ({threads})"));
    }
}

/// A directory for pins is asked for, and nothing will be pinned in it.
fn without_effect(config: &Config, pins: Option<(String, Origin)>) -> Option<Warning> {
    let (value, origin) = pins.filter(|_| config.bpf.pin_dir.is_some() && config.ledger.recorder != Recorder::File)?;
    let text = "has no effect: nothing outlives the agent but with ledger.recorder = \"file\"".to_owned();
    Some(Problem { key: Some("bpf.pin_dir".to_owned()), value: Some(value), origin, text })
}

/// Keys whose feature this program was built without are problems.
fn unsupported(taker: &mut Taker) {
    for key in KEYS {
        let Some(Entry { value, origin }) = taker.table.entries.get(key.path) else {
            continue;
        };
        let said = |text: &str| Problem {
            key: Some(key.path.to_owned()),
            value: Some(value.shown()),
            origin: origin.clone(),
            text: text.to_owned(),
        };
        match key.support {
            Support::Built => {}
            _ if asks_for_nothing(value) => {}
            Support::Feature(feature) => {
                taker.problems.push(said(&format!(
                    "takes a kvmeter built with the cargo feature \"{feature}\", which this one is not"
                )));
            }
        }
    }
    // Told of once; what else may be wrong with it does not matter here.
    let is_built =
        |path: &&'static str| !KEYS.iter().any(|k| k.path == *path && matches!(k.support, Support::Feature(_)));
    taker.table.entries.retain(|path, _| is_built(path));
}

/// `false`, `[]` and `"off"` ask for a feature to be off, which it is.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => !flag,
        Value::Text(text) => text == "off",
        Value::List(items) => items.is_empty(),
        _ => false,
    }
}
