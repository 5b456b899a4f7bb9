//! The answer, as the API gives it.

use serde::Serialize;

use super::side::Unit;

/// What is different.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// What was selected.
    pub selected: Side,
    /// What it was compared with.
    pub baseline: Side,
    /// How many attributes were compared.
    pub attributes_compared: usize,
    /// Whether anything stands out.
    pub differs: bool,
    /// For a person.
    pub summary: String,
    /// The conditions that explain the selection, the one with most of the excess first; each among the rows that those before
    /// it do not explain.
    pub causes: Vec<Cause>,
    /// One line for each attribute that stands out, by score, highest first; those that a cause explains come last. Attributes
    /// that say the same are one line.
    pub ranked: Vec<RankedValue>,
    /// What differs by construction.
    pub apart: Vec<ApartValue>,
    /// What counts once.
    pub unit: Unit,
    /// Why.
    pub unit_why: &'static str,
    /// What else should be known of the figures.
    pub notes: Vec<String>,
    /// Damaged segments that were left out.
    pub incomplete: Vec<String>,
}

/// One side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Side {
    /// What it is called.
    pub name: String,
    /// How many.
    pub n: u64,
    /// What they count as evidence: distinct subjects or traces, or the effective number where events have weights.
    pub units: f64,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Condition {
    /// The attribute.
    pub attribute: String,
    /// The value or range, as text.
    pub value: String,
    /// `string`, `int`, `float`, `bool`, `range` or `absent`.
    pub r#type: &'static str,
    /// A filter for these rows; empty if the value is too long for one.
    pub filter: String,
}

/// One condition, or two or three together, that explain a part of the selection.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    /// All of them hold.
    pub conditions: Vec<Condition>,
    /// A filter for these rows.
    pub filter: String,
    /// For a person.
    pub sentence: String,
    /// What says the same.
    pub aliases: Vec<Condition>,
    /// Its share of what earlier causes leave of the selection, in `[0, 1]`.
    pub selected_share: f64,
    /// Its share of what earlier causes leave of the baseline.
    pub baseline_share: f64,
    /// `selected_share - baseline_share`: how much of the excess it covers.
    pub difference: f64,
    /// `selected_share / baseline_share`; none if the baseline has none.
    pub ratio: Option<f64>,
    /// The lower confidence bound of the difference; above 0.
    pub score: f64,
    /// What earlier causes leave of the selection, in units.
    pub left_selected_n: f64,
    /// Whether the shares are those of a sample of the rows.
    pub estimated: bool,
}

/// A value that separates the two.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankedValue {
    /// The attribute.
    pub attribute: String,
    /// The value or range, as text.
    pub value: String,
    /// Its share of the selection, in `[0, 1]`.
    pub selected_share: f64,
    /// Its share of the baseline, in `[0, 1]`.
    pub baseline_share: f64,
    /// `selected_share - baseline_share`.
    pub difference: f64,
    /// The lower confidence bound of the absolute difference; above 0.
    pub score: f64,
    /// `string`, `int`, `float`, `bool`, `range` or `absent`.
    pub r#type: &'static str,
    /// `selected_share / baseline_share`; none if the baseline has none.
    pub ratio: Option<f64>,
    /// How many of the selection have it, in units.
    pub selected_n: f64,
    /// How many of the baseline.
    pub baseline_n: f64,
    /// A filter for these rows; empty if the value is too long for one.
    pub filter: String,
    /// Conditions on other attributes that hold for the same rows.
    pub aliases: Vec<Condition>,
    /// The cause without which it would not differ.
    pub explained_by: Option<String>,
}

/// A value that differs by construction.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ApartValue {
    /// The attribute.
    pub attribute: String,
    /// The value, as text.
    pub value: String,
    /// Its share of the selection.
    pub selected_share: f64,
    /// Its share of the baseline.
    pub baseline_share: f64,
    /// Why it is not ranked.
    pub why: &'static str,
}
