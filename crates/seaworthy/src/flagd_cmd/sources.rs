//! Where flags come from. Each source is followed for ever; a version of it that cannot be used is named in the log and the
//! last good one stays in force.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use flagd::Hub;
use flags::{Finding, FlagSet};
use http::{StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use openfeature::Snapshot;
use serde_json::Value;

use super::config::Source;

/// How often a file is looked at. Looking works on every file system and through every way of replacing a file.
const LOOK: Duration = Duration::from_millis(200);
/// How often an address is asked, unless the source says otherwise.
const ASK: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(10);

/// All sources at their last good version; what is not read yet is absent.
#[derive(Debug)]
struct Board {
    hub: Arc<Hub>,
    sources: Vec<Source>,
    sets: Mutex<Vec<Option<FlagSet>>>,
}

impl Board {
    fn put(&self, place: usize, set: FlagSet) {
        let mut sets = self.sets.lock().unwrap_or_else(PoisonError::into_inner);
        sets[place] = Some(set);
        let all = self.sources.iter().zip(&*sets).filter_map(|(source, set)| {
            let snapshot = Snapshot::new(set.clone()?, false);
            Some(flagd::Source { uri: source.uri.clone(), snapshot })
        });
        self.hub.put(all.collect());
    }

    fn take(&self, place: usize, text: &str) -> Result<usize> {
        let uri = &self.sources[place].uri;
        let set = parse(uri, text)?;
        let count = set.flags().len();
        self.put(place, set);
        Ok(count)
    }

    fn take_or_tell(&self, place: usize, text: &str) {
        match self.take(place, text) {
            Ok(count) => tracing::info!(source = %self.sources[place].uri, flags = count, "flags changed"),
            Err(error) => tracing::error!("{error:#}; the last good version stays in force"),
        }
    }
}

fn parse(uri: &str, text: &str) -> Result<FlagSet> {
    let path = uri.split('?').next().unwrap_or(uri);
    let json = if path.ends_with(".yaml") || path.ends_with(".yml") {
        let value: Value = serde_saphyr::from_str(text).map_err(|e| anyhow!("{uri}: {e}"))?;
        value.to_string()
    } else {
        text.to_owned()
    };
    let listed = |findings: &[Finding]| {
        let lines: Vec<String> = findings.iter().take(20).map(|f| format!("  {}: {}", f.place, f.reason)).collect();
        lines.join("\n")
    };
    let (set, broken) =
        FlagSet::parse_leniently(&json).map_err(|findings| anyhow!("{uri} cannot be used:\n{}", listed(&findings)))?;
    if !broken.is_empty() {
        tracing::warn!(
            "{uri}: {} rules cannot be used, their flags answer PARSE_ERROR:\n{}",
            broken.len(),
            listed(&broken)
        );
    }
    Ok(set)
}

/// Reads every source once and follows them from then on; gives the number of flags. A file must be there and right at the
/// start; an address may come later.
pub async fn follow(hub: Arc<Hub>, sources: Vec<Source>) -> Result<usize> {
    let sets = Mutex::new(vec![None; sources.len()]);
    let board = Arc::new(Board { hub, sources, sets });
    let mut count = 0;
    for (place, source) in board.sources.iter().enumerate() {
        let board = board.clone();
        match source.provider.as_str() {
            "file" | "fsnotify" | "fileinfo" => {
                let path = PathBuf::from(&source.uri);
                let mark = mark(&path);
                let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                count += board.take(place, &text)?;
                tokio::spawn(async move { watch_file(&board, place, &path, mark).await });
            }
            "http" => {
                if !source.uri.starts_with("http://") {
                    bail!("source {}: https is not supported yet; put a local proxy in front", source.uri);
                }
                tokio::spawn(async move { ask_again(&board, place).await });
            }
            "grpc" => {
                tokio::spawn(async move { stream(&board, place).await });
            }
            other => bail!("source {}: provider {other:?} is not supported: use file, http or grpc", source.uri),
        }
    }
    Ok(count)
}

type Mark = Option<(SystemTime, u64, u64)>;

/// What changes with the file: through a symbolic link, that of its target.
fn mark(path: &Path) -> Mark {
    use std::os::unix::fs::MetadataExt;
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
}

async fn watch_file(board: &Board, place: usize, path: &Path, mut seen: Mark) {
    let mut last = String::new();
    loop {
        tokio::time::sleep(LOOK).await;
        let present = mark(path);
        if present.is_none() || present == seen {
            continue;
        }
        let Ok(text) = std::fs::read_to_string(path) else { continue };
        // A file that is being written may be read half; it has another mark at the next look then.
        if mark(path) != present {
            continue;
        }
        seen = present;
        if text != last {
            board.take_or_tell(place, &text);
            last = text;
        }
    }
}

async fn ask_again(board: &Board, place: usize) {
    let source = &board.sources[place];
    let client: Client<_, Empty<bytes::Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut etag: Option<http::HeaderValue> = None;
    loop {
        let mut request = http::Request::get(&source.uri);
        if let Some(authorization) = &source.auth_header {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(etag) = &etag {
            request = request.header(header::IF_NONE_MATCH, etag);
        }
        let answer = async {
            let response = client.request(request.body(Empty::new())?).await?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, flags::DOCUMENT_BYTES_MAX).collect().await.map_err(|e| anyhow!(e))?;
            anyhow::Ok((head, body.to_bytes()))
        };
        match tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err(anyhow!("no answer"))) {
            Ok((head, body)) if head.status == StatusCode::OK => {
                let text = String::from_utf8_lossy(&body);
                board.take_or_tell(place, &text);
                etag = head.headers.get(header::ETAG).cloned();
            }
            Ok((head, _)) if head.status == StatusCode::NOT_MODIFIED => {}
            Ok((head, _)) => tracing::warn!(source = %source.uri, status = %head.status, "no flags from this source"),
            Err(error) => tracing::warn!(source = %source.uri, %error, "no flags from this source"),
        }
        tokio::time::sleep(source.interval.map_or(ASK, |secs| Duration::from_secs(secs.max(1)))).await;
    }
}

async fn stream(board: &Board, place: usize) {
    let source = &board.sources[place];
    let mut wait = 1;
    loop {
        let selector = source.selector.as_deref().unwrap_or_default();
        let ended = flagd::client::follow(&source.uri, selector, |text| {
            board.take_or_tell(place, text);
            wait = 1;
        });
        if let Err(error) = ended.await {
            tracing::warn!(source = %source.uri, %error, "the stream of flags ended; connecting again in {wait} s");
        }
        tokio::time::sleep(Duration::from_secs(wait)).await;
        wait = (wait * 2).min(30);
    }
}
