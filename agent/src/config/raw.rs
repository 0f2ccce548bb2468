//! The layers as they are written: file, environment and flags, laid over one another into one table of known keys.
//!
//! Nothing is interpreted here; unknown names and broken syntax are reported here and nowhere else.

mod env;
mod file;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::Overrides;
use super::problem::{Origin, Problem};

pub(super) use env::read_env;
pub(super) use file::{read_file, read_text};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<String>),
    /// A list of whole numbers, not empty.
    Numbers(Vec<i64>),
    /// Named values, each with its place.
    Table(BTreeMap<String, Entry>),
    /// Several tables, `[[so]]`.
    Tables(Vec<BTreeMap<String, Entry>>),
    /// Any other TOML value: the name of its type.
    Other(&'static str),
}

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) value: Value,
    pub(super) origin: Origin,
}

/// The winning entry of each known key, by its path.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<&'static str, Entry>,
}

/// Lays the flags over the table.
pub(super) fn read_overrides(table: &mut Table, overrides: Overrides, problems: &mut Vec<Problem>) {
    let Overrides { listen, web_config, socket, data_dir } = overrides;
    let mut set = |path, flag, text| {
        table.entries.insert(path, Entry { value: Value::Text(text), origin: Origin::Flag(flag) });
    };
    if let Some(listen) = listen {
        set("listen", "--listen", listen);
    }
    for (path, flag, given) in [
        ("web_config", "--web-config", web_config),
        ("socket", "--socket", socket),
        ("data_dir", "--data-dir", data_dir),
    ] {
        let Some(given) = given else { continue };
        match absolute(&given) {
            Ok(text) => set(path, flag, text),
            Err(text) => problems.push(Problem {
                key: Some(path.to_owned()),
                value: Some(format!("{given:?}")),
                origin: Origin::Flag(flag),
                text,
            }),
        }
    }
}

impl Value {
    /// The value as it would stand in a file, shortened.
    pub(super) fn shown(&self) -> String {
        let text = match self {
            Self::Text(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Bool(flag) => flag.to_string(),
            Self::List(items) => format!("{items:?}"),
            Self::Numbers(items) => format!("{items:?}"),
            Self::Table(_) => "<table>".to_owned(),
            Self::Tables(tables) => format!("<{} tables>", tables.len()),
            Self::Other(kind) => format!("<{kind}>"),
        };
        if text.chars().count() > 100 { text.chars().take(99).chain(['…']).collect() } else { text }
    }
}

fn absolute(path: &Path) -> Result<String, String> {
    let path: PathBuf = std::path::absolute(path).map_err(|error| error.to_string())?;
    path.into_os_string().into_string().map_err(|_| "must be valid UTF-8".to_owned())
}
