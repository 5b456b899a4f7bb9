//! "What is different about the slow ones", over all attributes, beside DuckDB on the same rows.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use arrow_ipc::reader::FileReader;
use arrow_schema::DataType;
use events::query::Calculation;
use events::{Query, Store};
use files::Disk;
use rows::{Filter, Row, Value};
use vocab::Timestamp;

use crate::Args;
use crate::figures::{Figures, median};

const RUNS: usize = 7;

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn rows_of(batch: &RecordBatch) -> Result<Vec<Row>> {
    let mut rows = vec![Row::default(); batch.num_rows()];
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let name = field.name();
        for (place, row) in rows.iter_mut().enumerate() {
            if column.is_null(place) {
                continue;
            }
            let value = match column.data_type() {
                DataType::Utf8 => Value::Str(column.as_string::<i32>().value(place).to_owned()),
                DataType::Int64 => Value::Int(column.as_primitive::<Int64Type>().value(place)),
                DataType::Float64 => Value::Float(column.as_primitive::<Float64Type>().value(place)),
                DataType::Boolean => Value::Bool(column.as_boolean().value(place)),
                other => bail!("column {name} has type {other}"),
            };
            match (name.as_str(), value) {
                ("ts", Value::Int(nanos)) => row.time = Timestamp::from_nanos(nanos),
                ("duration_ms", Value::Float(ms)) => row.duration_nanos = Some((ms * 1e6) as i64),
                ("trace_id", Value::Str(id)) => row.trace = u128::from_str_radix(&id, 16)?,
                // A column of the table, a new attribute of the row: no search for an old one.
                (name, value) => row.attributes.push((name.to_owned(), value)),
            }
        }
    }
    Ok(rows)
}

fn directory_bytes(dir: &Path) -> Result<u64> {
    let mut total = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        total += if entry.file_type()?.is_dir() { directory_bytes(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(total)
}

/// Our own few rows, for `--small`: the slow ones are one build in one region.
fn small_rows() -> Vec<Row> {
    (0..4_000_i64)
        .map(|n| {
            let (build, region) = (format!("b{}", n % 7), format!("reg{}", n % 5));
            let slow = n % 7 == 3 && n % 5 == 1;
            let time = Timestamp::from_nanos(1_764_000_000_000_000_000 + n * 1_000_000);
            Row { time, duration_nanos: Some(if slow { 2_000_000_000 } else { 20_000_000 }), ..Row::default() }
                .with("build_id", build)
                .with("region", region)
                .with("host", format!("h{}", n % 40))
        })
        .collect()
}

/// Measures.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let dir = tempfile::tempdir_in(&args.out)?;
    let store = Store::open(Arc::new(Disk::open(dir.path())?), "events", |_, _, _| {})?;
    let received = Timestamp::from_nanos(1_764_100_000_000_000_000);
    let parquet = std::path::absolute(args.out.join(format!("events-{}.parquet", args.events)))?;
    if args.small {
        store.append(received, &[small_rows().into()])?;
    } else {
        let generator = args.generator.join("generate_wide_events.py");
        if !generator.is_file() {
            println!("comparison: skipped, no {} (name its directory with --generator)", generator.display());
            return Ok(());
        }
        let arrow = parquet.with_extension("arrow");
        if !arrow.is_file() {
            println!("making {} wide events", args.events);
            run(Command::new(&args.python).arg(&generator).arg(args.events.to_string()).arg(&parquet))?;
            run(Command::new(&args.python).arg("bench/peers.py").args([&parquet, &arrow]))?;
        }
        let mut spent = 0.0;
        for batch in FileReader::try_new(File::open(&arrow)?, None)? {
            let rows = rows_of(&batch?)?;
            let began = Instant::now();
            store.append(received, &[rows.into()])?;
            if store.wants_flush() {
                store.flush(u64::MAX, false)?;
            }
            spent += began.elapsed().as_secs_f64();
        }
        let rows = store.rows();
        figures.ours(
            "events, rows of 52 attributes into the store, one thread, with log and segments",
            format!("{:.0} rows/s", rows as f64 / spent),
        );
    }
    store.flush(u64::MAX, true)?;
    let rows = store.rows();
    let bytes = directory_bytes(&dir.path().join("events"))?;
    figures.ours("events, hot segments on disk", format!("{:.0} bytes an event", bytes as f64 / rows as f64));

    let slow = Filter::parse("duration_ms > 1000").map_err(|e| anyhow!("{e}"))?;
    let (from, to) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    let mut took = Vec::new();
    let mut found = None;
    for _ in 0..=RUNS {
        let began = Instant::now();
        found = Some(store.compare(&slow, None, from, to)?);
        took.push(began.elapsed().as_secs_f64());
    }
    // The first run pages the segments in.
    let ours = median(took.split_off(1));
    let found = found.context("no comparison")?;
    let top: Vec<&str> = found.ranked.iter().take(2).map(|r| r.attribute.as_str()).collect();
    ensure!(top.contains(&"build_id") && top.contains(&"region"), "the planted cause is not on top: {top:?}");
    let what = format!("comparison, {:.1} M events × {} attributes", rows as f64 / 1e6, found.attributes_compared);
    let peers = if args.small { Vec::new() } else { duckdb(args, &parquet)? };
    let best = peers
        .iter()
        .filter(|(name, _)| name.starts_with("q5") && !name.contains("sel_plus") && !name.contains("low_only"))
        .min_by(|a, b| a.1.total_cmp(&b.1));
    match best {
        Some((name, theirs)) => figures.beside(
            &what,
            format!("{ours:.3} s"),
            &format!("DuckDB, own table, its best way ({name})"),
            format!("{theirs:.2} s"),
            theirs / ours,
        ),
        None => figures.ours(&what, format!("{ours:.3} s")),
    }

    let queries = [
        (
            "q4_filter_3",
            "region = 'reg1' and status = 200",
            &["service", "endpoint", "build_id"][..],
            &["count", "avg(duration_ms)", "p99(duration_ms)"][..],
        ),
        ("q2a_user_p99_onepass", "", &["user_id"][..], &["count", "p99(duration_ms)"][..]),
    ];
    for (name, filter, group_by, calculate) in queries {
        if args.small {
            break;
        }
        let query = Query {
            filter: if filter.is_empty() {
                Filter::all()
            } else {
                Filter::parse(filter).map_err(|e| anyhow!("{e}"))?
            },
            group_by: group_by.iter().map(|g| (*g).to_owned()).collect(),
            calculate: calculate.iter().map(|c| Calculation::parse(c)).collect::<Result<_, _>>()?,
            ..Query::new(from, to)
        };
        let mut took = Vec::new();
        for _ in 0..=3 {
            let began = Instant::now();
            store.query(&query)?;
            took.push(began.elapsed().as_secs_f64());
        }
        let ours = median(took.split_off(1));
        let what = format!("query {name}, {:.1} M events", rows as f64 / 1e6);
        match peers.iter().find(|(peer, _)| peer == name) {
            Some((_, theirs)) => {
                figures.beside(
                    &what,
                    format!("{ours:.3} s"),
                    "DuckDB, own table",
                    format!("{theirs:.3} s"),
                    theirs / ours,
                );
            }
            None => figures.ours(&what, format!("{ours:.3} s")),
        }
    }
    Ok(())
}

/// Medians of the peer's queries, by name.
fn duckdb(args: &Args, parquet: &Path) -> Result<Vec<(String, f64)>> {
    let work = tempfile::tempdir_in(&args.out)?;
    let script = std::path::absolute(args.generator.join("query_peers.py"))?;
    let python = std::path::absolute(&args.python)?;
    let queries = "q5a,q5u,q5b_groupbys,q4_filter_3,q2a";
    let out = run(Command::new(python).current_dir(work.path()).arg(script).arg("duckdbn").arg(parquet).arg(queries))?;
    print!("{out}");
    let lines = out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(lines.filter_map(|l| Some((l["q"].as_str()?.to_owned(), l["med"].as_f64()?))).collect())
}
