//! A field of one chunk, by row: an attribute, a pseudo-field or a calculated field. All access of queries to codes and
//! dictionaries is here and in `select`.

use std::borrow::Cow;

use arrow_array::{Array, Float64Array, Int64Array};
use hashbrown::{DefaultHashBuilder, HashTable};
use rows::{Expression, Operand, Value, ValueRef, names};
use std::hash::BuildHasher;
use vocab::Timestamp;

use super::QueryError;
use crate::chunk::Chunk;
use crate::column::{Codes, Column, Data, Dict};

/// Parts of calculated fields, those they refer to included: what one row may cost.
const COST_MAX: usize = 2_000;

/// Where a field's values come from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Source {
    Attribute(String),
    Time,
    Duration,
    Trace,
    Span,
    Parent,
    Calculated(Box<Expression>, Vec<Source>),
}

impl Source {
    fn cost(&self) -> usize {
        match self {
            Source::Calculated(expression, inputs) => {
                expression.cost() + inputs.iter().map(Source::cost).sum::<usize>()
            }
            _ => 1,
        }
    }
}

/// What names mean in one query over these chunks.
#[derive(Debug)]
pub(crate) struct Names<'a> {
    chunks: &'a [&'a Chunk],
    calculated: Vec<(&'a str, Source)>,
}

impl<'a> Names<'a> {
    /// A calculated field may refer to those before it.
    pub(crate) fn new(
        chunks: &'a [&'a Chunk],
        calculated: &'a [(String, Expression)],
    ) -> Result<Names<'a>, QueryError> {
        let mut names = Names { chunks, calculated: Vec::new() };
        for (name, expression) in calculated {
            let source = names.of_expression(expression.clone())?;
            names.calculated.push((name, source));
        }
        Ok(names)
    }

    pub(crate) fn has_attribute(&self, name: &str) -> bool {
        self.chunks.iter().any(|chunk| chunk.by_name.contains_key(name))
    }

    /// The field of this name.
    pub(crate) fn field(&self, name: &str) -> Source {
        if let Some((_, source)) = self.calculated.iter().find(|(n, _)| *n == name) {
            return source.clone();
        }
        match name {
            names::DURATION_MS => Source::Duration,
            names::TRACE => Source::Trace,
            names::SPAN => Source::Span,
            names::PARENT => Source::Parent,
            rows::TIME if !self.has_attribute(name) => Source::Time,
            _ => Source::Attribute(name.to_owned()),
        }
    }

    fn of_expression(&self, expression: Expression) -> Result<Source, QueryError> {
        let inputs = expression.fields().iter().map(|name| self.plain(name)).collect::<Result<Vec<_>, _>>()?;
        let source = match expression.as_field() {
            Some(_) => inputs.into_iter().next().unwrap_or(Source::Time),
            None => Source::Calculated(Box::new(expression), inputs),
        };
        if source.cost() > COST_MAX {
            return Err(QueryError::Costly { max: COST_MAX });
        }
        Ok(source)
    }

    fn plain(&self, name: &str) -> Result<Source, QueryError> {
        let related = ["root.", "parent.", "any."].iter().any(|prefix| name.starts_with(prefix));
        if related && !self.has_attribute(name) && !self.calculated.iter().any(|(n, _)| *n == name) {
            return Err(QueryError::Related(name.to_owned()));
        }
        Ok(self.field(name))
    }

    /// A field's name or an expression, as written in `group_by` and in calculations.
    pub(crate) fn parse(&self, text: &str) -> Result<Source, QueryError> {
        let text = text.trim();
        let is_name = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '$');
        if !text.is_empty() && text.chars().all(is_name) {
            return self.plain(text);
        }
        let expression = Expression::parse(text)
            .map_err(|source| QueryError::Expression { text: text.chars().take(200).collect(), source })?;
        self.of_expression(expression)
    }
}

/// A column's values by row.
#[derive(Debug)]
pub(crate) enum Lane<'a> {
    Absent,
    Codes8(&'a [u8], &'a Dict),
    Codes16(&'a [u16], &'a Dict),
    Codes32(Cow<'a, [u32]>, &'a Dict),
    Ints(&'a Int64Array),
    Floats(&'a Float64Array),
    Time(&'a [i64]),
    Duration(&'a [i64]),
    Trace(&'a Chunk),
    Span(&'a [u64]),
    /// Columns of one name and several types; a row has at most one of them.
    Several(Vec<Lane<'a>>),
    /// Results by code of the one field that an expression looks at.
    Mapped(Box<Lane<'a>>, Vec<Option<Value>>),
    Calculated(&'a Expression, Vec<Lane<'a>>),
}

fn of_column<'a>(chunk: &'a Chunk, column: &'a Column) -> Lane<'a> {
    let (codes, dict) = match column.data() {
        Data::Ints(v) => return Lane::Ints(v),
        Data::Floats(v) => return Lane::Floats(v),
        Data::Coded { codes, dict } => (codes, dict),
    };
    match codes {
        Codes::Dense8(codes) => Lane::Codes8(codes, dict),
        Codes::Dense16(codes) => Lane::Codes16(codes, dict),
        Codes::Dense32(codes) => Lane::Codes32(Cow::Borrowed(codes), dict),
        Codes::Sparse { .. } => Lane::Codes32(Cow::Owned(codes.dense(chunk.len())), dict),
    }
}

/// 16 or 32 hex digits.
pub(crate) fn hex(id: u128, digits: usize) -> String {
    format!("{id:0digits$x}")
}

impl<'a> Lane<'a> {
    pub(crate) fn of(chunk: &'a Chunk, source: &'a Source) -> Lane<'a> {
        match source {
            Source::Time => Lane::Time(&chunk.time),
            Source::Duration => Lane::Duration(&chunk.duration),
            Source::Trace => Lane::Trace(chunk),
            Source::Span => Lane::Span(&chunk.span),
            Source::Parent => Lane::Span(&chunk.parent),
            Source::Attribute(name) => {
                let mut lanes: Vec<Lane<'a>> = chunk.named(name).map(|column| of_column(chunk, column)).collect();
                match lanes.len() {
                    0 => Lane::Absent,
                    1 => lanes.remove(0),
                    _ => Lane::Several(lanes),
                }
            }
            Source::Calculated(expression, inputs) => {
                let mut lanes: Vec<Lane<'a>> = inputs.iter().map(|input| Lane::of(chunk, input)).collect();
                let n_values = lanes.first().and_then(Lane::dict).map_or(usize::MAX, Dict::len);
                if lanes.len() == 1 && n_values < chunk.len() {
                    let lane = lanes.remove(0);
                    let results = (0..=n_values as u32)
                        .map(|code| {
                            let value = lane.dict().and_then(|dict| dict.get(code));
                            let result = expression.evaluate(&mut |_| value.map(Operand::of));
                            result.map(|r| r.as_ref().to_value())
                        })
                        .collect();
                    return Lane::Mapped(Box::new(lane), results);
                }
                Lane::Calculated(expression, lanes)
            }
        }
    }

    /// The dictionary, if rows hold codes of one.
    pub(crate) fn dict(&self) -> Option<&'a Dict> {
        match self {
            Lane::Codes8(_, dict) | Lane::Codes16(_, dict) | Lane::Codes32(_, dict) => Some(dict),
            _ => None,
        }
    }

    /// A row's code; 0 for absent. Only where [`Lane::dict`] is.
    pub(crate) fn code(&self, row: usize) -> u32 {
        match self {
            Lane::Codes8(codes, _) => u32::from(codes[row]),
            Lane::Codes16(codes, _) => u32::from(codes[row]),
            Lane::Codes32(codes, _) => codes[row],
            _ => 0,
        }
    }

    /// Codes of these rows. Only where [`Lane::dict`] is.
    pub(crate) fn codes(&self, rows: &[u32], out: &mut Vec<u32>) {
        out.clear();
        match self {
            Lane::Codes8(codes, _) => out.extend(rows.iter().map(|r| u32::from(codes[*r as usize]))),
            Lane::Codes16(codes, _) => out.extend(rows.iter().map(|r| u32::from(codes[*r as usize]))),
            Lane::Codes32(codes, _) => out.extend(rows.iter().map(|r| codes[*r as usize])),
            _ => out.resize(rows.len(), 0),
        }
    }

    /// A row's value.
    pub(crate) fn value<'s>(&'s self, row: usize) -> Option<Operand<'s>> {
        match self {
            Lane::Absent => None,
            Lane::Codes8(_, dict) | Lane::Codes16(_, dict) | Lane::Codes32(_, dict) => {
                dict.get(self.code(row)).map(Operand::of)
            }
            Lane::Ints(v) => v.is_valid(row).then(|| Operand::of(ValueRef::Int(v.value(row)))),
            Lane::Floats(v) => v.is_valid(row).then(|| Operand::of(ValueRef::Float(v.value(row)))),
            Lane::Time(nanos) => Some(Operand::Str(Cow::Owned(Timestamp::from_nanos(nanos[row]).to_string()))),
            Lane::Duration(nanos) => (nanos[row] >= 0).then(|| Operand::Float(nanos[row] as f64 / 1e6)),
            Lane::Trace(chunk) => match chunk.trace(row) {
                0 => None,
                id => Some(Operand::Str(Cow::Owned(hex(id, 32)))),
            },
            Lane::Span(ids) => (ids[row] != 0).then(|| Operand::Str(Cow::Owned(hex(ids[row].into(), 16)))),
            Lane::Several(lanes) => lanes.iter().find_map(|lane| lane.value(row)),
            Lane::Mapped(lane, results) => {
                results[lane.code(row) as usize].as_ref().map(|value| Operand::of(value.as_ref()))
            }
            Lane::Calculated(expression, lanes) => expression.evaluate(&mut |place| lanes[place].value(row)),
        }
    }
}

/// A field's numbers by row.
#[derive(Debug)]
pub(crate) struct Numbers<'a> {
    lane: &'a Lane<'a>,
    /// By code; NaN where it is no number.
    by_code: Vec<f64>,
}

impl<'a> Numbers<'a> {
    pub(crate) fn of(lane: &'a Lane<'a>) -> Numbers<'a> {
        let number = |value: Option<ValueRef<'_>>| value.and_then(ValueRef::as_f64).unwrap_or(f64::NAN);
        let by_code = match lane {
            Lane::Mapped(_, results) => results.iter().map(|v| number(v.as_ref().map(Value::as_ref))).collect(),
            _ => match lane.dict() {
                Some(dict) => (0..=dict.len() as u32).map(|code| number(dict.get(code))).collect(),
                None => Vec::new(),
            },
        };
        Numbers { lane, by_code }
    }

    /// The numbers of these rows; NaN for what is absent or no number.
    pub(crate) fn read(&self, rows: &[u32], out: &mut Vec<f64>) {
        out.clear();
        let coded = match self.lane {
            Lane::Mapped(inner, _) => inner,
            lane => lane,
        };
        match coded {
            Lane::Absent => out.resize(rows.len(), f64::NAN),
            Lane::Codes8(codes, _) => {
                out.extend(rows.iter().map(|r| self.by_code[usize::from(codes[*r as usize])]));
            }
            Lane::Codes16(codes, _) => {
                out.extend(rows.iter().map(|r| self.by_code[usize::from(codes[*r as usize])]));
            }
            Lane::Codes32(codes, _) => out.extend(rows.iter().map(|r| self.by_code[codes[*r as usize] as usize])),
            Lane::Ints(v) => out.extend(rows.iter().map(|r| match v.is_valid(*r as usize) {
                true => v.value(*r as usize) as f64,
                false => f64::NAN,
            })),
            Lane::Floats(v) => out.extend(rows.iter().map(|r| match v.is_valid(*r as usize) {
                true => v.value(*r as usize),
                false => f64::NAN,
            })),
            Lane::Duration(nanos) => out.extend(rows.iter().map(|r| match nanos[*r as usize] {
                n if n >= 0 => n as f64 / 1e6,
                _ => f64::NAN,
            })),
            lane => out.extend(
                rows.iter().map(|r| lane.value(*r as usize).and_then(|v| v.as_ref().as_f64()).unwrap_or(f64::NAN)),
            ),
        }
    }
}

/// A value so that whole and other numbers that are equal are one.
pub(crate) fn normal(value: ValueRef<'_>) -> ValueRef<'_> {
    match value {
        // -2^63 to below 2^63: what a whole number can hold.
        ValueRef::Float(x)
            if x.fract() == 0.0 && (-9.223_372_036_854_776e18..9.223_372_036_854_776e18).contains(&x) =>
        {
            ValueRef::Int(x as i64)
        }
        other => other,
    }
}

fn hash_of(hasher: &DefaultHashBuilder, value: Option<ValueRef<'_>>) -> u64 {
    match value {
        None => hasher.hash_one(0_u8),
        Some(ValueRef::Str(text)) => hasher.hash_one((1_u8, text)),
        Some(ValueRef::Int(n)) => hasher.hash_one((2_u8, n)),
        Some(ValueRef::Float(x)) => hasher.hash_one((3_u8, x.to_bits())),
        Some(ValueRef::Bool(b)) => hasher.hash_one((4_u8, b)),
    }
}

fn same(a: ValueRef<'_>, b: ValueRef<'_>) -> bool {
    match (a, b) {
        (ValueRef::Float(a), ValueRef::Float(b)) => a.to_bits() == b.to_bits(),
        (a, b) => a == b,
    }
}

/// Values seen so far, each with a number; 0 is what is absent.
#[derive(Debug)]
pub(crate) struct Interner {
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    values: Vec<Option<Value>>,
}

impl Default for Interner {
    fn default() -> Interner {
        Interner { hasher: DefaultHashBuilder::default(), table: HashTable::new(), values: vec![None] }
    }
}

impl Interner {
    pub(crate) fn find(&self, value: Option<ValueRef<'_>>) -> Option<u32> {
        let Some(value) = value.map(normal) else { return Some(0) };
        let is_it = |n: &u32| self.values[*n as usize].as_ref().is_some_and(|v| same(v.as_ref(), value));
        self.table.find(hash_of(&self.hasher, Some(value)), is_it).copied()
    }

    /// Its number, and how many bytes were taken for it.
    pub(crate) fn intern(&mut self, value: Option<ValueRef<'_>>) -> (u32, usize) {
        if let Some(found) = self.find(value) {
            return (found, 0);
        }
        let owned = value.map(|v| normal(v).to_value());
        let hash = hash_of(&self.hasher, owned.as_ref().map(Value::as_ref));
        let bytes = 48
            + match &owned {
                Some(Value::Str(text)) => text.len(),
                _ => 0,
            };
        let number = self.values.len() as u32;
        self.values.push(owned);
        let (hasher, values) = (&self.hasher, &self.values);
        self.table.insert_unique(hash, number, |n| hash_of(hasher, values[*n as usize].as_ref().map(Value::as_ref)));
        (number, bytes)
    }

    pub(crate) fn value(&self, number: u32) -> Option<&Value> {
        self.values.get(number as usize).and_then(Option::as_ref)
    }

    /// Values but the absent one.
    pub(crate) fn values(&self) -> &[Option<Value>] {
        &self.values
    }
}

/// A 64-bit hash of a value, all bits well mixed, equal for equal numbers; the same on every thread of a query and in every
/// process, so that estimates can be merged and repeated.
pub(crate) fn mixed_hash(value: ValueRef<'_>) -> u64 {
    let mut x = crate::column::value_hash(normal(value));
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
