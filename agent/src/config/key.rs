//! Every key that may stand in a configuration, with what this version does with it.

/// What kind of value a key takes, so that text from the environment becomes what the file would hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Text: also durations, sizes, addresses and paths.
    Text,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Bool,
    /// A list of texts; separated by commas in the environment.
    List,
    /// A table or an array of tables, which only a file can hold.
    Table,
}

/// What this version does with a key that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// Obeys it.
    Built,
    /// Built, but not into this program: refused, with the name of the cargo feature.
    Feature(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    /// The full path, tables joined by dots.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) support: Support,
    /// Whether a running agent takes a new value over on SIGHUP.
    pub(super) reloadable: bool,
}

const fn fixed(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, support: Support::Built, reloadable: false }
}

const fn live(path: &'static str, kind: Kind) -> Key {
    Key { reloadable: true, ..fixed(path, kind) }
}

/// A key that takes a cargo feature.
const fn optional(path: &'static str, kind: Kind, feature: &'static str, built: bool) -> Key {
    let support = if built { Support::Built } else { Support::Feature(feature) };
    Key { support, ..fixed(path, kind) }
}

use Kind::{Bool, Integer, List, Table, Text};

/// All keys.
pub(super) const KEYS: &[Key] = &[
    fixed("listen", Text),
    fixed("web_config", Text),
    fixed("socket", Text),
    fixed("data_dir", Text),
    live("sample_interval", Text),
    fixed("log.format", Text),
    live("log.level", Text),
    fixed("annotations.uids", List),
    fixed("bpf.enabled", Text),
    fixed("bpf.pin_dir", Text),
    fixed("bpf.exit_reasons", Bool),
    fixed("bpf.max_threads", Integer),
    fixed("bpf.max_vms", Integer),
    fixed("bpf.wake_bytes", Integer),
    live("discovery.scan_interval", Text),
    live("history.interval", Text),
    fixed("history.samples", Integer),
    fixed("history.max_memory", Text),
    live("history.keep_stopped", Text),
    fixed("history.save_interval", Text),
    fixed("ledger.recorder", Text),
    live("ledger.heartbeat", Text),
    fixed("ledger.max_file", Text),
    fixed("ledger.max_file_age", Text),
    fixed("ledger.retain", Text),
    fixed("ledger.max_total", Text),
    fixed("ledger.max_unread", Text),
    fixed("ledger.min_free", Text),
    fixed("ledger.readers", List),
    live("memory.pss_interval", Text),
    live("metrics.linger", Text),
    live("metrics.histograms", Bool),
    live("metrics.per_vcpu", Bool),
    optional("metrics.statsd", Text, "statsd", cfg!(feature = "statsd")),
    optional("metrics.otlp", Text, "otlp", cfg!(feature = "otlp")),
    live("network.classes", Table),
    fixed("http.max_connections", Integer),
    live("inventory.path", Text),
    fixed("workload.label", Text),
    fixed("workload.requests", List),
    fixed("workload.latency", List),
    fixed("workload.timeout", Text),
    live("hooks", Table),
    fixed("storage.pools", Table),
];

/// The key with this path.
pub(super) fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether `path` is a table that holds keys (`ledger`), rather than a key itself.
pub(super) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_is_a_section_and_none_occurs_twice() {
        for (at, key) in KEYS.iter().enumerate() {
            assert!(!is_section(key.path), "{}", key.path);
            assert!(KEYS.iter().skip(at + 1).all(|other| other.path != key.path), "{}", key.path);
        }
    }
}
