//! `POST /api/v1/sql`: SQL over events, experiments, flags and the audit log. See docs/reference/sql.md. A binary that was built
//! without the cargo feature `sql` says so.

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::app::App;

pub(crate) fn routes() -> Router<Arc<App>> {
    Router::new().route("/api/v1/sql", post(asking::ask))
}

#[cfg(not(feature = "sql"))]
mod asking {
    use auth::Role;
    use axum::extract::State;
    use http::{HeaderMap, StatusCode};

    use crate::api::{Answer, Shared};
    use crate::problem::Problem;

    pub(super) async fn ask(State(app): Shared, headers: HeaderMap) -> Answer {
        app.authorize(&headers, Role::Read)?;
        let detail = "this server was built without SQL";
        let remedy = "build it with `cargo build --profile dist --features sql`, or ask with `seaworthy query`";
        Err(Problem::new(StatusCode::NOT_IMPLEMENTED, "no-sql", detail, remedy))
    }
}

#[cfg(feature = "sql")]
mod asking {
    use std::sync::Arc;
    use std::time::Duration;

    use auth::Role;
    use axum::Json;
    use axum::extract::State;
    use bytes::Bytes;
    use http::{HeaderMap, StatusCode};
    use serde::Deserialize;
    use serde_json::{Map, Value, json};
    use sql::SqlError;
    use vocab::{Millis, Timestamp};

    use crate::api::{Answer, Shared, parse, time};
    use crate::app::now;
    use crate::problem::Problem;
    use crate::query_api::{Form, RANGE, csv_line, csv_text, no_arrow};
    use crate::sql_tables::Lists;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Asked {
        sql: String,
        from: Option<String>,
        to: Option<String>,
        limit: Option<usize>,
        timeout_s: Option<u64>,
    }

    impl Asked {
        /// The time of the events: `all`, or as of other questions.
        fn times(&self) -> Result<(Timestamp, Timestamp), Problem> {
            let (from, to) = match self.from.as_deref() {
                Some("all") => (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX)),
                from => (time(from, now() - RANGE)?, now() + Millis::from_secs(60)),
            };
            Ok((from, time(self.to.as_deref(), to)?))
        }
    }

    impl From<SqlError> for Problem {
        fn from(error: SqlError) -> Problem {
            let see = "see docs/reference/sql.md";
            let (status, code, remedy) = match error {
                SqlError::NotReading(_) => (
                    StatusCode::BAD_REQUEST,
                    "not-a-question",
                    "ask with SELECT, WITH, VALUES, EXPLAIN, SHOW or DESCRIBE",
                ),
                SqlError::TooLong { .. } => (StatusCode::BAD_REQUEST, "sql-too-long", "ask for less at once"),
                SqlError::Statements(_) | SqlError::Wrong(_) => (StatusCode::BAD_REQUEST, "invalid-sql", see),
                SqlError::UnknownColumn { .. } => (
                    StatusCode::BAD_REQUEST,
                    "unknown-column",
                    "a name with a dot or a capital stands in double quotes; `SHOW COLUMNS FROM events` lists those of the time \
                     asked about",
                ),
                SqlError::Time(_) => (
                    StatusCode::BAD_REQUEST,
                    "time-limit",
                    "ask for a shorter time range or filter more; `timeout_s` gives it up to 300 s",
                ),
                SqlError::Memory => (
                    StatusCode::BAD_REQUEST,
                    "memory-limit",
                    "group by less, join less, filter more, or end an ORDER BY with a LIMIT",
                ),
                SqlError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "try again"),
                SqlError::Broken(_) => {
                    (StatusCode::INTERNAL_SERVER_ERROR, "internal", "this is a fault of ours: see the server's log")
                }
            };
            Problem::new(status, code, error.to_string(), remedy)
        }
    }

    pub(super) async fn ask(State(app): Shared, headers: HeaderMap, body: Bytes) -> Answer {
        app.authorize(&headers, Role::Read)?;
        let asked: Asked = parse(&body)?;
        let (from, to) = asked.times()?;
        let statement = sql::Asked {
            limit: asked.limit.unwrap_or(sql::ROWS_DEFAULT),
            time: asked.timeout_s.map_or(sql::TIME_DEFAULT, |seconds| Duration::from_secs(seconds.max(1))),
            sql: asked.sql,
        };
        let lists = Arc::new(Lists { app: app.clone(), from, to });
        let found = app.sql.ask(statement, lists).await?;
        let form = Form::of(&headers);
        if form == Form::Arrow {
            let bytes = found.arrow_stream().map_err(no_arrow)?;
            return Ok(form.answer(bytes, &found.incomplete, found.has_more));
        }
        let rows = found.rows().map_err(|e| Problem::from(SqlError::Broken(e.to_string())))?;
        let columns = found.columns();
        if form == Form::Csv {
            let mut csv = String::new();
            csv_line(&mut csv, columns.iter().map(|name| (*name).to_owned()));
            rows.iter().for_each(|row| csv_line(&mut csv, row.iter().map(|cell| csv_text(Some(cell)))));
            return Ok(form.answer(csv, &found.incomplete, found.has_more));
        }
        let object = |row: Vec<Value>| -> Map<String, Value> {
            columns.iter().map(|name| (*name).to_owned()).zip(row).collect()
        };
        let rows: Vec<Map<String, Value>> = rows.into_iter().map(object).collect();
        let answer = json!({"rows": rows, "columns": columns, "types": found.types(), "has_more": found.has_more,
            "elapsed_ms": found.elapsed_ms, "incomplete": found.incomplete});
        Ok(form.answer(Json(answer), &found.incomplete, found.has_more))
    }
}
