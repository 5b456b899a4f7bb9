//! What SQL can ask beside events: the lists of the API as tables, under the API's names.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::Arc;

use serde_json::Value;
use sql::{Column, Kind, Known, Rows, Tables};
use vocab::Timestamp;

use crate::app::App;
use crate::query_api::{ENTRIES_MAX, is_marker, newest_entries};
use crate::{flags_api, view};

/// Experiments in one answer, the newest: each ended one is a file to read.
const EXPERIMENTS_MAX: usize = 1_000;

const fn column(name: &'static str, pointer: &'static str, kind: Kind) -> Column {
    Column { name, pointer, kind }
}

/// Of the audit log.
const ENTRY: &[Column] = &[
    column("index", "/index", Kind::Int),
    column("time", "/ts", Kind::Time),
    column("actor", "/actor", Kind::Text),
    column("action", "/action", Kind::Text),
    column("resource", "/resource", Kind::Text),
    column("reason", "/reason", Kind::Text),
    column("break_glass", "/break_glass", Kind::Bool),
    column("body", "/body", Kind::Json),
];

const EXPERIMENT: &[Column] = &[
    column("id", "/id", Kind::Text),
    column("name", "/name", Kind::Text),
    column("kind", "/kind", Kind::Text),
    column("hypothesis", "/hypothesis", Kind::Text),
    column("owner", "/owner", Kind::Text),
    column("service", "/service", Kind::Text),
    column("treatment", "/treatment", Kind::Json),
    column("state", "/state", Kind::Text),
    column("state_reason", "/state_reason", Kind::Text),
    column("stage", "/stage", Kind::Int),
    column("share", "/share", Kind::Float),
    column("baseline_share", "/baseline_share", Kind::Float),
    column("needs_ack", "/needs_ack", Kind::Bool),
    column("started_at", "/started_at", Kind::Time),
    column("harm_began_at", "/harm_began_at", Kind::Time),
    column("ended_at", "/ended_at", Kind::Time),
    column("off_everywhere_at", "/off_everywhere_at", Kind::Time),
    column("treatment_exposed", "/arms/treatment/exposed", Kind::Int),
    column("treatment_hurt", "/arms/treatment/hurt", Kind::Int),
    column("baseline_exposed", "/arms/baseline/exposed", Kind::Int),
    column("baseline_hurt", "/arms/baseline/hurt", Kind::Int),
    column("outcome", "/verdict/outcome", Kind::Text),
    column("guardrail", "/verdict/guardrail", Kind::Text),
    column("e_value", "/verdict/e_value", Kind::Float),
    column("excess_hurt", "/verdict/excess_hurt", Kind::Float),
    column("seconds_to_stop", "/verdict/seconds_to_stop", Kind::Float),
    column("sentence", "/verdict/sentence", Kind::Text),
    column("verdict_audit_index", "/verdict/audit_index", Kind::Int),
    column("audit_index", "/audit_index", Kind::Int),
];

const FLAG: &[Column] = &[
    column("key", "/key", Kind::Text),
    column("state", "/state", Kind::Text),
    column("dialect", "/dialect", Kind::Text),
    column("kind", "/kind", Kind::Text),
    column("owner", "/owner", Kind::Text),
    column("description", "/description", Kind::Text),
    column("expires", "/expires", Kind::Text),
    column("tags", "/tags", Kind::Json),
    column("variants", "/variants", Kind::Json),
    column("default_variant", "/default_variant", Kind::Text),
    column("targeting", "/targeting", Kind::Json),
    column("has_rules", "/has_rules", Kind::Bool),
    column("risk", "/risk", Kind::Text),
    column("version", "/version", Kind::Int),
    column("experiment", "/experiment", Kind::Text),
    column("killed", "/killed", Kind::Bool),
    column("promoted", "/promoted", Kind::Text),
    column("last_evaluated", "/last_evaluated", Kind::Time),
    column("evaluations", "/evaluations", Kind::Int),
];

const KNOWN: &[Known] = &[
    Known { name: "audit", columns: ENTRY },
    Known { name: "markers", columns: ENTRY },
    Known { name: "experiments", columns: EXPERIMENT },
    Known { name: "flags", columns: FLAG },
];

/// The tables of one statement.
pub(crate) struct Lists {
    pub(crate) app: Arc<App>,
    /// The time of the events.
    pub(crate) from: Timestamp,
    pub(crate) to: Timestamp,
}

impl fmt::Debug for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lists").field("from", &self.from).field("to", &self.to).finish_non_exhaustive()
    }
}

impl Tables for Lists {
    fn events(&self) -> events::Table {
        self.app.store.table(self.from, self.to)
    }

    fn known(&self) -> &'static [Known] {
        KNOWN
    }

    fn rows(&self, name: &str) -> Result<Rows, String> {
        match name {
            "audit" => self.entries(|_| true),
            "markers" => self.entries(is_marker),
            "experiments" => Ok(self.experiments()),
            "flags" => Ok(Rows { rows: flags_api::summaries(&self.app), incomplete: Vec::new() }),
            other => Err(format!("there is no table {other}")),
        }
    }
}

impl Lists {
    fn entries(&self, is_wanted: impl Fn(&Value) -> bool) -> Result<Rows, String> {
        let mut found = Rows::default();
        let mut seen = 0;
        newest_entries(&self.app, |entry| {
            seen += 1;
            if seen > ENTRIES_MAX {
                found.incomplete.push(format!("audit entries before the newest {ENTRIES_MAX} are left out"));
                return ControlFlow::Break(());
            }
            if is_wanted(&entry) {
                found.rows.push(entry);
            }
            ControlFlow::Continue(())
        })
        .map_err(|problem| problem.detail)?;
        Ok(found)
    }

    fn experiments(&self) -> Rows {
        let state = self.app.state.load_full();
        let newest = state.experiments().rev().take(EXPERIMENTS_MAX);
        let rows: Vec<Value> = newest.map(|experiment| view::experiment(&self.app, &state, experiment)).collect();
        let left_out = format!("experiments before the newest {EXPERIMENTS_MAX} are left out");
        let has_more = state.experiments().count() > rows.len();
        Rows { rows, incomplete: has_more.then_some(left_out).into_iter().collect() }
    }
}
