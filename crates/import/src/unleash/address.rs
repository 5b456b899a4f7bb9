//! Lists of IP addresses and networks as conditions over an address that is text.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::part::any;
use crate::{Import, Weight};

const OCTET: &str = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])";

/// The address is one of these or in one of these networks. What is no address matches nothing, as in Unleash.
pub(super) fn condition(listed: &[String], place: &str, import: &mut Import) -> Value {
    let mut plain = Vec::new();
    let mut patterns = Vec::new();
    for item in listed.iter().filter(|item| !item.is_empty()) {
        let (address, length) = item.split_once('/').map_or((item.as_str(), None), |(a, l)| (a, Some(l)));
        let found = match (address.parse::<IpAddr>(), length.map(str::parse::<u8>)) {
            (Ok(IpAddr::V4(_)), None | Some(Ok(32))) => {
                plain.push(address.to_owned());
                true
            }
            (Ok(IpAddr::V6(full)), None | Some(Ok(128))) => {
                plain.extend([full.to_string(), written_out(full, 4), written_out(full, 1)]);
                plain.push(address.to_owned());
                true
            }
            (Ok(IpAddr::V4(network)), Some(Ok(length))) if length < 32 => {
                patterns.push(pattern_v4(network, length));
                true
            }
            (Ok(IpAddr::V6(network)), Some(Ok(length))) if length < 128 => match pattern_v6(network, length) {
                Some(pattern) => {
                    patterns.push(pattern);
                    true
                }
                None => {
                    let text = format!("the network {item} cannot be told from an address written out; it is left out");
                    import.note(place, Weight::LeftOut, text);
                    continue;
                }
            },
            _ => false,
        };
        if !found {
            let text = format!("{item:?} is no address and no network; it matches nothing, as in Unleash");
            import.note(place, Weight::Info, text);
        }
    }
    plain.sort_unstable();
    plain.dedup();
    let mut conditions = Vec::new();
    if !plain.is_empty() {
        conditions.push(json!({"attr": "remoteAddress", "op": "in", "values": plain, "ignore_case": true}));
    }
    if !patterns.is_empty() {
        conditions.push(json!({"attr": "remoteAddress", "op": "matches", "values": patterns, "ignore_case": true}));
    }
    any(conditions)
}

/// All eight groups, each with at least so many digits.
fn written_out(address: Ipv6Addr, digits: usize) -> String {
    let groups: Vec<String> = address.segments().iter().map(|group| format!("{group:0digits$x}")).collect();
    groups.join(":")
}

fn pattern_v4(network: Ipv4Addr, length: u8) -> String {
    let octets = network.octets();
    let parts: Vec<String> = (0..4)
        .map(|n: u8| {
            let fixed = length.saturating_sub(8 * n).min(8);
            let octet = octets[usize::from(n)];
            match fixed {
                8 => octet.to_string(),
                0 => OCTET.to_owned(),
                _ => {
                    let free = 1_u16 << (8 - fixed);
                    let first = u16::from(octet) / free * free;
                    let listed: Vec<String> = (first..first + free).map(|octet| octet.to_string()).collect();
                    format!("({})", listed.join("|"))
                }
            }
        })
        .collect();
    format!("^{}$", parts.join("[.]"))
}

/// Whole groups none of which is zero: such a prefix is written out in every form of an address.
fn pattern_v6(network: Ipv6Addr, length: u8) -> Option<String> {
    let groups = usize::from(length) / 16;
    let fixed = &network.segments()[..groups];
    if !length.is_multiple_of(16) || groups == 0 || fixed.contains(&0) {
        return None;
    }
    let fixed: Vec<String> = fixed.iter().map(|group| format!("0{{0,3}}{group:x}")).collect();
    Some(format!("^{}:", fixed.join(":")))
}
