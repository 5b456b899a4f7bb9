use std::sync::Arc;

use crate::{Crashing, Disk, Files, LockError, Salvaged, Wal, WalError, examine};

fn replayed(files: &Arc<dyn Files>) -> Result<Vec<Vec<u8>>, WalError> {
    let mut records = Vec::new();
    Wal::open(files.clone(), "wal", |_, bytes| records.push(bytes.to_vec()))?;
    Ok(records)
}

/// Scenario: random commits and rotations, then a power cut that drops every unsynced write.
/// Guarantees: what was acknowledged is there, in order, and nothing else but a prefix of the commit under way.
#[test]
fn acknowledged_records_survive_a_power_cut() {
    arbtest::arbtest(|u| {
        let disk = Crashing::new();
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        let mut expected: Vec<Vec<u8>> = Vec::new();
        for _ in 0..u.int_in_range(1..=4)? {
            let mut wal = Wal::open(files.clone(), "wal", |_, _| ()).unwrap();
            assert_eq!(wal.next(), expected.len() as u64);
            for _ in 0..u.int_in_range(0..=5)? {
                let batch: Vec<Vec<u8>> = u.arbitrary()?;
                let first = wal.commit(batch.iter().map(Vec::as_slice)).unwrap();
                assert_eq!(first, expected.len() as u64);
                expected.extend(batch);
                if u.arbitrary()? {
                    wal.rotate().unwrap();
                }
            }
            drop(wal);
            disk.crash(u.arbitrary()?);
            assert_eq!(replayed(&files).unwrap(), expected);
        }
        Ok(())
    });
}

#[test]
fn a_torn_tail_is_cut_and_damage_before_it_is_named() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut wal = Wal::open(files.clone(), "wal", |_, _| ()).unwrap();
    wal.commit([b"one".as_slice(), b"two"]).unwrap();
    let path = "wal/00000000000000000000.wal";
    files.append(path).unwrap().write(&[9, 0, 0, 0, 1, 2]).unwrap();
    assert_eq!(replayed(&files).unwrap(), [b"one", b"two"]);
    disk.flip(path, 9);
    assert!(matches!(replayed(&files), Err(WalError::Damaged { offset: 0, .. })));
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    let disk = Crashing::new();
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let mut wal = Wal::open(files.clone(), "wal", |_, _| ()).unwrap();
    wal.commit([b"one".as_slice()]).unwrap();
    disk.set_room(Some(4));
    assert!(wal.commit([b"two".as_slice()]).unwrap_err().is_full());
    disk.set_room(None);
    assert_eq!(wal.commit([b"three".as_slice()]).unwrap(), 1);
    assert_eq!(replayed(&files).unwrap(), [b"one".as_slice(), b"three"]);
}

#[test]
fn old_files_go_and_numbers_stay() {
    let files: Arc<dyn Files> = Arc::new(Crashing::new());
    let mut wal = Wal::open(files.clone(), "wal", |_, _| ()).unwrap();
    for round in 0..4_u8 {
        wal.commit([[round].as_slice()]).unwrap();
        wal.rotate().unwrap();
    }
    wal.drop_before(3).unwrap();
    assert_eq!(replayed(&files).unwrap(), [[3]]);
    assert_eq!(Wal::open(files, "wal", |_, _| ()).unwrap().next(), 4);
}

#[test]
fn a_second_process_is_refused_and_a_directory_behaves_like_memory() {
    let dir = tempfile::tempdir().unwrap();
    let first = Disk::lock(dir.path()).unwrap();
    let second = Disk::lock(dir.path()).unwrap_err();
    assert!(matches!(&second, LockError::Taken { .. }));
    assert!(second.to_string().contains(&format!("pid {}", std::process::id())), "{second}");
    let files: Arc<dyn Files> = Arc::new(first);
    let mut wal = Wal::open(files.clone(), "a/b", |_, _| ()).unwrap();
    wal.commit([b"one".as_slice()]).unwrap();
    wal.rotate().unwrap();
    files.replace("a/c", b"x").unwrap();
    files.replace("a/c", b"y").unwrap();
    assert_eq!(files.read("a/c").unwrap(), b"y");
    assert_eq!(files.list("a").unwrap(), ["b", "c"]);
    files.remove("a/c").unwrap();
    files.remove("a/c").unwrap();
    drop((wal, files));
    Disk::lock(dir.path()).unwrap();
}

fn salvaged(files: &Arc<dyn Files>, stored_to: u64) -> (Vec<(u64, Vec<u8>)>, Salvaged) {
    let mut records = Vec::new();
    let salvaged =
        Wal::salvage(files.clone(), "wal", stored_to, |number, bytes| records.push((number, bytes.to_vec()))).unwrap();
    (records, salvaged)
}

/// Scenario: a bit flips anywhere in a log of several files, in a length, a checksum or a payload, but in the last record of all.
/// Guarantees: the one record is named, all others keep their numbers; new ones come after them, also after one more opening.
#[test]
fn a_salvaged_log_lacks_the_damaged_record_and_no_other() {
    let record = |n: u64| vec![n as u8; 20 + n as usize];
    let bytes_of = |records: std::ops::Range<u64>| records.map(|n| record(n).len() + 8).sum::<usize>();
    for (file, from, to) in [(0, 0, 3), (3, 3, 5), (5, 5, 9)] {
        // The last record of the newest file cannot be told from a torn one.
        let harmed = if to == 9 { from..8 } else { from..to };
        for byte in 0..bytes_of(harmed.clone()) {
            let disk = Crashing::new();
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            let mut wal = Wal::open(files.clone(), "wal", |_, _| ()).unwrap();
            for n in 0..9 {
                if n == 3 || n == 5 {
                    wal.rotate().unwrap();
                }
                wal.commit([record(n).as_slice()]).unwrap();
            }
            drop(wal);
            let path = format!("wal/{file:020}.wal");
            disk.flip(&path, byte);
            let hit = harmed.clone().find(|n| byte < bytes_of(from..n + 1)).unwrap();
            let (records, mut log) = salvaged(&files, 0);
            let expected: Vec<(u64, Vec<u8>)> = (0..9).filter(|n| *n != hit).map(|n| (n, record(n))).collect();
            assert_eq!(records, expected, "byte {byte} of {path}");
            assert!(log.damage.len() == 1 && log.damage[0].contains(&path), "{:?}", log.damage);
            assert_eq!(log.wal.commit([record(9).as_slice()]).unwrap(), 9);
            drop(log);
            let (again, log) = salvaged(&files, 0);
            assert_eq!((again.len(), again.last(), log.wal.next()), (9, Some(&(9, record(9))), 10));
            assert!(files.read(&format!("{path}.damaged")).is_ok());
        }
    }
}

/// Scenario: the log is gone, but what was in it is kept elsewhere under its numbers.
/// Guarantees: no number is given twice, and nothing is called missing.
#[test]
fn a_salvaged_log_gives_no_number_twice() {
    let files: Arc<dyn Files> = Arc::new(Crashing::new());
    let (_, mut log) = salvaged(&files, 7);
    assert_eq!((log.wal.commit([b"x".as_slice()]).unwrap(), log.damage.len()), (7, 0));
    drop(log);
    let (records, log) = salvaged(&files, 7);
    assert_eq!((records.len(), log.wal.next(), log.damage), (1, 8, vec![]));
    let (_, log) = salvaged(&files, 20);
    assert_eq!((log.wal.next(), log.damage), (20, vec![]));
    assert_eq!(examine(&*files, "wal", 20, |_, _| ()).unwrap(), Vec::<String>::new());
}

/// Scenario: a process was killed while it replaced files.
/// Guarantees: the next one removes what was left half written, and nothing else.
#[test]
fn temporary_files_go_when_the_directory_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("a/b")).unwrap();
    for name in ["a/b/x.tmp0", "a/keys.tmp17", "a/b/x.sparse.tmp3", "a/x.tmp", "a/x.tmpx", "a/keys"] {
        std::fs::write(dir.path().join(name), "x").unwrap();
    }
    let disk = Disk::lock(dir.path()).unwrap();
    assert_eq!(disk.list("a").unwrap(), ["b", "keys", "x.tmp", "x.tmpx"]);
    assert_eq!(disk.list("a/b").unwrap(), Vec::<String>::new());
}
