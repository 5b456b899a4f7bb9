//! Events of several servers over one bucket (S3, Google's, Azure's, or a directory that all of them see).
//!
//! Every server keeps its own write-ahead log and files, and copies them to the bucket; it lists what others put there and shows
//! it in answers. Each can answer alone, so a server that dies takes no answer of another with it, and nothing has to be agreed on:
//! a server writes only below its own id.
//!
//! | key below the prefix | content | mutable |
//! |---|---|---|
//! | `events/tail/<server>/<first>-<last>` | batches that are in no file yet ([`tail`]) | no; goes when they are in a file |
//! | `events/files/<server>/<yyyy-mm-dd>/<hh>/<name>` | a segment or a Parquet file, under the name it has in the directory | no; goes when it was merged into another, or is too old |
//!
//! [`Mirror`] is the thread that sends and looks; [`view`] decides, without I/O, what to show of what was listed; [`Cache`] brings
//! files of others when a question asks for their time. What is in batches and files is unknown here: that is `events`.

mod cache;
mod key;
mod mirror;
mod place;
pub mod tail;
mod view;

pub use cache::Cache;
pub use mirror::{Mirror, Options, Standing};
pub use place::{Place, PlaceError};

#[cfg(test)]
mod tests;
