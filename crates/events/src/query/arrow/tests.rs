//! An answer read back by Arrow's own reader.

use arrow_ipc::reader::StreamReader;
use arrow_schema::DataType;
use rows::Value;
use vocab::Timestamp;

use crate::query::{Answer, Bucket, Cell, Column, ColumnKind};

#[test]
fn columns_have_the_type_of_their_cells() {
    let column = |name: &str| Column { name: name.to_owned(), kind: ColumnKind::Key };
    let bucket = Bucket { low: 1.0, high: 2.0, count: 3.0 };
    let value = |value: Value| Cell::Value(value);
    let answer = Answer {
        columns: ["t", "int", "mixed", "text", "flag", "histogram"].map(column).to_vec(),
        rows: vec![
            vec![
                Cell::Time(Timestamp::from_nanos(5)),
                value(Value::Int(1)),
                value(Value::Int(1)),
                value(Value::Str("a".into())),
                value(Value::Bool(true)),
                Cell::Buckets(vec![bucket]),
            ],
            vec![Cell::None, Cell::None, value(Value::Float(1.5)), value(Value::Int(7)), Cell::None, Cell::None],
        ],
        ..Answer::default()
    };
    let bytes = answer.arrow_stream().unwrap();
    let batch = StreamReader::try_new(&bytes[..], None).unwrap().next().unwrap().unwrap();
    let types: Vec<String> = batch.schema().fields().iter().map(|f| f.data_type().to_string()).collect();
    let expected = [DataType::Int64, DataType::Float64, DataType::Utf8, DataType::Boolean, DataType::Utf8];
    assert!(types[0].starts_with("Timestamp"), "{types:?}");
    assert_eq!(types[1..], expected.map(|t| t.to_string()));
    let text = arrow_array::cast::AsArray::as_string::<i32>(batch.column(3));
    assert_eq!((text.value(0), text.value(1), batch.num_rows()), ("a", "7", 2));
    assert!(StreamReader::try_new(&Answer::default().arrow_stream().unwrap()[..], None).unwrap().next().is_none());
}
