//! What kind of line a log line is: its template, the line with what varies replaced by `<*>`.
//!
//! Two steps. [`mask`] replaces what varies by its looks: numbers, hex, UUIDs, addresses, times, quoted text, ids in paths. It knows
//! nothing of other lines. What varies and looks like a word (a user's name) only shows beside other lines: [`Templates`] keeps, for
//! each service, the kinds of lines seen so far in a tree of fixed depth (Drain: He, Zhu, Zheng, Lyu, ICWS 2017), by the number of words
//! and the first word; a line joins the kind that it shares most words with, and the words that differ become `<*>`.
//!
//! A kind may thus grow more general, and its text changes, a few times early in its life. Its id does not: it comes of the service
//! and the first line. Whoever compares events of one time sees one text; whoever compares over a longer time has the id.
//!
//! Pure and deterministic: the same lines in the same order give the same templates. Memory is bounded, the least recently seen
//! kinds go first; a line that no kind is kept for any more founds one again, under the same id if it is the same line.

mod mask;
mod tree;

pub use mask::mask;
pub use tree::{Found, Kept, Templates};

/// Bytes of a line that are looked at; only its first line break is. What follows is in the event, not in the template.
pub const LINE_BYTES_MAX: usize = 1_024;
/// What stands for what varies.
pub const WILDCARD: &str = "<*>";

#[cfg(test)]
mod tests;
