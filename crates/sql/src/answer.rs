//! What was found, in the forms that users ask for.

use std::collections::HashSet;
use std::sync::Arc;

use arrow_ipc::writer::StreamWriter;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Field, Float64Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType, UInt64Type,
};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};
use vocab::Timestamp;

/// Rows, and what is missing of them.
#[derive(Clone, Debug)]
pub struct Answer {
    schema: SchemaRef,
    batches: Vec<RecordBatch>,
    /// Whether there are more rows than were asked for.
    pub has_more: bool,
    /// What is left out, and why.
    pub incomplete: Vec<String>,
    /// How long it took.
    pub elapsed_ms: f64,
}

impl Answer {
    /// With each column under a name of its own.
    pub(crate) fn new(schema: SchemaRef, batches: Vec<RecordBatch>, has_more: bool, incomplete: Vec<String>) -> Answer {
        let mut taken = HashSet::new();
        let fields: Vec<Field> = schema
            .fields()
            .iter()
            .map(|field| {
                let mut name = field.name().clone();
                let mut n = 2;
                while !taken.insert(name.clone()) {
                    name = format!("{}_{n}", field.name());
                    n += 1;
                }
                Field::new(name, field.data_type().clone(), true)
            })
            .collect();
        Answer { schema: Arc::new(Schema::new(fields)), batches, has_more, incomplete, elapsed_ms: 0.0 }
    }

    /// Names of the columns, no two the same.
    pub fn columns(&self) -> Vec<&str> {
        self.schema.fields().iter().map(|field| field.name().as_str()).collect()
    }

    /// Their types: `text`, `int`, `float`, `bool`, `time`, or the engine's name of another.
    pub fn types(&self) -> Vec<String> {
        self.schema.fields().iter().map(|field| type_name(field.data_type())).collect()
    }

    /// The rows, a cell a column. Times are RFC 3339 text; what JSON has no form for is text; a number that is none is null.
    pub fn rows(&self) -> Result<Vec<Vec<Value>>, ArrowError> {
        let mut rows = Vec::new();
        for batch in &self.batches {
            let columns = batch.columns().iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            let mut columns: Vec<_> = columns.into_iter().map(Vec::into_iter).collect();
            rows.extend((0..batch.num_rows()).map(|_| -> Vec<Value> {
                columns.iter_mut().map(|column| column.next().unwrap_or(Value::Null)).collect()
            }));
        }
        Ok(rows)
    }

    /// An Arrow IPC stream. Text is plain text, which every reader understands.
    pub fn arrow_stream(&self) -> Result<Vec<u8>, ArrowError> {
        let plain = |data_type: &DataType| if is_text(data_type) { DataType::Utf8 } else { data_type.clone() };
        let fields = self.schema.fields().iter();
        let fields = fields.map(|field| Field::new(field.name(), plain(field.data_type()), true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
        for batch in &self.batches {
            let arrays = batch.columns().iter().zip(schema.fields());
            let arrays = arrays.map(|(array, field)| cast(array, field.data_type())).collect::<Result<_, _>>()?;
            writer.write(&RecordBatch::try_new(schema.clone(), arrays)?)?;
        }
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }
}

/// What the rows of a batch take; not what it shares with others.
pub(crate) fn bytes_of(batch: &RecordBatch) -> usize {
    let of = |column: &ArrayRef| match column.as_string_view_opt() {
        Some(texts) => texts.iter().flatten().map(str::len).sum::<usize>() + 16 * texts.len(),
        None => column.to_data().get_slice_memory_size().unwrap_or(0),
    };
    batch.columns().iter().map(of).sum()
}

fn is_text(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        text if is_text(text) => "text".into(),
        DataType::Dictionary(_, values) => type_name(values),
        number if number.is_integer() => "int".into(),
        number if number.is_floating() => "float".into(),
        DataType::Boolean => "bool".into(),
        DataType::Timestamp(..) => "time".into(),
        other => other.to_string(),
    }
}

fn present<T>(array: &dyn Array, value: impl Fn(usize) -> T) -> Vec<Value>
where
    Value: From<T>,
{
    (0..array.len()).map(|row| if array.is_valid(row) { value(row).into() } else { Value::Null }).collect()
}

fn cells(array: &ArrayRef) -> Result<Vec<Value>, ArrowError> {
    let as_type = |data_type: DataType| cast(array, &data_type);
    Ok(match array.data_type() {
        DataType::Null => vec![Value::Null; array.len()],
        DataType::Boolean => present(array, |row| array.as_boolean().value(row)),
        number if number.is_unsigned_integer() => {
            let numbers = as_type(DataType::UInt64)?;
            present(array, |row| numbers.as_primitive::<UInt64Type>().value(row))
        }
        number if number.is_integer() => {
            let numbers = as_type(DataType::Int64)?;
            present(array, |row| numbers.as_primitive::<Int64Type>().value(row))
        }
        number if number.is_floating() => {
            let numbers = as_type(DataType::Float64)?;
            present(array, |row| numbers.as_primitive::<Float64Type>().value(row))
        }
        text if is_text(text) => {
            let texts = as_type(DataType::Utf8View)?;
            present(array, |row| texts.as_string_view().value(row))
        }
        DataType::Timestamp(..) => {
            let times = as_type(DataType::Timestamp(TimeUnit::Nanosecond, None))?;
            let at = |row| Timestamp::from_nanos(times.as_primitive::<TimestampNanosecondType>().value(row));
            present(array, |row| at(row).to_string())
        }
        DataType::Dictionary(_, values) => cells(&as_type((**values).clone())?)?,
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let list = |row| cells(&lists.value(row)).map(Value::from);
            let all = (0..array.len()).map(|row| if array.is_valid(row) { list(row) } else { Ok(Value::Null) });
            all.collect::<Result<_, _>>()?
        }
        DataType::Struct(fields) => {
            let columns = array.as_struct().columns().iter().map(cells).collect::<Result<Vec<_>, _>>()?;
            let object = |row: usize| -> Map<String, Value> {
                fields.iter().zip(&columns).map(|(field, column)| (field.name().clone(), column[row].clone())).collect()
            };
            present(array, object)
        }
        _ => {
            let options = FormatOptions::default();
            let shown = ArrayFormatter::try_new(array, &options)?;
            present(array, |row| shown.value(row).to_string())
        }
    })
}
