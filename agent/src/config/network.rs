//! `[network.classes]`: names with address prefixes. Every mistake in it is told, each with its line.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::Problem;
use super::raw::{Entry, Value};
use super::resolved::Network;
use super::take::Taker;
use crate::account::class::{CONFIGURED, ClassTable, Classes, NAME_BYTES, Numbers, Prefix, RESERVED};

const KEY: &str = "network.classes";

/// Takes the section.
pub(super) fn network(taker: &mut Taker) -> Network {
    let Some(Entry { value, origin }) = taker.table.entries.get(KEY).cloned() else { return Network::default() };
    let problems = &mut taker.problems;
    let whole =
        |text: String| Problem { key: Some(KEY.to_owned()), value: Some(value.shown()), origin: origin.clone(), text };
    let Value::Table(entries) = &value else {
        problems.push(whole("must be a table of names, each with a list of prefixes".to_owned()));
        return Network::default();
    };
    let before = problems.len();
    if entries.len() > CONFIGURED {
        let reserved = RESERVED.join(", ");
        problems
            .push(whole(format!("must have at most {CONFIGURED} names (16 with {reserved}), not {}", entries.len())));
    }
    let mut classes = Classes::default();
    let mut owners: BTreeMap<Prefix, &str> = BTreeMap::new();
    for (name, entry) in entries {
        let wrong = |text: String| Problem {
            key: Some(format!("{KEY}.{name}")),
            value: Some(entry.value.shown()),
            origin: entry.origin.clone(),
            text,
        };
        if !Classes::allows(name) {
            problems.push(wrong(name_rule(name)));
        }
        let Value::List(texts) = &entry.value else {
            problems.push(wrong("must be a list of prefixes, such as [\"10.0.0.0/8\", \"fd00::/8\"]".to_owned()));
            continue;
        };
        let prefixes = classes.prefixes.entry(Arc::from(name.as_str())).or_default();
        for text in texts {
            match text.parse::<Prefix>() {
                Ok(prefix) => match owners.insert(prefix, name) {
                    Some(other) if other != name => problems.push(wrong(format!("{prefix} is in \"{other}\" already"))),
                    Some(_) => problems.push(wrong(format!("{prefix} stands there twice"))),
                    None => prefixes.push(prefix),
                },
                Err(error) => problems.push(wrong(format!("{text:?}: {error}"))),
            }
        }
    }
    if problems.len() == before
        && let Some(text) = unfit(&classes)
    {
        problems.push(whole(text));
    }
    Network { classes }
}

fn name_rule(name: &str) -> String {
    if RESERVED.contains(&name) {
        format!("\"{name}\" is always there and takes no prefixes; choose another name")
    } else {
        format!("a name must be 1 to {NAME_BYTES} of [a-z0-9_-], the first a letter")
    }
}

/// Why the prefixes are too many for the kernel's table.
fn unfit(classes: &Classes) -> Option<String> {
    let numbers = match Numbers::default().after(classes) {
        Ok(numbers) => numbers,
        Err(error) => return Some(error.to_string()),
    };
    ClassTable::new(classes, &numbers).err().map(|error| error.to_string())
}
