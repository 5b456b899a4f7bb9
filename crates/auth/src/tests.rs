use vocab::Timestamp;

use crate::*;

#[test]
fn a_token_does_what_its_role_says_and_no_more() {
    let now = Timestamp::from_nanos(10);
    let token = |role, expires| Token { name: "t".into(), role, expires };
    let may = |has, needs| authorize(Some(&token(has, None)), needs, now).is_ok();
    for role in Role::ALL {
        assert!(may(Role::Admin, role));
        assert!(may(role, role));
        assert_eq!(Role::parse(role.as_str()), Some(role));
    }
    assert!(may(Role::Operate, Role::Read) && may(Role::Proxy, Role::Ingest));
    assert!(!may(Role::Operate, Role::Admin) && !may(Role::Read, Role::Operate) && !may(Role::Ingest, Role::Read));
    assert_eq!(authorize(None, Role::Read, now), Err(Denied::Unauthenticated));
    assert_eq!(authorize(Some(&token(Role::Admin, Some(now))), Role::Read, now), Err(Denied::Expired));
}

#[test]
fn tokens_hash_and_never_show() {
    let (a, b) = (token_text(&[0; 32]), token_text(&[255; 32]));
    assert_eq!((a.len(), b.len()), (46, 46));
    let hash = TokenHash::of(&a);
    assert_ne!(hash, TokenHash::of(&b));
    assert_eq!(TokenHash::from_hex(&hash.to_hex()), Some(hash));
    assert_eq!(TokenHash::from_hex("zz"), None);
    assert_eq!(format!("{hash:?}"), "TokenHash(…)");
}

#[test]
fn a_preview_link_counts_as_it_was_signed_until_it_ends() {
    use vocab::{Id, Kind};
    let (key, id, ends) = ([7; 32], Id::new(Kind::Preview, 44), Timestamp::from_micros(5_000));
    let text = preview_text(&key, id, ends);
    let before = Timestamp::from_micros(4_999);
    assert_eq!(read_preview(&key, &text, before), Some(id));
    assert_eq!(read_preview(&key, &text, ends), None, "ended");
    assert_eq!(read_preview(&[8; 32], &text, before), None, "signed by somebody else");
    for place in 0..text.len() {
        let mut changed = text.clone().into_bytes();
        changed[place] = if changed[place] == b'1' { b'2' } else { b'1' };
        assert_eq!(read_preview(&key, &String::from_utf8(changed).unwrap(), before), None, "changed at {place}");
    }
    for other in ["", "swp_", &text[..text.len() - 1], &format!("{text}0"), "swp_é", &text.to_uppercase()] {
        assert_eq!(read_preview(&key, other, before), None, "{other}");
    }
}
