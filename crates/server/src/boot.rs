//! Opening a data directory and starting everything; going down in order.

use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use audit::Log;
use auth::{Role, TokenHash};
use axum::Router;
use control::{Command, State};
use events::Store;
use files::{Disk, Files, LockError};
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};
use vocab::Id;

use crate::api;
use crate::app::{App, Emergency, Plane, now};
use crate::intake;
use crate::known_names::KnownNames;
use crate::lifecycle::{self, Lifecycle};
use crate::log_templates::LogTemplates;
use crate::recent::Recent;
use crate::tap::Tap;
use crate::tending;
use crate::watch as watcher;

/// Requests under way get this long when the server goes down.
const DRAIN: Duration = Duration::from_secs(5);

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory.
    pub data: PathBuf,
    /// Where to listen.
    pub listen: SocketAddr,
    /// Further addresses with the same services (OTLP's standard ports).
    pub also_listen: Vec<SocketAddr>,
    /// Ports on loopback for flagd's clients: evaluation, health, sync, OFREP; all or none.
    pub flagd_ports: Vec<u16>,
    /// How often one token, or on flagd's ports one address, may ask by OFREP; none is without end.
    pub ofrep_rate: Option<flagd::limit::Rate>,
    /// Whose pages may evaluate; none keeps all others than our own out.
    pub cors: Option<flagd::http::Cors>,
    /// Whether changes of flags go past the guard on jumps.
    pub dev: bool,
    /// How long events are kept, and in what form.
    pub keep: events::Keep,
    /// Events that make a segment; [`events::SEGMENT_ROWS`] but in tests.
    pub segment_rows: usize,
    /// Different names of attributes that are taken.
    pub names_max: usize,
    /// Which environment this is; none is as before.
    pub environment: Option<control::Environment>,
    /// Where events are shared with other servers; none keeps them here alone.
    pub bucket: Option<Bucket>,
}

/// How events are shared.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// Which bucket.
    pub place: bucket::Place,
    /// Whether senders are answered only when their events are in the bucket, too.
    pub acknowledge: bool,
    /// At most so many bytes of other servers' files are kept on this disk.
    pub cache_bytes_max: u64,
}

/// Says which environment it is, if that is news; refuses to be another.
pub(crate) fn be_environment(app: &App, environment: Option<&control::Environment>) -> Result<(), BootError> {
    let known = app.state.load().environment().cloned();
    match environment {
        Some(environment) if known.as_ref() != Some(environment) => {
            let command = Command::EnvironmentSet(environment.clone());
            let refused = |problem: crate::problem::Problem| BootError::Environment(problem.detail);
            app.commit(command, "system:boot", "started as").map(|_| ()).map_err(refused)
        }
        _ => Ok(()),
    }
}

/// Why a server cannot run.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The data directory.
    #[error("data directory")]
    Lock(#[from] LockError),
    /// The data directory is that of another environment.
    #[error("{0}: an environment has a data directory of its own")]
    Environment(String),
    /// The audit log.
    #[error("audit log")]
    Audit(#[from] audit::OpenError),
    /// The event store.
    #[error("event store")]
    Events(#[from] events::OpenError),
    /// The address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// One of flagd's ports is taken.
    #[error(transparent)]
    Flagd(#[from] flagd::listen::ListenError),
    /// Something of the machine.
    #[error("{what}")]
    Machine {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What a started server tells.
#[derive(Clone, Debug)]
pub struct Started {
    /// Where it listens.
    pub address: SocketAddr,
    /// The first admin token, on the first start only.
    pub admin_token: Option<String>,
    /// What was damaged.
    pub findings: Vec<String>,
}

fn secret(files: &dyn Files, path: &str) -> Result<[u8; 32], BootError> {
    let machine = |what: &str| {
        let what = what.to_owned();
        move |source| BootError::Machine { what, source }
    };
    if let Ok(bytes) = files.read(path) {
        if let Ok(key) = <[u8; 32]>::try_from(bytes) {
            return Ok(key);
        }
    }
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|e| machine("no randomness")(std::io::Error::other(e.to_string())))?;
    files.replace(path, &key).map_err(machine("cannot write the installation's key"))?;
    Ok(key)
}

/// Only the owner reads what is in the data directory: it holds keys.
fn owner_only(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
}

pub(crate) type Opened = (Arc<App>, mpsc::Receiver<intake::Job>, Vec<String>);

pub(crate) fn open(options: &Options) -> Result<Opened, BootError> {
    let disk = Disk::lock(&options.data)?;
    owner_only(&options.data)
        .map_err(|source| BootError::Machine { what: "cannot protect the data directory".into(), source })?;
    let files: Arc<dyn Files> = Arc::new(disk);
    let mut log_secret = [0; 32];
    getrandom::fill(&mut log_secret).map_err(|e| BootError::Machine {
        what: "no randomness".into(),
        source: std::io::Error::other(e.to_string()),
    })?;
    let mut state = State::default();
    let log = Log::open(files.clone(), "seaworthy.local/audit", log_secret, |index, bytes| state.apply(index, bytes))?;
    let key = secret(&*files, "key")?;
    let mut tap = Tap::default();
    let mut from: HashMap<Id, u64> = HashMap::new();
    let ended_lately = |e: &experiments::Experiment| {
        !e.phase.is_live()
            && files.read(&watcher::report_path(e.id)).is_err()
            && files.read(&watcher::tally_path(e.id)).is_ok()
    };
    for experiment in state.experiments().filter(|e| e.phase.is_live() || ended_lately(e)) {
        let checkpoint = files.read(&watcher::tally_path(experiment.id)).ok();
        from.insert(experiment.id, tap.watch(experiment, checkpoint.as_deref()));
    }
    let mut findings = Vec::new();
    let known_names = KnownNames::open(&*files, options.names_max, &mut findings);
    let store = Store::with_segments_of(options.segment_rows, files.clone(), "events", |number, received, rows| {
        known_names.learn(rows);
        tap.take(number, received, rows, &|id| from.get(&id).copied().unwrap_or(0));
    })?;
    tap.set_next(store.next_batch());
    findings.extend(store.findings().iter().cloned());
    findings.extend(state.skipped().iter().map(|index| format!("audit entry {index} cannot be read and was skipped")));
    let recent = Arc::new(Recent::default());
    let lifecycle = Lifecycle::open(&*files, &recent, !state.flags().is_empty(), &mut findings);
    let log_templates = LogTemplates::open(&*files, &mut findings);
    let (intake, jobs) = mpsc::channel(intake::QUEUE);
    // Versions grow over restarts, so that no proxy takes a new snapshot for one it has.
    let version = (now().nanos() / 1_000_000) as u64;
    let app = App {
        plane: Mutex::new(Plane { state: state.clone(), log }),
        state: Default::default(),
        flags: Default::default(),
        recent,
        lifecycle,
        log_templates,
        previews: Arc::new(crate::previews::Previews::new(key)),
        dev: options.dev,
        hub: Arc::new(flagd::Hub::new(serde_json::Map::new())),
        ofrep_rate: options.ofrep_rate,
        cors: options.cors.clone(),
        proxy_snapshot: watch::channel(Arc::new((0, String::new()))).0,
        proxies: Mutex::default(),
        emergency: Mutex::new(Emergency::default()),
        store: Arc::new(store),
        #[cfg(feature = "sql")]
        sql: sql::Engine::start().map_err(|source| BootError::Machine { what: "threads for SQL".into(), source })?,
        tap: Mutex::new(tap),
        intake,
        news: broadcast::channel(1_024).0,
        files,
        pass: flagd::Pass(key),
        redactor: otlp::Redactor::new(key),
        known_names,
        key_hex: key.iter().map(|b| format!("{b:02x}")).collect(),
        data_dir: options.data.display().to_string(),
        rows_in: AtomicU64::new(0),
        rows_per_second: AtomicU64::new(0),
        disk_full: AtomicBool::new(false),
        version: AtomicU64::new(version),
        publishing: Mutex::default(),
        checkpointing: Mutex::default(),
        keep_from: Default::default(),
        watched_at: Mutex::new(std::time::Instant::now()),
        mirror: OnceLock::new(),
        acknowledge_in_bucket: options.bucket.as_ref().is_some_and(|bucket| bucket.acknowledge),
    };
    app.publish(&state);
    Ok((Arc::new(app), jobs, findings))
}

/// The id of this server among those that share a bucket; made on the first start with one.
fn bucket_id(files: &dyn Files) -> Result<String, BootError> {
    const PATH: &str = "bucket-id";
    let known = files.read(PATH).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let is_id = |id: &str| id.len() == 16 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if let Some(id) = known.as_deref().map(str::trim).filter(|id| is_id(id)) {
        return Ok(id.to_owned());
    }
    let machine = |what: &str, source| BootError::Machine { what: what.to_owned(), source };
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| machine("no randomness", std::io::Error::other(e.to_string())))?;
    let id: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    files.replace(PATH, id.as_bytes()).map_err(|e| machine("cannot write bucket-id", e))?;
    Ok(id)
}

fn share(app: &Arc<App>, options: &Options, bucket: &Bucket) -> Result<bucket::Mirror, BootError> {
    let keep_from = {
        let app = Arc::downgrade(app);
        move || app.upgrade().map_or(0, |app| app.keep_from.load(Ordering::Acquire))
    };
    let sharing = bucket::Options {
        place: bucket.place.clone(),
        server: bucket_id(&*app.files)?,
        cache: (options.data.join("events/others"), bucket.cache_bytes_max),
        local_bytes_max: options.keep.bytes_max,
        drop_after: options.keep.drop_after,
        keep_from: Box::new(keep_from),
    };
    bucket::Mirror::start(app.store.clone(), sharing, tokio::runtime::Handle::current())
        .map_err(|source| BootError::Machine { what: "cannot share events".into(), source })
}

pub(crate) fn first_token(app: &App) -> Result<Option<String>, BootError> {
    if app.state.load().tokens().next().is_some() {
        return Ok(None);
    }
    let machine = |detail: String| BootError::Machine { what: detail, source: std::io::ErrorKind::Other.into() };
    let token = api::fresh_token().map_err(|p| machine(p.detail))?;
    let command =
        Command::TokenCreate { name: "admin".into(), role: Role::Admin, hash: TokenHash::of(&token), expires: None };
    app.commit(command, "system:boot", "first start").map_err(|p| machine(p.detail))?;
    Ok(Some(token))
}

/// What flagd serves on its ports: evaluation, health, sync, OFREP.
const FLAGD: [fn(&App) -> Router; 4] = [
    |app| app.open_to_pages(flagd::http::evaluation(&app.face(None)).fallback(flagd::http::unimplemented)),
    |app| {
        let health = Arc::new(flagd::http::Health::default());
        health.ready.store(true, Ordering::Relaxed);
        flagd::http::management(&app.face(None), &health)
    },
    |app| flagd::http::sync(&app.face(None)).fallback(flagd::http::unimplemented),
    |app| app.open_to_pages(flagd::http::ofrep(&app.face(None))),
];

/// Runs until `stop` is ready. `started` is told the address and, on the first start, the admin token.
pub async fn run(
    options: Options,
    started: impl FnOnce(Started),
    stop: impl Future<Output = ()> + Send + 'static,
) -> Result<(), BootError> {
    let listen = |address: SocketAddr| async move {
        TcpListener::bind(address).await.map_err(|source| BootError::Listen { address, source })
    };
    let listener = listen(options.listen).await?;
    let mut others = Vec::new();
    for address in &options.also_listen {
        others.push(listen(*address).await?);
    }
    let mut flagd_ports = Vec::new();
    for (port, router) in options.flagd_ports.iter().zip(FLAGD) {
        // Loopback only: flagd's protocols know no tokens.
        flagd_ports.push((flagd::listen::bind(SocketAddr::from(([127, 0, 0, 1], *port))).await?, router));
    }
    let (app, jobs, findings) = open(&options)?;
    be_environment(&app, options.environment.as_ref())?;
    let admin_token = first_token(&app)?;
    if let Some(bucket) = &options.bucket {
        let _ = app.mirror.set(share(&app, &options, bucket)?);
    }
    let address = listener.local_addr().map_err(|source| BootError::Listen { address: options.listen, source })?;
    started(Started { address, admin_token, findings });

    for (listener, router) in flagd_ports {
        let router = router(&app);
        tokio::spawn(flagd::listen::serve(listener, None, router));
    }
    let stopping = Arc::new(AtomicBool::new(false));
    let intake_thread = std::thread::spawn({
        let app = app.clone();
        move || intake::work(&app, jobs)
    });
    let watch_thread = std::thread::spawn({
        let (app, stopping) = (app.clone(), stopping.clone());
        move || watcher::work(&app, &stopping)
    });
    let tending_thread = std::thread::spawn({
        let (app, mut keep, stopping) = (app.clone(), options.keep, stopping.clone());
        if options.bucket.is_some() {
            // What is too much here goes when it is in the bucket.
            keep.bytes_max = None;
        }
        move || tending::work(&app, &keep, &stopping)
    });
    let lifecycle_thread = std::thread::spawn({
        let (app, stopping) = (app.clone(), stopping.clone());
        move || lifecycle::work(&app, &stopping)
    });
    let router = api::router(app.clone());
    for other in others {
        let router = router.clone();
        tokio::spawn(flagd::listen::serve(other, None, router));
    }
    let (gone, going) = tokio::sync::oneshot::channel::<()>();
    let mut serving = tokio::spawn(async move {
        let stopped = async move {
            stop.await;
            let _ = gone.send(());
        };
        flagd::listen::serve_until(listener, None, router, stopped).await;
    });
    tokio::select! {
        _ = &mut serving => {}
        _ = async { let _ = going.await; tokio::time::sleep(DRAIN).await } => serving.abort(),
    }
    stopping.store(true, Ordering::Relaxed);
    let _ = watch_thread.join();
    tending_thread.thread().unpark();
    let _ = tending_thread.join();
    lifecycle_thread.thread().unpark();
    let _ = lifecycle_thread.join();
    if let Ok(mut plane) = app.plane.lock() {
        let _ = plane.log.publish();
    }
    if app.mirror.get().is_some() {
        let app = app.clone();
        let _ = tokio::task::spawn_blocking(move || app.mirror.get().map(bucket::Mirror::stop)).await;
    }
    drop(intake_thread);
    Ok(())
}
