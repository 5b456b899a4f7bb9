//! The language of `--where`.
//!
//! ```text
//! duration_ms > 1000 and (service.name = 'web' or not http.route exists) and device in ('tv', 'phone') and name contains 'play'
//! ```
//!
//! Comparisons: `=`, `!=`, `<`, `<=`, `>`, `>=`, `contains`, `starts-with`, `in (…)`, `exists`. A row without the field
//! satisfies no comparison, as in SQL; ask for it with `not field exists`. Whole numbers and others compare by value; text
//! and numbers never equal each other. A field with other characters than letters, digits, `.`, `_`, `-` and `/` is
//! written in backticks.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::row::{Row, Value, ValueRef};

const DEPTH_MAX: usize = 64;
const LENGTH_MAX: usize = 16 << 10;

/// A parsed condition; keeps its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    text: String,
    root: Node,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    All,
    Test(Test),
    And(Vec<Node>),
    Or(Vec<Node>),
    Not(Box<Node>),
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
    /// One of these.
    In(Vec<Value>),
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
            Comparison::In(others) => others.iter().any(|other| with(other).is_some_and(|o| o.is_eq())),
        }
    }
}

impl Filter {
    /// The filter that every row satisfies.
    pub fn all() -> Filter {
        Filter { text: String::new(), root: Node::All }
    }

    /// Parses; an empty text is [`Filter::all`].
    pub fn parse(text: &str) -> Result<Filter, ParseFilterError> {
        let mut parser = Parser { text, at: 0 };
        if text.len() > LENGTH_MAX {
            return parser.wrong("longer than 16 KiB");
        }
        parser.skip();
        if parser.rest().is_empty() {
            return Ok(Filter::all());
        }
        let root = parser.or(0)?;
        parser.skip();
        if !parser.rest().is_empty() {
            return parser.wrong("expected and, or, or the end");
        }
        Ok(Filter { text: text.trim().to_owned(), root })
    }

    /// Whether a row satisfies it.
    pub fn matches(&self, row: &Row) -> bool {
        self.evaluate(&mut |test| match row.get(&test.field) {
            Some(value) => test.comparison.holds(Some(value.as_ref())),
            None => test.comparison.holds(row.field(&test.field).as_ref().map(Value::as_ref)),
        })
    }

    /// Evaluates with the result of each comparison given by `test`; stops as soon as the answer is clear.
    pub fn evaluate(&self, test: &mut dyn FnMut(&Test) -> bool) -> bool {
        fn walk(node: &Node, test: &mut dyn FnMut(&Test) -> bool) -> bool {
            match node {
                Node::All => true,
                Node::Test(t) => test(t),
                Node::And(nodes) => nodes.iter().all(|n| walk(n, test)),
                Node::Or(nodes) => nodes.iter().any(|n| walk(n, test)),
                Node::Not(inner) => !walk(inner, test),
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
        fn walk<S>(node: &Node, ops: &Ops<'_, S>, test: &mut dyn FnMut(&Test) -> S) -> S {
            let mut join = |nodes: &[Node], with: &dyn Fn(S, S) -> S| {
                let mut sets = nodes.iter().map(|n| walk(n, ops, test)).collect::<Vec<_>>().into_iter();
                let first = sets.next().unwrap_or_else(|| (ops.all)());
                sets.fold(first, with)
            };
            match node {
                Node::All => (ops.all)(),
                Node::And(nodes) => join(nodes, ops.and),
                Node::Or(nodes) => join(nodes, ops.or),
                Node::Test(t) => test(t),
                Node::Not(inner) => (ops.not)(walk(inner, ops, test)),
            }
        }
        walk(&self.root, &Ops { all, and, or, not }, test)
    }

    /// The fields it looks at, each once, in order of appearance.
    pub fn fields(&self) -> Vec<&str> {
        fn walk<'a>(node: &'a Node, fields: &mut Vec<&'a str>) {
            match node {
                Node::All => {}
                Node::Test(t) => {
                    if !fields.contains(&t.field.as_str()) {
                        fields.push(&t.field);
                    }
                }
                Node::And(nodes) | Node::Or(nodes) => nodes.iter().for_each(|n| walk(n, fields)),
                Node::Not(inner) => walk(inner, fields),
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
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn wrong<T>(&self, reason: &str) -> Result<T, ParseFilterError> {
        Err(ParseFilterError {
            at: self.text[..self.at.min(self.text.len())].chars().count() + 1,
            reason: reason.to_owned(),
        })
    }

    /// Takes a word if it stands alone here.
    fn word(&mut self, word: &str) -> bool {
        self.skip();
        let Some(head) = self.rest().get(..word.len()) else { return false };
        let alone = self.rest()[word.len()..].chars().next().is_none_or(|c| !is_field_char(c));
        let taken = head.eq_ignore_ascii_case(word) && alone;
        if taken {
            self.at += word.len();
        }
        taken
    }

    fn symbol(&mut self, symbol: &str) -> bool {
        self.skip();
        let taken = self.rest().starts_with(symbol);
        if taken {
            self.at += symbol.len();
        }
        taken
    }

    fn or(&mut self, depth: usize) -> Result<Node, ParseFilterError> {
        let mut nodes = vec![self.and(depth)?];
        while self.word("or") {
            nodes.push(self.and(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::Or(nodes) })
    }

    fn and(&mut self, depth: usize) -> Result<Node, ParseFilterError> {
        let mut nodes = vec![self.not(depth)?];
        while self.word("and") {
            nodes.push(self.not(depth)?);
        }
        Ok(if nodes.len() == 1 { nodes.remove(0) } else { Node::And(nodes) })
    }

    fn not(&mut self, depth: usize) -> Result<Node, ParseFilterError> {
        if depth > DEPTH_MAX {
            return self.wrong("nested deeper than 64 levels");
        }
        if self.word("not") {
            return Ok(Node::Not(Box::new(self.not(depth + 1)?)));
        }
        if self.symbol("(") {
            let inner = self.or(depth + 1)?;
            if !self.symbol(")") {
                return self.wrong("expected )");
            }
            return Ok(inner);
        }
        let field = self.field()?;
        let comparison = self.comparison()?;
        Ok(Node::Test(Test { field, comparison }))
    }

    fn field(&mut self) -> Result<String, ParseFilterError> {
        self.skip();
        if self.symbol("`") {
            let end = match self.rest().find('`') {
                Some(end) if end > 0 => end,
                _ => return self.wrong("expected a field name and a closing backtick"),
            };
            let field = self.rest()[..end].to_owned();
            self.at += end + 1;
            return Ok(field);
        }
        let end = self.rest().find(|c| !is_field_char(c)).unwrap_or(self.rest().len());
        if end == 0 {
            return self.wrong("expected a field name");
        }
        let field = self.rest()[..end].to_owned();
        self.at += end;
        Ok(field)
    }

    fn comparison(&mut self) -> Result<Comparison, ParseFilterError> {
        if self.word("exists") {
            return Ok(Comparison::Exists);
        }
        if self.word("contains") {
            return Ok(Comparison::Contains(self.text_literal()?));
        }
        if self.word("starts-with") {
            return Ok(Comparison::StartsWith(self.text_literal()?));
        }
        if self.word("in") {
            if !self.symbol("(") {
                return self.wrong("expected ( after in");
            }
            let mut values = vec![self.literal()?];
            while self.symbol(",") {
                values.push(self.literal()?);
            }
            if !self.symbol(")") {
                return self.wrong("expected , or )");
            }
            return Ok(Comparison::In(values));
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
            if self.symbol(symbol) {
                return Ok(make(self.literal()?));
            }
        }
        self.wrong("expected one of = != < <= > >= contains starts-with in exists")
    }

    fn text_literal(&mut self) -> Result<String, ParseFilterError> {
        match self.literal()? {
            Value::Str(text) => Ok(text),
            _ => self.wrong("expected text in quotes"),
        }
    }

    fn literal(&mut self) -> Result<Value, ParseFilterError> {
        self.skip();
        if self.word("true") {
            return Ok(Value::Bool(true));
        }
        if self.word("false") {
            return Ok(Value::Bool(false));
        }
        let rest = self.rest();
        if let Some(quote) = rest.chars().next().filter(|c| matches!(c, '\'' | '"')) {
            let mut text = String::new();
            let mut chars = rest.char_indices().skip(1);
            while let Some((n, c)) = chars.next() {
                match c {
                    '\\' => match chars.next() {
                        Some((_, escaped)) => text.push(escaped),
                        None => break,
                    },
                    c if c == quote => {
                        self.at += n + 1;
                        return Ok(Value::Str(text));
                    }
                    c => text.push(c),
                }
            }
            return self.wrong("a quote is not closed");
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
        self.at += end;
        Ok(value)
    }
}

fn is_field_char(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '$')
}
