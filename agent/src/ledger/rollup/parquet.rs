//! Rows as Parquet, in groups of bounded size: instants as UTC timestamps, whole numbers as decimals of 38 digits
//! (`mem_used_byte_ns` leaves 64 bits), absent as null. Units for people are left to who reads it.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, FixedLenByteArray, FixedLenByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;

use super::amount::{NET_NAMES, Quantity};
use super::row::{KEYS, Row};
use super::{RollupError, Rows};

/// Rows held at once.
const GROUP_ROWS: usize = 16_384;
/// What a decimal of 38 digits stays below.
const DECIMAL_LIMIT: u128 = 10_u128.pow(38);

/// A number's values that are there, and for every row whether it is.
#[derive(Default)]
struct Numbers {
    values: Vec<FixedLenByteArray>,
    there: Vec<i16>,
}

pub(super) struct Parquet<W: Write + Send> {
    writer: SerializedFileWriter<W>,
    instants: [Vec<i64>; 2],
    texts: Vec<Vec<ByteArray>>,
    numbers: Vec<Numbers>,
}

impl<W: Write + Send> Parquet<W> {
    pub(super) fn new(out: W) -> Result<Self, RollupError> {
        let properties = WriterProperties::builder()
            .set_created_by("kvmeter".to_owned())
            .set_encoding(Encoding::PLAIN)
            .set_dictionary_enabled(true);
        let schema = parse_message_type(&schema()).map_err(RollupError::Parquet)?;
        let writer = SerializedFileWriter::new(out, Arc::new(schema), Arc::new(properties.build()));
        let writer = writer.map_err(RollupError::Parquet)?;
        let numbers = (0..names().count()).map(|_| Numbers::default()).collect();
        Ok(Self { writer, instants: Default::default(), texts: vec![Vec::new(); KEYS.len() - 2], numbers })
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut group = self.writer.next_row_group()?;
        for instants in &mut self.instants {
            column::<_, Int64Type>(&mut group, &std::mem::take(instants), None)?;
        }
        for texts in &mut self.texts {
            column::<_, ByteArrayType>(&mut group, &std::mem::take(texts), None)?;
        }
        for numbers in &mut self.numbers {
            let numbers = std::mem::take(numbers);
            column::<_, FixedLenByteArrayType>(&mut group, &numbers.values, Some(&numbers.there))?;
        }
        group.close().map(drop)
    }
}

impl<W: Write + Send> Rows for Parquet<W> {
    fn row(&mut self, row: &Row<'_>) -> Result<(), RollupError> {
        for (instants, at) in self.instants.iter_mut().zip([row.from, row.to]) {
            instants.push(i64::try_from(at / 1_000_000).unwrap_or(i64::MAX));
        }
        for (texts, key) in self.texts.iter_mut().zip(&row.keys()[2..]) {
            texts.push(ByteArray::from(key.as_bytes().to_vec()));
        }
        for (numbers, (name, number)) in self.numbers.iter_mut().zip(row.numbers()) {
            numbers.there.push(i16::from(number.is_some()));
            let Some(number) = number else { continue };
            if number >= DECIMAL_LIMIT {
                return Err(RollupError::TooLarge(name));
            }
            numbers.values.push(FixedLenByteArray::from(number.to_be_bytes().to_vec()));
        }
        if self.instants[0].len() < GROUP_ROWS {
            return Ok(());
        }
        self.write_group().map_err(RollupError::Parquet)
    }

    fn finish(mut self: Box<Self>) -> Result<(), RollupError> {
        if !self.instants[0].is_empty() {
            self.write_group().map_err(RollupError::Parquet)?;
        }
        self.writer.close().map(drop).map_err(RollupError::Parquet)
    }
}

fn column<W: Write + Send, T: DataType>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    there: Option<&[i16]>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("the schema has fewer columns than a row".to_owned()));
    };
    column.typed::<T>().write_batch(values, there, None)?;
    column.close()
}

fn names() -> impl Iterator<Item = &'static str> {
    Quantity::ALL.iter().map(|what| what.as_str()).chain(NET_NAMES)
}

fn schema() -> String {
    let mut text = String::from("message rollup {");
    for (at, name) in KEYS.into_iter().enumerate() {
        let kind = if at < 2 { "int64" } else { "binary" };
        let means = if at < 2 { "TIMESTAMP(MILLIS,true)" } else { "UTF8" };
        // Writing to a text cannot fail.
        let _ = write!(text, " required {kind} {name} ({means});");
    }
    for name in names() {
        let _ = write!(text, " optional fixed_len_byte_array(16) {name} (DECIMAL(38,0));");
    }
    text + " }"
}
