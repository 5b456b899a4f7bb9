//! A merged chunk as Arrow IPC files that any Arrow tool reads, and back without a copy.
//!
//! The main file has one row an event: columns `__time` and `__duration` (i64 ns, -1 is none), `__trace` (two u64, high first, as a
//! fixed-size list), `__span`, `__parent` (u64; these three only if some row has one), then one column an attribute: a dictionary
//! with keys u8, u16 or u32 whose place 0 is null, or plain nullable i64 or f64 for numbers that are mostly distinct. An
//! attribute with values of several types is several columns `name`, `name:int`, … with the real name in the metadata.
//!
//! Attributes that few rows have are in a second file, `….sparse.arrow`: one row an attribute, with `name`, `kind` (0 text, 1 whole
//! number, 2 number, 3 truth), the lists `rows` and `codes`, and the values by code in `strs`, `ints` or `floats`. Its CRC-32C is in the
//! main file's metadata.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::{ArrowDictionaryKeyType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Float64Array, Int64Array, ListArray,
    PrimitiveArray, RecordBatch, StringArray, UInt8Array, UInt32Array, UInt64Array,
};
use arrow_buffer::{Buffer, OffsetBuffer, ScalarBuffer};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::chunk::{Chunk, Numbers};
use crate::column::{Codes, Column, Data, Dict, Kind, Values};

const NAME: &str = "seaworthy.name";
/// How dictionaries are ordered; files without it are of the first version, which had another hash.
const ORDER: &str = "seaworthy.order";
const ORDER_XXH3: &str = "xxh3";
/// The checksum of the second file, if there is one.
const SPARSE: &str = "seaworthy.sparse";

/// A segment's bytes.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) main: Vec<u8>,
    pub(crate) sparse: Option<Vec<u8>>,
}

pub(crate) fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Str => "",
        Kind::Int => ":int",
        Kind::Float => ":float",
        Kind::Bool => ":bool",
    }
}

pub(crate) fn dict_values(dict: &Dict) -> ArrayRef {
    match dict.values() {
        Values::Strs(v) => Arc::new(v.clone()),
        Values::Ints(v) => Arc::new(v.clone()),
        Values::Floats(v) => Arc::new(v.clone()),
        Values::Bools => Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)])),
    }
}

fn keyed<K: ArrowDictionaryKeyType>(keys: &ScalarBuffer<K::Native>, values: ArrayRef) -> Result<ArrayRef, ArrowError> {
    let keys = PrimitiveArray::<K>::new(keys.clone(), None);
    Ok(Arc::new(DictionaryArray::<K>::try_new(keys, values)?))
}

/// The bytes of the files.
pub(crate) fn write(chunk: &Chunk) -> Result<Written, ArrowError> {
    let sparse = write_sparse(chunk)?;
    let mut fields =
        vec![Field::new("__time", DataType::Int64, false), Field::new("__duration", DataType::Int64, false)];
    let mut arrays: Vec<ArrayRef> =
        vec![Arc::new(Int64Array::from(chunk.time.to_vec())), Arc::new(Int64Array::from(chunk.duration.to_vec()))];
    for (name, ids) in [("__span", &chunk.span), ("__parent", &chunk.parent)] {
        if ids.iter().any(|id| *id != 0) {
            fields.push(Field::new(name, DataType::UInt64, false));
            arrays.push(Arc::new(UInt64Array::from(ids.to_vec())));
        }
    }
    if chunk.trace.iter().any(|half| *half != 0) {
        let half = Arc::new(Field::new("half", DataType::UInt64, false));
        fields.push(Field::new("__trace", DataType::FixedSizeList(half.clone(), 2), false));
        let halves = Arc::new(UInt64Array::from(chunk.trace.to_vec()));
        arrays.push(Arc::new(FixedSizeListArray::try_new(half, 2, halves, None)?));
    }
    for column in &chunk.columns {
        let array = match column.data() {
            Data::Ints(v) => Arc::new(v.clone()) as ArrayRef,
            Data::Floats(v) => Arc::new(v.clone()),
            Data::Coded { codes: Codes::Sparse { .. }, .. } => continue,
            Data::Coded { codes: Codes::Dense8(v), dict } => keyed::<UInt8Type>(v, dict_values(dict))?,
            Data::Coded { codes: Codes::Dense16(v), dict } => keyed::<UInt16Type>(v, dict_values(dict))?,
            Data::Coded { codes: Codes::Dense32(v), dict } => keyed::<UInt32Type>(v, dict_values(dict))?,
        };
        let name = format!("{}{}", column.name, suffix(column.kind));
        let metadata = HashMap::from([(NAME.to_owned(), column.name.to_string())]);
        fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    let mut metadata = HashMap::from([(ORDER.to_owned(), ORDER_XXH3.to_owned())]);
    if let Some(bytes) = &sparse {
        metadata.insert(SPARSE.to_owned(), format!("{:08x}", crc32c::crc32c(bytes)));
    }
    Ok(Written { main: file(Schema::new_with_metadata(fields, metadata), arrays)?, sparse })
}

fn file(schema: Schema, arrays: Vec<ArrayRef>) -> Result<Vec<u8>, ArrowError> {
    let schema = Arc::new(schema);
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

fn list<'a>(lists: impl Iterator<Item = &'a [u32]> + Clone) -> Result<ArrayRef, ArrowError> {
    let item = Arc::new(Field::new("item", DataType::UInt32, false));
    let offsets = OffsetBuffer::from_lengths(lists.clone().map(<[u32]>::len));
    let values = Arc::new(UInt32Array::from(lists.flatten().copied().collect::<Vec<u32>>()));
    Ok(Arc::new(ListArray::try_new(item, offsets, values, None)?))
}

fn write_sparse(chunk: &Chunk) -> Result<Option<Vec<u8>>, ArrowError> {
    let rare: Vec<(&Column, &ScalarBuffer<u32>, &ScalarBuffer<u32>, &Dict)> = chunk
        .columns
        .iter()
        .filter_map(|column| match column.data() {
            Data::Coded { codes: Codes::Sparse { rows, codes }, dict } => Some((column, rows, codes, dict)),
            _ => None,
        })
        .collect();
    if rare.is_empty() {
        return Ok(None);
    }
    let names = StringArray::from_iter_values(rare.iter().map(|(column, ..)| &*column.name));
    let kinds: UInt8Array = rare.iter().map(|(column, ..)| column.kind.number()).collect::<Vec<u8>>().into();
    let mut strs: (Vec<usize>, Vec<Option<String>>) = Default::default();
    let mut ints: (Vec<usize>, Vec<i64>) = Default::default();
    let mut floats: (Vec<usize>, Vec<f64>) = Default::default();
    for (.., dict) in &rare {
        let len = |wanted: bool| if wanted { dict.len() } else { 0 };
        match dict.values() {
            Values::Strs(v) => strs.1.extend(v.iter().skip(1).map(|text| text.map(str::to_owned))),
            Values::Ints(v) => ints.1.extend(v.values().iter().skip(1)),
            Values::Floats(v) => floats.1.extend(v.values().iter().skip(1)),
            Values::Bools => {}
        }
        strs.0.push(len(matches!(dict.values(), Values::Strs(_))));
        ints.0.push(len(matches!(dict.values(), Values::Ints(_))));
        floats.0.push(len(matches!(dict.values(), Values::Floats(_))));
    }
    let values = |lens: Vec<usize>, child: ArrayRef| -> Result<ArrayRef, ArrowError> {
        let item = Arc::new(Field::new("item", child.data_type().clone(), true));
        Ok(Arc::new(ListArray::try_new(item, OffsetBuffer::from_lengths(lens), child, None)?))
    };
    let arrays: Vec<ArrayRef> = vec![
        Arc::new(names),
        Arc::new(kinds),
        list(rare.iter().map(|(_, rows, ..)| &rows[..]))?,
        list(rare.iter().map(|(_, _, codes, _)| &codes[..]))?,
        values(strs.0, Arc::new(StringArray::from(strs.1)))?,
        values(ints.0, Arc::new(Int64Array::from(ints.1)))?,
        values(floats.0, Arc::new(Float64Array::from(floats.1)))?,
    ];
    let names = ["name", "kind", "rows", "codes", "strs", "ints", "floats"];
    let fields: Vec<Field> =
        names.iter().zip(&arrays).map(|(name, array)| Field::new(*name, array.data_type().clone(), false)).collect();
    file(Schema::new(fields), arrays).map(Some)
}

pub(crate) fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(format!("not one of our segments: {what}"))
}

/// The one record batch of a file that stays where it is: arrays point into `buffer`.
fn batch(buffer: &Buffer) -> Result<RecordBatch, ArrowError> {
    let len = buffer.len();
    let trailer = len.checked_sub(10).ok_or_else(|| damaged("too short"))?;
    let tail: [u8; 10] = buffer[trailer..].try_into().map_err(|_| damaged("too short"))?;
    let footer_len = read_footer_length(tail)?;
    let start = trailer.checked_sub(footer_len).ok_or_else(|| damaged("footer"))?;
    let footer = root_as_footer(&buffer[start..trailer]).map_err(|e| damaged(&e.to_string()))?;
    let schema = fb_to_schema(footer.schema().ok_or_else(|| damaged("no schema"))?);
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let block_bytes = |block: &arrow_ipc::Block| {
        let size = usize::try_from(block.bodyLength()).ok().zip(usize::try_from(block.metaDataLength()).ok());
        let size = size.and_then(|(body, metadata)| body.checked_add(metadata));
        let offset = usize::try_from(block.offset()).ok();
        let Some((size, offset)) =
            size.zip(offset).filter(|(size, offset)| offset.checked_add(*size).is_some_and(|end| end <= len))
        else {
            return Err(damaged("a block lies outside the file"));
        };
        Ok(buffer.slice_with_length(offset, size))
    };
    for block in footer.dictionaries().iter().flatten() {
        decoder.read_dictionary(block, &block_bytes(block)?)?;
    }
    let blocks = footer.recordBatches().ok_or_else(|| damaged("no rows"))?;
    if blocks.len() != 1 {
        return Err(damaged("expected one record batch"));
    }
    let block = blocks.get(0);
    decoder.read_record_batch(block, &block_bytes(block)?)?.ok_or_else(|| damaged("no rows"))
}

/// Reads a segment; `sparse` gives the second file's bytes if there is one.
pub(crate) fn read(main: &Buffer, sparse: impl FnOnce() -> Result<Buffer, String>) -> Result<Chunk, ArrowError> {
    let batch = batch(main)?;
    let longs = |name: &str| -> Result<Numbers<i64>, ArrowError> {
        let array = batch.column_by_name(name).and_then(|a| a.as_any().downcast_ref::<Int64Array>());
        Ok(Numbers::Mapped(array.ok_or_else(|| damaged(name))?.values().clone()))
    };
    let n_rows = batch.num_rows();
    let spans = |name: &str| -> Result<Numbers<u64>, ArrowError> {
        let Some(array) = batch.column_by_name(name) else { return Ok(Numbers::Owned(vec![0; n_rows])) };
        let array = array.as_any().downcast_ref::<UInt64Array>().ok_or_else(|| damaged(name))?;
        Ok(Numbers::Mapped(array.values().clone()))
    };
    let trace = match batch.column_by_name("__trace") {
        None => Numbers::Owned(vec![0; 2 * n_rows]),
        Some(list) => {
            let list = list.as_any().downcast_ref::<FixedSizeListArray>();
            let halves = list.and_then(|list| list.values().as_any().downcast_ref::<UInt64Array>());
            Numbers::Mapped(halves.ok_or_else(|| damaged("__trace"))?.values().clone())
        }
    };
    let mut chunk = Chunk {
        time: longs("__time")?,
        duration: longs("__duration")?,
        trace,
        span: spans("__span")?,
        parent: spans("__parent")?,
        ..Chunk::default()
    };
    let schema = batch.schema();
    let ordered = schema.metadata().get(ORDER).is_some_and(|order| order == ORDER_XXH3);
    for (field, array) in schema.fields().iter().zip(batch.columns()) {
        let Some(name) = field.metadata().get(NAME) else { continue };
        let any = array.as_any();
        let (kind, data) = if let Some(v) = any.downcast_ref::<Int64Array>() {
            (Kind::Int, Data::Ints(v.clone()))
        } else if let Some(v) = any.downcast_ref::<Float64Array>() {
            (Kind::Float, Data::Floats(v.clone()))
        } else {
            let (codes, values) = codes(array).ok_or_else(|| damaged(name))?;
            let (kind, values) = values_of(&values).ok_or_else(|| damaged(name))?;
            (kind, Data::Coded { codes, dict: Dict::new(values, ordered) })
        };
        chunk.columns.push(Column::new(name.as_str().into(), kind, data));
    }
    if let Some(crc) = schema.metadata().get(SPARSE) {
        let bytes = sparse().map_err(|e| damaged(&format!("its second file, .sparse.arrow: {e}")))?;
        if format!("{:08x}", crc32c::crc32c(&bytes)) != *crc {
            return Err(damaged("its second file, .sparse.arrow, does not match its checksum"));
        }
        read_sparse(&self::batch(&bytes)?, ordered, &mut chunk.columns)?;
    }
    chunk.index();
    Ok(chunk)
}

fn read_sparse(batch: &RecordBatch, ordered: bool, into: &mut Vec<Column>) -> Result<(), ArrowError> {
    fn of<'a, T: 'static>(batch: &'a RecordBatch, name: &str) -> Result<&'a T, ArrowError> {
        batch.column_by_name(name).and_then(|a| a.as_any().downcast_ref::<T>()).ok_or_else(|| damaged(name))
    }
    let names: &StringArray = of(batch, "name")?;
    let kinds: &UInt8Array = of(batch, "kind")?;
    let longs = |name: &str, row: usize| -> Result<ScalarBuffer<u32>, ArrowError> {
        let list: &ListArray = of(batch, name)?;
        let list = list.value(row);
        Ok(list.as_any().downcast_ref::<UInt32Array>().ok_or_else(|| damaged(name))?.values().clone())
    };
    for row in 0..batch.num_rows() {
        let kind = Kind::from_number(kinds.value(row)).ok_or_else(|| damaged("kind"))?;
        let values = |name: &str| -> Result<ArrayRef, ArrowError> { Ok(of::<ListArray>(batch, name)?.value(row)) };
        let values = match kind {
            Kind::Str => {
                let values = values("strs")?;
                let values = values.as_any().downcast_ref::<StringArray>().ok_or_else(|| damaged("strs"))?;
                Values::Strs(std::iter::once(None).chain(values.iter()).collect())
            }
            Kind::Int => {
                let values = values("ints")?;
                let values = values.as_any().downcast_ref::<Int64Array>().ok_or_else(|| damaged("ints"))?;
                Values::Ints(std::iter::once(None).chain(values.iter()).collect())
            }
            Kind::Float => {
                let values = values("floats")?;
                let values = values.as_any().downcast_ref::<Float64Array>().ok_or_else(|| damaged("floats"))?;
                Values::Floats(std::iter::once(None).chain(values.iter()).collect())
            }
            Kind::Bool => Values::Bools,
        };
        let codes = Codes::Sparse { rows: longs("rows", row)?, codes: longs("codes", row)? };
        let data = Data::Coded { codes, dict: Dict::new(values, ordered) };
        into.push(Column::new(names.value(row).into(), kind, data));
    }
    Ok(())
}

fn codes(array: &ArrayRef) -> Option<(Codes, ArrayRef)> {
    let any = array.as_any();
    if let Some(a) = any.downcast_ref::<DictionaryArray<UInt8Type>>() {
        return Some((Codes::Dense8(a.keys().values().clone()), a.values().clone()));
    }
    if let Some(a) = any.downcast_ref::<DictionaryArray<UInt16Type>>() {
        return Some((Codes::Dense16(a.keys().values().clone()), a.values().clone()));
    }
    let a = any.downcast_ref::<DictionaryArray<UInt32Type>>()?;
    Some((Codes::Dense32(a.keys().values().clone()), a.values().clone()))
}

fn values_of(values: &ArrayRef) -> Option<(Kind, Values)> {
    let any = values.as_any();
    if let Some(a) = any.downcast_ref::<StringArray>() {
        return Some((Kind::Str, Values::Strs(a.clone())));
    }
    if let Some(a) = any.downcast_ref::<Int64Array>() {
        return Some((Kind::Int, Values::Ints(a.clone())));
    }
    if let Some(a) = any.downcast_ref::<Float64Array>() {
        return Some((Kind::Float, Values::Floats(a.clone())));
    }
    any.downcast_ref::<BooleanArray>().map(|_| (Kind::Bool, Values::Bools))
}
