//! `[[hooks]]`: commands and web addresses that are told of ledger lines. Every mistake is told with its line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::problem::{Origin, Problem};
use super::raw::{Entry, Table, Value};
use super::resolved::{Hook, HookAction, SecretAs};
use super::suggest;
use super::take::Taker;
use super::url::Url;
use crate::ledger::Kind;
use crate::lifecycle::Happening;

const KEY: &str = "hooks";
/// Hooks at most; each has a queue.
const MAX_HOOKS: usize = 16;
const MAX_PATH: usize = 3072;
/// Words of a command, and the bytes of each.
const MAX_WORDS: usize = 64;
const MAX_WORD: usize = 4096;
/// The keys a hook may have.
pub(super) const KEYS: [&str; 13] = [
    "name",
    "kinds",
    "command",
    "url",
    "user",
    "secret_file",
    "secret_as",
    "ca_file",
    "timeout",
    "max_concurrent",
    "retries",
    "backoff",
    "queue",
];

/// Takes the hooks.
pub(super) fn hooks(taker: &mut Taker) -> Vec<Hook> {
    let Some(Entry { value, origin }) = taker.table.entries.get(KEY).cloned() else { return Vec::new() };
    let mut whole = |text: String| {
        let (key, value) = (Some(KEY.to_owned()), Some(value.shown()));
        taker.problems.push(Problem { key, value, origin: origin.clone(), text });
    };
    let tables = match &value {
        Value::Tables(tables) => tables,
        // An empty list is none.
        Value::List(items) if items.is_empty() => return Vec::new(),
        _ => {
            whole("must be tables, each under a [[hooks]] of its own".to_owned());
            return Vec::new();
        }
    };
    if tables.len() > MAX_HOOKS {
        whole(format!("must be at most {MAX_HOOKS}, not {}", tables.len()));
    }
    let mut all: Vec<(usize, Hook)> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let (hook, mut problems) = one(table.clone(), &origin);
        if let Some(hook) = &hook
            && let Some((first, _)) = all.iter().find(|(_, other)| other.name == hook.name)
        {
            let text = format!("hooks[{first}] is called so already; names tell hooks apart");
            let (key, place) = (Some("name".to_owned()), table.get("name"));
            let origin = place.map_or_else(|| origin.clone(), |entry| entry.origin.clone());
            problems.push(Problem { key, value: place.map(|entry| entry.value.shown()), origin, text });
        }
        taker.problems.extend(problems.into_iter().map(|mut problem| {
            let key = problem.key.take();
            problem.key = Some(key.map_or_else(|| format!("{KEY}[{at}]"), |key| format!("{KEY}[{at}].{key}")));
            problem
        }));
        all.extend(hook.map(|hook| (at, hook)));
    }
    all.into_iter().map(|(_, hook)| hook).collect()
}

/// One hook, and what is wrong with it; its keys are named without their place here.
fn one(table: BTreeMap<String, Entry>, origin: &Origin) -> (Option<Hook>, Vec<Problem>) {
    let mut own = Taker { table: Table::default(), problems: Vec::new() };
    for (name, entry) in table {
        match KEYS.iter().find(|key| **key == name) {
            Some(key) => _ = own.table.entries.insert(*key, entry),
            None => {
                let text = suggest::nearest(&name, KEYS.iter().copied()).map_or_else(
                    || "unknown key".to_owned(),
                    |known| format!("unknown key; did you mean \"{known}\"?"),
                );
                let (value, origin) = (Some(entry.value.shown()), entry.origin);
                own.problems.push(Problem { key: Some(name), value, origin, text });
            }
        }
    }
    let name = own.text("name", "must be a name of [A-Za-z0-9._-]{1,64}", |text| {
        (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    });
    if name.is_none() && own.sound(&["name"]) {
        own.missing("name", origin, "must be there: it tells hooks apart in the log");
    }
    let (seconds, milliseconds) = (Duration::from_secs, Duration::from_millis);
    let hook = Hook {
        name: name.unwrap_or_default(),
        kinds: kinds(&mut own),
        action: HookAction::Command { words: Vec::new(), user: String::new() },
        secret_file: own.file("secret_file", MAX_PATH),
        timeout: own.duration("timeout", seconds(10), milliseconds(100), seconds(3600)),
        max_concurrent: own.number("max_concurrent", 4, 1, 64),
        retries: own.number("retries", 3, 0, 20),
        backoff: own.duration("backoff", seconds(1), milliseconds(10), seconds(300)),
        queue: own.number("queue", 1024, 1, 65_536),
    };
    let action = action(&mut own, hook.secret_file.is_some(), origin);
    (action.map(|action| Hook { action, ..hook }), own.problems)
}

fn kinds(own: &mut Taker) -> Vec<Kind> {
    let default: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| Happening::of(*kind).is_lifecycle()).collect();
    let names: Vec<&str> = Kind::ALL.iter().map(|kind| kind.as_str()).collect();
    let allowed = format!("must be a list of one or more of {}", names.join(", "));
    let parse = |words: &Vec<String>| words.iter().map(|word| word.parse().ok()).collect::<Option<Vec<Kind>>>();
    own.take("kinds", &allowed, |value| match value {
        Value::List(words) if !words.is_empty() => parse(words),
        _ => None,
    })
    .unwrap_or(default)
}

/// What is done: a command or a request, and the keys that go with only one of them.
fn action(own: &mut Taker, has_secret: bool, origin: &Origin) -> Option<HookAction> {
    let (command, url) = (own.is_set("command"), own.is_set("url"));
    let (mine, others): (_, &[&str]) =
        if command { ("command", &["secret_as", "ca_file"]) } else { ("url", &["user"]) };
    match (command, url) {
        (true, true) => own.conflict("url", "a hook has a command or a url, not both".to_owned()),
        (false, false) => own.missing("command", origin, "must be there, or a url"),
        _ => {
            for other in others.iter().filter(|key| own.is_set(key)).collect::<Vec<_>>() {
                own.conflict(other, format!("goes with a {} only", if command { "url" } else { "command" }));
            }
        }
    }
    if mine == "command" { command_of(own) } else { request_of(own, has_secret) }
}

fn command_of(own: &mut Taker) -> Option<HookAction> {
    let fits = |word: &String| word.len() <= MAX_WORD && !word.contains('\0');
    let allowed = format!(
        "must be a list of the program's absolute path and its arguments, at most {MAX_WORDS} of {MAX_WORD} bytes; no shell takes part"
    );
    let words = own.take("command", &allowed, |value| match value {
        Value::List(words) if (1..=MAX_WORDS).contains(&words.len()) && words.iter().all(fits) => {
            words.first().filter(|program| program.starts_with('/')).map(|_| words.clone())
        }
        _ => None,
    });
    let user = own.text("user", "must be the name of a user", |text| (1..=64).contains(&text.len()));
    Some(HookAction::Command { words: words?, user: user.unwrap_or_else(|| "nobody".to_owned()) })
}

fn request_of(own: &mut Taker, has_secret: bool) -> Option<HookAction> {
    let allowed = "must be an address such as \"https://example.org/path\"";
    let url = match own.text("url", allowed, |_| true).map(|text| text.parse::<Url>()) {
        Some(Ok(url)) => Some(url),
        Some(Err(error)) => {
            own.conflict("url", error.to_string());
            None
        }
        None => None,
    };
    let secret_as = own.word("secret_as", SecretAs::Bearer, &[("bearer", SecretAs::Bearer), ("hmac", SecretAs::Hmac)]);
    if own.is_set("secret_as") && !has_secret {
        own.conflict("secret_as", "says how secret_file is used, which is not there".to_owned());
    }
    let ca_file: Option<PathBuf> = own.file("ca_file", MAX_PATH);
    if ca_file.is_some() && url.as_ref().is_some_and(|url| !url.tls) {
        own.conflict("ca_file", "goes with an https url only".to_owned());
    }
    Some(HookAction::Request { url: url?, secret_as, ca_file })
}
