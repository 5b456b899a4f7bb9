//! JSONLogic with flagd's operators, compiled to a tree and evaluated over borrowed values.
//!
//! Semantics are those of json-logic-js (loose equality, JavaScript truthiness and number conversion). flagd's own
//! operators answer null, not false, when their arguments are of the wrong kind. A rule is bounded when it is compiled:
//! at most [`DEPTH_MAX`] levels and [`NODES_MAX`] nodes, so evaluating it cannot exhaust the stack.

use std::borrow::Cow;
use std::cell::Cell;

use serde_json::{Map, Value};
use vocab::Timestamp;

use crate::bucket::Bucketing;
use crate::context::Context;
use crate::document::Finding;
use crate::fractional::{self, Input};
use crate::javascript::{V, own};
use crate::semver;

const DEPTH_MAX: usize = 64;
const NODES_MAX: usize = 50_000;

/// Steps that one evaluation may take, through all flags and segments it needs: a condition, a node, an element of a list, sixteen
/// bytes of text that is read or made. An ordinary one takes some dozens; at the limit, after some hundredths of a second, it fails as
/// a rule that is broken.
const STEPS_MAX: u32 = 500_000;

/// What a rule sees besides itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scope<'a> {
    /// Steps that are left.
    pub(crate) steps: &'a Cell<u32>,
    pub(crate) context: &'a Context,
    pub(crate) flag_key: &'a str,
    pub(crate) now: Timestamp,
    pub(crate) bucketing: Bucketing,
}

/// What a rule decided.
#[derive(Debug)]
pub(crate) enum Outcome<'a> {
    /// Null: no rule matched.
    Nothing,
    /// A variant by name.
    Variant(Cow<'a, str>),
    /// The rule broke.
    Failed(String),
}

/// A compiled rule.
#[derive(Clone, Debug)]
pub(crate) enum Expr {
    Literal(Value),
    List(Vec<Expr>),
    Var {
        path: Path,
        default: Option<Box<Expr>>,
    },
    /// `var` whose name is itself computed.
    VarOf {
        name: Box<Expr>,
        default: Option<Box<Expr>>,
    },
    Call(Op, Vec<Expr>),
    Fractional {
        arguments: Vec<Expr>,
    },
    /// `in` of an attribute and texts that are written out, the usual form of targeting.
    InTexts(Path, Vec<String>),
    /// `fractional` whose entries are written out, the usual form: nothing is left to compute but the place.
    Split(Box<Split>),
    /// A rule that could not be compiled, of a flag that is served all the same: it fails when it is asked, with this reason.
    Broken(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Split {
    /// What is hashed; none for flag key and targeting key.
    input: Option<Expr>,
    names: Vec<Value>,
    weights: Vec<u64>,
    keys: fractional::Keys,
}

impl Split {
    /// What is hashed; none for flag key and targeting key.
    pub(crate) fn input(&self) -> Option<&Expr> {
        self.input.as_ref()
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Path {
    Whole,
    TargetingKey,
    FlagKey,
    Timestamp,
    Name(String),
    Deep(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Equal,
    Same,
    NotEqual,
    NotSame,
    Not,
    Truthy,
    Or,
    And,
    If,
    Greater,
    GreaterEqual,
    Less,
    LessEqual,
    Max,
    Min,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Map,
    Reduce,
    Filter,
    All,
    None,
    Some,
    Merge,
    In,
    Cat,
    Substr,
    Log,
    Missing,
    MissingSome,
    StartsWith,
    EndsWith,
    SemVer,
}

impl Op {
    /// Whether it sets two or three values beside each other.
    pub(crate) fn compares(self) -> bool {
        matches!(
            self,
            Op::Equal
                | Op::Same
                | Op::NotEqual
                | Op::NotSame
                | Op::Greater
                | Op::GreaterEqual
                | Op::Less
                | Op::LessEqual
        )
    }
}

fn operator(name: &str) -> Option<Op> {
    Some(match name {
        "==" => Op::Equal,
        "===" => Op::Same,
        "!=" => Op::NotEqual,
        "!==" => Op::NotSame,
        "!" => Op::Not,
        "!!" => Op::Truthy,
        "or" => Op::Or,
        "and" => Op::And,
        "if" | "?:" => Op::If,
        ">" => Op::Greater,
        ">=" => Op::GreaterEqual,
        "<" => Op::Less,
        "<=" => Op::LessEqual,
        "max" => Op::Max,
        "min" => Op::Min,
        "+" => Op::Add,
        "-" => Op::Subtract,
        "*" => Op::Multiply,
        "/" => Op::Divide,
        "%" => Op::Remainder,
        "map" => Op::Map,
        "reduce" => Op::Reduce,
        "filter" => Op::Filter,
        "all" => Op::All,
        "none" => Op::None,
        "some" => Op::Some,
        "merge" => Op::Merge,
        "in" => Op::In,
        "cat" => Op::Cat,
        "substr" => Op::Substr,
        "log" => Op::Log,
        "missing" => Op::Missing,
        "missing_some" => Op::MissingSome,
        "starts_with" => Op::StartsWith,
        "ends_with" => Op::EndsWith,
        "sem_ver" => Op::SemVer,
        _ => return None,
    })
}

struct Compiler<'a> {
    flag_key: &'a str,
    evaluators: &'a Map<String, Value>,
    nodes: usize,
}

impl Compiler<'_> {
    fn compile(&mut self, rule: &Value, place: &str, depth: usize) -> Result<Expr, Finding> {
        self.nodes += 1;
        if depth > DEPTH_MAX {
            return Err(Finding::new(place, format!("nested deeper than {DEPTH_MAX} levels")));
        }
        if self.nodes > NODES_MAX {
            return Err(Finding::new(place, format!("more than {NODES_MAX} nodes")));
        }
        let object = match rule {
            Value::Array(items) => {
                let items = self.all(items, place, depth)?;
                return Ok(Expr::List(items));
            }
            Value::Object(object) if object.len() == 1 => object,
            Value::Object(object) if !object.is_empty() && object.keys().all(|k| operator(k).is_some()) => {
                return Err(Finding::new(place, "has more than one operator"));
            }
            literal => return Ok(Expr::Literal(literal.clone())),
        };
        let Some((name, arguments)) = object.iter().next() else { return Ok(Expr::Literal(rule.clone())) };
        let here = format!("{place}/{name}");
        if name == "$ref" {
            // Text substitution in flagd, so a shared rule counts its depth where it is used; it holds no references itself.
            let target = arguments.as_str().and_then(|name| self.evaluators.get(name));
            let target =
                target.ok_or_else(|| Finding::new(&here, format!("no evaluator {arguments} in $evaluators")))?;
            return self.compile(&target.clone(), &here, depth + 1);
        }
        let listed: Vec<Value> = match arguments {
            Value::Array(items) => items.clone(),
            single => vec![single.clone()],
        };
        match name.as_str() {
            "var" => self.var(&listed, &here, depth),
            "fractional" => {
                let arguments = self.all(&listed, &here, depth)?;
                Ok(match self.split(&arguments) {
                    Some(split) => Expr::Split(Box::new(split)),
                    None => Expr::Fractional { arguments },
                })
            }
            _ => match operator(name) {
                Some(op) => {
                    let arguments = self.all(&listed, &here, depth)?;
                    Ok(in_texts(op, &arguments).unwrap_or(Expr::Call(op, arguments)))
                }
                None => Err(Finding::new(here, "is not an operator")),
            },
        }
    }

    /// A split whose entries are all `[text, whole number]` or `[text]`.
    fn split(&self, arguments: &[Expr]) -> Option<Split> {
        let (input, entries) = match arguments.split_first()? {
            (Expr::List(_), _) => (None, arguments),
            (first, entries) => (Some(first.clone()), entries),
        };
        let (mut names, mut weights) = (Vec::new(), Vec::new());
        for entry in entries {
            let Expr::List(parts) = entry else { return None };
            let (name, weight) = match parts.as_slice() {
                [Expr::Literal(name)] => (name, 1),
                [Expr::Literal(name), Expr::Literal(Value::Number(weight))] => (name, whole(weight.as_f64()?)?),
                _ => return None,
            };
            names.push(Some(name).filter(|name| name.is_string())?.clone());
            weights.push(weight);
        }
        Some(Split { input, names, weights, keys: fractional::Keys::new(self.flag_key) })
    }

    fn all(&mut self, items: &[Value], place: &str, depth: usize) -> Result<Vec<Expr>, Finding> {
        items.iter().enumerate().map(|(n, item)| self.compile(item, &format!("{place}/{n}"), depth + 1)).collect()
    }

    fn var(&mut self, arguments: &[Value], place: &str, depth: usize) -> Result<Expr, Finding> {
        let default = match arguments.get(1) {
            Some(rule) => Some(Box::new(self.compile(rule, &format!("{place}/1"), depth + 1)?)),
            None => None,
        };
        let path = match arguments.first() {
            None | Some(Value::Null) => Path::Whole,
            Some(Value::String(name)) => path(name),
            Some(Value::Number(number)) => Path::Name(number.to_string()),
            Some(rule) => {
                let name = Box::new(self.compile(rule, &format!("{place}/0"), depth + 1)?);
                return Ok(Expr::VarOf { name, default });
            }
        };
        Ok(Expr::Var { path, default })
    }
}

fn in_texts(op: Op, arguments: &[Expr]) -> Option<Expr> {
    let (Op::In, [Expr::Var { path, default: None }, Expr::List(items)]) = (op, arguments) else { return None };
    let texts = items.iter().map(|item| match item {
        Expr::Literal(Value::String(text)) => Some(text.clone()),
        _ => None,
    });
    Some(Expr::InTexts(path.clone(), texts.collect::<Option<_>>()?))
}

fn path(name: &str) -> Path {
    match name {
        "" => Path::Whole,
        "targetingKey" => Path::TargetingKey,
        "$flagd.flagKey" => Path::FlagKey,
        "$flagd.timestamp" => Path::Timestamp,
        name if name.contains('.') => Path::Deep(name.split('.').map(str::to_owned).collect()),
        name => Path::Name(name.to_owned()),
    }
}

/// What `var` looks into: the context, or inside `map` and its like the element.
#[derive(Clone, Copy)]
enum Data<'a> {
    Context,
    Value(&'a Value),
    /// `reduce`: `current` and `accumulator`.
    Reduce(&'a Value, &'a Value),
}

type Eval<'a> = Result<V<'a>, String>;

/// Takes steps from what is left.
#[inline]
pub(crate) fn charge(left: &Cell<u32>, steps: usize) -> Result<(), String> {
    match left.get().checked_sub(u32::try_from(steps).unwrap_or(u32::MAX)) {
        Some(rest) => {
            left.set(rest);
            Ok(())
        }
        None => Err(exhausted(left)),
    }
}

#[cold]
fn exhausted(left: &Cell<u32>) -> String {
    left.set(0);
    format!("it takes more than {STEPS_MAX} steps")
}

/// How much a value weighs, in steps: what it costs to copy it.
pub(crate) fn weight(value: &Value) -> usize {
    match value {
        Value::String(text) => 1 + text.len() / 16,
        Value::Array(items) => 1 + items.iter().map(weight).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(|v| 1 + weight(v)).sum::<usize>(),
        _ => 1,
    }
}

impl Expr {
    /// The steps of one evaluation.
    pub(crate) fn budget() -> Cell<u32> {
        Cell::new(STEPS_MAX)
    }

    /// Compiles a rule; places in findings are relative to it.
    pub(crate) fn compile(rule: &Value, flag_key: &str, evaluators: &Map<String, Value>) -> Result<Expr, Finding> {
        Compiler { flag_key, evaluators, nodes: 0 }.compile(rule, "", 0)
    }

    /// Evaluates to a JSON value. For tests against other engines' vectors.
    #[cfg(test)]
    pub(crate) fn value(&self, scope: &Scope<'_>) -> Result<Value, String> {
        self.eval(scope, Data::Context).map(V::into_value)
    }

    /// Evaluates to a variant name. The usual forms go without intermediate values.
    pub(crate) fn outcome<'a>(&'a self, scope: &Scope<'a>) -> Outcome<'a> {
        match self {
            Expr::Call(Op::If, arguments) => {
                for pair in arguments.chunks(2) {
                    match pair {
                        [condition, result] => match condition.truthy(scope) {
                            Ok(true) => return result.outcome(scope),
                            Ok(false) => {}
                            Err(detail) => return Outcome::Failed(detail),
                        },
                        [otherwise] => return otherwise.outcome(scope),
                        _ => {}
                    }
                }
                Outcome::Nothing
            }
            Expr::Literal(Value::String(name)) => named(Cow::Borrowed(name)),
            Expr::Split(split) => match split_place(split, scope, Data::Context) {
                Ok(Some(place)) => {
                    split.names[place].as_str().map_or(Outcome::Nothing, |name| named(Cow::Borrowed(name)))
                }
                Ok(None) => Outcome::Nothing,
                Err(detail) => Outcome::Failed(detail),
            },
            _ => match self.eval(scope, Data::Context) {
                Err(detail) => Outcome::Failed(detail),
                Ok(V::Null) => Outcome::Nothing,
                Ok(V::Bool(b)) => Outcome::Variant(Cow::Borrowed(if b { "true" } else { "false" })),
                Ok(V::Str(name)) => named(name),
                Ok(other) => Outcome::Variant(Cow::Owned(other.to_text().into_owned())),
            },
        }
    }

    /// Evaluates to a truth value, as JavaScript sees it.
    pub(crate) fn truthy(&self, scope: &Scope<'_>) -> Result<bool, String> {
        match self {
            Expr::InTexts(path, texts) => Ok(in_texts_holds(path, texts, scope, Data::Context)),
            Expr::Call(Op::Not, arguments) if arguments.len() == 1 => arguments[0].truthy(scope).map(|holds| !holds),
            Expr::Call(op @ (Op::And | Op::Or), arguments) => {
                let mut last = false;
                for expr in arguments {
                    last = expr.truthy(scope)?;
                    if last == (*op == Op::Or) {
                        break;
                    }
                }
                Ok(last)
            }
            _ => self.eval(scope, Data::Context).map(|value| value.truthy()),
        }
    }

    fn eval<'a>(&'a self, scope: &Scope<'a>, data: Data<'a>) -> Eval<'a> {
        charge(scope.steps, 1)?;
        match self {
            Expr::Literal(value) => Ok(V::from(value)),
            Expr::Broken(reason) => Err(reason.clone()),
            Expr::List(items) => {
                let values: Result<Vec<Value>, String> =
                    items.iter().map(|item| item.eval(scope, data).map(V::into_value)).collect();
                Ok(V::Json(Cow::Owned(Value::Array(values?))))
            }
            Expr::Var { path, default } => match (lookup(path, scope, data), default) {
                (V::Null, Some(default)) => default.eval(scope, data),
                (found, _) => {
                    // What is copied is paid for.
                    if let V::Json(Cow::Owned(value)) = &found {
                        charge(scope.steps, weight(value))?;
                    }
                    Ok(found)
                }
            },
            Expr::VarOf { name, default } => {
                let name = name.eval(scope, data)?;
                let path = if matches!(name, V::Null) { Path::Whole } else { path(&name.to_text()) };
                match (lookup(&path, scope, data), default) {
                    (V::Null, Some(default)) => default.eval(scope, data),
                    (found, _) => Ok(found),
                }
            }
            Expr::Fractional { arguments } => fractional_op(arguments, scope, data),
            Expr::InTexts(path, texts) => Ok(V::Bool(in_texts_holds(path, texts, scope, data))),
            Expr::Split(split) => {
                let place = split_place(split, scope, data)?;
                Ok(place.map_or(V::Null, |place| V::from(&split.names[place])))
            }
            Expr::Call(op, arguments) => call(*op, arguments, scope, data),
        }
    }
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match value {
        Value::Object(map) => map.get(name),
        Value::Array(items) => items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

fn walk<'a>(root: &'a Value, path: &Path) -> V<'a> {
    let single = |name: &str| field(root, name).map_or(V::Null, V::from);
    match path {
        Path::Whole => V::from(root),
        Path::TargetingKey => single("targetingKey"),
        Path::Name(name) => single(name),
        Path::Deep(names) => names.iter().try_fold(root, |value, name| field(value, name)).map_or(V::Null, V::from),
        Path::FlagKey | Path::Timestamp => V::Null,
    }
}

fn lookup<'a>(path: &Path, scope: &Scope<'a>, data: Data<'a>) -> V<'a> {
    match data {
        Data::Value(value) => return own(walk(value, path)),
        Data::Reduce(current, accumulator) => {
            let (first, rest) = match path {
                Path::Name(name) => (name.as_str(), &[] as &[String]),
                Path::Deep(names) => (names[0].as_str(), &names[1..]),
                _ => return V::Null,
            };
            let root = match first {
                "current" => current,
                "accumulator" => accumulator,
                _ => return V::Null,
            };
            let found = rest.iter().try_fold(root, |value, name| field(value, name));
            return found.map_or(V::Null, |value| own(V::from(value)));
        }
        Data::Context => {}
    }
    let context = scope.context;
    match path {
        Path::TargetingKey => context.targeting_key().map_or(V::Null, |key| V::Str(Cow::Borrowed(key))),
        Path::FlagKey => V::Str(Cow::Borrowed(scope.flag_key)),
        Path::Timestamp => V::Num(scope.now.nanos().div_euclid(1_000_000_000) as f64),
        Path::Name(name) => context.attributes().get(name).map_or(V::Null, V::from),
        Path::Deep(names) => {
            let root = context.attributes().get(&names[0]);
            let found = root.and_then(|root| names[1..].iter().try_fold(root, |value, name| field(value, name)));
            // flagd resolves dotted names to flat attributes too when there is no such nesting.
            let found = found.or_else(|| context.attributes().get(&names.join(".")));
            found.map_or(V::Null, V::from)
        }
        Path::Whole => {
            let mut whole = context.attributes().clone();
            if let Some(key) = context.targeting_key() {
                whole.insert("targetingKey".into(), Value::String(key.to_owned()));
            }
            V::Json(Cow::Owned(Value::Object(whole)))
        }
    }
}

fn compare(op: Op, a: &V<'_>, b: &V<'_>) -> bool {
    if let (V::Str(a), V::Str(b)) = (a, b) {
        return match op {
            Op::Less => a < b,
            Op::LessEqual => a <= b,
            Op::Greater => a > b,
            _ => a >= b,
        };
    }
    let (a, b) = (a.to_number(), b.to_number());
    match op {
        Op::Less => a < b,
        Op::LessEqual => a <= b,
        Op::Greater => a > b,
        _ => a >= b,
    }
}

fn call<'a>(op: Op, arguments: &'a [Expr], scope: &Scope<'a>, data: Data<'a>) -> Eval<'a> {
    let argument = |n: usize| -> Eval<'a> {
        let value = arguments.get(n).map_or(Ok(V::Null), |a| a.eval(scope, data))?;
        // An operator reads its arguments whole.
        match &value {
            V::Str(text) => charge(scope.steps, text.len() / 16)?,
            V::Json(value) => charge(scope.steps, weight(value))?,
            _ => {}
        }
        Ok(value)
    };
    let finite = |n: f64| if n.is_nan() { V::Null } else { V::Num(n) };
    Ok(match op {
        Op::Equal => V::Bool(argument(0)?.loosely_equals(&argument(1)?)),
        Op::NotEqual => V::Bool(!argument(0)?.loosely_equals(&argument(1)?)),
        Op::Same => V::Bool(argument(0)?.strictly_equals(&argument(1)?)),
        Op::NotSame => V::Bool(!argument(0)?.strictly_equals(&argument(1)?)),
        Op::Not => V::Bool(!argument(0)?.truthy()),
        Op::Truthy => V::Bool(argument(0)?.truthy()),
        Op::And | Op::Or => {
            let mut last = V::Null;
            for expr in arguments {
                last = expr.eval(scope, data)?;
                if last.truthy() == (op == Op::Or) {
                    return Ok(last);
                }
            }
            last
        }
        Op::If => {
            for pair in arguments.chunks(2) {
                match pair {
                    [condition, result] => {
                        if condition.eval(scope, data)?.truthy() {
                            return result.eval(scope, data);
                        }
                    }
                    [otherwise] => return otherwise.eval(scope, data),
                    _ => {}
                }
            }
            V::Null
        }
        Op::Greater | Op::GreaterEqual | Op::Less | Op::LessEqual => {
            let (a, b) = (argument(0)?, argument(1)?);
            let first = compare(op, &a, &b);
            V::Bool(match arguments.len() {
                0..=2 => first,
                _ => first && compare(op, &b, &argument(2)?),
            })
        }
        Op::Max | Op::Min => {
            let mut best: Option<f64> = None;
            for expr in arguments {
                let n = expr.eval(scope, data)?.to_number();
                best = Some(match best {
                    None => n,
                    Some(b) if op == Op::Max => b.max(n),
                    Some(b) => b.min(n),
                });
            }
            best.map_or(V::Null, finite)
        }
        Op::Add | Op::Multiply => {
            let mut total = if op == Op::Add { 0.0 } else { 1.0 };
            for expr in arguments {
                let n = expr.eval(scope, data)?.parse_float();
                if op == Op::Add { total += n } else { total *= n }
            }
            finite(total)
        }
        Op::Subtract if arguments.len() == 1 => finite(-argument(0)?.to_number()),
        Op::Subtract => finite(argument(0)?.to_number() - argument(1)?.to_number()),
        Op::Divide => finite(argument(0)?.to_number() / argument(1)?.to_number()),
        Op::Remainder => finite(argument(0)?.to_number() % argument(1)?.to_number()),
        Op::Map | Op::Filter | Op::All | Op::None | Op::Some => return each(op, arguments, scope, data),
        Op::Reduce => {
            let items = list(argument(0)?);
            charge(scope.steps, items.iter().map(weight).sum())?;
            let Some(body) = arguments.get(1) else { return Ok(V::Null) };
            let mut accumulator = argument(2)?.into_value();
            for item in &items {
                let next = reborrow(body, scope, Data::Reduce(item, &accumulator))?;
                charge(scope.steps, weight(&next))?;
                accumulator = next;
            }
            V::Json(Cow::Owned(accumulator)).flat()
        }
        Op::Merge => {
            let mut merged = Vec::new();
            for expr in arguments {
                let value = expr.eval(scope, data)?.into_value();
                charge(scope.steps, weight(&value))?;
                match value {
                    Value::Array(items) => merged.extend(items),
                    single => merged.push(single),
                }
            }
            V::Json(Cow::Owned(Value::Array(merged)))
        }
        Op::In => {
            let needle = argument(0)?;
            // A literal list needs no copy: the usual form of a target list.
            if let Some(Expr::List(items)) = arguments.get(1) {
                for item in items {
                    if item.eval(scope, data)?.strictly_equals(&needle) {
                        return Ok(V::Bool(true));
                    }
                }
                return Ok(V::Bool(false));
            }
            V::Bool(match (argument(1)?, &needle) {
                (V::Str(text), needle) => text.contains(&*needle.to_text()),
                (V::Json(value), needle) => {
                    value.as_array().is_some_and(|items| items.iter().any(|i| V::from(i).strictly_equals(needle)))
                }
                _ => false,
            })
        }
        Op::Cat => {
            let mut text = String::new();
            for expr in arguments {
                let part = expr.eval(scope, data)?;
                let part = part.to_text();
                charge(scope.steps, part.len() / 16)?;
                text.push_str(&part);
            }
            V::Str(Cow::Owned(text))
        }
        Op::Substr => substr(&argument(0)?, &argument(1)?, arguments.get(2).map(|_| argument(2)).transpose()?),
        Op::Log => argument(0)?,
        Op::Missing => {
            let mut names = Vec::new();
            for expr in arguments {
                match expr.eval(scope, data)?.into_value() {
                    Value::Array(items) => names.extend(items),
                    single => names.push(single),
                }
            }
            V::Json(Cow::Owned(Value::Array(missing(names, scope, data))))
        }
        Op::MissingSome => {
            let needed = argument(0)?.to_number();
            let names = list(argument(1)?);
            let total = names.len();
            let absent = missing(names, scope, data);
            let enough = (total - absent.len()) as f64 >= needed;
            V::Json(Cow::Owned(Value::Array(if enough { Vec::new() } else { absent })))
        }
        Op::StartsWith | Op::EndsWith => match (argument(0)?, argument(1)?, arguments.len()) {
            (V::Str(text), V::Str(part), 2) => {
                V::Bool(if op == Op::StartsWith { text.starts_with(&*part) } else { text.ends_with(&*part) })
            }
            _ => V::Null,
        },
        Op::SemVer => {
            if arguments.len() != 3 {
                return Ok(V::Null);
            }
            let (left, operator, right) = (argument(0)?, argument(1)?, argument(2)?);
            let version = |v: &V<'_>| matches!(v, V::Str(_) | V::Num(_));
            if !version(&left) || !version(&right) {
                return Ok(V::Null);
            }
            semver::compare(&left.to_text(), &operator.to_text(), &right.to_text()).map_or(V::Null, V::Bool)
        }
    })
}

/// Evaluates `body` over temporary data and keeps nothing of it.
fn reborrow(body: &Expr, scope: &Scope<'_>, data: Data<'_>) -> Result<Value, String> {
    body.eval(&Scope { ..*scope }, data).map(V::into_value)
}

fn list(value: V<'_>) -> Vec<Value> {
    match value.into_value() {
        Value::Array(items) => items,
        _ => Vec::new(),
    }
}

fn each<'a>(op: Op, arguments: &'a [Expr], scope: &Scope<'a>, data: Data<'a>) -> Eval<'a> {
    let items = match arguments.first() {
        Some(expr) => list(expr.eval(scope, data)?),
        None => Vec::new(),
    };
    charge(scope.steps, items.iter().map(weight).sum())?;
    let Some(body) = arguments.get(1) else {
        return Ok(V::Json(Cow::Owned(Value::Array(Vec::new()))));
    };
    let mut kept = Vec::new();
    let mut matches = 0;
    let count = items.len();
    for item in items {
        let result = reborrow(body, scope, Data::Value(&item))?;
        charge(scope.steps, weight(&result))?;
        let truthy = V::from(&result).truthy();
        matches += usize::from(truthy);
        match op {
            Op::Map => kept.push(result),
            Op::Filter if truthy => kept.push(item),
            _ => {}
        }
    }
    Ok(match op {
        Op::Map | Op::Filter => V::Json(Cow::Owned(Value::Array(kept))),
        Op::All => V::Bool(count > 0 && matches == count),
        Op::None => V::Bool(matches == 0),
        _ => V::Bool(matches > 0),
    })
}

fn missing(names: Vec<Value>, scope: &Scope<'_>, data: Data<'_>) -> Vec<Value> {
    names
        .into_iter()
        .filter(|name| {
            let text = V::from(name).to_text().into_owned();
            match lookup(&path(&text), scope, data) {
                V::Null => true,
                V::Str(s) => s.is_empty(),
                _ => false,
            }
        })
        .collect()
}

fn substr<'a>(text: &V<'_>, start: &V<'_>, length: Option<V<'_>>) -> V<'a> {
    let characters: Vec<char> = text.to_text().chars().collect();
    let n = characters.len() as i64;
    let start = start.to_number() as i64;
    let from = if start < 0 { n.saturating_add(start).max(0) } else { start.min(n) };
    let to = match length.map(|l| l.to_number() as i64) {
        None => n,
        Some(l) if l < 0 => n.saturating_add(l).max(from),
        Some(l) => from.saturating_add(l).min(n),
    };
    V::Str(Cow::Owned(characters[from as usize..to as usize].iter().collect()))
}

/// A weight: a whole number; negative ones count as 0.
fn whole(n: f64) -> Option<u64> {
    (n.fract() == 0.0 && n.abs() < 9e15).then(|| n.max(0.0) as u64)
}

fn in_texts_holds(path: &Path, texts: &[String], scope: &Scope<'_>, data: Data<'_>) -> bool {
    let is_in = |text: &str| texts.iter().any(|t| t == text);
    match (text_at(path, scope, data), data) {
        (Some(text), _) => is_in(text),
        (None, Data::Context) => false,
        (None, _) => matches!(lookup(path, scope, data), V::Str(text) if is_in(&text)),
    }
}

/// The text at a path of the context, if it is one; without making a value of it.
fn text_at<'a>(path: &Path, scope: &Scope<'a>, data: Data<'_>) -> Option<&'a str> {
    match (data, path) {
        (Data::Context, Path::TargetingKey) => scope.context.targeting_key(),
        (Data::Context, Path::Name(name)) => scope.context.attributes().get(name).and_then(Value::as_str),
        (Data::Context, _) => match lookup(path, scope, Data::Context) {
            V::Str(Cow::Borrowed(text)) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

fn named(name: Cow<'_, str>) -> Outcome<'_> {
    match name.contains('"') {
        true => Outcome::Variant(Cow::Owned(name.replace('"', ""))),
        false => Outcome::Variant(name),
    }
}

/// Which entry the subject falls on.
fn split_place(split: &Split, scope: &Scope<'_>, data: Data<'_>) -> Result<Option<usize>, String> {
    let choose = |input: &Input<'_>| fractional::choose(scope.bucketing, &split.keys, input, &split.weights);
    if let Some(Expr::Var { path, default: None }) = &split.input {
        if let Some(text) = text_at(path, scope, data) {
            return Ok(choose(&Input::Text(text)));
        }
    }
    let explicit = match &split.input {
        Some(expr) => Some(expr.eval(scope, data)?),
        None => None,
    };
    Ok(match explicit {
        Some(V::Null) if scope.bucketing == Bucketing::FlagdV3 => None,
        Some(V::Str(text)) => choose(&Input::Text(&text)),
        Some(V::Null) | None => {
            let target = scope.context.targeting_key();
            target.and_then(|target| choose(&Input::Implicit(scope.flag_key, target)))
        }
        Some(value) => choose(&Input::Explicit(&value.into_value())),
    })
}

fn fractional_op<'a>(arguments: &'a [Expr], scope: &Scope<'a>, data: Data<'a>) -> Eval<'a> {
    let (first, rest) = match arguments.split_first() {
        None => return Ok(V::Null),
        Some(pair) => pair,
    };
    // The first argument is the bucketing value unless it is itself an entry [variant, weight].
    let explicit = if matches!(first, Expr::List(_)) { None } else { Some(first.eval(scope, data)?) };
    let entries = if explicit.is_none() { arguments } else { rest };
    let explicit = match explicit {
        Some(V::Null) if scope.bucketing == Bucketing::FlagdV3 => return Ok(V::Null),
        Some(V::Null) | None => None,
        Some(value) => Some(value.into_value()),
    };
    let input = match &explicit {
        Some(value) => Input::Explicit(value),
        None => match scope.context.targeting_key() {
            Some(target) => Input::Implicit(scope.flag_key, target),
            None => return Ok(V::Null),
        },
    };
    let mut weights = [0_u64; 16];
    let mut spilled = Vec::new();
    let weights: &mut [u64] = if entries.len() <= weights.len() {
        &mut weights[..entries.len()]
    } else {
        spilled.resize(entries.len(), 0);
        &mut spilled
    };
    for (weight, entry) in weights.iter_mut().zip(entries) {
        let Expr::List(parts) = entry else { return Ok(V::Null) };
        *weight = match parts.get(1) {
            None => 1,
            Some(expr) => match expr.eval(scope, data)? {
                V::Num(n) if whole(n).is_some() => whole(n).unwrap_or_default(),
                _ => return Ok(V::Null),
            },
        };
        if parts.is_empty() || parts.len() > 2 {
            return Ok(V::Null);
        }
    }
    match fractional::choose(scope.bucketing, &fractional::Keys::new(scope.flag_key), &input, weights) {
        Some(place) => match &entries[place] {
            Expr::List(parts) => parts[0].eval(scope, data),
            _ => Ok(V::Null),
        },
        None => Ok(V::Null),
    }
}
