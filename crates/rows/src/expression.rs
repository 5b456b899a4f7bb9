//! The language of calculated fields.
//!
//! ```text
//! if(http.response.status_code >= 500, 'failed', concat(service.name, ' ', lower(http.route)))
//! bucket(duration_ms, 100)
//! ```
//!
//! | written | gives |
//! |---|---|
//! | `+ - * / %`, unary `-` | numbers. Whole numbers stay whole but for `/`, and where they would overflow |
//! | `= == != < <= > >=` | a truth value |
//! | `and or not` | a truth value; what is absent counts as false |
//! | `if(c, a, b)`, `if(c, a)` | a where c is true, else b, or nothing |
//! | `coalesce(a, b, …)` | the first that is there |
//! | `exists(f)` | whether it is there |
//! | `concat(a, b, …)`, `lower(a)`, `upper(a)`, `length(a)` | text; characters |
//! | `contains(a, b)`, `starts_with(a, b)`, `ends_with(a, b)` | a truth value |
//! | `log10(x)`, `floor(x)`, `ceil(x)`, `abs(x)`, `bucket(x, width)` | numbers; `bucket` is the largest multiple of width that is not above x |
//! | `cast(x, 'int' / 'float' / 'text' / 'bool')` | the value as that type; nothing where it cannot be |
//!
//! What is absent makes the result absent, except where said; so do a division by zero and values of the wrong type, because
//! a field may have values of several types. What can be known before any value is seen (a function that does not exist, the
//! wrong number of arguments, text times a number) is an error with its place. `-` and `/` may be part of a field's name, so
//! as operators they need a space before them.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::row::{Value, ValueRef};
use crate::scan::Scan;

/// Longer is refused.
const LENGTH_MAX: usize = 4 << 10;
/// Nested deeper is refused.
const DEPTH_MAX: usize = 32;
/// What `concat` makes is cut at this many bytes.
const TEXT_BYTES_MAX: usize = 64 << 10;

/// Why a text is no expression, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expression, at character {at}: {reason}")]
pub struct ParseExpressionError {
    /// Counted from 1.
    pub at: usize,
    /// What is wrong and what is expected.
    pub reason: String,
}

/// A value that an expression made or passed on.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand<'a> {
    /// Text.
    Str(Cow<'a, str>),
    /// A whole number.
    Int(i64),
    /// A number.
    Float(f64),
    /// True or false.
    Bool(bool),
}

impl<'a> Operand<'a> {
    /// Borrows.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Operand::Str(s) => ValueRef::Str(s),
            Operand::Int(n) => ValueRef::Int(*n),
            Operand::Float(n) => ValueRef::Float(*n),
            Operand::Bool(b) => ValueRef::Bool(*b),
        }
    }

    /// From a stored value.
    pub fn of(value: ValueRef<'a>) -> Operand<'a> {
        match value {
            ValueRef::Str(s) => Operand::Str(Cow::Borrowed(s)),
            ValueRef::Int(n) => Operand::Int(n),
            ValueRef::Float(n) => Operand::Float(n),
            ValueRef::Bool(b) => Operand::Bool(b),
        }
    }

    fn number(x: f64) -> Option<Operand<'a>> {
        x.is_finite().then_some(Operand::Float(x))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Any,
    Text,
    Number,
    Truth,
}

impl Type {
    fn words(self) -> &'static str {
        match self {
            Type::Any => "a value",
            Type::Text => "text",
            Type::Number => "a number",
            Type::Truth => "true or false",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Infix {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Function {
    If,
    Coalesce,
    Exists,
    Concat,
    Lower,
    Upper,
    Length,
    Contains,
    StartsWith,
    EndsWith,
    Log10,
    Floor,
    Ceil,
    Abs,
    Bucket,
    Cast,
}

/// Name, what it is, the fewest and most arguments, what each must be, what it gives.
const FUNCTIONS: [(&str, Function, usize, usize, Type, Type); 16] = [
    ("if", Function::If, 2, 3, Type::Any, Type::Any),
    ("coalesce", Function::Coalesce, 1, 20, Type::Any, Type::Any),
    ("exists", Function::Exists, 1, 1, Type::Any, Type::Truth),
    ("concat", Function::Concat, 1, 20, Type::Any, Type::Text),
    ("lower", Function::Lower, 1, 1, Type::Text, Type::Text),
    ("upper", Function::Upper, 1, 1, Type::Text, Type::Text),
    ("length", Function::Length, 1, 1, Type::Text, Type::Number),
    ("contains", Function::Contains, 2, 2, Type::Text, Type::Truth),
    ("starts_with", Function::StartsWith, 2, 2, Type::Text, Type::Truth),
    ("ends_with", Function::EndsWith, 2, 2, Type::Text, Type::Truth),
    ("log10", Function::Log10, 1, 1, Type::Number, Type::Number),
    ("floor", Function::Floor, 1, 1, Type::Number, Type::Number),
    ("ceil", Function::Ceil, 1, 1, Type::Number, Type::Number),
    ("abs", Function::Abs, 1, 1, Type::Number, Type::Number),
    ("bucket", Function::Bucket, 2, 2, Type::Number, Type::Number),
    ("cast", Function::Cast, 2, 2, Type::Any, Type::Any),
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Target {
    Int,
    Float,
    Text,
    Truth,
}

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Literal(Value),
    /// Place in `fields`.
    Field(usize),
    Infix(Infix, Box<Node>, Box<Node>),
    Minus(Box<Node>),
    Not(Box<Node>),
    Call(Function, Vec<Node>),
    Cast(Box<Node>, Target),
}

/// A parsed expression; keeps its text.
#[derive(Clone, Debug, PartialEq)]
pub struct Expression {
    text: String,
    fields: Vec<String>,
    root: Node,
    n_nodes: usize,
}

impl Expression {
    /// Parses.
    pub fn parse(text: &str) -> Result<Expression, ParseExpressionError> {
        let mut parser = Parser { scan: Scan::new(text), fields: Vec::new(), n_nodes: 0 };
        if text.len() > LENGTH_MAX {
            return parser.wrong("longer than 4 KiB");
        }
        let (root, _) = parser.or(0)?;
        parser.scan.skip();
        if !parser.scan.rest().is_empty() {
            return parser.wrong("expected an operator or the end; a field with other characters stands in backticks");
        }
        Ok(Expression { text: text.trim().to_owned(), fields: parser.fields, root, n_nodes: parser.n_nodes })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The fields it looks at, each once, in order of appearance.
    pub fn fields(&self) -> &[String] {
        &self.fields
    }

    /// Its one field, if it is nothing but a field.
    pub fn as_field(&self) -> Option<&str> {
        match self.root {
            Node::Field(place) => Some(&self.fields[place]),
            _ => None,
        }
    }

    /// Of how many parts it is made: what it costs to evaluate.
    pub fn cost(&self) -> usize {
        self.n_nodes
    }

    /// Evaluates with the value of each of [`Expression::fields`] given by its place.
    pub fn evaluate<'a>(&'a self, field: &mut dyn FnMut(usize) -> Option<Operand<'a>>) -> Option<Operand<'a>> {
        evaluate(&self.root, field)
    }
}

fn truth(value: Option<&Operand<'_>>) -> bool {
    matches!(value, Some(Operand::Bool(true)))
}

fn order(a: &Operand<'_>, b: &Operand<'_>) -> Option<Ordering> {
    match (a, b) {
        (Operand::Str(a), Operand::Str(b)) => Some(a.cmp(b)),
        (Operand::Bool(a), Operand::Bool(b)) => Some(a.cmp(b)),
        (Operand::Int(a), Operand::Int(b)) => Some(a.cmp(b)),
        (a, b) => a.as_ref().as_f64()?.partial_cmp(&b.as_ref().as_f64()?),
    }
}

fn arithmetic<'a>(infix: Infix, a: &Operand<'_>, b: &Operand<'_>) -> Option<Operand<'a>> {
    if let (Operand::Int(a), Operand::Int(b)) = (a, b) {
        let whole = match infix {
            Infix::Add => a.checked_add(*b),
            Infix::Subtract => a.checked_sub(*b),
            Infix::Multiply => a.checked_mul(*b),
            Infix::Remainder => a.checked_rem(*b),
            _ => None,
        };
        if let Some(n) = whole {
            return Some(Operand::Int(n));
        }
    }
    let (a, b) = (a.as_ref().as_f64()?, b.as_ref().as_f64()?);
    Operand::number(match infix {
        Infix::Add => a + b,
        Infix::Subtract => a - b,
        Infix::Multiply => a * b,
        Infix::Divide => a / b,
        _ => a % b,
    })
}

fn evaluate<'a>(node: &'a Node, field: &mut dyn FnMut(usize) -> Option<Operand<'a>>) -> Option<Operand<'a>> {
    match node {
        Node::Literal(value) => Some(Operand::of(value.as_ref())),
        Node::Field(place) => field(*place),
        Node::Not(inner) => Some(Operand::Bool(!truth(evaluate(inner, field).as_ref()))),
        Node::Minus(inner) => match evaluate(inner, field)? {
            Operand::Int(n) => Some(n.checked_neg().map_or(Operand::Float(-(n as f64)), Operand::Int)),
            Operand::Float(x) => Some(Operand::Float(-x)),
            _ => None,
        },
        Node::Infix(Infix::And, a, b) => {
            Some(Operand::Bool(truth(evaluate(a, field).as_ref()) && truth(evaluate(b, field).as_ref())))
        }
        Node::Infix(Infix::Or, a, b) => {
            Some(Operand::Bool(truth(evaluate(a, field).as_ref()) || truth(evaluate(b, field).as_ref())))
        }
        Node::Infix(infix, a, b) => {
            let (a, b) = (evaluate(a, field)?, evaluate(b, field)?);
            let compared = |holds: fn(Ordering) -> bool| Some(Operand::Bool(order(&a, &b).is_some_and(holds)));
            match infix {
                Infix::Equal => compared(Ordering::is_eq),
                // As in filters: values of two types differ.
                Infix::NotEqual => Some(Operand::Bool(!order(&a, &b).is_some_and(Ordering::is_eq))),
                Infix::Less => compared(Ordering::is_lt),
                Infix::LessEqual => compared(Ordering::is_le),
                Infix::Greater => compared(Ordering::is_gt),
                Infix::GreaterEqual => compared(Ordering::is_ge),
                _ => arithmetic(*infix, &a, &b),
            }
        }
        Node::Cast(inner, target) => cast(evaluate(inner, field)?, *target),
        Node::Call(function, arguments) => call(*function, arguments, field),
    }
}

fn call<'a>(
    function: Function,
    arguments: &'a [Node],
    field: &mut dyn FnMut(usize) -> Option<Operand<'a>>,
) -> Option<Operand<'a>> {
    match function {
        Function::If => {
            let chosen = if truth(evaluate(&arguments[0], field).as_ref()) { 1 } else { 2 };
            return arguments.get(chosen).and_then(|node| evaluate(node, field));
        }
        Function::Coalesce => return arguments.iter().find_map(|node| evaluate(node, field)),
        Function::Exists => return Some(Operand::Bool(evaluate(&arguments[0], field).is_some())),
        Function::Concat => {
            let mut text = String::new();
            for node in arguments {
                match evaluate(node, field)? {
                    Operand::Str(part) => text.push_str(&part),
                    other => text.push_str(&other.as_ref().to_string()),
                }
                if text.len() > TEXT_BYTES_MAX {
                    let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
                    text.truncate(end);
                    break;
                }
            }
            return Some(Operand::Str(Cow::Owned(text)));
        }
        _ => {}
    }
    let first = evaluate(arguments.first()?, field)?;
    match (function, &first) {
        (Function::Lower, Operand::Str(text)) => return Some(Operand::Str(Cow::Owned(text.to_lowercase()))),
        (Function::Upper, Operand::Str(text)) => return Some(Operand::Str(Cow::Owned(text.to_uppercase()))),
        (Function::Length, Operand::Str(text)) => return Some(Operand::Int(text.chars().count() as i64)),
        (Function::Contains | Function::StartsWith | Function::EndsWith, Operand::Str(text)) => {
            let Operand::Str(part) = evaluate(&arguments[1], field)? else { return None };
            return Some(Operand::Bool(match function {
                Function::Contains => text.contains(&*part),
                Function::StartsWith => text.starts_with(&*part),
                _ => text.ends_with(&*part),
            }));
        }
        (Function::Floor | Function::Ceil, Operand::Int(n)) => return Some(Operand::Int(*n)),
        (Function::Abs, Operand::Int(n)) => {
            return Some(n.checked_abs().map_or(Operand::Float((*n as f64).abs()), Operand::Int));
        }
        _ => {}
    }
    let x = first.as_ref().as_f64()?;
    match function {
        Function::Log10 => Operand::number(x.log10()),
        Function::Floor => Operand::number(x.floor()),
        Function::Ceil => Operand::number(x.ceil()),
        Function::Abs => Operand::number(x.abs()),
        Function::Bucket => {
            let width = evaluate(&arguments[1], field)?;
            if let (Operand::Int(n), Operand::Int(width)) = (&first, &width) {
                return (*width > 0).then(|| Operand::Int(n.saturating_sub(n.rem_euclid(*width))));
            }
            let width = width.as_ref().as_f64().filter(|w| *w > 0.0)?;
            Operand::number((x / width).floor() * width)
        }
        _ => None,
    }
}

fn cast(value: Operand<'_>, target: Target) -> Option<Operand<'_>> {
    match (target, value) {
        (Target::Text, Operand::Str(text)) => Some(Operand::Str(text)),
        (Target::Text, other) => Some(Operand::Str(Cow::Owned(other.as_ref().to_string()))),
        (Target::Int, Operand::Int(n)) => Some(Operand::Int(n)),
        (Target::Int, Operand::Float(x)) => {
            // 2^63 is the first number that does not fit; the cast itself would saturate.
            (x.abs() < 9.223_372_036_854_775e18).then_some(Operand::Int(x as i64))
        }
        (Target::Int, Operand::Bool(b)) => Some(Operand::Int(i64::from(b))),
        (Target::Int, Operand::Str(text)) => text.trim().parse().ok().map(Operand::Int),
        (Target::Float, Operand::Bool(b)) => Some(Operand::Float(f64::from(u8::from(b)))),
        (Target::Float, Operand::Str(text)) => text.trim().parse().ok().and_then(Operand::number),
        (Target::Float, other) => other.as_ref().as_f64().map(Operand::Float),
        (Target::Truth, Operand::Bool(b)) => Some(Operand::Bool(b)),
        (Target::Truth, Operand::Int(n)) => Some(Operand::Bool(n != 0)),
        (Target::Truth, Operand::Float(x)) => Some(Operand::Bool(x != 0.0)),
        (Target::Truth, Operand::Str(text)) => match text.trim() {
            "true" | "1" => Some(Operand::Bool(true)),
            "false" | "0" => Some(Operand::Bool(false)),
            _ => None,
        },
    }
}

/// A text as the languages of filters and expressions write it.
pub fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

struct Parser<'a> {
    scan: Scan<'a>,
    fields: Vec<String>,
    n_nodes: usize,
}

type Parsed = Result<(Node, Type), ParseExpressionError>;

impl Parser<'_> {
    fn wrong_at<T>(&self, at: usize, reason: impl Into<String>) -> Result<T, ParseExpressionError> {
        Err(ParseExpressionError { at: self.scan.character(at), reason: reason.into() })
    }

    fn wrong<T>(&self, reason: impl Into<String>) -> Result<T, ParseExpressionError> {
        self.wrong_at(self.scan.at, reason)
    }

    fn expect(&self, at: usize, given: Type, wanted: Type) -> Result<(), ParseExpressionError> {
        if given == wanted || given == Type::Any || wanted == Type::Any {
            return Ok(());
        }
        self.wrong_at(at, format!("expected {}, this is {}", wanted.words(), given.words()))
    }

    fn or(&mut self, depth: usize) -> Parsed {
        self.chain(depth, &[("or", Infix::Or)], Self::and)
    }

    fn and(&mut self, depth: usize) -> Parsed {
        self.chain(depth, &[("and", Infix::And)], Self::not)
    }

    fn chain(&mut self, depth: usize, words: &[(&str, Infix)], next: fn(&mut Self, usize) -> Parsed) -> Parsed {
        self.scan.skip();
        let mut at = self.scan.at;
        let (mut left, mut kind) = next(self, depth)?;
        let mut links = 0;
        while let Some((_, infix)) = words.iter().find(|(word, _)| self.scan.word(word)) {
            self.expect(at, kind, Type::Truth)?;
            self.scan.skip();
            at = self.scan.at;
            let (right, right_kind) = next(self, depth)?;
            self.expect(at, right_kind, Type::Truth)?;
            links = self.link(links)?;
            (left, kind) = (self.made(Node::Infix(*infix, Box::new(left), Box::new(right))), Type::Truth);
        }
        Ok((left, kind))
    }

    /// A chain of operators is as deep as it is long.
    fn link(&self, links: usize) -> Result<usize, ParseExpressionError> {
        if links >= 8 * DEPTH_MAX {
            return self.wrong("more than 256 operators in a row");
        }
        Ok(links + 1)
    }

    fn made(&mut self, node: Node) -> Node {
        self.n_nodes += 1;
        node
    }

    fn not(&mut self, depth: usize) -> Parsed {
        if depth > DEPTH_MAX {
            return self.wrong("nested deeper than 32 levels");
        }
        if self.scan.word("not") {
            self.scan.skip();
            let at = self.scan.at;
            let (inner, kind) = self.not(depth + 1)?;
            self.expect(at, kind, Type::Truth)?;
            return Ok((self.made(Node::Not(Box::new(inner))), Type::Truth));
        }
        self.compared(depth)
    }

    fn compared(&mut self, depth: usize) -> Parsed {
        let (left, kind) = self.sum(depth)?;
        for (symbol, infix) in [
            ("!=", Infix::NotEqual),
            ("<=", Infix::LessEqual),
            (">=", Infix::GreaterEqual),
            ("==", Infix::Equal),
            ("=", Infix::Equal),
            ("<", Infix::Less),
            (">", Infix::Greater),
        ] {
            if self.scan.symbol(symbol) {
                self.scan.skip();
                let at = self.scan.at;
                let (right, right_kind) = self.sum(depth)?;
                if kind != Type::Any {
                    self.expect(at, right_kind, kind)?;
                }
                return Ok((self.made(Node::Infix(infix, Box::new(left), Box::new(right))), Type::Truth));
            }
        }
        Ok((left, kind))
    }

    fn sum(&mut self, depth: usize) -> Parsed {
        self.numbers(depth, &[("+", Infix::Add), ("-", Infix::Subtract)], Self::product)
    }

    fn product(&mut self, depth: usize) -> Parsed {
        let words = [("*", Infix::Multiply), ("/", Infix::Divide), ("%", Infix::Remainder)];
        self.numbers(depth, &words, Self::unary)
    }

    fn numbers(&mut self, depth: usize, symbols: &[(&str, Infix)], next: fn(&mut Self, usize) -> Parsed) -> Parsed {
        self.scan.skip();
        let mut at = self.scan.at;
        let (mut left, mut kind) = next(self, depth)?;
        let mut links = 0;
        while let Some((_, infix)) = symbols.iter().find(|(symbol, _)| self.scan.symbol(symbol)) {
            self.expect(at, kind, Type::Number)?;
            self.scan.skip();
            at = self.scan.at;
            let (right, right_kind) = next(self, depth)?;
            self.expect(at, right_kind, Type::Number)?;
            links = self.link(links)?;
            (left, kind) = (self.made(Node::Infix(*infix, Box::new(left), Box::new(right))), Type::Number);
        }
        Ok((left, kind))
    }

    fn unary(&mut self, depth: usize) -> Parsed {
        if depth > DEPTH_MAX {
            return self.wrong("nested deeper than 32 levels");
        }
        if self.scan.symbol("-") {
            self.scan.skip();
            let at = self.scan.at;
            let (inner, kind) = self.unary(depth + 1)?;
            self.expect(at, kind, Type::Number)?;
            return Ok((self.made(Node::Minus(Box::new(inner))), Type::Number));
        }
        self.primary(depth)
    }

    fn primary(&mut self, depth: usize) -> Parsed {
        self.scan.skip();
        if self.scan.symbol("(") {
            let inner = self.or(depth + 1)?;
            if !self.scan.symbol(")") {
                return self.wrong("expected )");
            }
            return Ok(inner);
        }
        if self.scan.symbol("`") {
            let Some(name) = self.scan.backticked() else {
                return self.wrong("expected a field name and a closing backtick");
            };
            let name = name.to_owned();
            return Ok(self.field(name));
        }
        let Some(first) = self.scan.rest().chars().next() else { return self.wrong("expected a value") };
        if matches!(first, '\'' | '"') {
            let Some(text) = self.scan.quoted(first) else { return self.wrong("a quote is not closed") };
            return Ok((self.made(Node::Literal(Value::Str(text))), Type::Text));
        }
        if first.is_ascii_digit() {
            return self.number();
        }
        let at = self.scan.at;
        let name = self.scan.name();
        if name.is_empty() {
            return self.wrong("expected a field, a number, text in quotes, a function or (");
        }
        if self.scan.symbol("(") {
            return self.function(at, name, depth);
        }
        match name.to_ascii_lowercase().as_str() {
            "true" => Ok((self.made(Node::Literal(Value::Bool(true))), Type::Truth)),
            "false" => Ok((self.made(Node::Literal(Value::Bool(false))), Type::Truth)),
            _ => Ok(self.field(name.to_owned())),
        }
    }

    fn field(&mut self, name: String) -> (Node, Type) {
        let place = self.fields.iter().position(|f| *f == name).unwrap_or_else(|| {
            self.fields.push(name);
            self.fields.len() - 1
        });
        (self.made(Node::Field(place)), Type::Any)
    }

    fn number(&mut self) -> Parsed {
        let bytes = self.scan.rest().as_bytes();
        let mut end = 0;
        while end < bytes.len() {
            let exponent_sign = matches!(bytes[end], b'+' | b'-') && matches!(bytes[end - 1], b'e' | b'E');
            if !(bytes[end].is_ascii_alphanumeric() || bytes[end] == b'.' || exponent_sign) {
                break;
            }
            end += 1;
        }
        let word = &self.scan.rest()[..end];
        let value = match (word.parse::<i64>(), word.parse::<f64>()) {
            (Ok(n), _) => Value::Int(n),
            (_, Ok(x)) if x.is_finite() => Value::Float(x),
            _ => {
                return self
                    .wrong(format!("{word:?} is not a number; a field that begins with a digit stands in backticks"));
            }
        };
        self.scan.at += end;
        Ok((self.made(Node::Literal(value)), Type::Number))
    }

    fn function(&mut self, at: usize, name: &str, depth: usize) -> Parsed {
        if depth > DEPTH_MAX {
            return self.wrong("nested deeper than 32 levels");
        }
        let found = FUNCTIONS.iter().find(|f| f.0.eq_ignore_ascii_case(name));
        let Some((name, function, fewest, most, wanted, gives)) = found else {
            let names: Vec<&str> = FUNCTIONS.iter().map(|f| f.0).collect();
            return self.wrong_at(at, format!("there is no function {name:?}; there are {}", names.join(", ")));
        };
        let mut arguments = Vec::new();
        let mut kinds = Vec::new();
        let mut places = Vec::new();
        if !self.scan.symbol(")") {
            loop {
                self.scan.skip();
                places.push(self.scan.at);
                let (argument, kind) = self.or(depth + 1)?;
                if arguments.len() < *most {
                    self.expect(places[arguments.len()], kind, *wanted)?;
                }
                arguments.push(argument);
                kinds.push(kind);
                if self.scan.symbol(")") {
                    break;
                }
                if !self.scan.symbol(",") {
                    return self.wrong("expected , or )");
                }
            }
        }
        if !(*fewest..=*most).contains(&arguments.len()) {
            let wanted = if fewest == most { format!("{most}") } else { format!("{fewest} to {most}") };
            return self.wrong_at(at, format!("{name} takes {wanted} arguments, here are {}", arguments.len()));
        }
        let mut gives = *gives;
        match function {
            Function::If => {
                self.expect(places[0], kinds[0], Type::Truth)?;
                gives = if kinds[1..].iter().all(|k| *k == kinds[1]) { kinds[1] } else { Type::Any };
            }
            Function::Coalesce if kinds.iter().all(|k| *k == kinds[0]) => gives = kinds[0],
            Function::Exists if !matches!(arguments[0], Node::Field(_)) => {
                return self.wrong_at(places[0], "expected a field");
            }
            Function::Cast => {
                let target = match &arguments[1] {
                    Node::Literal(Value::Str(text)) => match text.as_str() {
                        "int" => Some((Target::Int, Type::Number)),
                        "float" | "number" => Some((Target::Float, Type::Number)),
                        "text" | "string" => Some((Target::Text, Type::Text)),
                        "bool" => Some((Target::Truth, Type::Truth)),
                        _ => None,
                    },
                    _ => None,
                };
                let Some((target, gives)) = target else {
                    return self.wrong_at(places[1], "expected 'int', 'float', 'text' or 'bool'");
                };
                let inner = arguments.swap_remove(0);
                return Ok((self.made(Node::Cast(Box::new(inner), target)), gives));
            }
            _ => {}
        }
        Ok((self.made(Node::Call(*function, arguments)), gives))
    }
}

#[cfg(test)]
mod tests;
