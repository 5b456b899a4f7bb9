use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use flags::{FlagSet, Overlay, Serves, Slice};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use openfeature::Snapshot;
use serde_json::{Value, json};
use tower::ServiceExt;
use vocab::{Id, Kind, Share, Timestamp};

use crate::face::now;
use crate::http as routers;
use crate::limit::{Bucket, By, Caller, Limiter};
use crate::listen::Peer;
use crate::{Face, Hub, Pass, Selector, Source, View};

fn source(uri: &str, document: Value) -> Source {
    Source { uri: uri.to_owned(), snapshot: Snapshot::new(FlagSet::parse(&document.to_string()).unwrap(), false) }
}

fn flag(value: &str) -> Value {
    json!({"state": "ENABLED", "variants": {"one": value}, "defaultVariant": "one"})
}

fn documents() -> Vec<Source> {
    let all = json!({"metadata": {"version": "7"}, "flags": {
        "yes": {"state": "ENABLED", "variants": {"on": true, "off": false}, "defaultVariant": "on"},
        "word": flag("first"),
        "half": {"state": "ENABLED", "variants": {"n": 2.5}, "defaultVariant": "n"},
        "large": {"state": "ENABLED", "variants": {"n": 9_007_199_254_740_991_i64}, "defaultVariant": "n"},
        "thing": {"state": "ENABLED", "variants": {"o": {"a": [1, null, "x"]}}, "defaultVariant": "o"},
        "open": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": null},
        "gone": {"state": "DISABLED", "variants": {"on": true}, "defaultVariant": "on"},
        "lost": {"state": "ENABLED", "variants": {"on": true}, "defaultVariant": "on", "targeting": {"var": "tier"}},
    }});
    vec![source("flags.json", all)]
}

fn face() -> Face {
    let hub = Arc::new(Hub::new(Default::default()));
    hub.put(documents());
    Face::new(hub)
}

async fn call(router: Router, request: Request<Body>) -> (StatusCode, http::HeaderMap, Value) {
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    (head.status, head.headers, serde_json::from_slice(&bytes).unwrap_or(Value::String(text)))
}

fn post(path: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", "application/json").body(body.into()).unwrap()
}

mod selectors {
    use super::*;

    #[test]
    fn a_selector_names_a_source_or_a_set() {
        let check = |text: &str, wanted: Selector| assert_eq!(Selector::parse(text), Ok(wanted), "{text:?}");
        check("", Selector::Everything);
        check("  ", Selector::Everything);
        check("flags.json", Selector::Source("flags.json".into()));
        check("source=flags.json", Selector::Source("flags.json".into()));
        check("source=a=b", Selector::Source("a=b".into()));
        check("flagSetId=shop", Selector::FlagSet("shop".into()));
        check("flagSetId=", Selector::FlagSet(String::new()));
        // An address with a query is no key with a value.
        check("http://x/flags?env=dev", Selector::Source("http://x/flags?env=dev".into()));
        for wrong in ["flagsetid=shop", "name=x", "=x"] {
            assert!(Selector::parse(wrong).unwrap_err().contains("flagSetId"), "{wrong:?}");
        }
    }

    #[test]
    fn any_name_comes_back_as_it_was() {
        arbtest::arbtest(|u| {
            let name: String = u.arbitrary()?;
            let name = name.trim();
            assert_eq!(Selector::parse(&format!("flagSetId={name}")), Ok(Selector::FlagSet(name.to_owned())));
            assert_eq!(Selector::parse(&format!("source={name}")), Ok(Selector::Source(name.to_owned())));
            // Whatever it is, it is read or refused.
            let _ = Selector::parse(name);
            Ok(())
        });
    }
}

mod views {
    use super::*;

    fn value(view: &View, key: &str) -> Option<Value> {
        let found = view.snapshot.resolve(key, &Default::default(), Timestamp::default()).ok()?;
        found.value.cloned()
    }

    fn two() -> Hub {
        let hub = Hub::new(Default::default());
        let first = json!({"metadata": {"flagSetId": "shop"}, "flags": {"a": flag("1"), "b": flag("1"), "own":
            {"state": "ENABLED", "variants": {"x": 1}, "defaultVariant": "x", "metadata": {"flagSetId": "other"}}}});
        hub.put(vec![source("one", first), source("two", json!({"flags": {"b": flag("2"), "c": flag("2")}}))]);
        hub
    }

    #[test]
    fn of_two_flags_with_one_key_the_later_counts() {
        let hub = two();
        let seen = |selector: &str, key: &str| value(&hub.view(&Selector::parse(selector).unwrap()), key);
        assert_eq!(
            (seen("", "a"), seen("", "b"), seen("", "c")),
            (Some("1".into()), Some("2".into()), Some("2".into()))
        );
        // Who selects a source sees its flag, whatever comes later.
        assert_eq!((seen("one", "b"), seen("one", "c")), (Some("1".into()), None));
        assert_eq!((seen("source=two", "b"), seen("source=two", "a")), (Some("2".into()), None));
        assert_eq!((seen("flagSetId=shop", "a"), seen("flagSetId=shop", "own")), (Some("1".into()), None));
        assert_eq!((seen("flagSetId=other", "a"), seen("flagSetId=other", "own")), (None, Some(json!(1))));
        assert_eq!((seen("flagSetId=", "a"), seen("flagSetId=", "b")), (None, Some("2".into())));
        assert_eq!(hub.view(&Selector::Source("nobody".into())).snapshot.flags.flags().len(), 0);
    }

    #[test]
    fn documents_stand_alone() {
        let hub = two();
        let document = |selector: Selector| serde_json::from_str::<Value>(&hub.view(&selector).document).unwrap();
        let shop = document(Selector::FlagSet("shop".into()));
        assert_eq!(
            (&shop["flags"]["a"]["metadata"]["flagSetId"], &shop["metadata"]["flagSetId"]),
            (&json!("shop"), &json!("shop"))
        );
        // Sets of several sources are one document, so what is true of one set only goes with its flags.
        let all = document(Selector::Everything);
        assert_eq!((all.get("metadata"), &all["flags"]["a"]["metadata"]["flagSetId"]), (None, &json!("shop")));
        assert_eq!(all["flags"]["c"].get("metadata"), None);
    }

    #[test]
    fn an_experiment_goes_with_its_flag() {
        let hub = Hub::new(Default::default());
        let slice = Slice::new("layer", "arm", 0, Share::ALL, Share::ALL);
        let overlay = Overlay {
            experiment: Id::new(Kind::Experiment, 1),
            slice,
            serves: Serves::Variant("two".into()),
            otherwise: None,
        };
        let both = json!({"flags": {"a": {"state": "ENABLED", "variants": {"one": "1", "two": "2"}, "defaultVariant": "one"}}});
        let flags = FlagSet::parse(&both.to_string()).unwrap().with_overlays([("a".to_owned(), overlay)].into());
        hub.put(vec![Source { uri: "plane".into(), snapshot: Snapshot::new(flags, true) }]);
        let view = hub.view(&Selector::Source("plane".into()));
        let found = view.snapshot.resolve("a", &flags::Context::of("ann"), now()).unwrap();
        assert_eq!((found.value, found.reason.as_str()), (Some(&json!("2")), "SPLIT"));
        assert_eq!(found.metadata["experimentArm"], "treatment");
    }

    #[test]
    fn a_change_names_what_was_written_updated_and_deleted() {
        let hub = Hub::new(Default::default());
        let put = |flags: Value| {
            hub.put(vec![source("flags.json", json!({"flags": flags}))]);
            hub.view(&Selector::Everything)
        };
        let before = put(json!({"same": flag("1"), "other": flag("1"), "old": flag("1")}));
        let after = put(json!({"same": flag("1"), "other": flag("2"), "new": flag("1")}));
        let change = |kind: &str, key: &str| json!({"type": kind, "source": "flags.json", "flagKey": key});
        assert_eq!(
            Value::Object(after.changes(&before)),
            json!({"other": change("update", "other"), "new": change("write", "new"), "old": change("delete", "old")})
        );
        assert!(after.changes(&after).is_empty());
        assert!(put(json!({"same": flag("1"), "other": flag("2"), "new": flag("1")})).changes(&after).is_empty());
    }
}

mod passes {
    use super::*;

    const DAY: i64 = 86_400_000_000_000;

    #[test]
    fn a_pass_admits_until_the_end_of_tomorrow() {
        let pass = Pass([7; 32]);
        let at = |nanos: i64| Timestamp::from_nanos(nanos);
        let issued = pass.issue(at(10 * DAY));
        assert_eq!(issued, pass.issue(at(11 * DAY - 1)), "the same all day");
        assert_ne!(issued, pass.issue(at(11 * DAY)));
        assert!(pass.admits(&issued, at(10 * DAY)) && pass.admits(&issued, at(12 * DAY - 1)));
        assert!(!pass.admits(&issued, at(12 * DAY)), "it has run out");
        assert!(!Pass([8; 32]).admits(&issued, at(10 * DAY)), "it is of another installation");
        let (until, mac) = issued.split_once('.').unwrap();
        let longer = format!("{}.{mac}", until.parse::<i64>().unwrap() + 1);
        for forged in [
            "",
            ".",
            "12",
            "12.",
            &longer,
            &issued[..issued.len() - 2],
            &format!("{issued}00"),
            &format!("{until}.{}", "é".repeat(16)),
        ] {
            assert!(!pass.admits(forged, at(10 * DAY)), "{forged:?}");
        }
    }

    #[test]
    fn no_text_but_the_issued_one_is_a_pass() {
        let pass = Pass([7; 32]);
        let issued = pass.issue(Timestamp::default());
        arbtest::arbtest(|u| {
            let mut bytes = issued.clone().into_bytes();
            let place = u.choose_index(bytes.len())?;
            let byte = u.int_in_range(b' '..=b'~')?;
            let same = bytes[place].eq_ignore_ascii_case(&byte);
            bytes[place] = byte;
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(pass.admits(&changed, Timestamp::default()), same, "{changed}");
            Ok(())
        });
    }
}

mod limits {
    use super::*;

    fn rate(n: u32) -> NonZeroU32 {
        NonZeroU32::new(n).unwrap()
    }

    #[test]
    fn a_bucket_empties_and_fills_evenly() {
        let (ten, start) = (rate(10), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        let mut bucket = Bucket::full(ten, start);
        assert!((0..10).all(|_| bucket.take(ten, start).is_ok()), "a second's worth at once");
        assert_eq!(bucket.take(ten, start), Err(Duration::from_millis(100)));
        let wait = bucket.take(ten, at(60)).unwrap_err();
        assert!((39..=41).contains(&wait.as_millis()), "{wait:?}");
        assert!(bucket.take(ten, at(101)).is_ok() && bucket.take(ten, at(101)).is_err());
        // Whoever stays away gathers one second's worth, not more; and a clock that goes back gives nothing.
        assert!((0..10).all(|_| bucket.take(ten, at(60_000)).is_ok()));
        assert!(bucket.take(ten, at(60_000)).is_err() && bucket.take(ten, start).is_err());
    }

    /// Guarantees: in any stretch of time a caller gets at most what flows in, and what a full bucket holds.
    #[test]
    fn nobody_gets_more_than_the_rate() {
        arbtest::arbtest(|u| {
            let rate = rate(u.int_in_range(1..=50)?);
            let (start, mut ms, mut passed) = (Instant::now(), 0_u64, 0_u64);
            let mut bucket = Bucket::full(rate, start);
            for _ in 0..u.int_in_range(0..=200)? {
                ms += u.int_in_range(0..=200)?;
                passed += u64::from(bucket.take(rate, start + Duration::from_millis(ms)).is_ok());
                let most = f64::from(rate.get()) * (1.0 + ms as f64 / 1_000.0) + 1e-6;
                assert!(passed as f64 <= most, "{passed} of {most} after {ms} ms at {rate}");
            }
            Ok(())
        });
    }

    #[test]
    fn who_waits_as_long_as_told_gets_through() {
        arbtest::arbtest(|u| {
            let rate = rate(u.int_in_range(1..=100_000)?);
            let mut at = Instant::now();
            let mut bucket = Bucket::full(rate, at);
            (0..rate.get()).for_each(|_| _ = bucket.take(rate, at));
            for _ in 0..10 {
                if let Err(wait) = bucket.take(rate, at) {
                    at += wait + Duration::from_nanos(10);
                    assert!(bucket.take(rate, at).is_ok(), "{rate}");
                }
            }
            Ok(())
        });
    }

    #[test]
    fn callers_are_told_apart_by_what_is_checked() {
        let headers = |token: &str| [("authorization".parse().unwrap(), token.parse().unwrap())].into_iter().collect();
        let (one, two): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let by_token = Limiter::new(rate(1), By::Credential);
        assert_eq!(by_token.caller(&headers("Bearer a"), Some(one)), by_token.caller(&headers("Bearer a"), Some(two)));
        assert_ne!(by_token.caller(&headers("Bearer a"), Some(one)), by_token.caller(&headers("Bearer b"), Some(one)));
        let key = [("x-api-key".parse().unwrap(), "a".parse().unwrap())].into_iter().collect();
        assert_eq!(by_token.caller(&headers("bearer  a"), None), by_token.caller(&key, None), "the same token");
        let by_address = Limiter::new(rate(1), By::Address);
        assert_eq!(
            by_address.caller(&headers("Bearer a"), Some(one)),
            by_address.caller(&headers("Bearer b"), Some(one))
        );
        assert_ne!(
            by_address.caller(&headers("Bearer a"), Some(one)),
            by_address.caller(&headers("Bearer a"), Some(two))
        );
        let six = |text: &str| by_address.caller(&Default::default(), Some(text.parse().unwrap()));
        assert_eq!(six("2001:db8::1"), six("2001:db8::ffff:1"), "one client has all of them");
        assert_ne!(six("2001:db8::1"), six("2001:db8:0:1::1"));
        assert_eq!(six("::ffff:10.0.0.1"), Caller::Address(one));
    }

    /// Guarantees: however many callers come, memory is bounded and each that is known keeps its own bucket.
    #[test]
    fn many_callers_share_what_is_left() {
        let (limiter, start) = (Limiter::new(rate(2), By::Address), Instant::now());
        let caller = |n: u32| Caller::Address(IpAddr::from(n.to_be_bytes()));
        for n in 0..10_000 {
            assert!(limiter.take(caller(n), start).is_ok());
        }
        assert!(limiter.take(caller(10_000), start).is_ok() && limiter.take(caller(10_001), start).is_ok());
        assert!(limiter.take(caller(10_002), start).is_err(), "the third of those who share two");
        assert!(limiter.take(caller(5), start).is_ok(), "who is known has his own");
        // Two seconds later all buckets are full: nobody needs to be remembered.
        assert!(limiter.take(caller(10_002), start + Duration::from_secs(2)).is_ok());
        assert!(limiter.take(caller(10_003), start + Duration::from_secs(2)).is_ok());
        assert!(limiter.take(caller(10_003), start + Duration::from_secs(2)).is_ok());
    }

    #[tokio::test]
    async fn above_the_limit_ofrep_says_when_to_come_back() {
        let mut face = face();
        face.limiter = Some(Arc::new(Limiter::new(rate(2), By::Address)));
        let router = routers::ofrep(&face);
        let ask = |path: &str, from: [u8; 4]| {
            let mut request = post(path, "{}");
            request.extensions_mut().insert(ConnectInfo(Peer(SocketAddr::from((from, 1)))));
            call(router.clone(), request)
        };
        assert_eq!(ask("/ofrep/v1/evaluate/flags", [10, 0, 0, 1]).await.0, StatusCode::OK);
        assert_eq!(ask("/ofrep/v1/evaluate/flags/yes", [10, 0, 0, 1]).await.0, StatusCode::OK);
        for path in ["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/yes"] {
            let (status, headers, body) = ask(path, [10, 0, 0, 1]).await;
            assert_eq!((status, headers["retry-after"].to_str().unwrap()), (StatusCode::TOO_MANY_REQUESTS, "1"));
            assert!(body["errorDetails"].as_str().unwrap().contains("2 requests a second"), "{body}");
        }
        assert_eq!(ask("/ofrep/v1/evaluate/flags", [10, 0, 0, 2]).await.0, StatusCode::OK, "another caller");
    }
}

mod connect {
    use super::*;

    async fn ask(service: &str, method: &str, body: Value) -> (StatusCode, Value) {
        let request = post(&format!("/flagd.evaluation.{service}.Service/{method}"), body.to_string());
        let (status, _, answer) = call(routers::evaluation(&face()), request).await;
        (status, answer)
    }

    #[tokio::test]
    async fn each_method_answers_in_its_type() {
        for service in ["v1", "v2"] {
            let check = |method: &'static str, key: &'static str, value: Value, variant: &'static str| async move {
                let (status, answer) = ask(service, method, json!({"flagKey": key, "context": {}})).await;
                assert_eq!(status, StatusCode::OK, "{answer}");
                let wanted =
                    json!({"value": value, "variant": variant, "reason": "STATIC", "metadata": {"version": "7"}});
                assert_eq!(answer, wanted, "{service} {method}");
            };
            check("ResolveBoolean", "yes", json!(true), "on").await;
            check("ResolveString", "word", json!("first"), "one").await;
            check("ResolveFloat", "half", json!(2.5), "n").await;
            // What is behind the point is cut off, and 64 bits are text.
            check("ResolveInt", "half", json!("2"), "n").await;
            check("ResolveInt", "large", json!("9007199254740991"), "n").await;
            check("ResolveObject", "thing", json!({"a": [1, null, "x"]}), "o").await;
        }
    }

    #[tokio::test]
    async fn all_flags_at_once() {
        let (status, answer) = ask("v2", "ResolveAll", json!({"context": {"tier": "on"}})).await;
        assert_eq!(status, StatusCode::OK);
        let flags = answer["flags"].as_object().unwrap();
        assert_eq!(flags.len(), 8);
        assert_eq!((&flags["yes"]["boolValue"], &flags["half"]["doubleValue"]), (&json!(true), &json!(2.5)));
        assert_eq!(
            (&flags["word"]["stringValue"], &flags["thing"]["objectValue"]["a"][0]),
            (&json!("first"), &json!(1))
        );
        assert_eq!(flags["gone"], json!({"reason": "DISABLED", "metadata": {"version": "7"}}));
        // What fails is left out of the whole.
        let (_, answer) = ask("v2", "ResolveAll", json!({"context": {"tier": "nobody"}})).await;
        assert_eq!(answer["flags"].get("lost"), None);
    }

    #[tokio::test]
    async fn errors_have_connects_names_and_statuses() {
        let check = |method: &'static str, body: Value, status: u16, code: &'static str, about: &'static str| async move {
            let (seen, answer) = ask("v1", method, body).await;
            assert_eq!((seen.as_u16(), &answer["code"]), (status, &json!(code)), "{answer}");
            assert!(answer["message"].as_str().unwrap().contains(about), "{answer}");
        };
        check("ResolveBoolean", json!({"flagKey": "nobody"}), 404, "not_found", "FLAG_NOT_FOUND").await;
        check("ResolveBoolean", json!({"flagKey": "word"}), 400, "invalid_argument", "TYPE_MISMATCH").await;
        check("ResolveBoolean", json!({"flagKey": "lost", "context": {"tier": "x"}}), 500, "unknown", "GENERAL").await;
        check("ResolveBoolean", json!({"flagKey": "yes", "context": 7}), 400, "invalid_argument", "INVALID_CONTEXT")
            .await;
        check("ResolveBoolean", json!({"flagKey": "gone"}), 404, "not_found", "DISABLED").await;
        check("ResolveNothing", json!({"flagKey": "yes"}), 501, "unimplemented", "ResolveNothing").await;
        check("ResolveBoolean", json!([]), 400, "invalid_argument", "line 1").await;
    }

    #[tokio::test]
    async fn a_long_body_and_a_wrong_selector_are_refused() {
        let mut face = face();
        face.body_bytes_max = 1_000;
        let path = "/flagd.evaluation.v1.Service/ResolveBoolean";
        let (status, ..) = call(routers::evaluation(&face), post(path, " ".repeat(1_001))).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        let mut request = post(path, r#"{"flagKey": "yes"}"#);
        request.headers_mut().insert("flagd-selector", "name=x".parse().unwrap());
        let (status, _, answer) = call(routers::evaluation(&face), request).await;
        assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_argument")));
    }

    #[tokio::test]
    async fn the_event_stream_is_envelopes() {
        let face = face();
        let request = Request::post("/flagd.evaluation.v1.Service/EventStream")
            .header("content-type", "application/connect+json")
            .body(Body::empty())
            .unwrap();
        let mut body = routers::evaluation(&face).oneshot(request).await.unwrap().into_body();
        let mut next = async || {
            let frame = tokio::time::timeout(Duration::from_secs(5), body.frame()).await.unwrap().unwrap().unwrap();
            let bytes = frame.into_data().unwrap();
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            assert_eq!((bytes[0], bytes.len()), (0, 5 + length));
            serde_json::from_slice::<Value>(&bytes[5..]).unwrap()
        };
        assert_eq!(next().await["type"], "provider_ready");
        face.hub.put(vec![source("flags.json", json!({"flags": {"word": flag("second")}}))]);
        let event = next().await;
        assert_eq!(
            (&event["type"], &event["data"]["flags"]["word"]["type"]),
            (&json!("configuration_change"), &json!("update"))
        );
    }
}

mod grpc {
    use super::*;
    use crate::v1::service_server::Service as First;
    use crate::v2::service_server::Service as Second;
    use crate::{v1, v2};

    /// Guarantees: no client takes a zero for the value of a flag that is switched off. v2 says that there is no value; v1 cannot
    /// and refuses.
    #[tokio::test]
    async fn the_two_versions_differ_in_what_no_value_is() {
        let face = face();
        for (key, reason) in [("open", "DEFAULT"), ("gone", "DISABLED")] {
            let asked = v1::ResolveBooleanRequest { flag_key: key.into(), context: None };
            let refused = First::resolve_boolean(&face, tonic::Request::new(asked)).await.unwrap_err();
            assert_eq!(refused.code(), tonic::Code::NotFound);
            assert!(refused.message().contains(reason), "{refused}");
            let asked = v2::ResolveBooleanRequest { flag_key: key.into(), context: None };
            let answer = Second::resolve_boolean(&face, tonic::Request::new(asked)).await.unwrap().into_inner();
            assert_eq!((answer.value, answer.variant, answer.reason.as_str()), (None, None, reason));
        }
    }

    #[tokio::test]
    async fn errors_have_flagds_codes() {
        let face = face();
        let code = async |key: &str| {
            let asked = v1::ResolveBooleanRequest { flag_key: key.into(), context: None };
            First::resolve_boolean(&face, tonic::Request::new(asked)).await.unwrap_err().code()
        };
        assert_eq!(code("nobody").await, tonic::Code::NotFound);
        assert_eq!(code("word").await, tonic::Code::InvalidArgument);
    }

    #[tokio::test]
    async fn headers_and_the_servers_context_win_over_the_request() {
        let hub = Arc::new(Hub::new([("region".to_owned(), json!("eu"))].into_iter().collect()));
        let rule = |name: &str| {
            json!({"state": "ENABLED", "variants": {"eu": "eu", "us": "us", "none": "none"}, "defaultVariant": "none",
            "targeting": {"var": name}})
        };
        hub.put(vec![source("s", json!({"flags": {"region": rule("region"), "tenant": rule("tenant")}}))]);
        let mut face = Face::new(hub);
        face.headers = [("x-tenant".to_owned(), "tenant".to_owned())].into();
        let ask = async |key: &str| {
            let context = serde_json::json!({"region": "us", "tenant": "us"});
            let asked = v2::ResolveStringRequest {
                flag_key: key.into(),
                context: Some(crate::value::to_struct(context.as_object().unwrap())),
            };
            let mut request = tonic::Request::new(asked);
            request.metadata_mut().insert("x-tenant", "eu".parse().unwrap());
            Second::resolve_string(&face, request).await.unwrap().into_inner().value
        };
        assert_eq!((ask("region").await.as_deref(), ask("tenant").await.as_deref()), (Some("eu"), Some("eu")));
    }
}

mod ofrep {
    use super::*;

    const BULK: &str = "/ofrep/v1/evaluate/flags";

    async fn ask(path: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let (status, _, answer) = call(routers::ofrep(&face()), post(path, body)).await;
        (status, answer)
    }

    #[tokio::test]
    async fn one_flag() {
        let (status, answer) = ask(&format!("{BULK}/yes"), r#"{"context": {"targetingKey": "ann"}}"#).await;
        let wanted =
            json!({"key": "yes", "value": true, "variant": "on", "reason": "STATIC", "metadata": {"version": "7"}});
        assert_eq!((status, answer), (StatusCode::OK, wanted));
        // No value is the code default.
        for (key, reason) in [("open", "DEFAULT"), ("gone", "DISABLED")] {
            let (status, answer) = ask(&format!("{BULK}/{key}"), "{}").await;
            assert_eq!((status, answer.get("value"), &answer["reason"]), (StatusCode::OK, None, &json!(reason)));
        }
    }

    #[tokio::test]
    async fn errors_name_key_and_code() {
        let check = |path: &'static str, body: &'static str, status: u16, key: Value, code: &'static str| async move {
            let (seen, answer) = ask(path, body).await;
            assert_eq!((seen.as_u16(), &answer["key"], &answer["errorCode"]), (status, &key, &json!(code)), "{answer}");
            assert!(answer["errorDetails"].is_string(), "{answer}");
        };
        const ONE: &str = "/ofrep/v1/evaluate/flags/yes";
        check("/ofrep/v1/evaluate/flags/nobody", "{}", 404, json!("nobody"), "FLAG_NOT_FOUND").await;
        check("/ofrep/v1/evaluate/flags/lost", r#"{"context": {"tier": "x"}}"#, 400, json!("lost"), "GENERAL").await;
        check(ONE, "{", 400, json!("yes"), "PARSE_ERROR").await;
        check(ONE, r#"{"context": 7}"#, 400, json!("yes"), "INVALID_CONTEXT").await;
        check(ONE, r#"{"context": {"targetingKey": 7}}"#, 400, json!("yes"), "INVALID_CONTEXT").await;
        check(BULK, "{", 400, Value::Null, "PARSE_ERROR").await;
        check(BULK, r#"{"context": []}"#, 400, Value::Null, "INVALID_CONTEXT").await;
    }

    #[tokio::test]
    async fn a_body_that_is_too_long_is_not_read() {
        let mut face = face();
        face.body_bytes_max = 1_000;
        for path in [BULK, "/ofrep/v1/evaluate/flags/yes"] {
            let (status, ..) = call(routers::ofrep(&face), post(path, " ".repeat(1_001))).await;
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        }
    }

    async fn bulk(face: &Face, body: &str, etag: Option<&str>) -> (StatusCode, String, Value) {
        let mut request = post(BULK, body.to_owned());
        if let Some(etag) = etag {
            request.headers_mut().insert("if-none-match", etag.parse().unwrap());
        }
        let (status, headers, answer) = call(routers::ofrep(face), request).await;
        (status, headers["etag"].to_str().unwrap().to_owned(), answer)
    }

    #[tokio::test]
    async fn a_bulk_answer_holds_until_flags_or_context_change() {
        let face = face();
        let ann = r#"{"context": {"targetingKey": "ann", "a": 1, "b": 2}}"#;
        let (status, etag, answer) = bulk(&face, ann, None).await;
        assert_eq!((status, answer["flags"].as_array().unwrap().len()), (StatusCode::OK, 8));
        // One flag that fails is a failure of that flag.
        let lost = answer["flags"].as_array().unwrap().iter().find(|f| f["key"] == "lost").unwrap();
        assert_eq!(lost.get("errorCode"), None, "the rule says nothing without a tier");
        assert_eq!(answer["eventStreams"][0]["type"], "sse");
        let (status, same, body) = bulk(&face, ann, Some(&etag)).await;
        assert_eq!((status, &same, body), (StatusCode::NOT_MODIFIED, &etag, json!("")));
        let reordered = r#"{"context": {"b": 2, "a": 1, "targetingKey": "ann"}}"#;
        assert_eq!(bulk(&face, reordered, Some(&etag)).await.0, StatusCode::NOT_MODIFIED);
        let bea = r#"{"context": {"targetingKey": "bea", "a": 1, "b": 2}}"#;
        assert_eq!(bulk(&face, bea, Some(&etag)).await.0, StatusCode::OK);
        face.hub.put(vec![source("flags.json", json!({"flags": {"word": flag("second")}}))]);
        let (status, other, _) = bulk(&face, ann, Some(&etag)).await;
        assert_eq!((status, other != etag), (StatusCode::OK, true));
        face.hub.put(documents());
        assert_eq!(bulk(&face, ann, Some(&etag)).await.0, StatusCode::NOT_MODIFIED, "the same flags as then");
    }

    /// A pass that ran out is not held up by a 304: the address is part of what the ETag names.
    #[tokio::test]
    async fn another_pass_is_another_answer() {
        let mut face = face();
        face.pass = Some(Pass([1; 32]));
        let (_, etag, answer) = bulk(&face, "{}", None).await;
        assert!(answer["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap().contains("&pass="));
        assert_eq!(bulk(&face, "{}", Some(&etag)).await.0, StatusCode::NOT_MODIFIED);
        face.pass = Some(Pass([2; 32]));
        assert_eq!(bulk(&face, "{}", Some(&etag)).await.0, StatusCode::OK);
    }

    /// Guarantees: a 304 costs no evaluation. Evaluating these flags takes some hundred times longer than hashing the context.
    #[test]
    fn not_modified_costs_no_evaluation() {
        let rule =
            json!({"fractional": [{"cat": [{"var": "$flagd.flagKey"}, {"var": "targetingKey"}]}, ["a", 1], ["b", 1]]});
        let flag =
            json!({"state": "ENABLED", "variants": {"a": "a", "b": "b"}, "defaultVariant": "a", "targeting": rule});
        let flags: serde_json::Map<String, Value> = (0..3_000).map(|n| (format!("flag-{n}"), flag.clone())).collect();
        let snapshot = source("s", json!({"flags": flags})).snapshot;
        let body = br#"{"context": {"targetingKey": "ann"}}"#;
        let etag = snapshot.bulk(body, None, Timestamp::default()).etag.unwrap();
        let quickest = |etag: Option<&str>, status: u16| {
            let took = (0..5).map(|_| {
                let began = Instant::now();
                assert_eq!(snapshot.bulk(body, etag, Timestamp::default()).status, status);
                began.elapsed()
            });
            took.min().unwrap()
        };
        let (evaluated, held) = (quickest(None, 200), quickest(Some(&etag), 304));
        assert!(held * 20 < evaluated, "a 304 took {held:?}, a 200 {evaluated:?}");
    }

    fn opened(path: &str, missed: Option<&str>) -> Request<Body> {
        let request = Request::get(path);
        let request = if let Some(id) = missed { request.header("last-event-id", id) } else { request };
        request.body(Body::empty()).unwrap()
    }

    struct Stream(Body);

    impl Stream {
        async fn open(face: &Face, missed: Option<&str>) -> Stream {
            let response: Response<Body> =
                routers::ofrep(face).oneshot(opened("/ofrep/v1/events", missed)).await.unwrap();
            assert_eq!(response.headers()["content-type"], "text/event-stream");
            Stream(response.into_body())
        }

        /// The next event as its fields.
        async fn next(&mut self) -> std::collections::BTreeMap<String, String> {
            let frame = tokio::time::timeout(Duration::from_secs(10), self.0.frame()).await.expect("an event");
            let bytes = frame.unwrap().unwrap().into_data().unwrap();
            let text = std::str::from_utf8(&bytes).unwrap();
            text.lines().filter_map(|line| line.split_once(':')).map(|(k, v)| (k.into(), v.trim().into())).collect()
        }

        async fn is_silent(&mut self) -> bool {
            tokio::time::timeout(Duration::from_millis(200), self.0.frame()).await.is_err()
        }
    }

    /// A face whose flags are older than the time in which a first listener is told to ask again.
    fn settled() -> Face {
        let face = face();
        face.hub.backdate(Duration::from_secs(60));
        face
    }

    #[tokio::test]
    async fn a_change_is_told_and_what_was_missed_too() {
        let face = settled();
        let mut stream = Stream::open(&face, None).await;
        let first = stream.next().await;
        assert_eq!((first["event"].as_str(), first["data"].as_str()), ("listening", r#"{"type":"listening"}"#));
        assert!((1_000..5_000).contains(&first["retry"].parse().unwrap()), "{first:?}");
        face.hub.put(vec![source("flags.json", json!({"flags": {"word": flag("second")}}))]);
        let told = stream.next().await;
        assert_eq!(told["event"], "message");
        let data: Value = serde_json::from_str(&told["data"]).unwrap();
        assert_eq!((&data["type"], data["etag"].as_str()), (&json!("refetchEvaluation"), Some(told["id"].as_str())));
        assert!(data["lastModified"].as_i64().unwrap() > 1_700_000_000);
        // Away and back: who knows the last mark is told nothing, who knows an older one is told at once.
        face.hub.backdate(Duration::from_secs(60));
        let mut back = Stream::open(&face, Some(&told["id"])).await;
        assert_eq!(back.next().await["event"], "listening");
        assert!(back.is_silent().await);
        let mut late = Stream::open(&face, Some(&first["id"])).await;
        let missed = late.next().await;
        assert_eq!((missed["event"].as_str(), &missed["id"]), ("message", &told["id"]));
        assert!(late.is_silent().await, "once");
    }

    #[tokio::test]
    async fn changes_close_together_are_told_as_one() {
        let face = settled();
        let mut stream = Stream::open(&face, None).await;
        stream.next().await;
        // Beside the listener, so that it could hear each of them.
        let hub = face.hub.clone();
        tokio::spawn(async move {
            for n in 0..5 {
                hub.put(vec![source("flags.json", json!({"flags": {"word": flag(&n.to_string())}}))]);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let told = stream.next().await;
        assert_eq!(told["id"], face.hub.view(&Selector::Everything).snapshot.digest());
        assert!(stream.is_silent().await);
        // What changes nothing is not told.
        face.hub.put(vec![source("flags.json", json!({"flags": {"word": flag("4")}}))]);
        assert!(stream.is_silent().await);
    }

    /// Who asked for flags before a change and listens after it is told, though it never listened before.
    #[tokio::test]
    async fn a_change_between_asking_and_listening_is_told() {
        let face = settled();
        face.hub.put(vec![source("flags.json", json!({"flags": {"word": flag("second")}}))]);
        assert_eq!(Stream::open(&face, None).await.next().await["event"], "message");
    }

    /// A rule that reads the time: the ETag ends with the period, and who listens is told, without any change of the flags.
    #[tokio::test]
    async fn when_the_time_turns_an_answer_it_is_told() {
        let face = settled();
        let turn = now().nanos() / 1_000_000_000 + 2;
        let sale = json!({"state": "ENABLED", "variants": {"on": "on", "off": "off"}, "defaultVariant": "off",
            "targeting": {"if": [{">=": [{"var": "$flagd.timestamp"}, turn]}, "on", "off"]}});
        face.hub.put(vec![source("flags.json", json!({"flags": {"sale": sale}}))]);
        face.hub.backdate(Duration::from_secs(60));
        let (_, etag, answer) = bulk(&face, "{}", None).await;
        let mut stream = Stream::open(&face, None).await;
        let first = stream.next().await;
        assert_eq!((first["event"].as_str(), &answer["flags"][0]["value"]), ("listening", &json!("off")));
        let told = stream.next().await;
        assert_eq!((told["event"].as_str(), now().nanos() / 1_000_000_000), ("message", turn), "at the turn");
        assert_ne!(told["id"], first["id"]);
        let (status, after, answer) = bulk(&face, "{}", Some(&etag)).await;
        assert_eq!((status, &answer["flags"][0]["value"]), (StatusCode::OK, &json!("on")));
        assert_ne!(after, etag);
    }

    #[tokio::test]
    async fn no_pass_no_stream() {
        let mut face = settled();
        let pass = Pass([1; 32]);
        face.pass = Some(pass.clone());
        let status = async |path: &str| routers::ofrep(&face).oneshot(opened(path, None)).await.unwrap().status();
        assert_eq!(status("/ofrep/v1/events").await, StatusCode::UNAUTHORIZED);
        assert_eq!(
            status("/ofrep/v1/events?pass=99999.00000000000000000000000000000000").await,
            StatusCode::UNAUTHORIZED
        );
        let (_, _, answer) = bulk(&face, "{}", None).await;
        let address = answer["eventStreams"][0]["endpoint"]["requestUri"].as_str().unwrap();
        assert_eq!(status(address).await, StatusCode::OK);
        assert_eq!(status(&format!("{address}&selector2=x")).await, StatusCode::OK);
    }

    #[tokio::test]
    async fn pages_of_other_origins_may_call_if_they_are_named() {
        let preflight = async |origins: &[&str], from: &str| {
            let origins: Vec<String> = origins.iter().map(|o| (*o).to_owned()).collect();
            let router = routers::ofrep(&face());
            let router = match routers::cors(&origins).unwrap() {
                Some(cors) => router.layer(cors),
                None => router,
            };
            let request = Request::options(BULK)
                .header("origin", from)
                .header("access-control-request-method", "POST")
                .header("access-control-request-headers", "authorization,content-type,if-none-match")
                .body(Body::empty())
                .unwrap();
            let (_, headers, _) = call(router, request).await;
            let header = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            (header("access-control-allow-origin"), header("access-control-allow-headers"))
        };
        let shop = "https://shop.example";
        assert_eq!(preflight(&[], shop).await.0, None);
        // Not `*`: browsers do not take that to mean Authorization.
        let allowed = Some("authorization,content-type,if-none-match".to_owned());
        assert_eq!(preflight(&[shop], shop).await, (Some(shop.to_owned()), allowed.clone()));
        assert_eq!(preflight(&[shop], "https://evil.example").await.0, None);
        assert_eq!(preflight(&["*"], shop).await, (Some("*".to_owned()), allowed));
        for wrong in ["shop.example", "https://", "https://shop.example/", "https://*.example", ""] {
            assert!(routers::cors(&[wrong.to_owned()]).is_err(), "{wrong:?}");
        }
    }
}

#[tokio::test]
async fn management_says_how_it_is() {
    use std::sync::atomic::Ordering;
    let health = Arc::new(routers::Health::default());
    let face = face();
    let ask =
        |path: &'static str| call(routers::management(&face, &health), Request::get(path).body(Body::empty()).unwrap());
    assert_eq!((ask("/healthz").await.0, ask("/readyz").await.0), (StatusCode::OK, StatusCode::PRECONDITION_FAILED));
    health.ready.store(true, Ordering::Relaxed);
    assert_eq!((ask("/readyz").await.0, ask("/nothing").await.0), (StatusCode::OK, StatusCode::NOT_FOUND));
    let counted = routers::counted(routers::ofrep(&face), &health);
    for _ in 0..3 {
        call(counted.clone(), post("/ofrep/v1/evaluate/flags", "{}")).await;
    }
    let (_, headers, text) = ask("/metrics").await;
    let text = text.as_str().unwrap();
    assert!(headers["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    assert!(text.contains("seaworthy_flag_requests_total 3\n") && text.contains("seaworthy_flags 8\n"), "{text}");
    // Each metric has its help and its type, and counters end in _total.
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split([' ', '{']).next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name}");
        let kind = if name.ends_with("_total") { "counter" } else { "gauge" };
        assert!(text.contains(&format!("# TYPE {name} {kind}\n")), "{name}");
    }
}

mod listening {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::listen;

    /// Guarantees: both versions of HTTP are spoken on one port, however slowly the first bytes come; at the end what is under way
    /// is answered, and a connection that said nothing holds nobody up.
    #[tokio::test]
    async fn both_versions_on_one_port_until_the_end() {
        let listener = listen::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let router = routers::ofrep(&face());
        let serving = tokio::spawn(listen::serve_until(listener, None, router, async move { _ = stopped.await }));
        let request = b"POST /ofrep/v1/evaluate/flags/f HTTP/1.1\r\nhost: h\r\ncontent-length: 2\r\n\r\n{}";
        let mut buffer = [0; 1_024];
        let mut kept = TcpStream::connect(address).await.unwrap();
        for chunks in [vec![request.as_slice()], vec![&request[..1], &request[1..3], &request[3..]]] {
            for chunk in chunks {
                kept.write_all(chunk).await.unwrap();
                tokio::task::yield_now().await;
            }
            let n = kept.read(&mut buffer).await.unwrap();
            assert!(buffer[..n].starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&buffer[..n]));
        }
        let mut slow = TcpStream::connect(address).await.unwrap();
        slow.set_nodelay(true).unwrap();
        slow.write_all(&request[..1]).await.unwrap();
        let mut second = TcpStream::connect(address).await.unwrap();
        // The preface and an empty frame of settings; the answer is a frame of settings (type 4).
        second.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        second.read_exact(&mut buffer[..9]).await.unwrap();
        assert_eq!(buffer[3], 4);
        // It does not answer as a client must, so its connection would be waited for.
        drop(second);
        slow.write_all(&request[1..]).await.unwrap();
        let n = slow.read(&mut buffer).await.unwrap();
        assert!(buffer[..n].starts_with(b"HTTP/1.1 "));
        let _silent = TcpStream::connect(address).await.unwrap();
        stop.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(10), serving).await.expect("it ends").unwrap();
    }
}
