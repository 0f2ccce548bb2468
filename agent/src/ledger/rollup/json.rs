//! Rows as JSON: one array, or an object a line. Whole numbers are decimal strings, as in the ledger, because JSON's
//! numbers are not safe beyond 2⁵³ everywhere; what is absent is left out.

use std::io::Write;

use serde_json::{Map, Value};

use super::row::{KEYS, Row};
use super::{RollupError, Rows};

pub(super) struct Json<W> {
    out: W,
    array: bool,
    any: bool,
}

impl<W: Write> Json<W> {
    /// One array of rows.
    pub(super) const fn array(out: W) -> Self {
        Self { out, array: true, any: false }
    }

    /// One row a line.
    pub(super) const fn lines(out: W) -> Self {
        Self { out, array: false, any: false }
    }
}

impl<W: Write> Rows for Json<W> {
    fn row(&mut self, row: &Row<'_>) -> Result<(), RollupError> {
        let keys = KEYS.into_iter().zip(row.keys()).filter(|(_, value)| !value.is_empty());
        let mut object: Map<String, Value> =
            keys.map(|(name, value)| (name.to_owned(), Value::String(value.into_owned()))).collect();
        let numbers = row.numbers().map(|(name, number)| (name, number.map(|number| number.to_string())));
        for (name, value) in numbers.chain(row.readable()) {
            if let Some(value) = value {
                object.insert(name.to_owned(), Value::String(value));
            }
        }
        let before = match (self.array, std::mem::replace(&mut self.any, true)) {
            (false, false) => "",
            (false, true) => "\n",
            (true, false) => "[\n",
            (true, true) => ",\n",
        };
        write!(self.out, "{before}{}", Value::Object(object))?;
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), RollupError> {
        let end = match (self.array, self.any) {
            (true, true) => "\n]\n",
            (true, false) => "[]\n",
            (false, true) => "\n",
            (false, false) => "",
        };
        self.out.write_all(end.as_bytes())?;
        Ok(self.out.flush()?)
    }
}
