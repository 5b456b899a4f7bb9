//! The control plane on a disk that fills up: a small file system of its own, in a mount namespace of its own.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde_json::{Value, json};

use crate::control_plane::{edge, fault_spec, flag, token, traffic, upstream};
use crate::harness::{BIN, Process, alone, api, call, until};

/// A control plane whose data directory has 24 MiB; none where the machine allows no mount namespace.
fn serve_on_a_small_disk(data: &Path) -> Option<Process> {
    let script = "mount -t tmpfs -o size=24m none \"$0\" && exec \"$@\"";
    let words = ["--user", "--map-root-user", "--mount", "sh", "-c"];
    let data = data.to_str().unwrap();
    if !Command::new("unshare").args(words).args([script, data, "true"]).status().is_ok_and(|s| s.success()) {
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(words).args([script, data, BIN, "serve", "--json", "--listen", "127.0.0.1:0", "--data", data]);
    Some(Process::spawn(command, ""))
}

/// Fills the disk, seen through the process that has it mounted.
fn fill(filler: &Path) {
    let mut file = File::create(filler).unwrap();
    for size in [1 << 20, 4_096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

/// Scenario: a fault is on and the disk fills up under load.
/// Guarantees: what is refused is refused whole and says so; stop, kill and halt work; no request fails; with room again
/// everything is on record and everything works.
#[test]
fn a_full_disk_refuses_and_still_stops() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let Some(server) = serve_on_a_small_disk(&data) else {
        eprintln!("skipped: this machine allows no mount namespace");
        return;
    };
    let inside = PathBuf::from(format!("/proc/{}/root{}", server.child.id(), data.display()));
    let listen = server.address();
    let admin = server.ready["admin_token"].as_str().unwrap().to_owned();
    let post = |path: &str, body: Value| api(&listen, &admin, "POST", path, &body);
    let put = |key: &str| api(&listen, &admin, "PUT", &format!("/api/v1/flags/{key}"), &flag("on"));
    let evaluate =
        |key: &str| post(&format!("/ofrep/v1/evaluate/flags/{key}"), json!({"context": {"targetingKey": "u"}}));
    assert_eq!(put("checkout").0, 200);
    let proxy = edge(dir.path(), &listen, &upstream(), &token(&listen, &admin, "proxy"));
    let (stop, failed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let users: Vec<_> = (0..2).map(|_| traffic(proxy.address(), stop.clone(), failed.clone())).collect();
    let faults_on = || -> Value {
        let (_, body) = call(&proxy.address(), "GET", "/.seaworthy/healthz", &[], b"").unwrap();
        serde_json::from_slice::<Value>(&body).unwrap()["faults_on"].clone()
    };
    let (status, started) = post("/api/v1/experiments", fault_spec(120_000));
    assert_eq!(status, 201, "{started}");
    let path = format!("/api/v1/experiments/{}", started["id"].as_str().unwrap());
    until(40, "the fault is on", || (faults_on() == 1).then_some(()));

    fill(&inside.join("filler"));
    // Each is another one: the same would be taken for a second try, which needs no room.
    let sent = std::cell::Cell::new(0_u64);
    let span = || {
        sent.set(sent.get() + 1);
        let at = (1_764_000_000_000_000_000_u64 + sent.get()).to_string();
        json!({"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "0af7651916cd43dd8448eb211c80319c",
            "spanId": "b7ad6b7169203331", "name": "kept", "startTimeUnixNano": at}]}]}]})
    };
    // The last page of the log has room for a few yet.
    let mut kept = 0;
    let refused = until(10, "spans are refused", || {
        let (status, answer) = post("/v1/traces", span());
        kept += u32::from(status == 200);
        (status != 200).then_some((status, answer["code"].clone()))
    });
    assert_eq!(refused, (503, "disk-full".into()));
    let asked = json!({"where": "name = 'kept'", "calculate": ["count"], "from": "2025-01-01T00:00:00Z"});
    let stored = || post("/api/v1/query", asked.clone()).1["rows"][0]["count"].clone();
    assert_eq!(stored(), f64::from(kept), "questions go on");
    // A long change finds no room; what it would have changed is as before.
    let mut long = flag("on");
    long["metadata"] = json!({"description": "x".repeat(8_000)});
    let (status, problem) = api(&listen, &admin, "PUT", "/api/v1/flags/checkout", &long);
    assert_eq!((status, &problem["code"]), (507, &"disk-full".into()), "{problem}");
    assert_eq!(evaluate("checkout").1["value"], true);
    // Nobody can learn any more whom it hurts: it goes off by itself, on a full disk too.
    until(20, "the fault is off by itself", || (faults_on() == 0).then_some(()));
    let (status, killed) = post("/api/v1/flags/checkout/kill", json!({"reason": "test"}));
    assert!(status == 200 || status == 202, "{status} {killed}");
    let (_, off) = evaluate("checkout");
    assert!(off.get("value").is_none(), "killed on a full disk: {off}");
    let (status, stopped) = post(&format!("{path}/stop"), json!({"reason": "test"}));
    assert!(status == 200 || status == 202, "{status} {stopped}");
    let (status, halted) = post("/api/v1/halt", json!({"reason": "test"}));
    assert!(status == 200 || status == 202, "{status} {halted}");
    assert_eq!(failed.load(Ordering::Relaxed), 0, "a full disk fails no request");

    std::fs::remove_file(inside.join("filler")).unwrap();
    until(10, "room again", || (put("later").0 == 200).then_some(()));
    until(10, "spans are taken again", || (post("/v1/traces", span()).0 == 200).then_some(()));
    kept += 1;
    until(10, "everything is on record", || {
        let (_, page) = api(&listen, &admin, "GET", "/api/v1/audit?limit=200", &Value::Null);
        let said = page.to_string();
        ["flag.kill", "\"halt\"", "stopped"].iter().all(|word| said.contains(word)).then_some(())
    });
    assert!(evaluate("checkout").1.get("value").is_none(), "still killed");
    assert_eq!(stored(), f64::from(kept), "what was refused is not stored");
    stop.store(true, Ordering::Relaxed);
    users.into_iter().for_each(|user| user.join().unwrap());
}
