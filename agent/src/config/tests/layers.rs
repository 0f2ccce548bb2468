//! The laws of file, environment and flags laid over one another.

use std::fs;
use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;

use crate::config::key::{KEYS, Kind};
use crate::config::{Config, DEFAULT_PATH, Overrides, Problems};
use crate::units::Bytes;

fn load(toml: &str, env: &[(&str, &str)], overrides: Overrides) -> Result<Config, Problems> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("k.toml");
    fs::write(&file, toml).unwrap();
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::load(Some(&file), env, overrides).map(|(config, _)| config)
}

#[test]
fn flag_goes_before_environment_before_file_before_default() {
    let file = "listen = \"127.0.0.1:1\"\nsocket = \"/file\"\ndata_dir = \"/file\"\n[ledger]\nheartbeat = \"11s\"";
    let env = [("KVMETER_LISTEN", "127.0.0.1:2"), ("KVMETER_SOCKET", "/env"), ("KVMETER_LEDGER__HEARTBEAT", "22s")];
    let flags = Overrides { listen: Some("127.0.0.1:3".into()), ..Overrides::default() };
    let config = load(file, &env, flags).unwrap();
    assert_eq!(config.listen, Some("127.0.0.1:3".parse().unwrap()));
    assert_eq!(config.socket, Path::new("/env"));
    assert_eq!(config.data_dir, Path::new("/file"));
    assert_eq!(config.ledger.heartbeat, Duration::from_secs(22));
    assert_eq!(config.metrics.linger, Duration::from_secs(120));
}

#[test]
fn a_flag_may_be_a_relative_path_and_a_bad_one_is_named() {
    let flags = Overrides { data_dir: Some("d".into()), ..Overrides::default() };
    assert!(load("", &[], flags).unwrap().data_dir.is_absolute());
    let flags = Overrides { listen: Some("nowhere".into()), ..Overrides::default() };
    assert!(load("", &[], flags).unwrap_err().to_string().contains("flag --listen: listen = \"nowhere\""));
}

#[test]
fn the_environment_reaches_every_kind_of_value() {
    let config = load(
        "",
        &[
            ("KVMETER_BPF__MAX_VMS", "7"),
            ("KVMETER_METRICS__HISTOGRAMS", "true"),
            ("KVMETER_LEDGER__READERS", "a, b"),
            ("KVMETER_LEDGER__MAX_FILE", "1048576"),
            ("KVMETER_LISTEN", ""),
            ("KVMETER_LOG", "debug"),
            ("PATH", "/bin"),
        ],
        Overrides::default(),
    )
    .unwrap();
    assert_eq!((config.bpf.max_vms, config.metrics.histograms, config.listen), (7, true, None));
    assert_eq!((config.ledger.readers, config.ledger.max_file), (vec!["a".into(), "b".into()], Bytes::mib(1)));
}

#[test]
fn unknown_variables_with_our_prefix_are_problems() {
    let env = [("KVMETER_LEDGER_HEARTBEAT", "5s"), ("KVMETER_BPF__MAX_VMS", "many"), ("KVMETER_HOOKS", "x")];
    let said = load("", &env, Overrides::default()).unwrap_err().to_string();
    assert!(said.contains("KVMETER_LEDGER_HEARTBEAT: unknown variable; did you mean KVMETER_LEDGER__HEARTBEAT?"));
    assert!(
        said.contains("environment KVMETER_BPF__MAX_VMS: bpf.max_vms = \"many\": must be a whole number"),
        "{said}"
    );
    assert!(said.contains("KVMETER_HOOKS: unknown variable"));
}

#[test]
fn a_missing_default_file_means_defaults_and_a_missing_named_one_is_an_error() {
    if !Path::new(DEFAULT_PATH).exists() {
        assert_eq!(Config::load(None, std::iter::empty(), Overrides::default()).unwrap().0, Config::default());
    }
    let named = Config::load(Some(Path::new("/nonexistent/k.toml")), std::iter::empty(), Overrides::default());
    assert!(named.unwrap_err().to_string().contains("/nonexistent/k.toml: cannot read the configuration"));
    assert!(Config::load(Some(Path::new("/")), std::iter::empty(), Overrides::default()).is_err());
}

proptest! {
    #[test]
    fn no_environment_panics(name in "KVMETER_[A-Z_]{0,80}", key in 0..KEYS.len(), value in "\\PC{0,40}") {
        let known = format!("KVMETER_{}", KEYS[key].path.replace('.', "__").to_uppercase());
        let _ = load("", &[(&name, &value), (&known, &value)], Overrides::default());
        prop_assert!(KEYS[key].kind != Kind::Table || load("", &[(&known, &value)], Overrides::default()).is_err());
    }
}
