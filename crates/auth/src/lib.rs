//! Tokens and roles: credential + action → allowed, or why not. Pure: the shell draws the random bytes and the time.
//!
//! A token reads `sw_<43 characters of base62>`; stored is only its SHA-256, since 256 random bits need no slow hash.

mod preview;

pub use preview::{preview_text, read_preview};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vocab::Timestamp;

/// What a token may do; each includes what its line says and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Everything, tokens included.
    Admin,
    /// Change flags and experiments, and read.
    Operate,
    /// Read everything.
    Read,
    /// Send events.
    Ingest,
    /// Evaluate flags.
    Evaluate,
    /// Be a service: evaluate flags and send events.
    Service,
    /// Set one flag within bounds.
    Delegate,
    /// Be a proxy: receive the snapshot, renew leases, send events.
    Proxy,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 8] = [
        Role::Admin,
        Role::Operate,
        Role::Read,
        Role::Ingest,
        Role::Evaluate,
        Role::Service,
        Role::Delegate,
        Role::Proxy,
    ];

    /// As on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Operate => "operate",
            Role::Read => "read",
            Role::Ingest => "ingest",
            Role::Evaluate => "evaluate",
            Role::Service => "service",
            Role::Delegate => "delegate",
            Role::Proxy => "proxy",
        }
    }

    /// The role of that name.
    pub fn parse(text: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.as_str() == text)
    }

    /// Whether a token of this role may do what needs `needed`.
    pub fn allows(self, needed: Role) -> bool {
        match self {
            Role::Admin => true,
            Role::Operate => matches!(needed, Role::Operate | Role::Read | Role::Evaluate),
            Role::Service => matches!(needed, Role::Service | Role::Evaluate | Role::Ingest),
            Role::Proxy => matches!(needed, Role::Proxy | Role::Ingest),
            role => role == needed,
        }
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenHash([u8; 32]);

impl std::fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl TokenHash {
    /// The hash of a token's text.
    pub fn of(token: &str) -> TokenHash {
        TokenHash(Sha256::digest(token.as_bytes()).into())
    }

    /// 64 hex digits.
    pub fn to_hex(self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Reads 64 hex digits.
    pub fn from_hex(text: &str) -> Option<TokenHash> {
        let mut bytes = [0; 32];
        if text.len() != 64 || !text.is_ascii() {
            return None;
        }
        for (place, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * place..2 * place + 2], 16).ok()?;
        }
        Some(TokenHash(bytes))
    }
}

/// A token as the control plane knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// For people.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// It is worth nothing from then on; none never expires.
    pub expires: Option<Timestamp>,
}

/// Why a call is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// No token, or one that is not known (any more).
    #[error("a valid token is needed: send it as `Authorization: Bearer sw_…`")]
    Unauthenticated,
    /// Past its time.
    #[error("the token has expired: ask an admin for a new one")]
    Expired,
    /// Known, but for other work.
    #[error("the token's role is {has}, this needs {needs}")]
    Forbidden {
        /// What it may do.
        has: &'static str,
        /// What was asked.
        needs: &'static str,
    },
}

/// Whether `token` may do what needs `needed` at `now`.
pub fn authorize(token: Option<&Token>, needed: Role, now: Timestamp) -> Result<(), Denied> {
    let token = token.ok_or(Denied::Unauthenticated)?;
    if token.expires.is_some_and(|expires| now >= expires) {
        return Err(Denied::Expired);
    }
    if !token.role.allows(needed) {
        return Err(Denied::Forbidden { has: token.role.as_str(), needs: needed.as_str() });
    }
    Ok(())
}

/// The text of a token made from 32 random bytes.
pub fn token_text(random: &[u8; 32]) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut number = *random;
    let mut text = Vec::new();
    for _ in 0..43 {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest * 256 + u32::from(*byte);
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        text.push(DIGITS[rest as usize]);
    }
    format!("sw_{}", String::from_utf8_lossy(&text))
}

#[cfg(test)]
mod tests;
