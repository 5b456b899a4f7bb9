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
