//! Rows and values.

use std::fmt;

use vocab::Timestamp;

/// An attribute's value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Text.
    Str(String),
    /// A whole number.
    Int(i64),
    /// A number; never NaN in a stored row.
    Float(f64),
    /// True or false.
    Bool(bool),
}

/// A borrowed value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ValueRef<'a> {
    /// Text.
    Str(&'a str),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl Value {
    /// Borrows.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Value::Str(s) => ValueRef::Str(s),
            Value::Int(n) => ValueRef::Int(*n),
            Value::Float(n) => ValueRef::Float(*n),
            Value::Bool(b) => ValueRef::Bool(*b),
        }
    }
}

impl ValueRef<'_> {
    /// As a number; none for text and truth values.
    pub fn as_f64(self) -> Option<f64> {
        match self {
            ValueRef::Int(n) => Some(n as f64),
            ValueRef::Float(n) => Some(n),
            ValueRef::Str(_) | ValueRef::Bool(_) => None,
        }
    }

    /// As an owned value.
    pub fn to_value(self) -> Value {
        match self {
            ValueRef::Str(s) => Value::Str(s.to_owned()),
            ValueRef::Int(n) => Value::Int(n),
            ValueRef::Float(n) => Value::Float(n),
            ValueRef::Bool(b) => Value::Bool(b),
        }
    }
}

impl fmt::Display for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueRef::Str(s) => f.write_str(s),
            ValueRef::Int(n) => write!(f, "{n}"),
            ValueRef::Float(n) => write!(f, "{n}"),
            ValueRef::Bool(b) => write!(f, "{b}"),
        }
    }
}

impl From<&str> for Value {
    fn from(s: &str) -> Value {
        Value::Str(s.to_owned())
    }
}
impl From<String> for Value {
    fn from(s: String) -> Value {
        Value::Str(s)
    }
}
impl From<i64> for Value {
    fn from(n: i64) -> Value {
        Value::Int(n)
    }
}
impl From<f64> for Value {
    fn from(n: f64) -> Value {
        Value::Float(n)
    }
}
impl From<bool> for Value {
    fn from(b: bool) -> Value {
        Value::Bool(b)
    }
}

/// Attribute names that the platform itself reads or writes.
pub mod names {
    /// What happened: span name, log event name.
    pub const NAME: &str = "name";
    /// Which service said so.
    pub const SERVICE: &str = "service.name";
    /// `trace` (a span), `log`, `metric`, `span_event`, `link`, `event` (JSON lines), `request` (from our proxy).
    pub const SIGNAL: &str = "meta.signal_type";
    /// `span_event` or `link`, on a row that hangs on the span that is its parent.
    pub const ANNOTATION: &str = "meta.annotation_type";
    /// How often the event counts, where others like it were left out by sampling.
    pub const SAMPLE_RATE: &str = "meta.sample_rate";
    /// Attributes that were left out, here or by the sender.
    pub const DROPPED_ATTRIBUTES: &str = "meta.dropped_attributes";
    /// Span events that were left out, here or by the sender.
    pub const DROPPED_EVENTS: &str = "meta.dropped_events";
    /// Links that were left out, here or by the sender.
    pub const DROPPED_LINKS: &str = "meta.dropped_links";
    /// Names of attributes whose text was cut, with commas.
    pub const CUT: &str = "meta.cut";
    /// Why a time was not believed.
    pub const TIME_PROBLEM: &str = "meta.time_problem";
    /// The time that was not believed, as it was sent.
    pub const ORIGINAL_TIME: &str = "meta.original_time";
    /// The end that was not believed, or that of a span whose start was not, as it was sent.
    pub const ORIGINAL_END: &str = "meta.original_end_time";
    /// The subject's pseudonym.
    pub const SUBJECT: &str = "user.id";
    /// The experiment that an exposure belongs to.
    pub const EXPERIMENT: &str = "experiment.id";
    /// `baseline` or `treatment`.
    pub const ARM: &str = "experiment.arm";
    /// The preview that somebody was on.
    pub const PREVIEW: &str = "preview.id";
    /// `true` on the event that reports an exposure.
    pub const EXPOSURE: &str = "experiment.exposure";
    /// `delay` or `abort`, where a fault acted.
    pub const FAULT: &str = "fault.type";
    /// The flag that was evaluated (OpenTelemetry's convention for feature flags).
    pub const FLAG: &str = "feature_flag.key";
    /// Pseudo-field of filters and queries: the duration in milliseconds.
    pub const DURATION_MS: &str = "duration_ms";
    /// Pseudo-field: 32 hex digits.
    pub const TRACE: &str = "trace.trace_id";
    /// Pseudo-field: 16 hex digits.
    pub const SPAN: &str = "trace.span_id";
    /// Pseudo-field: 16 hex digits.
    pub const PARENT: &str = "trace.parent_id";
    /// Names that are written here, whatever is sent: there is always room for them.
    pub const OWN: [&str; 42] = [
        NAME,
        SERVICE,
        SIGNAL,
        ANNOTATION,
        SAMPLE_RATE,
        DROPPED_ATTRIBUTES,
        DROPPED_EVENTS,
        DROPPED_LINKS,
        CUT,
        TIME_PROBLEM,
        ORIGINAL_TIME,
        ORIGINAL_END,
        SUBJECT,
        EXPERIMENT,
        ARM,
        PREVIEW,
        EXPOSURE,
        FAULT,
        FLAG,
        "kind",
        "error",
        "status_message",
        "body",
        "severity",
        "value",
        "otel.scope.name",
        "link.trace_id",
        "link.span_id",
        "metric.name",
        "metric.unit",
        "metric.kind",
        "metric.temporality",
        "metric.monotonic",
        "metric.start_time",
        "metric.no_value",
        "metric.count",
        "metric.sum",
        "metric.min",
        "metric.max",
        "metric.p50",
        "metric.p90",
        "metric.p99",
    ];
    /// Attributes that may name a subject in clear text, in the order they are believed.
    pub const SUBJECT_SOURCES: [&str; 4] = ["user.id", "enduser.id", "session.id", "feature_flag.context.id"];
}

/// One wide event.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// When it began.
    pub time: Timestamp,
    /// How long it took, in nanoseconds; none for what has no length.
    pub duration_nanos: Option<i64>,
    /// Which trace; 0 for none.
    pub trace: u128,
    /// Which span; 0 for none.
    pub span: u64,
    /// Its parent; 0 for none.
    pub parent: u64,
    /// Name and value; a name occurs once.
    pub attributes: Vec<(String, Value)>,
}

impl Row {
    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The value of an attribute if it is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Value::Str(text)) => Some(text),
            _ => None,
        }
    }

    /// Whether it says something beside the work itself: an event of a span, a link, a point of a metric. Such a row counts for no KPI.
    pub fn is_aside(&self) -> bool {
        matches!(self.text(names::SIGNAL), Some("span_event" | "link" | "metric"))
    }

    /// Sets an attribute, replacing an earlier value.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.attributes.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.to_owned(), value)),
        }
    }

    /// With one more attribute.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Row {
        self.set(name, value);
        self
    }

    /// When it ended.
    pub fn end(&self) -> Timestamp {
        Timestamp::from_nanos(self.time.nanos().saturating_add(self.duration_nanos.unwrap_or(0).max(0)))
    }

    /// An attribute or pseudo-field, as filters see it.
    pub fn field(&self, name: &str) -> Option<Value> {
        match name {
            names::DURATION_MS => self.duration_nanos.map(|n| Value::Float(n as f64 / 1e6)),
            names::TRACE => (self.trace != 0).then(|| Value::Str(format!("{:032x}", self.trace))),
            names::SPAN => (self.span != 0).then(|| Value::Str(format!("{:016x}", self.span))),
            names::PARENT => (self.parent != 0).then(|| Value::Str(format!("{:016x}", self.parent))),
            name => self.get(name).cloned(),
        }
    }
}
