//! `flagd.evaluation.v1` and `v2`. They differ in one thing: v2 can say that there is no value, and that the client's code
//! default is meant. v1 cannot, and its clients take a zero for the value whatever reason stands beside it. So v1 refuses with
//! NOT_FOUND, upon which every client uses its code default. flagd does so where there is no default variant; for a disabled
//! flag it says the zero, and a switched-off flag would be `false` where the code says `true`.

use std::convert::identity;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use serde_json::Value;
use tonic::{Request, Response, Status};

use crate::face::{Face, Wanted, bad_context, no_value, now, resolve};
use crate::value::{context, to_struct};
use crate::{v1, v2};

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn float(value: &Value) -> Option<f64> {
    value.as_f64()
}

/// As flagd does: what is behind the point is cut off.
fn int(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| Some(value.as_f64()? as i64))
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn object(value: &Value) -> Option<prost_types::Struct> {
    value.as_object().map(to_struct)
}

/// One flag as one type.
macro_rules! one {
    ($face:ident, $request:ident, $api:ident, $response:ident, $wanted:expr, $of:expr, $opt:path, $wrap:path, $says_none:expr) => {{
        let headers = $request.metadata().clone().into_headers();
        let view = $face.view(&headers)?;
        let asked = $request.into_inner();
        let context = context(asked.context).ok_or_else(bad_context)?;
        let found = resolve(&view, &asked.flag_key, &$face.enrich(context, &headers), $wanted)?;
        if !$says_none && found.value.is_none() {
            return Err(no_value(&asked.flag_key, &found));
        }
        Ok(Response::new($api::$response {
            value: $wrap($opt(found.value.and_then($of))),
            reason: found.reason.as_str().to_owned(),
            variant: $opt(found.variant.map(str::to_owned)),
            metadata: Some(to_struct(&found.metadata)),
        }))
    }};
}

macro_rules! evaluation {
    ($api:ident, $opt:path, $wrap:path, $says_none:expr) => {
        #[tonic::async_trait]
        impl $api::service_server::Service for Face {
            async fn resolve_boolean(
                &self,
                request: Request<$api::ResolveBooleanRequest>,
            ) -> Result<Response<$api::ResolveBooleanResponse>, Status> {
                one!(
                    self,
                    request,
                    $api,
                    ResolveBooleanResponse,
                    Wanted::Bool,
                    Value::as_bool,
                    $opt,
                    identity,
                    $says_none
                )
            }

            async fn resolve_string(
                &self,
                request: Request<$api::ResolveStringRequest>,
            ) -> Result<Response<$api::ResolveStringResponse>, Status> {
                one!(self, request, $api, ResolveStringResponse, Wanted::Text, text, $opt, identity, $says_none)
            }

            async fn resolve_float(
                &self,
                request: Request<$api::ResolveFloatRequest>,
            ) -> Result<Response<$api::ResolveFloatResponse>, Status> {
                one!(self, request, $api, ResolveFloatResponse, Wanted::Number, float, $opt, identity, $says_none)
            }

            async fn resolve_int(
                &self,
                request: Request<$api::ResolveIntRequest>,
            ) -> Result<Response<$api::ResolveIntResponse>, Status> {
                one!(self, request, $api, ResolveIntResponse, Wanted::Number, int, $opt, identity, $says_none)
            }

            async fn resolve_object(
                &self,
                request: Request<$api::ResolveObjectRequest>,
            ) -> Result<Response<$api::ResolveObjectResponse>, Status> {
                one!(self, request, $api, ResolveObjectResponse, Wanted::Object, object, $opt, $wrap, $says_none)
            }

            async fn resolve_all(
                &self,
                request: Request<$api::ResolveAllRequest>,
            ) -> Result<Response<$api::ResolveAllResponse>, Status> {
                use $api::any_flag::Value as Any;
                let headers = request.metadata().clone().into_headers();
                let view = self.view(&headers)?;
                let context = context(request.into_inner().context).ok_or_else(bad_context)?;
                let context = self.enrich(context, &headers);
                view.snapshot.note_all(&context, now());
                let mut flags = std::collections::HashMap::new();
                for (key, found) in view.snapshot.decide_all(&context, now()) {
                    // As flagd does: what fails is left out of the whole.
                    let Ok(found) = found else { continue };
                    let value = found.value.and_then(|value| match value {
                        Value::Bool(b) => Some(Any::BoolValue(*b)),
                        Value::String(s) => Some(Any::StringValue(s.clone())),
                        Value::Number(n) => Some(Any::DoubleValue(n.as_f64()?)),
                        other => Some(Any::ObjectValue(to_struct(other.as_object()?))),
                    });
                    let flag = $api::AnyFlag {
                        reason: found.reason.as_str().to_owned(),
                        variant: $opt(found.variant.map(str::to_owned)),
                        value,
                        metadata: Some(to_struct(&found.metadata)),
                    };
                    flags.insert(key.to_owned(), flag);
                }
                let metadata = Some(to_struct(view.snapshot.flags.metadata()));
                Ok(Response::new($api::ResolveAllResponse { flags, metadata }))
            }

            type EventStreamStream = Events<$api::EventStreamResponse>;

            async fn event_stream(
                &self,
                request: Request<$api::EventStreamRequest>,
            ) -> Result<Response<Self::EventStreamStream>, Status> {
                let selector = self.selector(&request.metadata().clone().into_headers(), "")?;
                let events = self.events(selector).map(|event| {
                    let event = event?;
                    Ok($api::EventStreamResponse { r#type: event.kind.to_owned(), data: Some(to_struct(&event.data)) })
                });
                Ok(Response::new(Box::pin(events)))
            }
        }
    };
}

evaluation!(v1, Option::unwrap_or_default, Some, false);
evaluation!(v2, identity, identity, true);
