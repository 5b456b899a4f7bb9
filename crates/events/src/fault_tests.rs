//! Power cuts at any change of the disk, and flipped bits anywhere on it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::Arc;

use files::{Crashing, Files};
use rows::{Row, Value};
use vocab::{Millis, Timestamp};

use crate::*;

const T0: i64 = 1_764_000_000_000_000_000;
/// So small that everything happens to few rows: frozen at 2, a segment from 16, full at 128.
const SEGMENT: usize = 16;

fn at(ms: i64) -> Timestamp {
    Timestamp::from_nanos(T0 + ms * 1_000_000)
}

/// Its time, its number and what follows from it, dense, rare and often absent.
fn row(n: i64) -> Row {
    let mut row = Row { time: at(n), trace: n as u128 / 3, span: n as u64, ..Row::default() }
        .with("n", n)
        .with("square", n * n)
        .with("text", format!("text {}", n % 11));
    if n % 20 == 0 {
        row.set("rare", format!("rare {n}"));
    }
    if n % 3 == 0 {
        row.set("share", n as f64 / 7.0);
    }
    row
}

fn sorted(mut row: Row) -> Row {
    row.attributes.sort_by(|a, b| a.0.cmp(&b.0));
    row
}

fn number(row: &Row) -> i64 {
    match row.get("n") {
        Some(Value::Int(n)) => *n,
        other => panic!("{other:?}"),
    }
}

/// All rows by number, how often each is there, and what is said to be missing. Each is as it was written.
fn stored(store: &Store) -> (BTreeMap<i64, usize>, Vec<String>) {
    let parts = store.parts();
    let mut times = BTreeMap::new();
    for chunk in &parts.chunks {
        for found in chunk.rows(&(0..chunk.len() as u32).collect::<Vec<u32>>()) {
            let n = number(&found);
            assert_eq!(sorted(found), sorted(row(n)));
            *times.entry(n).or_default() += 1;
        }
    }
    (times, parts.incomplete)
}

/// What a client knows of what it sent.
#[derive(Clone, Debug)]
struct Sent {
    rows: Range<i64>,
    key: Option<u128>,
    number: Option<u64>,
    acknowledged: bool,
}

impl Sent {
    fn batch(&self) -> Batch {
        Batch { rows: self.rows.clone().map(row).collect(), key: self.key }
    }
}

fn open(files: &Arc<dyn Files>, replayed: &mut BTreeSet<u64>) -> Store {
    Store::with_segments_of(SEGMENT, files.clone(), "events", |number, _, _| {
        assert!(replayed.insert(number), "batch {number} was replayed twice");
    })
    .unwrap()
}

/// Scenario: batches come, some of them again; segments are written, merged, cooled and forgotten; the power goes at any change of
/// the disk, and unsynced bytes are lost wholly or in part. Clients send again what was not acknowledged.
/// Guarantees: after each restart every acknowledged row that is not to be forgotten is there exactly once, and none twice; no half
/// batch and no half segment is read; whatever a tally still needs is replayed; nothing is called damaged; no file is left over.
#[test]
fn a_power_cut_at_any_change_loses_and_doubles_nothing() {
    let budget = std::env::var("SEAWORTHY_CRASH_MS").ok().and_then(|ms| ms.parse().ok()).unwrap_or(6_000);
    arbtest::arbtest(|u| {
        let disk = Crashing::new();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let mut all: Vec<Sent> = Vec::new();
        let mut next_row = 0;
        // Tallies hold back the log from here on; rows before this time may be gone.
        let (mut keep_from, mut forgotten_before) = (0, at(0));
        for _ in 0..u.int_in_range(1..=5)? {
            let mut replayed = BTreeSet::new();
            let store = open(&files, &mut replayed);
            assert_eq!(store.findings(), Vec::<String>::new());
            check_all(&store, &all, forgotten_before);
            for sent in &all {
                let Some(number) = sent.number.filter(|number| *number >= keep_from) else { continue };
                assert!(replayed.contains(&number), "batch {number} is not replayed from {keep_from} on");
            }
            assert_eq!(check(files.clone(), "events").unwrap().damage, Vec::<String>::new());
            // What nobody acknowledged is sent again, and stands once at the end.
            for sent in all.iter_mut().filter(|sent| !sent.acknowledged && sent.key.is_some()) {
                if let Appended::Stored(number) = store.append(at(0), &[sent.batch()]).unwrap()[0] {
                    sent.number = Some(number);
                }
                sent.acknowledged = true;
            }
            check_all(&store, &all, forgotten_before);
            if u.ratio(4, 5)? {
                disk.cut_after(u.int_in_range(0..=60)?);
            }
            for _ in 0..u.int_in_range(0..=30)? {
                match u.int_in_range(0..=9)? {
                    0..=4 => {
                        let mut batches = Vec::new();
                        for _ in 0..u.int_in_range(1..=3)? {
                            let rows = next_row..next_row + u.int_in_range(1..=12)?;
                            next_row = rows.end;
                            let key = Some(rows.start as u128 + 1).filter(|_| rows.start % 4 != 0);
                            batches.push(Sent { rows, key, number: None, acknowledged: false });
                        }
                        let sent: Vec<Batch> = batches.iter().map(Sent::batch).collect();
                        if let Ok(appended) = store.append(at(0), &sent) {
                            for (batch, appended) in batches.iter_mut().zip(appended) {
                                let Appended::Stored(number) = appended else { panic!("it is new: {batch:?}") };
                                (batch.number, batch.acknowledged) = (Some(number), true);
                            }
                        }
                        all.extend(batches);
                    }
                    5 => {
                        let Some(sent) = (!all.is_empty()).then(|| u.choose_index(all.len())).transpose()? else {
                            continue;
                        };
                        let sent = &all[sent];
                        if sent.acknowledged && sent.key.is_some() {
                            let answer = store.append(at(0), &[sent.batch()]).unwrap();
                            assert_eq!(answer, [Appended::Duplicate], "{sent:?}");
                        }
                    }
                    6 => {
                        keep_from = keep_from.max(u.int_in_range(0..=store.next_batch())?);
                        let _ = store.flush(keep_from, u.arbitrary()?);
                    }
                    7 => {
                        let keep = Keep { cold_after: Some(Millis(u.int_in_range(0..=200)?)), ..Keep::default() };
                        for _ in 0..u.int_in_range(1..=4)? {
                            let _ = store.tend(&keep, at(next_row));
                        }
                    }
                    8 => while store.tend(&Keep::default(), at(next_row)).unwrap_or(false) {},
                    _ => {
                        let after = Millis(u.int_in_range(50..=400)?);
                        let keep = Keep { drop_after: Some(after), ..Keep::default() };
                        forgotten_before = forgotten_before.max(at(next_row) - after);
                        let _ = store.forget(&keep, at(next_row));
                    }
                }
            }
            drop(store);
            disk.crash(u.arbitrary()?);
        }
        let store = open(&files, &mut BTreeSet::new());
        check_all(&store, &all, forgotten_before);
        no_file_is_left_over(&files);
        Ok(())
    })
    .budget_ms(budget);
}

fn check_all(store: &Store, all: &[Sent], forgotten_before: Timestamp) {
    let (times, incomplete) = stored(store);
    assert_eq!(incomplete, Vec::<String>::new());
    for sent in all {
        let found: Vec<usize> = sent.rows.clone().map(|n| times.get(&n).copied().unwrap_or(0)).collect();
        assert!(found.iter().all(|times| *times <= 1), "twice: {sent:?} {found:?}");
        // A segment goes as a whole, when its newest row is old enough; a batch is in one segment.
        let kept = at(sent.rows.end - 1) >= forgotten_before;
        assert!(!sent.acknowledged || !kept || found.iter().all(|times| *times == 1), "lost: {sent:?} {found:?}");
        assert!(found.iter().all(|times| *times == found[0]), "half: {sent:?} {found:?}");
    }
}

/// Every second file has its first; nothing else lies about but half-written temporary files, which `files::Disk` clears away.
fn no_file_is_left_over(files: &Arc<dyn Files>) {
    let paths = store::segment_paths(&**files, "events").unwrap();
    let seconds: BTreeSet<String> = paths.iter().map(|path| store::sparse_path(path)).collect();
    for path in tree(files, "events") {
        let known = paths.contains(&path) || seconds.contains(&path) || path == "events/keys";
        assert!(known || path.starts_with("events/wal/") || path.ends_with(".tmp0"), "{path} is left over");
    }
}

fn tree(files: &Arc<dyn Files>, dir: &str) -> Vec<String> {
    let below = files.list(dir).unwrap().into_iter().map(|name| format!("{dir}/{name}"));
    below.flat_map(|path| if files.read(&path).is_ok() { vec![path] } else { tree(files, &path) }).collect()
}

/// A store with everything: Parquet, large and small segments with second files, keys, two files of log.
fn of_every_kind() -> (Crashing, Arc<dyn Files>) {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let store = open(&files, &mut BTreeSet::new());
    let put = |range: Range<i64>| {
        let key = Some(range.start as u128 + 1);
        store.append(at(0), &[Batch { rows: range.map(row).collect(), key }]).unwrap();
    };
    for n in 0..4 {
        put(n * 10..n * 10 + 10);
    }
    store.flush(u64::MAX, true).unwrap();
    let keep = Keep { cold_after: Some(Millis(0)), ..Keep::default() };
    while store.tend(&keep, at(1_000)).unwrap() {}
    for n in 4..8 {
        put(n * 10..n * 10 + 10);
    }
    // A tally still needs the last of these, so they stay in the log as well.
    store.flush(7, true).unwrap();
    for n in 8..12 {
        put(n * 10..n * 10 + 10);
    }
    drop(store);
    (disk, files)
}

/// Scenario: a bit flips in a file of any kind: Parquet, a segment, its second file, the log (but not its tail), the keys.
/// Guarantees: it is named by the store and by the check; what can be read is read; every row is right and there at most once; an
/// answer that lacks rows says so; nothing panics; what comes in afterwards is kept; whole batches are missing, never parts of one.
#[test]
fn a_flipped_bit_in_any_file_is_named_and_nothing_wrong_is_read() {
    let (_, files) = of_every_kind();
    let paths = tree(&files, "events");
    let kinds = [".parquet", ".sparse.arrow", ".arrow", "/keys", ".wal"];
    assert!(kinds.iter().all(|kind| paths.iter().any(|path| path.ends_with(kind))), "{paths:?}");
    arbtest::arbtest(|u| {
        let (disk, files) = of_every_kind();
        let path = u.choose(&paths)?;
        let is_newest = path.ends_with(".wal") && Some(path) == paths.iter().rfind(|path| path.ends_with(".wal"));
        // Half a record at the end of the newest file is what a crash leaves.
        let len = files.read(path).unwrap().len() - if is_newest { tail(&files, path) } else { 0 };
        let byte = u.choose_index(len)?;
        disk.flip(path, byte);
        let context = format!("byte {byte} of {path}");
        // Of a segment's second file the message names the segment, and says which of the two it is.
        let names = |finding: &String| match path.strip_suffix(".sparse.arrow") {
            Some(segment) => finding.contains(segment) && finding.contains(".sparse.arrow"),
            None => finding.contains(path),
        };
        let checked = check(files.clone(), "events").unwrap();
        assert!(checked.damage.len() == 1 && names(&checked.damage[0]), "{context}: {:?}", checked.damage);
        let store = open(&files, &mut BTreeSet::new());
        let (times, incomplete) = stored(&store);
        let named = store.findings().iter().chain(&incomplete).any(names);
        assert!(named, "{context}: {:?} {incomplete:?}", store.findings());
        assert!(times.values().all(|times| *times == 1), "{context}: twice");
        assert!(times.len() == 120 || !incomplete.is_empty(), "{context}: {} rows and no word of it", times.len());
        assert!(times.len() >= if path.ends_with(".wal") { 110 } else { 80 }, "{context}: only {}", times.len());
        for n in 0..12 {
            let found = (n * 10..n * 10 + 10).filter(|n| times.contains_key(n)).count();
            assert!(found == 0 || found == 10, "{context}: {found} of a batch");
        }
        // It goes on.
        let before = times.len();
        store.append(at(0), &[Batch { rows: (500..510).map(row).collect(), key: Some(501) }]).unwrap();
        drop(store);
        let store = open(&files, &mut BTreeSet::new());
        assert_eq!(stored(&store).0.len(), before + 10, "{context}: what came afterwards");
        assert!(store.flush(u64::MAX, true).is_ok());
        assert_eq!(stored(&store).0.len(), before + 10, "{context}: after a flush");
        drop(store);
        let store = open(&files, &mut BTreeSet::new());
        assert_eq!(stored(&store).0.len(), before + 10, "{context}: after that and a restart");
        let again = Batch { rows: (500..510).map(row).collect(), key: Some(501) };
        assert_eq!(store.append(at(0), &[again]).unwrap(), [Appended::Duplicate], "{context}");
        Ok(())
    })
    .budget_ms(4_000);
}

/// Bytes of the last record of a file of the log.
fn tail(files: &Arc<dyn Files>, path: &str) -> usize {
    let bytes = files.read(path).unwrap();
    let (mut at, mut last) = (0, 0);
    while at < bytes.len() {
        last = 8 + u32::from_le_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
        at += last;
    }
    last
}

/// Scenario: the log is damaged beyond reading and somebody moves it away, as the segments are whole.
/// Guarantees: what comes in afterwards is kept, restart after restart, and no segment is taken for one that was merged.
#[test]
fn without_its_log_a_store_goes_on() {
    let (_, files) = of_every_kind();
    for path in tree(&files, "events/wal") {
        files.remove(&path).unwrap();
    }
    for round in 0..4 {
        let store = open(&files, &mut BTreeSet::new());
        assert_eq!((stored(&store).0.len() as i64, store.findings().len()), (80 + round * 10, 0), "round {round}");
        store.append(at(0), &[(500 + round * 10..510 + round * 10).map(row).collect::<Vec<Row>>().into()]).unwrap();
        if round % 2 == 1 {
            store.flush(u64::MAX, true).unwrap();
        }
    }
}

/// Guarantees: a comparison that takes too long is refused and says so; one that reads too much from Parquet files compares the
/// attributes that it got through, rightly, and says how many are missing; one whose asker has gone ends.
#[test]
fn a_comparison_has_limits() {
    let (_, files) = of_every_kind();
    let store = open(&files, &mut BTreeSet::new());
    let ask = |limits: query::Limits| {
        let selection = Selection::of(rows::Filter::parse("n < 20").unwrap());
        let (from, to) = (at(-1_000), at(10_000));
        store.difference(&Question { selection, baseline: None, from, to, unit: Some(Unit::Event), limits })
    };
    let whole = ask(comparison_limits()).unwrap();
    assert_eq!((whole.incomplete.len(), whole.selected.n, whole.baseline.n), (0, 20, 100));
    let slow = query::Limits { time: std::time::Duration::ZERO, ..comparison_limits() };
    let refused = ask(slow).unwrap_err();
    assert!(matches!(&refused, QueryError::Limit(why) if why.contains("time limit")), "{refused}");
    // What the conditions read fits; the next attribute is too much.
    let mut partial = 0;
    for memory in (200..6_000).step_by(50) {
        let Ok(found) = ask(query::Limits { memory, ..comparison_limits() }) else { continue };
        if found.incomplete.is_empty() {
            continue;
        }
        partial += 1;
        let all = found.attributes_compared == whole.attributes_compared;
        let missing = if all { "not looked at together" } else { "attributes were not compared" };
        assert!(found.incomplete.iter().any(|why| why.contains(missing)), "{found:?}");
        assert!(found.incomplete.iter().any(|why| why.contains("memory limit")), "{:?}", found.incomplete);
        assert_eq!((found.selected.n, found.baseline.n), (20, 100));
    }
    assert!(partial > 0, "no limit was in between");
    let gone = query::Limits::default();
    gone.cancel.cancel();
    assert_eq!(ask(gone).unwrap_err(), QueryError::Cancelled);
}
