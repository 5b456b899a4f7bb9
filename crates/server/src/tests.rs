use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use control::Command;
use experiments::{Phase, Transition};
use http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;
use vocab::Id;

use crate::app::{App, lock};
use crate::{Options, api, boot, proxies};

/// A control plane without threads and listeners. The jobs are held so that the intake stays open.
fn plane() -> (tempfile::TempDir, Arc<App>, String, Box<dyn Send>) {
    plane_with(None, None)
}

fn plane_with(
    ofrep_rate: Option<flagd::limit::Rate>,
    cors: Option<flagd::http::Cors>,
) -> (tempfile::TempDir, Arc<App>, String, Box<dyn Send>) {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        data: dir.path().to_owned(),
        listen: "127.0.0.1:0".parse().unwrap(),
        also_listen: Vec::new(),
        flagd_ports: Vec::new(),
        ofrep_rate,
        cors,
    };
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
        app.commit(Command::FlagPut { key, definition }, "test", "").unwrap();
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

const BULK: &str = "/ofrep/v1/evaluate/flags";

/// Guarantees: a page of a named origin may evaluate flags with a token, and nothing else; without names no page may.
#[tokio::test]
async fn pages_evaluate_if_their_origin_is_named() {
    let shop = "https://shop.example";
    for origins in [vec![shop.to_owned()], Vec::new()] {
        let (_dir, app, token, _jobs) = plane_with(None, flagd::http::cors(&origins).unwrap());
        let router = api::router(app);
        let allowed = async |request: http::request::Builder| {
            let request = request.header("origin", shop).body(Body::from("{}")).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            let origin = response.headers().get("access-control-allow-origin").map(|v| v.to_str().unwrap().to_owned());
            (response.status(), origin, response.headers().get("access-control-expose-headers").cloned())
        };
        let named = origins.first().cloned();
        // The browser asks first, without the token.
        let asks = |path: &str| {
            Request::options(path.to_owned())
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type")
        };
        for path in [BULK, "/ofrep/v1/events", "/flagd.evaluation.v1.Service/ResolveAll"] {
            let (status, origin, _) = allowed(asks(path)).await;
            assert_eq!((status == StatusCode::OK, origin), (named.is_some(), named.clone()), "{path}");
        }
        for path in ["/api/v1/flags", "/api/v1/tokens", "/v1/traces"] {
            assert_eq!(allowed(asks(path)).await.1, None, "{path}");
        }
        let (status, origin, exposed) =
            allowed(Request::post(BULK).header("authorization", format!("Bearer {token}"))).await;
        assert_eq!((status, &origin), (StatusCode::OK, &named));
        assert_eq!(exposed.is_some_and(|names| names.to_str().unwrap().contains("etag")), named.is_some());
        // What is refused is refused, and the page can read why.
        let (status, origin, _) = allowed(Request::post(BULK)).await;
        assert_eq!((status, origin), (StatusCode::UNAUTHORIZED, named));
    }
}

#[tokio::test]
async fn a_token_that_asks_too_often_is_told_to_wait() {
    let (_dir, app, admin, _jobs) = plane_with(std::num::NonZeroU32::new(2), None);
    let other = api::fresh_token().unwrap();
    let hash = auth::TokenHash::of(&other);
    let command = Command::TokenCreate { name: "other".into(), role: auth::Role::Evaluate, hash, expires: None };
    app.commit(command, "test", "").unwrap();
    let router = api::router(app);
    let ask = async |header: &str, token: &str| {
        let request = Request::post(BULK).header(header, token).body(Body::from("{}")).unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        (response.status(), response.headers().get("retry-after").map(|v| v.to_str().unwrap().to_owned()))
    };
    let bearer = format!("Bearer {admin}");
    // Whoever has no token is not counted against anybody.
    assert_eq!(ask("authorization", "Bearer nobody").await.0, StatusCode::UNAUTHORIZED);
    let answers = [ask("authorization", &bearer).await, ask("authorization", &bearer).await];
    assert_eq!(answers, [(StatusCode::OK, None), (StatusCode::OK, None)]);
    assert_eq!(ask("authorization", &bearer).await, (StatusCode::TOO_MANY_REQUESTS, Some("1".to_owned())));
    assert_eq!(ask("x-api-key", &other).await.0, StatusCode::OK, "another token has its own");
}
