//! What sharing promises: both see everything once, whatever is merged, moved, lost or restarted meanwhile.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use events::{Appended, Batch, Keep, Query, Store};
use files::{Disk, Files};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rows::{Row, Value};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use vocab::{Millis, Timestamp};

use crate::key::{self, Key};
use crate::mirror::{Failure, Options, Worker};
use crate::place::Place;
use crate::tail;
use crate::view::{self, Listed};

const T0: i64 = 1_764_000_000_000_000_000;

fn row(n: i64) -> Row {
    let time = Timestamp::from_nanos(T0 + n * 1_000_000_000);
    Row { time, ..Row::default() }.with("n", n).with("user", format!("u{}", n % 97)).with("rare", n % 1_000)
}

/// A bucket that can be made to say no.
struct Flaky {
    inner: InMemory,
    down: AtomicBool,
}

impl fmt::Debug for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

impl fmt::Display for Flaky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Flaky")
    }
}

impl Flaky {
    fn check(&self) -> Result<()> {
        match self.down.load(Ordering::Relaxed) {
            true => Err(object_store::Error::Generic { store: "flaky", source: "down".into() }),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flaky {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.check()?;
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.check()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        match self.check() {
            Ok(()) => self.inner.delete_stream(locations),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.check() {
            Ok(()) => self.inner.list(prefix),
            Err(e) => stream::once(async { Err(e) }).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.check()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.check()?;
        self.inner.copy_opts(from, to, options).await
    }
}

struct World {
    runtime: Runtime,
    bucket: Arc<Flaky>,
    dir: TempDir,
}

impl World {
    fn new() -> World {
        let bucket = Arc::new(Flaky { inner: InMemory::new(), down: AtomicBool::new(false) });
        World { runtime: Runtime::new().unwrap(), bucket, dir: tempfile::tempdir().unwrap() }
    }

    fn place(&self) -> Place {
        Place { store: self.bucket.clone(), prefix: Path::from("team/prod"), name: "memory".into() }
    }

    /// A server with this id; its directory has the same name.
    fn server(&self, id: &str) -> Server {
        self.server_with(id, id, |_| ())
    }

    fn server_with(&self, id: &str, dir: &str, set: impl FnOnce(&mut Options)) -> Server {
        let dir = self.dir.path().join(dir);
        let files: Arc<dyn Files> = Arc::new(Disk::open(&dir).unwrap());
        let store = Arc::new(Store::open(files, "events", |_, _, _| ()).unwrap());
        let mut options = Options {
            place: self.place(),
            server: id.into(),
            cache: (dir.join("events/others"), u64::MAX),
            local_bytes_max: None,
            drop_after: None,
            keep_from: Box::new(|| u64::MAX),
        };
        set(&mut options);
        let worker = Worker::new(store.clone(), options, self.runtime.handle().clone()).unwrap();
        Server { store, worker, written: 0 }
    }

    fn objects(&self, below: &str) -> Vec<String> {
        let listed = self.bucket.inner.list(Some(&Path::from(below)));
        let listed: Vec<ObjectMeta> = self.runtime.block_on(listed.map(|object| object.unwrap()).collect());
        listed.iter().map(|object| object.location.to_string()).collect()
    }
}

struct Server {
    store: Arc<Store>,
    worker: Worker,
    written: i64,
}

impl Server {
    fn put(&mut self, range: Range<i64>) -> Appended {
        let key = Some(range.start as u128 + 1);
        let rows = range.map(row).collect();
        self.written += 1;
        self.store.append(Timestamp::from_nanos(T0), &[Batch { rows, key }]).unwrap()[0]
    }

    /// A turn as the thread takes it.
    fn turn(&mut self) -> Option<String> {
        let problem = self.worker.turn(true).err().map(|e| e.to_string());
        self.worker.tell(problem.clone());
        problem
    }

    /// The numbers of all rows that an answer shows, sorted.
    fn numbers(&self) -> Vec<i64> {
        let mut query = Query::new(Timestamp::from_nanos(0), Timestamp::from_nanos(i64::MAX));
        query.calculate.clear();
        query.limit = 100_000;
        let answer = self.store.query(&query).unwrap();
        assert!(answer.incomplete.is_empty(), "{:?}", answer.incomplete);
        let mut numbers: Vec<i64> = answer.raw.iter().map(number).collect();
        numbers.sort_unstable();
        numbers
    }

    fn flush(&self) {
        self.store.flush(u64::MAX, true).unwrap();
    }

    fn tend(&self, cold_after: Option<Millis>) {
        let keep = Keep { cold_after, ..Keep::default() };
        while self.store.tend(&keep, Timestamp::from_nanos(i64::MAX)).unwrap() {}
    }
}

fn number(row: &Row) -> i64 {
    match row.get("n") {
        Some(Value::Int(n)) => *n,
        other => panic!("{other:?}"),
    }
}

fn all(ranges: &[Range<i64>]) -> Vec<i64> {
    let mut numbers: Vec<i64> = ranges.iter().cloned().flatten().collect();
    numbers.sort_unstable();
    numbers
}

/// Scenario: two servers take events; batches, small files, merged files and Parquet of each come into the bucket by turns.
/// Guarantees: after each turn both answer from all rows, each once.
#[test]
fn both_see_everything_once() {
    let world = World::new();
    let (mut a, mut b) = (world.server("a"), world.server("b"));
    let mut taken: Vec<Range<i64>> = Vec::new();
    for round in 0..40_i64 {
        let (one, two) = (round * 200..round * 200 + 90, round * 200 + 100..round * 200 + 130);
        a.put(one.clone());
        b.put(two.clone());
        taken.extend([one, two]);
        match round % 5 {
            1 => a.flush(),
            2 => b.flush(),
            3 => a.tend(None),
            4 if round > 20 => a.tend(Some(Millis(1))),
            _ => {}
        }
        for server in [&mut a, &mut b] {
            assert_eq!(server.turn(), None);
        }
        assert_eq!(a.turn(), None);
        assert_eq!(a.numbers(), all(&taken), "round {round}");
        assert_eq!(b.numbers(), all(&taken), "round {round}");
        assert_eq!(a.store.rows(), all(&taken).len() as u64);
    }
    // What is in files is in no tail any more.
    a.flush();
    a.turn();
    assert!(world.objects("team/prod/events/tail/a").is_empty());
    assert!(!world.objects("team/prod/events/files/a").is_empty());
}

/// Scenario: a server dies without a word, its disk with it, or comes back.
/// Guarantees: what it had sent is in the answers of the other, and it goes on where it was.
#[test]
fn a_server_that_dies_takes_nothing_along() {
    let world = World::new();
    let (mut a, mut b) = (world.server("a"), world.server("b"));
    a.put(0..50);
    a.turn();
    a.put(50..60);
    a.turn();
    // Not sent: only a has it.
    a.put(60..70);
    drop(a);
    b.put(1_000..1_010);
    b.turn();
    assert_eq!(b.numbers(), all(&[0..60, 1_000..1_010]));
    let mut a = world.server("a");
    a.turn();
    assert_eq!(a.numbers(), all(&[0..70, 1_000..1_010]));
    b.turn();
    assert_eq!(b.numbers(), all(&[0..70, 1_000..1_010]));
    drop(a);
    // A new disk has a new id; the old one's events stay.
    let mut c = world.server("c");
    c.turn();
    assert_eq!(c.numbers(), all(&[0..70, 1_000..1_010]));
}

/// Guarantees: a client that sends a batch to the second server because the first did not answer has it stored once.
#[test]
fn a_batch_sent_to_both_is_stored_once() {
    let world = World::new();
    let (mut a, mut b) = (world.server("a"), world.server("b"));
    assert!(matches!(a.put(0..5), Appended::Stored(_)));
    a.turn();
    b.turn();
    assert_eq!(b.put(0..5), Appended::Duplicate);
    b.turn();
    assert_eq!(b.numbers(), (0..5).collect::<Vec<i64>>());
}

/// Guarantees: without the bucket events are taken and shown, answers say what is missing, and all is made up for afterwards.
#[test]
fn a_bucket_that_is_down_stops_nobody() {
    let world = World::new();
    let (mut a, mut b) = (world.server("a"), world.server("b"));
    b.put(1_000..1_010);
    b.turn();
    world.bucket.down.store(true, Ordering::Relaxed);
    a.put(0..5);
    assert!(a.turn().unwrap().contains("down"));
    let query = Query::new(Timestamp::from_nanos(0), Timestamp::from_nanos(i64::MAX));
    let answer = a.store.query(&query).unwrap();
    assert!(answer.incomplete[0].contains("other servers may be missing"), "{:?}", answer.incomplete);
    // What became a file meanwhile is sent as a file.
    a.flush();
    a.put(5..9);
    assert!(a.turn().is_some());
    world.bucket.down.store(false, Ordering::Relaxed);
    assert_eq!(a.turn(), None);
    assert_eq!(b.turn(), None);
    assert_eq!(a.numbers(), all(&[0..9, 1_000..1_010]));
    assert_eq!(b.numbers(), all(&[0..9, 1_000..1_010]));
}

/// Guarantees: what does not fit on this disk is in the bucket alone, is answered from there, and survives a restart.
#[test]
fn what_is_too_much_here_is_read_from_the_bucket() {
    let world = World::new();
    let small = |options: &mut Options| options.local_bytes_max = Some(1);
    let mut a = world.server_with("a", "a", small);
    a.put(0..50);
    a.flush();
    a.tend(Some(Millis(1)));
    a.put(50..60);
    a.flush();
    assert_eq!(a.turn(), None);
    assert!(a.store.local_files().iter().all(|file| file.away));
    assert_eq!(a.numbers(), (0..60).collect::<Vec<i64>>());
    a.put(60..70);
    a.turn();
    drop(a);
    let mut a = world.server_with("a", "a", small);
    a.turn();
    assert_eq!(a.numbers(), (0..70).collect::<Vec<i64>>());
    assert_eq!(a.turn(), None);
    assert_eq!(a.numbers(), (0..70).collect::<Vec<i64>>());
}

/// Guarantees: the cache keeps to its bound, and what was let go is brought again.
#[test]
fn the_cache_is_bounded() {
    let world = World::new();
    let mut a = world.server("a");
    for n in 0..4 {
        a.put(n * 10..n * 10 + 10);
        a.flush();
    }
    a.turn();
    let mut b = world.server_with("b", "b", |options| options.cache.1 = 1);
    b.turn();
    assert_eq!(b.numbers(), (0..40).collect::<Vec<i64>>());
    b.turn();
    let kept = walk(&world.dir.path().join("b/events/others"));
    assert_eq!(kept, 1, "only what came last");
    assert_eq!(b.numbers(), (0..40).collect::<Vec<i64>>());
}

fn walk(dir: &std::path::Path) -> usize {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|p| if p.is_dir() { walk(&p) } else { 1 })
        .sum()
}

/// Guarantees: a file of another that is damaged on this disk is brought anew; one that is damaged in the bucket is named.
#[test]
fn damage_is_named_or_mended() {
    let world = World::new();
    let (mut a, mut b) = (world.server("a"), world.server("b"));
    a.put(0..50);
    a.flush();
    a.turn();
    b.turn();
    let object = Path::from(world.objects("team/prod/events/files/a").pop().unwrap());
    let get = async { world.bucket.inner.get(&object).await.unwrap().bytes().await.unwrap() };
    let sound = world.runtime.block_on(get);
    let put = |bytes: Vec<u8>| world.runtime.block_on(world.bucket.inner.put(&object, bytes.into())).unwrap();
    let mut broken = sound.to_vec();
    broken[100] ^= 1;
    put(broken);
    let query = Query::new(Timestamp::from_nanos(0), Timestamp::from_nanos(i64::MAX));
    let answer = b.store.query(&query).unwrap();
    assert!(answer.incomplete[0].contains("checksum"), "{:?}", answer.incomplete);
    put(sound.to_vec());
    b.turn();
    assert_eq!(b.numbers(), (0..50).collect::<Vec<i64>>());
}

/// Guarantees: two servers under one id are told so, and neither overwrites the other.
#[test]
fn a_copied_directory_is_noticed() {
    let world = World::new();
    let (mut a, mut copy) = (world.server_with("a", "a", |_| ()), world.server_with("a", "copy", |_| ()));
    a.put(0..5);
    assert_eq!(a.turn(), None);
    copy.put(100..105);
    assert!(matches!(copy.worker.turn(true), Err(Failure::Double(_))));
    assert_eq!(a.turn(), None);
    assert_eq!(a.numbers(), (0..5).collect::<Vec<i64>>());
}

/// Guarantees: what is older than events are kept goes from the bucket, too.
#[test]
fn old_files_go_from_the_bucket() {
    let world = World::new();
    let mut a = world.server_with("a", "a", |options| options.drop_after = Some(Millis::from_secs(60)));
    a.put(0..5);
    a.flush();
    a.turn();
    assert_eq!(world.objects("team/prod/events/files/a").len(), 1);
    let keep = Keep { drop_after: Some(Millis::from_secs(60)), ..Keep::default() };
    a.store.forget(&keep, Timestamp::from_nanos(i64::MAX)).unwrap();
    a.turn();
    assert!(world.objects("team/prod/events/files/a").is_empty());
    assert!(a.numbers().is_empty());
}

/// Guarantees: a merged file's predecessors may go only when it is there itself.
#[test]
fn only_what_was_replaced_goes() {
    let name =
        |first: u64, last: u64| format!("2025-11-24/16/{first:020}-{last:020}-{:016x}-{:016x}-1-00000000.arrow", 1, 2);
    let file = |first, last| events::LocalFile::of(&format!("events/{}", name(first, last))).unwrap();
    let mut listed = Listed::default();
    for (first, last) in [(0, 3), (4, 7)] {
        listed.files.insert(format!("a/{}", name(first, last)), 1);
    }
    let merged = [file(0, 7)];
    assert!(view::superseded(&listed, "a", &merged).is_empty(), "the merged file is not there yet");
    listed.files.insert(format!("a/{}", name(0, 7)), 1);
    assert_eq!(view::superseded(&listed, "a", &merged).len(), 2);
    assert_eq!(view::wanted(&listed).files, [(format!("a/{}", name(0, 7)), 1)]);
    listed.tail = vec![(6, 9), (8, 9), (10, 12)];
    assert_eq!(view::wanted(&listed).tail, [((6, 9), 8), ((10, 12), 10)]);
}

#[test]
fn names_and_tails_are_read_back() {
    let prefix = Path::from("x/y");
    let tail = key::tail(&prefix, "s", (3, 5));
    assert_eq!(key::parse(&prefix, &tail), Some(Key::Tail { server: "s".into(), first: 3, last: 5 }));
    let file = key::file(&prefix, "s", "2025-11-24/16/name.arrow");
    let path = "s/2025-11-24/16/name.arrow".to_owned();
    assert_eq!(key::parse(&prefix, &file), Some(Key::File { server: "s".into(), path }));
    assert_eq!(key::parse(&prefix, &Path::from("x/y/events/tail/s/9-3")), None);
    assert_eq!(key::parse(&prefix, &Path::from("x/other")), None);

    let payloads = [b"".as_slice(), b"one", &[7; 300]];
    let bytes = tail::encode(payloads.into_iter());
    let back = tail::decode(&Bytes::from(bytes.clone())).unwrap();
    assert!(back.iter().map(|payload| &payload[..]).eq(payloads));
    for n in 0..bytes.len() {
        assert_eq!(tail::decode(&Bytes::from(bytes[..n].to_vec())), None, "cut at {n}");
        let mut broken = bytes.clone();
        broken[n] ^= 0x10;
        assert_eq!(tail::decode(&Bytes::from(broken)), None, "changed at {n}");
    }
}

#[test]
fn addresses() {
    let error = |text: &str| Place::open(text).unwrap_err().to_string();
    assert!(error("bucket/prefix").contains("s3://bucket/prefix"));
    assert!(error("ftp://bucket/x").contains("ftp:// is not known"));
    let secret = error("s3://key:hunter2@bucket/x");
    assert!(secret.contains("environment") && !secret.contains("hunter2"), "{secret}");
}
