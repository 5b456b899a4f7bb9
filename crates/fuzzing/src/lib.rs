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
//! | `export` | an OTLP export of spans, log records or metrics, as protobuf and as JSON | no panic; rows have times that were and keep the limits; redaction and the codec take them |
//! | `records` | JSON lines, or a JUnit report | no panic; each line is a row, refused by its number, or empty; the cases of a report are lines that are read |
//! | `request` | the body of an OFREP request, or choices | no panic; a known ETag gives 304 |
//!
//! What they do not judge: whether the decision is the right one. That is for the tests of `flags`.

mod bodies;
mod intake;
mod made;

pub use bodies::{TARGETS, Target, document, evaluation, question, request, segment};
pub use intake::{export, records};

#[cfg(test)]
mod tests;
