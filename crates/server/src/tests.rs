use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use control::{Command, FlagChange};
use experiments::{Phase, Transition};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use vocab::Id;

use crate::app::{App, lock};
use crate::{Options, api, boot, proxies};

/// A control plane without threads and listeners. The jobs are held so that the intake stays open.
fn plane() -> (tempfile::TempDir, Arc<App>, String, Box<dyn Send>) {
    let dir = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".parse().unwrap();
    let options = Options { data: dir.path().to_owned(), listen, also_listen: Vec::new(), flagd_ports: Vec::new() };
    let (app, jobs, _) = boot::open(&options).unwrap();
    let token = boot::first_token(&app).unwrap().unwrap();
    (dir, app, token, Box::new(jobs))
}

/// A fault experiment that is on.
fn running_fault(app: &App) -> Id {
    let spec = json!({"name": "slow", "treatment": {"fault": {"route": "all", "delay_ms": 200}},
        "stages": [{"share": 0.05, "min_ms": 60_000}],
        "kpi": {"success": "name = 'request'", "failure": "name = 'request' and error = true"}});
    let spec = Box::new(serde_json::from_value(spec).unwrap());
    app.commit(Command::Start { spec, arm_salt: "00".repeat(16), offset: 0 }, "test", "").unwrap();
    let id = app.state.load().live().next().unwrap().id;
    let transition = Transition { to: Phase::Running { stage: 0 }, reason: "test".into(), verdict: None };
    app.commit(Command::Phase { id, transition }, "test", "").unwrap();
    id
}

fn fault_is_on(app: &App) -> bool {
    let snapshot: Value = serde_json::from_str(&app.proxy_snapshot.borrow().1).unwrap();
    snapshot["experiments"].as_array().unwrap().iter().any(|e| e["on"] == true)
}

/// Guarantee: however many other changes are published at the same time, no snapshot after a stop has the fault on. (Without
/// the order that `publishing` gives, the moment is too short to be met here; without `Emergency` it is met at once.)
#[test]
fn a_stopped_fault_is_not_published_again() {
    let (_dir, app, _, _jobs) = plane();
    let put = |key: String| {
        let definition = json!({"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "off"});
        app.commit(Command::Flags(vec![FlagChange::Put { key, definition }]), "test", "").unwrap();
    };
    // Much to publish makes a publication slow, and the moment in which another may overtake it long.
    (0..200).for_each(|n| put(format!("flag-{n}")));
    let id = running_fault(&app);
    let done = AtomicBool::new(false);
    let on_again = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                put("busy".to_owned());
            }
        });
        let mut on_again = 0;
        for _ in 0..50 {
            assert!(fault_is_on(&app));
            app.off_now(id);
            let stopped = Instant::now();
            let mut seen = false;
            while stopped.elapsed() < Duration::from_millis(3) {
                seen |= fault_is_on(&app);
            }
            on_again += usize::from(seen);
            // A recorded phase replaces what was switched off ahead of the record: on, for the next round.
            let transition = Transition { to: Phase::Running { stage: 0 }, reason: "test".into(), verdict: None };
            app.commit(Command::Phase { id, transition }, "test", "").unwrap();
        }
        done.store(true, Ordering::Relaxed);
        on_again
    });
    assert_eq!(on_again, 0, "commits under way switched the fault on again");
}

/// Guarantee: proxies keep a lease, and with it a fault, only while the watch loop turns.
#[tokio::test]
async fn no_lease_without_a_watcher() {
    let (_dir, app, token, _jobs) = plane();
    let renew = || {
        let body = json!({"name": "edge", "instance": "edge-1", "version": 1}).to_string();
        let request = Request::post("/api/v1/proxy/renew")
            .header("authorization", format!("Bearer {token}"))
            .body(Body::from(body))
            .unwrap();
        let router = api::router(app.clone());
        async move { router.oneshot(request).await.unwrap().status() }
    };
    assert_eq!(renew().await, StatusCode::OK);
    let long_ago = Instant::now().checked_sub(proxies::WATCH_MAX + Duration::from_secs(1)).unwrap();
    *lock(&app.watched_at) = long_ago;
    assert_eq!(renew().await, StatusCode::SERVICE_UNAVAILABLE);
    *lock(&app.watched_at) = Instant::now();
    assert_eq!(renew().await, StatusCode::OK);
}
