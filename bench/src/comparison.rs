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
use events::{Comparison, Keep, Query, Store};
use files::Disk;
use rows::{Filter, Row, Value};
use vocab::{Millis, Timestamp};

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
    // As the server does it by and by.
    let began = Instant::now();
    while store.tend(&Keep::default(), received)? {}
    figures.ours("events, merging small segments into large ones", format!("{:.1} s", began.elapsed().as_secs_f64()));
    let rows = store.rows();
    let bytes = directory_bytes(&dir.path().join("events"))?;
    figures.ours("events, hot segments on disk", format!("{:.0} bytes an event", bytes as f64 / rows as f64));

    let slow = Filter::parse("duration_ms > 1000").map_err(|e| anyhow!("{e}"))?;
    let (from, to) = (Timestamp::from_nanos(i64::MIN), Timestamp::from_nanos(i64::MAX));
    let compare = |runs: usize| -> Result<(f64, Comparison)> {
        let mut took = Vec::new();
        let mut found = None;
        for _ in 0..=runs {
            let began = Instant::now();
            found = Some(store.compare(&slow, None, from, to)?);
            took.push(began.elapsed().as_secs_f64());
        }
        let found = found.context("no comparison")?;
        let top: Vec<&str> = found.ranked.iter().take(2).map(|r| r.attribute.as_str()).collect();
        ensure!(top.contains(&"build_id") && top.contains(&"region"), "the planted cause is not on top: {top:?}");
        // The first run pages the segments in.
        Ok((median(took.split_off(1)), found))
    };
    let (ours, found) = compare(RUNS)?;
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

    if !args.small {
        for (what, peer, query) in questions(from, to)? {
            let mut took = Vec::new();
            for _ in 0..=RUNS {
                let began = Instant::now();
                store.query(&query)?;
                took.push(began.elapsed().as_secs_f64());
            }
            let ours = median(took.split_off(1));
            let what = format!("query: {what}, {:.1} M events", rows as f64 / 1e6);
            // Where there are several ways to ask the peer, its best.
            let theirs =
                peers.iter().filter(|(name, _)| name.starts_with(peer)).map(|(_, secs)| *secs).min_by(f64::total_cmp);
            match theirs {
                Some(theirs) => {
                    let (ours_text, theirs_text) = (format!("{ours:.3} s"), format!("{theirs:.3} s"));
                    figures.beside(&what, ours_text, "DuckDB, own table", theirs_text, theirs / ours);
                }
                None => figures.ours(&what, format!("{ours:.3} s")),
            }
        }
    }

    // All of it as Parquet.
    let later = Timestamp::from_nanos(i64::MAX);
    let keep = Keep { cold_after: Some(Millis::from_secs(1)), ..Keep::default() };
    let began = Instant::now();
    while store.tend(&keep, later)? {}
    figures.ours("events, segments to Parquet", format!("{:.1} s", began.elapsed().as_secs_f64()));
    let bytes = directory_bytes(&dir.path().join("events"))?;
    figures.ours("events, Parquet on disk", format!("{:.0} bytes an event", bytes as f64 / rows as f64));
    let (cold, _) = compare(2)?;
    figures.ours(&format!("{what}, from Parquet"), format!("{cold:.3} s"));
    Ok(())
}

/// What is asked, the peer's name for it, and how we ask it.
fn questions(from: Timestamp, to: Timestamp) -> Result<Vec<(&'static str, &'static str, Query)>> {
    // The generator's time: three hours from here. A time without end has too many minutes.
    let start = Timestamp::from_nanos(1_764_000_000_000_000_000);
    let minutes =
        || Query { step: Some(Millis::from_secs(60)), ..Query::new(start, start + Millis::from_secs(4 * 3_600)) };
    let whole = || Query::new(from, to);
    let calculate = |texts: &[&str]| texts.iter().map(|text| Calculation::parse(text)).collect::<Result<Vec<_>, _>>();
    let filter = |text: &str| Filter::parse(text).map_err(|e| anyhow!("{e}"));
    let fields = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    Ok(vec![
        ("count by minute", "q1", minutes()),
        ("heatmap by minute", "q3", Query { calculate: calculate(&["heatmap(duration_ms)"])?, ..minutes() }),
        (
            "filter, group by 3, average and p99, the first 100",
            "q4_filter",
            Query {
                filter: filter("region = 'reg1' and status = 200")?,
                group_by: fields(&["service", "endpoint", "build_id"]),
                calculate: calculate(&["count", "avg(duration_ms)", "p99(duration_ms)"])?,
                ..whole()
            },
        ),
        (
            "p99 of the 100 users with most events",
            "q2",
            Query { group_by: fields(&["user_id"]), calculate: calculate(&["count", "p99(duration_ms)"])?, ..whole() },
        ),
        (
            "the events of one user",
            "q4b",
            Query {
                filter: filter("user_id = 'u1234567'")?,
                calculate: Vec::new(),
                fields: fields(&["trace.trace_id", "duration_ms", "service"]),
                ..whole()
            },
        ),
    ])
}

/// Medians of the peer's queries, by name.
fn duckdb(args: &Args, parquet: &Path) -> Result<Vec<(String, f64)>> {
    let work = tempfile::tempdir_in(&args.out)?;
    let script = std::path::absolute(args.generator.join("query_peers.py"))?;
    let python = std::path::absolute(&args.python)?;
    let queries = "q1,q2,q3,q4,q5a,q5u,q5b_groupbys";
    let out = run(Command::new(python).current_dir(work.path()).arg(script).arg("duckdbn").arg(parquet).arg(queries))?;
    print!("{out}");
    let lines = out.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    Ok(lines.filter_map(|l| Some((l["q"].as_str()?.to_owned(), l["med"].as_f64()?))).collect())
}
