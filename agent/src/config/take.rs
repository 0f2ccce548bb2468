//! Taking single values out of the raw table: the right type, within its bounds, or a problem that says what is
//! allowed; a default if nobody set it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::{Origin, Problem};
use super::raw::{Entry, Table, Value};
use super::url::Url;
use crate::units::Bytes;

/// Takes keys out of a table and collects what is wrong with them.
pub(super) struct Taker {
    pub(super) table: Table,
    pub(super) problems: Vec<Problem>,
}

impl Taker {
    /// A duration such as `"60s"`, within bounds.
    pub(super) fn duration(&mut self, key: &str, default: Duration, min: Duration, max: Duration) -> Duration {
        let shown = humantime::format_duration;
        let allowed =
            format!("must be a duration from {} to {}, such as \"{}\"", shown(min), shown(max), shown(default));
        self.take(key, &allowed, |value| match value {
            Value::Text(text) => humantime::parse_duration(text).ok().filter(|d| (min..=max).contains(d)),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// A size such as `"256MiB"` or a number of bytes, within bounds.
    pub(super) fn size(&mut self, key: &str, default: Bytes, min: Bytes, max: Bytes) -> Bytes {
        let allowed = format!("must be a size from {min} to {max}, such as \"{default}\"");
        self.take(key, &allowed, |value| {
            let size = match value {
                Value::Text(text) => text.parse().ok(),
                Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Bytes),
                _ => None,
            };
            size.filter(|size| (min..=max).contains(size))
        })
        .unwrap_or(default)
    }

    /// A duration that is a bound; `""` or `"off"` is none, which is the default.
    pub(super) fn bound_duration(
        &mut self,
        key: &str,
        like: Duration,
        min: Duration,
        max: Duration,
    ) -> Option<Duration> {
        let shown = humantime::format_duration;
        let allowed = format!(
            "must be a duration from {} to {}, such as \"{}\", or \"off\"",
            shown(min),
            shown(max),
            shown(like)
        );
        self.take(key, &allowed, |value| match value {
            Value::Text(text) if text.is_empty() || text == "off" => Some(None),
            Value::Text(text) => humantime::parse_duration(text).ok().filter(|d| (min..=max).contains(d)).map(Some),
            _ => None,
        })
        .flatten()
    }

    /// A size that is a bound; `""` or `"off"` is none, which is the default.
    pub(super) fn bound_size(&mut self, key: &str, like: Bytes, min: Bytes, max: Bytes) -> Option<Bytes> {
        let allowed = format!("must be a size from {min} to {max}, such as \"{like}\", or \"off\"");
        self.take(key, &allowed, |value| {
            let size = match value {
                Value::Text(text) if text.is_empty() || text == "off" => return Some(None),
                Value::Text(text) => text.parse().ok(),
                Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Bytes),
                _ => None,
            };
            size.filter(|size| (min..=max).contains(size)).map(Some)
        })
        .flatten()
    }

    /// A whole number, within bounds.
    pub(super) fn number(&mut self, key: &str, default: u32, min: u32, max: u32) -> u32 {
        self.take(key, &format!("must be a whole number from {min} to {max}"), |value| match value {
            Value::Integer(number) => u32::try_from(*number).ok().filter(|number| (min..=max).contains(number)),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        self.take(key, "must be true or false", |value| match value {
            Value::Bool(flag) => Some(*flag),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn word<T: Copy>(&mut self, key: &str, default: T, words: &[(&str, T)]) -> T {
        let names: Vec<String> = words.iter().map(|(name, _)| format!("{name:?}")).collect();
        self.take(key, &format!("must be one of {}", names.join(", ")), |value| match value {
            Value::Text(text) => words.iter().find(|(name, _)| name == text).map(|(_, word)| *word),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// An absolute path of at most `max` bytes.
    pub(super) fn path(&mut self, key: &str, default: &Path, max: usize) -> PathBuf {
        let allowed = format!("must be an absolute path of at most {max} bytes, such as \"{}\"", default.display());
        self.take(key, &allowed, |value| match value {
            Value::Text(text) if text.len() <= max && !text.contains('\0') => {
                Some(PathBuf::from(text)).filter(|path| path.is_absolute())
            }
            _ => None,
        })
        .unwrap_or_else(|| default.to_owned())
    }

    /// An absolute path of at most `max` bytes; `"off"` is none.
    pub(super) fn path_or_off(&mut self, key: &str, default: Option<&Path>, max: usize) -> Option<PathBuf> {
        let allowed = format!("must be an absolute path of at most {max} bytes, or \"off\"");
        self.take(key, &allowed, |value| match value {
            Value::Text(text) if text == "off" => Some(None),
            Value::Text(text) if text.len() <= max && !text.contains('\0') => {
                Some(PathBuf::from(text)).filter(|path| path.is_absolute()).map(Some)
            }
            _ => None,
        })
        .unwrap_or_else(|| default.map(Path::to_owned))
    }

    /// An address and port; `""` or `"off"` is none.
    pub(super) fn listen(&mut self, key: &str, default: Option<SocketAddr>) -> Option<SocketAddr> {
        let allowed = "must be an IP address and port, such as \"127.0.0.1:9973\" or \"[::1]:9973\", or \"off\"";
        self.take(key, allowed, |value| match value {
            Value::Text(text) if text.is_empty() || text == "off" => Some(None),
            Value::Text(text) => text.parse().ok().map(Some),
            _ => None,
        })
        .unwrap_or(default)
    }

    /// A list of whole numbers.
    pub(super) fn numbers(&mut self, key: &str, default: &[u32], max: usize) -> Vec<u32> {
        let allowed = format!("must be a list of at most {max} whole numbers, such as [0, 107]");
        self.take(key, &allowed, |value| match value {
            // From the environment they come as texts.
            Value::List(texts) if texts.len() <= max => texts.iter().map(|text| text.parse().ok()).collect(),
            Value::Numbers(all) if all.len() <= max => all.iter().map(|number| u32::try_from(*number).ok()).collect(),
            _ => None,
        })
        .unwrap_or_else(|| default.to_vec())
    }

    /// The http address of a collector; `"off"` or nothing is none.
    pub(super) fn collector(&mut self, key: &str) -> Option<Url> {
        let allowed = "must be an address such as \"http://127.0.0.1:4318/v1/metrics\", without encryption, or \"off\"";
        self.take(key, allowed, |value| match value {
            Value::Text(text) if text == "off" => Some(None),
            Value::Text(text) => text.parse().ok().filter(|url: &Url| !url.tls).map(Some),
            _ => None,
        })
        .flatten()
    }

    /// A list of names that can be file names.
    pub(super) fn names(&mut self, key: &str, max: usize) -> Vec<String> {
        let allowed = format!(
            "must be a list of at most {max} different names of [A-Za-z0-9._-]{{1,64}}, none beginning with a dot"
        );
        self.take(key, &allowed, |value| match value {
            Value::List(names) => distinct_names(names, max).then(|| names.clone()),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// A text that passes a check; none if nobody set it.
    pub(super) fn text(&mut self, key: &str, allowed: &str, passes: impl Fn(&str) -> bool) -> Option<String> {
        self.take(key, allowed, |value| match value {
            Value::Text(text) if passes(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// An absolute path; none if nobody set it.
    pub(super) fn file(&mut self, key: &str, max: usize) -> Option<PathBuf> {
        let allowed = format!("must be an absolute path of at most {max} bytes");
        let passes = |text: &str| text.len() <= max && text.starts_with('/') && !text.contains('\0');
        self.text(key, &allowed, passes).map(PathBuf::from)
    }

    /// Adds a problem about a key that is not set and has to be, in a table that stands at `origin`.
    pub(super) fn missing(&mut self, key: &str, origin: &Origin, text: &str) {
        let (key, origin, text) = (Some(key.to_owned()), origin.clone(), text.to_owned());
        self.problems.push(Problem { key, value: None, origin, text });
    }

    /// Where a key was set.
    pub(super) fn origin(&self, key: &str) -> Origin {
        self.table.entries.get(key).map_or(Origin::Default, |entry| entry.origin.clone())
    }

    /// Whether a key is set by anyone.
    pub(super) fn is_set(&self, key: &str) -> bool {
        self.table.entries.contains_key(key)
    }

    /// Whether nothing is wrong with any of these keys so far.
    pub(super) fn sound(&self, keys: &[&str]) -> bool {
        self.problems.iter().all(|problem| problem.key.as_deref().is_none_or(|key| !keys.contains(&key)))
    }

    /// Adds a problem about a key that is right by itself.
    pub(super) fn conflict(&mut self, key: &str, text: String) {
        let value = self.table.entries.get(key).map(|entry| entry.value.shown());
        self.problems.push(Problem { key: Some(key.to_owned()), value, origin: self.origin(key), text });
    }

    pub(super) fn take<T>(&mut self, key: &str, allowed: &str, read: impl FnOnce(&Value) -> Option<T>) -> Option<T> {
        let Entry { value, origin } = self.table.entries.get(key)?;
        let taken = read(value);
        if taken.is_none() {
            self.problems.push(Problem {
                key: Some(key.to_owned()),
                value: Some(value.shown()),
                origin: origin.clone(),
                text: allowed.to_owned(),
            });
        }
        taken
    }
}

fn distinct_names(names: &[String], max: usize) -> bool {
    let safe = |name: &str| {
        (1..=64).contains(&name.len())
            && !name.starts_with('.')
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let distinct = names.iter().enumerate().all(|(at, name)| !names[..at].contains(name));
    names.len() <= max && distinct && names.iter().all(|name| safe(name))
}
