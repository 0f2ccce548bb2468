//! What a new configuration changes in a running agent (SIGHUP): which keys take effect now, which need a restart.

use super::key;
use super::{Config, Metrics};

/// The keys that differ between two configurations, by their full paths.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReloadDiff {
    /// Taken over by the running agent.
    pub applied: Vec<&'static str>,
    /// Without effect until the agent is restarted.
    pub needs_restart: Vec<&'static str>,
}

impl Config {
    /// What changes when a running agent goes from `old` to `new`.
    #[must_use]
    pub fn reload_diff(old: &Self, new: &Self) -> ReloadDiff {
        let (applied, needs_restart) =
            changed(old, new).into_iter().partition(|path| key::find(path).is_some_and(|key| key.reloadable));
        ReloadDiff { applied, needs_restart }
    }

    /// `self` with the values of `new` that a running agent can take over; the rest stays as it is.
    #[must_use]
    pub fn with_reloadable(&self, new: &Self) -> Self {
        let mut next = self.clone();
        next.sample_interval = new.sample_interval;
        next.log.level = new.log.level;
        next.discovery = new.discovery.clone();
        next.history.interval = new.history.interval;
        next.history.keep_stopped = new.history.keep_stopped;
        next.ledger.heartbeat = new.ledger.heartbeat;
        next.inventory = new.inventory.clone();
        next.memory = new.memory.clone();
        let metrics = Metrics { statsd: self.metrics.statsd, otlp: self.metrics.otlp.clone(), ..new.metrics.clone() };
        next.metrics = metrics;
        next.network = new.network.clone();
        next.hooks = new.hooks.clone();
        next
    }
}

fn changed(old: &Config, new: &Config) -> Vec<&'static str> {
    [
        ("listen", old.listen != new.listen),
        ("web_config", old.web_config != new.web_config),
        ("socket", old.socket != new.socket),
        ("data_dir", old.data_dir != new.data_dir),
        ("sample_interval", old.sample_interval != new.sample_interval),
        ("log.format", old.log.format != new.log.format),
        ("log.level", old.log.level != new.log.level),
        ("annotations.uids", old.annotations != new.annotations),
        ("bpf.enabled", old.bpf.enabled != new.bpf.enabled),
        ("bpf.pin_dir", old.bpf.pin_dir != new.bpf.pin_dir),
        ("bpf.exit_reasons", old.bpf.exit_reasons != new.bpf.exit_reasons),
        ("bpf.max_threads", old.bpf.max_threads != new.bpf.max_threads),
        ("bpf.max_vms", old.bpf.max_vms != new.bpf.max_vms),
        ("bpf.wake_bytes", old.bpf.wake_bytes != new.bpf.wake_bytes),
        ("discovery.scan_interval", old.discovery.scan_interval != new.discovery.scan_interval),
        ("history.interval", old.history.interval != new.history.interval),
        ("history.samples", old.history.samples != new.history.samples),
        ("history.max_memory", old.history.max_memory != new.history.max_memory),
        ("history.keep_stopped", old.history.keep_stopped != new.history.keep_stopped),
        ("history.save_interval", old.history.save_interval != new.history.save_interval),
        ("ledger.recorder", old.ledger.recorder != new.ledger.recorder),
        ("ledger.heartbeat", old.ledger.heartbeat != new.ledger.heartbeat),
        ("ledger.max_file", old.ledger.max_file != new.ledger.max_file),
        ("ledger.max_file_age", old.ledger.max_file_age != new.ledger.max_file_age),
        ("ledger.max_total", old.ledger.max_total != new.ledger.max_total),
        ("ledger.max_unread", old.ledger.max_unread != new.ledger.max_unread),
        ("ledger.min_free", old.ledger.min_free != new.ledger.min_free),
        ("ledger.retain", old.ledger.retain != new.ledger.retain),
        ("ledger.readers", old.ledger.readers != new.ledger.readers),
        ("http.max_connections", old.http != new.http),
        ("inventory.path", old.inventory != new.inventory),
        ("memory.pss_interval", old.memory.pss_interval != new.memory.pss_interval),
        ("metrics.linger", old.metrics.linger != new.metrics.linger),
        ("metrics.histograms", old.metrics.histograms != new.metrics.histograms),
        ("metrics.per_vcpu", old.metrics.per_vcpu != new.metrics.per_vcpu),
        ("storage.pools", old.pools != new.pools),
        ("metrics.statsd", old.metrics.statsd != new.metrics.statsd),
        ("metrics.otlp", old.metrics.otlp != new.metrics.otlp),
        ("network.classes", old.network.classes != new.network.classes),
        ("workload.label", old.workload.label != new.workload.label),
        ("workload.requests", old.workload.requests != new.workload.requests),
        ("workload.latency", old.workload.latency != new.workload.latency),
        ("workload.timeout", old.workload.timeout != new.workload.timeout),
        ("hooks", old.hooks != new.hooks),
    ]
    .into_iter()
    .filter_map(|(path, differs)| differs.then_some(path))
    .collect()
}
