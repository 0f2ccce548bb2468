//! A scrape, parsed strictly: every line must be a comment or a sample of the text format.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail};

/// One series.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// Metric name, with a histogram's suffix.
    pub name: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

impl Series {
    /// Seconds, as the nanoseconds they stand for.
    #[must_use]
    pub fn nanos(&self) -> u64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "rounded, never negative")]
        let ns = (self.value * 1e9).round() as u64;
        ns
    }
}

/// All series of a scrape.
#[derive(Clone, Debug, Default)]
pub struct Metrics(pub Vec<Series>);

impl Metrics {
    /// Parses the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| series(line).with_context(|| format!("not a series: {line}"))).collect::<Result<_>>().map(Self)
    }

    /// Series of a name whose labels include these.
    pub fn all<'a>(&'a self, name: &'a str, labels: &'a [(&str, &str)]) -> impl Iterator<Item = &'a Series> {
        self.0.iter().filter(move |s| {
            s.name == name && labels.iter().all(|(key, value)| s.labels.get(*key).is_some_and(|v| v == value))
        })
    }

    /// The value of the only such series.
    #[must_use]
    pub fn one(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut found = self.all(name, labels);
        let first = found.next()?.value;
        found.next().is_none().then_some(first)
    }

    /// The sum over all such series.
    #[must_use]
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.all(name, labels).map(|s| s.value).sum()
    }

    /// The one series with these labels, as whole bytes.
    #[must_use]
    pub fn bytes(&self, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole, never negative")]
        let whole = |bytes: f64| bytes as u64;
        self.one(name, labels).map(whole)
    }

    /// Nanoseconds over all roles of a VM, each series rounded to the nanosecond it stands for.
    #[must_use]
    pub fn nanos(&self, name: &str, vm_id: &str) -> u64 {
        self.all(name, &[("vm_id", vm_id)]).map(Series::nanos).sum()
    }
}

fn series(line: &str) -> Result<Series> {
    let name_end = line.find(['{', ' ']).context("no value")?;
    let (name, rest) = line.split_at(name_end);
    let mut labels = BTreeMap::new();
    let rest = match rest.strip_prefix('{') {
        None => rest,
        Some(mut rest) => loop {
            if let Some(after) = rest.strip_prefix('}') {
                break after;
            }
            let (key, after) = rest.split_once("=\"").context("no label value")?;
            let (value, after) = quoted(after)?;
            if labels.insert(key.to_owned(), value).is_some() {
                bail!("label {key} twice");
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        },
    };
    let value = rest.trim().parse().context("no number")?;
    Ok(Series { name: name.to_owned(), labels, value })
}

/// The text up to the closing quote, unescaped, and what follows it.
fn quoted(text: &str) -> Result<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => value.push(match chars.next().context("cut escape")?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    bail!("no closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_label_values_come_back() {
        let metrics = Metrics::parse("a{x=\"q\\\"n\\n\\\\\",y=\"2\"} 1.5\nb 2\n").unwrap();
        assert_eq!(metrics.0[0].labels["x"], "q\"n\n\\");
        assert_eq!(metrics.one("b", &[]), Some(2.0));
    }
}
