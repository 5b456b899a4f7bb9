//! Why there is no answer, in words of the user: no types of the engine, no places in its source.

use std::time::Duration;

use datafusion::common::utils::datafusion_strsim::normalized_levenshtein;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use crate::engine::{AT_ONCE, CATALOG, MEMORY_BYTES, SCHEMA};
use crate::statement::SQL_BYTES_MAX;

/// Names that are told with a name that is not there.
const NEAREST: usize = 3;
/// Characters of the engine's message that are passed on.
const MESSAGE_MAX: usize = 1_000;

/// See the module.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum SqlError {
    /// Too much text.
    #[error("the statement has {bytes} bytes; {} are the most", SQL_BYTES_MAX)]
    TooLong {
        /// How much.
        bytes: usize,
    },
    /// None, or several.
    #[error("one statement is expected, there are {0}")]
    Statements(usize),
    /// It would change something, or reach for files.
    #[error("{0} is not answered: SQL only reads here")]
    NotReading(String),
    /// A name that is not there.
    #[error("there is no column {name}{}", nearest_said(.nearest))]
    UnknownColumn {
        /// As it was written.
        name: String,
        /// The most similar first, as they would be written.
        nearest: Vec<String>,
    },
    /// It cannot be understood or computed.
    #[error("{0}")]
    Wrong(String),
    /// It took too long.
    #[error("the time limit of {} s was hit", .0.as_secs_f64())]
    Time(Duration),
    /// It took too much.
    #[error("the memory limit of {} MiB for all SQL was hit", MEMORY_BYTES >> 20)]
    Memory,
    /// Others are being answered.
    #[error("{} statements are being answered already, and none was done in time", AT_ONCE)]
    Busy,
    /// A fault of ours.
    #[error("the engine broke off: {0}")]
    Broken(String),
}

fn nearest_said(nearest: &[String]) -> String {
    if nearest.is_empty() { String::new() } else { format!("; nearest: {}", nearest.join(", ")) }
}

impl SqlError {
    /// What the engine says of a statement.
    pub(crate) fn planning(error: DataFusionError) -> SqlError {
        if let Some(error) = unknown_column(&error) {
            return error;
        }
        let root = error.find_root();
        match root {
            DataFusionError::ResourcesExhausted(_) => SqlError::Memory,
            DataFusionError::Internal(text) => SqlError::Wrong(said(text)),
            DataFusionError::Collection(errors) => match errors.first() {
                Some(first) => SqlError::Wrong(said(&first.strip_backtrace())),
                None => SqlError::Wrong(said(&root.strip_backtrace())),
            },
            root => SqlError::Wrong(said(&root.message())),
        }
    }
}

/// The first lines, without the engine's plea for reports and its names of types.
fn said(text: &str) -> String {
    let text = text.split("\nThis issue was likely caused").next().unwrap_or_default();
    let text = text.split("\n\nbacktrace").next().unwrap_or_default().trim();
    let inner = text.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")"));
    let inner = inner.or_else(|| text.strip_prefix("TokenizerError(\"").and_then(|rest| rest.strip_suffix("\")")));
    let plain = inner.unwrap_or(text).replace("\\\"", "\"");
    // Nobody writes the full name of a table.
    plain.replace(&format!("'{CATALOG}.{SCHEMA}."), "'").chars().take(MESSAGE_MAX).collect()
}

/// Looks for an unknown name through everything that is wrapped around it.
fn unknown_column(error: &DataFusionError) -> Option<SqlError> {
    match error {
        DataFusionError::SchemaError(schema, _) => match &**schema {
            SchemaError::FieldNotFound { field, valid_fields } => Some(of_field(field, valid_fields)),
            _ => None,
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => unknown_column(inner),
        DataFusionError::Shared(inner) => unknown_column(inner),
        DataFusionError::Collection(all) => all.iter().find_map(unknown_column),
        _ => None,
    }
}

fn of_field(field: &Column, valid: &[Column]) -> SqlError {
    // `service.name` without quotes is read as column `name` of a table `service`.
    let written = match &field.relation {
        Some(relation) => format!("{relation}.{}", field.name),
        None => field.name.clone(),
    };
    let folded = written.to_lowercase();
    let likeness = |column: &&Column| {
        let like = |name: &str| normalized_levenshtein(&folded, &name.to_lowercase());
        like(&column.name).max(like(&column.flat_name().replace('"', "")))
    };
    let mut nearest: Vec<(f64, &Column)> = valid.iter().map(|column| (likeness(&column), column)).collect();
    nearest.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.name.cmp(&b.1.name)));
    nearest.dedup_by(|a, b| a.1.name == b.1.name);
    let nearest = nearest.iter().take(NEAREST).filter(|(like, _)| *like > 0.3).map(|(_, c)| quoted(&c.name));
    SqlError::UnknownColumn { name: written, nearest: nearest.collect() }
}

/// As it is written in a statement.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let is_plain = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_') && name.chars().all(plain);
    if is_plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}
