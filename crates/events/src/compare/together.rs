//! What belongs together: attributes that say the same thing, conditions that only together explain, several causes, and
//! what only goes with a cause.
//!
//! The conditions that separate best are turned into sets of rows, of the selection and of a sample of the baseline. Then, as
//! long as something stands out: the condition, pair or triple that has most of the excess is a cause; its rows are taken out
//! on both sides. A pair replaces its parts only if each part still separates among the rows that have the other, beyond
//! chance, and the pair has more of the excess than either. What no longer differs once the rows are told apart by a cause
//! (Mantel and Haenszel) is explained by it.

use stats::share::mantel_haenszel_z;

use super::rank::{Candidate, Tested, fisher};
use super::side::{Part, Sizes};
use crate::compare::attribute::Attribute;
use crate::parallel::parallel;

/// Conditions that are looked at together.
pub(super) const TOGETHER_MAX: usize = 56;
/// Rows of the selection that are looked at together; more are thinned evenly.
const SELECTED_MAX: usize = 131_072;
/// Rows of the baseline.
const BASELINE_MAX: usize = 262_144;
/// A pair must cover this share of the selection.
const SUPPORT: f64 = 0.05;
/// The chance that a pair is shown where one of its parts is enough, and that two conditions that do not stand out each by
/// itself are shown where nothing differs.
const ALPHA_TOGETHER: f64 = 0.01;
/// Two conditions that hold for the same rows to this share (Jaccard), on both sides, say the same.
const SAME: f64 = 0.95;
/// Pairs that are tried with a third condition.
const BEAM: usize = 24;
/// Independent causes that are looked for.
const CAUSES_MAX: usize = 5;
/// Fewer rows than this left on a side are no ground for a further cause.
const LEFT_MIN: f64 = 5.0;

/// A set of rows on both sides.
#[derive(Clone, Debug)]
struct Mask {
    selected: Vec<u64>,
    baseline: Vec<u64>,
}

impl Mask {
    fn and(&self, other: &Mask) -> Mask {
        let both = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| a & b).collect();
        Mask { selected: both(&self.selected, &other.selected), baseline: both(&self.baseline, &other.baseline) }
    }

    fn without(&self, other: &Mask) -> Mask {
        let both = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(a, b)| a & !b).collect();
        Mask { selected: both(&self.selected, &other.selected), baseline: both(&self.baseline, &other.baseline) }
    }
}

/// What rows weigh; none is 1 each.
#[derive(Debug, Default)]
struct Weights {
    selected: Option<Vec<f32>>,
    baseline: Option<Vec<f32>>,
}

fn weight(words: impl Iterator<Item = u64>, weights: Option<&[f32]>) -> f64 {
    match weights {
        None => words.map(|w| u64::from(w.count_ones())).sum::<u64>() as f64,
        Some(weights) => {
            let mut sum = 0.0;
            for (n, mut word) in words.enumerate() {
                while word != 0 {
                    sum += f64::from(weights[n * 64 + word.trailing_zeros() as usize]);
                    word &= word - 1;
                }
            }
            sum
        }
    }
}

impl Weights {
    fn of(&self, mask: &Mask) -> (f64, f64) {
        (
            weight(mask.selected.iter().copied(), self.selected.as_deref()),
            weight(mask.baseline.iter().copied(), self.baseline.as_deref()),
        )
    }

    fn of_both(&self, a: &Mask, b: &Mask) -> (f64, f64) {
        let words = |(a, b): (&u64, &u64)| a & b;
        (
            weight(a.selected.iter().zip(&b.selected).map(words), self.selected.as_deref()),
            weight(a.baseline.iter().zip(&b.baseline).map(words), self.baseline.as_deref()),
        )
    }
}

/// A cause: conditions that together, or one that alone, separate the sides.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Places of candidates, strongest first.
    pub(super) conditions: Vec<usize>,
    /// Of the rows not explained by earlier causes: selection, all of it, baseline, all of it.
    pub(super) counts: (f64, f64, f64, f64),
    pub(super) score: f64,
}

/// What was found.
#[derive(Clone, Debug, Default)]
pub(super) struct Findings {
    pub(super) causes: Vec<Found>,
    /// For each candidate the one that it says the same as.
    pub(super) alias_of: Vec<Option<usize>>,
    /// For each candidate the cause that explains it.
    pub(super) explained_by: Vec<Option<usize>>,
    /// Whether shares of causes are those of samples.
    pub(super) sampled: bool,
}

struct Sample {
    rows: Vec<Vec<u32>>,
    starts: Vec<usize>,
    len: usize,
    weights: Option<Vec<f32>>,
    thinned: bool,
}

/// Rows of a side, at most `max`, spread evenly.
fn sample(parts: &[Part<'_>], selected: bool, total: usize, max: usize) -> Sample {
    let step = total.div_ceil(max).max(1);
    let picked = parallel(parts, |number, part| {
        let (rows, weights) = match selected {
            true => (part.selected.listed().0.to_vec(), part.selected.listed().1),
            false => (part.baseline_rows(), part.baseline.listed().1),
        };
        if step == 1 {
            return (rows, weights.map(<[f32]>::to_vec));
        }
        // One of each `step` rows, not always the same: a stride would see only part of what comes in turns.
        let pick = |block: usize| {
            let x = ((number as u64) << 40 | block as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            block * step + ((x >> 33) as usize) % step
        };
        let places: Vec<usize> = (0..rows.len().div_ceil(step)).map(pick).filter(|p| *p < rows.len()).collect();
        (places.iter().map(|p| rows[*p]).collect(), weights.map(|w| places.iter().map(|p| w[*p]).collect()))
    });
    let (mut starts, mut len) = (Vec::new(), 0);
    for (rows, _) in &picked {
        starts.push(len);
        len += rows.len();
    }
    let weights: Option<Vec<f32>> = picked
        .iter()
        .any(|(_, w)| w.is_some())
        .then(|| picked.iter().flat_map(|(r, w)| w.clone().unwrap_or_else(|| vec![1.0; r.len()])).collect());
    Sample { rows: picked.into_iter().map(|(r, _)| r).collect(), starts, len, weights, thinned: step > 1 }
}

fn mask_of(parts: &[Part<'_>], attribute: &Attribute, candidate: &Candidate, sides: &(Sample, Sample)) -> Mask {
    let of = |side: &Sample| {
        let mut words = vec![0_u64; side.len.div_ceil(64)];
        for (number, rows) in side.rows.iter().enumerate() {
            candidate.predicate.each(parts, attribute, number, rows, |place| {
                let bit = side.starts[number] + place;
                words[bit / 64] |= 1 << (bit % 64);
            });
        }
        words
    };
    Mask { selected: of(&sides.0), baseline: of(&sides.1) }
}

fn all(len: usize) -> Vec<u64> {
    let mut words = vec![u64::MAX; len.div_ceil(64)];
    if !len.is_multiple_of(64) {
        if let Some(last) = words.last_mut() {
            *last = (1 << (len % 64)) - 1;
        }
    }
    words
}

/// Looks at candidates together. `tried` is how many conditions there were in all.
pub(super) fn look(
    parts: &[Part<'_>],
    sizes: &Sizes,
    attributes: &[Attribute],
    candidates: &[Candidate],
    tried: f64,
) -> Findings {
    let rows = |side: fn(&Part<'_>) -> usize| parts.iter().map(side).sum::<usize>();
    let total = (
        rows(|p| p.selected.listed().0.len()),
        rows(|p| match &p.baseline {
            super::side::Rows::Rest => p.chunk.len() - p.selected.listed().0.len(),
            super::side::Rows::Listed { rows, .. } => rows.len(),
        }),
    );
    let sides = (sample(parts, true, total.0, SELECTED_MAX), sample(parts, false, total.1, BASELINE_MAX));
    let masks = parallel(candidates, |_, c| mask_of(parts, &attributes[c.attribute], c, &sides));
    let whole = Mask { selected: all(sides.0.len), baseline: all(sides.1.len) };
    let mut findings = Findings {
        alias_of: vec![None; candidates.len()],
        explained_by: vec![None; candidates.len()],
        sampled: sides.0.thinned || sides.1.thinned || sizes.thinned != (1, 1),
        ..Findings::default()
    };
    let weights = Weights { selected: sides.0.weights, baseline: sides.1.weights };
    group(candidates, &masks, &weights, &mut findings.alias_of);
    let heads: Vec<usize> = (0..candidates.len())
        .filter(|place| findings.alias_of[*place].is_none() && candidates[*place].difference > 0.0)
        .collect();
    let mut search = Search { candidates, masks: &masks, weights: &weights, heads, alive: whole.clone(), tried };
    let mut explained = Vec::new();
    for _ in 0..CAUSES_MAX {
        let Some(found) = search.best() else { break };
        let mask = found.conditions.iter().map(|place| &masks[*place]).fold(whole.clone(), |a, b| a.and(b));
        search.alive = search.alive.without(&mask);
        explained.push(mask);
        findings.causes.push(found);
    }
    // What differs only because it goes with a cause.
    for (place, candidate) in candidates.iter().enumerate() {
        let is_part = findings.causes.iter().any(|c| c.conditions.contains(&place));
        if is_part || findings.alias_of[place].is_some() || !candidate.tested.significant() {
            continue;
        }
        findings.explained_by[place] = explained.iter().position(|cause| {
            let inside = (weights.of_both(cause, &masks[place]), weights.of(cause));
            let outside_all = whole.without(cause);
            let outside = (weights.of_both(&outside_all, &masks[place]), weights.of(&outside_all));
            let strata = [inside, outside].map(|((x, y), (n, m))| (x, n, y, m));
            // The rest must point the same way to count as a difference of its own.
            let z = mantel_haenszel_z(&strata) * candidate.difference.signum();
            z < candidate.tested.z
        });
    }
    findings
}

/// Candidates that say the same as an earlier one.
fn group(candidates: &[Candidate], masks: &[Mask], weights: &Weights, alias_of: &mut [Option<usize>]) {
    let sizes: Vec<(f64, f64)> = masks.iter().map(|m| weights.of(m)).collect();
    let same = |both: f64, a: f64, b: f64| {
        let either = a + b - both;
        either <= 0.0 || both / either >= SAME
    };
    for later in 1..candidates.len() {
        if !candidates[later].tested.significant() {
            continue;
        }
        alias_of[later] = (0..later).find(|earlier| {
            let other = candidates[later].attribute != candidates[*earlier].attribute;
            if !other || alias_of[*earlier].is_some() || !candidates[*earlier].tested.significant() {
                return false;
            }
            let (a, b) = (sizes[*earlier], sizes[later]);
            // Sizes alone often say no.
            if a.0.min(b.0) < SAME * a.0.max(b.0) || a.1.min(b.1) < SAME * a.1.max(b.1) {
                return false;
            }
            let both = weights.of_both(&masks[*earlier], &masks[later]);
            same(both.0, a.0, b.0) && same(both.1, a.1, b.1)
        });
    }
}

struct Search<'a> {
    candidates: &'a [Candidate],
    masks: &'a [Mask],
    weights: &'a Weights,
    heads: Vec<usize>,
    /// Rows that no cause explains yet.
    alive: Mask,
    tried: f64,
}

/// Several conditions, with counts among the rows alive.
#[derive(Clone, Debug)]
struct Group {
    conditions: Vec<usize>,
    counts: (f64, f64),
    /// How much of the excess it has.
    excess: f64,
    tested: Tested,
}

impl Search<'_> {
    /// The condition, pair or triple with most of what is left of the excess, if anything stands out.
    fn best(&self) -> Option<Found> {
        let (n, m) = self.weights.of(&self.alive);
        if n < LEFT_MIN || m < LEFT_MIN {
            return None;
        }
        let mut masks = self.masks.to_vec();
        for place in &self.heads {
            masks[*place] = masks[*place].and(&self.alive);
        }
        let alone: Vec<Group> = self
            .heads
            .iter()
            .map(|place| {
                let counts = self.weights.of(&masks[*place]);
                let tested = self.candidates[*place].tested.again(counts, (n, m));
                Group { conditions: vec![*place], counts, excess: counts.0 / n - counts.1 / m, tested }
            })
            .collect();
        let wide: Vec<&Group> = alone.iter().filter(|g| g.counts.0 >= SUPPORT * n && g.excess > 0.0).collect();
        let firm = wide.iter().filter(|g| g.tested.significant()).count() as f64;
        // Each of the pairs of firm conditions, and each pair of all that were tried.
        let level_firm = ALPHA_TOGETHER / (firm * firm).max(2.0);
        let level_all = ALPHA_TOGETHER / (self.tried * self.tried / 2.0).max(2.0);
        let mut pairs = Vec::new();
        let mut beam = Vec::new();
        for (place, a) in wide.iter().enumerate() {
            for b in &wide[place + 1..] {
                if self.candidates[a.conditions[0]].attribute == self.candidates[b.conditions[0]].attribute {
                    continue;
                }
                let counts = self.weights.of_both(&masks[a.conditions[0]], &masks[b.conditions[0]]);
                if counts.0 < SUPPORT * n {
                    continue;
                }
                let excess = counts.0 / n - counts.1 / m;
                let order = if a.tested.score >= b.tested.score { [a, b] } else { [b, a] };
                let group = Group {
                    conditions: order.iter().map(|g| g.conditions[0]).collect(),
                    counts,
                    excess,
                    tested: Tested::at(counts, (n, m), level_all),
                };
                let is_firm = a.tested.significant() && b.tested.significant();
                let level = if is_firm { level_firm } else { level_all };
                if self.better(&group, &[(a, b.counts), (b, a.counts)], n, level)
                    && (a.tested.significant() || b.tested.significant() || group.tested.significant())
                {
                    pairs.push(group.clone());
                }
                beam.push(group);
            }
        }
        beam.sort_by(|a, b| b.excess.total_cmp(&a.excess));
        beam.truncate(BEAM);
        let triples = self.triples(&beam, &wide, &masks, (n, m), level_all);
        let firmest = |groups: &[Group]| -> Option<Group> {
            groups
                .iter()
                .filter(|g| g.tested.significant())
                .max_by(|a, b| a.tested.score.total_cmp(&b.tested.score))
                .cloned()
        };
        let mut best = [firmest(&alone), firmest(&pairs), firmest(&triples)]
            .into_iter()
            .flatten()
            .max_by(|a, b| a.tested.score.total_cmp(&b.tested.score))?;
        // What is better than its parts replaces them, though its bound is that of more conditions tried.
        for larger in [&pairs, &triples] {
            let holds = |g: &&Group| best.conditions.iter().all(|c| g.conditions.contains(c));
            if let Some(whole) = larger.iter().filter(holds).max_by(|a, b| a.excess.total_cmp(&b.excess)) {
                best = whole.clone();
            }
        }
        // A part that stands out may say so even where the bound of the whole, with more tried, does not.
        let score = best.tested.score.max(f64::MIN_POSITIVE);
        Some(Found { conditions: best.conditions, counts: (best.counts.0, n, best.counts.1, m), score })
    }

    /// Whether a group is better than its parts: each part (with counts of the others together) still separates among the
    /// rows that have the others, and the group has no less of the excess than any part.
    fn better(&self, group: &Group, parts: &[(&Group, (f64, f64))], n: f64, level: f64) -> bool {
        parts.iter().all(|(part, others)| {
            let lost = (part.counts.0 - group.counts.0).max(0.0) / n;
            let enough = group.excess >= part.excess - 2.0 * (lost / n).sqrt() && group.excess > 0.0;
            let (x, of_x, y, of_y) = (group.counts.0, others.0, group.counts.1, others.1);
            enough && of_y > 0.0 && x * of_y > y * of_x && fisher(x, of_x, y, of_y) <= level
        })
    }

    fn triples(
        &self,
        beam: &[Group],
        wide: &[&Group],
        masks: &[Mask],
        (n, m): (f64, f64),
        level_all: f64,
    ) -> Vec<Group> {
        let level = ALPHA_TOGETHER / (3 * BEAM * wide.len().max(1)) as f64;
        let mut triples: Vec<Group> = Vec::new();
        for pair in beam {
            let (a, b) = (pair.conditions[0], pair.conditions[1]);
            let both = masks[a].and(&masks[b]);
            for third in wide {
                let c = third.conditions[0];
                let attribute = self.candidates[c].attribute;
                if [a, b].iter().any(|p| self.candidates[*p].attribute == attribute) {
                    continue;
                }
                let counts = self.weights.of_both(&both, &masks[c]);
                let excess = counts.0 / n - counts.1 / m;
                if counts.0 < SUPPORT * n || excess + 2.0 * (pair.counts.0 - counts.0).max(0.0).sqrt() / n < pair.excess
                {
                    continue;
                }
                let mut conditions = vec![a, b, c];
                conditions.sort_unstable();
                if triples.iter().any(|t| t.conditions == conditions) {
                    continue;
                }
                // Among the rows of each pair within it the third must separate.
                let firm = [(a, b), (a, c), (b, c)].into_iter().all(|(p, q)| {
                    let (of_x, of_y) = self.weights.of_both(&masks[p], &masks[q]);
                    let lost = (of_x - counts.0).max(0.0) / n;
                    let enough = excess >= of_x / n - of_y / m - 2.0 * (lost / n).sqrt();
                    let (x, y) = counts;
                    enough && of_y > 0.0 && x * of_y > y * of_x && fisher(x, of_x, y, of_y) <= level
                });
                let some =
                    conditions.iter().any(|p| wide.iter().any(|g| g.conditions[0] == *p && g.tested.significant()));
                let group = Group {
                    conditions,
                    counts,
                    excess,
                    tested: Tested::at(counts, (n, m), level_all / self.tried.max(1.0)),
                };
                let firm = firm && (some || group.tested.significant());
                if firm {
                    triples.push(group);
                }
            }
        }
        triples
    }
}
