//! The file layer: TOML text into the table, with the line of every key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::de::{DeArray, DeTable, DeValue};

use super::{Entry, Table, Value};
use crate::config::key::{self, KEYS};
use crate::config::problem::{Origin, Problem};
use crate::config::suggest;

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// Lays a file over the table; a missing one is a problem only if it was `required`.
pub(in crate::config) fn read_file(table: &mut Table, path: &Path, required: bool, problems: &mut Vec<Problem>) {
    match bounded(path) {
        Ok(text) => read_text(table, path, &text, problems),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !required => {}
        Err(error) => problems.push(whole_file(path, None, format!("cannot read the configuration: {error}"))),
    }
}

/// Lays the text of a file over the table.
pub(in crate::config) fn read_text(table: &mut Table, path: &Path, text: &str, problems: &mut Vec<Problem>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        // What could be recovered from broken syntax is not what was meant, so nothing more is said about it.
        problems.extend(errors.iter().map(|error| {
            let line = error.span().map(|span| line_of(text, span.start));
            whole_file(path, line, format!("not valid TOML: {}", error.message()))
        }));
        return;
    }
    FileReader { table, path, text, problems }.walk("", root.get_ref());
}

struct FileReader<'a> {
    table: &'a mut Table,
    path: &'a Path,
    text: &'a str,
    problems: &'a mut Vec<Problem>,
}

impl FileReader<'_> {
    fn walk(&mut self, prefix: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let path =
                if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
            let origin = Origin::File { path: self.path.to_owned(), line: Some(line_of(self.text, name.span().start)) };
            // A quoted name with a dot in it is one name, whatever path it looks like.
            let known = if name.get_ref().contains('.') { None } else { key::find(&path) };
            match (known, value.get_ref()) {
                (Some(key), value) => {
                    let value = self.with_places(value);
                    self.table.entries.insert(key.path, Entry { value, origin });
                }
                (None, DeValue::Table(inner)) if key::is_section(&path) => self.walk(&path, inner),
                (None, value) if key::is_section(&path) => {
                    self.report(path, value, origin, "must be a table".to_owned())
                }
                (None, value) => {
                    let text = unknown_key(&path);
                    self.report(path, value, origin, text);
                }
            }
        }
    }

    /// A value; one that is a table, or several, keeps the place of each of its own.
    fn with_places(&self, value: &DeValue<'_>) -> Value {
        match value {
            DeValue::Table(inner) => Value::Table(self.entries(inner)),
            DeValue::Array(items) if !items.is_empty() => {
                let tables = items.iter().map(|item| item.get_ref().as_table().map(|inner| self.entries(inner)));
                tables.collect::<Option<Vec<_>>>().map_or_else(|| from_toml(value), Value::Tables)
            }
            _ => from_toml(value),
        }
    }

    fn entries(&self, table: &DeTable<'_>) -> BTreeMap<String, Entry> {
        let entries = table.iter().map(|(name, value)| {
            let line = Some(line_of(self.text, name.span().start));
            let origin = Origin::File { path: self.path.to_owned(), line };
            (name.get_ref().to_string(), Entry { value: from_toml(value.get_ref()), origin })
        });
        entries.collect()
    }

    fn report(&mut self, path: String, value: &DeValue<'_>, origin: Origin, text: String) {
        self.problems.push(Problem { key: Some(path), value: Some(from_toml(value).shown()), origin, text });
    }
}

fn from_toml(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::Other("integer beyond 64 bits"),
        },
        DeValue::Array(items) => {
            let texts: Option<Vec<String>> =
                items.iter().map(|item| item.get_ref().as_str().map(str::to_owned)).collect();
            let numbers = || numbers(items).map(Value::Numbers);
            texts.map(Value::List).or_else(numbers).unwrap_or(Value::Other("array"))
        }
        other => Value::Other(other.type_str()),
    }
}

/// The whole numbers of a list that holds nothing else.
fn numbers(items: &DeArray<'_>) -> Option<Vec<i64>> {
    let number = |item: &DeValue<'_>| match item {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    };
    items.iter().map(|item| number(item.get_ref())).collect()
}

fn bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let read = File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if u64::try_from(read).is_ok_and(|read| read <= MAX_FILE) {
        Ok(text)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than 1 MiB"))
    }
}

fn whole_file(path: &Path, line: Option<usize>, text: String) -> Problem {
    Problem { key: None, value: None, origin: Origin::File { path: path.to_owned(), line }, text }
}

fn line_of(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|b| *b == b'\n').count() + 1
}

fn unknown_key(path: &str) -> String {
    match suggest::nearest(path, KEYS.iter().map(|key| key.path)) {
        Some(known) => format!("unknown key; did you mean \"{known}\"?"),
        None => "unknown key".to_owned(),
    }
}
