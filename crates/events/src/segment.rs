//! A sealed chunk as one Arrow IPC file that any Arrow tool reads, and back without a copy.
//!
//! Columns `__time` and `__duration` (i64 ns, -1 is none), `__trace` (two u64, high first, as a fixed-size list), `__span`,
//! `__parent` (u64), then one dictionary column an attribute, keys u8, u16 or u32, place 0 of each dictionary null. An
//! attribute with values of several types is several columns `name`, `name:int`, … with the real name in the metadata.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::types::{ArrowDictionaryKeyType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, DictionaryArray, FixedSizeListArray, Float64Array, Int64Array, PrimitiveArray,
    RecordBatch, StringArray, UInt64Array,
};
use arrow_buffer::{Buffer, ScalarBuffer};
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::{FileDecoder, read_footer_length};
use arrow_ipc::root_as_footer;
use arrow_ipc::writer::FileWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema};

use crate::chunk::{Chunk, Codes, Column, Dict, Kind, Numbers};

const NAME: &str = "seaworthy.name";

fn suffix(kind: Kind) -> &'static str {
    match kind {
        Kind::Str => "",
        Kind::Int => ":int",
        Kind::Float => ":float",
        Kind::Bool => ":bool",
    }
}

fn dict_values(dict: &Dict) -> ArrayRef {
    match dict {
        Dict::Strs(v) => Arc::new(std::iter::once(None).chain(v.iter().map(|s| Some(&**s))).collect::<StringArray>()),
        Dict::Ints(v) => Arc::new(std::iter::once(None).chain(v.iter().map(|n| Some(*n))).collect::<Int64Array>()),
        Dict::Floats(v) => Arc::new(std::iter::once(None).chain(v.iter().map(|n| Some(*n))).collect::<Float64Array>()),
        Dict::Bools => Arc::new(BooleanArray::from(vec![None, Some(false), Some(true)])),
        Dict::MappedStrs(v) => Arc::new(v.clone()),
        Dict::MappedInts(v) => Arc::new(v.clone()),
        Dict::MappedFloats(v) => Arc::new(v.clone()),
    }
}

/// The bytes of the file.
pub(crate) fn write(chunk: &Chunk) -> Result<Vec<u8>, ArrowError> {
    let mut fields = vec![
        Field::new("__time", DataType::Int64, false),
        Field::new("__duration", DataType::Int64, false),
        Field::new("__span", DataType::UInt64, false),
        Field::new("__parent", DataType::UInt64, false),
    ];
    let mut arrays: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(chunk.time.to_vec())),
        Arc::new(Int64Array::from(chunk.duration.to_vec())),
        Arc::new(UInt64Array::from(chunk.span.to_vec())),
        Arc::new(UInt64Array::from(chunk.parent.to_vec())),
    ];
    let half = Arc::new(Field::new("half", DataType::UInt64, false));
    fields.push(Field::new("__trace", DataType::FixedSizeList(half.clone(), 2), false));
    let halves = Arc::new(UInt64Array::from(chunk.trace.to_vec()));
    arrays.push(Arc::new(FixedSizeListArray::try_new(half, 2, halves, None)?));
    for column in &chunk.columns {
        let values = dict_values(&column.dict);
        fn keyed<K: ArrowDictionaryKeyType>(
            keys: &ScalarBuffer<K::Native>,
            values: ArrayRef,
        ) -> Result<ArrayRef, ArrowError> {
            let keys = PrimitiveArray::<K>::new(keys.clone(), None);
            Ok(Arc::new(DictionaryArray::<K>::try_new(keys, values)?))
        }
        let array = match &column.codes {
            Codes::Dense8(v) => keyed::<UInt8Type>(v, values)?,
            Codes::Dense16(v) => keyed::<UInt16Type>(v, values)?,
            Codes::Dense32(v) => keyed::<UInt32Type>(v, values)?,
            Codes::Sparse { .. } => return Err(ArrowError::InvalidArgumentError("not a sealed chunk".into())),
        };
        let name = format!("{}{}", column.name, suffix(column.kind));
        let metadata = HashMap::from([(NAME.to_owned(), column.name.to_string())]);
        fields.push(Field::new(name, array.data_type().clone(), true).with_metadata(metadata));
        arrays.push(array);
    }
    let schema = Arc::new(Schema::new(fields));
    let batch = RecordBatch::try_new(schema.clone(), arrays)?;
    let mut bytes = Vec::new();
    let mut writer = FileWriter::try_new(&mut bytes, &schema)?;
    writer.write(&batch)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

fn damaged(what: &str) -> ArrowError {
    ArrowError::IpcError(format!("not one of our segments: {what}"))
}

/// Reads a file that stays where it is: columns point into `buffer`.
pub(crate) fn read(buffer: Buffer) -> Result<Chunk, ArrowError> {
    let len = buffer.len();
    let trailer = len.checked_sub(10).ok_or_else(|| damaged("too short"))?;
    let tail: [u8; 10] = buffer[trailer..].try_into().map_err(|_| damaged("too short"))?;
    let footer_len = read_footer_length(tail)?;
    let start = trailer.checked_sub(footer_len).ok_or_else(|| damaged("footer"))?;
    let footer = root_as_footer(&buffer[start..trailer]).map_err(|e| damaged(&e.to_string()))?;
    let schema = fb_to_schema(footer.schema().ok_or_else(|| damaged("no schema"))?);
    let mut decoder = FileDecoder::new(Arc::new(schema), footer.version());
    let block_bytes = |block: &arrow_ipc::Block| {
        let size = block.bodyLength() as usize + block.metaDataLength() as usize;
        let offset = block.offset() as usize;
        if offset.checked_add(size).is_none_or(|end| end > len) {
            return Err(damaged("a block lies outside the file"));
        }
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
    let batch = decoder.read_record_batch(block, &block_bytes(block)?)?.ok_or_else(|| damaged("no rows"))?;
    chunk(&batch)
}

fn chunk(batch: &RecordBatch) -> Result<Chunk, ArrowError> {
    let longs = |name: &str| -> Result<Numbers<i64>, ArrowError> {
        let array = batch.column_by_name(name).and_then(|a| a.as_any().downcast_ref::<Int64Array>());
        Ok(Numbers::Mapped(array.ok_or_else(|| damaged(name))?.values().clone()))
    };
    let spans = |name: &str| -> Result<Numbers<u64>, ArrowError> {
        let array = batch.column_by_name(name).and_then(|a| a.as_any().downcast_ref::<UInt64Array>());
        Ok(Numbers::Mapped(array.ok_or_else(|| damaged(name))?.values().clone()))
    };
    let trace = batch.column_by_name("__trace").and_then(|a| a.as_any().downcast_ref::<FixedSizeListArray>());
    let trace = trace.and_then(|list| list.values().as_any().downcast_ref::<UInt64Array>());
    let mut chunk = Chunk {
        time: longs("__time")?,
        duration: longs("__duration")?,
        trace: Numbers::Mapped(trace.ok_or_else(|| damaged("__trace"))?.values().clone()),
        span: spans("__span")?,
        parent: spans("__parent")?,
        ..Chunk::default()
    };
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let Some(name) = field.metadata().get(NAME) else { continue };
        let (codes, values) = codes(array).ok_or_else(|| damaged(name))?;
        let (kind, dict) = dict(&values).ok_or_else(|| damaged(name))?;
        chunk.columns.push(Column { name: name.as_str().into(), kind, codes, dict });
    }
    chunk.index_columns();
    Ok(chunk)
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

fn dict(values: &ArrayRef) -> Option<(Kind, Dict)> {
    let any = values.as_any();
    if let Some(a) = any.downcast_ref::<StringArray>() {
        return Some((Kind::Str, Dict::MappedStrs(a.clone())));
    }
    if let Some(a) = any.downcast_ref::<Int64Array>() {
        return Some((Kind::Int, Dict::MappedInts(a.clone())));
    }
    if let Some(a) = any.downcast_ref::<Float64Array>() {
        return Some((Kind::Float, Dict::MappedFloats(a.clone())));
    }
    any.downcast_ref::<BooleanArray>().map(|_| (Kind::Bool, Dict::Bools))
}
