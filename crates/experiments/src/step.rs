//! The decision: experiment + tally + now → what comes next, and why, or why not yet.
//!
//! Order of questions, the first that says yes decides: harm (the guaranteed test), ceiling, validity (broken split, fault
//! not injected), no data, end of time, stage passed. A stop therefore beats a promotion due at the same tick. In warm-up
//! the same alarms mean that the arms differed before the change: `invalid`, never `harm`.

use vocab::{Arm, Millis, Timestamp};

use crate::experiment::{Experiment, Phase};
use crate::spec::{OnSuccess, Treatment};
use crate::tally::Tally;
use crate::verdict::{Outcome, Verdict};

/// Alpha of the sample-ratio alarms; they end an experiment as invalid, so they may be stricter than any guardrail.
const RATIO_ALPHA: f64 = 0.001;
/// A fault that did not act on one of this many treated requests is not there.
const INJECTION_MIN: u64 = 30;
/// Promotion needs KPI events of at least this many subjects in each arm.
const HEARD_MIN: u64 = 20;
/// Latency cut-points need this many baseline requests.
const CUT_SAMPLES_MIN: usize = 1_000;
/// Without any exposure for this long, or for a window if that is longer, there is no data.
const NO_DATA: Millis = Millis::from_secs(10);
/// A held experiment waits this long for data to come back.
const HELD_MAX: Millis = Millis::from_secs(120);

/// What a guardrail says now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardrailState {
    /// Below its line.
    Quiet,
    /// At or above its line.
    Alarm,
    /// It has nothing to go by.
    NoData,
}

impl GuardrailState {
    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            GuardrailState::Quiet => "quiet",
            GuardrailState::Alarm => "alarm",
            GuardrailState::NoData => "no data",
        }
    }
}

/// One guardrail's numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct GuardrailReport {
    /// Which.
    pub name: &'static str,
    /// `relative`, `ceiling` or `validity`.
    pub kind: &'static str,
    /// Natural logarithm of its e-value; 0 for a ceiling.
    pub log_e: f64,
    /// Its line.
    pub log_threshold: f64,
    /// The alpha that belongs to the line; 0 for a ceiling.
    pub alpha: f64,
    /// What it says.
    pub state: GuardrailState,
    /// The counts behind it, for a person.
    pub detail: String,
}

/// Why this decision, or why none yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// All guardrails.
    pub guardrails: Vec<GuardrailReport>,
    /// What the experiment waits for, for a person.
    pub waiting_for: String,
}

/// A change of phase.
#[derive(Clone, Debug, PartialEq)]
pub struct Transition {
    /// To where.
    pub to: Phase,
    /// Why, for a person.
    pub reason: String,
    /// With which numbers, at the end of an experiment.
    pub verdict: Option<Verdict>,
}

/// What [`step`] decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// The change of phase, if any.
    pub next: Option<Transition>,
    /// Why.
    pub report: Report,
}

/// Decides. The tally has been advanced to `now`.
pub fn step(experiment: &Experiment, tally: &Tally, now: Timestamp) -> Turn {
    let guardrails = guardrails(experiment, tally);
    let alarm = |kind: &str| guardrails.iter().find(|g| g.kind == kind && g.state == GuardrailState::Alarm);
    let spec = &experiment.spec;
    let in_phase = now.since(experiment.phase_at);
    let mut waiting_for = String::new();
    let ends = |to: Phase, outcome: Outcome, guardrail: Option<&GuardrailReport>, sentence: String| {
        let verdict = verdict(experiment, tally, now, outcome, guardrail, sentence.clone());
        Some(Transition { to, reason: sentence, verdict: Some(verdict) })
    };
    let next = match experiment.phase {
        Phase::WarmUp => {
            let (t, b) = (tally.arm(Arm::Treatment).exposed, tally.arm(Arm::Baseline).exposed);
            let least = spec.warm_up.min_exposures;
            if let Some(alarm) = alarm("relative").or(alarm("validity")) {
                let why = format!("the arms differ before the change began: {}", alarm.detail);
                ends(Phase::Invalid, Outcome::Invalid, Some(alarm), why)
            } else if let Some(why) = not_wanted(experiment) {
                // He may have looked at it by a preview link.
                ends(Phase::Completed, Outcome::NotWanted, None, why)
            } else if t >= least && b >= least && in_phase >= spec.warm_up.min && cuts_ready(experiment, tally) {
                let reason = format!("warm-up passed: {t} treatment and {b} baseline subjects behaved alike");
                Some(Transition { to: Phase::Running { stage: 0 }, reason, verdict: None })
            } else if in_phase >= spec.warm_up.max {
                let why =
                    format!("warm-up saw {t} treatment and {b} baseline subjects in {in_phase}, needs {least} each");
                ends(Phase::Expired, Outcome::Inconclusive, None, why)
            } else {
                waiting_for = if t < least || b < least {
                    format!("{least} subjects in each arm (treatment {t}, baseline {b})")
                } else if in_phase < spec.warm_up.min {
                    format!("the end of the warm-up, {}", Millis(spec.warm_up.min.0 - in_phase.0))
                } else {
                    format!("{CUT_SAMPLES_MIN} baseline requests for latency cut-points")
                };
                None
            }
        }
        Phase::Running { stage } => {
            if let Some(alarm) = alarm("relative") {
                let why = format!("stopped: {}", alarm.detail);
                ends(Phase::Stopped, Outcome::Harm, Some(alarm), why)
            } else if let Some(alarm) = alarm("ceiling") {
                let why = format!("stopped at once: {}", alarm.detail);
                ends(Phase::Stopped, Outcome::Ceiling, Some(alarm), why)
            } else if let Some(alarm) = alarm("validity") {
                let why = format!("the numbers prove nothing: {}", alarm.detail);
                ends(Phase::Invalid, Outcome::Invalid, Some(alarm), why)
            } else if let Some(why) = not_wanted(experiment) {
                ends(Phase::Completed, Outcome::NotWanted, None, why)
            } else if no_data(experiment, tally, now) {
                let reason = "no subject was exposed lately: no data is never a pass".to_owned();
                Some(Transition { to: Phase::Held { stage }, reason, verdict: None })
            } else {
                let (next, wait) = progress(experiment, tally, now, stage);
                waiting_for = wait;
                next
            }
        }
        Phase::Held { stage } => {
            if let Some(why) = not_wanted(experiment) {
                ends(Phase::Completed, Outcome::NotWanted, None, why)
            } else if !no_data(experiment, tally, now) {
                let reason = "data is back".to_owned();
                Some(Transition { to: Phase::Running { stage }, reason, verdict: None })
            } else if in_phase >= HELD_MAX {
                let why = format!("no data for {HELD_MAX}: reverted without an answer");
                ends(Phase::Expired, Outcome::Inconclusive, None, why)
            } else {
                waiting_for = "data".to_owned();
                None
            }
        }
        Phase::Promoted | Phase::Completed | Phase::Stopped | Phase::Invalid | Phase::Expired => None,
    };
    Turn { next, report: Report { guardrails, waiting_for } }
}

/// The person who was asked said that it is not what was wanted.
fn not_wanted(experiment: &Experiment) -> Option<String> {
    let said = experiment.acceptance.as_ref().filter(|said| !said.as_wanted)?;
    let note: String = said.note.chars().take(1_000).collect();
    let who = &experiment.spec.acceptance;
    Some(format!(
        "reverted: it works as coded, not as wanted, says {who}{}{note}",
        if note.is_empty() { "" } else { ": " }
    ))
}

fn cuts_ready(experiment: &Experiment, tally: &Tally) -> bool {
    experiment.spec.guardrails.latency == 0.0 || tally.latency_samples() >= CUT_SAMPLES_MIN
}

fn no_data(experiment: &Experiment, tally: &Tally, now: Timestamp) -> bool {
    let last = tally.last_exposure().unwrap_or(experiment.era_began_at()).max(experiment.era_began_at());
    // A held fault still logs exposures (the trigger is there, the treatment is not), so the tally hears of it.
    let limit = if experiment.phase.stage().is_some() { NO_DATA.max(experiment.spec.window) } else { NO_DATA };
    now.since(last) >= limit && now.since(experiment.phase_at) >= limit
        || matches!(experiment.phase, Phase::Held { .. }) && now.since(last) >= limit
}

/// Stages and the end of time.
fn progress(experiment: &Experiment, tally: &Tally, now: Timestamp, stage: usize) -> (Option<Transition>, String) {
    let spec = &experiment.spec;
    let in_stage = now.since(experiment.phase_at);
    let total = now.since(experiment.era_began_at());
    let ends = |to: Phase, outcome: Outcome, sentence: String| {
        let verdict = verdict(experiment, tally, now, outcome, None, sentence.clone());
        (Some(Transition { to, reason: sentence, verdict: Some(verdict) }), String::new())
    };
    if total >= spec.max_duration {
        return ends(
            Phase::Expired,
            Outcome::Inconclusive,
            format!("{} are over without an answer: reverted, never promoted on no evidence", spec.max_duration),
        );
    }
    let min = spec.stages.get(stage).map_or(Millis(0), |s| s.min);
    if in_stage < min {
        return (
            None,
            format!("the end of stage {} in {}", stage + 1, Millis((min.0 - in_stage.0).div_ceil(1_000) * 1_000)),
        );
    }
    let (b, t) = tally.first_windows();
    if t < spec.min_subjects || b < spec.min_subjects {
        return (None, format!("{} closed first windows in each arm (treatment {t}, baseline {b})", spec.min_subjects));
    }
    if stage + 1 < spec.stages.len() {
        let reason = format!("stage {} passed: no alarm over {in_stage}", stage + 1);
        return (Some(Transition { to: Phase::Running { stage: stage + 1 }, reason, verdict: None }), String::new());
    }
    if spec.on_success == OnSuccess::Revert {
        return ends(
            Phase::Completed,
            Outcome::Unharmed,
            format!("ran its full course of {total} without an alarm, then reverted"),
        );
    }
    // A KPI that matches nothing finds no harm, and proves nothing.
    let heard = Arm::BOTH.map(|arm| tally.arm(arm).heard);
    let least = spec.min_subjects.max(HEARD_MIN);
    if heard.iter().any(|heard| *heard < least) {
        return (None, format!("KPI events of {least} subjects in each arm (now {} and {})", heard[0], heard[1]));
    }
    let upper = tally.risk_difference_upper(spec.alpha);
    if upper < spec.margin && !spec.acceptance.is_empty() && experiment.acceptance.is_none() {
        return (
            None,
            format!("{} to say whether it works as wanted (`seaworthy experiment accept`)", spec.acceptance),
        );
    }
    if upper < spec.margin {
        return ends(
            Phase::Promoted,
            Outcome::Promoted,
            format!(
                "promoted: treatment's bad first windows exceed baseline's by at most {:.2} per 1,000 (margin {:.2})",
                upper.max(0.0) * 1e3,
                spec.margin * 1e3
            ),
        );
    }
    let wait = format!("proof that harm is below {:.2} per 1,000 (now {:.2})", spec.margin * 1e3, upper * 1e3);
    (None, wait)
}

fn guardrails(experiment: &Experiment, tally: &Tally) -> Vec<GuardrailReport> {
    let spec = &experiment.spec;
    let (t, b) = (tally.arm(Arm::Treatment), tally.arm(Arm::Baseline));
    let state = |log_e: f64, line: f64, data: bool| {
        if log_e >= line {
            GuardrailState::Alarm
        } else if data {
            GuardrailState::Quiet
        } else {
            GuardrailState::NoData
        }
    };
    let mut reports = Vec::new();
    let weights = &spec.guardrails;
    let mut relative = |name: &'static str, weight: f64, log_e: f64, data: bool, detail: String| {
        let alpha = spec.alpha * weight;
        let log_threshold = (1.0 / alpha).ln();
        let state = state(log_e, log_threshold, data);
        reports.push(GuardrailReport { name, kind: "relative", log_e, log_threshold, alpha, state, detail });
    };
    relative(
        "failures",
        weights.failures,
        tally.log_e_failures(),
        t.windows > 0 && b.windows > 0,
        format!(
            "{} of {} treatment subjects had a bad window, beside {} of {} in baseline",
            t.hurt, t.exposed, b.hurt, b.exposed
        ),
    );
    if weights.latency > 0.0 {
        relative(
            "latency",
            weights.latency,
            tally.log_e_latency(),
            tally.log_e_latency() != 0.0,
            "first requests above the cut-points frozen from the baseline".to_owned(),
        );
    }
    if weights.ceiling_share > 0.0 {
        let (bad, all) = tally.recent_treatment_outcomes();
        let over = bad >= weights.ceiling_failures.max(1) && bad as f64 >= weights.ceiling_share * all as f64;
        reports.push(GuardrailReport {
            name: "ceiling",
            kind: "ceiling",
            log_e: 0.0,
            log_threshold: 0.0,
            alpha: 0.0,
            state: if over { GuardrailState::Alarm } else { GuardrailState::Quiet },
            detail: format!(
                "{bad} of {all} treatment outcomes of the last 5 s were failures; the ceiling is {} and {:.0} %",
                weights.ceiling_failures,
                weights.ceiling_share * 100.0
            ),
        });
    }
    let line = (1.0 / RATIO_ALPHA).ln();
    let (assigned, heard) = tally.log_e_ratio();
    let mut validity = |name: &'static str, log_e: f64, detail: String| {
        let state = state(log_e, line, t.exposed + b.exposed > 0);
        reports.push(GuardrailReport {
            name,
            kind: "validity",
            log_e,
            log_threshold: line,
            alpha: RATIO_ALPHA,
            state,
            detail,
        });
    };
    let promised = format!("promised is 1 to {}", spec.baseline_ratio);
    validity(
        "sample ratio",
        assigned,
        format!("{} treatment and {} baseline subjects were exposed; {promised}", t.exposed, b.exposed),
    );
    validity(
        "telemetry ratio",
        heard,
        format!("KPI events came from {} treatment and {} baseline subjects; {promised}", t.heard, b.heard),
    );
    if let (Treatment::Fault(_), Phase::Running { .. }) = (&spec.treatment, experiment.phase) {
        let missing = t.exposed >= INJECTION_MIN && t.injected == 0;
        reports.push(GuardrailReport {
            name: "fault injected",
            kind: "validity",
            log_e: 0.0,
            log_threshold: 0.0,
            alpha: 0.0,
            state: if missing { GuardrailState::Alarm } else { GuardrailState::Quiet },
            detail: format!("the fault acted on {} requests of {} treatment subjects", t.injected, t.exposed),
        });
    }
    reports
}

/// The verdict that ends `experiment` now.
pub(crate) fn verdict(
    experiment: &Experiment,
    tally: &Tally,
    now: Timestamp,
    outcome: Outcome,
    guardrail: Option<&GuardrailReport>,
    sentence: String,
) -> Verdict {
    let (t, b) = (tally.arm(Arm::Treatment), tally.arm(Arm::Baseline));
    let expected = if b.exposed == 0 { 0.0 } else { b.hurt as f64 * t.exposed as f64 / b.exposed as f64 };
    let milli = |x: f64| (x * 1e3).round() as i64;
    Verdict {
        outcome,
        guardrail: guardrail.map(|g| g.name.to_owned()),
        log_e_milli: milli(guardrail.map_or(tally.log_e_failures(), |g| g.log_e)),
        log_threshold_milli: milli(guardrail.map_or((1.0 / experiment.spec.alpha).ln(), |g| g.log_threshold)),
        subjects_exposed: if experiment.harm_began_at.is_some() { t.exposed } else { 0 },
        baseline_exposed: b.exposed,
        subjects_hurt: t.hurt,
        baseline_hurt: b.hurt,
        excess_hurt: (t.hurt as f64 - expected).max(0.0).round() as u64,
        ms_to_stop: experiment.harm_began_at.map_or(0, |began| now.since(began).0),
        at: Timestamp::from_micros(now.micros()),
        sentence,
    }
}

impl Turn {
    /// The transition that a person's stop or a halt makes, from any live phase.
    pub fn veto(experiment: &Experiment, tally: &Tally, now: Timestamp, reason: &str) -> Transition {
        // It is kept twice, as reason and in the verdict, and a leaf of the log is bounded.
        let reason: String = reason.chars().take(2_000).collect();
        let sentence = format!("stopped by hand: {reason}");
        let verdict = verdict(experiment, tally, now, Outcome::Veto, None, sentence.clone());
        Transition { to: Phase::Stopped, reason: sentence, verdict: Some(verdict) }
    }
}
