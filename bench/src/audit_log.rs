//! Appends to the audit log on a real disk, one at a time and in batches, beside a bare write and fsync; then its verification.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use files::{Disk, Files};

use crate::Args;
use crate::figures::{Figures, median, percentile};

const ENTRY: usize = 300;

fn entry(n: u64) -> Vec<u8> {
    let mut entry = format!("{{\"n\":{n},\"actor\":\"token:bench\",\"reason\":\"").into_bytes();
    entry.resize(ENTRY, b'x');
    entry
}

/// Measures.
pub fn measure(args: &Args, figures: &mut Figures) -> Result<()> {
    let (singles, batches, batch) = if args.small { (20, 2, 50) } else { (2_000, 400, 500) };
    let dir = tempfile::tempdir_in(&args.out)?;
    let disk: Arc<dyn Files> = Arc::new(Disk::open(dir.path())?);
    let mut log = audit::Log::open(disk.clone(), "bench.example", [7; 32], |_, _| {})?;
    let mut bare = File::create(dir.path().join("bare"))?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for n in 0..singles {
        let entry = entry(n);
        let began = Instant::now();
        log.append(std::slice::from_ref(&entry), false)?;
        ours.push(began.elapsed().as_secs_f64() * 1e3);
        let began = Instant::now();
        bare.write_all(&entry)?;
        bare.sync_data()?;
        theirs.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let tail = percentile(&mut ours, 0.99);
    let (one, floor) = (median(ours), median(theirs));
    let ms = |ms: f64| format!("{ms:.2} ms");
    figures.beside("audit append, one durable entry, p50", ms(one), "bare write + fsync", ms(floor), floor / one);
    figures.ours("audit append, one durable entry, p99", ms(tail));

    let began = Instant::now();
    for group in 0..batches {
        let entries: Vec<Vec<u8>> = (0..batch).map(|n| entry(singles + group * batch + n)).collect();
        log.append(&entries, false)?;
    }
    let rate = (batches * batch) as f64 / began.elapsed().as_secs_f64();
    figures.ours(&format!("audit append, {batch} entries a commit"), format!("{rate:.0} entries/s"));

    let began = Instant::now();
    log.publish()?;
    figures.ours(
        &format!("audit publish, tiles and checkpoint for {} entries", log.size()),
        format!("{:.0} ms", began.elapsed().as_secs_f64() * 1e3),
    );

    let began = Instant::now();
    let mut seen = 0_u64;
    let report = audit::verify(&*disk, "audit", None, |_, _| seen += 1)?;
    ensure!(seen == log.size() && report.size == seen, "verified {seen} of {}", log.size());
    figures.ours("audit verify", format!("{:.0} entries/s", seen as f64 / began.elapsed().as_secs_f64()));
    Ok(())
}
