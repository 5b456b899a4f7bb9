//! Old chunks as Parquet that any tool reads, and back, a column when it is asked for.
//!
//! One row group a file. Columns `time` (timestamp, ns, UTC), `duration_ns` (i64, null is none), `trace_id` (16 bytes), `span_id` and
//! `parent_id` (u64), then one column an attribute: text, whole number, number or truth; an attribute with values of several types is
//! several columns `name`, `name:int`, … A name that is taken, such as an attribute `time`, ends in `:attribute`. The real name is in the
//! field's metadata, as in segments.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, OnceLock};

use arrow_array::types::UInt32Type;
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeBinaryArray, Float64Array, Int64Array, RecordBatch,
    StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use files::Files;
use hashbrown::HashTable;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;
use rows::ValueRef;

use crate::builder::{SPARSE_FROM, narrow};
use crate::chunk::{Chunk, Numbers};
use crate::column::{Codes, Column, Data, Dict, Kind, Load, Values, value_hash};
use crate::segment::{dict_values, suffix};
use crate::store::map;

const NAME: &str = "seaworthy.name";
/// One dictionary a column, however long: a second one would cost the codes.
const DICTIONARY_BYTES_MAX: usize = 512 << 20;
/// Numbers with more distinct values than this stay as they are.
const DISTINCT_MAX: usize = 65_535;

/// The bytes of the file.
pub(crate) fn write(chunk: &Chunk) -> Result<Vec<u8>, ParquetError> {
    let n = chunk.len();
    let durations: Int64Array = chunk.duration.iter().map(|nanos| Some(*nanos).filter(|nanos| *nanos >= 0)).collect();
    let mut fields = vec![
        Field::new("time", DataType::Timestamp(arrow_schema::TimeUnit::Nanosecond, Some("UTC".into())), false),
        Field::new("duration_ns", DataType::Int64, true),
    ];
    let mut arrays: Vec<ArrayRef> =
        vec![Arc::new(TimestampNanosecondArray::from(chunk.time.to_vec()).with_timezone("UTC")), Arc::new(durations)];
    if chunk.trace.iter().any(|half| *half != 0) {
        let ids = (0..n).map(|row| chunk.trace(row).to_be_bytes());
        fields.push(Field::new("trace_id", DataType::FixedSizeBinary(16), false));
        arrays.push(Arc::new(FixedSizeBinaryArray::try_from_iter(ids)?));
    }
    for (name, ids) in [("span_id", &chunk.span), ("parent_id", &chunk.parent)] {
        if ids.iter().any(|id| *id != 0) {
            fields.push(Field::new(name, DataType::UInt64, false));
            arrays.push(Arc::new(UInt64Array::from(ids.to_vec())));
        }
    }
    for column in &chunk.columns {
        let array = cells(column, n)?;
        let mut name = format!("{}{}", column.name, suffix(column.kind));
        while fields.iter().any(|field| *field.name() == name) {
            name.push_str(":attribute");
        }
        let metadata = HashMap::from([(NAME.to_owned(), column.name.to_string())]);
        fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(3)?))
        .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
        .set_max_row_group_row_count(Some(n.max(1)))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_column_statistics_enabled(ColumnPath::from("time"), EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(ColumnPath::from("time"), false)
        .set_column_encoding(ColumnPath::from("time"), Encoding::DELTA_BINARY_PACKED)
        .set_column_dictionary_enabled(ColumnPath::from("duration_ns"), false)
        .set_column_dictionary_enabled(ColumnPath::from("trace_id"), false)
        .set_column_dictionary_enabled(ColumnPath::from("span_id"), false)
        .set_column_dictionary_enabled(ColumnPath::from("parent_id"), false)
        .build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), Some(properties))?;
    writer.write(&RecordBatch::try_new(schema, arrays)?)?;
    writer.close()?;
    Ok(bytes)
}

/// A column's cells, a value a row.
fn cells(column: &Column, n_rows: usize) -> Result<ArrayRef, ParquetError> {
    let (codes, dict) = match column.data() {
        Data::Ints(v) => return Ok(Arc::new(v.clone())),
        Data::Floats(v) => return Ok(Arc::new(v.clone())),
        Data::Coded { codes, dict } => (codes, dict),
    };
    let dense = codes.dense(n_rows);
    Ok(match dict.values() {
        Values::Strs(_) => {
            let keys: UInt32Array = dense.iter().map(|code| code.checked_sub(1)).collect();
            let all = dict_values(dict);
            Arc::new(DictionaryArray::<UInt32Type>::try_new(keys, all.slice(1, dict.len()))?)
        }
        Values::Ints(v) => {
            Arc::new(dense.iter().map(|c| (*c > 0).then(|| v.value(*c as usize))).collect::<Int64Array>())
        }
        Values::Floats(v) => {
            Arc::new(dense.iter().map(|c| (*c > 0).then(|| v.value(*c as usize))).collect::<Float64Array>())
        }
        Values::Bools => Arc::new(dense.iter().map(|c| (*c > 0).then_some(*c == 2)).collect::<BooleanArray>()),
    })
}

/// A cold file. Its bytes are mapped, or read for as long as a chunk of it is in use.
#[derive(Debug)]
pub(crate) struct Cold {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    /// Whether it is in the bucket alone.
    pub(crate) away: bool,
    pub(crate) files: Arc<dyn Files>,
    pub(crate) extent: (i64, i64, usize),
    pub(crate) crc: u32,
    /// What the file says of itself, once its checksum was right.
    pub(crate) metadata: OnceLock<Result<ArrowReaderMetadata, String>>,
}

impl Cold {
    pub(crate) fn extent(&self) -> (i64, i64, usize) {
        self.extent
    }

    /// The chunk; its attributes are read when they are asked for.
    pub(crate) fn chunk(&self) -> Result<Arc<Chunk>, String> {
        let read = || {
            let bytes = content(&*self.files, &self.path)?;
            let metadata = self.metadata.get_or_init(|| {
                if crc32c::crc32c(&bytes) != self.crc {
                    return Err("does not match its checksum".to_owned());
                }
                ArrowReaderMetadata::load(&bytes, Default::default()).map_err(|e| e.to_string())
            });
            self.read(&bytes, metadata.as_ref().map_err(Clone::clone)?).map_err(|e| e.to_string())
        };
        read().map(Arc::new).map_err(|reason| format!("{}: {reason}", self.path))
    }

    fn read(&self, bytes: &Bytes, metadata: &ArrowReaderMetadata) -> Result<Chunk, ParquetError> {
        let n = self.extent.2;
        let schema = metadata.schema().clone();
        let head = |name: &str| -> Result<Option<ArrayRef>, ParquetError> {
            let Ok(leaf) = schema.index_of(name) else { return Ok(None) };
            if schema.field(leaf).metadata().contains_key(NAME) {
                return Ok(None);
            }
            read_column(bytes, metadata, leaf, n).map(Some)
        };
        let wrong = |name: &str| ParquetError::General(format!("column {name} is not of the type it should be"));
        let time = head("time")?.ok_or_else(|| wrong("time"))?;
        let time = time.as_any().downcast_ref::<TimestampNanosecondArray>().ok_or_else(|| wrong("time"))?;
        let duration = head("duration_ns")?.ok_or_else(|| wrong("duration_ns"))?;
        let duration = duration.as_any().downcast_ref::<Int64Array>().ok_or_else(|| wrong("duration_ns"))?;
        let trace = match head("trace_id")? {
            None => vec![0; 2 * n],
            Some(ids) => {
                let ids = ids.as_any().downcast_ref::<FixedSizeBinaryArray>().ok_or_else(|| wrong("trace_id"))?;
                let mut halves = Vec::with_capacity(2 * n);
                for id in ids.iter() {
                    let id = id.and_then(|id| id.first_chunk::<16>()).map_or(0, |id| u128::from_be_bytes(*id));
                    halves.extend([(id >> 64) as u64, id as u64]);
                }
                halves
            }
        };
        let ids = |name: &str| -> Result<Vec<u64>, ParquetError> {
            let Some(ids) = head(name)? else { return Ok(vec![0; n]) };
            Ok(ids.as_any().downcast_ref::<UInt64Array>().ok_or_else(|| wrong(name))?.values().to_vec())
        };
        let mut chunk = Chunk {
            time: Numbers::Mapped(time.values().clone()),
            duration: Numbers::Owned(duration.iter().map(|nanos| nanos.unwrap_or(-1)).collect()),
            trace: Numbers::Owned(trace),
            span: Numbers::Owned(ids("span_id")?),
            parent: Numbers::Owned(ids("parent_id")?),
            ..Chunk::default()
        };
        for (leaf, field) in schema.fields().iter().enumerate() {
            let Some(name) = field.metadata().get(NAME) else { continue };
            let kind = match field.data_type() {
                DataType::Int64 => Kind::Int,
                DataType::Float64 => Kind::Float,
                DataType::Boolean => Kind::Bool,
                _ => Kind::Str,
            };
            let cold = Leaf { bytes: bytes.clone(), metadata: metadata.clone(), leaf, kind, n_rows: n };
            chunk.columns.push(Column::cold(name.as_str().into(), kind, Arc::new(cold)));
        }
        chunk.index();
        Ok(chunk)
    }
}

fn content(files: &dyn Files, path: &str) -> Result<Bytes, String> {
    /// Hands a mapping on.
    struct Held(arrow_buffer::Buffer);
    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    Ok(Bytes::from_owner(Held(map(files, path)?)))
}

fn read_column(
    bytes: &Bytes,
    metadata: &ArrowReaderMetadata,
    leaf: usize,
    n_rows: usize,
) -> Result<ArrayRef, ParquetError> {
    let mask = ProjectionMask::leaves(metadata.parquet_schema(), [leaf]);
    let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes.clone(), metadata.clone())
        .with_projection(mask)
        .with_batch_size(n_rows.max(1))
        .build()?;
    let mut batches = reader.collect::<Result<Vec<RecordBatch>, _>>()?;
    match (batches.pop(), batches.is_empty()) {
        (Some(batch), true) if batch.num_rows() == n_rows => Ok(batch.column(0).clone()),
        _ => Err(ParquetError::General("not as many rows as the file says".into())),
    }
}

/// One attribute of a cold file.
struct Leaf {
    bytes: Bytes,
    metadata: ArrowReaderMetadata,
    leaf: usize,
    kind: Kind,
    n_rows: usize,
}

impl fmt::Debug for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Leaf({})", self.leaf)
    }
}

impl Load for Leaf {
    fn load(&self) -> Data {
        // The checksum was right, so this is a fault of the program or of the machine; an answer is better than none.
        let absent = || Data::Coded {
            codes: Codes::Sparse { rows: Vec::new().into(), codes: Vec::new().into() },
            dict: Dict::new(Values::Bools, true),
        };
        read_column(&self.bytes, &self.metadata, self.leaf, self.n_rows)
            .ok()
            .and_then(|array| data(&array, self.kind))
            .unwrap_or_else(absent)
    }
}

fn data(array: &ArrayRef, kind: Kind) -> Option<Data> {
    let any = array.as_any();
    match kind {
        Kind::Str => {
            let array = any.downcast_ref::<DictionaryArray<UInt32Type>>()?;
            let values = array.values().as_any().downcast_ref::<StringArray>()?;
            let dict = Dict::new(Values::Strs(std::iter::once(None).chain(values.iter()).collect()), false);
            let keys = array.keys();
            Some(coded(keys.iter().map(|key| key.map_or(0, |key| key + 1)), keys.len() - keys.null_count(), dict))
        }
        Kind::Bool => {
            let array = any.downcast_ref::<BooleanArray>()?;
            let present = array.len() - array.null_count();
            let code = |b: Option<bool>| b.map_or(0, |b| u32::from(b) + 1);
            Some(coded(array.iter().map(code), present, Dict::new(Values::Bools, true)))
        }
        Kind::Int => {
            let array = any.downcast_ref::<Int64Array>()?;
            let value = |row: usize| array.is_valid(row).then(|| ValueRef::Int(array.value(row)));
            let Some((codes, firsts)) = few(array.len(), value) else { return Some(Data::Ints(array.clone())) };
            let values = std::iter::once(None).chain(firsts.iter().map(|row| Some(array.value(*row))));
            let dict = Dict::new(Values::Ints(values.collect()), false);
            Some(coded(codes.into_iter(), array.len() - array.null_count(), dict))
        }
        Kind::Float => {
            let array = any.downcast_ref::<Float64Array>()?;
            let value = |row: usize| array.is_valid(row).then(|| ValueRef::Float(array.value(row)));
            let Some((codes, firsts)) = few(array.len(), value) else { return Some(Data::Floats(array.clone())) };
            let values = std::iter::once(None).chain(firsts.iter().map(|row| Some(array.value(*row))));
            let dict = Dict::new(Values::Floats(values.collect()), false);
            Some(coded(codes.into_iter(), array.len() - array.null_count(), dict))
        }
    }
}

/// Codes of numbers of which there are few, and the first row of each.
fn few<'a>(n_rows: usize, value: impl Fn(usize) -> Option<ValueRef<'a>>) -> Option<(Vec<u32>, Vec<usize>)> {
    let mut lookup: HashTable<(u64, u32)> = HashTable::new();
    let mut firsts = Vec::new();
    let mut codes = Vec::with_capacity(n_rows);
    for row in 0..n_rows {
        let Some(value) = value(row) else {
            codes.push(0);
            continue;
        };
        // 64 bits of a number hash without collisions worth the name, but a wrong value is worth a second look.
        let bits = match value {
            ValueRef::Int(n) => n as u64,
            ValueRef::Float(n) => n.to_bits(),
            _ => return None,
        };
        let hash = value_hash(value);
        let code = match lookup.find(hash, |(held, _)| *held == bits) {
            Some((_, code)) => *code,
            None if firsts.len() >= DISTINCT_MAX => return None,
            None => {
                firsts.push(row);
                let code = firsts.len() as u32;
                let rehash = |(bits, _): &(u64, u32)| match value {
                    ValueRef::Int(_) => value_hash(ValueRef::Int(*bits as i64)),
                    _ => value_hash(ValueRef::Float(f64::from_bits(*bits))),
                };
                lookup.insert_unique(hash, (bits, code), rehash);
                code
            }
        };
        codes.push(code);
    }
    Some((codes, firsts))
}

fn coded(codes: impl Iterator<Item = u32>, present: usize, dict: Dict) -> Data {
    let dense: Vec<u32> = codes.collect();
    let codes = if present * SPARSE_FROM < dense.len() {
        let (rows, codes): (Vec<u32>, Vec<u32>) =
            dense.iter().enumerate().filter(|(_, c)| **c != 0).map(|(r, c)| (r as u32, *c)).unzip();
        Codes::Sparse { rows: rows.into(), codes: codes.into() }
    } else {
        narrow(dense, dict.len())
    };
    Data::Coded { codes, dict }
}
