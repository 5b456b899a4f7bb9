//! Which fields there are in a time: types, how many events have them, some values.

use std::collections::BTreeMap;

use rows::Value;
use vocab::Timestamp;

use super::budget::{Budget, share_out};
use super::select::{Check, select};
use crate::chunk::Chunk;
use crate::column::Kind;

/// Sample values of a field.
const SAMPLES: usize = 5;
/// Fields in one answer. Further ones are counted.
const FIELDS_MAX: usize = 10_000;

/// A field.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FieldFound {
    /// `text`, `int`, `float`, `bool`, in this order; several if services disagree.
    pub types: Vec<&'static str>,
    /// Events that have it.
    pub rows: u64,
    /// The most frequent values of some chunks, most frequent first.
    pub samples: Vec<(Value, u64)>,
}

/// Fields by name.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    /// By name.
    pub fields: BTreeMap<String, FieldFound>,
    /// Events in the time range.
    pub rows: u64,
    /// Why the answer is not whole.
    pub incomplete: Vec<String>,
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Str => "text",
        Kind::Int => "int",
        Kind::Float => "float",
        Kind::Bool => "bool",
    }
}

pub(crate) fn fields(chunks: &[&Chunk], (from, to): (Timestamp, Timestamp), budget: &Budget) -> Fields {
    let parts = share_out(chunks, Fields::default, |found, _, chunk| {
        budget.check()?;
        let mask = select(chunk, &Check::All, from, to);
        let n_selected = mask.count();
        found.rows += n_selected as u64;
        if n_selected == 0 {
            return Ok(());
        }
        let whole = n_selected == chunk.len();
        let selected = if whole { Vec::new() } else { mask.rows() };
        for column in &chunk.columns {
            budget.check()?;
            if found.fields.len() >= FIELDS_MAX && !found.fields.contains_key(&*column.name) {
                continue;
            }
            let (codes, dict) = column.as_coded();
            let mut counts = vec![0_u32; dict.len() + 1];
            if whole {
                codes.for_each(|_, code| counts[code as usize] += 1);
            } else {
                let codes = codes.dense(chunk.len());
                selected.iter().for_each(|row| counts[codes[*row as usize] as usize] += 1);
                counts[0] = 0;
            }
            let present: u64 = counts[1..].iter().map(|n| u64::from(*n)).sum();
            if present == 0 {
                continue;
            }
            let field = found.fields.entry(column.name.to_string()).or_default();
            field.rows += present;
            if !field.types.contains(&word(column.kind)) {
                field.types.push(word(column.kind));
            }
            let mut best: Vec<(u32, u32)> =
                (1..counts.len() as u32).map(|code| (counts[code as usize], code)).filter(|(n, _)| *n > 0).collect();
            if best.len() > SAMPLES {
                best.select_nth_unstable_by(SAMPLES - 1, |a, b| b.cmp(a));
                best.truncate(SAMPLES);
            }
            for (n, code) in best {
                if let Some(value) = dict.get(code) {
                    add(&mut field.samples, value.to_value(), n.into());
                }
            }
        }
        Ok(())
    });
    let mut all = Fields::default();
    for part in parts {
        all.rows += part.rows;
        for (name, field) in part.fields {
            let ours = all.fields.entry(name).or_default();
            ours.rows += field.rows;
            ours.types.extend(field.types);
            field.samples.into_iter().for_each(|(value, n)| add(&mut ours.samples, value, n));
        }
    }
    for field in all.fields.values_mut() {
        let order = ["text", "int", "float", "bool"];
        field.types = order.into_iter().filter(|word| field.types.contains(word)).collect();
        field.samples.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| super::answer::order_of(a.0.as_ref(), b.0.as_ref())));
        field.samples.truncate(SAMPLES);
    }
    if all.fields.len() >= FIELDS_MAX {
        all.incomplete.push(format!("there are more than {FIELDS_MAX} fields: further ones are left out"));
    }
    all
}

fn add(samples: &mut Vec<(Value, u64)>, value: Value, n: u64) {
    match samples.iter_mut().find(|(v, _)| *v == value) {
        Some((_, count)) => *count += n,
        None => samples.push((value, n)),
    }
}
