//! Rows as CSV (RFC 4180, lines end in a newline); absent is empty.

use std::io::{self, Write};

use super::amount::{NET_NAMES, Quantity};
use super::row::{KEYS, READABLE, Row};
use super::{RollupError, Rows};

pub(super) struct Csv<W>(W);

impl<W: Write> Csv<W> {
    /// Writes the head.
    pub(super) fn new(mut out: W) -> io::Result<Self> {
        let numbers = Quantity::ALL.iter().map(|what| what.as_str()).chain(NET_NAMES);
        let names: Vec<_> = KEYS.into_iter().chain(numbers).chain(READABLE.map(|(name, ..)| name)).collect();
        writeln!(out, "{}", names.join(","))?;
        Ok(Self(out))
    }
}

impl<W: Write> Rows for Csv<W> {
    fn row(&mut self, row: &Row<'_>) -> Result<(), RollupError> {
        let mut line = row.keys().map(|key| quoted(&key)).join(",");
        for (_, number) in row.numbers() {
            line.push(',');
            line.extend(number.map(|number| number.to_string()));
        }
        for (_, text) in row.readable() {
            line.push(',');
            line.extend(text);
        }
        line.push('\n');
        Ok(self.0.write_all(line.as_bytes())?)
    }

    fn finish(mut self: Box<Self>) -> Result<(), RollupError> {
        Ok(self.0.flush()?)
    }
}

fn quoted(text: &str) -> String {
    if text.contains(['"', ',', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_with_commas_quotes_or_newlines_is_quoted() {
        assert_eq!(super::quoted("a"), "a");
        assert_eq!(super::quoted("a,\"b\"\n"), "\"a,\"\"b\"\"\n\"");
    }
}
