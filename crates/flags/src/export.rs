//! Our dialect as flagd JSON, for clients that evaluate in process. What flagd cannot say exactly is refused, with the reason:
//! such a client gets its code default rather than another answer than the server's.
//!
//! Lists as attributes are the one thing that differs: flagd's operators see a list as a whole, our conditions its elements.

use serde_json::{Map, Value, json};
use vocab::Timestamp;

use crate::attribute::{Attribute, text};
use crate::bucket::Bucketing;
use crate::condition::{Coerce, Comparison, Condition, Kind, NumberTest, Test, TextTest};
use crate::document::{Flag, FlagSet, Rules};
use crate::model::{Body, Serve};
use crate::split::{Hashing, Range};

type Export = Result<Value, String>;

/// How large a rule may become when segments and other flags are written into it.
const BYTES_MAX: usize = 256 << 10;
const DEPTH_MAX: usize = 20;
/// Whole numbers from here on are not all numbers of 64-bit floating point.
const EXACT_BELOW: f64 = 9e15;

struct Writer<'a> {
    set: &'a FlagSet,
    flag: &'a Flag,
    /// The one generation that the flag's splits use.
    bucketing: Option<Bucketing>,
    depth: usize,
    /// Whether this flag is written into another: what flagd adds by itself (the flag's key) is then the other's.
    nested: bool,
    /// Bytes written so far: segments and other flags are written out wherever they are needed.
    written: usize,
}

impl FlagSet {
    /// A flag of our dialect as a flagd definition, or why flagd cannot say it.
    pub fn to_flagd(&self, flag: &Flag) -> Export {
        let mut writer = Writer { set: self, flag, bucketing: None, depth: 0, nested: false, written: 0 };
        let Rules::Ours(model) = &flag.rules else { return Ok(flag.definition().clone()) };
        if model.periods.len() > 1 {
            return Err("it changes by schedule".to_owned());
        }
        let body = &model.periods[0].1;
        let variants: Map<String, Value> = flag.variants().iter().cloned().collect();
        let mut definition = json!({"variants": variants});
        let name = |place: Option<usize>| place.map_or(Value::Null, |place| flag.variants()[place].0.as_str().into());
        if !body.on {
            let off = name(body.off_variant);
            definition["state"] = if off.is_null() { "DISABLED" } else { "ENABLED" }.into();
            definition["defaultVariant"] = off;
        } else {
            definition["state"] = "ENABLED".into();
            match (flag.has_rules(), &body.fallthrough) {
                (false, Serve::Variant(place)) => definition["defaultVariant"] = name(Some(*place)),
                (false, _) => definition["defaultVariant"] = Value::Null,
                (true, _) => {
                    definition["defaultVariant"] = Value::Null;
                    definition["targeting"] = writer.body(body)?;
                }
            }
        }
        let mut metadata = flag.metadata().clone();
        if let Some(bucketing) = writer.bucketing {
            metadata.insert("bucketing".to_owned(), bucketing.as_str().into());
        }
        if !metadata.is_empty() {
            definition["metadata"] = Value::Object(metadata);
        }
        Ok(definition)
    }
}

fn var(attribute: &Attribute) -> Export {
    match attribute {
        Attribute::TargetingKey => Ok(json!({"var": "targetingKey"})),
        Attribute::Name(name) => Ok(json!({"var": name})),
        Attribute::Deep(_, whole) => Ok(json!({"var": whole})),
        Attribute::Pointer(parts) if parts.iter().all(|part| !part.is_empty() && !part.contains('.')) => {
            Ok(json!({"var": parts.join(".")}))
        }
        Attribute::Pointer(_) => Err("flagd cannot name an attribute with a point in it".to_owned()),
        Attribute::Now => Err("flagd knows the time only in comparisons".to_owned()),
    }
}

fn seconds(at: Timestamp) -> Export {
    if at.nanos().rem_euclid(1_000_000_000) != 0 {
        return Err("flagd knows the time in whole seconds only".to_owned());
    }
    Ok(json!(at.nanos().div_euclid(1_000_000_000)))
}

impl Writer<'_> {
    fn deeper<T>(&mut self, write: impl FnOnce(&mut Self) -> Result<T, String>) -> Result<T, String> {
        if self.depth >= DEPTH_MAX {
            return Err(format!("flags and segments hang together deeper than {DEPTH_MAX} levels"));
        }
        self.depth += 1;
        let written = write(self);
        self.depth -= 1;
        written
    }

    /// Takes note of what is written, before it is put together with the rest.
    fn spend(&mut self, value: &Value, times: usize) -> Result<(), String> {
        self.written = self.written.saturating_add(value.to_string().len().saturating_mul(times));
        if self.written > BYTES_MAX {
            return Err(format!("it would be longer than {BYTES_MAX} bytes"));
        }
        Ok(())
    }

    fn name(&self, place: usize) -> Value {
        self.flag.variants()[place].0.as_str().into()
    }

    /// A chain of conditions and what they serve, as the arguments of `if`.
    fn body(&mut self, body: &Body) -> Export {
        let off = body.off_variant.map_or(Value::Null, |place| self.name(place));
        let mut chain = Vec::new();
        for (key, variants) in &body.prerequisites {
            let holds = self.other_flag(key, variants)?;
            chain.extend([json!({"!": [holds]}), off.clone()]);
        }
        for targets in &body.targets {
            let mut by_variant: std::collections::BTreeMap<usize, Vec<&str>> = Default::default();
            for (subject, variant) in &targets.variants {
                by_variant.entry(*variant).or_default().push(subject);
            }
            for (variant, mut subjects) in by_variant {
                subjects.sort_unstable();
                let named = var(&targets.attribute)?;
                let mut listed: Vec<Value> = subjects.iter().map(|subject| (*subject).into()).collect();
                if targets.attribute != Attribute::TargetingKey {
                    // A number or a truth value names a subject by its text.
                    let scalars = subjects.iter().filter_map(|subject| serde_json::from_str::<Value>(subject).ok());
                    let named = |value: &Value| text(value).is_some_and(|text| subjects.binary_search(&&*text).is_ok());
                    listed.extend(scalars.filter(|value| !value.is_string() && named(value)));
                }
                if listed.iter().any(|value| value.as_f64().is_some_and(|n| n.abs() >= EXACT_BELOW)) {
                    return Err("flagd's numbers are not exact".to_owned());
                }
                let condition = json!({"in": [named, listed]});
                self.spend(&condition, 1)?;
                chain.extend([condition, self.name(variant)]);
            }
        }
        for rule in &body.rules {
            let when = self.condition(&rule.when)?;
            self.serve(when, &rule.serve, &mut chain)?;
        }
        let mut last = Vec::new();
        self.serve(Value::Bool(true), &body.fallthrough, &mut last)?;
        match last.as_slice() {
            [Value::Bool(true), serve] => chain.push(serve.clone()),
            _ => chain.append(&mut last),
        }
        Ok(if chain.len() == 1 { json!({"if": [true, chain[0]]}) } else { json!({"if": chain}) })
    }

    fn serve(&mut self, when: Value, serve: &Serve, chain: &mut Vec<Value>) -> Result<(), String> {
        match serve {
            Serve::Variant(variant) => chain.extend([when, self.name(*variant)]),
            Serve::CodeDefault => chain.extend([when, Value::Null]),
            Serve::Split(split) => {
                let fractional = self.fractional(&split.hashing, &split.ranges)?;
                // Without a unit flagd's split gives nothing at all, ours goes on with the next rule.
                let has_unit = self.unit(&split.hashing)?;
                chain.extend([json!({"and": [when, {"!!": [has_unit]}]}), fractional]);
            }
            Serve::Ramp(ramp) if ramp.linear => return Err("its share moves every second".to_owned()),
            Serve::Ramp(ramp) => {
                self.spend(&when, ramp.steps.len() + 1)?;
                let has_unit = self.unit(&ramp.hashing)?;
                for (n, (at, share)) in ramp.steps.iter().enumerate().rev() {
                    let grown = share * ramp.hashing.total();
                    let (from, below) =
                        if ramp.low { (0.0, grown) } else { (ramp.hashing.total() - grown, ramp.hashing.total()) };
                    let mut ranges = vec![Range { from: 0.0, below: ramp.hashing.total(), variant: ramp.from }];
                    if grown > 0.0 {
                        ranges = vec![
                            Range { from: 0.0, below: from, variant: ramp.from },
                            Range { from, below, variant: ramp.to },
                            Range { from: below, below: ramp.hashing.total(), variant: ramp.from },
                        ];
                        ranges.retain(|range| range.below > range.from);
                    }
                    let reached = json!({">=": [{"var": "$flagd.timestamp"}, seconds(*at)?]});
                    let condition = json!({"and": [when, reached, {"!!": [has_unit]}]});
                    chain.extend([condition, self.fractional(&ramp.hashing, &ranges)?]);
                    if n == 0 {
                        chain.extend([json!({"and": [when, {"!!": [has_unit]}]}), self.name(ramp.from)]);
                    }
                }
            }
        }
        Ok(())
    }

    fn unit(&self, hashing: &Hashing) -> Export {
        match hashing.by() {
            [one] => var(one),
            _ => Err("flagd splits by one attribute".to_owned()),
        }
    }

    /// `fractional` with the same hash input, if the generation is one of flagd's and the ranges cover everything in order.
    fn fractional(&mut self, hashing: &Hashing, ranges: &[Range]) -> Export {
        let generation = hashing.bucketing();
        if hashing.first_if_missing() {
            return Err("flagd has no place for a subject without a unit".to_owned());
        }
        if !generation.is_for_fractional() || generation == Bucketing::Native1 {
            return Err(format!("flagd cannot hash as {} does", generation.as_str()));
        }
        if self.bucketing.replace(generation).is_some_and(|before| before != generation) {
            return Err("its splits use different generations".to_owned());
        }
        let mut end = 0.0;
        let mut entries = Vec::new();
        for range in ranges {
            let weight = match generation {
                Bucketing::FlagdV1 => (range.below - range.from) * hashing.total() / 100.0,
                _ => range.below - range.from,
            };
            if (range.from - end).abs() > 1e-9 || (weight - weight.round()).abs() > 1e-9 {
                return Err("flagd's ranges follow each other and have whole lengths".to_owned());
            }
            end = range.below;
            entries.push(json!([self.name(range.variant), weight.round() as u64]));
        }
        let whole = generation.bound(hashing.total(), hashing.total());
        if (end - whole).abs() > 1e-9 {
            return Err("flagd's split covers everybody".to_owned());
        }
        self.spend(&json!(entries), 1)?;
        let unit = self.unit(hashing)?;
        let input = match (hashing.salt(), generation) {
            (Some(salt), _) => json!({"cat": [salt, unit]}),
            (None, Bucketing::FlagdV3) if self.nested => {
                return Err(format!("it needs the flag {:?}, whose split has no salt of its own", self.flag.key()));
            }
            (None, Bucketing::FlagdV3) if hashing.by() == [Attribute::TargetingKey] => Value::Null,
            (None, Bucketing::FlagdV3) => return Err("flagd-v3 without a salt splits by the targeting key".to_owned()),
            (None, _) => json!({"cat": [self.flag.key(), unit]}),
        };
        if !input.is_null() {
            entries.insert(0, input);
        }
        Ok(json!({"fractional": entries}))
    }

    fn other_flag(&mut self, key: &str, variants: &[Box<str>]) -> Export {
        let Some(flag) = self.set.any_flag(key).cloned() else { return Ok(false.into()) };
        if self.set.overlay(key).is_some() {
            return Err(format!("the flag {key:?} is under an experiment"));
        }
        let names = |place: Option<usize>| place.map_or(Value::Null, |place| flag.variants()[place].0.as_str().into());
        let rule = match &flag.rules {
            Rules::None if !flag.enabled() => return Ok(false.into()),
            Rules::None => flag.default_variant().map_or(Value::Null, Value::from),
            Rules::Logic(_) => return Err(format!("it needs the flag {key:?}, which is in flagd's dialect")),
            Rules::Ours(model) if model.periods.len() > 1 => {
                return Err(format!("the flag {key:?} changes by schedule"));
            }
            Rules::Ours(model) => {
                let body = &model.periods[0].1;
                if !body.on {
                    return Ok(false.into());
                }
                match (&body.fallthrough, flag.has_rules()) {
                    (Serve::Variant(place), false) => names(Some(*place)),
                    (_, false) => Value::Null,
                    (_, true) => self.deeper(|writer| {
                        let (bucketing, depth, written) = (writer.bucketing, writer.depth, writer.written);
                        let mut other =
                            Writer { set: writer.set, flag: &flag, bucketing, depth, nested: true, written };
                        let rule = other.body(body);
                        (writer.bucketing, writer.written) = (other.bucketing, other.written);
                        rule
                    })?,
                }
            }
        };
        Ok(json!({"in": [rule, variants]}))
    }

    fn condition(&mut self, condition: &Condition) -> Export {
        self.spend(&Value::Null, 1)?;
        Ok(match &condition.kind {
            Kind::Constant(constant) => (*constant).into(),
            Kind::All(conditions) if conditions.is_empty() => true.into(),
            Kind::Any(conditions) if conditions.is_empty() => false.into(),
            Kind::All(conditions) => json!({"and": self.conditions(conditions)?}),
            Kind::Any(conditions) => json!({"or": self.conditions(conditions)?}),
            Kind::Not(condition) => json!({"!": [self.condition(condition)?]}),
            Kind::Segment(key) => {
                let Some(segment) = self.set.segment(key).cloned() else { return Ok(false.into()) };
                let sorted = |set: &hashbrown::HashSet<Box<str>>| {
                    let mut list: Vec<String> = set.iter().map(ToString::to_string).collect();
                    list.sort_unstable();
                    list
                };
                let key = json!({"var": "targetingKey"});
                let when = match &segment.when {
                    Some(when) => self.deeper(|writer| writer.condition(when))?,
                    None => false.into(),
                };
                let (include, exclude) = (sorted(&segment.include), sorted(&segment.exclude));
                self.spend(&json!([include, exclude]), 1)?;
                json!({"or": [{"in": [key, include]}, {"and": [{"!": [{"in": [key, exclude]}]}, when]}]})
            }
            Kind::Flag(key, variants) => self.other_flag(key, variants)?,
            Kind::Bucket(_) => return Err("flagd has no condition on a place in hash space".to_owned()),
            Kind::Attribute(comparison) => {
                let logic = comparison_logic(comparison)?;
                self.spend(&logic, 1)?;
                logic
            }
            Kind::Logic(_) => match condition_source(self.flag.definition(), &condition.place) {
                Some(rule) if self.nested && rule.to_string().contains("$flagd.flagKey") => {
                    return Err(format!("it needs the flag {:?}, which reads its own key", self.flag.key()));
                }
                Some(rule) => {
                    self.spend(rule, 1)?;
                    rule.clone()
                }
                None => return Err("its JSONLogic is in a segment or a schedule".to_owned()),
            },
        })
    }

    fn conditions(&mut self, conditions: &[Condition]) -> Result<Vec<Value>, String> {
        conditions.iter().map(|condition| self.condition(condition)).collect()
    }
}

/// The JSONLogic of a condition, as it stands in the definition.
fn condition_source<'a>(definition: &'a Value, place: &str) -> Option<&'a Value> {
    definition.pointer(place)?.get("logic")
}

fn comparison_logic(comparison: &Comparison) -> Export {
    if comparison.ignore_case || comparison.coerce != Coerce::No {
        return Err("flagd compares text as it is".to_owned());
    }
    if let ([Attribute::Now], Test::Time { after, values }) = (comparison.attributes.as_slice(), &comparison.test) {
        if comparison.negate {
            return Err("flagd has no negated time".to_owned());
        }
        let now = json!({"var": "$flagd.timestamp"});
        // flagd's clock has whole seconds: it turns within the second after ours.
        let any: Result<Vec<Value>, String> = values
            .iter()
            .map(|at| Ok(if *after { json!({">": [now, seconds(*at)?]}) } else { json!({"<": [now, seconds(*at)?]}) }))
            .collect();
        return Ok(json!({"or": any?}));
    }
    let [attribute] = comparison.attributes.as_slice() else {
        return Err("flagd looks at one attribute".to_owned());
    };
    let value = var(attribute)?;
    let exists = json!({"!=": [value, null]});
    let any = |parts: Vec<Value>| if parts.is_empty() { json!(false) } else { json!({"or": parts}) };
    let test = match &comparison.test {
        Test::In(values) => json!({"in": [value, values]}),
        Test::InTexts(values) => {
            let mut list: Vec<&str> = values.iter().map(|v| &**v).collect();
            list.sort_unstable();
            json!({"in": [value, list]})
        }
        Test::Text(TextTest::Contains, parts) => {
            let is_text = json!({"===": [{"cat": [value]}, value]});
            json!({"and": [is_text, any(parts.iter().map(|part| json!({"in": [part, value]})).collect())]})
        }
        Test::Text(test, parts) => {
            let op = if *test == TextTest::StartsWith { "starts_with" } else { "ends_with" };
            any(parts.iter().map(|part| json!({op: [value, part]})).collect())
        }
        Test::Number(test, numbers) => {
            let op = match test {
                NumberTest::Lt => "<",
                NumberTest::Lte => "<=",
                NumberTest::Gt => ">",
                NumberTest::Gte => ">=",
            };
            // JSONLogic would make numbers of texts and of null, and some engines fail over them. A number is what is not its own
            // text, and whose text begins as numbers do.
            let text = json!({"cat": [value]});
            let is_number = json!({"and": [exists, {"!==": [text, value]},
                {"in": [{"substr": [text, 0, 1]}, "-0123456789"]}]});
            json!({"and": [is_number, any(numbers.iter().map(|n| json!({op: [value, n]})).collect())]})
        }
        Test::SemVer(sign, versions) => {
            let is_text = json!({"===": [{"cat": [value]}, value]});
            json!({"and": [is_text, any(versions.iter().map(|v| json!({"sem_ver": [value, sign, v]})).collect())]})
        }
        Test::Exists => return Ok(if comparison.negate { json!(false) } else { exists }),
        Test::Equals(_) => return Err("flagd cannot compare lists and objects".to_owned()),
        Test::Matches(_) => return Err("flagd has no regular expressions".to_owned()),
        Test::Time { .. } => return Err("flagd cannot read times".to_owned()),
    };
    Ok(if comparison.negate { json!({"and": [exists, {"!": [test]}]}) } else { test })
}
