//! Records that are no OTLP, to rows: JSON lines, and reports of tests as JUnit writes them.
//!
//! [`lines`] reads JSON lines: one object a line is one row, and a line that is none is refused by its number. [`junit`] reads a JUnit
//! report: each test case is one record in the form of such a line, so that all of it takes one way into the server. [`moment`] knows the
//! forms in which people write times. Limits and weights are those of [`rows::Draft`]. Where the bytes come from is not known here.

pub mod junit;
pub mod lines;
pub mod moment;

#[cfg(test)]
mod tests;
