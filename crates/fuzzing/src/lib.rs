//! What the fuzz targets do with bytes from outside: read them, use what came of them, and panic where a promise is broken.
//! Not shipped.
//!
//! Each of [`TARGETS`] is an ordinary function, so that the tests of this crate run it on random bytes and on the seeds in
//! `fuzz/seeds`, with the compiler that everything else is built with. `cargo xtask fuzz` runs the same functions under libFuzzer.
//!
//! | target | bytes are | promises |
//! |---|---|---|
//! | `document` | the text of a flag document | no panic; what is read strictly is read leniently too, and evaluates as below |
//! | `evaluation` | choices from which a document in both dialects, a context and a time are made | no panic; explaining, deciding all at once and deciding one agree; what in-process clients are sent can be read and, for plain values, decides the same |
//! | `segment` | the text of a segment, or choices | no panic; who is included is in |
//! | `question` | the text of a filter or a calculated field, or choices; a batch of rows | no panic; a filter's text is the same filter; rows that are written again are the same |
//! | `request` | the body of an OFREP request, or choices | no panic; a known ETag gives 304 |
//!
//! What they do not judge: whether the decision is the right one. That is for the tests of `flags`.

mod bodies;
mod made;

pub use bodies::{TARGETS, Target, document, evaluation, question, request, segment};

#[cfg(test)]
mod tests;
