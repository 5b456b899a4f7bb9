//! To be written.

pub(crate) mod pattern;

use serde_json::Value;

use crate::{Import, ImportError};

/// To be written.
pub fn growthbook(_document: &Value) -> Result<Import, ImportError> {
    Ok(Import::default())
}
