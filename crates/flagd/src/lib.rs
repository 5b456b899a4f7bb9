//! flagd's protocols over our flags: `evaluation.v1` and `v2` (gRPC, gRPC-web, Connect JSON), `sync.v1`, OFREP, health.
//!
//! Stock flagd providers cannot tell it from flagd. [`Hub`] holds what is served, by source and by selector; [`Face`] is the
//! hub as clients see it; [`http`] makes routers of it, one per port. Where flags come from, on which ports, behind which
//! TLS, is the caller's business; how a flag decides is `flags`' and `openfeature`'s.

pub mod client;
mod connect;
mod evaluation;
mod face;
pub mod http;
mod hub;
pub mod limit;
pub mod listen;
mod sync;
mod value;

pub use face::{Face, Pass};
pub use hub::{Hub, Selector, Source, View};
pub use limit::Limiter;

#[allow(missing_debug_implementations, clippy::all)]
mod v1 {
    tonic::include_proto!("flagd.evaluation.v1");
}
#[allow(missing_debug_implementations, clippy::all)]
mod v2 {
    tonic::include_proto!("flagd.evaluation.v2");
}
#[allow(missing_debug_implementations, clippy::all)]
mod sync_v1 {
    tonic::include_proto!("flagd.sync.v1");
}

#[cfg(test)]
mod tests;
