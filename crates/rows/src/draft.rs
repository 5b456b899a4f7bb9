//! A row in the making, from what somebody outside sent. Every way in (OTLP, JSON lines, JUnit) makes its rows here, so that the
//! limits, the times and the weights are the same for all.
//!
//! | what comes | what becomes of it | said in |
//! |---|---|---|
//! | more than [`ATTRIBUTES_MAX`] attributes, more than [`ROW_BYTES_MAX`], a name over [`NAME_BYTES_MAX`] | left out | `meta.dropped_attributes`: how many |
//! | text over [`TEXT_BYTES_MAX`] | cut | `meta.cut`: the names, with commas |
//! | a time before 2000 or more than a day ahead of receipt, or none | replaced by the time of receipt | `meta.time_problem`, `meta.original_time` |
//! | an end before the start, none, or more than a day ahead | no length, or up to the time of receipt | `meta.time_problem`, `meta.original_end_time` |
//! | `SampleRate`, a number from 1 | not an attribute | `meta.sample_rate` |

use std::borrow::Cow;

use vocab::Timestamp;

use crate::row::{Row, Value, ValueRef, names};
use crate::weight;

/// Attributes of one row that come from outside; a few more say what became of it.
pub const ATTRIBUTES_MAX: usize = 1_024;
/// Bytes of an attribute's name.
pub const NAME_BYTES_MAX: usize = 256;
/// Bytes of one text.
pub const TEXT_BYTES_MAX: usize = 16 << 10;
/// Bytes of names and values of one row: many times a wide event, and what a thousand of fit into one request.
pub const ROW_BYTES_MAX: usize = 256 << 10;
/// Bytes of rows in memory that one request may make. A row repeats what its request says once, so that a small request may make large rows;
/// a request of 16 MiB of common spans makes a quarter of this.
const MEMORY_BYTES_MAX: usize = 256 << 20;
/// Bytes of rows in the write-ahead log, where one batch has at most 64 MiB.
const STORED_BYTES_MAX: usize = 60 << 20;
/// What to tell of a row for which there was no room.
pub const NO_ROOM: &str = "the rows of one request would take too much memory: send smaller batches";
/// Bytes of the list of what was cut.
const CUT_BYTES_MAX: usize = 1 << 10;

/// 2000-01-01T00:00:00Z: no telemetry is older, but many a clock that was never set.
const EARLIEST: i128 = 946_684_800_000_000_000;
/// How far a clock may run ahead, and how long something may take whose clock is wrong.
const DAY: i128 = 86_400_000_000_000;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Draft {
    row: Row,
    /// Of names and values from outside.
    bytes: usize,
    dropped: u64,
    /// Names, each with a comma behind it.
    cut: String,
    rate: Option<f64>,
}

/// How much of what one request may make is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Room {
    memory_bytes: usize,
    stored_bytes: usize,
}

impl Room {
    /// Takes room for a row; says whether there is any.
    pub fn take(&mut self, row: &Row) -> bool {
        let (mut memory_bytes, mut stored_bytes) = (self.memory_bytes + size_of::<Row>(), self.stored_bytes + 64);
        for (name, value) in &row.attributes {
            let bytes = bytes_of(value);
            memory_bytes += size_of::<(String, Value)>() + name.len() + bytes;
            // A name's place, a tag, a length; names are written once a batch.
            stored_bytes += bytes + 12;
        }
        let fits = memory_bytes <= MEMORY_BYTES_MAX && stored_bytes <= STORED_BYTES_MAX;
        if fits {
            *self = Room { memory_bytes, stored_bytes };
        }
        fits
    }
}

/// Text as long as may be stored.
pub fn cut(text: &str) -> &str {
    if text.len() <= TEXT_BYTES_MAX {
        return text;
    }
    let end = (0..=TEXT_BYTES_MAX).rev().find(|n| text.is_char_boundary(*n)).unwrap_or(0);
    &text[..end]
}

impl Draft {
    /// Takes an attribute; a later one of the same name replaces it, as long as there is room for more.
    pub fn put(&mut self, name: &str, value: ValueRef<'_>) {
        match name {
            "SampleRate" | "samplerate" | names::SAMPLE_RATE => match weight::rate(value) {
                Some(rate) => {
                    self.rate = Some(rate);
                    return;
                }
                // It is no weight, and must not look like one.
                None if name == names::SAMPLE_RATE => return self.dropped += 1,
                None => {}
            },
            // Only we say these.
            names::SIGNAL | names::TIME_PROBLEM | names::ORIGINAL_TIME | names::ORIGINAL_END => {
                return self.dropped += 1;
            }
            _ => {}
        }
        if self.row.attributes.len() >= ATTRIBUTES_MAX || name.is_empty() || name.len() > NAME_BYTES_MAX {
            self.dropped += 1;
            return;
        }
        let value = match value {
            ValueRef::Str(text) => {
                let kept = cut(text);
                if kept.len() < text.len() {
                    self.was_cut(name);
                }
                Value::Str(kept.to_owned())
            }
            // No number that can be stored.
            ValueRef::Float(n) if !n.is_finite() => Value::Str(n.to_string()),
            other => other.to_value(),
        };
        let size = bytes_of(&value);
        match self.row.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => {
                self.bytes = self.bytes - bytes_of(old) + size;
                *old = value;
            }
            None if self.bytes + name.len() + size > ROW_BYTES_MAX => self.dropped += 1,
            None => {
                self.bytes += name.len() + size;
                self.row.attributes.push((name.to_owned(), value));
            }
        }
    }

    fn was_cut(&mut self, name: &str) {
        if self.cut.len() + name.len() < CUT_BYTES_MAX {
            self.cut.push_str(name);
            self.cut.push(',');
        }
    }

    /// Says something that every such row has; there is always room for it.
    pub fn say(&mut self, name: &str, value: impl Into<Value>) {
        self.row.set(name, value);
    }

    /// The same for a text from outside.
    pub fn say_text(&mut self, name: &str, text: &str) {
        let kept = cut(text);
        if kept.len() < text.len() {
            self.was_cut(name);
        }
        self.row.set(name, kept);
    }

    /// Counts attributes that somebody before us left out.
    pub fn left_out(&mut self, n: u64) {
        self.dropped = self.dropped.saturating_add(n);
    }

    /// Which trace, span and parent; 0 for none.
    pub fn belongs_to(&mut self, trace: u128, span: u64, parent: u64) {
        (self.row.trace, self.row.span, self.row.parent) = (trace, span, parent);
    }

    /// How often it counts, if it does not say so itself.
    pub fn weigh(&mut self, rate: Option<f64>) {
        self.rate = self.rate.or(rate);
    }

    /// How often it counts; none is once.
    pub fn rate(&self) -> Option<f64> {
        self.rate.filter(|rate| *rate > 1.0)
    }

    /// The row as it is so far.
    pub fn row(&self) -> &Row {
        &self.row
    }

    /// When it was, in nanoseconds since 1970; 0 is not said.
    pub fn at(&mut self, nanos: i128, received: Timestamp) {
        match problem(nanos, received) {
            None => self.row.time = Timestamp::from_nanos(nanos as i64),
            Some(problem) => {
                let original = if nanos == 0 { Cow::Borrowed("") } else { Cow::Owned(nanos.to_string()) };
                self.received(problem, &original, received);
            }
        }
    }

    /// It has no time but that of receipt. `original` is what was there instead, if anything.
    pub fn received(&mut self, problem: &str, original: &str, received: Timestamp) {
        self.row.time = received;
        self.row.set(names::TIME_PROBLEM, problem);
        if !original.is_empty() {
            self.row.set(names::ORIGINAL_TIME, cut(original));
        }
    }

    /// From when to when it was, in nanoseconds since 1970.
    pub fn from_to(&mut self, start: i128, end: i128, received: Timestamp) {
        self.at(start, received);
        let length = end.saturating_sub(start);
        if problem(start, received).is_some() {
            // A clock that is wrong may still run as fast as others.
            let believed = start != 0 && (0..=DAY).contains(&length);
            self.row.duration_nanos = Some(if believed { length as i64 } else { 0 });
            self.row.set(names::ORIGINAL_END, end.to_string());
            return;
        }
        let (problem, length) = match end {
            0 => ("the end is missing", 0),
            end if end < start => ("it ends before it begins", 0),
            end if end > i128::from(received.nanos()) + DAY => {
                ("it ends more than a day ahead", i128::from(received.nanos()) - start)
            }
            _ => {
                self.row.duration_nanos = Some(length as i64);
                return;
            }
        };
        self.row.duration_nanos = Some(length.max(0) as i64);
        self.row.set(names::TIME_PROBLEM, problem);
        self.row.set(names::ORIGINAL_END, end.to_string());
    }

    /// How long it took, in nanoseconds.
    pub fn lasted(&mut self, nanos: f64) {
        // Rounds towards the ends of the range.
        self.row.duration_nanos = (nanos >= 0.0).then_some(nanos as i64);
    }

    /// The row, with what became of it.
    pub fn finish(mut self) -> Row {
        if self.dropped > 0 {
            self.row.set(names::DROPPED_ATTRIBUTES, i64::try_from(self.dropped).unwrap_or(i64::MAX));
        }
        if let Some(list) = self.cut.strip_suffix(',') {
            self.row.set(names::CUT, list);
        }
        if let Some(rate) = self.rate() {
            self.row.set(names::SAMPLE_RATE, rate);
        }
        self.row
    }
}

fn bytes_of(value: &Value) -> usize {
    match value {
        Value::Str(text) => text.len(),
        _ => 8,
    }
}

/// Why a time is not to be believed.
fn problem(nanos: i128, received: Timestamp) -> Option<&'static str> {
    match nanos {
        0 => Some("the time is missing"),
        n if n < EARLIEST => Some("the time is before 2000"),
        n if n > i128::from(received.nanos()) + DAY || i64::try_from(n).is_err() => {
            Some("the time is more than a day ahead")
        }
        _ => None,
    }
}
