//! SQL over events and over what the control plane knows: DataFusion reads the store's chunks where they are, hot or cold, and the
//! lists of the server as tables beside them. It only reads.
//!
//! | part | does |
//! |---|---|
//! | `statement` | what may be asked: one query |
//! | `engine` | runs it on threads of its own, within limits of time, memory, rows |
//! | `held` | what the engine does not watch: the memory of window functions, the time of joins |
//! | `scan` | the table `events`: which columns, chunks and rows of the store a query needs |
//! | `tables` | lists of JSON objects as tables in memory |
//! | `answer` | what was found, as JSON, as cells, as Arrow |
//! | `error` | why there is no answer, in words of the user |
//!
//! Unknown here: HTTP, experiments, flags, who may ask. The lists come through [`Tables`].

mod answer;
mod engine;
mod error;
mod held;
mod scan;
mod statement;
mod tables;

pub use answer::Answer;
pub use engine::{AT_ONCE, Asked, Engine, MEMORY_BYTES, ROWS_DEFAULT, ROWS_MAX, TIME_DEFAULT, TIME_MAX};
pub use error::SqlError;
pub use statement::SQL_BYTES_MAX;
pub use tables::{Column, Kind, Known, Rows, Tables};

#[cfg(test)]
mod tests;
