//! Which environment a control plane is. Each has a control plane of its own: what happens in staging is on another log, with other
//! tokens, and cannot touch production.

use std::fmt;

use serde::{Deserialize, Serialize};
use vocab::Name;

/// An environment of a project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Whose flags these are.
    pub project: Name,
    /// Which environment.
    pub name: Name,
    /// What kind.
    pub kind: EnvironmentKind,
}

/// How much is at stake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EnvironmentKind {
    /// Real users.
    Production,
    /// As in production, with nobody to hurt.
    Staging,
    /// Changes are made at once, however many users they move.
    Dev,
}

/// Why a text names no environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no environment: expected project/name, such as shop/production, of kind production, staging or dev"
)]
pub struct ParseEnvironmentError {
    text: String,
}

impl Environment {
    /// Reads `project/name`.
    pub fn parse(text: &str, kind: &str) -> Result<Environment, ParseEnvironmentError> {
        let wrong = || ParseEnvironmentError { text: format!("{text} ({kind})").chars().take(200).collect() };
        let (project, name) = text.split_once('/').ok_or_else(wrong)?;
        let part = |text: &str| Name::parse(text).map_err(|_| wrong());
        let kind = match kind {
            "production" => EnvironmentKind::Production,
            "staging" => EnvironmentKind::Staging,
            "dev" => EnvironmentKind::Dev,
            _ => return Err(wrong()),
        };
        Ok(Environment { project: part(project)?, name: part(name)?, kind })
    }

    /// Whether it is the same environment; its kind may change.
    pub fn is_same(&self, other: &Environment) -> bool {
        self.project == other.project && self.name == other.name
    }
}

/// `shop/production`: also the id of its flag set.
impl fmt::Display for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.project, self.name)
    }
}
