//! The laws of keys and values, through the public face; those of the layers stand beside them.

use std::time::Duration;

use proptest::prelude::*;

use super::key::{KEYS, Support};
use super::*;

mod hooks;
mod layers;
mod network;
mod storage;

/// A value other than the default for every key that this version resolves.
const OTHERS: &[(&str, &str)] = &[
    ("listen", "\"[::1]:1\""),
    ("web_config", "\"/x/web.yml\""),
    ("socket", "\"/x/s\""),
    ("data_dir", "\"/x\""),
    ("sample_interval", "\"2s\""),
    ("log.format", "\"json\""),
    ("log.level", "\"debug\""),
    ("annotations.uids", "[0, 107]"),
    ("bpf.enabled", "\"off\""),
    ("bpf.pin_dir", "\"/sys/fs/bpf/other\""),
    ("bpf.exit_reasons", "false"),
    ("bpf.max_threads", "65536"),
    ("bpf.max_vms", "128"),
    ("bpf.wake_bytes", "4096"),
    ("discovery.scan_interval", "\"5s\""),
    ("history.interval", "\"20s\""),
    ("history.samples", "100"),
    ("history.max_memory", "\"1GiB\""),
    ("history.keep_stopped", "\"2h\""),
    ("history.save_interval", "\"30s\""),
    ("ledger.recorder", "\"stderr\""),
    ("ledger.heartbeat", "\"30s\""),
    ("ledger.max_file", "1048576"),
    ("ledger.max_file_age", "\"1d\""),
    ("ledger.retain", "\"400d\""),
    ("ledger.max_total", "\"2GiB\""),
    ("ledger.max_unread", "\"3GiB\""),
    ("ledger.min_free", "\"1GiB\""),
    ("ledger.readers", "[\"billing\"]"),
    ("http.max_connections", "64"),
    ("inventory.path", "\"/etc/kvmeter/inventory.toml\""),
    ("memory.pss_interval", "\"5m\""),
    ("metrics.linger", "\"5m\""),
    ("metrics.histograms", "true"),
    ("metrics.per_vcpu", "true"),
    ("storage.pools", "[{ path = \"/x\", images = \"{vm_id}.img\" }]"),
    #[cfg(feature = "statsd")]
    ("metrics.statsd", "\"127.0.0.1:8125\""),
    #[cfg(feature = "otlp")]
    ("metrics.otlp", "\"http://127.0.0.1:4318/v1/metrics\""),
    ("network.classes", "{ internal = [\"10.0.0.0/8\"] }"),
    ("workload.label", "\"metrics_url\""),
    ("workload.requests", "[\"hits_total\"]"),
    ("workload.latency", "[\"hit_ms\"]"),
    ("workload.timeout", "\"5s\""),
    ("hooks", "[{ name = \"a\", command = [\"/x\"] }]"),
];

fn text(toml: &str) -> Result<(Config, Vec<Warning>), Problems> {
    Config::from_toml(Path::new("k.toml"), toml)
}

fn good(toml: &str) -> Config {
    text(toml).unwrap().0
}

fn problems(toml: &str) -> Vec<String> {
    text(toml).unwrap_err().list.iter().map(ToString::to_string).collect()
}

#[test]
fn the_default_file_is_the_default_and_raises_no_warning() {
    assert_eq!(text(Config::default_toml()).unwrap(), (Config::default(), Vec::new()));
    assert_eq!(text("").unwrap(), (Config::default(), Vec::new()));
}

#[test]
fn the_default_file_shows_every_key_that_is_built() {
    let mut shown = Config::default_toml().parse::<toml::Table>().unwrap();
    // An array of tables has no empty form that a later [[hooks]] could add to, so it stands there as a comment.
    shown.insert("hooks".to_owned(), hooks::shown_in_the_default_file());
    for key in KEYS.iter().filter(|key| key.support == Support::Built) {
        let (section, name) = key.path.split_once('.').unwrap_or(("", key.path));
        let table = if section.is_empty() { Some(&shown) } else { shown.get(section).and_then(|v| v.as_table()) };
        assert!(table.is_some_and(|table| table.contains_key(name)), "{}", key.path);
    }
}

#[test]
fn a_latency_without_a_unit_and_a_name_that_is_none_are_told() {
    assert!(problems("workload.latency = [\"took\"]")[0].contains("end in their unit, _seconds"));
    assert!(problems("workload.requests = [\"5xx\"]")[0].contains("names of metrics such as \"http_requests_total\""));
    assert_eq!(good("workload.label = \"\"").workload.label, None);
}

#[test]
fn every_resolved_key_takes_a_value_and_reload_tells_it_apart() {
    for (path, value) in OTHERS {
        let key = key::find(path).unwrap();
        let config = good(&format!("{path} = {value}"));
        assert_ne!(config, Config::default(), "{path}");
        let diff = Config::reload_diff(&Config::default(), &config);
        let (applied, restart) = if key.reloadable { (vec![*path], vec![]) } else { (vec![], vec![*path]) };
        assert_eq!((diff.applied, diff.needs_restart), (applied, restart));
        let reloaded = Config::default().with_reloadable(&config);
        assert_eq!(reloaded == config, key.reloadable, "{path}");
    }
    let untested = KEYS.iter().filter(|key| OTHERS.iter().all(|(path, _)| *path != key.path));
    assert!(untested.into_iter().all(|key| matches!(key.support, Support::Feature(_))));
}

#[test]
fn every_resolved_key_refuses_a_wrong_type_by_name_value_and_line() {
    for (path, _) in OTHERS {
        assert_eq!(problems(&format!("\n{path} = 1.5")).len(), 1, "{path}");
        let said = &problems(&format!("\n{path} = 1.5"))[0];
        assert!(said.starts_with(&format!("k.toml:2: {path} = <float>: must be ")), "{said}");
    }
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let found = problems(
        "sample_intervall = \"1s\"\n\
         data_dir = \"relative\"\n\
         [ledger]\nheartbeat = \"5ms\"\nhartbeat = 1\n\
         [metrics]\nlinger = 60\n\
         [bpf]\nmax_vms = 0\nenabled = \"on\"\n\
         [history]\nmax_memory = \"5MB\"\n",
    );
    assert_eq!(
        found,
        [
            "k.toml:1: sample_intervall = \"1s\": unknown key; did you mean \"sample_interval\"?",
            "k.toml:2: data_dir = \"relative\": must be an absolute path of at most 3072 bytes, such as \"/var/lib/kvmeter\"",
            "k.toml:4: ledger.heartbeat = \"5ms\": must be a duration from 1s to 1h, such as \"1m\"",
            "k.toml:5: ledger.hartbeat = 1: unknown key; did you mean \"ledger.heartbeat\"?",
            "k.toml:7: metrics.linger = 60: must be a duration from 0s to 1day, such as \"2m\"",
            "k.toml:9: bpf.max_vms = 0: must be a whole number from 1 to 65536",
            "k.toml:10: bpf.enabled = \"on\": must be one of \"auto\", \"off\"",
            "k.toml:12: history.max_memory = \"5MB\": must be a size from 1MiB to 1TiB, such as \"256MiB\"",
        ]
    );
}

#[test]
fn broken_syntax_is_told_with_its_line() {
    let found = problems("listen = \"off\"\n[ledger\nheartbeat = = 2\n");
    assert!(found.iter().all(|text| text.contains("not valid TOML")), "{found:?}");
    assert!(found[0].starts_with("k.toml:2: "), "{found:?}");
    assert!(problems("listen = \"off\"\nlisten = \"off\"")[0].contains("k.toml:2"));
    assert_eq!(problems("ledger = 3"), ["k.toml:1: ledger = 3: must be a table"]);
    assert!(problems("\"ledger.heartbeat\" = \"5s\"")[0].contains("did you mean \"ledger.heartbeat\""));
}

#[test]
fn what_has_no_effect_is_refused_or_warned_about_but_never_ignored() {
    let pins = "bpf.pin_dir = \"/sys/fs/bpf/x\"";
    assert_eq!(text(pins).unwrap().1, []);
    let warnings = text(&format!("{pins}\nledger.recorder = \"discard\"")).unwrap().1;
    assert!(warnings.len() == 1 && warnings[0].to_string().contains("bpf.pin_dir"), "{warnings:?}");
    assert_eq!(text("bpf.pin_dir = \"off\"\nledger.recorder = \"discard\"").unwrap().1, []);
    for key in KEYS {
        let Support::Feature(feature) = key.support else { continue };
        let found = problems(&format!("{} = \"127.0.0.1:1\"", key.path));
        assert!(found.len() == 1 && found[0].contains(&format!("cargo feature \"{feature}\"")), "{found:?}");
        assert_eq!(text(&format!("{} = \"off\"", key.path)).unwrap(), (Config::default(), Vec::new()));
    }
    assert_eq!(text("hooks = []\nledger.readers = []\nmetrics.histograms = false").unwrap().1, []);
}

#[test]
fn off_or_nothing_turns_tcp_off() {
    assert_eq!((good("listen = \"\"").listen, good("listen = \"off\"").listen), (None, None));
    assert_eq!(problems("listen = \"localhost:9973\"").len(), 1);
}

#[test]
fn intervals_that_contradict_each_other_are_a_problem_and_slow_sampling_is_not() {
    assert_eq!(good("sample_interval = \"60s\"").history.interval, Duration::from_secs(60));
    assert_eq!(problems("sample_interval = \"30s\"\nledger.heartbeat = \"10s\"").len(), 1);
    assert_eq!(problems("sample_interval = \"30s\"\nhistory.interval = \"10s\"").len(), 1);
    assert_eq!(problems("sample_interval = \"x\"\nledger.heartbeat = \"x\"").len(), 2);
    assert_eq!(problems("bpf.max_vms = 100\nbpf.max_threads = 64").len(), 1);
}

#[test]
fn readers_are_names_that_can_be_files() {
    for readers in ["[\"../x\"]", "[\".x\"]", "[\"\"]", "[\"a\", \"a\"]", "[1]", "\"a\""] {
        assert_eq!(problems(&format!("ledger.readers = {readers}")).len(), 1, "{readers}");
    }
}

#[test]
fn sockets_that_no_kernel_can_bind_are_refused() {
    assert_eq!(problems(&format!("socket = \"/{}\"", "x".repeat(107))).len(), 1);
    assert_eq!(problems("socket = \"/a\\u0000b\"").len(), 1);
}

proptest! {
    #[test]
    fn no_file_panics(toml in "\\PC{0,200}", key in 0..KEYS.len(), value in "[-0-9a-z.:\"\\[\\]{}= ,]{0,20}") {
        let _ = text(&toml);
        let _ = text(&format!("{} = {value}", KEYS[key].path));
        let _ = text(&format!("{} = \"{}\"", KEYS[key].path, value.replace('"', "")));
    }
}

#[test]
fn who_may_annotate_is_a_list_of_whole_numbers() {
    assert_eq!(good("annotations.uids = [0, 107]").annotations.uids, [0, 107]);
    assert_eq!(good("annotations.uids = []").annotations.uids, [0; 0]);
    for bad in ["[-1]", "[4294967296]", "[\"root\"]", "[0.5]", "0", "[[0]]"] {
        assert_eq!(problems(&format!("annotations.uids = {bad}")).len(), 1, "{bad}");
    }
}
