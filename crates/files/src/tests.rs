use std::sync::Arc;

use crate::{Crashing, Disk, Files, LockError, Wal, WalError};

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
