use std::path::Path;
use std::time::{Duration, Instant};

use vocab::Arm;

use crate::baggage::{self, Key, Part};
use crate::lease::{LEASE, Plane};
use crate::{Active, Config, Snapshot};

fn key() -> Key {
    Key::from_hex(&"07".repeat(32)).unwrap()
}

fn part(arm: Arm) -> Part {
    Part { experiment: "exp_0000001".into(), epoch: 3, arm }
}

#[test]
fn a_hop_reads_what_the_edge_wrote() {
    let subject = key().pseudonym("u1");
    for arm in Arm::BOTH {
        let header = baggage::write(Some("tenant=7"), &key(), subject, &[part(arm)]);
        assert_eq!(baggage::read(&header, &key()), Some((subject, vec![part(arm)])));
        assert!(header.starts_with("tenant=7,sw-s="));
    }
}

/// Guarantees: whoever does not hold the key puts nobody into an arm, and nothing of ours passes the edge from outside.
#[test]
fn foreign_members_are_stripped_and_forged_ones_ignored() {
    let subject = key().pseudonym("u1");
    let foreign = Key::from_hex(&"08".repeat(32)).unwrap();
    let header = baggage::write(None, &foreign, subject, &[part(Arm::Treatment)]);
    assert_eq!(baggage::read(&header, &key()), Some((subject, vec![])));
    // Another subject's tag is worth nothing.
    let stolen = baggage::write(None, &key(), key().pseudonym("u2"), &[part(Arm::Treatment)]);
    let swapped = stolen.replace(&key().pseudonym("u2").to_string(), &subject.to_string());
    assert_eq!(baggage::read(&swapped, &key()), Some((subject, vec![])));
    assert_eq!(baggage::strip(&format!("a=b, {header} ,SW-X=1,c=d;p=1")), Some("a=b,c=d;p=1".into()));
    assert_eq!(baggage::strip(&header), None);
    for hostile in ["", "sw-s=", "sw-s=x,sw-x=..", &"sw-x=1,".repeat(5_000), "sw-s=AAAAAAAAAAAAAAAAAAAAAA,sw-x=a.b.c/é"]
    {
        if let Some((_, parts)) = baggage::read(hostile, &key()) {
            assert!(parts.is_empty(), "{hostile}");
        }
    }
}

fn snapshot(epoch: u64, treatment_part: u32) -> Snapshot {
    let active = Active {
        id: "exp_0000001".into(),
        epoch,
        layer_salt: "faults".into(),
        arm_salt: "x".into(),
        offset: 0,
        population: 250_000,
        treatment_part,
        route: "license".into(),
        on: true,
        delay_ms: Some(300),
        abort: None,
    };
    Snapshot { version: 1, epoch, key: "07".repeat(32), experiments: vec![active] }
}

/// Guarantees: no lease, no fault; an older epoch is ignored; a share above the budget switches all faults off.
#[test]
fn faults_need_lease_epoch_and_budget() {
    let plane = Plane::new();
    plane.take(snapshot(2, 200_000));
    assert!(!plane.may_harm("exp_0000001"), "no lease yet");
    plane.renewed(Instant::now());
    assert!(plane.may_harm("exp_0000001"));
    assert!(!plane.may_harm("exp_0000002"));
    let halted = Snapshot { version: 2, epoch: 3, ..Snapshot::default() };
    plane.take(halted);
    plane.take(snapshot(2, 200_000));
    assert!(!plane.may_harm("exp_0000001"), "an older epoch came after the halt");
    plane.take(snapshot(3, 400_000));
    assert!(!plane.may_harm("exp_0000001"), "10 % is above the budget");
    plane.take(snapshot(3, 200_000));
    assert!(plane.may_harm("exp_0000001"));
    // The lease counts from when the renewal was sent, not from when it was answered.
    let plane = Plane::new();
    plane.take(snapshot(2, 200_000));
    if let Some(long_ago) = Instant::now().checked_sub(LEASE + Duration::from_millis(1)) {
        plane.renewed(long_ago);
        assert!(!plane.lease_is_valid());
    }
}

#[test]
fn a_wrong_configuration_names_file_and_key() {
    let check = |text: &str| Config::parse(text, Path::new("proxy.yaml")).unwrap_err().to_string();
    let routes = "routes:\n  - {name: all, upstream: 'http://127.0.0.1:1'}\n";
    assert!(Config::parse(&format!("name: edge\n{routes}"), Path::new("p")).is_ok());
    assert!(check(&format!("name: edge\nlisten: nowhere\n{routes}")).contains("proxy.yaml"));
    assert!(check(&format!("name: edge\nbogus: 1\n{routes}")).contains("bogus"));
    assert_eq!(check("name: edge\nroutes: []\n"), "proxy.yaml, routes: expected at least one route");
    assert_eq!(
        check("name: edge\nroutes:\n  - {name: a, upstream: 'ftp://x'}\n"),
        "proxy.yaml, routes[0].upstream: expected http://host:port"
    );
    assert!(check(&format!("name: edge\nedge: true\n{routes}")).contains("no subject, no arm"));
}
