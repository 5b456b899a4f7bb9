//! Evaluating a flag for a context, in OpenFeature's terms.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use serde_json::Value;
use vocab::{Arm, Id, Timestamp};

use crate::bucket::{Bucketing, Slice};
use crate::context::Context;
use crate::document::{Flag, FlagSet, Rules};
use crate::logic::{Expr, Outcome, Scope, charge};
use crate::patch::Patch;
use crate::segment::Segment;

/// How deep flags and segments may hang together.
const DEPTH_MAX: u8 = 32;

/// Why this value (OpenFeature's resolution reasons, as flagd uses them).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// No rule: the same for everybody; clients may cache it.
    Static,
    /// A rule chose it.
    TargetingMatch,
    /// An experiment chose it by the subject's place in hash space.
    Split,
    /// No rule matched.
    Default,
    /// The flag is off: the code default.
    Disabled,
}

impl Reason {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Static => "STATIC",
            Reason::TargetingMatch => "TARGETING_MATCH",
            Reason::Split => "SPLIT",
            Reason::Default => "DEFAULT",
            Reason::Disabled => "DISABLED",
        }
    }
}

/// OpenFeature's error codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// No flag with that key.
    FlagNotFound,
    /// The rule cannot be evaluated.
    ParseError,
    /// The flag's values are of another type than asked for.
    TypeMismatch,
    /// The rule needs a targeting key.
    TargetingKeyMissing,
    /// The context is not an object, or nested too deeply.
    InvalidContext,
    /// The rule names no variant.
    General,
}

impl ErrorCode {
    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            ErrorCode::FlagNotFound => "FLAG_NOT_FOUND",
            ErrorCode::ParseError => "PARSE_ERROR",
            ErrorCode::TypeMismatch => "TYPE_MISMATCH",
            ErrorCode::TargetingKeyMissing => "TARGETING_KEY_MISSING",
            ErrorCode::InvalidContext => "INVALID_CONTEXT",
            ErrorCode::General => "GENERAL",
        }
    }
}

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct EvaluationError {
    /// For clients.
    pub code: ErrorCode,
    /// For people.
    pub detail: String,
}

/// A decision. Without a value the client uses its code default.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation<'a> {
    /// The variant's name.
    pub variant: Option<&'a str>,
    /// The variant's value.
    pub value: Option<&'a Value>,
    /// Why.
    pub reason: Reason,
    /// The experiment that the subject takes part in through this flag, and its arm.
    pub experiment: Option<(Id, Arm)>,
}

/// An experiment in front of a flag's own rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Overlay {
    /// Which experiment.
    pub experiment: Id,
    /// Who takes part.
    pub slice: Slice,
    /// What treatment subjects get.
    pub serves: Serves,
    /// A variant that was promoted before and stands in front of the rules for everybody else.
    pub otherwise: Option<Arc<str>>,
}

/// What an experiment serves to its treatment subjects.
#[derive(Clone, Debug, PartialEq)]
pub enum Serves {
    /// What the rules say, as to the baseline: the warm-up.
    Rules,
    /// A variant, whatever the rules say.
    Variant(Arc<str>),
    /// What the rules will say after a change of flags. Only subjects whose answer the change moves take part.
    Change {
        /// The change.
        patch: Arc<Patch>,
        /// Whether it is served; in the warm-up it only says who takes part.
        on: bool,
    },
}

impl Overlay {
    /// The change that is served, if it is one.
    pub(crate) fn patch(&self) -> Option<&Patch> {
        match &self.serves {
            Serves::Change { patch, .. } => Some(patch),
            _ => None,
        }
    }
}

/// Steps of one explanation; what comes after is not told.
const STEPS_NOTED_MAX: usize = 2_000;

/// What rules see besides themselves.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) context: &'a Context,
    pub(crate) flag_key: &'a str,
    pub(crate) now: Timestamp,
    bucketing: Bucketing,
    /// Other flags and segments; none when a flag stands alone.
    set: Option<&'a FlagSet>,
    depth: u8,
    /// Steps that are left for this evaluation, through all flags and segments.
    budget: &'a Cell<u32>,
    /// The flag or segment that is looked at on behalf of another.
    within: Option<(&'static str, &'a str)>,
    /// Where steps are noted, for explanations.
    steps: Option<&'a RefCell<Vec<Value>>>,
    /// The experiment on a change whose side is chosen: the change, or without it.
    side: Option<(Id, Option<&'a Patch>)>,
}

impl<'a> Scene<'a> {
    /// Notes a step if somebody wants to know, which is seldom.
    #[inline]
    pub(crate) fn trace(&self, step: impl FnOnce() -> Value) {
        if let Some(steps) = self.steps {
            self.note(steps, step);
        }
    }

    #[cold]
    fn note(&self, steps: &RefCell<Vec<Value>>, step: impl FnOnce() -> Value) {
        if steps.borrow().len() >= STEPS_NOTED_MAX {
            return;
        }
        let mut step = step();
        if let Some((kind, key)) = self.within {
            step["within"] = Value::from(format!("{kind} {key}"));
        }
        steps.borrow_mut().push(step);
    }

    /// Pays for so many steps: a condition or a flag is one.
    #[inline]
    pub(crate) fn step(&self, steps: usize) -> Result<(), EvaluationError> {
        charge(self.budget, steps).map_err(|detail| broken(self.flag_key, &detail))
    }

    fn deeper(&self, kind: &'static str, key: &'a str) -> Result<Self, EvaluationError> {
        if self.depth >= DEPTH_MAX {
            let detail = format!("flags and segments hang together deeper than {DEPTH_MAX} levels");
            return Err(EvaluationError { code: ErrorCode::ParseError, detail });
        }
        Ok(Scene { depth: self.depth + 1, within: Some((kind, key)), ..*self })
    }

    /// A flag that decides along, as the chosen side has it.
    fn flag(&self, key: &str) -> Option<&'a Arc<Flag>> {
        let patched = self.side.and_then(|(_, patch)| patch?.flags().get(key));
        patched.or_else(|| self.set.and_then(|set| set.any_flag(key)))
    }

    fn segment(&self, key: &str) -> Option<&'a Arc<Segment>> {
        let patched = self.side.and_then(|(_, patch)| patch?.segments().get(key));
        patched.or_else(|| self.set.and_then(|set| set.segment(key)))
    }

    pub(crate) fn in_segment(&self, key: &'a str) -> Result<bool, EvaluationError> {
        match self.segment(key) {
            Some(segment) => segment.holds(&self.deeper("segment", key)?),
            None => Ok(false),
        }
    }

    /// Whether another flag is on and gives one of these variants.
    pub(crate) fn flag_gives(&self, key: &'a str, variants: &[Box<str>]) -> Result<bool, EvaluationError> {
        let Some(flag) = self.flag(key) else { return Ok(false) };
        self.step(1)?;
        let scene = Scene { flag_key: &flag.key, bucketing: flag.bucketing, ..self.deeper("flag", key)? };
        let found = flag.decide(&scene, self.set.and_then(|set| set.overlay(key)))?;
        Ok(found.reason != Reason::Disabled && found.variant.is_some_and(|name| variants.iter().any(|v| **v == *name)))
    }

    pub(crate) fn logic(&self, expr: &Expr) -> Result<bool, EvaluationError> {
        expr.truthy(&self.scope()).map_err(|detail| broken(self.flag_key, &detail))
    }

    fn scope(&self) -> Scope<'_> {
        Scope {
            steps: self.budget,
            context: self.context,
            flag_key: self.flag_key,
            now: self.now,
            bucketing: self.bucketing,
        }
    }
}

fn broken(key: &str, detail: &str) -> EvaluationError {
    let detail = format!("the rule of flag {key:?} cannot be evaluated: {detail}");
    EvaluationError { code: ErrorCode::ParseError, detail }
}

impl FlagSet {
    /// Decides for `context` at `now`, with the experiments in front of flags.
    pub fn evaluate<'a>(
        &'a self,
        key: &str,
        context: &Context,
        now: Timestamp,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        self.evaluate_with(key, context, now, None, &Expr::budget())
    }

    /// The same, and how many steps it took.
    pub(crate) fn evaluate_counted<'a>(
        &'a self,
        key: &str,
        context: &Context,
        now: Timestamp,
    ) -> (Result<Evaluation<'a>, EvaluationError>, u32) {
        let budget = Expr::budget();
        let found = self.evaluate_with(key, context, now, None, &budget);
        (found, Expr::budget().get() - budget.get())
    }

    /// The same, and the steps that led there: JSON objects, each with `at`, a JSON pointer into the definition.
    pub fn explain<'a>(
        &'a self,
        key: &str,
        context: &Context,
        now: Timestamp,
    ) -> (Result<Evaluation<'a>, EvaluationError>, Vec<Value>) {
        let steps = RefCell::new(Vec::new());
        let found = self.evaluate_with(key, context, now, Some(&steps), &Expr::budget());
        (found, steps.into_inner())
    }

    fn evaluate_with<'a>(
        &'a self,
        key: &str,
        context: &Context,
        now: Timestamp,
        steps: Option<&RefCell<Vec<Value>>>,
        budget: &Cell<u32>,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let Some(flag) = self.flag(key) else {
            return Err(EvaluationError { code: ErrorCode::FlagNotFound, detail: format!("there is no flag {key:?}") });
        };
        self.evaluate_flag(flag, context, now, steps, budget)
    }

    /// Decides all flags, by key, each as [`FlagSet::evaluate`] does.
    pub fn evaluate_all<'a>(
        &'a self,
        context: &'a Context,
        now: Timestamp,
    ) -> impl ExactSizeIterator<Item = (&'a Arc<Flag>, Result<Evaluation<'a>, EvaluationError>)> {
        let all = self.in_order().iter();
        all.map(move |flag| (flag, self.evaluate_flag(flag, context, now, None, &Expr::budget())))
    }

    fn evaluate_flag<'a>(
        &'a self,
        flag: &'a Flag,
        context: &Context,
        now: Timestamp,
        steps: Option<&RefCell<Vec<Value>>>,
        budget: &Cell<u32>,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let bucketing = flag.bucketing;
        let scene = Scene {
            context,
            flag_key: &flag.key,
            now,
            bucketing,
            set: Some(self),
            depth: 0,
            budget,
            within: None,
            steps,
            side: None,
        };
        flag.decide(&scene, self.overlay(&flag.key))
    }
}

impl Flag {
    /// Decides for `context` at `now`, without other flags and segments. Baseline subjects of the overlay, and everybody outside
    /// its slice, get what the flag's own rules say. A disabled flag is off for everybody: the kill switch beats every experiment.
    pub fn evaluate<'a>(
        &'a self,
        context: &Context,
        overlay: Option<&'a Overlay>,
        now: Timestamp,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let bucketing = self.bucketing;
        let budget = Expr::budget();
        let scene = Scene {
            context,
            flag_key: &self.key,
            now,
            bucketing,
            set: None,
            depth: 0,
            budget: &budget,
            within: None,
            steps: None,
            side: None,
        };
        self.decide(&scene, overlay)
    }

    fn decide<'a>(
        &'a self,
        scene: &Scene<'_>,
        overlay: Option<&'a Overlay>,
    ) -> Result<Evaluation<'a>, EvaluationError> {
        let (overlay, promoted) = match overlay {
            // The side is chosen. A change of a flag ends what was promoted in front of it.
            Some(overlay) if scene.side.is_some_and(|(chosen, _)| chosen == overlay.experiment) => {
                let changed =
                    scene.side.is_some_and(|(_, patch)| patch.is_some_and(|p| p.flags().contains_key(&self.key)));
                (None, overlay.otherwise.as_ref().filter(|_| !changed))
            }
            Some(overlay) if overlay.patch().is_some() => return self.decide_change(scene, overlay),
            Some(overlay) => (Some(overlay), overlay.otherwise.as_ref()),
            None => (None, None),
        };
        let body = match &self.rules {
            Rules::Ours(model) => {
                let body = model.body(scene.now);
                if let Some((place, reason)) = body.off(scene)? {
                    return Ok(self.decision(place, reason, None));
                }
                Some(body)
            }
            _ if !self.enabled => {
                scene.trace(|| serde_json::json!({"at": "/state", "holds": false}));
                return Ok(self.decision(None, Reason::Disabled, None));
            }
            _ => None,
        };
        let mut experiment = None;
        if let Some((overlay, subject)) = overlay.zip(scene.context.targeting_key()) {
            if let Some(arm) = overlay.slice.arm(subject) {
                experiment = Some((overlay.experiment, arm));
                scene.trace(|| serde_json::json!({"experiment": overlay.experiment, "arm": arm.as_str()}));
                if let (true, Serves::Variant(variant)) = (arm.is_treatment(), &overlay.serves) {
                    if let Some(place) = self.place_of(variant) {
                        return Ok(self.decision(Some(place), Reason::Split, experiment));
                    }
                }
            }
        }
        if let Some(place) = promoted.and_then(|variant| self.place_of(variant)) {
            return Ok(self.decision(Some(place), Reason::Split, experiment));
        }
        // A value that depends on the subject must not be cached for others.
        let uncached = |reason| if overlay.is_some() && reason == Reason::Static { Reason::Split } else { reason };
        if let Some(body) = body {
            let (place, reason) = body.decide(scene)?;
            let changes = matches!(&self.rules, Rules::Ours(model) if model.periods.len() > 1);
            let reason = if changes && reason == Reason::Static { Reason::Default } else { reason };
            return Ok(self.decision(place, uncached(reason), experiment));
        }
        let Rules::Logic(rule) = &self.rules else {
            let reason = if self.default.is_some() { Reason::Static } else { Reason::Default };
            return Ok(self.decision(self.default, uncached(reason), experiment));
        };
        match rule.outcome(&scene.scope()) {
            Outcome::Nothing => Ok(self.decision(self.default, Reason::Default, experiment)),
            Outcome::Variant(name) => match self.place_of(&name) {
                Some(place) => Ok(self.decision(Some(place), Reason::TargetingMatch, experiment)),
                None => Err(EvaluationError {
                    code: ErrorCode::General,
                    detail: format!("the rule of flag {:?} names a variant that it does not have", self.key),
                }),
            },
            Outcome::Failed(detail) => Err(broken(&self.key, &detail)),
        }
    }

    /// Decides without and with a change, and serves one of the two. Who gets the same either way takes no part: such subjects would
    /// only water down what the experiment can see.
    fn decide_change<'a>(&'a self, scene: &Scene<'_>, overlay: &'a Overlay) -> Result<Evaluation<'a>, EvaluationError> {
        let Overlay { experiment, slice, serves: Serves::Change { patch, on }, .. } = overlay else {
            return self.decide(scene, None);
        };
        let arm = scene.context.targeting_key().and_then(|subject| slice.arm(subject));
        // Which answer it is depends on the subject: none may be cached for others.
        let uncached = |found: Evaluation<'a>| match found.reason {
            Reason::Static => Evaluation { reason: Reason::Split, ..found },
            _ => found,
        };
        let serves_change = *on && arm.is_some_and(Arm::is_treatment);
        let side = |changed: bool| {
            let steps = scene.steps.filter(|_| changed == serves_change);
            let scene = Scene { side: Some((*experiment, changed.then_some(&**patch))), steps, ..*scene };
            match patch.flags().get(&self.key).filter(|_| changed) {
                Some(flag) => flag.decide(&Scene { bucketing: flag.bucketing, ..scene }, Some(overlay)),
                None => self.decide(&scene, Some(overlay)),
            }
        };
        let Some(arm) = arm else { return side(false).map(uncached) };
        scene.trace(|| serde_json::json!({"experiment": experiment, "arm": arm.as_str(), "change": on}));
        let (without, with) = (side(false), side(true));
        let answer = |found: &Result<Evaluation<'_>, EvaluationError>| {
            found.as_ref().ok().map(|found| (found.variant.map(str::to_owned), found.value.cloned()))
        };
        let moved = answer(&without) != answer(&with);
        let served = if serves_change { with } else { without };
        if !moved {
            return served.map(uncached);
        }
        // An error names no experiment, and without its failures an arm looks better than it is: no value says the same to clients.
        let served =
            served.unwrap_or(Evaluation { variant: None, value: None, reason: Reason::Default, experiment: None });
        Ok(uncached(Evaluation { experiment: Some((*experiment, arm)), ..served }))
    }

    pub(crate) fn place_of(&self, variant: &str) -> Option<usize> {
        self.variants.iter().position(|(name, _)| name == variant)
    }

    fn decision(&self, place: Option<usize>, reason: Reason, experiment: Option<(Id, Arm)>) -> Evaluation<'_> {
        let variant = place.map(|place| &self.variants[place]);
        Evaluation {
            variant: variant.map(|(name, _)| name.as_str()),
            value: variant.map(|(_, value)| value),
            reason,
            experiment,
        }
    }
}
