//! What a person asks for. Read from YAML or JSON; frozen in the audit log when the experiment starts.

use flags::FlagChange;
use rows::Filter;
use serde::{Deserialize, Serialize};
use vocab::{Millis, Name, Share};

/// The shares of baseline requests above the latency cut-points: p50, p90, p99.
pub const LATENCY_CUT_SHARES: [f64; 3] = [0.5, 0.1, 0.01];

/// An experiment as asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Unique among running experiments.
    pub name: Name,
    /// What is expected, in words.
    #[serde(default)]
    pub hypothesis: String,
    /// Who answers for it.
    #[serde(default)]
    pub owner: String,
    /// Which service it is about.
    #[serde(default)]
    pub service: String,
    /// The change.
    pub treatment: Treatment,
    /// Shares of all subjects that get the treatment, one stage after the other, never shrinking.
    pub stages: Vec<Stage>,
    /// Baseline subjects per treated one, 1 to 4. A baseline costs nobody anything and finds harm sooner.
    #[serde(default = "one")]
    pub baseline_ratio: u32,
    /// What is watched.
    pub kpi: Kpi,
    /// Length of a window; time from a subject's first exposure is cut into these.
    #[serde(default = "default_window", alias = "window_ms")]
    pub window: Millis,
    /// How long after a window's close its outcomes are awaited; at least the longest timeout in play.
    #[serde(default = "default_settle", alias = "settle_ms")]
    pub settle: Millis,
    /// Chance that a harmless change is ever stopped for harm, in (0, 0.2].
    #[serde(default = "default_alpha")]
    pub alpha: f64,
    /// What may stop it.
    #[serde(default)]
    pub guardrails: Guardrails,
    /// Arms run equal before the treatment begins.
    #[serde(default)]
    pub warm_up: WarmUp,
    /// Subjects that each arm needs before a stage may end.
    #[serde(default = "default_min_subjects")]
    pub min_subjects: u64,
    /// Promotion needs the difference in bad first windows to lie below this, in [0, 1]; 0.005 is 5 subjects per 1,000.
    #[serde(default = "default_margin")]
    pub margin: f64,
    /// Ends the experiment, reverted, when it is neither stopped nor finished by then.
    #[serde(default = "default_max_duration", alias = "max_duration_ms")]
    pub max_duration: Millis,
    /// What happens when all stages passed.
    #[serde(default)]
    pub on_success: OnSuccess,
    /// Who has to say that it works as wanted before it is promoted: the name of a token. Empty asks nobody.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub acceptance: String,
}

/// The change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Treatment {
    /// Something is broken on purpose.
    Fault(Fault),
    /// A flag serves another variant.
    Flag(VariantChange),
    /// Flags and segments become what they say, all or nothing. Subjects whose answers that moves take part.
    Flags(Vec<FlagChange>),
}

/// Breaks a route of the proxies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// The route, by name.
    pub route: Name,
    /// Waits this long before the request goes on.
    #[serde(default, alias = "delay_ms", skip_serializing_if = "Option::is_none")]
    pub delay: Option<Millis>,
    /// Answers with this HTTP status (400 to 599) instead of asking the upstream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abort: Option<u16>,
}

/// Serves a variant to the slice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariantChange {
    /// The flag.
    pub key: String,
    /// What treatment subjects get.
    pub variant: String,
}

/// One step of a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    /// Share of all subjects that get the treatment.
    pub share: Share,
    /// It lasts at least this long.
    #[serde(alias = "min_ms")]
    pub min: Millis,
}

/// What is watched: events that begin an attempt, succeed or fail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kpi {
    /// Begins an attempt that a success must follow within the window and its settle time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Filter>,
    /// The user got what he wanted.
    pub success: Filter,
    /// He did not.
    pub failure: Filter,
    /// Events whose duration is watched by the latency guardrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<Filter>,
}

/// What may stop it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Guardrails {
    /// Weight of bad windows in alpha, (0, 1]; at least a half.
    pub failures: f64,
    /// Weight of latency; 0 turns it off.
    pub latency: f64,
    /// Stops at once, without waiting for windows, when treatment has at least so many failures within 5 s ...
    pub ceiling_failures: u64,
    /// ... and they are at least this share of its outcomes; 0 turns it off.
    pub ceiling_share: f64,
}

/// Arms run equal before the treatment begins; its alarm means the arms are not comparable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmUp {
    /// Subjects exposed in each arm before it ends.
    pub min_exposures: u64,
    /// At least this long.
    #[serde(alias = "min_ms")]
    pub min: Millis,
    /// Gives up after this long.
    #[serde(alias = "max_ms")]
    pub max: Millis,
}

/// What happens when all stages passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnSuccess {
    /// Everything back as it was: faults.
    #[default]
    Revert,
    /// Everybody gets the treatment: flags.
    Promote,
}

/// The largest share of users that a promoted change may hurt.
const MARGIN_MAX: f64 = 0.25;

fn one() -> u32 {
    1
}
fn default_window() -> Millis {
    Millis::from_secs(30)
}
fn default_settle() -> Millis {
    Millis::from_secs(5)
}
fn default_alpha() -> f64 {
    0.01
}
fn default_min_subjects() -> u64 {
    100
}
fn default_margin() -> f64 {
    0.005
}
fn default_max_duration() -> Millis {
    Millis::from_secs(24 * 3_600)
}

impl Default for Guardrails {
    fn default() -> Guardrails {
        Guardrails { failures: 1.0, latency: 0.0, ceiling_failures: 20, ceiling_share: 0.5 }
    }
}

impl Default for WarmUp {
    fn default() -> WarmUp {
        WarmUp { min_exposures: 100, min: Millis::from_secs(10), max: Millis::from_secs(600) }
    }
}

/// What is wrong with a spec, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {reason}")]
pub struct SpecFinding {
    /// Which key.
    pub place: &'static str,
    /// What is wrong and what is expected.
    pub reason: String,
}

impl Spec {
    /// Everything that is wrong with it, apart from what only the running system knows (does the flag exist, is there
    /// budget). Empty if nothing is.
    pub fn findings(&self) -> Vec<SpecFinding> {
        let mut findings = Vec::new();
        let mut check = |fine: bool, place: &'static str, reason: String| {
            if !fine {
                findings.push(SpecFinding { place, reason });
            }
        };
        check((1..=20).contains(&self.stages.len()), "stages", "expected 1 to 20 stages".into());
        check((1..=4).contains(&self.baseline_ratio), "baseline_ratio", "expected 1 to 4".into());
        check(
            self.stages.windows(2).all(|pair| pair[0].share <= pair[1].share),
            "stages",
            "a later stage must not be smaller than the one before: nobody who was in may fall out".into(),
        );
        check(self.stages.iter().all(|s| s.share > Share::NONE), "stages", "a stage's share must be above 0".into());
        if let Some(last) = self.stages.last() {
            let population = u64::from(last.share.ppm()) * u64::from(self.baseline_ratio.saturating_add(1));
            check(
                population <= u64::from(Share::WHOLE),
                "stages",
                format!(
                    "{} treated with {} baseline subjects each is more than everybody: end the stages at {}; promotion \
                     then serves all",
                    last.share,
                    self.baseline_ratio,
                    Share::from_ppm(Share::WHOLE / self.baseline_ratio.saturating_add(1)).unwrap_or(Share::ALL),
                ),
            );
        }
        check(self.window >= Millis(100), "window", "expected at least 100ms".into());
        check(self.window <= Millis::from_secs(86_400), "window", "expected at most 24h".into());
        check(self.settle <= Millis::from_secs(3_600), "settle", "expected at most 1h".into());
        check(self.alpha > 0.0 && self.alpha <= 0.2, "alpha", "expected above 0 and at most 0.2".into());
        let largest = if self.on_success == OnSuccess::Promote { MARGIN_MAX } else { 1.0 };
        check(
            self.margin > 0.0 && self.margin <= largest,
            "margin",
            format!("expected above 0 and at most {largest}: what is promoted may hurt that share of users"),
        );
        let g = &self.guardrails;
        check((0.5..=1.0).contains(&g.failures), "guardrails.failures", "expected 0.5 to 1".into());
        check(g.latency >= 0.0, "guardrails.latency", "expected 0 or more".into());
        check(g.failures + g.latency <= 1.0 + 1e-9, "guardrails", "the weights add up to more than 1".into());
        check((0.0..=1.0).contains(&g.ceiling_share), "guardrails.ceiling_share", "expected 0 to 1".into());
        check(
            g.latency == 0.0 || self.kpi.latency.is_some(),
            "kpi.latency",
            "the latency guardrail needs a filter for the events whose duration is watched".into(),
        );
        check(self.warm_up.min_exposures >= 20, "warm_up.min_exposures", "expected at least 20".into());
        check(self.warm_up.max > self.warm_up.min, "warm_up.max", "expected more than warm_up.min".into());
        check(self.max_duration > Millis(0), "max_duration", "expected more than 0".into());
        check(
            self.acceptance.is_empty() || self.on_success == OnSuccess::Promote,
            "acceptance",
            "only what is promoted can be accepted: expected on_success promote".into(),
        );
        check(self.acceptance.len() <= 200, "acceptance", "expected at most 200 bytes".into());
        if self.owner.len() > 200 || self.hypothesis.len() > 4_000 || self.service.len() > 200 {
            check(false, "hypothesis", "owner, service or hypothesis is too long".into());
        }
        match &self.treatment {
            Treatment::Fault(fault) => {
                check(
                    fault.delay.is_some() != fault.abort.is_some(),
                    "treatment.fault",
                    "expected either delay or abort".into(),
                );
                check(
                    fault.delay.is_none_or(|d| d <= Millis::from_secs(60)),
                    "treatment.fault.delay",
                    "expected at most 60s".into(),
                );
                check(
                    fault.abort.is_none_or(|status| (400..=599).contains(&status)),
                    "treatment.fault.abort",
                    "expected an HTTP status from 400 to 599".into(),
                );
                check(
                    self.on_success == OnSuccess::Revert,
                    "on_success",
                    "a fault is never promoted: expected revert".into(),
                );
            }
            Treatment::Flag(change) => {
                check(!change.key.is_empty(), "treatment.flag.key", "expected a flag key".into());
            }
            Treatment::Flags(changes) => {
                check(!changes.is_empty(), "treatment.flags", "expected at least one change".into());
            }
        }
        check(
            self.harms() || self.on_success != OnSuccess::Promote || self.baseline_ratio <= 2,
            "baseline_ratio",
            "the proof that promotion needs holds for arms within 1 to 2: expected 1 or 2".into(),
        );
        findings
    }

    /// Whether it breaks something on purpose: counts against the budget, needs the layer of faults.
    pub fn harms(&self) -> bool {
        matches!(self.treatment, Treatment::Fault(_))
    }

    /// The probability that a subject of the slice is in treatment.
    pub fn rho(&self) -> f64 {
        1.0 / f64::from(self.baseline_ratio.saturating_add(1))
    }

    /// The share of all subjects, both arms together, that take part in a stage.
    pub fn population(&self, stage: usize) -> Share {
        let share = self.stages.get(stage).map_or(Share::NONE, |s| s.share);
        Share::from_ppm(share.ppm().saturating_mul(self.baseline_ratio.saturating_add(1)).min(Share::WHOLE))
            .unwrap_or(Share::ALL)
    }
}
