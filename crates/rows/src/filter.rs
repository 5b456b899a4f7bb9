//! The language of `--where`.
//!
//! ```text
//! duration_ms > 1000 and (service.name = 'web' or not http.route exists) and device in ('tv', 'phone') and name contains 'play'
//! ```
//!
//! Comparisons: `=`, `!=`, `<`, `<=`, `>`, `>=`, `contains`, `does-not-contain`, `starts-with`, `ends-with`, `matches` (a
//! regular expression), `in (…)`, `not in (…)`, `exists`, `not exists`. A row without the field satisfies no comparison, as
//! in SQL; ask for it with `field not exists`. Whole numbers and others compare by value; text and numbers never equal each
//! other. `time` is when the event began, compared with RFC 3339 text. A field with other characters than letters, digits,
//! `.`, `_`, `-`, `/` and `$` is written in backticks.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use vocab::Timestamp;

use crate::row::{Row, Value, ValueRef};
use crate::scan::Scan;

/// The pseudo-field that is when an event began.
pub const TIME: &str = "time";

/// A compiled pattern takes no more bytes than this; a longer one is refused.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const DEPTH_MAX: usize = 64;
const LENGTH_MAX: usize = 16 << 10;

/// A parsed condition; keeps its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Condition,
}

/// What a filter is made of.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// Every row.
    All,
    /// One comparison.
    Test(Test),
    /// Each of these.
    And(Vec<Condition>),
    /// At least one of these.
    Or(Vec<Condition>),
    /// Not this.
    Not(Box<Condition>),
}

/// A regular expression that keeps its text.
#[derive(Clone, Debug)]
pub struct Pattern(regex::Regex);

impl Pattern {
    /// Compiles; linear in the text it is tried on.
    pub fn new(text: &str) -> Result<Pattern, String> {
        let built = regex::RegexBuilder::new(text).size_limit(PATTERN_BYTES_MAX).build();
        built.map(Pattern).map_err(|e| match e {
            regex::Error::CompiledTooBig(_) => "the regular expression is too large".to_owned(),
            other => {
                // The library draws a picture over several lines; its last one says what is wrong.
                let text = other.to_string();
                let last = text.lines().last().unwrap_or_default();
                format!("not a regular expression: {}", last.trim_start_matches("error: "))
            }
        })
    }

    /// Whether it occurs in the text.
    pub fn is_in(&self, text: &str) -> bool {
        self.0.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Pattern) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

/// One comparison of one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Test {
    /// The attribute or pseudo-field.
    pub field: String,
    /// How it is compared.
    pub comparison: Comparison,
}

/// How a field is compared.
#[derive(Clone, Debug, PartialEq)]
pub enum Comparison {
    /// Present.
    Exists,
    /// `=`
    Equal(Value),
    /// `!=`
    NotEqual(Value),
    /// `<`
    Less(Value),
    /// `<=`
    LessEqual(Value),
    /// `>`
    Greater(Value),
    /// `>=`
    GreaterEqual(Value),
    /// Text within text.
    Contains(String),
    /// Text at the start of text.
    StartsWith(String),
    /// Text at the end of text.
    EndsWith(String),
    /// Not text within text.
    ContainsNot(String),
    /// A regular expression that occurs in the text.
    Matches(Pattern),
    /// One of these.
    In(Vec<Value>),
    /// None of these.
    NotIn(Vec<Value>),
}

/// Why a text is no filter, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("filter, at character {at}: {reason}")]
pub struct ParseFilterError {
    /// Counted from 1.
    pub at: usize,
    /// What is wrong and what is expected.
    pub reason: String,
}

fn order(a: ValueRef<'_>, b: ValueRef<'_>) -> Option<std::cmp::Ordering> {
    match (a, b) {
        (ValueRef::Str(a), ValueRef::Str(b)) => Some(a.cmp(b)),
        (ValueRef::Bool(a), ValueRef::Bool(b)) => Some(a.cmp(&b)),
        (ValueRef::Int(a), ValueRef::Int(b)) => Some(a.cmp(&b)),
        (a, b) => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

impl Comparison {
    /// Whether a field with this value, or without one, satisfies it.
    pub fn holds(&self, value: Option<ValueRef<'_>>) -> bool {
        let Some(value) = value else { return false };
        let with = |other: &Value| order(value, other.as_ref());
        match self {
            Comparison::Exists => true,
            Comparison::Equal(other) => with(other).is_some_and(|o| o.is_eq()),
            Comparison::NotEqual(other) => !with(other).is_some_and(|o| o.is_eq()),
            Comparison::Less(other) => with(other).is_some_and(|o| o.is_lt()),
            Comparison::LessEqual(other) => with(other).is_some_and(|o| o.is_le()),
            Comparison::Greater(other) => with(other).is_some_and(|o| o.is_gt()),
            Comparison::GreaterEqual(other) => with(other).is_some_and(|o| o.is_ge()),
            Comparison::Contains(part) => matches!(value, ValueRef::Str(text) if text.contains(part)),
            Comparison::StartsWith(part) => matches!(value, ValueRef::Str(text) if text.starts_with(part)),
            Comparison::EndsWith(part) => matches!(value, ValueRef::Str(text) if text.ends_with(part)),
            Comparison::ContainsNot(part) => !matches!(value, ValueRef::Str(text) if text.contains(part)),
            Comparison::Matches(pattern) => matches!(value, ValueRef::Str(text) if pattern.is_in(text)),
            Comparison::In(others) => others.iter().any(|other| with(other).is_some_and(|o| o.is_eq())),
            Comparison::NotIn(others) => !others.iter().any(|other| with(other).is_some_and(|o| o.is_eq())),
        }
    }

    /// The same comparison of nanoseconds since the epoch, where the values are times in RFC 3339; the value that is none
    /// otherwise. Comparisons of text as text make no sense on times and are refused as well.
    pub fn of_time(&self) -> Result<Comparison, String> {
        let nanos = |value: &Value| match value {
            Value::Str(text) => Timestamp::parse(text).map(|t| Value::Int(t.nanos())).map_err(|e| e.to_string()),
            other => Err(format!("{} is not a time such as '2026-11-23T09:00:00Z'", other.as_ref())),
        };
        let all = |values: &[Value]| values.iter().map(nanos).collect::<Result<Vec<_>, _>>();
        Ok(match self {
            Comparison::Exists => Comparison::Exists,
            Comparison::Equal(v) => Comparison::Equal(nanos(v)?),
            Comparison::NotEqual(v) => Comparison::NotEqual(nanos(v)?),
            Comparison::Less(v) => Comparison::Less(nanos(v)?),
            Comparison::LessEqual(v) => Comparison::LessEqual(nanos(v)?),
            Comparison::Greater(v) => Comparison::Greater(nanos(v)?),
            Comparison::GreaterEqual(v) => Comparison::GreaterEqual(nanos(v)?),
            Comparison::In(v) => Comparison::In(all(v)?),
            Comparison::NotIn(v) => Comparison::NotIn(all(v)?),
            _ => return Err("a time is compared with = != < <= > >= in".to_owned()),
        })
    }
}

impl Filter {
    /// The filter that every row satisfies.
    pub fn all() -> Filter {
        Filter { text: String::new(), root: Condition::All }
    }

    /// Parses; an empty text is [`Filter::all`].
    pub fn parse(text: &str) -> Result<Filter, ParseFilterError> {
        let mut parser = Parser { scan: Scan::new(text) };
        if text.len() > LENGTH_MAX {
            return parser.wrong("longer than 16 KiB");
        }
        parser.scan.skip();
        if parser.scan.rest().is_empty() {
            return Ok(Filter::all());
        }
        let root = parser.or(0)?;
        parser.scan.skip();
        if !parser.scan.rest().is_empty() {
            return parser.wrong("expected and, or, or the end");
        }
        Ok(Filter { text: text.trim().to_owned(), root })
    }

    /// What it is made of.
    pub fn root(&self) -> &Condition {
        &self.root
    }

    /// Whether a row satisfies it.
    pub fn matches(&self, row: &Row) -> bool {
        self.evaluate(&mut |test| match row.get(&test.field) {
            Some(value) => test.comparison.holds(Some(value.as_ref())),
            None if test.field == TIME => {
                test.comparison.of_time().is_ok_and(|c| c.holds(Some(ValueRef::Int(row.time.nanos()))))
            }
            None => test.comparison.holds(row.field(&test.field).as_ref().map(Value::as_ref)),
        })
    }

    /// Evaluates with the result of each comparison given by `test`; stops as soon as the answer is clear.
    pub fn evaluate(&self, test: &mut dyn FnMut(&Test) -> bool) -> bool {
        fn walk(node: &Condition, test: &mut dyn FnMut(&Test) -> bool) -> bool {
            match node {
                Condition::All => true,
                Condition::Test(t) => test(t),
                Condition::And(nodes) => nodes.iter().all(|n| walk(n, test)),
                Condition::Or(nodes) => nodes.iter().any(|n| walk(n, test)),
                Condition::Not(inner) => !walk(inner, test),
            }
        }
        walk(&self.root, test)
    }

    /// Folds over the structure with sets: `test` gives the set of a comparison, `all` the set of everything.
    pub fn fold<S>(
        &self,
        all: &dyn Fn() -> S,
        test: &mut dyn FnMut(&Test) -> S,
        and: &dyn Fn(S, S) -> S,
        or: &dyn Fn(S, S) -> S,
        not: &dyn Fn(S) -> S,
    ) -> S {
        struct Ops<'a, S> {
            all: &'a dyn Fn() -> S,
            and: &'a dyn Fn(S, S) -> S,
            or: &'a dyn Fn(S, S) -> S,
            not: &'a dyn Fn(S) -> S,
        }
        fn walk<S>(node: &Condition, ops: &Ops<'_, S>, test: &mut dyn FnMut(&Test) -> S) -> S {
            let mut join = |nodes: &[Condition], with: &dyn Fn(S, S) -> S| {
                let mut sets = nodes.iter().map(|n| walk(n, ops, test)).collect::<Vec<_>>().into_iter();
                let first = sets.next().unwrap_or_else(|| (ops.all)());
                sets.fold(first, with)
            };
            match node {
                Condition::All => (ops.all)(),
                Condition::And(nodes) => join(nodes, ops.and),
                Condition::Or(nodes) => join(nodes, ops.or),
                Condition::Test(t) => test(t),
                Condition::Not(inner) => (ops.not)(walk(inner, ops, test)),
            }
        }
        walk(&self.root, &Ops { all, and, or, not }, test)
    }

    /// The fields it looks at, each once, in order of appearance.
    pub fn fields(&self) -> Vec<&str> {
        fn walk<'a>(node: &'a Condition, fields: &mut Vec<&'a str>) {
            match node {
                Condition::All => {}
                Condition::Test(t) => {
                    if !fields.contains(&t.field.as_str()) {
                        fields.push(&t.field);
                    }
                }
                Condition::And(nodes) | Condition::Or(nodes) => nodes.iter().for_each(|n| walk(n, fields)),
                Condition::Not(inner) => walk(inner, fields),
            }
        }
        let mut fields = Vec::new();
        walk(&self.root, &mut fields);
        fields
    }
}

impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Filter, D::Error> {
        Filter::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

struct Parser<'a> {
    scan: Scan<'a>,
}

impl Parser<'_> {
    fn wrong<T>(&self, reason: &str) -> Result<T, ParseFilterError> {
        Err(ParseFilterError { at: self.scan.character(self.scan.at), reason: reason.to_owned() })
    }

    fn or(&mut self, depth: usize) -> Result<Condition, ParseFilterError> {
        let mut nodes = vec![self.and(depth)?];
        while self.scan.word("or") {
            nodes.push(self.and(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Condition::Or(nodes) })
    }

    fn and(&mut self, depth: usize) -> Result<Condition, ParseFilterError> {
        let mut nodes = vec![self.not(depth)?];
        while self.scan.word("and") {
            nodes.push(self.not(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Condition::And(nodes) })
    }

    fn not(&mut self, depth: usize) -> Result<Condition, ParseFilterError> {
        if depth > DEPTH_MAX {
            return self.wrong("nested deeper than 64 levels");
        }
        if self.scan.word("not") {
            return Ok(Condition::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.scan.symbol("(") {
            let inner = self.or(depth + 1)?;
            if !self.scan.symbol(")") {
                return self.wrong("expected )");
            }
            return Ok(inner);
        }
        let field = self.field()?;
        if self.scan.word("not-exists") {
            return Ok(Condition::Not(Box::new(Condition::Test(Test { field, comparison: Comparison::Exists }))));
        }
        if self.scan.word("not") {
            if self.scan.word("exists") {
                return Ok(Condition::Not(Box::new(Condition::Test(Test { field, comparison: Comparison::Exists }))));
            }
            if self.scan.word("in") {
                return Ok(Condition::Test(Test { field, comparison: Comparison::NotIn(self.list()?) }));
            }
            return self.wrong("expected in or exists after not");
        }
        let comparison = self.comparison()?;
        Ok(Condition::Test(Test { field, comparison }))
    }

    fn field(&mut self) -> Result<String, ParseFilterError> {
        self.scan.skip();
        if self.scan.symbol("`") {
            return match self.scan.backticked() {
                Some(name) => Ok(name.to_owned()),
                None => self.wrong("expected a field name and a closing backtick"),
            };
        }
        match self.scan.name() {
            "" => self.wrong("expected a field name"),
            name => Ok(name.to_owned()),
        }
    }

    fn comparison(&mut self) -> Result<Comparison, ParseFilterError> {
        if self.scan.word("exists") {
            return Ok(Comparison::Exists);
        }
        if self.scan.word("contains") {
            return Ok(Comparison::Contains(self.text_literal()?));
        }
        if self.scan.word("starts-with") {
            return Ok(Comparison::StartsWith(self.text_literal()?));
        }
        if self.scan.word("ends-with") {
            return Ok(Comparison::EndsWith(self.text_literal()?));
        }
        if self.scan.word("does-not-contain") {
            return Ok(Comparison::ContainsNot(self.text_literal()?));
        }
        if self.scan.word("matches") {
            self.scan.skip();
            let at = self.scan.at;
            let text = self.text_literal()?;
            return match Pattern::new(&text) {
                Ok(pattern) => Ok(Comparison::Matches(pattern)),
                Err(reason) => {
                    self.scan.at = at;
                    self.wrong(&reason)
                }
            };
        }
        if self.scan.word("in") {
            return Ok(Comparison::In(self.list()?));
        }
        if self.scan.word("not-in") {
            return Ok(Comparison::NotIn(self.list()?));
        }
        for (symbol, make) in [
            ("!=", Comparison::NotEqual as fn(Value) -> Comparison),
            ("<=", Comparison::LessEqual),
            (">=", Comparison::GreaterEqual),
            ("==", Comparison::Equal),
            ("=", Comparison::Equal),
            ("<", Comparison::Less),
            (">", Comparison::Greater),
        ] {
            if self.scan.symbol(symbol) {
                return Ok(make(self.literal()?));
            }
        }
        self.wrong(
            "expected one of = != < <= > >= contains does-not-contain starts-with ends-with matches in, not in, exists, \
             not exists",
        )
    }

    fn list(&mut self) -> Result<Vec<Value>, ParseFilterError> {
        if !self.scan.symbol("(") {
            return self.wrong("expected ( after in");
        }
        let mut values = vec![self.literal()?];
        while self.scan.symbol(",") {
            values.push(self.literal()?);
        }
        if !self.scan.symbol(")") {
            return self.wrong("expected , or )");
        }
        Ok(values)
    }

    fn text_literal(&mut self) -> Result<String, ParseFilterError> {
        match self.literal()? {
            Value::Str(text) => Ok(text),
            _ => self.wrong("expected text in quotes"),
        }
    }

    fn literal(&mut self) -> Result<Value, ParseFilterError> {
        self.scan.skip();
        if self.scan.word("true") {
            return Ok(Value::Bool(true));
        }
        if self.scan.word("false") {
            return Ok(Value::Bool(false));
        }
        let rest = self.scan.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            return match self.scan.quoted(quote) {
                Some(text) => Ok(Value::Str(text)),
                None => self.wrong("a quote is not closed"),
            };
        }
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'))).unwrap_or(rest.len());
        let word = &rest[..end];
        let starts_as_number = word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.'));
        let value = match (word.parse::<i64>(), word.parse::<f64>()) {
            (Ok(n), _) => Value::Int(n),
            (_, Ok(n)) if n.is_finite() && starts_as_number => Value::Float(n),
            _ => return self.wrong("expected a number, true, false, or text in quotes"),
        };
        self.scan.at += end;
        Ok(value)
    }
}
