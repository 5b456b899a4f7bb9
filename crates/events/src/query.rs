//! Questions: filter, group by, count, sum, average, percentiles, over time; and raw rows.

use std::time::Instant;

use hashbrown::{HashMap, HashSet};
use rows::{Filter, Row, Value, names};
use vocab::{Millis, Timestamp};

use crate::chunk::Chunk;
use crate::column::value_hash;
use crate::store::Store;

/// Groups kept per answer; further ones are counted together as "other groups".
const GROUPS_MAX: usize = 100_000;
/// Distinct values counted exactly; beyond it the count says "at least".
const DISTINCT_MAX: usize = 5_000_000;

/// A question.
#[derive(Clone, Debug)]
pub struct Query {
    /// Which rows.
    pub filter: Filter,
    /// From this time on.
    pub from: Timestamp,
    /// Before this time.
    pub to: Timestamp,
    /// Attributes to group by, in order.
    pub group_by: Vec<String>,
    /// What to calculate; none asks for raw rows, newest first.
    pub calculate: Vec<Calculation>,
    /// Width of time buckets; none is one for all.
    pub step: Option<Millis>,
    /// Rows in the answer, largest first by the first calculation.
    pub limit: usize,
}

/// One figure per group.
#[derive(Clone, Debug, PartialEq)]
pub enum Calculation {
    /// Rows.
    Count,
    /// Distinct values of a field.
    CountDistinct(String),
    /// Sum of a field.
    Sum(String),
    /// Average of a field.
    Avg(String),
    /// Smallest value of a field.
    Min(String),
    /// Largest value of a field.
    Max(String),
    /// A percentile of a field, in (0, 100); within 1 % of the value.
    Percentile(f64, String),
}

/// Why a question cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// Not a calculation.
    #[error(
        "{0:?} is no calculation: expected count, count_distinct(f), sum(f), avg(f), min(f), max(f) or p50(f) … p99.9(f)"
    )]
    Calculation(String),
}

impl Calculation {
    /// Reads `count`, `sum(field)`, `p99(field)` and so on.
    pub fn parse(text: &str) -> Result<Calculation, QueryError> {
        let wrong = || QueryError::Calculation(text.to_owned());
        let trimmed = text.trim();
        if trimmed.eq_ignore_ascii_case("count") {
            return Ok(Calculation::Count);
        }
        let (name, rest) = trimmed.split_once('(').ok_or_else(wrong)?;
        let field = rest.strip_suffix(')').map(str::trim).filter(|f| !f.is_empty()).ok_or_else(wrong)?.to_owned();
        match name.trim().to_ascii_lowercase().as_str() {
            "count_distinct" => Ok(Calculation::CountDistinct(field)),
            "sum" => Ok(Calculation::Sum(field)),
            "avg" => Ok(Calculation::Avg(field)),
            "min" => Ok(Calculation::Min(field)),
            "max" => Ok(Calculation::Max(field)),
            percentile => {
                let p: f64 = percentile.strip_prefix('p').and_then(|p| p.parse().ok()).ok_or_else(wrong)?;
                if p > 0.0 && p < 100.0 { Ok(Calculation::Percentile(p, field)) } else { Err(wrong()) }
            }
        }
    }

    fn field(&self) -> Option<&str> {
        match self {
            Calculation::Count => None,
            Calculation::CountDistinct(f)
            | Calculation::Sum(f)
            | Calculation::Avg(f)
            | Calculation::Min(f)
            | Calculation::Max(f)
            | Calculation::Percentile(_, f) => Some(f),
        }
    }
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// One per group and time bucket.
    pub groups: Vec<Group>,
    /// Raw rows, if no calculation was asked for.
    pub raw: Vec<Row>,
    /// Rows that were looked at.
    pub rows_scanned: u64,
    /// Rows that matched.
    pub rows_matched: u64,
    /// How long it took.
    pub elapsed_ms: f64,
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Start of the time bucket, if asked for.
    pub time: Option<Timestamp>,
    /// Values of the attributes grouped by; none is absent.
    pub keys: Vec<Option<Value>>,
    /// The figures in the order asked for; none where no row had the field.
    pub figures: Vec<Option<f64>>,
}

#[derive(Clone, Debug)]
enum Accumulator {
    Count(u64),
    Distinct(HashSet<u64>),
    Moments { n: u64, sum: f64, min: f64, max: f64 },
    Sketch { n: u64, buckets: std::collections::BTreeMap<i32, u64> },
}

/// Width of the sketch's buckets: values within one differ by 2 %, its middle is off by at most 1 %.
const SKETCH_GAMMA: f64 = 1.02;

fn bucket(value: f64) -> i32 {
    // Zero and less share buckets with their sign: negative values mirror positive ones.
    let index = |x: f64| ((x.max(1e-9) / 1e-9).ln() / SKETCH_GAMMA.ln()).ceil() as i32 + 1;
    if value > 0.0 {
        index(value)
    } else if value < 0.0 {
        -index(-value)
    } else {
        0
    }
}

fn middle(bucket: i32) -> f64 {
    let value = |b: i32| 1e-9 * SKETCH_GAMMA.powi(b - 1) * 2.0 / (1.0 + SKETCH_GAMMA);
    match bucket {
        0 => 0.0,
        b if b > 0 => value(b),
        b => -value(-b),
    }
}

impl Accumulator {
    fn new(calculation: &Calculation) -> Accumulator {
        match calculation {
            Calculation::Count => Accumulator::Count(0),
            Calculation::CountDistinct(_) => Accumulator::Distinct(HashSet::new()),
            Calculation::Percentile(..) => Accumulator::Sketch { n: 0, buckets: Default::default() },
            _ => Accumulator::Moments { n: 0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY },
        }
    }

    fn add(&mut self, number: Option<f64>, hash: Option<u64>) {
        match self {
            Accumulator::Count(n) => *n += 1,
            Accumulator::Distinct(set) => {
                if let Some(hash) = hash.filter(|_| set.len() < DISTINCT_MAX) {
                    set.insert(hash);
                }
            }
            Accumulator::Moments { n, sum, min, max } => {
                if let Some(x) = number {
                    (*n, *sum, *min, *max) = (*n + 1, *sum + x, min.min(x), max.max(x));
                }
            }
            Accumulator::Sketch { n, buckets } => {
                if let Some(x) = number {
                    *n += 1;
                    *buckets.entry(bucket(x)).or_default() += 1;
                }
            }
        }
    }

    fn figure(&self, calculation: &Calculation) -> Option<f64> {
        match (self, calculation) {
            (Accumulator::Count(n), _) => Some(*n as f64),
            (Accumulator::Distinct(set), _) => Some(set.len() as f64),
            (Accumulator::Moments { n: 0, .. }, _) | (Accumulator::Sketch { n: 0, .. }, _) => None,
            (Accumulator::Moments { sum, .. }, Calculation::Sum(_)) => Some(*sum),
            (Accumulator::Moments { n, sum, .. }, Calculation::Avg(_)) => Some(sum / *n as f64),
            (Accumulator::Moments { min, .. }, Calculation::Min(_)) => Some(*min),
            (Accumulator::Moments { max, .. }, _) => Some(*max),
            (Accumulator::Sketch { n, buckets }, Calculation::Percentile(p, _)) => {
                let rank = ((p / 100.0 * *n as f64).ceil() as u64).max(1);
                let mut seen = 0;
                buckets
                    .iter()
                    .find(|(_, count)| {
                        seen += **count;
                        seen >= rank
                    })
                    .map(|(b, _)| middle(*b))
            }
            (Accumulator::Sketch { .. }, _) => None,
        }
    }
}

/// Dense codes of a column, and number and hash by code.
type Coded = (Vec<u32>, Vec<Option<f64>>, Vec<u64>);

/// A field of one chunk, ready for random access: number and hash by row.
struct FieldView {
    columns: Vec<Coded>,
    durations: bool,
    ids: Option<String>,
}

impl FieldView {
    fn new(chunk: &Chunk, field: &str) -> FieldView {
        let ids = matches!(field, names::TRACE | names::SPAN | names::PARENT).then(|| field.to_owned());
        let columns = chunk
            .named(field)
            .map(|column| match column.coded() {
                Some((codes, dict)) => {
                    let values = || (0..=dict.len() as u32).map(|code| dict.get(code));
                    let numbers = values().map(|v| v.and_then(|v| v.as_f64())).collect();
                    let hashes = values().map(|v| v.map_or(0, value_hash)).collect();
                    (codes.dense(chunk.len()), numbers, hashes)
                }
                None => {
                    let values = || (0..chunk.len()).map(|row| column.get(row));
                    let numbers = std::iter::once(None).chain(values().map(|v| v.and_then(|v| v.as_f64()))).collect();
                    let hashes = std::iter::once(0).chain(values().map(|v| v.map_or(0, value_hash))).collect();
                    let codes = values().enumerate().map(|(row, v)| v.map_or(0, |_| row as u32 + 1)).collect();
                    (codes, numbers, hashes)
                }
            })
            .collect();
        FieldView { columns, durations: field == names::DURATION_MS, ids }
    }

    fn at(&self, chunk: &Chunk, row: usize) -> (Option<f64>, Option<u64>) {
        if self.durations {
            let nanos = chunk.duration[row];
            return if nanos < 0 { (None, None) } else { (Some(nanos as f64 / 1e6), Some(nanos as u64)) };
        }
        if let Some(name) = &self.ids {
            return (None, chunk.pseudo(name, row).map(|v| value_hash(v.as_ref())));
        }
        for (codes, numbers, hashes) in &self.columns {
            let code = codes[row] as usize;
            if code != 0 {
                return (numbers[code], Some(hashes[code]));
            }
        }
        (None, None)
    }
}

/// Values seen while grouping, each with a number.
#[derive(Default)]
struct Values {
    places: HashMap<(u64, u8), u32>,
    values: Vec<Option<Value>>,
}

impl Values {
    fn intern(&mut self, value: Option<Value>) -> u32 {
        let key = match &value {
            None => (0, 0),
            Some(v) => (value_hash(v.as_ref()), 1),
        };
        *self.places.entry(key).or_insert_with(|| {
            self.values.push(value);
            self.values.len() as u32 - 1
        })
    }
}

/// For each selected row the number of its value of `field`.
fn group_codes(chunk: &Chunk, field: &str, rows: &[u32], values: &mut Values) -> Vec<u32> {
    if matches!(field, names::TRACE | names::SPAN | names::PARENT | names::DURATION_MS) {
        return rows.iter().map(|row| values.intern(chunk.pseudo(field, *row as usize))).collect();
    }
    let absent = values.intern(None);
    let mut codes = vec![absent; rows.len()];
    for column in chunk.named(field) {
        let Some((column_codes, dict)) = column.coded() else {
            for (out, row) in codes.iter_mut().zip(rows) {
                if let (Some(value), true) = (column.get(*row as usize), *out == absent) {
                    *out = values.intern(Some(value.to_value()));
                }
            }
            continue;
        };
        let dense = column_codes.dense(chunk.len());
        let mut known: Vec<Option<u32>> = vec![None; dict.len() + 1];
        for (out, row) in codes.iter_mut().zip(rows) {
            let code = dense[*row as usize] as usize;
            if code != 0 && *out == absent {
                *out = *known[code].get_or_insert_with(|| values.intern(dict.get(code as u32).map(|v| v.to_value())));
            }
        }
    }
    codes
}

impl Store {
    /// Answers.
    pub fn query(&self, query: &Query) -> Answer {
        let began = Instant::now();
        let mut answer = Answer::default();
        let mut values: Vec<Values> = query.group_by.iter().map(|_| Values::default()).collect();
        let mut groups: HashMap<(i64, Vec<u32>), Vec<Accumulator>> = HashMap::new();
        self.parts().chunks.iter().for_each(|chunk| {
            answer.rows_scanned += chunk.len() as u64;
            let selected = chunk.select(&query.filter, query.from, query.to);
            let rows: Vec<u32> = selected.rows().map(|r| r as u32).collect();
            answer.rows_matched += rows.len() as u64;
            if rows.is_empty() {
                return;
            }
            if query.calculate.is_empty() {
                // Keeps the newest: later chunks push older rows out.
                let from = rows.len().saturating_sub(query.limit);
                answer.raw.extend(chunk.rows(&rows[from..]));
                answer.raw.sort_by_key(|row| std::cmp::Reverse(row.time));
                answer.raw.truncate(query.limit);
                return;
            }
            let codes: Vec<Vec<u32>> = query
                .group_by
                .iter()
                .zip(&mut values)
                .map(|(field, values)| group_codes(chunk, field, &rows, values))
                .collect();
            let views: Vec<Option<FieldView>> =
                query.calculate.iter().map(|c| c.field().map(|f| FieldView::new(chunk, f))).collect();
            let mut key = (0, vec![0; codes.len()]);
            for (place, row) in rows.iter().enumerate() {
                let row = *row as usize;
                key.0 = query.step.map_or(0, |step| chunk.time[row].div_euclid(step.nanos().max(1)));
                key.1.iter_mut().zip(&codes).for_each(|(k, c)| *k = c[place]);
                if groups.len() >= GROUPS_MAX && !groups.contains_key(&key) {
                    continue;
                }
                if !groups.contains_key(&key) {
                    groups.insert(key.clone(), query.calculate.iter().map(Accumulator::new).collect());
                }
                let Some(accumulators) = groups.get_mut(&key) else { continue };
                for (accumulator, view) in accumulators.iter_mut().zip(&views) {
                    let (number, hash) = view.as_ref().map_or((None, None), |v| v.at(chunk, row));
                    accumulator.add(number, hash);
                }
            }
        });
        answer.groups = groups
            .into_iter()
            .map(|((slot, codes), accumulators)| Group {
                time: query.step.map(|step| Timestamp::from_nanos(slot.saturating_mul(step.nanos().max(1)))),
                keys: codes.iter().zip(&values).map(|(c, v)| v.values[*c as usize].clone()).collect(),
                figures: accumulators.iter().zip(&query.calculate).map(|(a, c)| a.figure(c)).collect(),
            })
            .collect();
        answer.groups.sort_by(|a, b| {
            let figure = |g: &Group| g.figures.first().copied().flatten().unwrap_or(f64::NEG_INFINITY);
            a.time.cmp(&b.time).then(figure(b).total_cmp(&figure(a))).then_with(|| {
                let text = |g: &Group| g.keys.iter().flatten().map(|v| v.as_ref().to_string()).collect::<Vec<_>>();
                text(a).cmp(&text(b))
            })
        });
        answer.groups.truncate(query.limit);
        answer.elapsed_ms = began.elapsed().as_secs_f64() * 1e3;
        answer
    }
}
