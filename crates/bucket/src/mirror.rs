//! The thread that copies this server's events to the bucket and looks what others put there.
//!
//! Each second it sends batches that are in no file yet as one object, sends files that are new, and lists the tails of all. Files are
//! listed when a tail has become shorter (its batches are in a file now) and now and then anyway. What a server removes from the
//! bucket it removes only after what takes its place is there, and files that were merged only after a while: who listed
//! them may still ask for them. If the bucket does not answer, events are taken and shown as without one; answers say what may be missing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use events::{Foreign, LocalFile, Store};
use files::Files;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::runtime::Handle;
use vocab::{Millis, Timestamp};

use crate::cache::Cache;
use crate::key::{self, Key};
use crate::place::Place;
use crate::tail;
use crate::view::{self, Listed};

/// How often it sends and looks. Two requests of the kind that providers bill each second are about a dollar a day.
const PAUSE: Duration = Duration::from_secs(1);
/// How often files are listed even if no tail became shorter.
const LIST_FILES: Duration = Duration::from_secs(30);
/// How long merged files stay in the bucket for those who listed them before.
const STAY: Duration = Duration::from_secs(120);
/// Bytes of batches in one object, about.
const OBJECT_BYTES: usize = 8 << 20;
/// With more objects in its tail a server makes a small segment of them, so that others have fewer to read.
const TAIL_MAX: usize = 100;
/// Whoever waits until his events are in the bucket waits no longer than this and two requests that fail: clients give up after ten seconds.
const WAIT_MAX: Duration = Duration::from_secs(4);
/// A request that lists or moves little has failed after this.
const SMALL: Duration = Duration::from_secs(4);
/// One that moves a file.
const LARGE: Duration = Duration::from_secs(60);
/// Answers say that something may be missing when nothing could be listed for so long.
const SILENT: Duration = Duration::from_secs(5);
/// Files of servers that are gone are removed by others, so much later.
const AFTER_OTHERS: Millis = Millis::from_secs(3_600);
/// Looks that are begun anew because something went while it was listed.
const LOOKS_MAX: usize = 3;

/// How to share.
pub struct Options {
    /// Which bucket.
    pub place: Place,
    /// Who this is, among all that use the bucket; the same after each restart.
    pub server: String,
    /// Where files of the bucket are kept on this disk, and at most how many bytes of them.
    pub cache: (PathBuf, u64),
    /// While this server's own files have more bytes than that here, the oldest are in the bucket alone.
    pub local_bytes_max: Option<u64>,
    /// Files whose newest event is older are removed from the bucket.
    pub drop_after: Option<Millis>,
    /// Below this number batches need not stay in the write-ahead log.
    pub keep_from: Box<dyn Fn() -> u64 + Send>,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options").field("place", &self.place.name).field("server", &self.server).finish_non_exhaustive()
    }
}

/// How it goes.
#[derive(Clone, Debug, Default)]
pub struct Standing {
    /// Batches below this are in the bucket.
    pub sent_to: u64,
    /// Other servers with events in the bucket.
    pub others: usize,
    /// When all was last looked at.
    pub looked: Option<Timestamp>,
    /// What does not work at present.
    pub problem: Option<String>,
}

type Then = Box<dyn FnOnce(bool) + Send>;

enum Asked {
    /// Say when all batches up to and with this one are in the bucket.
    Sent(u64, Then),
    Stop,
}

/// See the module. Its thread ends with [`Mirror::stop`].
pub struct Mirror {
    asked: mpsc::Sender<Asked>,
    standing: Arc<Mutex<Standing>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mirror").field("standing", &self.standing()).finish_non_exhaustive()
    }
}

impl Mirror {
    /// Starts the thread. What is only in the write-ahead log becomes a file first.
    pub fn start(store: Arc<Store>, options: Options, runtime: Handle) -> io::Result<Mirror> {
        let worker = Worker::new(store, options, runtime)?;
        let standing = worker.standing.clone();
        let (asked, requests) = mpsc::channel();
        let thread = std::thread::Builder::new().name("bucket".into()).spawn(move || worker.work(&requests))?;
        Ok(Mirror { asked, standing, thread: Mutex::new(Some(thread)) })
    }

    /// Calls `then` with true when all batches up to and with `last` are in the bucket, with false if that takes too long.
    pub fn when_sent(&self, last: u64, then: Box<dyn FnOnce(bool) + Send>) {
        if let Err(mpsc::SendError(Asked::Sent(_, then))) = self.asked.send(Asked::Sent(last, then)) {
            then(false);
        }
    }

    /// How it goes.
    pub fn standing(&self) -> Standing {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Sends what is left, if the bucket answers, and ends.
    pub fn stop(&self) {
        let _ = self.asked.send(Asked::Stop);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let _ = thread.map(JoinHandle::join);
    }
}

/// What went wrong with the bucket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{0}")]
    Bucket(#[from] object_store::Error),
    #[error("no answer within {0} s")]
    Silent(u64),
    #[error("{0}")]
    Events(#[from] events::OpenError),
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error(
        "another server writes to the bucket under this server's id ({0}): a data directory was copied; \
         remove `bucket-id` from one of the copies and restart it"
    )]
    Double(String),
    #[error("{0} is damaged")]
    Damaged(Path),
    /// Something was removed between listing and reading.
    #[error("the bucket changes faster than it can be listed")]
    Changing,
}

/// What the thread does, a turn at a time.
pub(crate) struct Worker {
    store: Arc<Store>,
    cache: Arc<Cache>,
    /// The same.
    files: Arc<dyn Files>,
    options: Options,
    runtime: Handle,
    standing: Arc<Mutex<Standing>>,
    /// Batches below this are in the bucket.
    sent_to: u64,
    /// Paths of own files that are in the bucket, below the store's directory; none before the first look.
    there: Option<BTreeSet<String>>,
    /// First and last batch of own objects in the tail.
    own_tail: BTreeSet<(u64, u64)>,
    /// Own files that were merged, and since when.
    going: HashMap<String, Instant>,
    /// What was listed of all.
    servers: BTreeMap<String, Listed>,
    /// What is shown, by path of the file, or by server and first batch.
    shown: BTreeMap<(String, u64), Foreign>,
    listed_at: Option<Instant>,
    /// When a look last succeeded.
    looked_at: Instant,
    waiting: Vec<(u64, Instant, Then)>,
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

impl Worker {
    pub(crate) fn new(store: Arc<Store>, options: Options, runtime: Handle) -> io::Result<Worker> {
        store.share();
        store.flush((options.keep_from)(), true).map_err(io::Error::other)?;
        let (dir, bytes_max) = options.cache.clone();
        let cache = Arc::new(Cache::open(options.place.clone(), dir, bytes_max, runtime.clone())?);
        Ok(Worker {
            files: cache.clone(),
            store,
            cache,
            options,
            runtime,
            standing: Arc::default(),
            sent_to: 0,
            there: None,
            own_tail: BTreeSet::new(),
            going: HashMap::new(),
            servers: BTreeMap::new(),
            shown: BTreeMap::new(),
            listed_at: None,
            looked_at: Instant::now(),
            waiting: Vec::new(),
        })
    }

    fn work(mut self, requests: &mpsc::Receiver<Asked>) {
        let mut next_turn = Instant::now();
        let mut complained = String::new();
        loop {
            let stop = self.hear(requests, next_turn);
            // A fault of ours in one turn must not end the copying.
            let turn = std::panic::AssertUnwindSafe(|| self.turn(stop || next_turn <= Instant::now()));
            let done =
                std::panic::catch_unwind(turn).unwrap_or_else(|_| Err(io::Error::other("a turn panicked").into()));
            let problem = done.err().map(|failure| format!("the bucket {}: {failure}", self.options.place.name));
            match &problem {
                Some(problem) if *problem != complained => {
                    tracing::warn!(problem, "events are not shared; they are kept here meanwhile");
                    complained.clone_from(problem);
                }
                None if !complained.is_empty() => {
                    tracing::info!("events are shared again");
                    complained.clear();
                }
                _ => {}
            }
            self.tell(problem);
            if stop {
                return;
            }
            let now = Instant::now();
            if next_turn <= now || !complained.is_empty() {
                next_turn = now + PAUSE;
            }
        }
    }

    /// Waits for the next turn or for somebody who wants his events in the bucket at once; whether it is time to end.
    fn hear(&mut self, requests: &mpsc::Receiver<Asked>, until: Instant) -> bool {
        let mut wait = until.saturating_duration_since(Instant::now());
        loop {
            match requests.recv_timeout(wait) {
                Ok(Asked::Sent(last, then)) => {
                    self.waiting.push((last, Instant::now() + WAIT_MAX, then));
                    // Those that come at the same time share an object.
                    wait = Duration::ZERO;
                }
                Ok(Asked::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
                Err(RecvTimeoutError::Timeout) => return false,
            }
        }
    }

    /// Sends, and looks what others have if `look`.
    pub(crate) fn turn(&mut self, look: bool) -> Result<(), Failure> {
        if self.there.is_none() {
            self.find_own()?;
        }
        self.send_tail()?;
        if look {
            if self.own_tail.len() > TAIL_MAX {
                self.store.flush((self.options.keep_from)(), true)?;
            }
            self.send_files()?;
            self.look()?;
            self.clean_up()?;
        }
        Ok(())
    }

    /// Tells askers, answers and whoever waits how it stands.
    pub(crate) fn tell(&mut self, problem: Option<String>) {
        let now = Instant::now();
        let sent_to = self.sent_to;
        for (last, until, then) in std::mem::take(&mut self.waiting) {
            match last < sent_to {
                true => then(true),
                false if until <= now => then(false),
                false => self.waiting.push((last, until, then)),
            }
        }
        let missing =
            problem.as_ref().filter(|_| now.duration_since(self.looked_at) > SILENT || self.listed_at.is_none());
        let missing = missing.map(|problem| format!("events of other servers may be missing: {problem}"));
        let shown: Vec<Foreign> = self.shown.values().cloned().collect();
        self.store.show_others(&shown, missing);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.sent_to = sent_to;
        standing.others = self.servers.keys().filter(|server| **server != self.options.server).count();
        standing.problem = problem;
        if standing.problem.is_none() {
            standing.looked = Some(self::now());
        }
    }

    fn list(&self, below: &Path) -> Result<Vec<(Key, u64)>, Failure> {
        let prefix = &self.options.place.prefix;
        let listed = self.options.place.store.list(Some(below));
        let objects: Vec<object_store::ObjectMeta> = self.within(SMALL, listed.try_collect())?;
        Ok(objects.iter().filter_map(|object| Some((key::parse(prefix, &object.location)?, object.size))).collect())
    }

    /// Carries a request out, if it does not take too long.
    fn within<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = Result<T, object_store::Error>>,
    ) -> Result<T, Failure> {
        let limited = async { tokio::time::timeout(limit, request).await };
        Ok(self.runtime.block_on(limited).map_err(|_| Failure::Silent(limit.as_secs()))??)
    }

    fn put(&self, location: &Path, bytes: Vec<u8>, mode: PutMode, limit: Duration) -> Result<(), Failure> {
        let options = PutOptions { mode, ..PutOptions::default() };
        self.within(limit, self.options.place.store.put_opts(location, bytes.into(), options)).map(|_| ())
    }

    fn delete(&self, location: &Path) -> Result<(), Failure> {
        match self.within(SMALL, self.options.place.store.delete(location)) {
            Err(Failure::Bucket(object_store::Error::NotFound { .. })) => Ok(()),
            done => done,
        }
    }

    fn read(&self, location: &Path) -> Result<bytes::Bytes, Failure> {
        self.within(SMALL, async { self.options.place.store.get(location).await?.bytes().await })
    }

    /// What this server has in the bucket from before.
    fn find_own(&mut self) -> Result<(), Failure> {
        let (prefix, server) = (&self.options.place.prefix, &self.options.server);
        let mut there = BTreeSet::new();
        for (key, _) in self.list(&key::files(prefix).join(server.as_str()))? {
            if let Key::File { path, .. } = key {
                there.insert(view::below_events(&path).to_owned());
            }
        }
        for (key, _) in self.list(&key::tails(prefix).join(server.as_str()))? {
            if let Key::Tail { first, last, .. } = key {
                self.own_tail.insert((first, last));
            }
        }
        self.there = Some(there);
        self.send_files()
    }

    /// Batches that are in no file yet.
    fn send_tail(&mut self) -> Result<(), Failure> {
        loop {
            let batches = self.store.unsent(OBJECT_BYTES);
            let (Some((first, _)), Some((last, _))) = (batches.first(), batches.last()) else { return Ok(()) };
            if *first > self.sent_to {
                // What is between became a file before it was sent.
                self.send_files()?;
            }
            let location = key::tail(&self.options.place.prefix, &self.options.server, (*first, *last));
            let bytes = tail::encode(batches.iter().map(|(_, payload)| &payload[..]));
            match self.put(&location, bytes.clone(), PutMode::Create, SMALL) {
                Ok(()) => {}
                // The answer to an earlier try was lost, unless somebody else is at it.
                Err(Failure::Bucket(object_store::Error::AlreadyExists { .. })) if self.read(&location)? == bytes => {}
                Err(Failure::Bucket(object_store::Error::AlreadyExists { .. })) => {
                    return Err(Failure::Double(self.options.server.clone()));
                }
                Err(e) => return Err(e),
            }
            self.store.sent(*last);
            self.own_tail.insert((*first, *last));
            self.sent_to = self.sent_to.max(*last + 1);
        }
    }

    /// Files that are not in the bucket yet.
    fn send_files(&mut self) -> Result<(), Failure> {
        let prefix = self.options.place.prefix.clone();
        let mut stored_to = 0;
        for file in self.store.local_files() {
            let below = view::below_events(&file.path).to_owned();
            stored_to = stored_to.max(file.batches.1 + 1);
            if file.away || self.there.as_ref().is_some_and(|there| there.contains(&below)) {
                continue;
            }
            // Merged into another meanwhile, which comes next time.
            let Some(main) = self.store.file_bytes(&file.path)? else { return Ok(()) };
            let location = key::file(&prefix, &self.options.server, &below);
            if let Some(stem) = file.path.strip_suffix(".arrow") {
                // The second file first: who sees the first one asks for both.
                if let Some(second) = self.store.file_bytes(&format!("{stem}.sparse.arrow"))? {
                    let below = format!("{}.sparse.arrow", below.trim_end_matches(".arrow"));
                    self.put(&key::file(&prefix, &self.options.server, &below), second, PutMode::Overwrite, LARGE)?;
                }
            }
            self.put(&location, main, PutMode::Overwrite, LARGE)?;
            self.there.get_or_insert_default().insert(below);
        }
        self.sent_to = self.sent_to.max(stored_to);
        for (first, last) in self.own_tail.clone() {
            if last < stored_to {
                self.delete(&key::tail(&prefix, &self.options.server, (first, last)))?;
                self.own_tail.remove(&(first, last));
            }
        }
        if let Some(bytes_max) = self.options.local_bytes_max {
            let there = |path: &str| {
                let below = view::below_events(path);
                let is_there = self.there.as_ref().is_some_and(|there| there.contains(below));
                is_there.then(|| format!("{}/{below}", self.options.server))
            };
            self.store.move_out(bytes_max, &self.files, there)?;
        }
        Ok(())
    }

    /// What others have.
    fn look(&mut self) -> Result<(), Failure> {
        for _ in 0..LOOKS_MAX {
            match self.look_once() {
                Err(Failure::Changing) => self.listed_at = None,
                done => return done,
            }
        }
        Err(Failure::Changing)
    }

    fn look_once(&mut self) -> Result<(), Failure> {
        let prefix = self.options.place.prefix.clone();
        // Tails before files: what goes from a tail in between is in a file that is listed then.
        let tails = view::by_server(self.list(&key::tails(&prefix))?.into_iter());
        let shorter = |server: &str, old: &Listed| {
            let now = tails.get(server);
            old.tail.iter().any(|object| now.is_none_or(|now| !now.tail.contains(object)))
        };
        if self.listed_at.is_none_or(|at| at.elapsed() >= LIST_FILES) {
            self.servers = view::by_server(self.list(&key::files(&prefix))?.into_iter());
            self.listed_at = Some(Instant::now());
        } else {
            let new = tails.keys().filter(|server| !self.servers.contains_key(*server));
            let changed = self.servers.iter().filter(|(server, old)| shorter(server, old)).map(|(server, _)| server);
            let changed: Vec<String> = new.chain(changed).cloned().collect();
            for server in changed {
                let listed = view::by_server(self.list(&key::files(&prefix).join(server.as_str()))?.into_iter());
                let files = listed.into_iter().next().map(|(_, listed)| listed.files).unwrap_or_default();
                self.servers.entry(server).or_default().files = files;
            }
        }
        for listed in self.servers.values_mut() {
            listed.tail.clear();
        }
        for (server, listed) in tails {
            self.servers.entry(server).or_default().tail = listed.tail;
        }
        self.show()?;
        self.looked_at = Instant::now();
        Ok(())
    }

    /// Takes what is wanted from what is shown already, or reads it.
    fn show(&mut self) -> Result<(), Failure> {
        for path in self.cache.dropped() {
            self.shown.remove(&(path, 0));
        }
        let damaged: Vec<(String, u64)> =
            self.shown.iter().filter(|(_, foreign)| foreign.is_damaged()).map(|(key, _)| key.clone()).collect();
        for key in damaged {
            // Damaged on its way or on this disk, perhaps: the next who asks brings it anew.
            self.cache.forget(&key.0);
            self.shown.remove(&key);
        }
        let mut shown = BTreeMap::new();
        for (server, listed) in &self.servers {
            let mut listed = listed.clone();
            if *server == self.options.server {
                // Only files that are not here any more, such as after a restart.
                listed.tail.clear();
                let local: Vec<LocalFile> = self.store.local_files();
                let covers =
                    |of: &LocalFile, file: &LocalFile| of.batches.0 <= file.batches.0 && file.batches.1 <= of.batches.1;
                listed.files.retain(|path, _| {
                    // The second file goes with the first.
                    let first = path.replace(".sparse.arrow", ".arrow");
                    LocalFile::of(&first).is_some_and(|file| !local.iter().any(|of| covers(of, &file)))
                });
            }
            let wanted = view::wanted(&listed);
            for (path, bytes) in wanted.files {
                let key = (path, 0);
                let known = self.shown.get(&key).cloned();
                let foreign = known.or_else(|| Foreign::file(&self.files, &key.0, bytes));
                shown.extend(foreign.map(|foreign| (key, foreign)));
            }
            for (object, from) in wanted.tail {
                let key = (format!("{server}/{}-{}", object.0, object.1), from);
                let foreign = match self.shown.get(&key) {
                    Some(known) => known.clone(),
                    None => self.read_tail(server, object, from)?,
                };
                shown.insert(key, foreign);
            }
        }
        self.shown = shown;
        Ok(())
    }

    fn read_tail(&self, server: &str, object: (u64, u64), from: u64) -> Result<Foreign, Failure> {
        let location = key::tail(&self.options.place.prefix, server, object);
        let bytes = match self.read(&location) {
            Err(Failure::Bucket(object_store::Error::NotFound { .. })) => return Err(Failure::Changing),
            read => read?,
        };
        let payloads = tail::decode(&bytes).ok_or_else(|| Failure::Damaged(location.clone()))?;
        let skip = usize::try_from(from.saturating_sub(object.0)).unwrap_or(usize::MAX);
        let new = payloads.iter().skip(skip).map(|payload| &payload[..]);
        let (foreign, keys) = Foreign::batches(from, new).map_err(|_| Failure::Damaged(location))?;
        self.store.remember(&keys);
        Ok(foreign)
    }

    /// Removes what was merged and what is too old.
    fn clean_up(&mut self) -> Result<(), Failure> {
        let prefix = self.options.place.prefix.clone();
        let local = self.store.local_files();
        let mut gone: Vec<String> = Vec::new();
        if let Some(own) = self.servers.get(&self.options.server) {
            let superseded: BTreeSet<&str> = view::superseded(own, &self.options.server, &local).into_iter().collect();
            self.going.retain(|path, _| superseded.contains(path.as_str()));
            for path in superseded {
                let since = *self.going.entry(path.to_owned()).or_insert_with(Instant::now);
                if since.elapsed() >= STAY {
                    gone.push(path.to_owned());
                }
            }
        }
        if let Some(after) = self.options.drop_after {
            let now = now();
            for (server, listed) in &self.servers {
                let is_own = *server == self.options.server;
                let files = listed.files.keys().filter_map(|path| LocalFile::of(path));
                let is_kept = |file: &LocalFile| is_own && local.iter().any(|of| of.batches == file.batches);
                let old = files.filter(|file| {
                    let age = now.since(file.newest);
                    age > after && !is_kept(file) && (is_own || age.0 > after.0 + AFTER_OTHERS.0)
                });
                gone.extend(old.map(|file| file.path));
            }
        }
        for path in gone {
            let Some((server, below)) = path.split_once('/') else { continue };
            self.delete(&key::file(&prefix, server, below))?;
            if let Some(stem) = below.strip_suffix(".arrow") {
                self.delete(&key::file(&prefix, server, &format!("{stem}.sparse.arrow")))?;
            }
            if server == self.options.server {
                self.there.get_or_insert_default().remove(below);
            }
            self.going.remove(&path);
            self.shown.remove(&(path.clone(), 0));
            if let Some(listed) = self.servers.get_mut(server) {
                listed.files.remove(&path);
            }
        }
        Ok(())
    }
}
