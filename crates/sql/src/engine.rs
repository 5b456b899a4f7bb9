//! Runs a statement: on threads of its own, so that nobody who stores events or asks otherwise waits for it; within limits of
//! time, memory and rows; until it is answered or nobody waits any more.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{CatalogProvider, MemoryCatalogProvider};
use datafusion::dataframe::DataFrame;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::prelude::{SQLOptions, SessionConfig, SessionContext};
use futures_util::StreamExt;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::answer::bytes_of;
use crate::held::{CountWindows, GiveWay};
use crate::tables::Schemas;
use crate::{Answer, SqlError, Tables, statement};

/// Rows of an answer that does not say how many it wants.
pub const ROWS_DEFAULT: usize = 10_000;
/// The most rows of an answer, as of other questions.
pub const ROWS_MAX: usize = 100_000;
/// How long a statement may take that does not say: a little less than clients usually wait.
pub const TIME_DEFAULT: Duration = Duration::from_secs(25);
/// The longest.
pub const TIME_MAX: Duration = Duration::from_secs(300);
/// What all statements hold together, as the engine counts it: groups, sorted rows, the shorter side of a join. One that needs
/// more ends with an error; nothing is written to disk instead.
pub const MEMORY_BYTES: usize = 512 << 20;
/// Statements that are answered at the same time; others wait for one to end.
pub const AT_ONCE: usize = 4;
/// Bytes of an answer's columns. What is longer is cut, and said to be.
const ANSWER_BYTES_MAX: usize = 32 << 20;
/// More threads would take the processors from those who store events.
const THREADS: usize = 2;
/// A statement of the greatest length may be nested several thousand deep. Pages that are not touched cost nothing.
const STACK_BYTES: usize = 64 << 20;
/// Functions that make much out of little within one cell, where no limit of memory sees it.
const LEFT_OUT: [&str; 9] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "list_repeat",
    "array_resize",
    "list_resize",
    "range",
    "generate_series",
];

pub(crate) const CATALOG: &str = "seaworthy";
pub(crate) const SCHEMA: &str = "public";

/// One statement and what it may take.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The statement.
    pub sql: String,
    /// Rows in the answer; at most [`ROWS_MAX`].
    pub limit: usize,
    /// Time from now on; at most [`TIME_MAX`].
    pub time: Duration,
}

/// See the module.
pub struct Engine {
    /// Always there but in `drop`.
    runtime: Option<Runtime>,
    environment: Arc<RuntimeEnv>,
    at_once: Arc<Semaphore>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").finish_non_exhaustive()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Nobody waits for a statement that is still running; and it may be dropped where one must not wait.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Ends the work when nobody waits for it any more.
struct Running<T>(JoinHandle<T>);

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Engine {
    /// With its threads.
    pub fn start() -> io::Result<Engine> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_stack_size(STACK_BYTES)
            .thread_name("sql")
            .enable_time()
            .build()?;
        let environment = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(GreedyMemoryPool::new(MEMORY_BYTES)))
            .with_disk_manager_builder(DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled))
            .build_arc()
            .map_err(io::Error::other)?;
        Ok(Engine { runtime: Some(runtime), environment, at_once: Arc::new(Semaphore::new(AT_ONCE)) })
    }

    /// Answers a statement. Dropping the future ends the work.
    pub async fn ask(&self, asked: Asked, tables: Arc<dyn Tables>) -> Result<Answer, SqlError> {
        let Some(runtime) = &self.runtime else { return Err(SqlError::Broken("it has ended".into())) };
        let (began, time) = (Instant::now(), asked.time.min(TIME_MAX));
        let turn = tokio::time::timeout(time, self.at_once.clone().acquire_owned()).await;
        let turn = turn.map_err(|_| SqlError::Busy)?.map_err(|_| SqlError::Broken("it has ended".into()))?;
        let environment = self.environment.clone();
        let mut running = Running(runtime.spawn(async move {
            let answer = run(&asked, tables, environment).await;
            drop(turn);
            answer
        }));
        match tokio::time::timeout(time.saturating_sub(began.elapsed()), &mut running.0).await {
            Err(_) => Err(SqlError::Time(time)),
            Ok(Err(_)) => Err(SqlError::Broken("see the server's log".into())),
            Ok(Ok(answer)) => answer.map(|mut answer| {
                answer.elapsed_ms = began.elapsed().as_secs_f64() * 1e3;
                answer
            }),
        }
    }
}

async fn run(asked: &Asked, tables: Arc<dyn Tables>, environment: Arc<RuntimeEnv>) -> Result<Answer, SqlError> {
    let statement = statement::parse(&asked.sql)?;
    let is_query = statement::is_query(&statement);
    let schemas = Arc::new(Schemas::new(tables));
    let limit = asked.limit.min(ROWS_MAX);
    let found = async {
        let context = context(environment, schemas.clone())?;
        let plan = context.state().statement_to_plan(statement).await?;
        let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        reading.verify_plan(&plan)?;
        let mut frame = DataFrame::new(context.state(), plan);
        if is_query {
            // One more tells whether there are more; and what is sorted keeps no more than that.
            frame = frame.limit(0, Some(limit + 1))?;
        }
        collect(frame, limit).await
    };
    let found = found.await.map_err(SqlError::planning)?;
    let mut incomplete = schemas.incomplete();
    if found.is_cut {
        incomplete.push(format!("the answer is cut at {} MiB: name fewer columns", ANSWER_BYTES_MAX >> 20));
    }
    Ok(Answer::new(found.schema, found.batches, found.has_more, incomplete))
}

/// A session that knows these tables and no file.
fn context(environment: Arc<RuntimeEnv>, schemas: Arc<Schemas>) -> Result<SessionContext, DataFusionError> {
    let mut config = SessionConfig::new()
        .with_target_partitions(THREADS)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    // Text that doubles with each round is in no limit of memory.
    config.options_mut().execution.enable_recursive_ctes = false;
    let state = SessionStateBuilder::new().with_config(config).with_runtime_env(environment).with_default_features();
    let state = state.with_physical_optimizer_rule(Arc::new(CountWindows));
    let state = state.with_physical_optimizer_rule(Arc::new(GiveWay)).build();
    let context = SessionContext::new_with_state(state);
    let catalog = MemoryCatalogProvider::new();
    catalog.register_schema(SCHEMA, schemas)?;
    context.register_catalog(CATALOG, Arc::new(catalog));
    LEFT_OUT.iter().for_each(|name| context.deregister_udf(name));
    Ok(context)
}

struct Found {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    has_more: bool,
    is_cut: bool,
}

async fn collect(frame: DataFrame, limit: usize) -> Result<Found, DataFusionError> {
    let mut stream = frame.execute_stream().await?;
    let mut found = Found { schema: stream.schema(), batches: Vec::new(), has_more: false, is_cut: false };
    let (mut rows, mut bytes) = (0, 0);
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if rows + batch.num_rows() > limit {
            found.batches.push(batch.slice(0, limit - rows));
            found.has_more = true;
            return Ok(found);
        }
        bytes += bytes_of(&batch);
        if bytes > ANSWER_BYTES_MAX {
            (found.has_more, found.is_cut) = (true, true);
            return Ok(found);
        }
        rows += batch.num_rows();
        found.batches.push(batch);
    }
    Ok(found)
}
