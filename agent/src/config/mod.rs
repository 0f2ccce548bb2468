//! The agent's configuration: flag > environment > file > default, resolved once into ready-to-use types.
//!
//! `raw` reads the layers into one table of keys, `key` lists every key that may stand there, `resolve` turns the
//! table into a [`Config`]. All problems are reported at once. A key of a later version of kvmeter is never ignored in
//! silence: it is refused, or warned about where ignoring it changes no bill. Nothing here starts or opens anything
//! but the one file.

mod hooks;
mod key;
mod network;
mod problem;
mod raw;
mod reload;
mod resolve;
mod resolved;
mod storage;
mod suggest;
mod take;
mod url;
mod workload;

use std::path::{Path, PathBuf};

pub use problem::{Origin, Problem, Problems, Warning};
pub use reload::ReloadDiff;
pub use resolved::{
    Annotations, Bpf, BpfMode, Config, Discovery, History, Hook, HookAction, Http, Ledger, Log, LogFormat, LogLevel,
    Metrics, Network, Recorder, SecretAs, Workload,
};
pub use url::{Url, UrlError};

/// The file that is read when none is named; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/kvmeter/kvmeter.toml";

/// What the command line says, which goes before everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--listen ADDR`, an address or `off`.
    pub listen: Option<String>,
    /// `--web-config FILE`; a relative one is taken from the working directory.
    pub web_config: Option<PathBuf>,
    /// `--socket PATH`; a relative one is taken from the working directory.
    pub socket: Option<PathBuf>,
    /// `--data-dir D`, likewise.
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Loads the configuration: `path` or [`DEFAULT_PATH`], under `env`, under `overrides`.
    ///
    /// A missing default file means defaults; a missing named file is an error. Of `env`, only names that begin with
    /// `KVMETER_` are looked at.
    ///
    /// # Errors
    /// [`Problems`], all that were found, each with the key, where it stands, its value and what is allowed.
    pub fn load(
        path: Option<&Path>,
        env: impl Iterator<Item = (String, String)>,
        overrides: Overrides,
    ) -> Result<(Self, Vec<Warning>), Problems> {
        let mut found = Vec::new();
        let mut table = raw::Table::default();
        let (file, required) = path.map_or((Path::new(DEFAULT_PATH), false), |path| (path, true));
        raw::read_file(&mut table, file, required, &mut found);
        raw::read_env(&mut table, env, &mut found);
        raw::read_overrides(&mut table, overrides, &mut found);
        resolve::resolve(table, found)
    }

    /// Loads the configuration from text alone, as if it stood in a file called `name`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_toml(name: &Path, text: &str) -> Result<(Self, Vec<Warning>), Problems> {
        let mut found = Vec::new();
        let mut table = raw::Table::default();
        raw::read_text(&mut table, name, text, &mut found);
        resolve::resolve(table, found)
    }

    /// The commented default configuration, as packages install it.
    #[must_use]
    pub const fn default_toml() -> &'static str {
        include_str!("../../../packaging/kvmeter.toml")
    }
}

/// The environment of this process as [`Config::load`] takes it; text that is not UTF-8 is replaced, not fatal.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |raw: std::ffi::OsString| raw.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

#[cfg(test)]
mod tests;
