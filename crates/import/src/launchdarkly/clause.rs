//! Clauses and segments, as conditions.
//!
//! A clause whose attribute reference is broken, or a segment that leads back to itself, is an error in LaunchDarkly once it is
//! reached, and the whole flag gives the code default. So every piece carries beside the condition for "it matches" the condition
//! for "it fails"; nearly always that is `false`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use flags::Segment;
use serde_json::{Value, json};

use super::fields::{Left, Part};
use super::form::{self, NO, YES, all, any, compare, exists, not};
use super::reference::{self, Reference, attribute, has_kind, key_of};
use crate::growthbook::pattern::{self, Engine, Untranslatable};

/// Segments that lead back to themselves are written out where they are used; this many times, all in all.
const WRITTEN_OUT_MAX: usize = 10_000;

/// When a clause, a rule or a segment matches, and when asking ends in an error. Never both.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Match {
    pub(super) yes: Value,
    pub(super) fails: Value,
}

impl Match {
    pub(super) fn sure(yes: Value) -> Match {
        Match { yes, fails: NO }
    }

    fn failure() -> Match {
        Match { yes: NO, fails: YES }
    }

    /// This, and then the next.
    pub(super) fn and(self, next: Match) -> Match {
        let fails = any([self.fails, all([self.yes.clone(), next.fails])]);
        Match { yes: all([self.yes, next.yes]), fails }
    }

    /// This, or else the next.
    fn or(self, next: Match) -> Match {
        let reached = not(any([self.yes.clone(), self.fails.clone()]));
        if self.fails == NO && next.fails == NO {
            return Match::sure(any([self.yes, next.yes]));
        }
        let yes = any([self.yes, all([reached.clone(), next.yes])]);
        Match { yes, fails: any([self.fails, all([reached, next.fails])]) }
    }

    fn negated(self, negate: bool) -> Match {
        if !negate {
            return self;
        }
        Match { yes: all([not(self.fails.clone()), not(self.yes)]), fails: self.fails }
    }
}

/// A segment as the dialect has it.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) include: Vec<String>,
    pub(super) exclude: Vec<String>,
    pub(super) when: Value,
    fails: Value,
}

impl Content {
    /// As the document has it.
    pub(super) fn segment(&self) -> Value {
        let mut segment = json!({"include": self.include});
        if !self.exclude.is_empty() {
            segment["exclude"] = json!(self.exclude);
        }
        if self.when != NO {
            segment["when"] = self.when.clone();
        }
        segment
    }
}

/// The segments of a file, and what else clauses need to know.
#[derive(Debug)]
pub(super) struct Clauses<'a> {
    segments: BTreeMap<String, Part<'a>>,
    /// Segments that lead back to themselves.
    circular: HashSet<String>,
    /// Whether what is not in the file does not exist.
    whole: bool,
    /// Kinds of contexts that the file speaks of.
    kinds: BTreeSet<String>,
    /// Whether a segment can stand by itself.
    plain: RefCell<HashMap<String, Result<bool, Left>>>,
    written_out: Cell<usize>,
}

impl<'a> Clauses<'a> {
    pub(super) fn new(segments: BTreeMap<String, Part<'a>>, whole: bool, kinds: BTreeSet<String>) -> Clauses<'a> {
        let circular = segments.keys().filter(|key| leads_back(key, &segments)).cloned().collect();
        let (plain, written_out) = (RefCell::default(), Cell::new(0));
        Clauses { segments, circular, whole, kinds, plain, written_out }
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &String> {
        self.segments.keys()
    }

    /// All clauses of a rule.
    pub(super) fn clauses(&self, rule: &Part<'_>, chain: &[&str]) -> Result<Match, Left> {
        let mut whole = Match::sure(YES);
        for clause in rule.parts("clauses")? {
            whole = whole.and(self.clause(&clause, chain)?);
        }
        Ok(whole)
    }

    fn clause(&self, clause: &Part<'_>, chain: &[&str]) -> Result<Match, Left> {
        let op = clause.text("op")?.unwrap_or_default();
        let negate = clause.bool("negate")?;
        let values = clause.list("values")?;
        if op == "segmentMatch" {
            let mut found = Match::sure(NO);
            for key in values.iter().filter_map(Value::as_str) {
                found = found.or(self.segment(key, chain, &clause.place)?);
            }
            return Ok(found.negated(negate));
        }
        let named_kind = clause.text("contextKind")?.filter(|kind| !kind.is_empty());
        let kind = named_kind.unwrap_or("user");
        let steps = match Reference::parse(clause.text("attribute")?.unwrap_or_default(), named_kind.is_none()) {
            Reference::Invalid => return Ok(Match::failure()),
            Reference::Nothing => return Ok(Match::sure(NO)),
            Reference::Kind => return self.kind_clause(op, values, &clause.place).map(|m| m.negated(negate)),
            Reference::Key => None,
            Reference::Anonymous => Some(vec!["anonymous".to_owned()]),
            Reference::Path(steps) => Some(steps),
        };
        let attr = steps.as_ref().map_or_else(|| key_of(kind), |steps| attribute(kind, steps));
        let matches = comparison(&attr, op, values, &clause.place)?;
        let mut found = if negate { negated(&attr, matches) } else { matches };
        if let Some(steps) = &steps {
            if steps[..] == ["anonymous"] {
                let if_false = op == "in" && values.contains(&Value::Bool(false));
                found = reference::or_unset(kind, found, if_false != negate);
            }
            found = all([reference::no_lists_on_the_way(kind, steps), found]);
        }
        Ok(Match::sure(found))
    }

    /// A clause about the kinds of the context.
    fn kind_clause(&self, op: &str, values: &[Value], place: &str) -> Result<Match, Left> {
        let text = values.iter().filter_map(Value::as_str);
        let kinds: BTreeSet<&str> = match op {
            "in" => text.collect(),
            // Only of kinds that the file names can it be known whether the context has them.
            _ => {
                let matching = comparison(&json!("kind"), op, values, place)?;
                self.kinds.iter().map(String::as_str).filter(|k| form::holds(&matching, json!({"kind": k}))).collect()
            }
        };
        Ok(Match::sure(any(kinds.into_iter().map(has_kind))))
    }

    /// Membership in a segment.
    pub(super) fn segment(&self, key: &str, chain: &[&str], place: &str) -> Result<Match, Left> {
        let Some(part) = self.segments.get(key) else {
            return if self.whole {
                Ok(Match::sure(NO))
            } else {
                Err(Left::new(place, format!("the segment {key:?} is not in the file: add it under \"segments\"")))
            };
        };
        if chain.contains(&key) {
            return Ok(Match::failure());
        }
        if self.is_plain(key)? {
            return Ok(Match::sure(json!({"segment": key})));
        }
        self.written_out.set(self.written_out.get() + 1);
        if self.written_out.get() > WRITTEN_OUT_MAX {
            return Err(Left::new(place, "segments that lead back to themselves make it too long"));
        }
        let content = self.content(key, part, chain)?;
        let user = key_of("user");
        let list = |keys: Vec<String>| compare(&user, "in", keys.into_iter().map(Value::from).collect());
        let (included, excluded) = (list(content.include), list(content.exclude));
        let asked = not(any([included.clone(), excluded]));
        Ok(Match { yes: any([included, all([asked.clone(), content.when])]), fails: all([asked, content.fails]) })
    }

    /// Whether the segment can stand in the document by itself.
    fn is_plain(&self, key: &str) -> Result<bool, Left> {
        let Some(part) = self.segments.get(key).filter(|_| !self.circular.contains(key)) else { return Ok(false) };
        if let Some(known) = self.plain.borrow().get(key) {
            return known.clone();
        }
        let found = self.content(key, part, &[]).and_then(|content| match Segment::compile(&content.segment()) {
            Ok(_) => Ok(content.fails == NO),
            Err(findings) => {
                let reason = findings.first().map(ToString::to_string).unwrap_or_default();
                Err(Left::new(&part.place, format!("has no form here: {reason}")))
            }
        });
        self.plain.borrow_mut().insert(key.to_owned(), found.clone());
        found
    }

    /// The segment for the document; none if it is written out where it is used.
    pub(super) fn standing(&self, key: &str) -> Result<Option<Content>, Left> {
        match self.segments.get(key) {
            Some(part) if self.circular.contains(key) => {
                // Tried for what cannot be carried over.
                self.content(key, part, &[]).map(|_| None)
            }
            Some(part) if self.is_plain(key)? => self.content(key, part, &[]).map(Some),
            Some(_) => Ok(None),
            None => Ok(None),
        }
    }

    fn content(&self, key: &str, part: &Part<'_>, chain: &[&str]) -> Result<Content, Left> {
        if part.bool("unbounded")? {
            let text = "a big segment: its members are not in LaunchDarkly's data; list them under include, or describe them by rules";
            return Err(Left::new(part.at("unbounded"), text));
        }
        let owned = |keys: Vec<&str>| keys.into_iter().map(str::to_owned).collect::<Vec<_>>();
        let (mut include, mut exclude) = (owned(part.texts("included")?), owned(part.texts("excluded")?));
        let also = |name: &str, users: &mut Vec<String>| -> Result<Vec<Value>, Left> {
            let mut others = Vec::new();
            for target in part.parts(name)? {
                let keys = owned(target.texts("values")?);
                match target.text("contextKind")?.filter(|kind| !matches!(*kind, "" | "user")) {
                    None => users.extend(keys),
                    Some(kind) => {
                        others.push(compare(&key_of(kind), "in", keys.into_iter().map(Value::from).collect()))
                    }
                }
            }
            Ok(others)
        };
        let included = any(also("includedContexts", &mut include)?);
        let excluded = any(also("excludedContexts", &mut exclude)?);
        let salt = format!("{}.{}", part.text("key")?.unwrap_or(key), part.text("salt")?.unwrap_or_default());
        let chain: Vec<&str> = chain.iter().copied().chain([key]).collect();
        let mut rules = Match::sure(NO);
        for rule in part.parts("rules")? {
            rules = rules.or(self.segment_rule(&rule, &salt, &chain)?);
        }
        if included == NO && excluded == NO {
            return Ok(Content { include, exclude, when: rules.yes, fails: rules.fails });
        }
        // Inclusion by any kind comes before exclusion by any kind, so exclusion moves into the condition.
        let user = key_of("user");
        let by_key = compare(&user, "in", std::mem::take(&mut exclude).into_iter().map(Value::from).collect());
        let asked = not(any([by_key, excluded]));
        let fails = all([not(included.clone()), asked.clone(), rules.fails]);
        Ok(Content { include, exclude, when: any([included, all([asked, rules.yes])]), fails })
    }

    fn segment_rule(&self, rule: &Part<'_>, salt: &str, chain: &[&str]) -> Result<Match, Left> {
        let found = self.clauses(rule, chain)?;
        let Some(weight) = rule.whole("weight")? else { return Ok(found) };
        let named_kind = rule.text("rolloutContextKind")?.filter(|kind| !kind.is_empty());
        let kind = named_kind.unwrap_or("user");
        let by = match rule.text("bucketBy")?.filter(|by| !by.is_empty()) {
            None => Reference::Key,
            Some(by) => Reference::parse(by, named_kind.is_none()),
        };
        // Whatever has no place is in place 0, and so inside unless nobody is.
        let (attr, no_place) = match by {
            Reference::Invalid => return Ok(found.and(Match::failure())),
            Reference::Key => (key_of(kind), NO),
            Reference::Path(steps) => {
                let Some(no_place) = reference::has_no_place(kind, &steps) else {
                    return Err(Left::new(rule.at("bucketBy"), "splits by an attribute with a dot in its name"));
                };
                (attribute(kind, &steps), no_place)
            }
            Reference::Kind | Reference::Anonymous | Reference::Nothing => {
                return Ok(found.and(Match::sure(Value::Bool(weight > 0))));
            }
        };
        let inside = match weight {
            ..=0 => NO,
            100_001.. => YES,
            weight => any([
                not(exists(&attr)),
                no_place,
                json!({"bucket": {"ranges": [[0, weight]], "total": 100_000, "by": attr, "salt": salt,
                    "bucketing": "launchdarkly"}}),
            ]),
        };
        Ok(found.and(Match::sure(inside)))
    }
}

fn leads_back(key: &str, segments: &BTreeMap<String, Part<'_>>) -> bool {
    let mut seen = HashSet::new();
    let mut next = vec![key];
    while let Some(here) = next.pop() {
        let Some(part) = segments.get(here) else { continue };
        let rules = part.value("rules").and_then(Value::as_array).into_iter().flatten();
        let clauses = rules.filter_map(|rule| rule.get("clauses")?.as_array()).flatten();
        let segment_clauses = clauses.filter(|clause| clause.get("op").and_then(Value::as_str) == Some("segmentMatch"));
        for named in segment_clauses.filter_map(|c| c.get("values")?.as_array()).flatten().filter_map(Value::as_str) {
            if named == key {
                return true;
            }
            if seen.insert(named) {
                next.push(named);
            }
        }
    }
    false
}

/// "Is there, and does not compare so."
fn negated(attr: &Value, matches: Value) -> Value {
    if let Some(Value::String(_)) = matches.get("op") {
        let mut turned = matches;
        turned["negate"] = json!(true);
        return turned;
    }
    all([exists(attr), not(matches)])
}

/// The attribute compares with at least one of the values. Values of a kind that the operator cannot compare never match.
fn comparison(attr: &Value, op: &str, values: &[Value], place: &str) -> Result<Value, Left> {
    let kept = |fits: &dyn Fn(&Value) -> bool| values.iter().filter(|v| fits(v)).cloned().collect::<Vec<Value>>();
    let scalar = |v: &Value| v.is_string() || v.is_number() || v.is_boolean();
    let number = |op: &str| Ok(compare(attr, op, kept(&Value::is_number)));
    let text = |op: &str| Ok(compare(attr, op, kept(&Value::is_string)));
    match op {
        "in" => Ok(compare(attr, "in", kept(&scalar))),
        "startsWith" => text("starts_with"),
        "endsWith" => text("ends_with"),
        "contains" => text("contains"),
        "lessThan" => number("lt"),
        "lessThanOrEqual" => number("lte"),
        "greaterThan" => number("gt"),
        "greaterThanOrEqual" => number("gte"),
        "matches" => {
            let mut expressions = Vec::new();
            for value in values.iter().filter_map(Value::as_str) {
                match pattern::translate(value, Engine::Go, false) {
                    Ok(expression) => expressions.push(Value::from(expression)),
                    Err(Untranslatable::Broken) => {}
                    Err(Untranslatable::Unsupported) => {
                        return Err(Left::new(
                            place,
                            format!(
                                "the regular expression {value:?} has no form here, and LaunchDarkly's SDKs read it differently"
                            ),
                        ));
                    }
                }
            }
            Ok(compare(attr, "matches", expressions))
        }
        "before" | "after" => {
            Ok(compare(attr, op, kept(&|v| is_time(v) && form::refusal(&compare(attr, op, vec![v.clone()])).is_none())))
        }
        "semVerEqual" => Ok(versions(attr, "semver_eq", kept(&is_version))),
        "semVerLessThan" => Ok(versions(attr, "semver_lt", kept(&is_version))),
        "semVerGreaterThan" => Ok(versions(attr, "semver_gt", kept(&is_version))),
        _ => Ok(NO),
    }
}

/// LaunchDarkly takes nothing for a version that is not quite one (a leading `v`, a time); the dialect is milder.
fn versions(attr: &Value, op: &str, values: Vec<Value>) -> Value {
    all([compare(attr, op, values), compare(attr, "matches", vec![json!(version())])])
}

/// RFC 3339, or milliseconds since 1970.
fn is_time(value: &Value) -> bool {
    let shape = json!({"attr": "t", "op": "matches", "values": [TIME]});
    value.is_number() || value.is_string() && form::holds(&shape, json!({"t": value}))
}

const TIME: &str =
    "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$";

/// Semantic Versioning 2.0.0, but that the minor and the patch number may be missing.
fn version() -> String {
    let number = "(0|[1-9][0-9]*)";
    let pre = "(0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)";
    let build = "[0-9A-Za-z-]+";
    format!("^{number}(\\.{number}(\\.{number})?)?(-{pre}(\\.{pre})*)?(\\+{build}(\\.{build})*)?$")
}

fn is_version(value: &Value) -> bool {
    let shape = json!({"attr": "v", "op": "matches", "values": [version()]});
    value.is_string() && form::holds(&shape, json!({"v": value}))
}
