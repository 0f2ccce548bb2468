//! `[[storage.pools]]`: directories with patterns of names. Every mistake in them is told, each with its line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Origin, Problem};
use super::raw::{Entry, Value};
use super::suggest;
use super::take::Taker;
use crate::storage::pool::{MAX_PATTERNS, MAX_POOLS, Pool};
use crate::storage::{Pattern, Use};
use crate::units::Bytes;

const KEY: &str = "storage.pools";
const KEYS: [&str; 5] = ["path", "images", "snapshots", "resize_step", "interval"];
const MAX_PATH: usize = 3072;
const STEP: Bytes = Bytes::mib(64);
const INTERVAL: Duration = Duration::from_secs(30);
const INTERVALS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3600)];

/// Takes the section.
pub(super) fn pools(taker: &mut Taker) -> Vec<Pool> {
    let Some(Entry { value, origin }) = taker.table.entries.get(KEY).cloned() else { return Vec::new() };
    let whole =
        |text: String| Problem { key: Some(KEY.to_owned()), value: Some(value.shown()), origin: origin.clone(), text };
    let tables = match &value {
        Value::Tables(tables) => tables.as_slice(),
        Value::List(items) if items.is_empty() => &[],
        _ => {
            taker.problems.push(whole("must be tables, each under [[storage.pools]]".to_owned()));
            return Vec::new();
        }
    };
    if tables.len() > MAX_POOLS {
        taker.problems.push(whole(format!("must be at most {MAX_POOLS} pools, not {}", tables.len())));
    }
    let mut pools: Vec<Pool> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let mut reader = Reader { at, table, origin: &origin, problems: &mut taker.problems };
        let Some(pool) = reader.pool() else { continue };
        if let Some(other) = pools.iter().find(|other| overlap(other, &pool)) {
            let text =
                format!("lies in another pool, {}, or that in this one: a file is one pool's", other.path.display());
            reader.wrong("path", text);
        }
        pools.push(pool);
    }
    pools
}

fn overlap(a: &Pool, b: &Pool) -> bool {
    a.path.starts_with(&b.path) || b.path.starts_with(&a.path)
}

struct Reader<'a> {
    at: usize,
    table: &'a BTreeMap<String, Entry>,
    origin: &'a Origin,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn wrong(&mut self, key: &str, text: String) {
        let entry = self.table.get(key);
        self.problems.push(Problem {
            key: Some(format!("{KEY}[{}].{key}", self.at)),
            value: entry.map(|entry| entry.value.shown()),
            origin: entry.map_or_else(|| self.origin.clone(), |entry| entry.origin.clone()),
            text,
        });
    }

    fn pool(&mut self) -> Option<Pool> {
        let before = self.problems.len();
        let unknown: Vec<String> = self.table.keys().filter(|key| !KEYS.contains(&key.as_str())).cloned().collect();
        for key in unknown {
            let text = match suggest::nearest(&key, KEYS.into_iter()) {
                Some(known) => format!("unknown key; did you mean \"{known}\"?"),
                None => "unknown key".to_owned(),
            };
            self.wrong(&key, text);
        }
        let (images, snapshots) = (self.patterns("images", Use::Image), self.patterns("snapshots", Use::Snapshot));
        if images.is_empty() && snapshots.is_empty() && self.problems.len() == before {
            self.wrong("path", "needs a pattern: images, snapshots or both".to_owned());
        }
        let pool = Pool {
            path: self.path().unwrap_or_default(),
            images,
            snapshots,
            resize_step: self.step().unwrap_or(STEP),
            interval: self.interval().unwrap_or(INTERVAL),
        };
        (self.problems.len() == before).then_some(pool)
    }

    fn value(&self, key: &str) -> Option<Value> {
        self.table.get(key).map(|entry| entry.value.clone())
    }

    fn path(&mut self) -> Option<PathBuf> {
        let path = match self.value("path") {
            Some(Value::Text(text)) if text.len() <= MAX_PATH && !text.contains('\0') => Some(PathBuf::from(text)),
            _ => None,
        };
        // Spelt in one way only, so that a file's path tells its pool.
        let plain = |path: &PathBuf| {
            path.is_absolute() && path.components().collect::<PathBuf>() == *path && path.parent().is_some()
        };
        let up = |path: &PathBuf| path.components().any(|part| part.as_os_str() == "..");
        let path = path.filter(|path| plain(path) && !up(path));
        if path.is_none() {
            self.wrong(
                "path",
                "must be a directory's absolute path without `..`, such as \"/var/lib/images\"".to_owned(),
            );
        }
        path
    }

    fn patterns(&mut self, key: &str, is: Use) -> Vec<Pattern> {
        let texts = match self.value(key) {
            None => return Vec::new(),
            Some(Value::Text(text)) => vec![text],
            Some(Value::List(texts)) if texts.len() <= MAX_PATTERNS => texts,
            Some(_) => {
                self.wrong(key, format!("must be a pattern, or a list of at most {MAX_PATTERNS}"));
                return Vec::new();
            }
        };
        let mut patterns = Vec::new();
        for text in texts {
            match Pattern::parse(&text, is) {
                Ok(pattern) => patterns.push(pattern),
                Err(error) => self.wrong(key, format!("{text:?}: {error}")),
            }
        }
        patterns
    }

    fn step(&mut self) -> Option<Bytes> {
        let step = match self.value("resize_step")? {
            Value::Text(text) => text.parse().ok(),
            Value::Integer(bytes) => u64::try_from(bytes).ok().map(Bytes),
            _ => None,
        };
        let step = step.filter(|step| (Bytes(4096)..=Bytes::gib(1024)).contains(step));
        if step.is_none() {
            self.wrong("resize_step", format!("must be a size from 4KiB to 1TiB, such as \"{STEP}\""));
        }
        step
    }

    fn interval(&mut self) -> Option<Duration> {
        let interval = match self.value("interval")? {
            Value::Text(text) => humantime::parse_duration(&text).ok(),
            _ => None,
        };
        let [least, most] = INTERVALS;
        let interval = interval.filter(|interval| (least..=most).contains(interval));
        if interval.is_none() {
            self.wrong("interval", "must be a duration from 1s to 1h, such as \"30s\"".to_owned());
        }
        interval
    }
}
