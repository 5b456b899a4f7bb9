//! Queries of GO Feature Flag in its first language (nikunjy/rules): `attribute operator value`, joined by `and` and `or` from left
//! to right without precedence, with parentheses and `not (…)`.
//!
//! A comparison with an absent attribute, or with one of another type, is false. Texts are compared without regard to case, but not
//! by `in`. A number is cut to its whole part before it is compared with a whole number.
//!
//! ```text
//! query   = term { ("and" | "or") term }
//! term    = ["not"] "(" query ")" | path "pr" | path operator value
//! value   = "true" | "false" | "null" | version | text | number | "[" value { "," value } "]"
//! ```

use serde_json::{Value, json};

use crate::unleash::condition::is_version;
use crate::unleash::part::{STRICT_VERSION, all, any, not};

const DEPTH_MAX: usize = 60;
const QUERY_BYTES_MAX: usize = 64 << 10;

/// The query as a condition.
pub(super) fn condition(text: &str) -> Result<Value, String> {
    if text.len() > QUERY_BYTES_MAX {
        return Err(format!("the query is longer than {QUERY_BYTES_MAX} bytes"));
    }
    let mut parser = Parser { tokens: tokens(text)?, at: 0 };
    let condition = parser.query(0)?;
    match parser.next() {
        None => Ok(condition),
        Some(token) => Err(format!("the query goes on with {token:?} where it should end")),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Word(String),
    Text(String),
    Open,
    Close,
    ListOpen,
    ListClose,
    Comma,
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let one = match c {
            '(' => Some(Token::Open),
            ')' => Some(Token::Close),
            '[' => Some(Token::ListOpen),
            ']' => Some(Token::ListClose),
            ',' => Some(Token::Comma),
            _ => None,
        };
        if let Some(token) = one {
            tokens.push(token);
            rest = &rest[1..];
        } else if c.is_whitespace() {
            rest = &rest[c.len_utf8()..];
        } else if c == '"' {
            let mut escape = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escape;
                escape = c == '\\' && !escape;
                ends
            });
            let end = end.ok_or("a text in the query has no end")?;
            // What is between the quotes counts as it stands, escapes too.
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = &rest[end + 2..];
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "()[],\"".contains(c)).unwrap_or(rest.len());
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
    }
    Ok(tokens)
}

struct Parser {
    tokens: Vec<Token>,
    at: usize,
}

#[derive(Clone, Debug)]
enum Literal {
    Bool(bool),
    Null,
    Version(String),
    Text(String),
    Double(f64),
    Whole(i64),
    Texts(Vec<String>),
    Doubles(Vec<f64>),
    Wholes(Vec<i64>),
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        token
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at)
    }

    fn query(&mut self, depth: usize) -> Result<Value, String> {
        if depth > DEPTH_MAX {
            return Err("the query is nested too deeply".into());
        }
        let mut left = self.term(depth)?;
        loop {
            let joined = match self.peek() {
                Some(Token::Word(word)) if word == "and" || word == "or" => word.clone(),
                _ => return Ok(left),
            };
            self.at += 1;
            let right = self.term(depth)?;
            left = if joined == "and" { join("all", left, right) } else { join("any", left, right) };
        }
    }

    fn term(&mut self, depth: usize) -> Result<Value, String> {
        let first = self.next();
        match (first, self.peek()) {
            (Some(Token::Open), _) => self.closed(depth),
            (Some(Token::Word(word)), Some(Token::Open)) if word == "not" || word == "NOT" => {
                self.at += 1;
                Ok(not(self.closed(depth)?))
            }
            (Some(Token::Word(path)), _) if is_path(&path) => self.comparison(&path),
            (Some(token), _) => Err(format!("the query has {token:?} where an attribute should stand")),
            (None, _) => Err("the query ends too early".into()),
        }
    }

    fn closed(&mut self, depth: usize) -> Result<Value, String> {
        let inner = self.query(depth + 1)?;
        match self.next() {
            Some(Token::Close) => Ok(inner),
            _ => Err("a parenthesis in the query is not closed".into()),
        }
    }

    fn comparison(&mut self, path: &str) -> Result<Value, String> {
        let operator = match self.next() {
            Some(Token::Word(word)) => word,
            _ => return Err(format!("the query has no operator after {path}")),
        };
        let subject = Subject::of(path);
        let operator = match operator.as_str() {
            "pr" => return Ok(subject.present()),
            "eq" | "EQ" | "==" => "eq",
            "ne" | "NE" | "!=" => "ne",
            "gt" | "GT" | ">" => "gt",
            "lt" | "LT" | "<" => "lt",
            "ge" | "GE" | ">=" => "ge",
            "le" | "LE" | "<=" => "le",
            "co" | "CO" => "co",
            "sw" | "SW" => "sw",
            "ew" | "EW" => "ew",
            "in" | "IN" => "in",
            other => return Err(format!("{other:?} is not an operator of queries")),
        };
        let value = self.value()?;
        subject
            .compared(operator, &value)
            .ok_or_else(|| format!("{operator} of {path} with such a value cannot be carried over"))
    }

    fn value(&mut self) -> Result<Literal, String> {
        let token = self.next();
        if token != Some(Token::ListOpen) {
            return scalar(token);
        }
        let mut items = Vec::new();
        loop {
            items.push(scalar(self.next())?);
            match self.next() {
                Some(Token::Comma) => {}
                Some(Token::ListClose) => break,
                _ => return Err("a list in the query is not closed".into()),
            }
        }
        let texts: Option<Vec<String>> =
            items.iter().map(|item| if let Literal::Text(text) = item { Some(text.clone()) } else { None }).collect();
        let wholes: Option<Vec<i64>> =
            items.iter().map(|item| if let Literal::Whole(n) = item { Some(*n) } else { None }).collect();
        let doubles: Option<Vec<f64>> =
            items.iter().map(|item| if let Literal::Double(n) = item { Some(*n) } else { None }).collect();
        let list = texts.map(Literal::Texts).or(wholes.map(Literal::Wholes)).or(doubles.map(Literal::Doubles));
        list.ok_or_else(|| "a list in the query mixes types".into())
    }
}

fn join(name: &str, left: Value, right: Value) -> Value {
    let mut items = match left.get(name) {
        Some(Value::Array(items)) => items.clone(),
        _ => vec![left],
    };
    items.push(right);
    json!({name: items})
}

fn is_path(word: &str) -> bool {
    word.split('.').all(|part| {
        part.starts_with(|c: char| c.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b':'))
    })
}

fn scalar(token: Option<Token>) -> Result<Literal, String> {
    let word = match token {
        Some(Token::Text(text)) => return Ok(Literal::Text(text)),
        Some(Token::Word(word)) => word,
        _ => return Err("the query has no value where one should stand".into()),
    };
    let digits = word.strip_prefix('-').unwrap_or(&word);
    let whole = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match word.as_str() {
        "true" => Ok(Literal::Bool(true)),
        "false" => Ok(Literal::Bool(false)),
        "null" => Ok(Literal::Null),
        _ if is_version(&word) => Ok(Literal::Version(word)),
        _ if whole(digits) => word.parse().map(Literal::Whole).map_err(|_| format!("the number {word} is too long")),
        _ if digits.split_once('.').is_some_and(|(a, b)| whole(a) && b.starts_with(|c: char| c.is_ascii_digit())) => {
            word.parse().map(Literal::Double).map_err(|_| format!("{word:?} is not a number"))
        }
        _ => Err(format!("the query has {word:?} where a value should stand; texts need quotes")),
    }
}

struct Subject {
    attr: String,
    /// GO Feature Flag fills it in: false if it is not said.
    anonymous: bool,
}

impl Subject {
    fn of(path: &str) -> Subject {
        let attr = if path == "key" { "targetingKey" } else { path };
        Subject { attr: attr.to_owned(), anonymous: path == "anonymous" }
    }

    fn present(&self) -> Value {
        if self.anonymous { Value::Bool(true) } else { json!({"attr": self.attr, "op": "exists"}) }
    }

    fn is(&self, op: &str, value: Value) -> Value {
        json!({"attr": self.attr, "op": op, "values": [value]})
    }

    fn compared(&self, operator: &str, value: &Literal) -> Option<Value> {
        match value {
            Literal::Null => match operator {
                "eq" => Some(not(self.present())),
                "ne" => Some(self.present()),
                _ => None,
            },
            Literal::Bool(wanted) => {
                let wanted = match operator {
                    "eq" => *wanted,
                    "ne" => !*wanted,
                    _ => return None,
                };
                let is = self.is("in", json!(wanted));
                Some(if self.anonymous && !wanted { not(self.is("in", json!(true))) } else { is })
            }
            Literal::Text(text) => self.text(operator, text),
            Literal::Version(version) => {
                let strict = self.is("matches", json!(STRICT_VERSION));
                let is = |op: &str| all(vec![strict.clone(), self.is(op, json!(version))]);
                Some(match operator {
                    "eq" => is("semver_eq"),
                    "ne" => all(vec![strict.clone(), not(self.is("semver_eq", json!(version)))]),
                    "gt" => is("semver_gt"),
                    "ge" => is("semver_gte"),
                    "lt" => is("semver_lt"),
                    "le" => is("semver_lte"),
                    _ => return None,
                })
            }
            Literal::Double(number) => Some(match operator {
                "eq" => self.is("in", json!(number)),
                "ne" => any(vec![self.is("lt", json!(number)), self.is("gt", json!(number))]),
                "gt" => self.is("gt", json!(number)),
                "ge" => self.is("gte", json!(number)),
                "lt" => self.is("lt", json!(number)),
                "le" => self.is("lte", json!(number)),
                _ => return None,
            }),
            Literal::Whole(number) => self.whole(operator, *number),
            Literal::Texts(values) if operator == "in" => {
                Some(json!({"attr": self.attr, "op": "in", "values": values}))
            }
            Literal::Doubles(values) if operator == "in" => {
                Some(json!({"attr": self.attr, "op": "in", "values": values}))
            }
            Literal::Wholes(values) if operator == "in" => {
                Some(any(values.iter().filter_map(|value| self.whole("eq", *value)).collect()))
            }
            Literal::Texts(_) | Literal::Doubles(_) | Literal::Wholes(_) => None,
        }
    }

    fn text(&self, operator: &str, text: &str) -> Option<Value> {
        let is = |op: &str| json!({"attr": self.attr, "op": op, "values": [text], "ignore_case": true});
        Some(match operator {
            "eq" => is("in"),
            "ne" => all(vec![self.is("matches", json!("")), not(is("in"))]),
            "co" => is("contains"),
            "sw" => is("starts_with"),
            "ew" => is("ends_with"),
            _ => return None,
        })
    }

    /// The attribute's whole part against a whole number.
    fn whole(&self, operator: &str, n: i64) -> Option<Value> {
        if n.unsigned_abs() > 1 << 52 {
            return None;
        }
        let at_least = |n: i64| if n > 0 { self.is("gte", json!(n)) } else { self.is("gt", json!(n - 1)) };
        let below = |n: i64| if n > 0 { self.is("lt", json!(n)) } else { self.is("lte", json!(n - 1)) };
        Some(match operator {
            "eq" => all(vec![at_least(n), below(n + 1)]),
            "ne" => any(vec![below(n), at_least(n + 1)]),
            "gt" => at_least(n + 1),
            "ge" => at_least(n),
            "lt" => below(n),
            "le" => below(n + 1),
            _ => return None,
        })
    }
}
