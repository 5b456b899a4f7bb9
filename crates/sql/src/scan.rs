//! The table `events`: which columns, chunks and rows of the store a statement needs.
//!
//! Chunks that lie outside the statement's bounds on `time` are not opened, columns it does not name are not read, and rows that
//! cannot satisfy its comparisons with constants are not made. The engine checks the rows once more, so what is handed to the
//! store may be a weaker condition than the statement's, never a stronger one.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, ScalarValue, Statistics};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
};
use events::{Table, Wanted};
use futures_util::{StreamExt, stream};
use rows::{Comparison, Condition, Test, Value};
use vocab::Timestamp;

/// See the module.
#[derive(Debug)]
pub(crate) struct EventsTable(Arc<Table>);

impl EventsTable {
    pub(crate) fn new(table: Arc<Table>) -> EventsTable {
        EventsTable(table)
    }
}

#[async_trait]
impl TableProvider for EventsTable {
    fn schema(&self) -> SchemaRef {
        self.0.schema().clone()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let of = |filter: &&Expr| match bounds(filter).is_some() || condition(filter).is_some() {
            true => TableProviderFilterPushDown::Inexact,
            false => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(of).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (mut from, mut to) = self.0.time();
        for (low, high) in filters.iter().filter_map(bounds) {
            (from, to) = (from.max(Timestamp::from_nanos(low)), to.min(Timestamp::from_nanos(high)));
        }
        let columns = match projection {
            Some(columns) => columns.clone(),
            None => (0..self.0.schema().fields().len()).collect(),
        };
        let condition = Condition::And(filters.iter().filter_map(condition).collect());
        let wanted = Arc::new(Wanted { columns, condition, from, to });
        Ok(Arc::new(Scan::new(self.0.clone(), wanted, state.config().target_partitions())?))
    }
}

/// Reads chunks, each in one of a few partitions.
struct Scan {
    table: Arc<Table>,
    wanted: Arc<Wanted>,
    /// Chunks and their rows, by partition.
    partitions: Vec<Vec<(usize, usize)>>,
    properties: Arc<PlanProperties>,
}

impl Scan {
    fn new(table: Arc<Table>, wanted: Arc<Wanted>, partitions_max: usize) -> Result<Scan> {
        let mut chunks = table.chunks(wanted.from, wanted.to);
        let n = partitions_max.clamp(1, chunks.len().max(1));
        // The longest first, each to whoever has least.
        chunks.sort_by_key(|(_, rows)| std::cmp::Reverse(*rows));
        let mut partitions = vec![Vec::new(); n];
        for chunk in chunks {
            let least = partitions.iter_mut().min_by_key(|chunks| total(chunks));
            least.into_iter().for_each(|chunks| chunks.push(chunk));
        }
        let schema = Arc::new(table.schema().project(&wanted.columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(n),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Scan { table, wanted, partitions, properties: Arc::new(properties) })
    }
}

fn total(chunks: &[(usize, usize)]) -> usize {
    chunks.iter().map(|(_, rows)| rows).sum()
}

impl fmt::Debug for Scan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scan").field("wanted", &self.wanted).finish_non_exhaustive()
    }
}

impl DisplayAs for Scan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chunks: usize = self.partitions.iter().map(Vec::len).sum();
        let rows: usize = self.partitions.iter().map(|chunks| total(chunks)).sum();
        write!(f, "events: from={}, to={}, chunks={chunks}, rows<={rows}", self.wanted.from, self.wanted.to)?;
        let schema = self.schema();
        let names = schema.fields().iter().map(|field| field.name().as_str());
        write!(f, ", columns=[{}]", names.collect::<Vec<_>>().join(", "))
    }
}

impl ExecutionPlan for Scan {
    fn name(&self) -> &'static str {
        "EventsScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, partition: usize, _: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let readers = self.partitions.get(partition).into_iter().flatten();
        let readers = readers.map(|(chunk, _)| self.table.read(*chunk, &self.wanted));
        let batches = readers.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
        let batches = stream::iter(batches).map(|batch| batch.map_err(Into::into));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }

    /// How many rows there are at most: a join then holds the shorter side in memory.
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], args: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let rows = match args.partition() {
            Some(partition) => self.partitions.get(partition).map_or(0, |chunks| total(chunks)),
            None => self.partitions.iter().map(|chunks| total(chunks)).sum(),
        };
        let unknown = Statistics::new_unknown(&self.schema());
        Ok(Arc::new(unknown.with_num_rows(Precision::Inexact(rows))))
    }
}

/// The time that a filter leaves: from, and before which, in nanoseconds.
fn bounds(filter: &Expr) -> Option<(i64, i64)> {
    let time = |expr: &Expr| matches!(expr, Expr::Column(column) if column.name == "time");
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => {
            let all = (i64::MIN, i64::MAX);
            let (a, b) = (bounds(left), bounds(right));
            (a.is_some() || b.is_some()).then(|| {
                let (a, b) = (a.unwrap_or(all), b.unwrap_or(all));
                (a.0.max(b.0), a.1.min(b.1))
            })
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (op, other) = match (time(left), time(right)) {
                (true, _) => (*op, right),
                (_, true) => (op.swap()?, left),
                _ => return None,
            };
            let at = nanos(other)?;
            match op {
                Operator::Eq => Some((at, at.saturating_add(1))),
                Operator::GtEq => Some((at, i64::MAX)),
                Operator::Gt => Some((at.saturating_add(1), i64::MAX)),
                Operator::Lt => Some((i64::MIN, at)),
                Operator::LtEq => Some((i64::MIN, at.saturating_add(1))),
                _ => None,
            }
        }
        Expr::Between(between) if !between.negated && time(&between.expr) => {
            Some((nanos(&between.low)?, nanos(&between.high)?.saturating_add(1)))
        }
        _ => None,
    }
}

fn nanos(expr: &Expr) -> Option<i64> {
    let Expr::Literal(ScalarValue::TimestampNanosecond(at, _), _) = expr else { return None };
    *at
}

/// What a filter says of the rows, as far as the store understands it: nothing that it does not say.
fn condition(filter: &Expr) -> Option<Condition> {
    let test = |column: &Expr, comparison: Comparison| match column {
        Expr::Column(column) => Some(Condition::Test(Test { field: column.name.clone(), comparison })),
        _ => None,
    };
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And, right }) => match (condition(left), condition(right)) {
            (Some(left), Some(right)) => Some(Condition::And(vec![left, right])),
            (one, other) => one.or(other),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
            Some(Condition::Or(vec![condition(left)?, condition(right)?]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (value(right), value(left)) {
            (Some(value), _) => test(left, comparison(*op, value)?),
            (_, Some(value)) => test(right, comparison(op.swap()?, value)?),
            _ => None,
        },
        Expr::InList(list) if !list.negated => {
            test(&list.expr, Comparison::In(list.list.iter().map(value).collect::<Option<_>>()?))
        }
        Expr::IsNotNull(column) => test(column, Comparison::Exists),
        Expr::Column(_) => test(filter, Comparison::Equal(Value::Bool(true))),
        Expr::Not(column) => test(column, Comparison::Equal(Value::Bool(false))),
        _ => None,
    }
}

fn value(expr: &Expr) -> Option<Value> {
    let Expr::Literal(scalar, _) = expr else { return None };
    match scalar {
        ScalarValue::Boolean(Some(value)) => Some(Value::Bool(*value)),
        ScalarValue::Int64(Some(value)) => Some(Value::Int(*value)),
        ScalarValue::Float64(Some(value)) if !value.is_nan() => Some(Value::Float(*value)),
        scalar => scalar.try_as_str().flatten().map(Value::from),
    }
}

fn comparison(op: Operator, value: Value) -> Option<Comparison> {
    let is_number = matches!(value, Value::Int(_) | Value::Float(_));
    match op {
        Operator::Eq => Some(Comparison::Equal(value)),
        // The engine puts -0.0 before 0.0, the store takes them for one number: so no bound is strict.
        Operator::Gt | Operator::GtEq if is_number => Some(Comparison::GreaterEqual(value)),
        Operator::Lt | Operator::LtEq if is_number => Some(Comparison::LessEqual(value)),
        _ => None,
    }
}
