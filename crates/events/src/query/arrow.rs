//! An answer as an Arrow stream, for whoever goes on calculating with it.

use std::sync::Arc;

use arrow_array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, Field, Schema};
use rows::Value;

use super::{Answer, Cell};

impl Answer {
    /// The lines as one batch of an Arrow IPC stream: times as timestamps, a column of one type as that type, whole and other numbers
    /// together as numbers, all else as text; a histogram is text (JSON).
    pub fn arrow_stream(&self) -> Result<Vec<u8>, ArrowError> {
        let (mut fields, mut arrays) = (Vec::new(), Vec::new());
        for (place, column) in self.columns.iter().enumerate() {
            let cells: Vec<&Cell> = self.rows.iter().filter_map(|row| row.get(place)).collect();
            let array = array(&cells);
            fields.push(Field::new(&column.name, array.data_type().clone(), true));
            arrays.push(array);
        }
        let schema = Arc::new(Schema::new(fields));
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &schema)?;
        if !arrays.is_empty() {
            writer.write(&RecordBatch::try_new(schema.clone(), arrays)?)?;
        }
        writer.finish()?;
        drop(writer);
        Ok(bytes)
    }
}

fn array(cells: &[&Cell]) -> ArrayRef {
    let all = |is: &dyn Fn(&Cell) -> bool| cells.iter().all(|cell| matches!(cell, Cell::None) || is(cell));
    if all(&|cell| matches!(cell, Cell::Time(_))) && cells.iter().any(|cell| matches!(cell, Cell::Time(_))) {
        let times = cells.iter().map(|cell| if let Cell::Time(time) = cell { Some(time.nanos()) } else { None });
        return Arc::new(TimestampNanosecondArray::from(times.collect::<Vec<_>>()).with_timezone("UTC"));
    }
    if all(&|cell| matches!(cell, Cell::Value(Value::Int(_)))) {
        let ints = cells.iter().map(|cell| if let Cell::Value(Value::Int(n)) = cell { Some(*n) } else { None });
        return Arc::new(ints.collect::<Int64Array>());
    }
    if all(&|cell| cell.number().is_some()) {
        return Arc::new(cells.iter().map(|cell| cell.number()).collect::<Float64Array>());
    }
    if all(&|cell| matches!(cell, Cell::Value(Value::Bool(_)))) {
        let bools = cells.iter().map(|cell| if let Cell::Value(Value::Bool(b)) = cell { Some(*b) } else { None });
        return Arc::new(bools.collect::<BooleanArray>());
    }
    Arc::new(cells.iter().map(|cell| cell.text()).collect::<StringArray>())
}

#[cfg(test)]
mod tests;
