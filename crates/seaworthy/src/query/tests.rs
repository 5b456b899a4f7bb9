use super::listed;

#[test]
fn commas_within_an_expression_do_not_separate() {
    let check = |text: &str, wanted: &[&str]| assert_eq!(listed(&[text.to_owned()]), wanted, "{text}");
    check("service.name, route", &["service.name", "route"]);
    check("region,bucket(duration_ms, 100),p99(a)", &["region", "bucket(duration_ms, 100)", "p99(a)"]);
    check(r"concat(a, 'it\'s, (', b),`x,y`,c", &[r"concat(a, 'it\'s, (', b)", "`x,y`", "c"]);
    check(",a,,", &["a"]);
    // What is not closed stays whole: the server says what is wrong with it, and where.
    check("sum(a,b", &["sum(a,b"]);
    assert_eq!(listed(&["a".to_owned(), "b,c".to_owned()]), ["a", "b", "c"]);
}
