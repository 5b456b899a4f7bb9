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
    /// Whether it is so in a way of which nothing is known: arithmetic with the time.
    opaque: bool,
    /// Stretches of lines of ramps: answers move evenly between these seconds.
    lines: BTreeSet<(i64, i64)>,
}

impl Clock {
    /// With those of another rule.
    pub fn merge(&mut self, other: &Clock) {
        self.turns.extend(&other.turns);
        self.always |= other.always;
        self.opaque |= other.opaque;
        self.lines.extend(&other.lines);
    }

    /// An answer may change at this time.
    pub(crate) fn turns_at(&mut self, at: Timestamp) {
        if at.nanos() > i64::MIN {
            // In the second it falls into and in the next: periods are whole seconds.
            let second = at.nanos().div_euclid(1_000_000_000);
            self.turns.extend([second, second + 1]);
        }
    }

    /// Answers may change every second, in a way of which nothing is known.
    pub(crate) fn always(&mut self) {
        self.always = true;
        self.opaque = true;
    }

    /// Answers move evenly between two times.
    pub(crate) fn line(&mut self, from: Timestamp, to: Timestamp) {
        self.always = true;
        self.lines.insert((from.nanos().div_euclid(1_000_000_000), to.nanos().div_euclid(1_000_000_000)));
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

    /// Pairs of times between which answers change by themselves after `now`: around each turn, and ten minutes of each line. None if
    /// that cannot be said, or if there are too many to look at.
    pub(crate) fn changes(&self, now: Timestamp) -> Option<Vec<(Timestamp, Timestamp)>> {
        const CHANGES_MAX: usize = 250;
        const STRETCH_SECS: i64 = 600;
        let second = now.nanos().div_euclid(1_000_000_000);
        let turns = self.turns.range(second..).map(|turn| (turn - 1, *turn));
        let lines = self.lines.iter().filter(|(_, to)| *to > second);
        let lines = lines.map(|(from, to)| (*from, (from + STRETCH_SECS).min(*to)));
        let at = |second: i64| Timestamp::from_nanos(second.saturating_mul(1_000_000_000));
        let changes: Vec<(Timestamp, Timestamp)> =
            turns.chain(lines).take(CHANGES_MAX + 1).map(|(from, to)| (at(from), at(to))).collect();
        (!self.opaque && changes.len() <= CHANGES_MAX).then_some(changes)
    }

    pub(crate) fn read(&mut self, rule: &Expr) {
        let is_time = |expr: &Expr| matches!(expr, Expr::Var { path: Path::Timestamp, .. });
        match rule {
            Expr::Literal(_) | Expr::Broken(_) => {}
            Expr::Call(op, arguments) if op.compares() && arguments.iter().any(is_time) => {
                for argument in arguments.iter().filter(|a| !is_time(a)) {
                    match argument {
                        // At the number or just behind it.
                        Expr::Literal(value) => match value.as_f64() {
                            Some(n) if n.abs() < 9e15 => self.turns.extend([n.floor() as i64, n.floor() as i64 + 1]),
                            Some(_) => {}
                            // JavaScript makes numbers of texts and lists.
                            None => self.always(),
                        },
                        _ => self.always(),
                    }
                }
            }
            Expr::Call(_, arguments) | Expr::List(arguments) | Expr::Fractional { arguments } => {
                arguments.iter().for_each(|argument| self.read(argument));
            }
            // The time is a number, and no number is among texts.
            Expr::InTexts(..) => {}
            Expr::Split(split) => split.input().iter().for_each(|input| self.read(input)),
            Expr::Var { path, default } => {
                match path {
                    Path::Timestamp => self.always(),
                    Path::Name(name) if name == "$flagd" => self.always(),
                    // The whole context, in which the time is not.
                    Path::Whole | Path::Name(_) | Path::Deep(_) | Path::TargetingKey | Path::FlagKey => {}
                }
                default.iter().for_each(|default| self.read(default));
            }
            Expr::VarOf { .. } => self.always(),
        }
    }
}
