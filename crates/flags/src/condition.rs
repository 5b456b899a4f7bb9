//! Conditions: what a rule or a segment asks of a context. Read once, with a place for each fault, then tested without failing,
//! but for JSONLogic that breaks and for flags and segments that hang together too deeply.

use std::borrow::Cow;

use hashbrown::HashSet;
use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::attribute::{self, Attribute, Found};
use crate::evaluate::{EvaluationError, Scene};
use crate::fields::{Fields, Findings};
use crate::logic::{Expr, weight};
use crate::semver;
use crate::split::{Bucket, attributes};

const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 50_000;
/// Lists of texts longer than this are looked up by hash.
const LISTED_MAX: usize = 8;
/// Compiled size of a regular expression; a larger one is a mistake or an attack.
const REGEX_BYTES_MAX: usize = 256 << 10;
/// Texts longer than this match no regular expression: matching takes time by length of text and of expression.
const MATCHED_BYTES_MAX: usize = 16 << 10;

/// A condition and where it stands in the definition.
#[derive(Clone, Debug)]
pub(crate) struct Condition {
    pub(crate) place: Box<str>,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    Constant(bool),
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Segment(Box<str>),
    Flag(Box<str>, Vec<Box<str>>),
    Bucket(Box<Bucket>),
    Attribute(Box<Comparison>),
    Logic(Box<Expr>),
}

#[derive(Clone, Debug)]
pub(crate) struct Comparison {
    pub(crate) attributes: Vec<Attribute>,
    pub(crate) test: Test,
    pub(crate) negate: bool,
    pub(crate) ignore_case: bool,
    pub(crate) coerce: Coerce,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coerce {
    No,
    Text,
    Number,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberTest {
    Lt,
    Lte,
    Gt,
    Gte,
}

#[derive(Clone, Debug)]
pub(crate) enum Test {
    In(Vec<Value>),
    InTexts(HashSet<Box<str>>),
    Equals(Vec<Value>),
    Text(TextTest, Vec<String>),
    Matches(Vec<Regex>),
    Number(NumberTest, Vec<f64>),
    Time { after: bool, values: Vec<Timestamp> },
    SemVer(&'static str, Vec<String>),
    Exists,
}

const OPERATORS: &str = "in, equals, starts_with, ends_with, contains, matches, lt, lte, gt, gte, before, after, semver_eq, \
                         semver_lt, semver_lte, semver_gt, semver_gte, exists";

/// Reads conditions of one definition; keeps count, so that one definition cannot be endless.
pub(crate) struct Reader<'a> {
    pub(crate) flag_key: &'a str,
    pub(crate) findings: &'a mut Findings,
    pub(crate) nodes: usize,
}

impl Reader<'_> {
    pub(crate) fn read(&mut self, value: &Value, place: &str, depth: usize) -> Condition {
        let kind = self.kind(value, place, depth).unwrap_or(Kind::Constant(false));
        Condition { place: place.into(), kind }
    }

    fn kind(&mut self, value: &Value, place: &str, depth: usize) -> Option<Kind> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            self.findings.add(place, format!("deeper than {DEPTH_MAX} levels or more than {NODES_MAX} conditions"));
            return None;
        }
        let map = match value {
            Value::Bool(constant) => return Some(Kind::Constant(*constant)),
            Value::Object(map) => map,
            _ => {
                self.findings.add(place, "expected a condition: an object, true or false");
                return None;
            }
        };
        if map.contains_key("attr") || map.contains_key("op") {
            return self.comparison(value, place).map(|c| Kind::Attribute(Box::new(c)));
        }
        if let (Some(flag), true) = (map.get("flag"), map.contains_key("flag")) {
            let mut fields = Fields::of(value, place, self.findings)?;
            let key = fields.text("flag", self.findings);
            let variants = fields.texts("variants", self.findings);
            if key.is_none() || variants.is_empty() {
                self.findings.add(place, format!("expected flag, a key, and variants, a list of names; got {flag}"));
            }
            fields.finish(self.findings);
            return Some(Kind::Flag(key?.into(), variants.into_iter().map(Into::into).collect()));
        }
        let (Some((name, inner)), 1) = (map.iter().next(), map.len()) else {
            self.findings.add(place, "expected one of all, any, not, segment, flag, bucket, attr, logic");
            return None;
        };
        let here = format!("{place}/{name}");
        match name.as_str() {
            "all" | "any" => {
                let Value::Array(items) = inner else {
                    self.findings.add(here, "expected a list of conditions");
                    return None;
                };
                let read = |(n, item): (usize, &Value)| self.read(item, &format!("{here}/{n}"), depth + 1);
                let conditions = items.iter().enumerate().map(read).collect();
                Some(if name == "all" { Kind::All(conditions) } else { Kind::Any(conditions) })
            }
            "not" => Some(Kind::Not(Box::new(self.read(inner, &here, depth + 1)))),
            "segment" => match inner {
                Value::String(key) => Some(Kind::Segment(key.as_str().into())),
                _ => {
                    self.findings.add(here, "expected the key of a segment");
                    None
                }
            },
            "bucket" => Bucket::read(inner, &here, self.flag_key, self.findings).map(|b| Kind::Bucket(Box::new(b))),
            "logic" => match Expr::compile(inner, self.flag_key, &Map::new()) {
                Ok(expr) => Some(Kind::Logic(Box::new(expr))),
                Err(finding) => {
                    self.findings.add(format!("{here}{}", finding.place), finding.reason);
                    None
                }
            },
            _ => {
                self.findings.add(here, "unknown key; expected all, any, not, segment, flag, bucket, attr or logic");
                None
            }
        }
    }

    fn comparison(&mut self, value: &Value, place: &str) -> Option<Comparison> {
        let findings = &mut *self.findings;
        let mut fields = Fields::of(value, place, findings)?;
        let attributes = attributes(&mut fields, "attr", findings);
        if attributes.is_empty() {
            findings.add(fields.at("attr"), "expected the name of an attribute, or a list of names");
        }
        let op = fields.text("op", findings).unwrap_or_default();
        let values = fields.list("values", findings);
        let negate = fields.bool("negate", findings).unwrap_or(false);
        let ignore_case = fields.bool("ignore_case", findings).unwrap_or(false);
        let coerce = match fields.text("as", findings) {
            None => Coerce::No,
            Some("text") => Coerce::Text,
            Some("number") => Coerce::Number,
            Some(_) => {
                findings.add(fields.at("as"), "expected text or number");
                Coerce::No
            }
        };
        let here = fields.at("values");
        fields.finish(findings);
        let mut values_of = |wanted: &str, fits: &dyn Fn(&Value) -> bool| {
            for (n, value) in values.iter().enumerate().filter(|(_, value)| !fits(value)) {
                findings.add(format!("{here}/{n}"), format!("{value} is not {wanted}"));
            }
        };
        let fold = |text: &str| if ignore_case { text.to_lowercase() } else { text.to_owned() };
        let texts = || values.iter().filter_map(Value::as_str).map(fold).collect::<Vec<String>>();
        let text_test = |test| Some(Test::Text(test, texts()));
        let test = match op {
            "in" => {
                values_of("a scalar", &|v| !v.is_array() && !v.is_object());
                let all_text = values.iter().all(Value::is_string);
                Some(match coerce {
                    Coerce::Text => {
                        Test::InTexts(values.iter().filter_map(attribute::text).map(|t| fold(&t).into()).collect())
                    }
                    Coerce::No if ignore_case || all_text && values.len() > LISTED_MAX => {
                        values_of("text", &Value::is_string);
                        Test::InTexts(texts().into_iter().map(Into::into).collect())
                    }
                    Coerce::Number => {
                        values_of("a number", &|v| number(v, Coerce::Number).is_some());
                        Test::In(values.iter().filter_map(|v| number(v, Coerce::Number)).map(Value::from).collect())
                    }
                    Coerce::No => Test::In(values.to_vec()),
                })
            }
            "equals" => Some(Test::Equals(values.to_vec())),
            "starts_with" | "ends_with" | "contains" => {
                values_of("text", &Value::is_string);
                text_test(match op {
                    "starts_with" => TextTest::StartsWith,
                    "ends_with" => TextTest::EndsWith,
                    _ => TextTest::Contains,
                })
            }
            "matches" => {
                let mut compiled = Vec::new();
                for (n, value) in values.iter().enumerate() {
                    let regex = RegexBuilder::new(value.as_str().unwrap_or_default())
                        .case_insensitive(ignore_case)
                        .size_limit(REGEX_BYTES_MAX)
                        .build();
                    match regex {
                        Ok(regex) if value.is_string() => compiled.push(regex),
                        Ok(_) => findings.add(format!("{here}/{n}"), format!("{value} is not text")),
                        Err(error) => findings.add(format!("{here}/{n}"), error.to_string().replace('\n', " ")),
                    }
                }
                Some(Test::Matches(compiled))
            }
            "lt" | "lte" | "gt" | "gte" => {
                values_of("a number", &|v| number(v, coerce).is_some());
                let test = match op {
                    "lt" => NumberTest::Lt,
                    "lte" => NumberTest::Lte,
                    "gt" => NumberTest::Gt,
                    _ => NumberTest::Gte,
                };
                Some(Test::Number(test, values.iter().filter_map(|v| number(v, coerce)).collect()))
            }
            "before" | "after" => {
                values_of("a time", &|v| time(v).is_some());
                Some(Test::Time { after: op == "after", values: values.iter().filter_map(time).collect() })
            }
            "semver_eq" | "semver_lt" | "semver_lte" | "semver_gt" | "semver_gte" => {
                values_of("a semantic version", &|v| v.as_str().is_some_and(semver::is_version));
                let sign = match op {
                    "semver_eq" => "=",
                    "semver_lt" => "<",
                    "semver_lte" => "<=",
                    "semver_gt" => ">",
                    _ => ">=",
                };
                Some(Test::SemVer(sign, texts()))
            }
            "exists" => {
                if !values.is_empty() {
                    findings.add(&here, "exists takes no values");
                }
                Some(Test::Exists)
            }
            _ => {
                findings.add(format!("{place}/op"), format!("unknown operator {op:?}; expected one of {OPERATORS}"));
                None
            }
        };
        Some(Comparison { attributes, test: test?, negate, ignore_case, coerce })
    }
}

fn number(value: &Value, coerce: Coerce) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) if coerce == Coerce::Number => text.trim().parse().ok().filter(|n: &f64| n.is_finite()),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => Timestamp::parse(text).ok(),
        Value::Number(millis) => {
            let millis = millis.as_f64()?;
            (millis.abs() < 9e12).then(|| Timestamp::from_micros((millis * 1_000.0) as i64))
        }
        _ => None,
    }
}

impl Test {
    /// How much there is to compare one value with.
    fn breadth(&self) -> usize {
        match self {
            Test::In(values) | Test::Equals(values) => values.len(),
            Test::Text(_, parts) | Test::SemVer(_, parts) => parts.len(),
            // An expression is slower by far than a text.
            Test::Matches(expressions) => expressions.len().saturating_mul(16),
            Test::Number(_, values) => values.len(),
            Test::Time { values, .. } => values.len(),
            Test::InTexts(_) | Test::Exists => 1,
        }
    }

    fn holds(&self, value: &Value, coerce: Coerce, ignore_case: bool) -> bool {
        let text = || -> Option<Cow<'_, str>> {
            let text = match (value, coerce) {
                (Value::String(text), _) => Cow::Borrowed(text.as_str()),
                (_, Coerce::Text) => attribute::text(value)?,
                _ => return None,
            };
            Some(if ignore_case { Cow::Owned(text.to_lowercase()) } else { text })
        };
        match self {
            Test::In(values) => match (coerce, value) {
                (Coerce::Number, _) => {
                    number(value, coerce).is_some_and(|n| values.iter().any(|v| v.as_f64() == Some(n)))
                }
                (_, Value::Number(n)) => n.as_f64().is_some_and(|n| values.iter().any(|v| v.as_f64() == Some(n))),
                _ => values.contains(value),
            },
            Test::InTexts(values) => text().is_some_and(|text| values.contains(&*text)),
            Test::Equals(values) => values.iter().any(|v| same(v, value)),
            Test::Text(test, parts) => text().is_some_and(|text| {
                parts.iter().any(|part| match test {
                    TextTest::StartsWith => text.starts_with(part.as_str()),
                    TextTest::EndsWith => text.ends_with(part.as_str()),
                    TextTest::Contains => text.contains(part.as_str()),
                })
            }),
            Test::Matches(expressions) => match (value, coerce) {
                (Value::String(text), _) if text.len() > MATCHED_BYTES_MAX => false,
                (Value::String(text), _) => expressions.iter().any(|e| e.is_match(text)),
                (_, Coerce::Text) => attribute::text(value).is_some_and(|t| expressions.iter().any(|e| e.is_match(&t))),
                _ => false,
            },
            Test::Number(test, values) => number(value, coerce).is_some_and(|n| {
                values.iter().any(|v| match test {
                    NumberTest::Lt => n < *v,
                    NumberTest::Lte => n <= *v,
                    NumberTest::Gt => n > *v,
                    NumberTest::Gte => n >= *v,
                })
            }),
            Test::Time { after, values } => {
                time(value).is_some_and(|t| values.iter().any(|v| if *after { t > *v } else { t < *v }))
            }
            Test::SemVer(sign, versions) => value
                .as_str()
                .is_some_and(|text| versions.iter().any(|v| semver::compare(text, sign, v).unwrap_or(false))),
            Test::Exists => true,
        }
    }
}

/// Deep equality; numbers by value.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| same(value, other)))
        }
        _ => a == b,
    }
}

impl Comparison {
    fn holds(&self, scene: &Scene<'_>) -> Result<bool, EvaluationError> {
        let Some(found) = attribute::first(&self.attributes, scene.context, scene.now) else { return Ok(false) };
        let length = match found {
            Found::Json(value) => weight(value),
            _ => 1,
        };
        // Sixteen values that are compared with a short text are a step, too.
        scene.step(length.saturating_mul(self.test.breadth()) / 16)?;
        let any = match found {
            // The usual case first: nothing is made of a text to compare it.
            Found::Text(text) => self.text_holds(text),
            Found::Time(now) => match &self.test {
                Test::Time { after, values } => values.iter().any(|v| if *after { now > *v } else { now < *v }),
                Test::Number(..) | Test::In(_) => {
                    self.test.holds(&json!(now.micros().div_euclid(1_000)), self.coerce, self.ignore_case)
                }
                test => test.holds(&json!(now), self.coerce, self.ignore_case),
            },
            Found::Json(Value::String(text)) => self.text_holds(text),
            Found::Json(Value::Array(items)) if !matches!(self.test, Test::Equals(_) | Test::Exists) => {
                items.iter().any(|item| self.test.holds(item, self.coerce, self.ignore_case))
            }
            Found::Json(value) => self.test.holds(value, self.coerce, self.ignore_case),
        };
        Ok(any != self.negate)
    }

    fn text_holds(&self, text: &str) -> bool {
        match &self.test {
            Test::In(values) if self.coerce == Coerce::No => values.iter().any(|v| v.as_str() == Some(text)),
            Test::InTexts(values) if !self.ignore_case => values.contains(text),
            test => test.holds(&Value::String(text.to_owned()), self.coerce, self.ignore_case),
        }
    }
}

impl Condition {
    pub(crate) fn holds(&self, scene: &Scene<'_>) -> Result<bool, EvaluationError> {
        scene.step(1)?;
        let holds = match &self.kind {
            Kind::Constant(constant) => *constant,
            Kind::All(conditions) => {
                let mut all = true;
                for condition in conditions {
                    all = condition.holds(scene)?;
                    if !all {
                        break;
                    }
                }
                all
            }
            Kind::Any(conditions) => {
                let mut any = false;
                for condition in conditions {
                    any = condition.holds(scene)?;
                    if any {
                        break;
                    }
                }
                any
            }
            Kind::Not(condition) => !condition.holds(scene)?,
            Kind::Segment(key) => scene.in_segment(key)?,
            Kind::Flag(key, variants) => scene.flag_gives(key, variants)?,
            Kind::Bucket(bucket) => bucket.holds(scene),
            Kind::Attribute(comparison) => comparison.holds(scene)?,
            Kind::Logic(expr) => scene.logic(expr)?,
        };
        scene.trace(|| json!({"at": &*self.place, "holds": holds}));
        Ok(holds)
    }

    /// This and every condition in it.
    pub(crate) fn walk(&self, visit: &mut dyn FnMut(&Condition)) {
        visit(self);
        match &self.kind {
            Kind::All(conditions) | Kind::Any(conditions) => conditions.iter().for_each(|c| c.walk(visit)),
            Kind::Not(condition) => condition.walk(visit),
            _ => {}
        }
    }
}
