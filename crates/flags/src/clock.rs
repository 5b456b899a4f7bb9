//! When a rule's answer may change though neither rule nor context does: it reads the time.

use std::collections::BTreeSet;

use vocab::Timestamp;

use crate::logic::{Expr, Path};

/// When answers may change by themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Seconds since 1970 at which a comparison with the time turns over.
    turns: BTreeSet<i64>,
    /// Whether the time is reckoned with in another way: a ramp, for one. Then every second counts.
    always: bool,
}

impl Clock {
    /// With those of another rule.
    pub fn merge(&mut self, other: &Clock) {
        self.turns.extend(&other.turns);
        self.always |= other.always;
    }

    /// An answer may change at this time.
    pub(crate) fn turns_at(&mut self, at: Timestamp) {
        if at.nanos() > i64::MIN {
            // In the second it falls into and in the next: periods are whole seconds.
            let second = at.nanos().div_euclid(1_000_000_000);
            self.turns.extend([second, second + 1]);
        }
    }

    /// Answers may change every second.
    pub(crate) fn always(&mut self) {
        self.always = true;
    }

    /// A number that stays the same as long as answers do.
    pub fn period(&self, now: Timestamp) -> i64 {
        let second = now.nanos().div_euclid(1_000_000_000);
        if self.always {
            return second;
        }
        self.turns.range(..=second).next_back().copied().unwrap_or(i64::MIN)
    }

    /// When the next period begins, in seconds since 1970; none if never.
    pub fn next_turn(&self, now: Timestamp) -> Option<i64> {
        let second = now.nanos().div_euclid(1_000_000_000);
        if self.always { Some(second + 1) } else { self.turns.range(second + 1..).next().copied() }
    }

    /// Times after `now` at which to look whether answers have changed: the turns, and where the time is reckoned with in another way
    /// every ten minutes of the next eight hours.
    pub(crate) fn moments(&self, now: Timestamp) -> Vec<Timestamp> {
        const TURNS_MAX: usize = 100;
        const STEP_SECS: i64 = 600;
        let second = now.nanos().div_euclid(1_000_000_000);
        let mut seconds: Vec<i64> = self.turns.range(second + 1..).take(TURNS_MAX).copied().collect();
        if self.always {
            seconds.extend((1..=48).map(|n| second + n * STEP_SECS));
            seconds.sort_unstable();
        }
        seconds.into_iter().map(|second| Timestamp::from_nanos(second.saturating_mul(1_000_000_000))).collect()
    }

    pub(crate) fn read(&mut self, rule: &Expr) {
        let is_time = |expr: &Expr| matches!(expr, Expr::Var { path: Path::Timestamp, .. });
        match rule {
            Expr::Literal(_) | Expr::Broken(_) => {}
            Expr::Call(op, arguments) if op.compares() && arguments.iter().any(is_time) => {
                for argument in arguments.iter().filter(|a| !is_time(a)) {
                    match argument {
                        Expr::Literal(value) => {
                            // At the number or just behind it; text and the like never turn over.
                            if let Some(n) = value.as_f64().filter(|n| n.abs() < 9e15) {
                                self.turns.extend([n.floor() as i64, n.floor() as i64 + 1]);
                            }
                        }
                        _ => self.always = true,
                    }
                }
            }
            Expr::Call(_, arguments) | Expr::List(arguments) | Expr::Fractional { arguments } => {
                arguments.iter().for_each(|argument| self.read(argument));
            }
            Expr::InTexts(path, _) => self.always |= matches!(path, Path::Whole),
            Expr::Split(split) => split.input().iter().for_each(|input| self.read(input)),
            Expr::Var { path, default } => {
                self.always |= match path {
                    Path::Timestamp | Path::Whole => true,
                    Path::Name(name) => name == "$flagd",
                    Path::Deep(_) | Path::TargetingKey | Path::FlagKey => false,
                };
                default.iter().for_each(|default| self.read(default));
            }
            Expr::VarOf { .. } => self.always = true,
        }
    }
}
