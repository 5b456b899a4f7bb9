//! LaunchDarkly's attribute references, and where the attribute stands in an OpenFeature context.
//!
//! A context of kind `user` is the top level of the OpenFeature context and its key is the targeting key; a context of any
//! other kind is an object under the name of its kind, with its key in `key`:
//! `{"targetingKey": "ann", "email": "…", "org": {"key": "acme", "plan": "gold"}}`.

use serde_json::{Value, json};

use super::form::{self, NO, YES, all, escape, exists, not};

/// What an attribute reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reference {
    /// The kinds of the context.
    Kind,
    Key,
    /// Always there: false unless set.
    Anonymous,
    /// An attribute, and the way into it.
    Path(Vec<String>),
    /// Built-in attributes have nothing inside.
    Nothing,
    Invalid,
}

impl Reference {
    /// Reads a reference. Data from before context kinds has plain names, which are taken as they are.
    pub(super) fn parse(text: &str, plain: bool) -> Reference {
        if text.is_empty() || (!plain && text == "/") {
            return Reference::Invalid;
        }
        if plain || !text.starts_with('/') {
            return Reference::of(vec![text.to_owned()]);
        }
        let mut steps = Vec::new();
        for step in text[1..].split('/') {
            match unescape(step) {
                Some(step) if !step.is_empty() => steps.push(step),
                _ => return Reference::Invalid,
            }
        }
        Reference::of(steps)
    }

    fn of(steps: Vec<String>) -> Reference {
        let built_in = match steps[0].as_str() {
            "kind" => Reference::Kind,
            "key" => Reference::Key,
            "anonymous" => Reference::Anonymous,
            _ => return Reference::Path(steps),
        };
        if steps.len() == 1 { built_in } else { Reference::Nothing }
    }
}

fn unescape(step: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = step.chars();
    while let Some(c) = rest.next() {
        text.push(match c {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(text)
}

/// The key of the context of a kind.
pub(super) fn key_of(kind: &str) -> Value {
    if kind == "user" { json!("targetingKey") } else { attribute(kind, &["key".to_owned()]) }
}

/// The context has a part of that kind.
pub(super) fn has_kind(kind: &str) -> Value {
    exists(&key_of(kind))
}

/// The attribute of a kind: a plain name where that says it, else a JSON pointer.
pub(super) fn attribute(kind: &str, steps: &[String]) -> Value {
    let plain = |name: &str| {
        !name.is_empty() && !name.starts_with('$') && !name.contains(['.', '/', '~']) && name != "targetingKey"
    };
    match (kind, steps) {
        ("user", [name]) if plain(name) => json!(name),
        (kind, [name]) if kind != "user" && plain(kind) && plain(name) => json!(format!("{kind}.{name}")),
        _ => {
            let first = if kind == "user" { String::new() } else { format!("/{}", escape(kind)) };
            json!(steps.iter().fold(first, |pointer, step| format!("{pointer}/{}", escape(step))))
        }
    }
}

/// The attribute as JSONLogic sees it; none where a name in it has a dot.
pub(super) fn variable(kind: &str, steps: &[String]) -> Option<Value> {
    let kind = Some(kind).filter(|kind| *kind != "user");
    let path: Vec<&str> = kind.into_iter().chain(steps.iter().map(String::as_str)).collect();
    let clear = path.iter().all(|step| !step.is_empty() && !step.contains('.')) && !path[0].starts_with('$');
    clear.then(|| json!({"var": path.join(".")}))
}

/// What must hold for a path to mean what it means to LaunchDarkly, which never looks into lists.
pub(super) fn no_lists_on_the_way(kind: &str, steps: &[String]) -> Value {
    let is_number = |step: &String| step.bytes().all(|b| b.is_ascii_digit());
    all((1..steps.len()).filter(|n| is_number(&steps[*n])).map(|n| match variable(kind, &steps[..n]) {
        // Of an object `map` makes an empty list.
        Some(variable) => form::logic(json!({"!": [{"map": [variable, true]}]})),
        None => YES,
    }))
}

/// Whether the attribute, which is there, is neither text nor a whole number: LaunchDarkly puts such a unit in place 0.
/// None where it cannot be told.
pub(super) fn has_no_place(kind: &str, steps: &[String]) -> Option<Value> {
    let v = variable(kind, steps)?;
    let text = json!({"===": [v, {"cat": [v]}]});
    let whole = json!({"and": [{"===": [v, {"+": [v]}]}, {"===": [{"%": [v, 1]}, 0]}]});
    Some(all([exists(&attribute(kind, steps)), not(form::logic(json!({"or": [text, whole]})))]))
}

/// A condition about a built-in attribute that is false unless set.
pub(super) fn or_unset(kind: &str, condition: Value, if_false: bool) -> Value {
    if !if_false {
        return condition;
    }
    let unset = not(exists(&attribute(kind, &["anonymous".to_owned()])));
    form::any([condition, all([has_kind(kind), unset, if if_false { YES } else { NO }])])
}
