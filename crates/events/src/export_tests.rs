//! Tables for other engines: the same rows from every form, only what is wanted, types side by side.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{Array, RecordBatch};
use files::{Disk, Files};
use rows::{Comparison, Condition, Row, Test, Value};
use vocab::Timestamp;

use crate::*;

const T0: i64 = 1_764_000_000_000_000_000;

fn at(second: i64) -> Timestamp {
    Timestamp::from_nanos(T0 + second * 1_000_000_000)
}

fn row(n: i64) -> Row {
    let mut row = Row { time: at(n), ..Row::default() }
        .with("service.name", ["web", "api"][n as usize % 2])
        .with("n", n)
        .with("unique", format!("text number {n}"))
        .with("time", "not a time")
        .with("n:int", n % 3 == 0);
    if n % 4 != 0 {
        (row.duration_nanos, row.trace, row.span, row.parent) = (Some(n * 1_500_000), n as u128, n as u64, 1);
    }
    if n % 50 == 0 {
        row.set("rare", "here");
    }
    match n % 4 {
        0 => row.set("clash", n),
        1 => row.set("clash", n as f64 + 0.5),
        2 => row.set("clash", format!("{n}")),
        _ => row.set("clash", true),
    }
    // Whole numbers and others.
    match n % 2 {
        0 => row.set("share", n),
        _ => row.set("share", n as f64 / 4.0),
    }
    row
}

fn read(table: &Arc<Table>, columns: &[&str], condition: Condition) -> Vec<RecordBatch> {
    let (from, to) = table.time();
    let columns = columns.iter().map(|name| table.schema().index_of(name).unwrap()).collect();
    let wanted = Arc::new(Wanted { columns, condition, from, to });
    let chunks = table.chunks(from, to).into_iter();
    chunks.flat_map(|(chunk, _)| table.read(chunk, &wanted).unwrap()).map(Result::unwrap).collect()
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}

fn is(field: &str, value: impl Into<Value>) -> Condition {
    Condition::Test(Test { field: field.into(), comparison: Comparison::Equal(value.into()) })
}

fn check(table: Table) {
    let table = Arc::new(table);
    let names: Vec<&str> = table.schema().fields().iter().map(|field| field.name().as_str()).collect();
    let expected = [
        "time",
        "duration_ms",
        "trace_id",
        "span_id",
        "parent_id",
        "clash",
        "n",
        "n:int",
        "rare",
        "service.name",
        "share",
        "time:attribute",
        "unique",
        "clash:float",
        "clash:bool",
    ];
    assert_eq!(names, expected);
    let all = read(&table, &expected, Condition::All);
    let mut seen = 0;
    for batch in &all {
        let text = |name: &str| batch.column_by_name(name).unwrap().as_string_view().clone();
        let number = |name: &str| batch.column_by_name(name).unwrap().as_primitive::<Float64Type>().clone();
        let bool = |name: &str| batch.column_by_name(name).unwrap().as_boolean().clone();
        let times = batch.column_by_name("time").unwrap().as_primitive::<TimestampNanosecondType>();
        let ints = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        for place in 0..batch.num_rows() {
            let n = ints.value(place);
            seen += n;
            let row = row(n);
            let shown = |name: &str| text(name).is_valid(place).then(|| Value::from(text(name).value(place)));
            assert_eq!(times.value(place), row.time.nanos());
            let trace =
                [("trace_id", "trace.trace_id"), ("span_id", "trace.span_id"), ("parent_id", "trace.parent_id")];
            for (column, field) in
                trace.into_iter().chain([("unique", "unique"), ("service.name", "service.name"), ("rare", "rare")])
            {
                assert_eq!(shown(column), row.field(field), "{column} of {n}");
            }
            let duration = number("duration_ms");
            assert_eq!(duration.is_valid(place).then(|| Value::Float(duration.value(place))), row.field("duration_ms"));
            assert_eq!(number("share").value(place), if n % 2 == 0 { n as f64 } else { n as f64 / 4.0 });
            assert_eq!((shown("time:attribute"), bool("n:int").value(place)), (Some("not a time".into()), n % 3 == 0));
            let clash = (shown("clash"), number("clash:float").is_valid(place), bool("clash:bool").is_valid(place));
            assert_eq!(clash, ((n % 4 == 2).then(|| format!("{n}").into()), n % 4 < 2, n % 4 == 3));
        }
    }
    assert_eq!((count(&all), seen), (300, (0..300).sum()));
    // Only what may match is given.
    assert_eq!(count(&read(&table, &["n"], is("service.name", "web"))), 150);
    assert_eq!(count(&read(&table, &[], is("rare", "here"))), 6);
    assert_eq!(count(&read(&table, &["time"], is("service.name", "nowhere"))), 0);
    assert_eq!(count(&read(&table, &["time"], is("trace_id", format!("{:032x}", 7)))), 1);
    let both = Condition::And(vec![is("n", 6_i64), is("clash", "6")]);
    assert_eq!(count(&read(&table, &["unique"], both)), 1);
    // What cannot be told excludes nothing.
    assert_eq!(count(&read(&table, &[], Condition::Not(Box::new(is("n", 6_i64))))), 300);
    assert_eq!(count(&read(&table, &[], is("nothing", 1_i64))), 300);
}

/// Guarantees: what another engine reads is what was stored, whatever form it has by now.
#[test]
fn a_table_is_the_same_from_memory_segments_and_parquet() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Disk::open(dir.path()).unwrap());
    let store = Store::open(files, "events", |_, _, _| ()).unwrap();
    let put = |range: std::ops::Range<i64>| {
        store.append(at(0), &[range.map(row).collect::<Vec<Row>>().into()]).unwrap();
    };
    let whole = || store.table(Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    put(0..100);
    store.flush(u64::MAX, true).unwrap();
    put(100..300);
    check(whole());
    store.flush(u64::MAX, true).unwrap();
    check(whole());
    let keep = Keep { cold_after: Some(vocab::Millis::from_secs(1)), ..Keep::default() };
    while store.tend(&keep, at(100_000)).unwrap() {}
    check(whole());
}

/// Guarantees: a time is cut to the row.
#[test]
fn only_the_rows_of_the_time_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Disk::open(dir.path()).unwrap());
    let store = Store::open(files, "events", |_, _, _| ()).unwrap();
    store.append(at(0), &[(0..20_000).map(row).collect::<Vec<Row>>().into()]).unwrap();
    let table = Arc::new(store.table(at(10), at(12_000)));
    let batches = read(&table, &["n", "unique"], Condition::All);
    assert_eq!((count(&batches), batches.len()), (11_990, 2));
    assert_eq!(batches[0].column(0).as_primitive::<Int64Type>().value(0), 10);
    assert_eq!(table.chunks(at(30_000), at(40_000)), []);
    let wanted = Arc::new(Wanted { columns: vec![0], condition: Condition::All, from: at(0), to: at(11) });
    assert_eq!(table.read(0, &wanted).unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
}
