//! What is listed apart, never ranked: it differs by construction.
//!
//! - `experiment.*` and `fault.*` define arm and fault.
//! - Outcomes (`error`, `exception.*`, `http.response.*`, status) and identities (`user.id`, `session.id`, `log.template_id`) explain nothing.
//! - A field that the selection or the baseline asks for by value. `x exists` asks for a value too, as long as the other side
//!   does not: rows without `x` lie on one side only. Where both sides have `x` by their conditions and neither looks at its
//!   value, its values are compared like any other's; that it is present then differs nowhere.

use std::collections::BTreeSet;

use rows::{Comparison as Test, Filter, names};

/// Prefixes of attributes that differ by construction.
const PREFIXES: [&str; 7] =
    ["experiment.", "fault.", "meta.", "error", "exception.", "http.response.", "feature_flag.context."];
/// Attributes that are outcomes or identities.
const NAMES: [&str; 7] = [
    "status_code",
    "http.status_code",
    "status_message",
    names::SUBJECT,
    "enduser.id",
    "session.id",
    // Says in digits what `log.template` says in words.
    "log.template_id",
];

/// Which attributes are listed apart, besides the built-in ones.
#[derive(Clone, Debug, Default)]
pub struct Apart<'a> {
    /// They define the selection or the outcome.
    pub attributes: Vec<&'a str>,
}

impl Apart<'_> {
    /// Why an attribute is not ranked; none if it is.
    pub(super) fn why(&self, name: &str) -> Option<&'static str> {
        if name.starts_with("experiment.") {
            Some("defines the arm")
        } else if name.starts_with("fault.") {
            Some("defines the fault")
        } else if self.attributes.contains(&name) {
            Some("defines the selection or the outcome")
        } else if NAMES.contains(&name) || PREFIXES.iter().any(|p| name.starts_with(p)) {
            Some("is an outcome or an identity")
        } else {
            None
        }
    }
}

/// Fields that every row of a filter has, and fields whose value it looks at.
fn uses(filter: &Filter) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut by_value = BTreeSet::new();
    let present = filter.fold(
        &BTreeSet::new,
        &mut |test| {
            if test.comparison != Test::Exists {
                by_value.insert(test.field.clone());
            }
            BTreeSet::from([test.field.clone()])
        },
        &|mut a, b| {
            a.extend(b);
            a
        },
        &|a, b| a.intersection(&b).cloned().collect(),
        &|_| BTreeSet::new(),
    );
    (present, by_value)
}

/// The fields that differ by construction of the two sides; `baseline` is none for the rest.
pub(super) fn defining<'a>(selection: &'a Filter, baseline: Option<&'a Filter>) -> Vec<&'a str> {
    let mut fields = selection.fields();
    fields.extend(baseline.map(Filter::fields).unwrap_or_default());
    if let Some(baseline) = baseline {
        let (here, there) = (uses(selection), uses(baseline));
        fields.retain(|f| {
            let both = here.0.contains(*f) && there.0.contains(*f);
            !both || here.1.contains(*f) || there.1.contains(*f)
        });
    }
    fields.sort_unstable();
    fields.dedup();
    fields
}
