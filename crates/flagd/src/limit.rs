//! How often one caller may ask: a token bucket for each, in bounded memory.
//!
//! A bucket holds at most one second's worth of requests, fills evenly, and each request takes one out. A caller is a
//! credential where credentials are checked, else the address it calls from: an unchecked credential is a mere claim, and
//! whoever makes up a new one for each request would never meet a limit. What a refusal looks like is `http`'s.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// Callers that are told apart. More at once, and the further ones share one bucket.
const CALLERS_MAX: usize = 10_000;
/// Full buckets are forgotten at most this often: it takes a look at each.
const SWEEP: Duration = Duration::from_secs(1);

/// Requests a second; twice as many are never let through within one second.
pub type Rate = NonZeroU32;

/// What a caller has left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    pub(crate) fn full(rate: Rate, now: Instant) -> Bucket {
        Bucket { left: f64::from(rate.get()), at: now }
    }

    fn filled(self, rate: Rate, now: Instant) -> Bucket {
        let most = f64::from(rate.get());
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        Bucket { left: (self.left + passed * most).min(most), at: self.at.max(now) }
    }

    /// Takes one request out, or says how long it takes until there is one.
    pub(crate) fn take(&mut self, rate: Rate, now: Instant) -> Result<(), Duration> {
        *self = self.filled(rate, now);
        if self.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - self.left) / f64::from(rate.get())));
        }
        self.left -= 1.0;
        Ok(())
    }

    fn is_full(self, rate: Rate, now: Instant) -> bool {
        self.filled(rate, now).left >= f64::from(rate.get())
    }
}

/// Whose requests are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Caller {
    /// A part of the credential's SHA-256.
    Credential([u8; 16]),
    /// An address; of IPv6 the first 64 bits, for a client has all of the rest.
    Address(IpAddr),
    /// Nobody knows who, or there are too many.
    Others,
}

/// By what callers are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// By the token, which somebody has checked before.
    Credential,
    /// By where they call from.
    Address,
}

#[derive(Debug)]
struct Callers {
    buckets: HashMap<Caller, Bucket>,
    swept_at: Instant,
}

/// A bucket for each caller.
#[derive(Debug)]
pub struct Limiter {
    rate: Rate,
    by: By,
    callers: Mutex<Callers>,
}

impl Limiter {
    /// Lets each caller through this many times a second.
    pub fn new(rate: Rate, by: By) -> Limiter {
        let callers = Callers { buckets: HashMap::new(), swept_at: Instant::now() };
        Limiter { rate, by, callers: Mutex::new(callers) }
    }

    /// Requests a second.
    pub(crate) fn rate(&self) -> Rate {
        self.rate
    }

    pub(crate) fn caller(&self, headers: &HeaderMap, from: Option<IpAddr>) -> Caller {
        // In either header it is the same credential: the word in front of it does not count.
        let bearer = || headers.get(header::AUTHORIZATION)?.as_bytes().splitn(2, |b| *b == b' ').nth(1);
        let credential = || bearer().or_else(|| Some(headers.get("x-api-key")?.as_bytes()));
        match (self.by, from) {
            (By::Credential, _) => credential().map_or(Caller::Others, |value| {
                let hash = Sha256::digest(value.trim_ascii());
                let mut part = [0; 16];
                part.copy_from_slice(&hash[..16]);
                Caller::Credential(part)
            }),
            (By::Address, Some(IpAddr::V6(address))) => {
                let prefix = u128::from(address) >> 64 << 64;
                Caller::Address(address.to_ipv4_mapped().map_or(IpAddr::V6(prefix.into()), IpAddr::V4))
            }
            (By::Address, Some(address)) => Caller::Address(address),
            (By::Address, None) => Caller::Others,
        }
    }

    /// Lets a request through, or says how long to wait.
    pub(crate) fn take(&self, caller: Caller, now: Instant) -> Result<(), Duration> {
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        let known = callers.buckets.contains_key(&caller);
        if !known && callers.buckets.len() >= CALLERS_MAX && now.saturating_duration_since(callers.swept_at) >= SWEEP {
            callers.swept_at = now;
            callers.buckets.retain(|_, bucket| !bucket.is_full(self.rate, now));
        }
        let caller = if known || callers.buckets.len() < CALLERS_MAX { caller } else { Caller::Others };
        callers.buckets.entry(caller).or_insert_with(|| Bucket::full(self.rate, now)).take(self.rate, now)
    }
}
