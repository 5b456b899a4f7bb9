//! Expressions at their boundary: text and fields in, value or error with its place out.

use super::*;

fn fields(name: &str) -> Option<Operand<'static>> {
    Some(match name {
        "n" => Operand::Int(7),
        "x" => Operand::Float(2.5),
        "s" => Operand::Str("Web".into()),
        "t" => Operand::Bool(true),
        "most" => Operand::Int(i64::MAX),
        _ => return None,
    })
}

fn check(text: &str, expected: &str) {
    let said = match Expression::parse(text) {
        Ok(expression) => {
            let names = expression.fields().to_vec();
            match expression.evaluate(&mut |place| fields(&names[place])) {
                Some(value) => format!("{:?}", value.as_ref()),
                None => "absent".to_owned(),
            }
        }
        Err(error) => error.to_string(),
    };
    assert_eq!(said, expected, "{text}");
}

#[test]
fn values() {
    check("n + 1 * 2", "Int(9)");
    check("(n + 1) * 2", "Int(16)");
    check("n / 2", "Float(3.5)");
    check("n % 4 - -1", "Int(4)");
    check("most + 1", "Float(9.223372036854776e18)");
    check("n / 0", "absent");
    check("n % 0", "absent");
    check("missing + 1", "absent");
    check("s + 1", "absent");
    check("a-b", "absent");
    check("n > 5 and not s = 'web'", "Bool(true)");
    check("missing > 5 or t", "Bool(true)");
    check("not missing", "Bool(true)");
    check("n = 7.0", "Bool(true)");
    check("n != s", "Bool(true)");
    check("if(n > 5, 'big', 'small')", "Str(\"big\")");
    check("if(n > 50, 'big')", "absent");
    check("coalesce(missing, n, 0)", "Int(7)");
    check("concat(s, '-', n)", "Str(\"Web-7\")");
    check("concat(s, missing)", "absent");
    check("length(lower(s))", "Int(3)");
    check("upper('it\\'s')", "Str(\"IT'S\")");
    check("log10(1000) + floor(x) + ceil(x) + abs(-2)", "Float(10.0)");
    check("bucket(x, 1)", "Float(2.0)");
    check("bucket(n, 5)", "Int(5)");
    check("bucket(0 - n, 5)", "Int(-10)");
    check("bucket(n, 0)", "absent");
    check("exists(missing) or exists(`s`)", "Bool(true)");
    check("cast('12', 'int') + cast(t, 'int')", "Int(13)");
    check("cast(x, 'int')", "Int(2)");
    check("cast('x', 'int')", "absent");
    check("cast(n, 'text')", "Str(\"7\")");
    check("starts_with(s, 'W') and ends_with(s, 'b') and contains(s, 'e')", "Bool(true)");
    check("1e3 + 2.5", "Float(1002.5)");
}

#[test]
fn errors_name_their_place() {
    check("", "expression, at character 1: expected a value");
    check("n +", "expression, at character 4: expected a value");
    check("'a' * 2", "expression, at character 1: expected a number, this is text");
    check("2 * lower(s)", "expression, at character 5: expected a number, this is text");
    check("lower(5)", "expression, at character 7: expected text, this is a number");
    check("n and 5", "expression, at character 7: expected true or false, this is a number");
    check(
        "n 5",
        "expression, at character 3: expected an operator or the end; a field with other characters stands in backticks",
    );
    check("bucket(n)", "expression, at character 1: bucket takes 2 arguments, here are 1");
    check("exists(n + 1)", "expression, at character 8: expected a field");
    check("cast(n, 'date')", "expression, at character 9: expected 'int', 'float', 'text' or 'bool'");
    check(
        "5x",
        "expression, at character 1: \"5x\" is not a number; a field that begins with a digit stands in backticks",
    );
    check("'abc", "expression, at character 1: a quote is not closed");
    let message = Expression::parse("f(n)").unwrap_err();
    assert!(message.to_string().starts_with("expression, at character 1: there is no function \"f\"; there are if,"));
}

#[test]
fn it_is_bounded() {
    assert!(Expression::parse(&"(".repeat(4_000)).is_err());
    assert!(Expression::parse(&"-".repeat(4_000)).is_err());
    assert!(Expression::parse(&"not ".repeat(1_000)).is_err());
    assert!(Expression::parse(&"abs(".repeat(1_000)).is_err());
    assert!(Expression::parse(&format!("1{}", "+1".repeat(2_000))).is_err());
    assert!(Expression::parse(&format!("'{}'", "x".repeat(5_000))).is_err());
}

/// Guarantees: whatever the text, parsing and evaluating end and do not panic.
#[test]
fn random_texts_do_no_harm() {
    const WORDS: [&str; 28] = [
        "n", "x", "s", "t", "most", "missing", "(", ")", ",", "+", " - ", "*", " / ", "%", "=", "<", "and", "or",
        "not ", "if(", "bucket(", "cast(", "'int'", "1", "0.5", "concat(", "é", "'",
    ];
    arbtest::arbtest(|u| {
        let n: usize = u.int_in_range(0..=20)?;
        let mut text = String::new();
        for _ in 0..n {
            text.push_str(u.choose(&WORDS)?);
            text.push(' ');
        }
        if let Ok(expression) = Expression::parse(&text) {
            let names = expression.fields().to_vec();
            let _ = expression.evaluate(&mut |place| fields(&names[place]));
        }
        Ok(())
    });
}
