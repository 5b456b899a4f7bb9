//! Bodies of requests, unpacked within bounds.

use std::io::Read;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use crate::problem::Problem;

/// The longest body, before and after decompression.
pub(crate) const BODY_BYTES_MAX: usize = 16 << 20;
/// The largest window of zstd, as a power of two: no body is longer.
const ZSTD_WINDOW_LOG_MAX: u32 = 24;

/// The body without its compression.
pub(crate) fn unpack(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Problem> {
    let coding = headers.get(header::CONTENT_ENCODING).and_then(|v| v.to_str().ok()).unwrap_or("identity");
    match coding.trim() {
        "" | "identity" => Ok(body),
        "gzip" => whole(flate2::read::GzDecoder::new(&body[..]), "invalid-gzip", "send a whole gzip stream"),
        "deflate" => {
            whole(flate2::read::ZlibDecoder::new(&body[..]), "invalid-deflate", "send a whole zlib stream (RFC 1950)")
        }
        "zstd" => {
            let remedy = "send a whole zstd stream, with a window of at most 16 MiB";
            let wrong = |e: std::io::Error| Problem::bad_request("invalid-zstd", e.to_string(), remedy);
            let mut decoder = zstd::stream::read::Decoder::new(&body[..]).map_err(wrong)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(wrong)?;
            whole(decoder, "invalid-zstd", remedy)
        }
        other => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-encoding",
            format!("content encoding {other:?}"),
            "send gzip, zstd, deflate or identity",
        )),
    }
}

fn whole(reader: impl Read, code: &'static str, remedy: &str) -> Result<Bytes, Problem> {
    let mut plain = Vec::new();
    reader
        .take(BODY_BYTES_MAX as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|e| Problem::bad_request(code, e.to_string(), remedy))?;
    if plain.len() > BODY_BYTES_MAX {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too-large",
            format!("more than {BODY_BYTES_MAX} bytes after decompression"),
            "send smaller batches",
        ));
    }
    Ok(plain.into())
}
