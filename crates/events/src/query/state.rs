//! What is kept per group while rows go by: one kind of state may serve several figures.

use super::budget::Budget;
use super::sketch::{Distinct, Sketch, bucket};

/// What a state keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Count,
    Moments,
    Distinct,
    Sketch,
}

impl Kind {
    /// Whether it costs so much per group that it pays to find first which groups are wanted.
    pub(crate) fn is_expensive(self) -> bool {
        matches!(self, Kind::Distinct | Kind::Sketch)
    }
}

/// Weight, weighted sum, smallest and largest of what was a number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moments {
    pub(crate) n: f64,
    pub(crate) sum: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

const NOTHING: Moments = Moments { n: 0.0, sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY };

impl Moments {
    fn add(&mut self, x: f64, weight: f64) {
        self.n += weight;
        self.sum += x * weight;
        self.min = self.min.min(x);
        self.max = self.max.max(x);
    }
}

/// One kind of state, by group.
#[derive(Debug)]
pub(crate) enum State {
    Count(Vec<f64>),
    Moments(Vec<Moments>),
    Distinct(Vec<Distinct>),
    Sketch(Vec<Sketch>),
}

/// The group of a row that belongs to none.
pub(crate) const NO_GROUP: u32 = u32::MAX;

/// One block of rows: groups, and weights where rows have them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) groups: &'a [u32],
    pub(crate) weights: Option<&'a [f64]>,
}

impl Rows<'_> {
    fn each(&self, mut act: impl FnMut(usize, usize, f64)) {
        for (n, group) in self.groups.iter().enumerate() {
            if *group != NO_GROUP {
                act(n, *group as usize, self.weights.map_or(1.0, |w| w[n]));
            }
        }
    }
}

impl State {
    pub(crate) fn new(kind: Kind) -> State {
        match kind {
            Kind::Count => State::Count(Vec::new()),
            Kind::Moments => State::Moments(Vec::new()),
            Kind::Distinct => State::Distinct(Vec::new()),
            Kind::Sketch => State::Sketch(Vec::new()),
        }
    }

    /// An empty one of the same kind for so many groups.
    pub(crate) fn like(&self, groups: usize) -> State {
        let mut state = State::new(match self {
            State::Count(_) => Kind::Count,
            State::Moments(_) => Kind::Moments,
            State::Distinct(_) => Kind::Distinct,
            State::Sketch(_) => Kind::Sketch,
        });
        state.grow(groups);
        state
    }

    /// Bytes of one group at the start.
    pub(crate) fn group_bytes(&self) -> usize {
        match self {
            State::Count(_) => size_of::<f64>(),
            State::Moments(_) => size_of::<Moments>(),
            State::Distinct(_) => size_of::<Distinct>(),
            State::Sketch(_) => size_of::<Sketch>(),
        }
    }

    /// Makes room for so many groups.
    pub(crate) fn grow(&mut self, groups: usize) {
        match self {
            State::Count(v) => v.resize(groups, 0.0),
            State::Moments(v) => v.resize(groups, NOTHING),
            State::Distinct(v) => v.resize_with(groups, Distinct::default),
            State::Sketch(v) => v.resize_with(groups, Sketch::default),
        }
    }

    pub(crate) fn count_rows(&mut self, rows: Rows<'_>) {
        if let State::Count(counts) = self {
            rows.each(|_, group, weight| counts[group] += weight);
        }
    }

    /// Adds numbers; NaN is none.
    pub(crate) fn add_numbers(&mut self, rows: Rows<'_>, numbers: &[f64], budget: &Budget) {
        match self {
            State::Moments(moments) => rows.each(|n, group, weight| {
                let x = numbers[n];
                if !x.is_nan() {
                    moments[group].add(x, weight);
                }
            }),
            State::Sketch(sketches) => {
                let mut grown = 0;
                rows.each(|n, group, weight| {
                    let x = numbers[n];
                    if !x.is_nan() {
                        grown += sketches[group].add(bucket(x), weight);
                    }
                });
                budget.take(grown);
            }
            State::Count(_) | State::Distinct(_) => {}
        }
    }

    /// Adds hashes of values; 0 is none.
    pub(crate) fn add_hashes(&mut self, rows: Rows<'_>, hashes: &[u64], budget: &Budget) {
        if let State::Distinct(sets) = self {
            let mut grown = 0;
            rows.each(|n, group, _| {
                if hashes[n] != 0 {
                    grown += sets[group].add(hashes[n]);
                }
            });
            budget.take(grown);
        }
    }

    /// Adds a group of another state of the same kind to one of this.
    pub(crate) fn merge(&mut self, group: usize, other: &State, of: usize) -> usize {
        match (self, other) {
            (State::Count(a), State::Count(b)) => a[group] += b[of],
            (State::Moments(a), State::Moments(b)) => {
                let (a, b) = (&mut a[group], b[of]);
                *a = Moments { n: a.n + b.n, sum: a.sum + b.sum, min: a.min.min(b.min), max: a.max.max(b.max) };
            }
            (State::Distinct(a), State::Distinct(b)) => return a[group].merge(&b[of]),
            (State::Sketch(a), State::Sketch(b)) => return a[group].merge(&b[of]),
            _ => {}
        }
        0
    }
}
