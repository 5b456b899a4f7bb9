//! Rows as bytes. Version 1:
//!
//! | part | bytes |
//! |---|---|
//! | version, 1 | 1 |
//! | number of names | varint, then each as varint length and UTF-8 |
//! | number of rows | varint, then each row |
//! | row: time, trace, span, parent | i64, u128, u64, u64, little-endian |
//! | row: duration | varint of nanoseconds + 1; 0 is none |
//! | row: attributes | varint count; each: varint of the name's place, a tag, the value |
//! | tag 0 text, 1 whole number, 2 number, 3 false, 4 true | varint length and UTF-8; zigzag varint; f64 little-endian; – |
//!
//! Names are written once a batch: on wide events they would be most of the bytes.

use std::collections::HashMap;

use vocab::Timestamp;

use crate::row::{Row, Value};

const VERSION: u8 = 1;
/// More attributes than this on one row are a mistake; the batch is refused.
pub const ATTRIBUTES_MAX: u64 = 4_096;

/// Why bytes are no batch of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a batch of rows: {reason} at byte {offset}")]
pub struct DecodeError {
    /// What is wrong.
    pub reason: &'static str,
    /// Where.
    pub offset: usize,
}

fn put_varint(mut n: u64, out: &mut Vec<u8>) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn put_text(text: &str, out: &mut Vec<u8>) {
    put_varint(text.len() as u64, out);
    out.extend_from_slice(text.as_bytes());
}

/// The bytes of a batch.
pub fn encode(rows: &[Row]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_into(rows, &mut out);
    out
}

/// The bytes of a batch, behind what is there.
pub fn encode_into(rows: &[Row], out: &mut Vec<u8>) {
    let mut places: HashMap<&str, u64> = HashMap::new();
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in rows.iter().flat_map(|row| &row.attributes) {
        places.entry(name).or_insert_with(|| {
            names.push(name);
            names.len() as u64 - 1
        });
    }
    out.reserve(rows.len() * 256);
    out.push(VERSION);
    put_varint(names.len() as u64, out);
    names.iter().for_each(|name| put_text(name, out));
    put_varint(rows.len() as u64, out);
    for row in rows {
        out.extend_from_slice(&row.time.nanos().to_le_bytes());
        out.extend_from_slice(&row.trace.to_le_bytes());
        out.extend_from_slice(&row.span.to_le_bytes());
        out.extend_from_slice(&row.parent.to_le_bytes());
        put_varint(row.duration_nanos.map_or(0, |n| n.max(0) as u64 + 1), out);
        put_varint(row.attributes.len() as u64, out);
        for (name, value) in &row.attributes {
            put_varint(places[name.as_str()], out);
            match value {
                Value::Str(text) => {
                    out.push(0);
                    put_text(text, out);
                }
                Value::Int(n) => {
                    out.push(1);
                    put_varint(((n << 1) ^ (n >> 63)) as u64, out);
                }
                Value::Float(n) => {
                    out.push(2);
                    out.extend_from_slice(&n.to_le_bytes());
                }
                Value::Bool(b) => out.push(if *b { 4 } else { 3 }),
            }
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn wrong<T>(&self, reason: &'static str) -> Result<T, DecodeError> {
        Err(DecodeError { reason, offset: self.at })
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], DecodeError> {
        match self.bytes.get(self.at..).and_then(|rest| rest.get(..n)) {
            Some(taken) => {
                self.at += n;
                Ok(taken)
            }
            None => self.wrong("cut short"),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        Ok(self.take(N)?.try_into().expect("take gives N bytes"))
    }

    fn varint(&mut self) -> Result<u64, DecodeError> {
        let mut n = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            n |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(n);
            }
        }
        self.wrong("a number is too long")
    }

    fn text(&mut self) -> Result<&'a str, DecodeError> {
        let len = self.varint()?;
        let bytes = self.take(usize::try_from(len).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).or_else(|_| self.wrong("text is not UTF-8"))
    }
}

/// Reads a batch. Allocates no more than the bytes can hold.
pub fn decode(bytes: &[u8]) -> Result<Vec<Row>, DecodeError> {
    let mut reader = Reader { bytes, at: 0 };
    if reader.take(1)?[0] != VERSION {
        return reader.wrong("unknown version");
    }
    let n_names = reader.varint()?;
    let mut names = Vec::new();
    for _ in 0..n_names {
        names.push(reader.text()?);
    }
    let n_rows = reader.varint()?;
    let mut rows = Vec::new();
    for _ in 0..n_rows {
        let mut row = Row {
            time: Timestamp::from_nanos(i64::from_le_bytes(reader.array()?)),
            trace: u128::from_le_bytes(reader.array()?),
            span: u64::from_le_bytes(reader.array()?),
            parent: u64::from_le_bytes(reader.array()?),
            ..Row::default()
        };
        row.duration_nanos = match reader.varint()? {
            0 => None,
            n => Some(i64::try_from(n - 1).unwrap_or(i64::MAX)),
        };
        let n_attributes = reader.varint()?;
        if n_attributes > ATTRIBUTES_MAX {
            return reader.wrong("too many attributes");
        }
        for _ in 0..n_attributes {
            let place = reader.varint()? as usize;
            let Some(name) = names.get(place) else { return reader.wrong("no such name") };
            let value = match reader.take(1)?[0] {
                0 => Value::Str(reader.text()?.to_owned()),
                1 => {
                    let n = reader.varint()?;
                    Value::Int((n >> 1) as i64 ^ -((n & 1) as i64))
                }
                2 => Value::Float(f64::from_le_bytes(reader.array()?)),
                3 => Value::Bool(false),
                4 => Value::Bool(true),
                _ => return reader.wrong("unknown tag"),
            };
            row.attributes.push(((*name).to_owned(), value));
        }
        rows.push(row);
    }
    if reader.at != bytes.len() {
        return reader.wrong("bytes left over");
    }
    Ok(rows)
}
