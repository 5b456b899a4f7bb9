//! Which conditions stand out, and the answer made of them.
//!
//! The chance that anything is named where nothing differs is shared out evenly over the attributes, and within an attribute
//! over all of its values that could stand out at all and over all cuts tried. A condition stands out if Fisher's exact test
//! is below its share; its score is Newcombe's lower bound of the difference at the same level.

use stats::share::{difference_lower_bound, fisher_p, least_fisher_p};

use super::answer::{ApartValue, Cause, Comparison, Condition, RankedValue, Side};
use super::apart::Apart;
use super::attribute::{Attribute, Tallied};
use super::number::{Cut, best_cuts};
use super::predicate::Predicate;
use super::side::{Part, Sizes};
use super::together::{self, Findings, TOGETHER_MAX};

/// Chance that any single condition is named where nothing differs; pairs have a share of their own
/// ([`together`]), and both together stay below 5 %.
const ALPHA: f64 = 0.04;
/// Conditions of one attribute that are looked at together with others.
const OF_ATTRIBUTE_MAX: usize = 3;
/// Ranked lines in an answer.
const RANKED_MAX: usize = 100;
/// Aliases named with a line; more are counted.
const ALIASES_MAX: usize = 10;
/// A share of less than this, in a difference of what is listed apart, is not worth a line.
const APART_MIN: f64 = 0.01;

/// How a condition did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tested {
    /// The level that its p-value must stay below.
    level: f64,
    /// The quantile of that level.
    pub(super) z: f64,
    /// Lower bound of the difference; 0 if it does not stand out.
    pub(super) score: f64,
}

/// Fisher's test of weights: rounded so that the difference becomes smaller. What is not even twice its standard error apart
/// needs no exact test, since no level here is that weak.
pub(super) fn fisher(x: f64, n: f64, y: f64, m: f64) -> f64 {
    if n <= 0.0 || m <= 0.0 {
        return 1.0;
    }
    let pooled = (x + y) / (n + m);
    let difference = x / n - y / m;
    if difference * difference < 4.0 * pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m) {
        return 1.0;
    }
    // Sums of fractions are not quite whole.
    let (down, up) = (|v: f64| (v + 1e-3).floor().max(0.0) as u64, |v: f64| (v - 1e-3).ceil().max(0.0) as u64);
    let (x, y) = if difference > 0.0 { (down(x), up(y)) } else { (up(x), down(y)) };
    let (n, m) = (down(n).max(x), down(m).max(y));
    fisher_p(x, n, y, m)
}

impl Tested {
    pub(super) fn at((x, y): (f64, f64), (n, m): (f64, f64), level: f64) -> Tested {
        let level = level.max(1e-300);
        let z = -stats::normal_quantile(level / 2.0);
        Tested { level, z, score: 0.0 }.again((x, y), (n, m))
    }

    /// The same test of other counts.
    pub(super) fn again(&self, (x, y): (f64, f64), (n, m): (f64, f64)) -> Tested {
        // The interval is good for ranking, the exact test for deciding: with a dozen cases and hundreds of values tried,
        // normal quantiles promise too much.
        let score = if fisher(x, n, y, m) <= self.level {
            difference_lower_bound(x, n, y, m, self.z).max(f64::MIN_POSITIVE)
        } else {
            0.0
        };
        Tested { score, ..*self }
    }

    pub(super) fn significant(&self) -> bool {
        self.score > 0.0
    }
}

/// A condition that was tried.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Place of its attribute.
    pub(super) attribute: usize,
    pub(super) predicate: Predicate,
    pub(super) selected: f64,
    pub(super) baseline: f64,
    pub(super) difference: f64,
    pub(super) tested: Tested,
}

impl Candidate {
    /// The order of telling: the firmest first; of two equally telling the one that the selection has more of reads better.
    fn order(&self, other: &Candidate) -> std::cmp::Ordering {
        let rounded = |c: &Candidate| (c.tested.score * 1e9).round() as i64;
        rounded(other)
            .cmp(&rounded(self))
            .then(other.tested.significant().cmp(&self.tested.significant()))
            .then(other.difference.total_cmp(&self.difference))
            .then_with(|| self.predicate.text().cmp(&other.predicate.text()))
    }
}

/// In how many values of an attribute a difference could have stood out, at `level` for all of them: those that occur often
/// enough. There are at most as many values that occur `t` times as `t` goes into all occurrences.
fn testable(distinct: f64, occurrences: f64, (n, m): (f64, f64), level: f64) -> f64 {
    let values = |total: f64| distinct.min(occurrences / total).max(1.0);
    let mut total = 1.0;
    while total < occurrences && values(total) > 1.0 && least_fisher_p(total, n, m) > level / values(total) {
        total += 1.0;
        // Beyond this even lopsided sides can tell.
        if total > 2_000.0 {
            break;
        }
    }
    values(total)
}

fn candidates_of(place: usize, attribute: &Attribute, (n, m): (f64, f64), level: f64) -> Vec<Candidate> {
    let of_values = if attribute.histogram.is_empty() { level } else { level / 2.0 };
    let occurrences = attribute.present.0 + attribute.present.1;
    // "(absent)" is tried as well.
    let of_value = of_values / (testable(attribute.distinct, occurrences, (n, m), of_values) + 1.0);
    let candidate = |predicate: Predicate, x: f64, y: f64, level: f64| Candidate {
        attribute: place,
        predicate,
        selected: x,
        baseline: y,
        difference: x / n - y / m,
        tested: Tested::at((x, y), (n, m), level),
    };
    let values = attribute
        .values
        .iter()
        .map(|v| candidate(Predicate::Value(v.value.clone(), v.hash), v.selected, v.baseline, of_value));
    let absent =
        candidate(Predicate::Absent, (n - attribute.present.0).max(0.0), (m - attribute.present.1).max(0.0), of_value);
    let cuts = best_cuts(&attribute.histogram, (n, m));
    let cuts = cuts.into_iter().map(|Cut { range, selected, baseline, tried }| {
        candidate(Predicate::Range(range), selected, baseline, level / 4.0 / tried)
    });
    let mut all: Vec<Candidate> = values.chain(std::iter::once(absent)).chain(cuts).collect();
    all.sort_by(Candidate::order);
    all
}

/// Names of the sides.
pub(super) type Names<'a> = (&'a str, &'a str);

/// Ranks counted attributes and looks at the best conditions together.
pub(super) fn rank(
    parts: &[Part<'_>],
    sizes: &Sizes,
    attributes: &[Attribute],
    names: Names<'_>,
    apart: &Apart<'_>,
    with_pairs: bool,
) -> Comparison {
    let (n, m) = sizes.n;
    let compared: Vec<usize> = (0..attributes.len()).filter(|p| apart.why(&attributes[*p].name).is_none()).collect();
    let mut tops: Vec<Candidate> = Vec::new();
    let mut tried = 0.0;
    if n > 0.0 && m > 0.0 {
        let level = ALPHA / compared.len().max(1) as f64;
        let all = crate::parallel::parallel(&compared, |_, place| {
            let all = candidates_of(*place, &attributes[*place], (n, m), level);
            let tried = all.len() as f64;
            // The best one stands for the attribute; further ones may be causes beside it, or half of one.
            let further = all.iter().skip(1).filter(|c| c.difference > 0.0 && c.selected >= 1.0);
            let mut kept: Vec<Candidate> =
                all.first().into_iter().chain(further).take(OF_ATTRIBUTE_MAX).cloned().collect();
            // A value or a range that says the same as the attribute's best is no second one.
            kept.dedup_by(|b, a| (b.selected, b.baseline) == (a.selected, a.baseline));
            (kept, tried)
        });
        tried = all.iter().map(|(_, tried)| tried).sum();
        tops = all.into_iter().flat_map(|(kept, _)| kept).collect();
    }
    tops.sort_by(|a, b| a.order(b).then_with(|| attributes[a.attribute].name.cmp(&attributes[b.attribute].name)));
    // Those that stand out, one for each attribute first; then what comes closest to it, by its standard score.
    let mut seen = vec![false; attributes.len()];
    let (ranked, mut others): (Vec<Candidate>, Vec<Candidate>) =
        tops.into_iter().partition(|c| c.tested.significant() && !std::mem::replace(&mut seen[c.attribute], true));
    let standard = |c: &Candidate| {
        let pooled = (c.selected + c.baseline) / (n + m);
        c.difference / (pooled * (1.0 - pooled) * (1.0 / n + 1.0 / m)).sqrt().max(f64::MIN_POSITIVE)
    };
    others.retain(|c| c.difference > 0.0);
    others.sort_by(|a, b| standard(b).total_cmp(&standard(a)));
    let mut looked_at: Vec<Candidate> = ranked.iter().take(TOGETHER_MAX * 3 / 4).cloned().collect();
    looked_at.extend(others.into_iter().take(TOGETHER_MAX - looked_at.len()));
    if !with_pairs {
        looked_at.clear();
    }
    let findings = if looked_at.is_empty() {
        Findings::default()
    } else {
        together::look(parts, sizes, attributes, &looked_at, tried)
    };
    answer(sizes, attributes, &compared, &looked_at, &ranked, &findings, names, apart)
}

fn share(x: f64, n: f64) -> f64 {
    if n > 0.0 { (x / n).clamp(0.0, 1.0) } else { 0.0 }
}

#[expect(clippy::too_many_arguments, reason = "the pieces of one answer")]
fn answer(
    sizes: &Sizes,
    attributes: &[Attribute],
    compared: &[usize],
    looked_at: &[Candidate],
    ranked: &[Candidate],
    findings: &Findings,
    (selected, baseline): Names<'_>,
    apart: &Apart<'_>,
) -> Comparison {
    let (n, m) = sizes.n;
    let name = |c: &Candidate| attributes[c.attribute].name.as_str();
    let condition = |c: &Candidate| Condition {
        attribute: name(c).to_owned(),
        value: c.predicate.text(),
        r#type: c.predicate.kind(),
        filter: c.predicate.filter(name(c)),
    };
    let sentence = |places: &[usize]| {
        let parts: Vec<String> =
            places.iter().map(|p| looked_at[*p].predicate.sentence(name(&looked_at[*p]))).collect();
        parts.join(" and ")
    };
    let filter = |places: &[usize]| {
        let parts: Vec<String> = places.iter().map(|p| looked_at[*p].predicate.filter(name(&looked_at[*p]))).collect();
        if parts.iter().any(String::is_empty) { String::new() } else { parts.join(" and ") }
    };
    let aliases = |place: usize| -> Vec<Condition> {
        let same = (0..looked_at.len()).filter(|p| findings.alias_of[*p] == Some(place));
        same.take(ALIASES_MAX).map(|p| condition(&looked_at[p])).collect()
    };
    let line = |place: usize, c: &Candidate| RankedValue {
        attribute: name(c).to_owned(),
        value: c.predicate.text(),
        selected_share: share(c.selected, n),
        baseline_share: share(c.baseline, m),
        difference: share(c.selected, n) - share(c.baseline, m),
        score: c.tested.score,
        r#type: c.predicate.kind(),
        ratio: ratio(share(c.selected, n), share(c.baseline, m)),
        selected_n: c.selected,
        baseline_n: c.baseline,
        filter: c.predicate.filter(name(c)),
        aliases: if place < looked_at.len() { aliases(place) } else { Vec::new() },
        explained_by: findings
            .explained_by
            .get(place)
            .copied()
            .flatten()
            .map(|cause| sentence(&findings.causes[cause].conditions)),
    };
    // Places of ranked lines among those looked at are the same: they come first there.
    let mut lines: Vec<RankedValue> = ranked
        .iter()
        .enumerate()
        .filter(|(place, _)| findings.alias_of.get(*place).copied().flatten().is_none())
        .map(|(place, c)| {
            let is_known =
                looked_at.get(place).is_some_and(|l| l.attribute == c.attribute && l.predicate == c.predicate);
            line(if is_known { place } else { usize::MAX }, c)
        })
        .collect();
    // What only goes with something else comes last.
    lines.sort_by_key(|l| l.explained_by.is_some());
    let differs = !lines.is_empty() || !findings.causes.is_empty();
    lines.truncate(RANKED_MAX);
    let causes: Vec<Cause> = findings
        .causes
        .iter()
        .map(|found| {
            let (x, of_x, y, of_y) = found.counts;
            Cause {
                conditions: found.conditions.iter().map(|p| condition(&looked_at[*p])).collect(),
                filter: filter(&found.conditions),
                sentence: sentence(&found.conditions),
                aliases: found.conditions.iter().flat_map(|p| aliases(*p)).collect(),
                selected_share: share(x, of_x),
                baseline_share: share(y, of_y),
                difference: share(x, of_x) - share(y, of_y),
                ratio: ratio(share(x, of_x), share(y, of_y)),
                score: found.score,
                left_selected_n: of_x,
                estimated: findings.sampled,
            }
        })
        .collect();
    let mut notes = Vec::new();
    if sizes.thinned != (1, 1) {
        notes.push(format!(
            "of {} units of the selection and {} of the baseline one was looked at",
            sizes.thinned.0, sizes.thinned.1
        ));
    }
    if sizes.weighted {
        notes.push("events are weighted by meta.sample_rate".to_owned());
    }
    let side = |name: &str, rows: u64, n: f64| Side { name: name.to_owned(), n: rows, units: n };
    Comparison {
        summary: summary(sizes, (selected, baseline), &lines, &causes),
        selected: side(selected, sizes.rows.0, n),
        baseline: side(baseline, sizes.rows.1, m),
        attributes_compared: compared.len(),
        differs,
        ranked: lines,
        apart: listed_apart(attributes, (n, m), apart),
        unit: sizes.unit,
        unit_why: sizes.unit_why,
        causes,
        notes,
        incomplete: Vec::new(),
    }
}

fn ratio(p: f64, q: f64) -> Option<f64> {
    (q > 0.0).then_some(p / q)
}

fn listed_apart(attributes: &[Attribute], (n, m): (f64, f64), apart: &Apart<'_>) -> Vec<ApartValue> {
    let mut listed: Vec<ApartValue> = attributes
        .iter()
        .filter_map(|attribute| {
            let why = apart.why(&attribute.name)?;
            // By construction: its most frequent value says what it is.
            let order = |a: &&Tallied, b: &&Tallied| {
                a.selected
                    .total_cmp(&b.selected)
                    .then_with(|| b.value.as_ref().to_string().cmp(&a.value.as_ref().to_string()))
            };
            let common = attribute.values.iter().filter(|v| v.selected > 0.0).max_by(order)?;
            let (p, q) = (share(common.selected, n), share(common.baseline, m));
            ((p - q).abs() > APART_MIN || why.starts_with("defines")).then(|| ApartValue {
                attribute: attribute.name.clone(),
                value: Predicate::Value(common.value.clone(), common.hash).text(),
                selected_share: p,
                baseline_share: q,
                why,
            })
        })
        .collect();
    listed.sort_by(|a, b| a.attribute.cmp(&b.attribute));
    listed
}

fn summary(sizes: &Sizes, (selected, baseline): Names<'_>, lines: &[RankedValue], causes: &[Cause]) -> String {
    let percent = |share: f64| match share * 100.0 {
        p if p > 0.0 && p < 0.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    };
    let shares = |p: f64, q: f64| format!("({} beside {})", percent(p), percent(q));
    let (rows, others) = sizes.rows;
    match (causes.first(), lines.first()) {
        (None, None) => format!("nothing stands out between {rows} {selected} and {others} {baseline}"),
        (None, Some(line)) => {
            let what = match line.r#type {
                "range" => format!("{} {}", line.attribute, line.value),
                _ => format!("{} = {}", line.attribute, line.value),
            };
            format!("{selected} differ from {baseline} in {what} {}", shares(line.selected_share, line.baseline_share))
        }
        (Some(_), _) => {
            let told: Vec<String> = causes
                .iter()
                .take(2)
                .map(|c| format!("{} {}", c.sentence, shares(c.selected_share, c.baseline_share)))
                .collect();
            format!("{selected} differ from {baseline} in {}", told.join(", and apart from these in "))
        }
    }
}
