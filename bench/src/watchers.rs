//! From a flag's commit to everybody who watches: a thousand and more change streams held open, measured at the client, the durable
//! audit entry included.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::Args;
use crate::figures::{Figures, median, percentile};
use crate::machine::{Process, api};

/// Longer than any change may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn resident_kb(id: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).context("no VmRSS")?;
    Ok(line.split_whitespace().nth(1).context("no figure")?.parse()?)
}

/// Holds one change stream open and tells when an event came.
async fn watch(address: &str, uri: &str, told: mpsc::UnboundedSender<Instant>) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {uri} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
    let mut buffer = vec![0; 1_024];
    let head = stream.read(&mut buffer).await?;
    ensure!(buffer[..head].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&buffer[..head]));
    tokio::spawn(async move {
        while let Ok(n @ 1..) = stream.read(&mut buffer).await {
            if buffer[..n].windows(17).any(|w| w == b"refetchEvaluation") {
                let _ = told.send(Instant::now());
            }
        }
    });
    Ok(())
}

/// Sockets of the bare loop: two files each.
const SOCKETS_MAX: usize = 9_000;
/// What watchers are told, here by nobody but a loop.
const EVENT: &[u8] =
    b"id: 1\nevent: message\ndata: {\"type\":\"refetchEvaluation\",\"etag\":\"\\\"0123456789abcdef01234567\\\"\"}\n\n";

/// Waits until each watcher was told, and says when each was, in milliseconds.
async fn all_told(told: &mut mpsc::UnboundedReceiver<Instant>, watchers: usize, began: Instant) -> Result<Vec<f64>> {
    let mut all = Vec::with_capacity(watchers);
    for _ in 0..watchers {
        let at = tokio::time::timeout(PATIENCE, told.recv()).await.context("a watcher was not told")?;
        all.push(at.context("nobody watches")?.duration_since(began).as_secs_f64() * 1e3);
    }
    Ok(all)
}

fn slowest(all: &[f64]) -> f64 {
    all.iter().copied().fold(0.0, f64::max)
}

/// As many sockets, told by a loop that does nothing else: the time until the last client has it, in milliseconds.
async fn bare_loop(watchers: usize, rounds: usize) -> Result<f64> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    let (begin, begun) = std::sync::mpsc::channel::<()>();
    let loops = std::thread::spawn(move || -> std::io::Result<()> {
        let mut sockets = Vec::with_capacity(watchers);
        for _ in 0..watchers {
            let (mut socket, _) = listener.accept()?;
            // As a server does: the request is read, the head is answered.
            let mut request = [0; 1_024];
            let _ = std::io::Read::read(&mut socket, &mut request)?;
            std::io::Write::write_all(&mut socket, b"HTTP/1.1 200 OK\r\n\r\n")?;
            sockets.push(socket);
        }
        while begun.recv().is_ok() {
            for socket in &mut sockets {
                std::io::Write::write_all(socket, EVENT)?;
            }
        }
        Ok(())
    });
    let (sender, mut told) = mpsc::unbounded_channel();
    for _ in 0..watchers {
        watch(&address, "/", sender.clone()).await?;
    }
    let mut last = Vec::new();
    for _ in 0..rounds {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let began = Instant::now();
        begin.send(()).ok().context("the loop has ended")?;
        last.push(slowest(&all_told(&mut told, watchers, began).await?));
    }
    drop(begin);
    loops.join().map_err(|_| anyhow::anyhow!("the loop broke"))??;
    Ok(median(last))
}

async fn run(args: &Args, figures: &mut Figures, watchers: usize, changes: usize) -> Result<()> {
    let dir = tempfile::tempdir()?;
    let server = Process::serve(std::process::Command::new(&args.bin), dir.path())?;
    let (address, admin) = (server.address()?, server.admin()?);
    let put = async |n: usize| {
        let definition = json!({"state": "ENABLED", "variants": {"one": n.to_string()}, "defaultVariant": "one"});
        api(&address, &admin, "PUT", "/api/v1/flags/banner?break_glass=true&reason=bench", &definition).await
    };
    put(0).await?;
    let bulk = api(&address, &admin, "POST", "/ofrep/v1/evaluate/flags", &json!({"context": {}})).await?;
    let uri = bulk["eventStreams"][0]["endpoint"]["requestUri"].as_str().map(str::to_owned);
    let uri = uri.or_else(|| {
        let url = bulk["eventStreams"][0]["url"].as_str()?;
        Some(url[url.find("/ofrep")?..].to_owned())
    });
    let uri = uri.with_context(|| format!("no event stream in {}", Value::to_string(&bulk)))?;
    let before = resident_kb(server.id())?;
    let (sender, mut told) = mpsc::unbounded_channel();
    for _ in 0..watchers {
        watch(&address, &uri, sender.clone()).await?;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let each = (resident_kb(server.id())? - before) / watchers as f64;
    let (mut all, mut last) = (Vec::new(), Vec::new());
    for n in 1..=changes {
        while told.try_recv().is_ok() {}
        let began = Instant::now();
        put(n).await?;
        let times = all_told(&mut told, watchers, began).await?;
        last.push(slowest(&times));
        all.extend(times);
        // Changes that follow each other closely are told as one; here each is to be told.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let (p50, p99, last) = (percentile(&mut all, 0.5), percentile(&mut all, 0.99), median(last));
    figures.ours(
        &format!("flag commit to {watchers} watchers (SSE), {changes} changes"),
        format!("p50 {p50:.0} ms, p99 {p99:.0} ms, the last of all after {last:.0} ms (median)"),
    );
    figures.ours(&format!("memory of the server for a watcher, of {watchers}"), format!("{each:.1} KiB"));
    drop(server);
    // Both ends are in this process, whose open files are limited: of more, so many stand for all.
    let sockets = watchers.min(SOCKETS_MAX);
    let bare = bare_loop(sockets, changes).await? * watchers as f64 / sockets as f64;
    figures.ours(
        &format!("a bare write loop over {watchers} sockets (measured on {sockets})"),
        format!("the last of all after {bare:.0} ms (median); ours took {:.1} times as long", last / bare),
    );
    Ok(())
}

/// Measures.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    if args.small {
        return runtime.block_on(run(args, figures, 50, 3));
    }
    runtime.block_on(run(args, figures, 2_000, 30))?;
    runtime.block_on(run(args, figures, 10_000, 10))
}
