//! To be written.

use serde_json::Value;

use crate::{Import, ImportError};

/// To be written.
pub fn launchdarkly(_document: &Value) -> Result<Import, ImportError> {
    Ok(Import::default())
}
