//! What the store promises: the same answers whatever form the rows are in, nothing twice, nothing lost, damage named.

use std::sync::Arc;

use files::{Crashing, Disk, Files};
use rows::{Filter, Row, Value};
use vocab::{Millis, Timestamp};

use crate::*;

const T0: i64 = 1_764_000_000_000_000_000;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_nanos(T0 + ms * 1_000_000)
}

fn open(files: &Arc<dyn Files>) -> Store {
    Store::open(files.clone(), "events", |_, _, _| ()).unwrap()
}

/// Rows of every kind: dense and rare attributes, clashing types, numbers that are mostly distinct, absences, no trace.
fn row(n: i64) -> Row {
    let mut row = Row { time: at(n), ..Row::default() }
        .with("service.name", ["web", "api", "db"][n as usize % 3])
        .with("status", [200_i64, 404, 500][n as usize % 3])
        .with("n", n)
        .with("share", n as f64 / 7.0)
        .with("ok", n % 2 == 0);
    if n % 5 != 0 {
        row.duration_nanos = Some(n * 1_000);
        (row.trace, row.span, row.parent) = ((n as u128) << 70 | 9, n as u64 + 1, n as u64);
    }
    if n % 40 == 0 {
        row.set(&format!("rare.{}", n % 7), n);
        row.set("rare.text", format!("value {n}"));
    }
    // As our own columns are called, and as a column of another type would be.
    row.set("time", format!("t{}", n % 4));
    row.set("trace_id", n % 9);
    row.set("__time", "x");
    row.set("n:int", format!("{}", n % 8));
    match n % 3 {
        0 => row.set("clash", n),
        1 => row.set("clash", format!("{n}")),
        _ => row.set("clash", n % 2 == 0),
    }
    row
}

fn all(store: &Store) -> Vec<Row> {
    let parts = store.parts();
    assert!(parts.incomplete.is_empty(), "{:?}", parts.incomplete);
    let mut rows: Vec<Row> = parts
        .chunks
        .iter()
        .flat_map(|chunk| chunk.rows(&(0..chunk.len() as u32).collect::<Vec<u32>>()))
        .map(sorted)
        .collect();
    rows.sort_by_key(|row| row.time);
    rows
}

fn sorted(mut row: Row) -> Row {
    row.attributes.sort_by(|a, b| a.0.cmp(&b.0));
    row
}

fn put(store: &Store, range: std::ops::Range<i64>, key: Option<u128>) -> Appended {
    store.append(at(0), &[Batch { rows: range.map(row).collect(), key }]).unwrap()[0]
}

/// Guarantees: rows come back as they were from memory, from segments, from merged segments and from Parquet, before and after a restart.
#[test]
fn rows_are_the_same_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(Disk::open(dir.path()).unwrap());
    let expected: Vec<Row> = (0..3_000).map(row).map(sorted).collect();
    let store = open(&files);
    for start in (0..3_000).step_by(300) {
        put(&store, start..start + 300, None);
        if start % 900 == 600 {
            store.flush(u64::MAX, true).unwrap();
        }
    }
    assert_eq!(all(&store), expected);
    store.flush(u64::MAX, true).unwrap();
    assert_eq!(store.parts().chunks.len(), 4);
    assert_eq!(all(&store), expected);
    assert_eq!(all(&open(&files)), expected);
    let paths = |files: &Arc<dyn Files>| store::segment_paths(&**files, "events").unwrap();
    // Too few small ones to be worth it; then eight.
    assert!(!store.tend(&Keep::default(), at(0)).unwrap());
    for start in (3_000..3_400).step_by(100) {
        put(&store, start..start + 100, None);
        store.flush(u64::MAX, true).unwrap();
    }
    let expected: Vec<Row> = (0..3_400).map(row).map(sorted).collect();
    assert!(store.tend(&Keep::default(), at(0)).unwrap());
    assert_eq!((store.parts().chunks.len(), paths(&files).len()), (1, 1));
    assert_eq!(all(&store), expected);
    assert_eq!(all(&open(&files)), expected);
    let keep = Keep { cold_after: Some(Millis::from_secs(60)), ..Keep::default() };
    assert!(!store.tend(&keep, at(63_000)).unwrap());
    assert!(store.tend(&keep, at(64_000)).unwrap());
    assert!(paths(&files)[0].ends_with(".parquet"), "{:?}", paths(&files));
    assert_eq!(all(&store), expected);
    assert_eq!(all(&open(&files)), expected);
    let checked = check(files.clone(), "events").unwrap();
    assert_eq!((checked.files, checked.rows, &checked.damage[..]), (1, 3_400, &[][..]));
    // Then it goes.
    let keep = Keep { drop_after: Some(Millis::from_secs(60)), ..keep };
    store.forget(&keep, at(64_000)).unwrap();
    assert_eq!((store.rows(), paths(&files).len()), (0, 0));
    assert_eq!(open(&files).rows(), 0);
}

#[test]
fn the_oldest_go_when_there_is_too_much() {
    let files: Arc<dyn Files> = Arc::new(Crashing::new());
    let store = open(&files);
    for start in [0, 500, 1_000] {
        put(&store, start..start + 500, None);
        store.flush(u64::MAX, true).unwrap();
    }
    let bytes = |path: &String| {
        files.read(path).unwrap().len() as u64 + files.read(&store::sparse_path(path)).unwrap().len() as u64
    };
    let two_less: u64 = store::segment_paths(&*files, "events").unwrap()[1..].iter().map(bytes).sum();
    let first = |store: &Store| all(store).first().and_then(|row| row.get("n").cloned());
    store.forget(&Keep { bytes_max: Some(two_less), ..Keep::default() }, at(0)).unwrap();
    assert_eq!(first(&store), Some(Value::Int(500)));
    store.forget(&Keep { bytes_max: Some(1), ..Keep::default() }, at(0)).unwrap();
    assert_eq!(first(&store), None);
}

/// Scenario: a client does not hear the answer and sends again; within a commit, later, after a restart, and after its batch left the log.
/// Guarantees: the rows are stored once.
#[test]
fn what_is_sent_again_is_stored_once() {
    let files: Arc<dyn Files> = Arc::new(Crashing::new());
    let store = open(&files);
    let batch = |key| Batch { rows: vec![row(1)], key };
    let appended = store.append(at(0), &[batch(Some(7)), batch(Some(7)), batch(None), batch(None)]).unwrap();
    assert_eq!(appended, [Appended::Stored(0), Appended::Duplicate, Appended::Stored(1), Appended::Stored(2)]);
    assert_eq!(put(&store, 1..2, Some(7)), Appended::Duplicate);
    drop(store);
    let store = open(&files);
    assert_eq!(put(&store, 1..2, Some(7)), Appended::Duplicate);
    store.flush(u64::MAX, true).unwrap();
    drop(store);
    let store = open(&files);
    assert_eq!((put(&store, 1..2, Some(7)), store.rows()), (Appended::Duplicate, 3));
    // Much later it is another one.
    let later = store.append(at(16 * 60_000), &[batch(Some(7))]).unwrap();
    assert_eq!((later, store.rows()), (vec![Appended::Stored(3)], 4));
}

/// Guarantees: a flipped bit anywhere in a file is found, the file is left out of answers and named, and nothing panics.
#[test]
fn a_flipped_bit_is_found_and_named() {
    for cold in [false, true] {
        let disk = Crashing::new();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let store = open(&files);
        put(&store, 0..200, None);
        store.flush(u64::MAX, true).unwrap();
        put(&store, 200..300, None);
        store.flush(u64::MAX, true).unwrap();
        let keep = Keep { cold_after: Some(Millis::from_secs(1)).filter(|_| cold), ..Keep::default() };
        while store.tend(&keep, at(1_000_000)).unwrap() {}
        drop(store);
        let path = store::segment_paths(&*files, "events").unwrap()[0].clone();
        let len = files.read(&path).unwrap().len();
        for byte in (0..len).step_by(len / 300 + 1) {
            disk.flip(&path, byte);
            let store = open(&files);
            let parts = store.parts();
            assert_eq!(store.findings().len() + parts.incomplete.len(), 1, "byte {byte} of {len}");
            let named = store.findings().iter().chain(&parts.incomplete).all(|finding| finding.contains(&path));
            assert!(named, "{:?} {:?}", store.findings(), parts.incomplete);
            assert_eq!(parts.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), 100);
            let checked = check(files.clone(), "events").unwrap();
            assert_eq!((checked.damage.len(), checked.rows), (1, 100), "{:?}", checked.damage);
            drop(store);
            disk.flip(&path, byte);
        }
        assert_eq!(open(&files).rows(), 300);
    }
}

/// Scenario: a power cut at any moment of merging, cooling and dropping.
/// Guarantees: every row is there exactly once.
#[test]
fn a_power_cut_while_tending_loses_and_doubles_nothing() {
    arbtest::arbtest(|u| {
        let disk = Crashing::new();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let mut n = 0;
        for _ in 0..3 {
            let store = open(&files);
            assert_eq!(all(&store), (0..n).map(row).map(sorted).collect::<Vec<_>>());
            for _ in 0..u.int_in_range(1..=9)? {
                put(&store, n..n + 5, None);
                n += 5;
                if u.arbitrary()? {
                    store.flush(u64::MAX, true).unwrap();
                }
            }
            // What is written before the room ends stays; then the power goes.
            disk.set_room(Some(u.int_in_range(0..=60_000)?));
            let keep = Keep { cold_after: Some(Millis::from_secs(1)), ..Keep::default() };
            while store.tend(&keep, at(1_000_000)).unwrap_or(false) {}
            let _ = store.flush(u64::MAX, true);
            disk.set_room(None);
            drop(store);
            disk.crash(u.arbitrary()?);
        }
        assert_eq!(open(&files).rows() as i64, n);
        Ok(())
    })
    .budget_ms(3_000);
}

/// Guarantees: a question does not hold up whoever writes, and sees the rows as they were.
#[test]
fn a_snapshot_stays_as_it_was() {
    let store = open(&(Arc::new(Crashing::new()) as Arc<dyn Files>));
    put(&store, 0..100, None);
    let before = store.parts();
    for n in 1..200 {
        put(&store, n * 100..n * 100 + 100, None);
        assert_eq!(store.parts().chunks.iter().map(|chunk| chunk.len() as i64).sum::<i64>(), n * 100 + 100);
    }
    assert_eq!(before.chunks.iter().map(|chunk| chunk.len()).sum::<usize>(), 100);
    // Asking often leaves few chunks all the same.
    assert!(store.parts().chunks.len() <= 30, "{}", store.parts().chunks.len());
    let selected = |text: &str| -> f64 {
        let query = Query { filter: Filter::parse(text).unwrap(), ..Query::new(at(0), at(1_000_000)) };
        store.query(&query).unwrap().first("count").unwrap()
    };
    assert_eq!(selected("trace.trace_id exists"), 16_000.0);
    assert_eq!(selected("trace.trace_id = '00000000000001c00000000000000009'"), 1.0);
    assert_eq!((selected("duration_ms < 0.01"), selected("n >= 19990 and share > 0")), (8.0, 10.0));
    assert_eq!(
        (selected("clash = 9"), selected("clash = '10'"), selected("rare.text starts-with 'value 4'")),
        (1.0, 1.0, 29.0)
    );
}

/// Scenario: the power goes after small segments were merged and before they were removed; then the merged file is damaged.
/// Guarantees: nothing is removed before the file that holds it was found sound.
#[test]
fn what_was_merged_stays_while_the_merged_file_is_damaged() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = open(&files);
    for n in 0..8 {
        put(&store, n * 100..n * 100 + 100, None);
        store.flush(u64::MAX, true).unwrap();
    }
    let small = store::segment_paths(&*files, "events").unwrap();
    let kept: Vec<(String, Vec<u8>)> = small
        .iter()
        .flat_map(|path| [path.clone(), store::sparse_path(path)])
        .filter_map(|path| Some((path.clone(), files.read(&path).ok()?)))
        .collect();
    assert!(store.tend(&Keep::default(), at(0)).unwrap());
    drop(store);
    let merged = store::segment_paths(&*files, "events").unwrap();
    assert_eq!((small.len(), merged.len()), (8, 1));
    let put_back = || kept.iter().for_each(|(path, bytes)| files.replace(path, bytes).unwrap());
    put_back();
    disk.flip(&merged[0], 5_000);
    let store = open(&files);
    assert_eq!((store.rows(), all(&store).len(), store.findings().len()), (800, 800, 1));
    assert_eq!(store::segment_paths(&*files, "events").unwrap().len(), 9);
    // Merged once more they are the same bytes, in place of the damaged ones.
    assert!(store.tend(&Keep::default(), at(0)).unwrap());
    drop(store);
    let store = open(&files);
    assert_eq!((store.rows(), all(&store).len(), store.findings().len()), (800, 800, 0));
    assert_eq!(store::segment_paths(&*files, "events").unwrap(), merged);
}

/// Guarantees: counting rows and tending freeze nothing, so that an idle server whose status is watched does not grow.
#[test]
fn looking_freezes_nothing() {
    let store = open(&(Arc::new(Crashing::new()) as Arc<dyn Files>));
    for n in 0..300 {
        put(&store, n..n + 1, None);
        assert_eq!(store.rows(), n as u64 + 1);
        assert!(!store.wants_flush());
        assert!(!store.tend(&Keep::default(), at(0)).unwrap());
    }
    assert_eq!(store.listed_parts().len(), 0);
    assert_eq!(all(&store).len(), 300);
    // Each question freezes a little; tending puts it together.
    for n in 300..600 {
        put(&store, n..n + 1, None);
        store.all_parts();
        store.tend(&Keep::default(), at(0)).unwrap();
    }
    assert!(store.listed_parts().len() <= 30, "{}", store.listed_parts().len());
    assert_eq!(all(&store).len(), 600);
}

/// Scenario: a full disk, on which old events lie.
/// Guarantees: forgetting them needs no room and makes some; what waited is written then.
#[test]
fn forgetting_makes_room_on_a_full_disk() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = open(&files);
    put(&store, 0..500, None);
    store.flush(u64::MAX, true).unwrap();
    put(&store, 500..600, None);
    disk.set_room(Some(0));
    assert!(store.flush(u64::MAX, true).is_err());
    let keep = Keep { bytes_max: Some(1), ..Keep::default() };
    store.forget(&keep, at(0)).unwrap();
    assert_eq!((store.rows(), store::segment_paths(&*files, "events").unwrap().len()), (100, 0));
    disk.set_room(None);
    store.flush(u64::MAX, true).unwrap();
    assert_eq!(open(&files).rows(), 100);
}
