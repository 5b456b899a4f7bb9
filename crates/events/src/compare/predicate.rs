//! One condition on one attribute: a value, a range, or that it is absent; as text, as a filter, and as a set of rows.

use rows::Value;

use super::attribute::Attribute;
use super::cells;
use super::number::{Range, bin_of};
use super::side::Part;

/// Characters of a value that are shown.
const SHOWN_MAX: usize = 200;
/// Characters of a value that a filter may quote; a filter has a limit of its own.
const QUOTED_MAX: usize = 2_000;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Predicate {
    Value(Value, u64),
    Range(Range),
    Absent,
}

fn field(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '$');
    let word = ["and", "or", "not", "in", "exists", "contains"].contains(&name.to_ascii_lowercase().as_str());
    if name.chars().all(plain) && !word { name.to_owned() } else { format!("`{name}`") }
}

impl Predicate {
    /// The value for people.
    pub(super) fn text(&self) -> String {
        match self {
            Predicate::Value(value, _) => value.as_ref().to_string().chars().take(SHOWN_MAX).collect(),
            Predicate::Range(range) => range.text(),
            Predicate::Absent => "(absent)".to_owned(),
        }
    }

    /// What kind of condition, in the API's words.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Predicate::Value(Value::Str(_), _) => "string",
            Predicate::Value(Value::Int(_), _) => "int",
            Predicate::Value(Value::Float(_), _) => "float",
            Predicate::Value(Value::Bool(_), _) => "bool",
            Predicate::Range(_) => "range",
            Predicate::Absent => "absent",
        }
    }

    /// For a sentence: `region = eu`, `payload_bytes >= 1179648`.
    pub(super) fn sentence(&self, name: &str) -> String {
        match self {
            Predicate::Range(range) if range.low.is_some() != range.high.is_some() => {
                format!("{name} {}", range.text())
            }
            other => format!("{name} = {}", other.text()),
        }
    }

    /// A filter that exactly these rows satisfy; empty where the language has none.
    pub(super) fn filter(&self, name: &str) -> String {
        let field = field(name);
        match self {
            Predicate::Value(Value::Str(text), _) if text.chars().count() > QUOTED_MAX => String::new(),
            Predicate::Value(Value::Str(text), _) => {
                format!("{field} = '{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
            }
            Predicate::Value(value, _) => format!("{field} = {}", value.as_ref()),
            Predicate::Range(range) => range.filter(&field),
            Predicate::Absent => format!("not {field} exists"),
        }
    }

    /// Calls `each` with the places in `rows` of part `number` where it holds; ascending within a column, and each once.
    pub(super) fn each(
        &self,
        parts: &[Part<'_>],
        attribute: &Attribute,
        number: usize,
        rows: &[u32],
        mut each: impl FnMut(usize),
    ) {
        let here = attribute.places.iter().filter(|(part, _)| *part == number);
        let columns = here.map(|(part, column)| &parts[*part].chunk.columns[*column]);
        match self {
            Predicate::Value(value, hash) => {
                for column in columns {
                    let codes = cells::codes_of(column, value, *hash);
                    match codes[..] {
                        [] => {}
                        [one] => cells::gather(column, rows, |place, code| {
                            if code == one {
                                each(place);
                            }
                        }),
                        _ => cells::gather(column, rows, |place, code| {
                            if codes.contains(&code) {
                                each(place);
                            }
                        }),
                    }
                }
            }
            Predicate::Range(range) => {
                for column in columns.filter(|c| cells::is_number(c)) {
                    cells::gather(column, rows, |place, code| {
                        if bin_of(cells::value(column, code)).is_some_and(|b| range.holds(b)) {
                            each(place);
                        }
                    });
                }
            }
            Predicate::Absent => {
                let mut present = vec![false; rows.len()];
                for column in columns {
                    cells::gather(column, rows, |place, _| present[place] = true);
                }
                present.iter().enumerate().filter(|(_, p)| !**p).for_each(|(place, _)| each(place));
            }
        }
    }
}
