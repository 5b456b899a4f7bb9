//! The data plane: routes requests, gives subjects their arms, injects faults, records one wide event per request.
//!
//! What it does to a request follows from its [`Config`] and from the last [`Snapshot`] that the control plane pushed. A
//! fault acts only by reference to an experiment in that snapshot, and only while the lease is valid: 3 s after the proxy
//! *sent* its last renewal that was answered, by its own clock. Control plane gone, faults gone; routing goes on. Nothing
//! in here fails a user's request for a reason of its own: without a snapshot, a key or a subject the request passes as is.
//!
//! - [`baggage`]: how arm and subject travel between proxies, and why a user cannot forge them;
//! - [`Snapshot`]: what the control plane pushes;
//! - `lease`, `link`, `forward`, `record`: the shell.

pub mod baggage;
mod config;
mod forward;
mod lease;
mod link;
mod record;
mod serve;
mod snapshot;

pub use config::{Config, ConfigError, Route, SubjectSource};
pub use serve::{ServeError, serve};
pub use snapshot::{Active, Renewal, RenewalAnswer, Snapshot};

#[cfg(test)]
mod tests;
