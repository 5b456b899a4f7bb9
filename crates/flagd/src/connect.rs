//! The evaluation services as Connect JSON, for browsers and curl: `POST /flagd.evaluation.v1.Service/ResolveBoolean`.
//!
//! Unary methods take and give plain JSON. The event stream is a sequence of envelopes: a byte of flags, four of length, JSON.

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use flags::Context;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode, header};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};

use crate::face::{Face, Wanted, no_value, now, resolve};

/// Whether this request speaks Connect rather than gRPC.
pub(crate) fn is_connect(headers: &HeaderMap) -> bool {
    matches!(media(headers), "application/json" | "application/connect+json")
}

fn media(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

/// Connect's name and HTTP status of a code.
fn names(code: Code) -> (&'static str, StatusCode) {
    match code {
        Code::InvalidArgument => ("invalid_argument", StatusCode::BAD_REQUEST),
        Code::NotFound => ("not_found", StatusCode::NOT_FOUND),
        Code::DataLoss => ("data_loss", StatusCode::INTERNAL_SERVER_ERROR),
        Code::DeadlineExceeded => ("deadline_exceeded", StatusCode::GATEWAY_TIMEOUT),
        Code::Unimplemented => ("unimplemented", StatusCode::NOT_IMPLEMENTED),
        _ => ("unknown", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

fn refusal(status: &Status) -> Value {
    json!({"code": names(status.code()).0, "message": status.message()})
}

/// Answers a Connect request to `/flagd.evaluation.<version>.Service/<method>`.
pub(crate) fn answer(face: &Face, version: &str, method: &str, headers: &HeaderMap, body: &Bytes) -> Response {
    if method == "EventStream" {
        return match face.selector(headers, "") {
            Ok(selector) => event_stream(face, selector),
            Err(status) => failed(&status),
        };
    }
    match unary(face, version, method, headers, body) {
        Ok(value) => axum::Json(value).into_response(),
        Err(status) => failed(&status),
    }
}

fn failed(status: &Status) -> Response {
    (names(status.code()).1, axum::Json(refusal(status))).into_response()
}

fn unary(face: &Face, version: &str, method: &str, headers: &HeaderMap, body: &Bytes) -> Result<Value, Status> {
    let view = face.view(headers)?;
    let mut asked: Map<String, Value> = serde_json::from_slice(body)
        .map_err(|e| Status::invalid_argument(format!("line {} column {}: {e}", e.line(), e.column())))?;
    let context = match asked.remove("context") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(map)) => map,
        Some(_) => return Err(Status::invalid_argument("INVALID_CONTEXT: context must be an object")),
    };
    let context = face.enrich(Context::new(context), headers);
    let wanted = match method {
        "ResolveBoolean" => Wanted::Bool,
        "ResolveString" => Wanted::Text,
        "ResolveFloat" | "ResolveInt" => Wanted::Number,
        "ResolveObject" => Wanted::Object,
        "ResolveAll" => {
            view.snapshot.note_all(&context, now());
            let mut flags = Map::new();
            for (key, found) in view.snapshot.decide_all(&context, now()) {
                let Ok(found) = found else { continue };
                let mut flag = json!({"reason": found.reason.as_str(), "metadata": found.metadata});
                if let Some(variant) = found.variant {
                    flag["variant"] = json!(variant);
                }
                if let Some(value) = found.value {
                    let name = match value {
                        Value::Bool(_) => "boolValue",
                        Value::String(_) => "stringValue",
                        Value::Number(_) => "doubleValue",
                        _ => "objectValue",
                    };
                    flag[name] = value.clone();
                }
                flags.insert(key.to_owned(), flag);
            }
            return Ok(json!({"flags": flags, "metadata": view.snapshot.flags.metadata()}));
        }
        _ => return Err(Status::unimplemented(format!("no method {method}"))),
    };
    let key = asked.get("flagKey").or_else(|| asked.get("flag_key")).and_then(Value::as_str).unwrap_or_default();
    let found = resolve(&view, key, &context, wanted)?;
    if version == "v1" && found.value.is_none() {
        return Err(no_value(key, &found));
    }
    let mut answer = json!({"reason": found.reason.as_str(), "metadata": found.metadata});
    match found.value {
        // 64-bit integers are text in protobuf's JSON.
        Some(value) if method == "ResolveInt" => {
            let whole = value.as_i64().or_else(|| Some(value.as_f64()? as i64)).unwrap_or_default();
            answer["value"] = json!(whole.to_string());
        }
        Some(value) => answer["value"] = value.clone(),
        None => {}
    }
    if let Some(variant) = found.variant {
        answer["variant"] = json!(variant);
    }
    Ok(answer)
}

fn envelope(flags: u8, value: &Value) -> Bytes {
    let text = value.to_string();
    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
    [&[flags][..], &length.to_be_bytes(), text.as_bytes()].concat().into()
}

fn event_stream(face: &Face, selector: crate::Selector) -> Response {
    const END: u8 = 2;
    let events = face.events(selector).map(|event| match event {
        Ok(event) => envelope(0, &json!({"type": event.kind, "data": event.data})),
        Err(status) => envelope(END, &json!({"error": refusal(&status)})),
    });
    let events = events.chain(stream::iter([envelope(END, &json!({}))])).map(Ok::<_, std::convert::Infallible>);
    ([(header::CONTENT_TYPE, "application/connect+json")], Body::from_stream(events)).into_response()
}
